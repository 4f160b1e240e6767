"""A module's own checks: functions that tell whether the module can work, called when somebody asks for health."""

from __future__ import annotations

import inspect
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, overload

from koupleless.context import current, entered
from koupleless.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Context

    from koupleless.context import Scope

P = ParamSpec("P")
R = TypeVar("R")

TIMEOUT_S: Final = 5.0


class Caller(Protocol):
    """Calls a function of a biz and awaits the result on the loop of the bizs, as `Stage.call_as` does."""

    def __call__(
        self, scope: Scope, function: Callable[[], object], context: Context, /, *, name: str, timeout_s: float
    ) -> object:
        """Return the result; raises ``TimeoutError`` at the deadline, and any error of the function."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of one check."""

    is_up: bool
    details: Mapping[str, object] = field(default_factory=dict)


@overload
def health_check(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def health_check(
    *, name: str | None = None, timeout: float = TIMEOUT_S
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def health_check(
    function: Callable[..., Any] | None = None, /, *, name: str | None = None, timeout: float = TIMEOUT_S
) -> Any:
    """Let a function of a module, sync or async and without arguments, take part in the health of the module.

    A decorator, with arguments or without. ``name`` is by default the name of the function; a later check of a name
    replaces the earlier one. The function is called as the module whenever somebody asks for health, at most once a
    second; a sync one on a thread. The module is down if the function returns ``False``, raises an error, or takes
    longer than ``timeout`` seconds, by default five; a mapping is shown as details. The check leaves with the module.
    In the base, and in a module that runs alone, the function is returned as it is.
    """

    def register(check: Callable[..., Any]) -> Callable[..., Any]:
        scope = current()
        if scope is not None:
            label = name or str(getattr(check, "__name__", type(check).__name__))
            scope.attach_once(Checks()).by_name[label] = Check(check, timeout)
        return check

    return register if function is None else register(function)


class Check:
    """One check. One call at a time; a call that has not ended is not joined by another."""

    def __init__(self, function: Callable[[], Any], timeout_s: float) -> None:
        self._function = function
        self._timeout_s = timeout_s
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - asked for its kind
        )
        self._begun: float | None = None

    def run(self, scope: Scope, name: str, call: Caller) -> Outcome:
        """Call the function as the biz of ``scope`` and return the answer. Never raises."""
        begun = self._begun
        if begun is not None:
            return _down(f"the call before has not ended after {time.monotonic() - begun:.0f} s")
        self._begun = time.monotonic()
        try:
            if self._is_async:
                try:
                    result = call(
                        scope, self._function, scope.variables.fork(), name="check", timeout_s=self._timeout_s
                    )
                finally:
                    self._begun = None
            else:
                result = self._on_thread(scope, name)
            return _outcome(result)
        except (NotDone, TimeoutError):
            return _down(f"no answer within {self._timeout_s:g} s")
        except BaseException as error:  # noqa: BLE001 - code of the biz, which may raise SystemExit
            return _down(in_words(error))

    def _on_thread(self, scope: Scope, name: str) -> object:
        """Call the function on a thread of the biz, which leaves with the biz."""
        answer: Future[object] = Future()

        def work() -> None:
            try:
                result = self._function()
            except BaseException as error:  # noqa: BLE001 - as above
                answer.set_exception(error)
            else:
                answer.set_result(result)
            finally:
                self._begun = None

        with entered(scope):
            threading.Thread(target=work, name=f"health check {name} of {scope.biz}", daemon=True).start()
        return answer.result(self._timeout_s)


class Checks:
    """The checks of one life of one biz: a facet of the scope, made with the first check."""

    def __init__(self) -> None:
        self.by_name: dict[str, Check] = {}


def _outcome(result: object) -> Outcome:
    if isinstance(result, dict):
        details = {str(key): value if isinstance(value, str | int | float | bool) else str(value)
                   for key, value in result.items()}  # fmt: skip
        return Outcome(is_up=True, details=details)
    return Outcome(is_up=result is not False)


def _down(error: str) -> Outcome:
    return Outcome(is_up=False, details={"error": error})

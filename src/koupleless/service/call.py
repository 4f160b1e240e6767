"""Calls of services as visits: before leaving, the owner of a service waits for the calls inside.

The caller of a call that has not ended at the drain deadline gets `BizGone`. Plain calls, from entrance to return, are
counted by `Visits`; `Body` is the body of a coroutine or generator, from the first step to the last.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current, entered
from koupleless.errors import BizGone, in_words
from koupleless.visits import Visit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from koupleless.context import Scope
    from koupleless.visits import Visits

_log: Final = logging.getLogger("koupleless")

_GIVEN_UP: Final = 2
"""Cancellations of one body after which nobody waits for the body any more."""


def gone(scope: Scope) -> BizGone:
    """The error for the caller of an owner that has left, or has told the call to end."""
    return BizGone(scope.biz, what="this call of its service was not finished")


class Unwatched:
    """The body of a service of the caller's own biz, or of the base: nobody waits for its end, and nobody ends it."""

    __slots__ = ()

    is_given_up = False

    def awaits(self) -> None:
        """Note the running task, which awaits the body from now on."""

    def close_by(self, close: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
        """Say how the body is closed."""

    def pauses(self) -> bool:
        """Note that the body has made a step; return ``False`` if the body must be closed instead of going on."""
        return True

    def resumes(self) -> bool:
        """Note that the body is about to make another step; return ``False`` if the body was closed meanwhile."""
        return True

    def ends(self, error: BaseException | None = None) -> bool:  # noqa: ARG002 - as `Body.ends`
        """Sign out; return whether the caller gets the outcome, ``error`` or a value, rather than `gone`."""
        return True

    def gone(self) -> BizGone:
        """The error for the caller of a body that was told to end."""
        raise AssertionError("nobody tells an unwatched body to end")

    def go_on_alone(self, rest: Coroutine[Any, Any, None]) -> None:  # noqa: ARG002 - as `Body.go_on_alone`
        """Leave the rest of the body to a task of the owner's, which the ledger of the owner ends, and reports."""
        raise AssertionError("nobody gives an unwatched body up")


class Body(Unwatched, Visit):
    """The body of a coroutine, generator or context manager of another biz, from the first step to the last.

    A body can be told to end, and the caller then gets `BizGone`, however the body reacts:

    - an awaited body is cancelled together with the awaiting task; for the task, the cancellation ends here;
    - a body that ignores a cancellation is given up at the second one, and goes on in a task of the owner;
    - a body paused between two steps is closed, on a thread or on the event loop of the body, and the caller is told at
      the next step.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._is_closed = False
        self._close: Callable[[], Coroutine[Any, Any, None] | None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._paused: list[bool] = []
        """Not empty while the body is between two steps. The taker of the item goes on with the body, or closes it."""

    @property
    def is_over(self) -> bool:
        """Whether the body was told to end."""
        return self._is_closed or self.is_aborted

    def awaits(self) -> None:  # noqa: D102
        # Outside of event loops, and in loops other than those of asyncio, there is no task.
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public function raises where there is none
            self.task = asyncio.current_task()

    def close_by(self, close: Callable[[], Coroutine[Any, Any, None] | None]) -> None:  # noqa: D102
        self._close = close

    def pauses(self) -> bool:  # noqa: D102
        if self.is_over:
            return False
        if self.task is not None:
            self._loop, self.task = self.task.get_loop(), None
        self._paused.append(True)
        return True

    def resumes(self) -> bool:  # noqa: D102
        try:
            return self._paused.pop()
        except IndexError:
            return False

    def ends(self, error: BaseException | None = None) -> bool:
        """Sign out; return whether the caller gets the outcome, ``error`` or a value, rather than `gone`.

        A cancellation is the caller's own if somebody else has cancelled the task as well.
        """
        self._scope.calls.leave(self)
        if not self.is_over:
            return True
        return not self.forgive() and isinstance(error, asyncio.CancelledError)

    def gone(self) -> BizGone:  # noqa: D102
        return gone(self._scope)

    # --- the end -----------------------------------------------------------------------------------------------------

    def abort(self, inside: Visits) -> None:
        """Tell the body to end. On an event loop."""
        if self.resumes():
            self._is_closed = True
            self._close_body()
        elif self.task is None:
            self._is_closed = True
        else:
            super().abort(inside)

    def _close_body(self) -> None:
        close, self._close = self._close, None
        assert close is not None
        if self._loop is None:
            asyncio.get_running_loop().run_in_executor(None, self._closing, close)
            return
        try:
            self._loop.call_soon_threadsafe(self._begin_closing, close)
        except RuntimeError:  # the loop is closed
            self._scope.calls.leave(self)

    def _closing(self, close: Callable[[], object]) -> None:
        try:
            close()
        except BaseException as error:  # noqa: BLE001 - code of the owner; logged, for nobody waits for the outcome
            self._tell(error)
        finally:
            self._scope.calls.leave(self)

    def _begin_closing(self, close: Callable[[], Any]) -> None:
        async def closing() -> None:
            try:
                await close()
            except BaseException as error:  # noqa: BLE001 - code of the owner; logged, for nobody waits for the outcome
                self._tell(error)
            finally:
                self._scope.calls.leave(self)

        with as_base():
            self.task = asyncio.get_running_loop().create_task(closing())

    def _tell(self, error: BaseException) -> None:
        said = in_words(error)
        _log.warning("biz %s: a generator of its service failed when it was closed: %s", self._scope.biz, said)

    @property
    def is_given_up(self) -> bool:  # type: ignore[override]
        """Whether the body ignored a cancellation."""
        return self._cancels >= _GIVEN_UP

    def go_on_alone(self, rest: Coroutine[Any, Any, None]) -> None:  # noqa: D102
        with entered(self._scope):
            asyncio.get_running_loop().create_task(rest, name=f"call of a service of {self._scope.biz}")


_UNWATCHED: Final = Unwatched()


def begin_body(scope: Scope | None) -> Unwatched:
    """Sign the body of a service of ``scope`` in, for the biz that is running here.

    Raises `BizGone` if the owner is leaving.
    """
    if scope is None or scope is current():
        return _UNWATCHED
    body = Body(scope)
    if not scope.calls.enter(body):
        raise body.gone()
    return body

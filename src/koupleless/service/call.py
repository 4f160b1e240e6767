"""One use of a service, which its owner waits for before it leaves, and ends if that takes too long."""

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


class Use:
    """A use of a service of one's own, or of the base's: nobody waits for its end, and nobody ends it."""

    __slots__ = ()

    is_given_up = False

    def awaits(self) -> None:
        """The task that runs here awaits the body from now on."""

    def close_by(self, close: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
        """Say how the body is closed that this is the use of."""

    def pauses(self) -> bool:
        """The body has made a step; ``False`` if it is to make no other one, but to be closed."""
        return True

    def resumes(self) -> bool:
        """The body is to make another step; ``False`` if it was closed meanwhile."""
        return True

    def ends(self, error: BaseException | None = None) -> bool:  # noqa: ARG002 - see `Call`
        """Sign out; whether the caller gets the outcome, ``error`` or a value: if not, `gone` is what it gets."""
        return True

    def gone(self) -> BizGone:
        """The error for the caller."""
        raise AssertionError("it ends by itself")

    def go_on_alone(self, rest: Coroutine[Any, Any, None]) -> None:  # noqa: ARG002 - see `Call`
        """Leave the rest of the body to a task of its owner's, which is asked to end, and named, as all of these."""
        raise AssertionError("it ends by itself")


class Call(Use, Visit):
    """A use of a service of another biz's, for which that waits before it leaves: this one lasts as long as a call.

    A thread that waits in it cannot be interrupted; if the call was told to end, its caller gets `BizGone` when it
    returns.
    """

    __slots__ = ("_is_over", "_scope")

    def __init__(self, scope: Scope) -> None:
        self.task = None  # as `Visit.__init__`, without the way there: this is paid for each call
        self._cancels = 0
        self._is_over = False
        self._scope = scope

    def enters(self) -> bool:
        """Sign in; ``False`` if the owner is leaving."""
        return self._scope.calls.enter(self)

    def ends(self, error: BaseException | None = None) -> bool:
        """As `Use.ends`. A cancellation is the caller's own if somebody else has cancelled the task as well."""
        self._scope.calls.leave(self)
        if not self.is_over:
            return True
        return not self.forgive() and isinstance(error, asyncio.CancelledError)

    def gone(self) -> BizGone:  # noqa: D102
        return BizGone(str(self._scope.biz), what="this call of its service was not finished")

    @property
    def is_over(self) -> bool:
        """Whether it was told to end."""
        return self._is_over or self._cancels > 0

    def abort(self, inside: Visits) -> None:
        """Tell it to end. On an event loop."""
        if self.task is None:
            self._is_over = True
        else:
            super().abort(inside)


class Body(Call):
    """The body of a coroutine, generator or context manager: a use from its first step to its last.

    If it is told to end, its caller gets `BizGone`, whatever the body makes of that. One that a task awaits is
    cancelled together with the task, for which the cancellation ends here; one that ignores it is given up at the
    second time, and goes on in a task of its owner's. One that is paused between two steps is closed, on a thread or on
    its loop, and its caller is told at the next step.
    """

    __slots__ = ("_close", "_loop", "_paused")

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._close: Callable[[], Coroutine[Any, Any, None] | None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._paused: list[bool] = []
        """Not empty while the body is between two steps; whoever empties it goes on with the body, or closes it."""

    def awaits(self) -> None:  # noqa: D102
        # Outside of event loops, and in those that are not asyncio's, there is no task.
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - what the public function raises for
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

    # --- the end -----------------------------------------------------------------------------------------------------

    def abort(self, inside: Visits) -> None:
        """Tell it to end. On an event loop."""
        if self.resumes():
            self._is_over = True
            self._close_body()
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
        except RuntimeError:  # its loop is closed
            self._scope.calls.leave(self)

    def _closing(self, close: Callable[[], object]) -> None:
        try:
            close()
        except BaseException as error:  # noqa: BLE001 - code of the owner; told, for nobody waits for it
            self._tell(error)
        finally:
            self._scope.calls.leave(self)

    def _begin_closing(self, close: Callable[[], Any]) -> None:
        async def closing() -> None:
            try:
                await close()
            except BaseException as error:  # noqa: BLE001 - as above
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
        """Whether the body ignored that it was to end."""
        return self._cancels >= _GIVEN_UP

    def go_on_alone(self, rest: Coroutine[Any, Any, None]) -> None:  # noqa: D102
        with entered(self._scope):
            asyncio.get_running_loop().create_task(rest, name=f"call of a service of {self._scope.biz}")


_UNWATCHED: Final = Use()


def begin(scope: Scope | None, kind: type[Call] = Call) -> Use:
    """The use of a service of ``scope`` by whoever is running.

    Raises `BizGone` if the biz is leaving.
    """
    if scope is None or scope is current():
        return _UNWATCHED
    call = kind(scope)
    if not call.enters():
        raise call.gone()
    return call

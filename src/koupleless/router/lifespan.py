"""The ASGI lifespan of one application: started, kept in one task, ended."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from koupleless.context import as_base, entered, life_context
from koupleless.errors import StartFailed, StartTimeout, StopFailed
from koupleless.exits import EXITS, in_place_of

if TYPE_CHECKING:
    from koupleless.context import Scope
    from koupleless.router.types import ASGIApp, Connection, Message

T = TypeVar("T")

_log: Final = logging.getLogger(__name__)

_GRACE_S: Final = 1.0
"""How long a cancelled lifespan task may take to end."""


open_lifespans: Final[set[asyncio.Task[None]]] = set()
"""The tasks of all lifespans that nobody has asked to end: one for each application, at rest."""


class Lifespan:
    """The lifespan of one application, from `startup` to `shutdown`.

    Lifetime: used once. The application runs in one task from the first message to the last, because context variables
    and task groups opened on the way in are closed on the way out. An application that knows no lifespan (raises or
    returns before an answer) is as good as one with a lifespan that does nothing.

    Threads: `startup` and `shutdown` run on the loop that serves the requests of the application.
    """

    def __init__(self, app: ASGIApp, *, scope: Scope | None = None, server: Connection | None = None) -> None:
        """``scope`` is the biz to run as, ``None`` the base; ``server`` the lifespan scope of a server to pass on."""
        self.name = "the application of the base" if scope is None else str(scope.biz)
        self._biz = None if scope is None else scope.biz
        self.is_supported: bool | None = None
        """Whether the application knows lifespans; ``None`` until the application has started."""
        self.state: dict[str, Any] = {}
        """The state that the application has put into ``scope["state"]``; requests get a copy of the state."""
        self._app: ASGIApp | None = app
        self._scope = scope
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._inbox: _Letterbox[Message] = _Letterbox()
        self._answers: dict[str, Message] = {}
        self._answered: _Letterbox[None] = _Letterbox()

    async def startup(self, timeout_s: float | None) -> dict[str, Any]:
        """Start the application; returns the state of the application.

        Raises ``StartFailed`` with the message of the application, ``StartTimeout`` if there was no message in time. In
        both cases, and when the caller is cancelled, the task is cancelled and over (or has ignored the cancellation
        for a second), and the error holds nothing of the application but text.
        """
        self._task = self._begin()
        try:
            answer = await self._ask("startup", timeout_s)
        except TimeoutError:
            await self._end()
            raise StartTimeout(self._biz, timeout_s or 0.0) from None
        except BaseException:
            await self._end()
            raise
        if answer is None:
            self.is_supported = False
            self.state.clear()
            await self._end()
            return self.state
        self.is_supported = True
        if answer["type"] == "lifespan.startup.failed":
            raised = await self._end(patience_s=_GRACE_S)
            self.state.clear()
            said = str(answer.get("message") or "") or raised
            raise StartFailed(self._biz, f"did not start: {_gist(said)}", traceback=said)
        return self.state

    def _begin(self) -> asyncio.Task[None]:
        context = None if self._scope is None else life_context(self._scope)
        with as_base():
            # A task of the base, not of the biz: the task is ended here, by the protocol of lifespans.
            task = asyncio.create_task(self._run(), name=f"lifespan of {self.name}", context=context)
        open_lifespans.add(task)
        return task

    async def shutdown(self, timeout_s: float | None) -> None:
        """End the application; nothing happens if the application did not start, or has ended.

        Raises ``StopFailed`` if the application says that its shutdown failed, raises, or takes longer; the task is
        over all the same, as in `startup`.
        """
        if self._task is None:
            return
        try:
            answer = await self._ask("shutdown", timeout_s)
        except TimeoutError:
            await self._end()
            raise StopFailed(self._biz, f"did not stop within {timeout_s:g} s") from None
        except BaseException:
            await self._end()
            raise
        raised = await self._end(patience_s=_GRACE_S)
        self.state.clear()
        if raised or (answer is not None and answer["type"] == "lifespan.shutdown.failed"):
            said = str(answer.get("message") or "") if answer is not None else ""
            raise StopFailed(self._biz, f"did not stop cleanly: {_gist(said or raised)}", traceback=said or raised)

    async def _ask(self, what: Literal["startup", "shutdown"], timeout_s: float | None) -> Message | None:
        """Send the message and wait for the answer; ``None`` if the task ended without an answer."""
        assert self._task is not None
        self._inbox.put({"type": f"lifespan.{what}"})
        async with asyncio.timeout(timeout_s):
            while (answer := self._answers.get(what)) is None and not self._task.done():
                await self._answered.get()
        return answer

    async def _end(self, *, patience_s: float = 0.0) -> str:
        """End the task, and let go of the biz.

        An application that has given the last answer is on its way out, and gets ``patience_s`` to end. Returns the
        traceback of an error of the task, as text: the exception itself would keep the biz alive.
        """
        task, self._task = self._task, None
        self._app = self._scope = self._server = None
        if task is None:
            return ""
        open_lifespans.discard(task)
        if not task.done() and patience_s:
            await asyncio.wait((task,), timeout=patience_s)
        if not task.done():
            task.cancel()
            _, running = await asyncio.wait((task,), timeout=_GRACE_S)
            if running:
                return f"the lifespan task of {self.name} ignores its cancellation"
        if task.cancelled() or (error := task.exception()) is None:
            return ""
        return "".join(traceback.format_exception(error))

    async def _run(self) -> None:
        app, biz = self._app, self._scope
        assert app is not None
        if self._server is None:
            connection: Connection = {
                "type": "lifespan",
                "asgi": {"version": "3.0", "spec_version": "2.0"},
                "state": self.state,
            }
        else:
            connection = self._server
        try:
            with entered(biz):
                await app(connection, self._inbox.get, self._send)
        except EXITS as error:
            refused = in_place_of(error, self.name, "in its lifespan")
            # An application that raises any other error before an answer has no lifespan, as ASGI says.
            self._answers.setdefault("startup", {"type": "lifespan.startup.failed", "message": str(refused)})
            raise refused from error
        except Exception:
            if not self._answers:
                _log.debug("%s has no ASGI lifespan, or raised before it answered", self.name, exc_info=True)
            raise
        finally:
            if self._task is not None:
                open_lifespans.discard(self._task)
            self._answered.put(None)

    async def _send(self, message: Message) -> None:
        _, what, _ = message["type"].split(".")
        self._answers[what] = message
        self._answered.put(None)


class _Letterbox(Generic[T]):
    """A queue of a few messages. Used on one event loop.

    ``asyncio.Queue`` holds 2.3 kB while empty, and a lifespan at rest waits at an empty queue for the life of a module.
    """

    __slots__ = ("_messages", "_waiters")

    def __init__(self) -> None:
        self._messages: list[T] = []
        self._waiters: list[asyncio.Future[None]] = []

    def put(self, message: T) -> None:
        self._messages.append(message)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def get(self) -> T:
        """Wait for a message, and take the oldest; a cancelled wait takes none."""
        while not self._messages:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        return self._messages.pop(0)


def _gist(said: str) -> str:
    """The line of a failure that names the failure: of a whole traceback, which applications send, the last one."""
    lines = said.strip().splitlines()
    return lines[-1] if lines else "the lifespan reported a failure without a message"

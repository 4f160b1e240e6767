"""The heartbeat over HTTP: one message at once, one every twelve seconds, and a last one when the base ends."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from koupleless.announce.controller import ControllerSilent
from koupleless.announce.fortune import Fortune, Pulse, logger
from koupleless.context import as_base
from koupleless.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.announce.controller import Controller
    from koupleless.wire.announcements import BaseStatus

PERIOD_S: Final = 12.0
"""Seconds between two beats, as in the original; its controller takes a base for dead after 60."""
_TIMEOUT_S: Final = 10.0
_LAST_S: Final = 3.0
"""Seconds for the last beat."""
_HOPELESS_S: Final = 1.0
"""The same where the beat before the last has failed."""
_ORDER_S: Final = 0.5
"""Seconds for a beat under way to be answered before the last one is sent."""
_GRACE_S: Final = 0.5
"""Seconds beyond all these for the look-up of a name, which no timeout ends."""


class Heartbeat:
    """The heartbeat of one base to one controller.

    Lifetime: `begin` once, when the base is ready; `leave`, then `close`, when the base ends. The threads are daemons,
    which nobody waits for except `close`, and never longer than the last beat may take.
    """

    def __init__(
        self, controller: Controller, status: Callable[[bool], BaseStatus], *, period_s: float = PERIOD_S
    ) -> None:
        """``status`` returns the message: of a base that serves, or, for ``False``, of one that ends."""
        self._controller = controller
        self._status = status
        self._pulse = Pulse(period_s)
        self._fortune: Fortune | None = None
        self._leaving = threading.Event()
        self._beating: threading.Thread | None = None
        self._last: threading.Thread | None = None

    def begin(self) -> None:
        """Send the first beat, and go on; on a thread."""
        self._fortune = Fortune("http", str(self._controller))
        self._beating = _thread(self._run, "koupleless-heartbeat")

    def leave(self) -> None:
        """Send the last beat, on a thread of its own: the other may wait for an answer still. Idempotent."""
        if self._fortune is not None and not self._leaving.is_set():
            self._leaving.set()
            self._last = _thread(self._tell_end, "koupleless-last-beat")

    def close(self) -> None:
        """Wait until the last beat is sent, or cannot be. Idempotent."""
        self.leave()
        if self._last is not None:
            self._last.join(_ORDER_S + _LAST_S + _GRACE_S)
        if self._fortune is not None:
            self._fortune.close()

    # --- on the threads ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = 0.0
        while not self._leaving.wait(pause_s):
            pause_s = self._pulse.after(is_success=self._beat())

    def _beat(self) -> bool:
        assert self._fortune is not None
        status = self._status(True)
        try:
            self._controller.post("/heartbeat", status, timeout_s=_TIMEOUT_S)
        except ControllerSilent as error:
            if not self._leaving.is_set():
                self._fortune.fail(error.kind, error.reason)
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the next beat may get through
            self._fortune.fail("cannot be told of this base", in_words(error))
            return False
        self._fortune.succeed(f"knows this base as {status.base_metadata.identity}")
        return True

    def _tell_end(self) -> None:
        assert self._fortune is not None
        assert self._beating is not None
        self._beating.join(_ORDER_S)  # a beat under way arrives before, unless the controller takes long
        was_good = self._fortune.is_good is not False
        try:
            self._controller.post("/heartbeat", self._status(False), timeout_s=_LAST_S if was_good else _HOPELESS_S)
        except ControllerSilent as error:
            if was_good:
                logger.warning("%s was not told that this base ends: it %s", self._controller, error)


def _thread(target: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    with as_base():  # the thread outlives its maker
        thread.start()
    return thread

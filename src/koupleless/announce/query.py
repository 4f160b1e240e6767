"""The baseline over HTTP: asked for when the base starts, and again until the controller answers."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from koupleless.announce.controller import ControllerSilent
from koupleless.announce.fortune import Pulse, logger
from koupleless.context import as_base
from koupleless.wire.announcements import decode_baseline
from koupleless.wire.envelope import ReplyInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from koupleless.announce.controller import Controller
    from koupleless.wire.announcements import Metadata
    from koupleless.wire.requests import InstallBiz

PERIOD_S: Final = 12.0
_TIMEOUT_S: Final = 10.0
_NEVER: Final = frozenset({"answers 404", "answers 405", "answers 501"})
"""Failures of a controller that knows no baselines, which is not asked again."""


class BaselineQuery:
    """One baseline from one controller.

    The start of the base waits for the answer for a moment, by `answer`. An answer that comes later, perhaps from a
    controller that was away, is brought into the serving base by the thread of the query, after `begin`. Lifetime: of
    the base; `ask`, `answer`, `begin` and `close` once each, in this order, by the base.
    """

    def __init__(
        self, controller: Controller, metadata: Metadata, bring: Callable[[Sequence[InstallBiz]], object]
    ) -> None:
        self._controller = controller
        self._metadata = metadata
        self._bring = bring
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._serving = threading.Event()
        self._closing = threading.Event()
        self._wanted: Sequence[InstallBiz] | None = None
        self._is_late = False
        self._asked_s = 0.0

    def ask(self) -> None:
        """Ask, on a thread; returns at once."""
        self._asked_s = time.monotonic()
        thread = threading.Thread(target=self._run, name="koupleless-baseline", daemon=True)
        with as_base():  # the thread outlives its maker
            thread.start()

    def answer(self, timeout_s: float) -> Sequence[InstallBiz]:
        """The baseline, waited for until ``timeout_s`` after the question, or until the first failure; else empty."""
        self._answered.wait(max(0.0, self._asked_s + timeout_s - time.monotonic()))
        with self._lock:
            if self._wanted is not None:
                return self._wanted
            self._is_late = True
        logger.warning(
            "%s has not said which modules it wants; the base starts with its own, and asks again", self._controller
        )
        return ()

    def begin(self) -> None:
        """Let a late answer be brought in: the base serves."""
        self._serving.set()

    def close(self) -> None:
        """Ask no more, and bring nothing in. Idempotent."""
        self._closing.set()
        self._serving.set()

    # --- on the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pulse, pause_s = Pulse(PERIOD_S), 0.0
        while not self._closing.wait(pause_s):
            try:
                wanted = decode_baseline(self._controller.post("/queryBaseline", self._metadata, timeout_s=_TIMEOUT_S))
            except ControllerSilent as error:
                if error.kind in _NEVER:
                    wanted = []
                else:
                    self._answered.set()  # with nothing, so the start waits no longer
                    pause_s = pulse.after(is_success=False)
                    continue
            except ReplyInvalid as error:
                logger.warning("the modules that %s wants are not known: %s", self._controller, error)
                wanted = []
            self._take(wanted)
            return

    def _take(self, wanted: Sequence[InstallBiz]) -> None:
        with self._lock:
            self._wanted = wanted
            is_late = self._is_late
        self._answered.set()
        if is_late and wanted:
            self._serving.wait()
            if not self._closing.is_set():
                self._bring(wanted)

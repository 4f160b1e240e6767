"""What is running and what ran: one command per biz at a time, and the records of background runs."""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, Final

import msgspec

from koupleless.errors import BizBusy, KouplelessError
from koupleless.wire.envelope import encode
from koupleless.wire.replies import OpsRecord, OpsStatus, StackFrame, Throwable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from koupleless.wire.requests import BizRequest

KEPT_RUNS: Final = 1000
"""How many finished runs are remembered."""
KEPT_SECONDS: Final = 24 * 3600.0
"""For how long."""
KEPT_BYTES: Final = 16 << 20
"""How large they may be together, as they go over the wire."""
MAX_UNFINISHED_RUNS: Final = 1000
MAX_UNFINISHED_BYTES: Final = 8 << 20
"""How large the requests of those that have not finished may be together: what they become in memory is larger."""

_LONGEST_TEXT: Final = 10_000
_MOST_FRAMES: Final = 100
_MOST_CAUSES: Final = 10


class RunRepeated(KouplelessError):
    """A request id that was used already."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"The request corresponding to the requestId({request_id}) has been executed.")


class TooManyRuns(KouplelessError):
    """More background runs are waiting than a base takes; ``limit`` is how many of what that is."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"{limit} have not finished; ask again when some of them have")


class Conflicts:
    """Which command is running for which ``name:version``. Lives as long as the operations; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, str] = {}

    def take(self, identity: str, command: str) -> None:
        """Claim ``identity`` for ``command``, to be given back; raises ``BizBusy`` at once if another has it."""
        with self._lock:
            if identity in self._running:
                raise BizBusy(identity, self._running[identity])
            self._running[identity] = command

    def give_back(self, identity: str) -> None:
        """End the claim."""
        with self._lock:
            del self._running[identity]


class Run:
    """One background run, from the moment it was accepted.

    Lifetime: as long as `Runs` remembers it. Threads: one worker moves it, any thread takes `snapshot`s. It keeps the
    bytes of its record alone: no exception, so no biz, and a size that can be known.
    """

    def __init__(self, request_id: str, meta: dict[str, Any], *, clock: Callable[[], float]) -> None:
        self.request_id = request_id
        self.ended: int | None = None
        """When it finished, in milliseconds."""
        self._clock = clock
        self._lock = threading.Lock()
        started = self._now()
        self._put(
            OpsRecord(
                request_id=request_id,
                ark_biz_meta=meta,
                status=OpsStatus.INITIALIZED,
                start_time=started,
                start_timestamp=started,
                end_timestamp=0,
                elapsed_time=0,
            )
        )

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return len(self._encoded)

    def snapshot(self) -> OpsRecord:
        """The record as it is now."""
        return msgspec.json.decode(self._encoded, type=OpsRecord)

    def begin(self) -> None:
        """A worker took it up: this thread."""
        self._move(status=OpsStatus.EXECUTING, thread_name=threading.current_thread().name)

    def succeed(self) -> None:
        """It did what was asked."""
        self._end(OpsStatus.SUCCEEDED)

    def fail(self, message: str, throwable: Throwable | None = None) -> None:
        """It did not."""
        self._end(OpsStatus.FAILED, message=_cut(message), throwable=throwable)

    def _end(self, status: OpsStatus, **changes: Any) -> None:
        now = self._now()
        elapsed = max(0, now - self.snapshot().start_timestamp)
        self._move(status=status, end_time=now, end_timestamp=now, elapsed_time=elapsed, **changes)
        self.ended = now

    def _move(self, **changes: Any) -> None:
        with self._lock:
            self._put(msgspec.structs.replace(self.snapshot(), **changes))

    def _put(self, record: OpsRecord) -> None:
        # A copy, since what the encoder returns has room for half as much again.
        self._encoded = bytes(memoryview(encode(record)))

    def _now(self) -> int:
        return int(self._clock() * 1000)


class Runs:
    """The background runs a base remembers: all unfinished ones, and of the finished the latest, for a day.

    As many of those as have room: `KEPT_RUNS`, and `KEPT_BYTES`.

    Lives as long as the operations; any thread may call.
    """

    def __init__(
        self,
        *,
        kept: int = KEPT_RUNS,
        kept_s: float = KEPT_SECONDS,
        kept_bytes: int = KEPT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._kept_s = kept_s
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}  # in the order they were accepted

    def open(self, request: BizRequest) -> Run:
        """Accept a request. Raises ``RunRepeated``, ``TooManyRuns``."""
        assert request.request_id is not None
        run = Run(request.request_id, request.describe(), clock=self._clock)
        with self._lock:
            if run.request_id in self._runs:
                raise RunRepeated(run.request_id)
            unfinished = self._forget_locked()
            if len(unfinished) >= MAX_UNFINISHED_RUNS:
                raise TooManyRuns(f"{MAX_UNFINISHED_RUNS} background requests")
            if sum(other.size for other in unfinished) + run.size > MAX_UNFINISHED_BYTES:
                raise TooManyRuns(f"background requests of {MAX_UNFINISHED_BYTES} bytes")
            self._runs[run.request_id] = run
        return run

    def find(self, request_id: str) -> Run | None:
        """The run of that id, if it is remembered."""
        with self._lock:
            return self._runs.get(request_id)

    def _forget_locked(self) -> list[Run]:
        """Drop the finished runs that are too old or too many; the unfinished ones are returned."""
        oldest = int((self._clock() - self._kept_s) * 1000)
        unfinished = [run for run in self._runs.values() if run.ended is None]
        size = 0
        finished = [run for run in self._runs.values() if run.ended is not None]
        for kept, run in enumerate(reversed(finished), 1):
            size += run.size
            # One place is for the run that is about to be opened.
            if kept >= self._kept or size > self._kept_bytes or (run.ended or 0) < oldest:
                del self._runs[run.request_id]
        return unfinished


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"


def describe_error(error: BaseException, *, message: str | None = None) -> Throwable:
    """An exception and its causes as plain data, so that nothing of it stays alive; ``message`` replaces its text."""
    described: Throwable | None = None
    for link in reversed(chain(error)[:_MOST_CAUSES]):
        text = _cut(message if message is not None and link is error else str(link))
        described = Throwable(
            kind=_kind(link),
            message=text,
            localized_message=text,
            stack_trace=[
                StackFrame(
                    class_name=frame.filename.rpartition("/")[2].removesuffix(".py"),
                    file_name=frame.filename,
                    line_number=frame.lineno or 0,
                    method_name=frame.name,
                )
                for frame in reversed(traceback.extract_tb(link.__traceback__)[-_MOST_FRAMES:])
            ],
            cause=described,
        )
    assert described is not None
    return described


def chain(error: BaseException) -> list[BaseException]:
    """The exception and its causes, the innermost last."""
    seen = [error]
    while True:
        cause = seen[-1].__cause__
        if cause is None and not seen[-1].__suppress_context__:
            cause = seen[-1].__context__
        if cause is None or any(cause is link for link in seen):
            return seen
        seen.append(cause)


def _kind(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"

"""The records of background runs, and the refusals of runs and batches."""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from koupleless.errors import BizBusy, KouplelessError
from koupleless.wire.envelope import encode, without_values
from koupleless.wire.replies import OpsRecord, OpsStatus, StackFrame, Throwable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from koupleless.wire.requests import BizRequest

KEPT_RUNS: Final = 1000
"""Most finished runs that are remembered."""
KEPT_SECONDS: Final = 24 * 3600.0
"""Seconds that a finished run is remembered."""
KEPT_BYTES: Final = 16 << 20
"""Most bytes of all finished runs together, in their form on the wire."""
MAX_UNFINISHED_RUNS: Final = 1000
MAX_UNFINISHED_BYTES: Final = 8 << 20
"""Most bytes of the requests of all unfinished runs together; in memory, the requests are larger."""

_LONGEST_TEXT: Final = 10_000
_MOST_FRAMES: Final = 100
_MOST_CAUSES: Final = 10


class RunRepeated(KouplelessError):
    """A second request with the same id."""

    source: ClassVar[str] = "Request"

    def __init__(self, request_id: str) -> None:
        super().__init__(f"The request corresponding to the requestId({request_id}) has been executed.")


class TooManyRuns(KouplelessError):
    """A background run above the limit of the base; ``limit`` is the number and the kind of runs."""

    source: ClassVar[str] = "Request"

    def __init__(self, limit: str) -> None:
        super().__init__(f"{limit} have not finished; ask again when some of them have")


class BatchBusy(BizBusy):
    """Another batch is running; ``identity`` is name and version of the second batch, as sent."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.operation = "batchInstallBiz"
        KouplelessError.__init__(self, f"batch {identity} is not begun: another batch has not finished")


class Run:
    """One background run, from the moment of acceptance.

    Lifetime: as long as `Runs` remembers the run. Threads: one worker changes the run, any thread takes `snapshot`s. A
    run keeps the bytes of the record alone: no exception, so no biz, and a known size.
    """

    def __init__(self, request_id: str, meta: dict[str, Any], *, clock: Callable[[], float]) -> None:
        self.request_id = request_id
        self.ended: int | None = None
        """The end of the run, in milliseconds; ``None`` before the end."""
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
        """The size of the record in bytes."""
        return len(self._encoded)

    def snapshot(self) -> OpsRecord:
        """The present record."""
        return msgspec.json.decode(self._encoded, type=OpsRecord)

    def begin(self) -> None:
        """Note that the thread here has begun to work on the run."""
        self._move(status=OpsStatus.EXECUTING, thread_name=threading.current_thread().name)

    def succeed(self) -> None:
        """Note that the command has succeeded."""
        self._end(OpsStatus.SUCCEEDED)

    def fail(self, message: str, throwable: Throwable | None = None) -> None:
        """Note that the command has failed."""
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
        # A copy, since the result of the encoder has room for half as much again.
        self._encoded = bytes(memoryview(encode(record)))

    def _now(self) -> int:
        return int(self._clock() * 1000)


class Runs:
    """The background runs that a base remembers: all unfinished ones, and the latest finished ones, for a day.

    `KEPT_RUNS` and `KEPT_BYTES` limit the finished ones. Lives as long as the operations; any thread may call.
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
        run = Run(request.request_id, without_values(request.describe()), clock=self._clock)
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
        """The run of an id, if the run is remembered."""
        with self._lock:
            return self._runs.get(request_id)

    def _forget_locked(self) -> list[Run]:
        """Drop finished runs that are too old or too many; returns the unfinished runs."""
        oldest = int((self._clock() - self._kept_s) * 1000)
        unfinished = [run for run in self._runs.values() if run.ended is None]
        size = 0
        finished = [run for run in self._runs.values() if run.ended is not None]
        for kept, run in enumerate(reversed(finished), 1):
            size += run.size
            # One place is for the run of the caller.
            if kept >= self._kept or size > self._kept_bytes or (run.ended or 0) < oldest:
                del self._runs[run.request_id]
        return unfinished


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"


def describe_error(error: BaseException, *, message: str | None = None) -> Throwable:
    """An exception and its causes as plain data, so that no object stays alive; ``message`` replaces the text."""
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

"""The metrics of a container, and of the process, with a text for each. The page ``docs/metrics.md`` lists all.

Labels are names and versions of living bizs, and a few words of ours, so the number of series is bounded. A series of a
biz goes with the biz.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from koupleless.adapters.prometheus import Distribution, Family, publish
from koupleless.isolation.libraries.resident import arrivals
from koupleless.metrics.work import count_tasks, count_threads, processor_seconds
from koupleless.traffic import BOUNDS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from koupleless.biz import BizId
    from koupleless.descriptions import BizInfo
    from koupleless.health.watch import LoopWatch
    from koupleless.metrics.accounts import Accounts

_BIZ: Final = ("biz", "version")


class Left(Protocol):
    """An object of a biz that has left."""

    @property
    def biz(self) -> BizId:
        """The identity of the biz."""


class Source(Protocol):
    """A container, as far as its metrics go."""

    @property
    def accounts(self) -> Accounts:
        """The numbers."""

    @property
    def base(self) -> BizInfo:
        """The base itself."""

    @property
    def watch(self) -> LoopWatch:
        """The watch over the event loop."""

    def bizs(self) -> Iterable[BizInfo]:
        """All bizs but the base."""

    def zombies(self) -> Iterable[Left]:
        """Objects of bizs that have left."""


class Metrics:
    """The families of one container. Lives as long as the container; any thread may read.

    ``loop`` returns the event loop of the bizs, and is called only while there is a biz.
    """

    def __init__(self, source: Source, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._source = source
        self._loop = loop

    def read(self) -> Iterator[Family]:
        """Yield the families of this moment."""
        yield from self._traffic()
        yield from self._processor()
        yield from self._work()
        yield from self._event_loop()
        yield from self._bizs()
        yield from self._operations()

    def _traffic(self) -> Iterator[Family]:
        traffic = [((biz.name, biz.version), one.read()) for biz, one in self._source.accounts.traffic().items()]
        yield Family(
            "koupleless_requests",
            "counter",
            "Requests to a module, counted at the end of each, by method and by class of the status.",
            (*_BIZ, "method", "status"),
            {(*biz, *key): number for biz, one in traffic for key, number in one.answers.items()},
        )
        yield Family(
            "koupleless_request_duration_seconds",
            "histogram",
            "Time from a request's arrival at a module to the end of the answer; without WebSockets.",
            _BIZ,
            {biz: Distribution(BOUNDS, one.durations, one.seconds) for biz, one in traffic},
        )
        yield Family(
            "koupleless_requests_in_flight",
            "gauge",
            "Requests, streams and WebSockets inside a module.",
            _BIZ,
            {biz: one.in_flight for biz, one in traffic},
        )
        yield Family(
            "koupleless_request_errors",
            "counter",
            "Exceptions raised by the application of a module in a request.",
            _BIZ,
            {biz: one.errors for biz, one in traffic},
        )

    def _processor(self) -> Iterator[Family]:
        accounts = self._source.accounts
        started, serving = processor_seconds()
        of_threads = _by_identity(accounts.lives(), started)
        yield Family(
            "koupleless_biz_cpu_seconds",
            "counter",
            "Processor time of a module: requests on the event loop, work on threads; an estimate under load.",
            _BIZ,
            {
                (biz.name, biz.version): traffic.meter.read(
                    of_threads.get((biz.name, biz.version), 0.0) + serving[str(biz)]
                )
                for biz, traffic in accounts.traffic().items()
            },
        )

    def _work(self) -> Iterator[Family]:
        lives = self._source.accounts.lives()
        yield Family(
            "koupleless_biz_threads",
            "gauge",
            "Living threads started by a module.",
            _BIZ,
            _by_identity(lives, count_threads()),
        )
        yield Family(
            "koupleless_biz_tasks",
            "gauge",
            "Living tasks of a module on the event loop of the base.",
            _BIZ,
            _by_identity(lives, count_tasks(self._loop()) if lives else {}),
        )

    def _event_loop(self) -> Iterator[Family]:
        source = self._source
        held = {(source.base.id if biz is None else biz): each for biz, each in source.watch.held.items()}
        yield Family(
            "koupleless_event_loop_lag_seconds",
            "gauge",
            "Time for which a callback waited for the event loop, as measured last.",
            (),
            {(): source.watch.lag_s},
        )
        yield Family(
            "koupleless_event_loop_blocks",
            "counter",
            "Times at which a module, or the base, held the event loop for longer than the limit.",
            _BIZ,
            {(biz.name, biz.version): times for biz, (times, _) in held.items()},
        )
        yield Family(
            "koupleless_event_loop_blocked_seconds",
            "counter",
            "Time for which the event loop was held in these blocks.",
            _BIZ,
            {(biz.name, biz.version): seconds for biz, (_, seconds) in held.items()},
        )

    def _bizs(self) -> Iterator[Family]:
        grown = self._source.accounts.grown()
        yield Family(
            "koupleless_biz_start_memory_bytes",
            "gauge",
            "Growth of the resident memory of the process while a module started; an estimate.",
            _BIZ,
            {(biz.name, biz.version): number for biz, number in grown.items()},
        )
        yield Family(
            "koupleless_bizs",
            "gauge",
            "Versions of a module in the list of the base, by state.",
            ("biz", "state"),
            Counter((info.id.name, info.state.value.lower()) for info in self._source.bizs()),
        )
        yield Family(
            "koupleless_zombies",
            "gauge",
            "Python modules of uninstalled modules still in memory.",
            _BIZ,
            Counter((left.biz.name, left.biz.version) for left in self._source.zombies()),
        )

    def _operations(self) -> Iterator[Family]:
        accounts = self._source.accounts
        for name, verb, tally in (
            ("koupleless_install_duration_seconds", "Installs", accounts.installs),
            ("koupleless_uninstall_duration_seconds", "Uninstalls", accounts.uninstalls),
        ):
            yield Family(
                name,
                "histogram",
                f"{verb} of modules by outcome.",
                ("outcome",),
                {(outcome,): durations for outcome, durations in tally.read().items()},
            )


def publish_metrics(source: Source, loop: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[], None]:
    """Show the metrics of a container, and those of the process; returns the function that ends this."""
    ends = [publish(Metrics(source, loop).read), publish(of_process)]

    def unpublish() -> None:
        for end in ends:
            end()

    return unpublish


def of_process() -> Iterator[Family]:
    """Yield the families that all containers of a process have in common."""
    yield Family(
        "koupleless_resident_bytes",
        "gauge",
        "Memory of libraries brought into the base by modules, whether in use now or not.",
        ("library",),
        {(resident.name,): resident.size_bytes for resident in arrivals.listing()},
    )


def _by_identity(lives: Iterable[tuple[BizId, int]], numbers: Mapping[int, int]) -> dict[tuple[str, ...], float]:
    counts: Counter[tuple[str, ...]] = Counter()
    for biz, life in lives:
        counts[biz.name, biz.version] += numbers.get(life, 0)
    return dict(counts)

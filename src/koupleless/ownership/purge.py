"""Purge a biz that leaves: sweep, collect, search for holders, collect once more, report.

The report proves the biz gone, or names each holder by a chain of referrers. An uninstall runs beside requests, and a
call that looks at the whole heap stops requests meanwhile. So a biz is collected by itself (`collect`). More is done
only for a biz that lives on, as far as the size of the heap allows: see `_search`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.context import as_base
from koupleless.errors import in_words
from koupleless.ownership.belonging import Survey
from koupleless.ownership.caches import freeze_base, purge_caches, purge_typing
from koupleless.ownership.collect import LAST_RESORT_S, collect, collect_all, collect_these, collect_young, reach
from koupleless.ownership.holders import Search, can_search_outwards, nowhere, running_code
from koupleless.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from koupleless.biz import BizId
    from koupleless.descriptions import Resident
    from koupleless.ownership.holders import Chains
    from koupleless.ownership.ledger import Failure

__all__ = ["NOT_COMPARED", "Grown", "Held", "Left", "PurgeReport", "Survey", "Sweep", "freeze_base", "purge"]

EXPLAIN_BUDGET_S: Final = 1.0
"""Processor seconds of the search for holders, in steps between which other threads run; a large heap may need more."""


@dataclass(frozen=True, slots=True)
class Held:
    """A Python module or an object of a biz that is still in memory after the biz has left."""

    name: str
    """A Python module; or, if the Python module is gone, an object: ``shop.models.Order``."""
    holders: tuple[str, ...]
    """The shortest chain found, the outermost holder first; empty if none was found in time."""
    size_bytes: int | None = None
    """Bytes kept alive, estimated; no byte is counted for two Python modules."""
    since_ms: int | None = None
    """The time of the purge, in milliseconds since the epoch."""

    def __str__(self) -> str:
        return f"{self.name} {_by(self)}"


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """The result of an uninstall. Refers to no object of the biz."""

    biz: BizId
    clean: bool
    """Whether no object of the biz lives and all registrations of the biz were undone."""
    held: tuple[Held, ...]
    """Survivors; empty after a clean uninstall."""
    undone: Mapping[str, int]
    """Registrations undone or swept, counted by kind."""
    failures: tuple[str, ...]
    """Registrations not undone, and errors of undoing, in words."""
    elapsed_ms: float
    """Duration of the uninstall, in milliseconds."""
    changed: tuple[str, ...] = ()
    """Shared state left as the biz has changed it, by name."""
    is_compared: bool = False
    """Whether shared state was compared, or no code of the biz could change any; else its changes are unknown."""
    ended: tuple[str, ...] = ()
    """Threads and tasks of the biz ended by force, each with the way of its end in words."""
    stays: tuple[Resident, ...] = ()
    """Libraries used last by the biz and still in memory, since compiled code is never unloaded."""
    notes: tuple[str, ...] = ()
    """Sentences for operators about other matters than objects left in memory."""

    def summary(self) -> str:
        """Sum the report up in one line: ``clean``, or survivors, failures and changes that stay."""
        if self.clean and not self.changed:
            return "clean"
        said = []
        if self.held:
            said.append(_in_summary(self.held))
        if self.failures:
            said.append(f"{len(self.failures)} not undone: " + "; ".join(self.failures[:3]))
        if self.changed:
            more = f" and {len(self.changed) - _TOLD} more" if len(self.changed) > _TOLD else ""
            said.append(f"still changed for every module: {', '.join(self.changed[:_TOLD])}{more}")
        return "; ".join(said)


def _in_summary(held: Sequence[Held]) -> str:
    """Write ``2 Python modules still alive: app, app.models held by ... (1,200 bytes since ...)``, by holder."""
    together: dict[str, list[str]] = {}
    for one in held:
        together.setdefault(_by(one), []).append(one.name)
    said = []
    for by, names in list(together.items())[:_TOLD]:
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        said.append(f"{', '.join(names[:_TOLD])}{more} {by}")
    size = sum(one.size_bytes or 0 for one in held)
    about = [f"{size:,} bytes"] if size else []
    since = min((one.since_ms for one in held if one.since_ms is not None), default=None)
    if since is not None:
        about.append(f"since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since / 1000))}")
    facts = f" ({' '.join(about)})" if since is not None else ""
    return f"{len(held)} Python module{'s' * (len(held) != 1)} still alive: {'; '.join(said)}{facts}"


def _by(held: Held) -> str:
    return f"held by {held.holders[0]}" if held.holders else "(holder not found)"


_TOLD: Final = 3
"""The number of names of one kind in a summary."""


# --- what a purge is given ------------------------------------------------------------------------------------------


class Sweep(NamedTuple):
    """One registry of the process, to be looked through for objects of a biz."""

    kind: str
    """The name of the registrations in a report."""
    found: str
    """The registry, as the table of kinds names it."""
    look: Callable[[Survey], int]
    """Takes objects of the biz out of the registry; returns their number. May raise: the report names the error."""
    is_thorough: bool = False
    """Whether the look takes long, and is made only for a biz that lives on without it."""


class Grown(NamedTuple):
    """A container of a shared Python module that has grown while a biz ran."""

    path: str
    container: Any
    length: int
    """The length from which the container counts as changed."""


class Left(NamedTuple):
    """The changes of one biz to shared Python modules, when the biz has left."""

    undone: Mapping[str, int]
    """Changes taken back, counted by kind."""
    is_compared: bool
    """Whether shared Python modules were compared, or no code of the biz could change any."""
    grown: tuple[Grown, ...] = ()

    def remaining(self) -> tuple[str, ...]:
        """Name shared state that is still changed; called after all else is undone and purged."""
        return tuple(sorted(one.path for one in self.grown if len(one.container) >= one.length))


NOT_COMPARED: Final = Left({}, is_compared=False)


# --- purging ---------------------------------------------------------------------------------------------------------

_turns: Final = Turns(5.0)
"""A purge may hang in a finaliser of a biz; another one waits 5 seconds for its end."""


def purge(
    survey: Survey,
    failures: Sequence[Failure | str] = (),
    *,
    sweeps: Sequence[Sweep] = (),
    left: Left = NOT_COMPARED,
    ended: Sequence[str] = (),
) -> PurgeReport:
    """Release the biz from shared libraries, collect, and report the objects that are left.

    Called after the registrations of the biz were undone, its namespace dropped and its scope closed, by a thread that
    holds no object of the biz, never by the thread of the event loop. ``failures`` come from `Ledger.undo_all` and from
    the stop of the biz, ``left`` from the comparison of shared Python modules, ``ended`` names threads and tasks ended
    by force in `Ledger.undo_all`. Errors of code of the biz are in the report.
    """
    started = time.perf_counter()
    counts = dict(survey.undone)
    _add(counts, left.undone)
    words = [str(failure) for failure in failures]
    held: tuple[Held, ...] = ()
    # Another purge would find objects held by this one.
    with _turns.one(), as_base():
        if not _sweep_and_collect(survey, sweeps, counts, words):
            held = _held(survey, words)
    return PurgeReport(
        biz=survey.biz,
        clean=not held and not words,
        held=held,
        undone={kind: count for kind, count in sorted(counts.items()) if count},
        failures=tuple(words),
        elapsed_ms=(time.perf_counter() - started) * 1000,
        changed=left.remaining(),
        is_compared=left.is_compared,
        ended=tuple(ended),
    )


def _sweep_and_collect(survey: Survey, sweeps: Sequence[Sweep], counts: dict[str, int], failures: list[str]) -> bool:
    def sweep(*, is_thorough: bool) -> None:
        for one in sweeps:
            if one.is_thorough is is_thorough:
                try:
                    _add(counts, {one.kind: one.look(survey)})
                except BaseException as error:  # noqa: BLE001 - objects of the biz may raise anything; other sweeps follow
                    failures.append(f"{one.kind}: {in_words(error)}")

    def clear_caches(*, deeply: bool = False) -> None:
        try:
            _add(counts, purge_caches(survey, deeply=deeply))
        except BaseException as error:  # noqa: BLE001 - as above
            failures.append(f"caches: {in_words(error)}")

    survey.refresh()
    purge_typing()
    # Objects made by a library for the biz may be garbage that refers to the biz, once the library lets go of both.
    reached = list(reach(survey).values())
    clear_caches()
    sweep(is_thorough=False)
    if collect(survey, reached):
        return True
    survey.refresh()
    clear_caches(deeply=True)
    if collect(survey):
        return True
    survey.refresh()
    sweep(is_thorough=True)
    # Garbage outside the biz with a reference to the biz, such as an exception of the last request, is usually young.
    return collect(survey) or (collect_young() and collect(survey)) or (collect_all() and survey.is_gone())


def _held(survey: Survey, failures: list[str]) -> tuple[Held, ...]:
    since_ms = time.time_ns() // 1_000_000
    chains: Chains = {}
    sizes: dict[str, int] = {}
    try:
        chains, sizes = _search(survey, budget_s=EXPLAIN_BUDGET_S)
    except BaseException as error:  # noqa: BLE001 - the search looks at objects of any class
        failures.append(f"explaining what is held: {in_words(error)}")
    fallback = next(iter(chains.values()), ())
    return tuple(
        Held(name, chains.get(module, fallback), sizes.get(module) if index == 0 else None, since_ms)
        for module, names in survey.alive().items()
        for index, name in enumerate([module] if module in names else names)
    )


def _search(survey: Survey, *, budget_s: float) -> tuple[Chains, dict[str, int]]:
    """Search for holders outwards, then inwards, and collect garbage found to be the only holder.

    Returns chains and sizes in bytes by Python module, both empty if the biz is gone after all.
    """
    survey.refresh()
    ends = time.thread_time() + budget_s
    search = Search(survey, ends)
    chains = running_code(survey) or (search.climb() if can_search_outwards() else {})
    is_complete = search.is_complete
    if is_complete:  # no name leads here: old garbage outside the biz refers to it
        garbage = search.take()
        del search
        collect_these(garbage)
        if survey.is_gone():
            return {}, {}
        survey.refresh()
        search = Search(survey, ends)
    chains = chains or search.descend()
    if chains:
        return chains, search.sizes
    sizes = search.sizes
    del search
    # Twice: compiled code may hold objects unseen, as a database connection holds functions; the first collection frees
    # the connection, and only the second one the functions.
    if any(collect_all(pause_s=LAST_RESORT_S) and survey.is_gone() for _ in range(2)):
        return {}, {}
    if is_complete:  # another search outwards will be, too, although the search inwards took all the time
        survey.refresh()
        search = Search(survey, time.thread_time() + budget_s)
        search.climb()
        return search.unseen(), search.sizes
    return nowhere(survey, budget_s=budget_s), sizes


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for kind, count in more.items():
        counts[kind] = counts.get(kind, 0) + count

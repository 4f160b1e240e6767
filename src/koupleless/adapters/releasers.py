"""Releasers: the knowledge of libraries about being shared and cleaned; told of every biz that leaves.

A releaser is an entry point of the group ``koupleless.releasers`` in the environment of the base. The entry point names
an object, most simply a Python module, with these attributes: ``distribution``, the library the releaser is for;
``versions``, a version specifier (none, or an empty one, is any); and one or both of ``release``, called with a
`Leaving`, and ``share``, a word on how bizs are to hold the library. No import of ours is needed to write a releaser.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.errors import in_words
from koupleless.ownership.ledger import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.metadata import EntryPoint

    from koupleless.ownership.belonging import Survey

GROUP: Final = "koupleless.releasers"

_WORDS: Final = ("always", "copy", "never")

_log: Final = logging.getLogger("koupleless")

_FLOOR_S: Final = 0.1
"""Seconds for a releaser in any case, however long the releasers before took."""


class Leaving:
    """The biz that leaves, as seen by a releaser. Keeps no object of the biz alive."""

    __slots__ = ("_survey", "name", "version")

    def __init__(self, survey: Survey) -> None:
        self.name: str = survey.biz.name
        self.version: str = survey.biz.version
        self._survey = survey

    def owns(self, thing: object) -> bool:
        """Whether ``thing`` belongs to the biz, or has a part that does and without which ``thing`` could not be.

        True for a function, class or Python module of the biz, an instance of such a class, a suspended generator; and
        for a wrapper around one of these: a bound method, a partial, a closure, a tuple, a generic alias. False for
        lists, dictionaries and objects of the base into which the biz was put. Runs no code of ``thing``.
        """
        return self._survey.reaches(thing)

    def __repr__(self) -> str:
        return f"<Leaving {self.name}:{self.version}>"


@dataclass(slots=True, eq=False)
class _Releaser:
    """One entry point. Loaded when the first biz comes, and not again."""

    point: EntryPoint
    kind: str
    """Label of this releaser in the counts and failures of a report."""
    is_loaded: bool = False
    library: str = ""
    """The normalised name of the library; empty if no such version of the library is installed."""
    release: Callable[[Leaving], object] | None = None
    share: str | None = None
    problem: str = ""

    def load(self) -> None:
        """Load the entry point. An error of loading is kept, and told wherever the releaser is needed."""
        if self.is_loaded:
            return
        try:
            self._read(self.point.load())
        except BaseException as error:  # noqa: BLE001 - code of a library
            self.problem = f"cannot be used: {in_words(error)}"
        self.is_loaded = True

    def _read(self, found: Any) -> None:
        # A base without releasers need not wait for these imports.
        from packaging.specifiers import SpecifierSet  # noqa: PLC0415
        from packaging.utils import canonicalize_name  # noqa: PLC0415

        release, share = getattr(found, "release", None), getattr(found, "share", None)
        if release is None and share is None:
            raise AttributeError("it has neither release nor share")
        if release is not None and not callable(release):
            raise TypeError(f"its release is {type(release).__qualname__}, which cannot be called")
        if share is not None and share not in _WORDS:
            raise ValueError(f"its share is {share!r}, and may be one of {', '.join(map(repr, _WORDS))}")
        versions = SpecifierSet(getattr(found, "versions", None) or "")
        try:
            version = importlib.metadata.version(found.distribution)
        except importlib.metadata.PackageNotFoundError:
            return
        if versions.contains(version, prereleases=True):
            self.library = canonicalize_name(found.distribution)
            self.release, self.share = release, share

    def run(self, leaving: Leaving) -> object:
        """Call the releaser and return the result. Raises errors of the releaser; ``RuntimeError`` if not loaded."""
        self.load()
        if self.problem:
            raise RuntimeError(self.problem)
        return None if self.release is None else self.release(leaving)


_lock = threading.Lock()


@functools.cache
def _find() -> tuple[_Releaser, ...]:
    points = importlib.metadata.entry_points(group=GROUP)
    return tuple(_Releaser(point, f"releaser {point.name}") for point in sorted(points, key=lambda point: point.name))


def forget_releasers() -> None:
    """Look for releasers again when they are needed next: libraries were installed or removed."""
    _find.cache_clear()


def words_of_libraries() -> Mapping[str, str]:
    """Return how libraries say they are to be held: normalised name -> ``"always"``, ``"copy"`` or ``"never"``.

    Loads the releasers of the environment. A releaser that cannot be used is told in the log. Never raises.
    """
    words: dict[str, str] = {}
    try:
        with as_base(), _lock:
            for releaser in _find():
                releaser.load()
                if releaser.problem:
                    _log.warning("%s %s", releaser.kind, releaser.problem)
                elif releaser.library and releaser.share is not None:
                    words[releaser.library] = releaser.share
    except Exception as error:  # noqa: BLE001 - metadata of any distribution
        _log.warning("releasers cannot be listed: %s", in_words(error))
    return words


def call_releasers(survey: Survey, *, deadline_s: float) -> tuple[dict[str, int], tuple[str, ...]]:
    """Tell every releaser that the biz of ``survey`` leaves.

    Called when the code of the biz has ended and its Python modules are still there, by a thread that may wait. Returns
    the number of objects released by each releaser, under ``releaser <name>``, and failures in words. Never raises. A
    releaser still at work after ``deadline_s`` seconds, shared by all, is left to itself.
    """
    ends = time.monotonic() + deadline_s
    counts: dict[str, int] = {}
    failures: list[str] = []
    try:
        with as_base(), _lock:
            releasers = _find()
    except Exception as error:  # noqa: BLE001 - metadata of any distribution
        return counts, (f"releasers cannot be listed: {in_words(error)}",)
    leaving = Leaving(survey)
    for releaser in releasers:
        results: list[object] = []
        try:
            bounded(
                lambda run=releaser.run, results=results: results.append(run(leaving)),  # type: ignore[misc]
                name=f"{releaser.kind} {survey.biz}",
                timeout_s=max(ends - time.monotonic(), _FLOOR_S),
            )
        except BaseException as error:  # noqa: BLE001 - code of a library; whatever the error, the biz leaves
            failures.append(f"{releaser.kind}: {in_words(error)}")
        else:
            if type(results[0]) is int and results[0] > 0:
                counts[releaser.kind] = results[0]
    return counts, tuple(failures)

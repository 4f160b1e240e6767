"""What libraries themselves know about being shared and cleaned: releasers, told of every biz that leaves.

A releaser is an entry point of the group ``koupleless.releasers`` in the environment of the base. It names an object,
most simply a module, with these attributes: ``distribution``, the library it is for; ``versions``, a version specifier
(none, or an empty one, is any); and one or both of ``release``, called with a `Leaving`, and ``share``, a word on how
bizs are to hold the library. No import of ours is needed to write one.
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

    from koupleless.ownership.caches import Survey

GROUP: Final = "koupleless.releasers"

_WORDS: Final = ("always", "copy", "never")

_log: Final = logging.getLogger("koupleless")

_FLOOR_S: Final = 0.1
"""What a releaser is given in any case, however long those before it took."""


class Leaving:
    """The biz that leaves, as a releaser sees it. Keeps nothing of it alive."""

    __slots__ = ("_survey", "name", "version")

    def __init__(self, survey: Survey) -> None:
        self.name: str = survey.biz.name
        self.version: str = survey.biz.version
        self._survey = survey

    def owns(self, thing: object) -> bool:
        """Whether ``thing`` is the biz's, or is made of something that is and could not be without it.

        A function, class or module of the biz, an instance of such a class, a suspended generator; and what is wrapped
        around one of these: a bound method, a partial, a closure, a tuple, a generic alias. Lists, dictionaries and
        objects of the base that the biz was put into are not. Runs no code of ``thing``.
        """
        return self._survey.reaches(thing)

    def __repr__(self) -> str:
        return f"<Leaving {self.name}:{self.version}>"


@dataclass(slots=True, eq=False)
class _Releaser:
    """One entry point. It is loaded when the first biz comes, and not again."""

    point: EntryPoint
    kind: str
    """By what name its work is counted, and what failed is told."""
    is_loaded: bool = False
    library: str = ""
    """The normalised name of what it is for; empty if that is not there in such a version."""
    release: Callable[[Leaving], object] | None = None
    share: str | None = None
    problem: str = ""

    def load(self) -> None:
        """Find out what it says. What it raises is its problem, and told by everybody who needs it."""
        if self.is_loaded:
            return
        try:
            self._read(self.point.load())
        except BaseException as error:  # noqa: BLE001 - code of a library
            self.problem = f"cannot be used: {in_words(error)}"
        self.is_loaded = True

    def _read(self, found: Any) -> None:
        # A base without releasers need not wait for these.
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
        """What the releaser returns. Raises what it raises, and ``RuntimeError`` for one that cannot be loaded."""
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
    """How libraries say that they are to be held: normalised name -> ``"always"``, ``"copy"`` or ``"never"``.

    Loads the releasers of the environment. One that cannot be used is told in the log. Never raises.
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

    Called when its code has ended and its modules are still there, by a thread that may wait. Returns how many things
    each releaser says it released, under ``releaser <name>``, and in words what failed. Never raises. One that has not
    returned after ``deadline_s`` seconds, shared by all, is left to itself.
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
        except BaseException as error:  # noqa: BLE001 - code of a library; whatever it raises, the biz leaves
            failures.append(f"{releaser.kind}: {in_words(error)}")
        else:
            if type(results[0]) is int and results[0] > 0:
                counts[releaser.kind] = results[0]
    return counts, tuple(failures)

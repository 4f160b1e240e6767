"""Releasers: the knowledge of libraries about being shared and cleaned; told of every biz that leaves.

A releaser is an entry point of the group ``koupleless.releasers`` in the environment of the base. The entry point names
an object, most simply a Python module, with these attributes: ``distribution``, the library the releaser is for;
``versions``, a version specifier (none, or an empty one, is any); ``module``, a Python module without which the library
keeps nothing (none: the releaser is always called); and one or both of ``release``, called with a `Leaving`, and
``share``, a word on how bizs are to hold the library. No import of ours is needed to write a releaser. The adapters
with a ``release`` are read in the same way.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.door import KNOWN
from koupleless.adapters.leaving import Leaving
from koupleless.adapters.versions import is_installed
from koupleless.context import as_base
from koupleless.errors import in_words
from koupleless.ownership.ledger import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.ownership.belonging import Survey

GROUP: Final = "koupleless.releasers"

_WORDS: Final = ("always", "copy", "never")

_log: Final = logging.getLogger("koupleless")

_FLOOR_S: Final = 0.1
"""Seconds for a releaser in any case, however long the releasers before took."""


@dataclass(slots=True, eq=False)
class _Releaser:
    """One entry point, or one adapter. Loaded when the first biz comes, or leaves, and not again."""

    kind: str
    """Label of this releaser in the counts and failures of a report."""
    find: Callable[[], Any]
    module: str = ""
    """The Python module without which there is nothing to release."""
    is_loaded: bool = False
    library: str = ""
    """The normalised name of the library; empty if no such version of the library is installed."""
    release: Callable[[Leaving], object] | None = None
    share: str | None = None
    problem: str = ""

    def load(self) -> None:
        """Load the releaser. An error of loading is kept, and told wherever the releaser is needed."""
        if self.is_loaded:
            return
        try:
            self._read(self.find())
        except BaseException as error:  # noqa: BLE001 - code of a library
            self.problem = f"cannot be used: {in_words(error)}"
        self.is_loaded = True

    def _read(self, found: Any) -> None:
        # A base without releasers need not wait for this import.
        from packaging.utils import canonicalize_name  # noqa: PLC0415

        release, share = getattr(found, "release", None), getattr(found, "share", None)
        if release is None and share is None:
            raise AttributeError("the releaser has neither release nor share")
        if release is not None and not callable(release):
            raise TypeError(f"the function release is {type(release).__qualname__}, which cannot be called")
        if share is not None and share not in _WORDS:
            raise ValueError(f"share is {share!r}, and may be one of {', '.join(map(repr, _WORDS))}")
        self.module = getattr(found, "module", "")
        if is_installed(found):
            self.library = canonicalize_name(found.distribution)
            self.release, self.share = release, share

    def is_idle(self) -> bool:
        """Tell whether the base has not imported the Python module with the state of the library."""
        return bool(self.module) and self.module not in sys.modules

    def run(self, leaving: Leaving) -> object:
        """Call the releaser and return the result. Raises errors of the releaser; ``RuntimeError`` if not loaded."""
        self.load()
        if self.problem:
            raise RuntimeError(self.problem)
        return None if self.release is None or self.is_idle() else self.release(leaving)


_lock = threading.Lock()


@functools.cache
def _find() -> tuple[_Releaser, ...]:
    points = importlib.metadata.entry_points(group=GROUP)
    points_by_name = sorted(points, key=lambda point: point.name)
    return tuple(_Releaser(f"releaser {point.name}", point.load) for point in points_by_name)


@functools.cache
def _adapters() -> tuple[_Releaser, ...]:
    ours = [adapter for adapter in KNOWN if hasattr(adapter, "release")]
    return tuple(_Releaser(f"adapter {_name(each)}", functools.partial(_itself, each), each.module) for each in ours)


def _name(adapter: Any) -> str:
    return str(adapter.__name__).rpartition(".")[2]


def _itself(adapter: Any) -> Any:
    return adapter


def forget_releasers() -> None:
    """Look for releasers again when they are needed next: libraries were installed or removed."""
    _find.cache_clear()
    _adapters.cache_clear()


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
    the number of objects released, by kind, or under ``releaser <name>``, and failures in words. Never raises. A
    releaser still at work after ``deadline_s`` seconds, shared by all, is left to itself.
    """
    ends = time.monotonic() + deadline_s
    counts: dict[str, int] = {}
    failures: list[str] = []
    try:
        with as_base(), _lock:
            releasers = (*_adapters(), *_find())
    except Exception as error:  # noqa: BLE001 - metadata of any distribution
        return counts, (f"releasers cannot be listed: {in_words(error)}",)
    leaving = Leaving(survey)
    for releaser in releasers:
        with as_base():
            if releaser.is_idle():
                continue
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
            for kind, count in _counted(releaser.kind, results[0]):
                counts[kind] = counts.get(kind, 0) + count
    return counts, tuple(failures)


def _counted(kind: str, result: object) -> list[tuple[str, int]]:
    """List the numbers above 0 in the result of a releaser: one number, or numbers by kind."""
    found = result if type(result) is dict else {kind: result}
    return [(name, count) for name, count in found.items() if type(name) is str and type(count) is int and count > 0]

"""Places of Python modules in directories, remembered for the next biz to look there.

A biz with an own copy of a library looks in directories where other bizs have looked. `find_once` asks a finder of
files for each Python module once, as long as the time of change of the directory stays the same: the finder itself goes
by the same time.

Lifetime: the places of one finder are forgotten with the finder, and all places when a biz leaves. Threads: any.
"""

from __future__ import annotations

import os
import weakref
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Place(NamedTuple):
    """The place of one Python module."""

    origin: str
    cached: str | None
    locations: Sequence[str] | None
    """Directories of the Python modules below a package; ``None`` if the Python module is no package."""


class _Places:
    """Places found by one finder, valid until the time of change of the directory, in nanoseconds, is another one."""

    __slots__ = ("changed_ns", "known")

    def __init__(self, changed_ns: int) -> None:
        self.changed_ns = changed_ns
        self.known: dict[str, _Place] = {}


_places: Final[weakref.WeakKeyDictionary[FileFinder, _Places]] = weakref.WeakKeyDictionary()


def find_once(finder: Any, name: str) -> ModuleSpec | None:
    """Return the answer of ``finder.find_spec(name)``: a new spec for each caller, ``None`` if nothing is found."""
    if type(finder) is not FileFinder:
        return finder.find_spec(name)  # type: ignore[no-any-return]
    try:
        changed_ns = os.stat(finder.path).st_mtime_ns  # noqa: PTH116 - a text, as in a search path
    except OSError:
        return finder.find_spec(name)
    places = _places.get(finder)
    if places is None or places.changed_ns != changed_ns:
        places = _places[finder] = _Places(changed_ns)
    place = places.known.get(name)
    # The file that makes a directory a package lies inside; the directory above keeps its time of change.
    if place is not None and (place.locations is None or os.path.isfile(place.origin)):  # noqa: PTH113 - a text
        return _spec_at(name, place)
    spec = finder.find_spec(name)
    if spec is not None and type(spec.loader) is SourceFileLoader and spec.origin is not None:
        locations = spec.submodule_search_locations
        places.known[name] = _Place(spec.origin, spec.cached, None if locations is None else tuple(locations))
    return spec


def forget_places() -> None:
    """Forget all places. The successor of a leaving biz has looked before this is called."""
    _places.clear()


def _spec_at(name: str, place: _Place) -> ModuleSpec | None:
    locations = None if place.locations is None else list(place.locations)
    loader = SourceFileLoader(name, place.origin)
    spec = spec_from_file_location(name, place.origin, loader=loader, submodule_search_locations=locations)
    if spec is not None:
        spec.cached = place.cached
    return spec

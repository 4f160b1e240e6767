"""Where modules were found in directories, for the next biz that looks there.

A biz that holds a library as an own copy looks in the directories where others have looked. `find_once` asks a finder
of files for each module once, for as long as the directory looks unchanged, which is what such a finder goes by itself.

Lifetime: what was found is forgotten with the finder, and all of it when a biz leaves. Threads: any.
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
    """Where one module is."""

    origin: str
    cached: str | None
    locations: Sequence[str] | None
    """Where the modules below it are, if it is a package."""


class _Places:
    """What one finder has found, while its directory was last changed at a time."""

    __slots__ = ("changed_ns", "known")

    def __init__(self, changed_ns: int) -> None:
        self.changed_ns = changed_ns
        self.known: dict[str, _Place] = {}


_places: Final[weakref.WeakKeyDictionary[FileFinder, _Places]] = weakref.WeakKeyDictionary()


def find_once(finder: Any, name: str) -> ModuleSpec | None:
    """What ``finder.find_spec(name)`` answers: a spec of its own for everybody who asks."""
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
    # What makes a directory a package lies in that one, whose changes do not show in this one.
    if place is not None and (place.locations is None or os.path.isfile(place.origin)):  # noqa: PTH113 - a text
        return _spec_at(name, place)
    spec = finder.find_spec(name)
    if spec is not None and type(spec.loader) is SourceFileLoader and spec.origin is not None:
        locations = spec.submodule_search_locations
        places.known[name] = _Place(spec.origin, spec.cached, None if locations is None else tuple(locations))
    return spec


def forget_places() -> None:
    """Forget all that was found. A biz that comes in the place of another one has looked by then."""
    _places.clear()


def _spec_at(name: str, place: _Place) -> ModuleSpec | None:
    locations = None if place.locations is None else list(place.locations)
    loader = SourceFileLoader(name, place.origin)
    spec = spec_from_file_location(name, place.origin, loader=loader, submodule_search_locations=locations)
    if spec is not None:
        spec.cached = place.cached
    return spec

"""Distributions of the base and of bizs: their indexes, kept; the origin of Python modules; metadata for a biz.

The index of the base is made when a policy first asks for an owner, and kept until the search path, or a directory on
the path, changes.
"""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import threading
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder, PathDistribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from packaging.utils import canonicalize_name

from koupleless.context import as_base
from koupleless.isolation.interpreter import find_of_base
from koupleless.isolation.libraries.installed.index import Index, find_in
from koupleless.isolation.libraries.installed.record import identity_of
from koupleless.isolation.policy import PROCESS_NAMES, SELF, Provenance
from koupleless.isolation.system import base_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec

# --- the base's ----------------------------------------------------------------------------------------------------


class _Known(NamedTuple):
    """An index, and the directories as the index was made from them."""

    times: tuple[int, ...]
    metadata: tuple[frozenset[tuple[str, int]], ...]
    made: Index


class _Indexes:
    """Indexes by search path; an index is made again when distributions are installed, removed or replaced.

    A directory on the path changes for other reasons, too: a base may have the working directory there, with files that
    are written all day long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], _Known] = {}

    def get(self, path: Sequence[str]) -> Index:
        key = _absolute(path)
        times = tuple(_mtime(entry) for entry in key)
        with self._lock:
            known = self._known.get(key)
        if known is not None and known.times == times:
            return known.made
        metadata = tuple(map(_metadata_in, key))
        is_same = known is not None and known.metadata == metadata
        with_metadata = [entry for entry, found in zip(key, metadata, strict=True) if found]
        index = known.made if known is not None and is_same else Index(key, with_metadata)
        with self._lock:
            self._known[key] = _Known(times, metadata, index)
        return index

    def forget(self, path: Sequence[str]) -> Index | None:
        with self._lock:
            known = self._known.pop(_absolute(path), None)
        return None if known is None else known.made


def _absolute(path: Sequence[str]) -> tuple[str, ...]:
    """The directories of a path; relative ones start from the base's working directory, whichever biz runs."""
    if all(entry[:1] == "/" for entry in path):
        return tuple(path)
    with as_base():
        return tuple(os.path.abspath(entry) for entry in path)  # noqa: PTH100 - texts


def _metadata_in(entry: str) -> frozenset[tuple[str, int]]:
    """The metadata directories and files in a directory, each with the time of its last change."""
    try:
        with os.scandir(entry) as found:
            named = [one for one in found if one.name.lower().endswith(_METADATA)]
            return frozenset((one.name, one.stat().st_mtime_ns) for one in named)
    except OSError:  # no directory, or a file with distributions inside, such as a zip
        return frozenset({(entry, _mtime(entry))})


_METADATA: Final = (".dist-info", ".egg-info", ".egg", "egg-info")
"""Ends of names in small letters, as ``importlib.metadata`` compares; the last is a whole name inside an egg."""


def _mtime(entry: str) -> int:
    try:
        return _stat(entry).st_mtime_ns
    except OSError:
        return 0


_stat: Final = os.stat
"""The function of the system, without the view of a biz: called for each directory of the path, and that often."""


_indexes = _Indexes()


def base_index() -> Index:
    """Return the index of the distributions installed in the base. Thread-safe."""
    return _indexes.get(base_path())


def index_of(path: Sequence[str]) -> Index:
    """Return the index of the distributions installed in some directories. Thread-safe."""
    return _indexes.get(path)


def forget_index(path: Sequence[str]) -> None:
    """Drop everything remembered of some directories, here and in ``importlib.metadata``."""
    index = _indexes.forget(path)
    if index is not None and index.with_metadata:  # else `importlib.metadata` was not asked for these directories
        MetadataPathFinder().invalidate_caches()  # an instance: before 3.13 this is no class method


def provenance(name: str) -> Provenance | None:
    """Return the origin of a Python module of the base; ``None`` if the base does not have the module."""
    index = base_index()
    owners = index.owners(name)
    if is_stdlib(name):
        return Provenance(is_stdlib=True)
    if owners:
        return Provenance(owners=tuple((owner, index.versions[owner]) for owner in owners))
    spec = _base_spec(name)
    if spec is None:
        return None
    places = [place for place in (spec.origin, *(spec.submodule_search_locations or ())) if place]
    place = next((place for place in places if place not in {"built-in", "frozen", "namespace"}), "")
    owner = index.owner_of_file(place)
    if owner is not None:
        return Provenance(owners=((owner, index.versions[owner]),), location=place)
    if name.partition(".")[0] == SELF:
        return Provenance(owners=((SELF, ""),), location=place)
    directory = place if os.path.isdir(place) else os.path.dirname(place)  # noqa: PTH112, PTH120 - as in the spec
    return Provenance(location=place, in_directory=os.path.isdir(directory))  # noqa: PTH112


def is_stdlib(name: str) -> bool:
    """Tell whether the base has the name from the standard library, even if a distribution has files beside it.

    Not all names of the standard library can be known beforehand: some are made when Python is built, and the tests of
    Python are not listed.
    """
    top = name.partition(".")[0]
    spec = None if top in PROCESS_NAMES else _base_spec(top)
    if spec is None:
        return top in PROCESS_NAMES - {SELF}
    if spec.origin in {"built-in", "frozen"}:
        return True
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return any(place.startswith(_STDLIB) and not place.startswith(_INSTALLED) for place in places)


def _directories(*names: str) -> tuple[str, ...]:
    return tuple(os.path.join(sysconfig.get_path(name), "") for name in names)  # noqa: PTH118 - for startswith


_STDLIB: Final = _directories("stdlib", "platstdlib")
_INSTALLED: Final = tuple(
    os.path.join(directory, kind, "")  # noqa: PTH118
    for directory in _STDLIB
    for kind in ("site-packages", "dist-packages")
)


def files_of_base(name: str) -> tuple[Path, ...]:
    """Return the files and directories of a top-level Python module of the base; none if there are none on the disk."""
    spec = _base_spec(name)
    if spec is None:
        return ()
    if spec.submodule_search_locations is not None:
        return tuple(map(Path, spec.submodule_search_locations))
    return (Path(spec.origin),) if spec.has_location and spec.origin else ()


def _base_spec(name: str) -> ModuleSpec | None:
    module = find_of_base(name)
    spec = getattr(module, "__spec__", None)
    if spec is not None:
        return spec  # type: ignore[no-any-return]
    with as_base():
        try:
            return importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None


# --- for a biz -----------------------------------------------------------------------------------------------------


def distributions_for(
    context: DistributionFinder.Context,
    *,
    own_path: Sequence[str],
    declared: frozenset[str],
    copied: frozenset[str] = frozenset(),
) -> Iterator[Distribution]:
    """Yield the distributions found for a biz by ``importlib.metadata``.

    A path named by the caller is searched as given. A name means the biz's copy, else the base's. An enumeration yields
    the biz's distributions first. Distributions of the base follow if the biz declares each of them, or has ``copied``
    it, and does not bring it.
    """
    asked: dict[str, Any] = vars(context)
    name = asked.get("name")
    if "path" in asked:
        yield from MetadataPathFinder.find_distributions(context)
        return
    own = list(find_in(index_of(own_path).with_metadata, name=name))
    yield from own
    if name is not None:
        if not declared or canonicalize_name(name) in declared or canonicalize_name(name) == SELF:
            yield from _of_base(context)
        return
    wanted = declared | copied
    if wanted:
        seen = {identity_of(distribution)[0] for distribution in own}
        for distribution in _of_base(context):
            other = identity_of(distribution)[0]
            if other in wanted and other not in seen:
                seen.add(other)
                yield distribution


def _of_base(context: DistributionFinder.Context) -> list[Distribution]:
    with as_base():  # other finders of the base may know more than its search path tells
        return [_made_absolute(found) for found in Distribution.discover(context=context)]


def _made_absolute(found: Distribution) -> Distribution:
    """A distribution in a relative directory of the base's search path, for a biz to read later."""
    path = getattr(found, "_path", None)
    if type(found) is not PathDistribution or not isinstance(path, Path) or path.is_absolute():
        return found
    return PathDistribution(path.absolute())

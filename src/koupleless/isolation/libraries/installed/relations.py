"""Relations: which distributions of one search path need which, by their metadata, and by imports in their source."""

from __future__ import annotations

import contextlib
import functools
import re
from typing import TYPE_CHECKING, Final

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from koupleless.isolation.interpreter import find_of_base
from koupleless.isolation.libraries.installed.mentions import imported_for_sure, imported_in_c
from koupleless.isolation.libraries.installed.record import module_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from importlib.metadata import Distribution

    from koupleless.isolation.libraries.installed.record import Record

_DEVELOPMENT: Final = frozenset(
    {"benchmark", "benchmarks", "build", "ci", "cov", "coverage", "dev", "develop", "development", "doc", "docs"}
    | {"format", "lint", "linting", "mypy", "release", "style", "test", "testing", "tests", "typecheck", "typing"}
)
"""Words in the names of extras for the authors of a distribution."""


class Relations:
    """The relations among the distributions of one search path; each answer is remembered.

    Names are normalised. Answers name distributions on the search path only.
    """

    def __init__(self, records: Mapping[str, Record], owners: Mapping[str, Sequence[str]]) -> None:
        """``owners`` are the distributions of each top-level Python module."""
        self._records = records
        self._owners = owners
        self._closures: dict[str, frozenset[str]] = {}
        self._surroundings: dict[str, frozenset[str]] = {}
        self._needs: dict[str, frozenset[str]] = {}
        self._imports: dict[str, frozenset[str]] = {}
        self._certain: dict[str, frozenset[str]] = {}

    # --- by metadata ---------------------------------------------------------------------------------------------

    def needs(self, name: str) -> frozenset[str]:
        """Return the distributions that one requires directly, without extras."""
        known = self._needs.get(name)
        if known is None:
            wanted = {canonicalize_name(found) for found in _required(self._records[name])}
            known = self._needs[name] = frozenset(wanted & self._records.keys())
        return known

    def closure(self, name: str) -> frozenset[str]:
        """Return a distribution and its requirements, direct and indirect ones, extras included."""
        known = self._closures.get(name)
        if known is None:
            known = self._closures[name] = _reached([name], self._wanted)
        return known

    def family(self, name: str) -> frozenset[str]:
        """Return a distribution, the distributions of its extras, and the requirements of all of these."""
        return _reached([name, *self._wanted(name)], self.needs)

    def _wanted(self, name: str) -> set[str]:
        # An extra belongs to the distribution as well: a library looks for optional libraries in its own surroundings.
        distribution = self._records[name].distribution
        extras = ["", *(extra for extra in distribution.metadata.get_all("Provides-Extra") or () if _is_for_use(extra))]
        wanted: set[str] = {
            canonicalize_name(requirement.name)
            for requirement in _requirements(distribution)
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        }
        # psycopg-binary speeds up psycopg, which names psycopg-binary as an extra, and each imports the other.
        stem = name.rpartition("-")[0]
        if stem in self._records and any(
            canonicalize_name(requirement.name) == name and "extra" in str(requirement.marker)
            for requirement in _requirements(self._records[stem].distribution)
        ):
            wanted.add(stem)
        return wanted & self._records.keys()

    def users(self, name: str) -> frozenset[str]:
        """Return the distributions that require the named one directly, as `needs` says."""
        return self._users.get(name, frozenset())

    def optional_users(self, name: str) -> frozenset[str]:
        """Return the distributions with an extra for the named one."""
        return self._optional_users.get(name, frozenset())

    def concern(self, name: str) -> bool:
        """Tell whether a distribution is on the search path, or is of use to one on the path."""
        return name in self._records or name in self._users or name in self._optional_users

    @functools.cached_property
    def _users(self) -> dict[str, frozenset[str]]:
        users: dict[str, set[str]] = {}
        for name, record in self._records.items():
            for other in map(canonicalize_name, _required(record)):  # a missing one too: a biz may bring it
                users.setdefault(other, set()).add(name)
        return {name: frozenset(found) for name, found in users.items()}

    @functools.cached_property
    def _optional_users(self) -> dict[str, frozenset[str]]:
        users: dict[str, set[str]] = {}
        for name, record in self._records.items():
            for other, _, marker in _REQUIRES.findall(record.metadata().partition("\n\n")[0]):
                if any(map(_is_for_use, _EXTRA.findall(marker))):
                    users.setdefault(canonicalize_name(other), set()).add(name)
        return {name: frozenset(found) for name, found in users.items()}

    # --- by imports in source ------------------------------------------------------------------------------------

    def surroundings(self, name: str) -> frozenset[str]:
        """Return a distribution, all its requirements, and compiled distributions imported by its extension modules.

        Imports of extension modules are those seen in source beside them. Compiled code keeps every imported Python
        module in static data: for good, and once for all users.
        """
        known = self._surroundings.get(name)
        if known is None:
            found = set(ahead := list(self.closure(name)))
            while ahead:
                for other in self._imported_in_c(ahead.pop()) - found:
                    ahead += self.closure(other) - found
                    found |= self.closure(other)
            known = self._surroundings[name] = frozenset(found)
        return known

    def _imported_in_c(self, name: str) -> frozenset[str]:
        record, tops = self._records[name], set[str]()
        for file in record.files() if record.is_compiled else ():
            if file.endswith((".pyx", ".pxi")):
                with contextlib.suppress(OSError):
                    tops |= imported_in_c(record.text_of(file))
        return frozenset(owner for owner in self._owners_of(tops) if self._records[owner].is_compiled)

    def imports(self, name: str) -> frozenset[str]:
        """Return the distributions imported by loaded Python modules of the named one.

        Counted are imports at the top of Python modules that the base has loaded.
        """
        known = self._imports.get(name)
        if known is None:
            record, tops = self._records[name], set[str]()
            for file in record.modules():
                with contextlib.suppress(OSError):
                    if find_of_base(module_name(file)) is not None:
                        tops.update(found.partition(".")[0] for found in _IMPORTS.findall(record.text_of(file)))
            known = self._imports[name] = frozenset(self._owners_of(tops) - {name})
        return known

    def _owners_of(self, tops: Iterable[str]) -> set[str]:
        return {owner for top in tops for owner in self._owners.get(top, ())}

    def tied(self, names: Iterable[str], tops: Iterable[str]) -> frozenset[str]:
        """Return the distributions of ``names`` that need one of the packages ``tops``, directly or by another one.

        A distribution needs a package if one of its Python modules imports the package under no condition.
        """
        needed, found, left = {*tops}, set[str](), {*names}
        while needed and left:
            further = {name for name in left if not needed.isdisjoint(self._imported_for_sure(name))}
            found |= further
            left -= further
            needed = {top for name in further for top in self._records[name].tops}
        return frozenset(found)

    def _imported_for_sure(self, name: str) -> frozenset[str]:
        """Return the top-level packages that Python modules of a distribution import under no condition."""
        known = self._certain.get(name)
        if known is None:
            record, tops = self._records[name], set[str]()
            for file in record.modules():
                with contextlib.suppress(OSError):
                    tops.update(each.partition(".")[0] for each in imported_for_sure(record.text_of(file), ""))
            known = self._certain[name] = frozenset(tops)
        return known


def _reached(roots: Iterable[str], further: Callable[[str], Iterable[str]]) -> frozenset[str]:
    ahead = list(roots)
    found = set(ahead)
    while ahead:
        new = {*further(ahead.pop())} - found
        found |= new
        ahead += new
    return frozenset(found)


# --- requirements in metadata ----------------------------------------------------------------------------------------

_IMPORTS: Final = re.compile(r"^(?:from|import)[ \t]+(\w[\w.]*)", re.MULTILINE)
_REQUIRES: Final = re.compile(
    r"^Requires-Dist:\s*([A-Za-z0-9][\w.-]*)([^;\n]*)(?:;(.*))?$", re.MULTILINE | re.IGNORECASE
)
_EXTRA: Final = re.compile(r"""\bextra\s*==\s*["']([^"']+)""")


def _requirements(distribution: Distribution) -> list[Requirement]:
    requirements = []
    for text in distribution.requires or ():
        with contextlib.suppress(InvalidRequirement):
            requirements.append(Requirement(text))
    return requirements


def _required(record: Record) -> Iterator[str]:
    """Yield the names that a distribution requires here without any extra: from the text, which is read often."""
    text = record.metadata()
    if not text:  # an egg-info directory keeps requirements in another file
        for requirement in _requirements(record.distribution):
            if _holds(str(requirement.marker or "")):
                yield requirement.name
        return
    for name, _, marker in _REQUIRES.findall(text.partition("\n\n")[0]):
        if _holds(marker):
            yield name


@functools.lru_cache(maxsize=1024)
def _holds(marker: str) -> bool:
    """Tell whether an environment marker holds here, without any extra."""
    if not marker.strip():
        return True
    with contextlib.suppress(InvalidMarker, UndefinedEnvironmentName):
        return Marker(marker).evaluate({"extra": ""})
    return False


def _is_for_use(extra: str) -> bool:
    """Tell whether an extra is for users of a distribution, and not for its developers."""
    return _DEVELOPMENT.isdisjoint(canonicalize_name(extra).split("-"))

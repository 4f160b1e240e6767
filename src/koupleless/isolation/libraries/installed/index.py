"""Index: the distributions on one search path, and the distributions that own each Python module there."""

from __future__ import annotations

import functools
import os
from collections import Counter
from importlib.metadata import DistributionFinder, MetadataPathFinder
from typing import TYPE_CHECKING

from koupleless.isolation.libraries.installed.contents import Contents
from koupleless.isolation.libraries.installed.record import Record, file_of, identity_of
from koupleless.isolation.libraries.installed.relations import Relations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.metadata import Distribution


def find_in(paths: Sequence[str], *, name: str | None = None) -> Iterable[Distribution]:
    """Find the distributions, or the one of this name, in the metadata of some directories."""
    if not paths:
        return ()
    return MetadataPathFinder.find_distributions(DistributionFinder.Context(name=name, path=list(paths)))


class Index:
    """Python modules of a search path, with the distributions of each. Immutable but for remembered answers.

    Made of the RECORD files of all distributions: one read for each. ``with_metadata`` are the entries of the path that
    have distributions, if known: ``importlib.metadata`` keeps a listing of each directory that it is asked for.
    """

    def __init__(self, paths: Sequence[str], with_metadata: Sequence[str] | None = None) -> None:
        self.paths = tuple(paths)
        self.with_metadata = self.paths if with_metadata is None else tuple(with_metadata)
        self.versions: dict[str, str] = {}
        """Normalised name -> version; the first on the path wins, as in an import."""
        self._records: dict[str, Record] = {}
        self._tops: dict[str, list[str]] = {}
        """Top-level Python module -> the distributions with files of it."""
        for distribution in find_in(self.with_metadata):
            name, version = identity_of(distribution)
            if name and name not in self.versions:
                self.versions[name] = version
                self._records[name] = record = Record(name, distribution)
                for top in record.tops:
                    self._tops.setdefault(top, []).append(name)
        self.extended = {name for name, record in self._records.items() if record.is_extended}
        """Distributions with extension modules."""
        self.compiled = {name for name, record in self._records.items() if record.is_compiled}
        """Distributions with extension modules and without source to be executed instead."""
        self._projects = [(project, name) for name, record in self._records.items() if (project := record.project())]
        """Directories of projects of editable installations, each with the name of the distribution."""
        self.relations = Relations(self._records, self._tops)
        self.contents = Contents(self._records, self.versions, self.relations)

    # --- of Python modules and files -----------------------------------------------------------------------------

    def owners(self, module: str) -> tuple[str, ...]:
        """Return the distributions that own a Python module.

        An owner has files of the top-level package; of a package shared by several distributions, files of the module's
        portion.
        """
        top, dot, rest = module.partition(".")
        names = self._tops.get(top, ())
        if len(names) < 2 or not dot:  # noqa: PLR2004 - one owner owns all of it
            return tuple(names)
        while rest:  # a child without files belongs to the owner of the parent
            prefix = f"{top}/{rest.replace('.', '/')}"
            found = tuple(
                name
                for name in names
                if any(line.startswith(prefix) and line[len(prefix)] in "/." for line in self._records[name].lines)
            )
            if found:
                return found
            rest = rest.rpartition(".")[0]
        return ()

    def is_sourced(self, module: str) -> bool:
        """Tell whether a Python module belongs to a distribution compiled by mypyc, which has the source as well."""
        return any(owner in self.extended and owner not in self.compiled for owner in self.owners(module))

    def owner_of_file(self, file: str) -> str | None:
        """Return the distribution with an editable project that holds the file; ``None`` if there is none."""
        return next((name for project, name in self._projects if file.startswith(project)), None)

    # --- of distributions ----------------------------------------------------------------------------------------

    @functools.cached_property
    def shared(self) -> frozenset[str]:
        """Distributions with compiled Python modules, and the surroundings of each."""
        return frozenset().union(*map(self.relations.surroundings, self.compiled))

    def top_level(self, name: str) -> frozenset[str]:
        """Return the top-level names of a distribution's Python modules."""
        return frozenset(self._records[name].tops) if name in self._records else frozenset()

    def place(self, name: str) -> str:
        """Return the directory in which a distribution is installed."""
        return self._records[name].place

    def directories(self, name: str) -> frozenset[str]:
        """Return the directories of one distribution alone, including directories of bundled compiled libraries."""
        if name not in self.versions:
            return frozenset()
        heads = {head for head, slash, _ in (line.partition("/") for line in self._records[name].lines) if slash}
        place = self.place(name)
        return frozenset(
            os.path.join(place, head)  # noqa: PTH118 - texts, as in a RECORD
            for head in heads
            if not head.endswith((".dist-info", ".egg-info")) and self._tops.get(head, [name]) == [name]
        )

    def parts(self, name: str) -> frozenset[str]:
        """Return the installed parts of a distribution, as relative paths.

        A part is a directory of this distribution alone, or a single file in a directory shared with others.
        """
        found = set()
        for file in self._records[name].files():
            head = file.partition("/")[0]
            if head != "__pycache__":
                found.add(head if self._heads[head] == 1 else file)
        return frozenset(found)

    @functools.cached_property
    def _heads(self) -> Counter[str]:
        """Count the distributions that have written to each directory, and to each file beside the directories."""
        heads: Counter[str] = Counter()
        for record in self._records.values():
            heads.update({file_of(line).partition("/")[0] for line in record.lines})
        return heads

    def console_scripts(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield the commands of some distributions: the name, and the function as ``module:function``."""
        for name in sorted(names):
            yield from self._records[name].console_scripts()

    def has_same(self, name: str, other: Index) -> bool:
        """Tell whether another index has the very same content of a distribution."""
        if other.versions.get(name) != self.versions[name]:
            return False
        return other.contents.of(name, alone=True) == self.contents.of(name, alone=True)

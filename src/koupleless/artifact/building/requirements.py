"""The distributions of a base, and whether they satisfy requirements."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import sys
from typing import TYPE_CHECKING, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from koupleless.artifact.manifest import Manifest

_METADATA: Final = (".dist-info", ".egg-info", ".egg-link", ".egg")
RUNTIME: Final = "koupleless"
"""The one distribution no biz may bring: all bizs use the copy of the process."""


class BaseFacts:
    """The distributions of a base, with versions and requirements.

    Immutable but for memory: the first answer about a distribution may be slow, because the environment is read on
    demand; distributions found to be complete are remembered. May be asked by any thread.
    """

    def __init__(self, versions: Mapping[str, str], requires: Mapping[str, Sequence[str]] | None = None) -> None:
        known = {str(canonicalize_name(name)): version for name, version in versions.items()}
        needs = {str(canonicalize_name(name)): tuple(texts) for name, texts in (requires or {}).items()}
        self._find: Callable[[str], tuple[str, tuple[str, ...]] | None] = lambda name: (
            (known[name], needs.get(name, ())) if name in known else None
        )
        self._list: Callable[[], Mapping[str, str]] = lambda: known
        self._mark: Callable[[], object] = lambda: [known, needs]
        self.complete: set[tuple[str, frozenset[str]]] = set()
        """Name and extras of distributions with all requirements satisfied by the base, and theirs in turn."""

    @classmethod
    def of_environment(cls) -> BaseFacts:
        """The facts of the running interpreter's environment."""
        facts = cls({})
        facts._find = functools.cache(_find_installed)
        facts._list = functools.cache(_list_installed)
        facts._mark = _mark_of_installed
        return facts

    def version_of(self, name: str) -> str | None:
        """The version of a distribution, given its normalised name; ``None`` if the base lacks it."""
        found = self._find(name)
        return found[0] if found else None

    def requires_of(self, name: str) -> tuple[str, ...]:
        """The requirements of a distribution of the base, as PEP 508 texts; empty if not known."""
        found = self._find(name)
        return found[1] if found else ()

    def versions(self) -> Mapping[str, str]:
        """All distributions: normalised name -> version."""
        return self._list()

    def mark(self) -> object:
        """A plain value that is another one whenever a distribution comes, leaves or is replaced; quickly made."""
        return self._mark()


class Preferred:
    """The versions of a base that a resolution prefers: those of all distributions but some. Immutable."""

    def __init__(self, facts: BaseFacts, *, without: Iterable[str] = ()) -> None:
        self._facts = facts
        self._without = frozenset(without)

    def versions(self) -> dict[str, str]:
        """The versions, by normalised name in alphabetical order. May be slow."""
        return {name: version for name, version in sorted(self._facts.versions().items()) if name not in self._without}

    def mark(self) -> object:
        """A plain value that is another one whenever a version is, as `BaseFacts.mark`."""
        return [self._facts.mark(), sorted(self._without)]


def _find_installed(name: str) -> tuple[str, tuple[str, ...]] | None:
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    return distribution.version, tuple(distribution.requires or ())


def _list_installed() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        # Python imports from the first distribution on the path. Broken metadata has no name.
        if (name := distribution.metadata["Name"]) is not None:
            found.setdefault(str(canonicalize_name(name)), distribution.version)
    return found


def _mark_of_installed() -> object:
    """The directories of metadata on the search path, which are named by distribution and version."""
    found = []
    for place in sys.path:
        with contextlib.suppress(OSError), os.scandir(place or ".") as entries:
            found.append([place, sorted(entry.name for entry in entries if entry.name.endswith(_METADATA))])
    return found


def lack(requirement: Requirement, facts: BaseFacts) -> str | None:
    """The reason why the base does not satisfy a requirement, dependencies included; ``None`` if it does."""
    seen: set[tuple[str, frozenset[str]]] = set()
    reason = _lack(requirement, facts, seen)
    if reason is None:
        # Only now is each of the seen distributions known to be complete: a circle among them may have led to a lack.
        facts.complete.update(seen)
    return reason


def _lack(requirement: Requirement, facts: BaseFacts, seen: set[tuple[str, frozenset[str]]]) -> str | None:
    name = canonicalize_name(requirement.name)
    if name == RUNTIME:
        return None
    version = facts.version_of(name)
    if version is None or requirement.url:
        return (
            "the requirement names an address of its own"
            if requirement.url
            else "the base does not have the distribution"
        )
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.specifier} is needed, the base has {version}"
    key = (name, frozenset(requirement.extras))
    if key in seen or key in facts.complete:
        return None
    seen.add(key)
    for needed in active(facts.requires_of(name), requirement.extras):
        if (why := _lack(needed, facts, seen)) is not None:
            return f"the base has {version}, but lacks its requirement {needed.name} ({why})"
    return None


def active(texts: Iterable[str], extras: Iterable[str] = ()) -> Iterator[Requirement]:
    """The requirements with markers that hold for the running interpreter and any of the extras."""
    chosen = [*extras, ""]
    for text in texts:
        with contextlib.suppress(InvalidRequirement):  # a mistake in the metadata of an installed package
            requirement = _parsed(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in chosen):
                yield requirement


@functools.lru_cache(maxsize=1024)
def _parsed(text: str) -> Requirement:
    """The requirement in a PEP 508 text, to be shared and never changed. Raises ``InvalidRequirement``."""
    return Requirement(text)


def unsatisfied(manifest: Manifest, facts: BaseFacts) -> tuple[str, ...]:
    """The requirements of this biz that the base does not satisfy, one sentence each.

    Asked before an install, because an artefact may have been slimmed for another base.
    """
    packed = {canonicalize_name(text.partition("==")[0]) for text in manifest.packed}
    sentences = {}
    for requirement in active((*manifest.requirements, *manifest.provided)):
        if canonicalize_name(requirement.name) not in packed and (why := lack(requirement, facts)) is not None:
            sentences[requirement.name] = f"{requirement}: {why}"
    return tuple(sentences[name] for name in sorted(sentences))

"""The owner of the Python module that a name means: pure values and pure decisions.

The order is the one of the class loaders of SOFAArk: names that the process must own, exports of plugins, files of the
biz, and the base last. Callers find out which Python modules the biz and the base have, and hand the facts in.
"""

from __future__ import annotations

import enum
import functools
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from packaging.specifiers import SpecifierSet

SELF: Final = "koupleless"
PROCESS_NAMES: Final = frozenset(sys.stdlib_module_names) | frozenset(sys.builtin_module_names) | {SELF}
"""Top-level names of the process, the same for all bizs: the standard library and the package of the container."""

NEVER_DELEGATED: Final = frozenset({"__main__", "__mp_main__"})
"""Names of the running program: each biz has an own ``__main__``, and no biz gets the one of the base."""


_ONE: Final = frozenset(
    {SELF, "asyncio", "codecs", "concurrent", "copyreg", "encodings", "importlib", "io", "logging", "multiprocessing"}
    | {"os", "signal", "site", "socket", "ssl", "subprocess", "sys", "threading", "unittest", "warnings", "weakref"}
)


def is_of_process(name: str) -> bool:
    """Whether a name belongs to the process, for all bizs."""
    return name.partition(".")[0] in PROCESS_NAMES


def is_one(name: str) -> bool:
    """Whether a process has one Python module of this name only.

    A biz that removes such a Python module from ``sys.modules`` gets the same one again. The interpreter and its
    threads go by such Python modules, or bizs are kept apart in them.
    """
    return name.partition(".")[0] in _ONE


class Provider(Protocol):
    """Yields the Python module of an exported name."""

    def __call__(self, name: str, /) -> ModuleType:
        """Return the Python module; raises ``ImportError`` if the plugin has none after all."""


class Side(enum.Enum):
    """The origin of a Python module."""

    PROCESS = "process"
    """The one copy of the process: standard library, koupleless."""
    EXPORT = "export"
    """An export of a plugin."""
    OWN = "own"
    """The files of the biz."""
    COPY = "copy"
    """The files of the base, for the biz to execute for itself."""
    SHARED = "shared"
    """A distribution of the biz with compiled code, loaded once for all bizs with the same content."""
    LENT = "lent"
    """A unit: such a distribution, in use by the biz already."""
    BASE = "base"
    """The Python modules of the base."""
    REFUSED = "refused"
    MISSING = "missing"
    """The package is the biz's, and its files have no such Python module."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision; ``reason`` advises users on a change where the side is REFUSED."""

    side: Side
    reason: str = ""
    provider: Provider | None = None
    """The plugin, where the side is EXPORT."""
    spec: ModuleSpec | None = None
    """The spec found, where the side is OWN, COPY or SHARED."""


_OF_PROCESS: Final = Verdict(Side.PROCESS)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Facts about a Python module of the base."""

    owners: tuple[tuple[str, str], ...] = ()
    """Distributions that own the Python module, each a normalised name and a version."""
    location: str = ""
    """The file or directory of the Python module; empty if there is none."""
    in_directory: bool = True
    """Whether the Python module lies in a plain directory, as opposed to an archive or nowhere at all."""
    is_stdlib: bool = False
    """Whether the Python module belongs to the standard library, under a name that is not among the listed ones."""


def covers(pattern: str, name: str) -> bool:
    """Whether a node (``a.b``) or a stem (``a.b.*``, and everything below) covers a dotted name, at dot boundaries."""
    if pattern.endswith(".*"):
        stem = pattern[:-2]
        return name == stem or name.startswith(stem + ".")
    return name == pattern


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules for the sides from which one biz may take Python modules. Immutable; made from the manifest of the biz."""

    declared: frozenset[str] = frozenset()
    """Distributions, or top-level Python modules of the base's own code; not empty means declared mode."""
    deny: tuple[str, ...] = ()
    """Patterns of names never taken from plugins. The patterns block neither the base nor the standard library."""
    exports: Mapping[str, Provider] = field(default_factory=dict)
    """Pattern -> the plugin that provides the covered names; the first of equally long patterns wins."""
    requirements: tuple[str, ...] = ()
    """PEP 508 requirements of the biz; distributions of the base must satisfy them."""
    private: tuple[str, ...] = ()
    """Directories with Python modules for the biz alone, even where a compiled library requires the Python modules."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "declared", frozenset(canonicalize_name(name) for name in self.declared))

    def before_own(self, name: str) -> Verdict | None:
        """Decide on a name without regard to the files of the biz; ``None`` where the decision depends on the files."""
        if is_of_process(name):
            return _OF_PROCESS
        if not self.exports or any(covers(pattern, name) for pattern in self.deny):
            return None
        matching = [pattern for pattern in self.exports if covers(pattern, name)]
        if not matching:
            return None
        return Verdict(Side.EXPORT, provider=self.exports[max(matching, key=_exactness)])

    @property
    def required(self) -> frozenset[str]:
        """The normalised names of the distributions that the biz requires here."""
        return frozenset(_specifiers(self.requirements))

    @property
    def asks_provenance(self) -> bool:
        """Whether `of_base` looks at the provenance of Python modules."""
        return bool(self.declared or self.requirements)

    def of_base(self, name: str, provenance: Provenance) -> Verdict:
        """Decide whether the biz may take a Python module from the base; the biz itself has none of this name."""
        refusal = self._undeclared(name, provenance) or self._unsatisfied(provenance)
        return Verdict(Side.REFUSED, refusal) if refusal else Verdict(Side.BASE)

    def _undeclared(self, name: str, provenance: Provenance) -> str:
        top = name.partition(".")[0]
        if not self.declared or provenance.is_stdlib or canonicalize_name(top) in self.declared:
            return ""
        if provenance.owners:
            if any(owner == SELF or owner in self.declared for owner, _ in provenance.owners):
                return ""
            which = " or ".join(repr(owner) for owner, _ in provenance.owners)
            return (
                f"the base has the Python module from the distribution {which}, which this biz does not declare; "
                f"add {provenance.owners[0][0]!r} to its declared libraries, or bring it along as a dependency"
            )
        if not provenance.in_directory:
            return ""
        return (
            f"the Python module is the base's own code ({provenance.location}), and this biz takes only declared "
            f"libraries from the base; add {top!r} to its declared libraries if the code is meant to be shared"
        )

    def _unsatisfied(self, provenance: Provenance) -> str:
        if not provenance.owners or not self.requirements:
            return ""
        wanted = _specifiers(self.requirements)
        for owner, version in provenance.owners:
            specifier = wanted.get(owner)
            if specifier is not None and not specifier.contains(version, prereleases=True):
                return (
                    f"the base has {owner} {version}, which does not satisfy {owner}{specifier!s}; "
                    f"bring {owner} along as a dependency of the module (do not leave it out of the build), "
                    f"relax the requirement, or install a fitting version in the base"
                )
        return ""


def _exactness(pattern: str) -> tuple[bool, int]:
    return (not pattern.endswith(".*"), len(pattern))


@functools.lru_cache(maxsize=256)
def _specifiers(requirements: tuple[str, ...]) -> Mapping[str, SpecifierSet]:
    """Map normalised names of distributions to wanted versions; requirements for other platforms are left out."""
    wanted: dict[str, SpecifierSet] = {}
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # the manifest reports the error; an import must not fail for this reason
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        wanted[name] = wanted[name] & requirement.specifier if name in wanted else requirement.specifier
    return wanted

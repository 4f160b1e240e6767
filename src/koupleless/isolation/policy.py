"""Whose module a name is to be: pure values and pure decisions.

The order is the one of the class loaders this follows: what the process must own, what plugins export, what the biz
brought, and the base last. Finding out what the biz and the base have is the business of others; they hand it in.
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
    from types import ModuleType

    from packaging.specifiers import SpecifierSet

SELF: Final = "koupleless"
PROCESS_NAMES: Final = frozenset(sys.stdlib_module_names) | frozenset(sys.builtin_module_names) | {SELF}
"""Top-level names that are the process's for everyone: the standard library and the container's own package."""

NEVER_DELEGATED: Final = frozenset({"__main__", "__mp_main__"})
"""Names that mean the running program: each biz has its own ``__main__``, and nobody gets the base's."""


_ONE: Final = frozenset(
    {SELF, "asyncio", "codecs", "concurrent", "copyreg", "encodings", "importlib", "io", "logging", "multiprocessing"}
    | {"os", "signal", "site", "socket", "ssl", "subprocess", "sys", "threading", "unittest", "warnings", "weakref"}
)


def is_of_process(name: str) -> bool:
    """Whether a name is the process's for everyone."""
    return name.partition(".")[0] in PROCESS_NAMES


def is_one(name: str) -> bool:
    """Whether a module is there once in a process: a biz that removes it from ``sys.modules`` gets the same again.

    The interpreter and its threads go by such modules, or bizs are kept apart in them.
    """
    return name.partition(".")[0] in _ONE


class Provider(Protocol):
    """Yields the module of an exported name."""

    def __call__(self, name: str, /) -> ModuleType:
        """The module; raises ``ImportError`` if the plugin has none after all."""


class Side(enum.Enum):
    """Where a module comes from."""

    PROCESS = "process"
    """The one copy of the process: standard library, koupleless."""
    EXPORT = "export"
    """What a plugin exports."""
    OWN = "own"
    """The biz's files."""
    BASE = "base"
    """What the base has."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision; ``reason`` says in words what to change when it is REFUSED."""

    side: Side
    reason: str = ""
    provider: Provider | None = None


_OF_PROCESS: Final = Verdict(Side.PROCESS)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is known about a module of the base."""

    owners: tuple[tuple[str, str], ...] = ()
    """Distributions that own it, each a normalised name and a version."""
    location: str = ""
    """Where it lies; empty if it is nowhere."""
    in_directory: bool = True
    """Whether it lies in a plain directory, as opposed to an archive or nowhere at all."""
    is_stdlib: bool = False
    """Whether it is the standard library's, under a name that is not among the listed ones."""


def covers(pattern: str, name: str) -> bool:
    """Whether a node (``a.b``) or a stem (``a.b.*``, and everything below) covers a dotted name, at dot boundaries."""
    if pattern.endswith(".*"):
        stem = pattern[:-2]
        return name == stem or name.startswith(stem + ".")
    return name == pattern


@dataclass(frozen=True, slots=True)
class Policy:
    """What one biz may take from where. Immutable; made from its manifest."""

    declared: frozenset[str] = frozenset()
    """Distributions, or top-level modules of the base's own code; not empty means declared mode."""
    deny: tuple[str, ...] = ()
    """Patterns of names that are not taken from plugins. They block neither the base nor the standard library."""
    exports: Mapping[str, Provider] = field(default_factory=dict)
    """Pattern -> the plugin that provides the names it covers; the first of equally long patterns wins."""
    requirements: tuple[str, ...] = ()
    """PEP 508 requirements of the biz; what the base provides must satisfy them."""
    private: tuple[str, ...] = ()
    """Directories of the biz whose modules are its alone, whatever compiled library requires them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "declared", frozenset(canonicalize_name(name) for name in self.declared))

    def before_own(self, name: str) -> Verdict | None:
        """The decision on a name that does not depend on what the biz brought; ``None`` where there is none."""
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
        """Whether `of_base` looks at where a module of the base comes from."""
        return bool(self.declared or self.requirements)

    def of_base(self, name: str, provenance: Provenance) -> Verdict:
        """Whether a module that the biz does not have may be taken from the base, which has it."""
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
                f"the base has it from the distribution {which}, which this module does not declare; "
                f"add {provenance.owners[0][0]!r} to its declared libraries, or bring it along as a dependency"
            )
        if not provenance.in_directory:
            return ""
        return (
            f"it is the base's own code ({provenance.location}), and this module takes only what it declares; "
            f"add {top!r} to its declared libraries if it is meant to be shared"
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
    """Normalised distribution name -> the versions wanted here; what is for other platforms is left out."""
    wanted: dict[str, SpecifierSet] = {}
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # the manifest reports it; an import is not the place to stumble over it
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        wanted[name] = wanted[name] & requirement.specifier if name in wanted else requirement.specifier
    return wanted

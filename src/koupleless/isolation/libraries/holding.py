"""Decide how a biz holds the libraries that the base has, too: pure functions over an index of distributions.

A library is *shared* (the module objects of the base), an *own copy* (module objects of the biz, executed from the
files of the base), or an *own version* (from the artefact). Code that nobody has looked at does not cross from one biz
to another: without a word of anybody a pure-Python library is an own copy. A compiled one is shared unless tested as a
copy, since its C code may know one Python half only.

Two libraries of which one requires the other belong to one family, and a family is never held by halves. The
requirements of a shared library are shared as well, and every library that requires an own copy, or an own version, is
an own copy. A library with an extra for a distribution of the biz is an own copy too: the base's would not find this
distribution, or would keep it for everybody.
"""

from __future__ import annotations

import enum
import functools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from packaging.utils import canonicalize_name

from koupleless.isolation.libraries.known import COPYABLE, SHARE, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from koupleless.isolation.libraries.installed.index import Index


class Holding(enum.Enum):
    """The Python modules of a library that a biz gets."""

    SHARED = "shared"
    """The base's."""
    COPY = "own copy"
    """The biz's own, executed from the files of the base."""
    OWN = "own version"
    """The biz's own, from its artefact."""


@dataclass(frozen=True, slots=True)
class Held:
    """How one library is held, and why, in words to follow the library's name."""

    holding: Holding
    reason: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """Distributions wanted as own copies, and distributions wanted as shared, by normalised name."""

    own: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()

    @classmethod
    def of(cls, own: Sequence[str] = (), shared: Sequence[str] = ()) -> Wishes:
        """Make wishes from names as people write them."""
        if not own and not shared:
            return NOTHING  # one object for the many that wish for nothing
        return cls(frozenset(map(canonicalize_name, own)), frozenset(map(canonicalize_name, shared)))


NOTHING: Final = Wishes()


@dataclass(frozen=True, slots=True)
class Speakers:
    """Sides with a say in how libraries are held: the first to speak of a library wins."""

    module: Wishes = NOTHING
    base: Wishes = NOTHING
    application: frozenset[str] = frozenset()
    """Distributions of the base's application: bizs share these as they share the code of the application."""
    words: Callable[[str], Share | None] = SHARE.get
    """The word of the library, or of an adapter of ours."""
    brought: frozenset[str] = frozenset()
    """Distributions brought along by the biz."""

    @property
    def asked(self) -> frozenset[str]:
        """Distributions with a wish of the biz or of the base, and distributions that the biz brings along."""
        return self.brought.union(self.module.own, self.module.shared, self.base.own, self.base.shared)

    def word(self, name: str) -> Held | None:
        """Return the first word on a distribution of the base; ``None`` if nobody speaks."""
        if name in self.brought:
            return Held(Holding.OWN, "the module brings the library along")
        share = self.words(name)
        for wishes, who in ((self.module, "the module"), (self.base, "the base")):
            if name in wishes.own:
                return Held(Holding.COPY, f"{who} asks for an own copy")
            if name in wishes.shared and share is not Share.NEVER:
                return Held(Holding.SHARED, f"{who} asks for sharing")
        return _OF_APPLICATION if name in self.application else _SAID.get(share)


_OF_APPLICATION: Final = Held(Holding.SHARED, "the application of the base")
_SAID: Final[dict[Share | None, Held]] = {
    Share.ALWAYS: Held(Holding.SHARED, "the library keeps the state of modules apart"),
    Share.COPY: Held(Holding.COPY, "the library keeps state that modules must not share"),
    Share.NEVER: Held(Holding.COPY, "by its own word, the library can never be shared"),
}


@functools.lru_cache(maxsize=64)
def decide(index: Index, speakers: Speakers) -> Mapping[str, Held]:
    """Decide how each distribution of the base is held: normalised name -> holding and reason.

    The mapping is remembered and not to be changed.
    """
    held = {name: word for name in index.versions if (word := speakers.word(name)) is not None}
    # A wish counts for requirements, too, against a word of the required library about itself.
    wishes = speakers.module.shared | speakers.base.shared
    wished = [name for name, one in held.items() if one.holding is Holding.SHARED and name in wishes]
    for name, by in _reached(wished, lambda name: index.relations.needs(name) - speakers.asked):
        held[name] = Held(Holding.SHARED, f"{by}, which is to be shared, requires the library")
    for name in index.extended - held.keys():
        held[name] = Held(Holding.SHARED, "the library is compiled, and not tested as a copy")
    shared = [name for name, one in held.items() if one.holding is Holding.SHARED and name not in speakers.application]
    for name, by in _reached(shared, lambda name: index.relations.needs(name) - held.keys()):
        held[name] = Held(Holding.SHARED, f"{by}, which is shared, requires the library")
    for name in index.versions.keys() - held.keys():
        held[name] = Held(Holding.COPY, "pure Python that nobody has said may be shared")
    apart = [name for name, one in held.items() if one.holding is not Holding.SHARED]
    apart += speakers.brought - held.keys()
    # Of tested libraries the metadata tell everything of use; of others, imports of loaded Python modules count as
    # well.
    untested = speakers.base.shared & held.keys()
    for name, by in _reached(apart, lambda name: _drawn(index, speakers, held, name, untested)):
        of = "an own version" if by in speakers.brought else "an own copy"
        verb = (
            "requires"
            if name in index.relations.users(by) or name not in index.relations.optional_users(by)
            else "can use"
        )
        held[name] = Held(Holding.COPY, f"the library {verb} {by}, of which the module has {of}")
    return held


def _drawn(index: Index, speakers: Speakers, held: Mapping[str, Held], name: str, untested: Iterable[str]) -> set[str]:
    """Return the shared distributions that need ``name``, or can use the biz's own one, and can be copied."""
    importers = (other for other in untested if name in index.relations.imports(other))
    optional = index.relations.optional_users(name) if name in speakers.brought else ()
    return {
        user
        for user in index.relations.users(name).union(importers, optional)
        if held[user].holding is Holding.SHARED
        and user not in speakers.module.shared | speakers.application
        and (user not in index.compiled or user in COPYABLE)
    }


def _reached(roots: Iterable[str], further: Callable[[str], Iterable[str]]) -> Iterable[tuple[str, str]]:
    """Yield each node reached from ``roots``, with the node before it, the nearest first; the roots are left out."""
    todo = deque(roots)
    seen = set(todo)
    while todo:
        by = todo.popleft()
        for name in sorted(further(by)):
            if name not in seen:
                seen.add(name)
                todo.append(name)
                yield name, by


def conflicts(index: Index, speakers: Speakers) -> tuple[str, ...]:
    """Say why the biz's wishes cannot be met by this base, one sentence each."""
    found = []
    for name in sorted(speakers.module.own - speakers.brought):
        version = index.versions.get(name)
        if version is None:
            found.append(
                f'own = ["{name}"]: the base does not have {name}; leave {name} out of own, or add {name} to the '
                "dependencies"
            )
        elif name in index.compiled and name not in COPYABLE:
            found.append(
                f'own = ["{name}"]: {name} {version} has compiled files and was not tested as a copy; '
                f'bring {name} along instead: bring = ["{name}"]'
            )
    for name in sorted(speakers.module.shared & index.versions.keys()):
        if name in speakers.brought:
            found.append(
                f'shared = ["{name}"]: the module brings {name} along; leave {name} to the base, or out of shared'
            )
        elif speakers.words(name) is Share.NEVER:
            found.append(
                f'shared = ["{name}"]: by its own word, {name} can never be shared; leave {name} out of shared'
            )
    return tuple(found)

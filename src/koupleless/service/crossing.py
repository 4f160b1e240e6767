"""Objects that cross a service between two holders of one library, told by name.

A class of one copy of a library is no class of another copy: ``isinstance`` and ``except`` of one holder do not know
objects of the other, and fail without a word. So the offer of an object of a private class is told, and so is the
result or error of a call for a caller with another class of the same name.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current, entered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from koupleless.context import Scope

    LibraryOf = Callable[[type], str | None]
    """The distribution of a class, if the owner has a copy of the distribution alone; ``None`` for any other class."""


class CrossingWarning(RuntimeWarning):
    """An object crosses between holders of different copies of its library."""


class PrivateLibraries:
    """The facet that knows the classes of libraries that a biz has for itself."""

    __slots__ = ("library_of",)

    def __init__(self, library_of: LibraryOf) -> None:
        self.library_of = library_of


def _library_of(scope: Scope | None, kind: type) -> str | None:
    facet = None if scope is None else scope.find_facet(PrivateLibraries)
    return None if facet is None else facet.library_of(kind)


def tell_offer(scope: Scope | None, types: Iterable[type]) -> None:
    """Warn if a biz offers an object of a private class, while others may have the library of the class."""
    if scope is None:
        return
    for kind in {id(base): base for one in types for base in one.__mro__}.values():
        library = _library_of(scope, kind)
        if library is not None:
            warnings.warn(
                f"biz {scope.biz} offers an object of {_name(kind)}, and holds {library} for itself: isinstance and "
                f"except of others know the class of their own {library}; to have one class, share {library} on both "
                f'sides: shared = ["{library}"]',
                CrossingWarning,
                stacklevel=4,
            )
            return


_told: Final[dict[int, tuple[weakref.ref[type], set[int]]]] = {}
"""Address of a class -> the lives that were told of the class; ``hash`` of a class is code of the metaclass."""


def _lives_told(kind: type) -> set[int]:
    key = id(kind)
    entry = _told.get(key)
    if entry is None:
        entry = _told[key] = weakref.ref(kind, lambda _: _told.pop(key, None)), set()
    return entry[1]


def tell_result(result: object, owner: Scope | None) -> None:
    """Warn, once for each class and caller, of a returned object that ``isinstance`` of the caller will not know."""
    kind = type(result)
    scope = current()
    life = 0 if scope is None else scope.generation
    known = _lives_told(kind)
    if life in known:
        return
    known.add(life)
    found = _mismatch(kind, owner, scope)
    if found is not None:
        warnings.warn(_in_words("got an object of", *found, owner, scope), CrossingWarning, stacklevel=2)


def explain(error: BaseException, owner: Scope | None) -> None:
    """Add a note to an exception of a call that ``except`` of the caller will not know."""
    scope = current()
    found = _mismatch(type(error), owner, scope)
    if found is not None:
        note = _in_words("got", *found, owner, scope)
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def _mismatch(kind: type, owner: Scope | None, user: Scope | None) -> tuple[type, str] | None:
    """The nearest class of an object for which the caller has another class of the same name, and the library."""
    for base in kind.__mro__:
        if base.__module__ == "builtins":
            return None
        theirs = _named(base, user)
        if theirs is None or theirs is base:
            continue
        library = _library_of(owner, base) or _library_of(user, theirs)
        if library is not None:
            return base, library
    return None


def _named(kind: type, user: Scope | None) -> type | None:
    """The class under the name of ``kind`` in the Python modules of the caller."""
    with entered(user):
        found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) else None


def _in_words(got: str, kind: type, library: str, owner: Scope | None, user: Scope | None) -> str:
    return (
        f"{_party(user)} {got} {_name(kind)} of {_party(owner)}, and has another copy of {library}: isinstance and "
        f'except there know another class; to have one class, share {library} on both sides: shared = ["{library}"]'
    )


def _party(scope: Scope | None) -> str:
    return "the base" if scope is None else f"biz {scope.biz}"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

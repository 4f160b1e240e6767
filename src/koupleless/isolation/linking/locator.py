"""Locator: the questions that a linker asks of a finder. The finders are in `koupleless.isolation.finding`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from koupleless.errors import BizGone

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from koupleless.biz import BizId


class ImportHooks(Protocol):
    """The import hooks of the owner's code."""

    def are_there(self) -> bool:
        """Whether the owner's code has added import hooks, or changed the list of import hooks otherwise."""

    def ask(self, name: str, parent: ModuleType | None) -> ModuleSpec | None:
        """Ask the import hooks before the owner's search path; ``None`` without an answer.

        A spec with a lazy loader for a Python module shared by all counts as no answer: the lazy one would take the
        place of the shared one.
        """


class Locator(Protocol):
    """Decides on the origin of the Python modules of one owner."""

    @property
    def hooks(self) -> ImportHooks:
        """The import hooks of the owner's code."""

    def foreign(self, name: str) -> ModuleType | None:
        """Return the Python module of another owner under a name; ``None`` if no other owner is known (yet)."""

    def locate(self, name: str, parent: ModuleType | None, *, is_asked: bool = False) -> ModuleSpec | ModuleType:
        """Return a spec for the owner to load, or the Python module of another owner.

        ``is_asked`` says that the hooks before the search path were asked. Raises ``ModuleNotFoundError``, as Python,
        if nothing is found.
        """

    def anew(self, name: str, parent: ModuleType | None) -> ModuleSpec | ModuleType:
        """Return a spec of another owner's Python module, for the owner to execute anew.

        Returns the Python module itself where a process can have one only. Raises ``ModuleNotFoundError`` if there is
        none.
        """

    def owns(self, top: str) -> bool:
        """Whether a top-level package, not imported yet, would be the owner's."""

    def is_copied(self, name: str) -> bool:
        """Whether a Python module of the base, not imported yet by the owner, is to be an own copy."""

    def is_own_part(self, name: str) -> bool:
        """Whether the owner executes a Python module of a lent library for itself."""

    def is_settled(self, name: str) -> bool:
        """Whether a name belongs to another owner for good, or until `invalidate_caches`."""

    def sight(self) -> Callable[[str], bool]:
        """Return a function that tells whether the owner's code sees a Python module of the base in ``sys.modules``.

        The function is valid for the present moment only.
        """

    def advice(self, name: str) -> str:
        """Advise a change after which the owner can import a Python module not found before; empty if not needed."""

    def invalidate_caches(self) -> None:
        """Forget all answers, so that files new since then are seen."""


class _NoHooks:
    """No import hooks."""

    def are_there(self) -> bool:
        """See `ImportHooks`."""
        return False

    def ask(self, name: str, parent: ModuleType | None) -> ModuleSpec | None:  # noqa: ARG002 - as any hooks
        """See `ImportHooks`."""
        return None


class Gone:
    """The locator of an owner without a finder, as one that has left: owns nothing, and finds nothing."""

    hooks: Final = _NoHooks()

    def __init__(self, biz: BizId) -> None:
        self._biz = biz

    def foreign(self, name: str) -> ModuleType | None:
        """Raise ``BizGone``."""
        raise BizGone(self._biz, name=name)

    def locate(self, name: str, parent: ModuleType | None, *, is_asked: bool = False) -> ModuleSpec | ModuleType:  # noqa: ARG002 - as any locator
        """Raise ``BizGone``."""
        raise BizGone(self._biz, name=name)

    def anew(self, name: str, parent: ModuleType | None) -> ModuleSpec | ModuleType:  # noqa: ARG002
        """Raise ``BizGone``."""
        raise BizGone(self._biz, name=name)

    def owns(self, top: str) -> bool:  # noqa: ARG002
        """See `Locator`."""
        return False

    def is_copied(self, name: str) -> bool:  # noqa: ARG002
        """See `Locator`."""
        return False

    def is_own_part(self, name: str) -> bool:  # noqa: ARG002
        """See `Locator`."""
        return False

    def is_settled(self, name: str) -> bool:  # noqa: ARG002
        """See `Locator`."""
        return False

    def sight(self) -> Callable[[str], bool]:
        """See `Locator`."""
        return bool

    def advice(self, name: str) -> str:  # noqa: ARG002
        """See `Locator`."""
        return ""

    def invalidate_caches(self) -> None:
        """See `Locator`."""

"""Answers: memory of finished imports of one owner, by the text of the import statement.

An import statement of a loaded Python module takes the answer from here, and nothing else is asked. So all answers of
an owner are forgotten with any change of the owner's table. Some changes elsewhere count as well: code of the base
replaces a Python module (`base_changed`), or code of a biz changes the meaning of a name for a library shared by
several bizs (`dispute`).

Threads: single operations of dictionaries; an answer forgotten in the middle of a statement is given once more.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType
    from typing import Any


class Answers:
    """The answers of one owner. Lifetime: as the linker's; after `close` there are none."""

    def __init__(self, *, is_shared: bool = False) -> None:
        """``is_shared`` says that the owner is a library used by several bizs."""
        self.is_shared = is_shared
        self.is_closed = False
        self.plain: dict[str, ModuleType] = {}
        """The name in ``import name`` -> the top-level Python module."""
        self.flat: dict[str, ModuleType] = {}
        """The name in ``from name import`` -> the Python module, if no package."""
        self.packages: dict[str, ModuleType] = {}
        """The name in ``from name import`` -> the package."""
        self.relative: dict[tuple[str, str, int], ModuleType] = {}
        """``__package__`` of the code, name and number of dots in ``from .name import`` -> the Python module."""
        self.shown: dict[str, ModuleType | None] = {}
        """Python modules of the base looked up in ``sys.modules``, ``None`` for one out of sight.

        Forgotten, too, when another Python module is taken from the base.
        """
        _all.add(self)

    def remember(self, name: str, namespace: Mapping[str, Any] | None, level: int, module: ModuleType) -> None:
        """Remember the Python module of ``from name import``; ``namespace`` and ``level`` as of ``__import__``."""
        package = None if namespace is None else namespace.get("__package__")
        if not level:
            (self.packages if hasattr(module, "__path__") else self.flat)[name] = module
        elif isinstance(package, str):
            self.relative[package, name, level] = module

    def forget(self) -> None:
        """Forget all answers; the next imports look at the tables again."""
        self.shown.clear()
        self.plain.clear()
        self.flat.clear()
        self.packages.clear()
        self.relative.clear()

    def close(self) -> None:
        """Forget all answers, and take no more. Idempotent."""
        self.is_closed = True
        self.forget()
        _all.discard(self)


_all: Final[weakref.WeakSet[Answers]] = weakref.WeakSet()
_borrowed: Final[set[str]] = set()
"""Names of the base's Python modules among the answers of some owner."""
_disputed: Final[set[str]] = set()
"""Names with a meaning changed by code of some owner."""


def borrow(name: str) -> None:
    """Note that some owner is about to remember a Python module of the base."""
    _borrowed.add(name)


def base_changed(name: str) -> None:
    """Forget answers: code of the base has replaced or removed a Python module in the table of the base."""
    if name in _borrowed:
        _borrowed.discard(name)
        for answers in list(_all):
            answers.forget()


def dispute(names: set[str]) -> None:
    """Let shared libraries ask for the meaning of these names again, each time."""
    if not names <= _disputed:
        _disputed.update(names)
        for answers in list(_all):
            if answers.is_shared:
                answers.forget()


def is_disputed(name: str) -> bool:
    """Whether code of some owner has changed the meaning of a name."""
    return name in _disputed

"""The state of one base on disk: the directory, held from the start of the base to the end, and the journal inside."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from koupleless.errors import BaseStartFailed, StateHeld
from koupleless.state.directory import StateDirectory, default_directory
from koupleless.state.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path

    from koupleless.state.book import Book
    from koupleless.state.environments import Environments


class Holding:
    """The state directory of a base, if there is one.

    A directory that was named must be usable, or the base does not start. A default directory that cannot be used, or
    that another base holds, leaves the base without state, and the operator with a sentence. Lifetime: of the base;
    `load` and `release` are called once each, by one thread.
    """

    def __init__(self, path: Path | None, *, is_named: bool = True, notice: str = "") -> None:
        self.path = path
        """The directory, held or not; ``None`` if nothing is kept."""
        self._is_named = is_named
        self._notice = notice
        self._directory: StateDirectory | None = None
        self._book: Book | None = None

    @classmethod
    def default(cls, name: str, *, is_named: bool) -> Self:
        """The default directory of a base; ``is_named`` says that the base has a name of its own."""
        try:
            path = default_directory(name, is_named=is_named)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(0, "no permission to write", str(path))
        except (OSError, RuntimeError) as error:
            return cls(None, notice=f"there is no state directory ({error}), so {_NOTHING_KEPT}")
        return cls(path, is_named=False)

    def load(self, book: Book, environments: Environments) -> list[str]:
        """Hold the directory, and load ``book`` from the journal; returns sentences for the operator.

        ``environments`` keeps the values of variables in the directory from now on.

        Raises ``BaseStartFailed`` for a named directory that cannot be used; a ``StateHeld`` if another base has it.
        """
        if self.path is None:
            return [self._notice] if self._notice else []
        try:
            self._directory = StateDirectory.take(self.path)
            journal = Journal(self._directory.path / _JOURNAL)
        except (StateHeld, OSError) as error:
            self._let_go()
            if isinstance(error, StateHeld):
                if self._is_named:
                    raise
                return [f"{error}; until then {_NOTHING_KEPT}"]
            said = f"the state directory {self.path} cannot be used: {error.strerror or error}"
            if self._is_named:
                raise BaseStartFailed(f"{said}; choose another with --state-dir, or serve with --ephemeral") from error
            return [f"{said}, so {_NOTHING_KEPT}"]
        self._book = book
        environments.keep_in(self._directory.path / "environments")
        notice = book.load(journal)
        return [notice] if notice else []

    @property
    def journal(self) -> Path | None:
        """The file of the journal; ``None`` if nothing is kept."""
        return None if self._directory is None else self._directory.path / _JOURNAL

    def release(self) -> None:
        """Close the book, and let others have the directory. Idempotent."""
        if self._book is not None:
            self._book.close()
        self._let_go()

    def _let_go(self) -> None:
        directory, self._directory = self._directory, None
        if directory is not None:
            directory.release()


_JOURNAL: Final = "journal"
_NOTHING_KEPT: Final = "nothing is kept over a restart of this base"

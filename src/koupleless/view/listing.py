"""Show two directories as one: the entries of the first, and those of the second that the first has not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

_OF_ARTEFACTS: Final = frozenset({"biz.toml", "META-INF", "com", "lib", "__pycache__"})


def hidden(name: str) -> bool:
    """Whether an entry of an artefact is none of a project."""
    return name in _OF_ARTEFACTS or name.endswith(".dist-info")


class Entry:
    """An entry as ``os.DirEntry``, with the path that was asked for."""

    __slots__ = ("_entry", "name", "path")

    def __init__(self, entry: os.DirEntry[Any], path: Any) -> None:
        self._entry = entry
        self.name = os.fsencode(entry.name) if isinstance(path, bytes) else entry.name
        self.path = os.path.join(path, self.name)  # noqa: PTH118 - text or bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)  # is_dir, is_file, is_symlink, is_junction, stat, inode

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"


class Merged:
    """The entries of one or two scans, as the iterator of ``os.scandir``: closed at the end, or as a context."""

    def __init__(self, scans: Sequence[Any], path: Any) -> None:
        self._scans = scans
        self._entries = self._run(os.fspath(path))

    def _run(self, path: Any) -> Iterator[Entry]:
        seen: set[str] = set()
        for number, scan in enumerate(self._scans):
            for entry in scan:
                if entry.name not in seen and not (number and hidden(entry.name)):
                    seen.add(entry.name)
                    yield Entry(entry, path)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Entry:
        return next(self._entries)

    def close(self) -> None:
        """Close the scans."""
        self._entries.close()  # type: ignore[attr-defined]  # a generator
        for scan in self._scans:
            scan.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""The cache of the user for builds: resolved requirements, and packed libraries. May be deleted at any moment."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.artifact.archive import digest_of
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_BYTES: Final = 2 << 30
MAX_AGE_S: Final = 30 * 24 * 3600.0
"""Seconds without a use after which an entry goes."""
_ABANDONED_S: Final = 3600.0
"""Age from which a file in the making belongs to a process that was killed."""
_IN_USE_S: Final = 600.0
"""Seconds after a use in which an entry stays, as a build may still read the file."""
_MAKING: Final = ".making-"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The result of `Cache.clean`, in bytes."""

    freed_bytes: int
    left_bytes: int


class Cache:
    """A directory of results that can be made again, each under a key made of all that decides the result.

    ::

        root/<kind>-<key>.json       a document, after a line with the SHA-256 of the document
        root/<sha256>.zip            an archive named in a document

    An entry appears by one rename, whole or not at all, and is checked whenever it is read. Any number of threads and
    processes may use one directory; of two that make the same entry, the last one stays. No method raises for a disk
    that refuses: a build without a cache is slow, not wrong.
    """

    def __init__(self, root: Path | None) -> None:
        """``None`` is a cache that keeps nothing."""
        self.root = root

    @classmethod
    def of_user(cls) -> Self:
        """The cache below ``XDG_CACHE_HOME``, else below ``.cache`` in the home directory; nothing without a home."""
        try:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError:
            return cls(None)
        return cls(Path(home, "koupleless", "builds").absolute())

    def read(self, kind: str, key: str, *, max_age_s: float | None = None) -> Any:
        """The document kept under the key; ``None`` without one, or with one that is damaged or older.

        Without a limit for the age, counts as a use.
        """
        path = self._path(kind, key)
        try:
            if path is None or not self._is_ready():
                return None
            if max_age_s is None:
                os.utime(path)
            elif not 0 <= time.time() - path.stat().st_mtime <= max_age_s:
                return None
            head, _, body = path.read_bytes().partition(b"\n")
            return json.loads(body) if head == _digest(body) else None
        except (OSError, ValueError):
            return None

    def write(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Keep a document."""
        path = self._path(kind, key)
        if path is None or not self._is_ready():
            return
        body = json.dumps(document, separators=(",", ":")).encode()
        with contextlib.suppress(OSError), _making(path) as made:
            made.write_bytes(_digest(body) + b"\n" + body)

    def archive(self, digest: str) -> Path | None:
        """The archive of this SHA-256, after a look at all bytes; ``None`` without one. Counts as a use."""
        if self.root is None or not self._is_ready():
            return None
        path = self.root / f"{digest}.zip"
        with contextlib.suppress(OSError, ArtifactError):
            if digest_of(path)[0] == digest:
                os.utime(path)
                return path
            path.unlink()  # damaged
        return None

    def keep_archive(self, made: Path, digest: str) -> Path:
        """Keep a copy of an archive of this SHA-256; returns the path of the copy, or ``made`` if none can be kept."""
        if self.root is None or not self._is_ready():
            return made
        path = self.root / f"{digest}.zip"
        with contextlib.suppress(OSError):
            with _making(path) as copy:
                shutil.copyfile(made, copy)
            self.clean()
            return path
        return made

    def clean(
        self, *, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S, in_use_s: float = _IN_USE_S
    ) -> Cleaned:
        """Remove entries that were not used for long, the oldest first until the rest is small enough.

        Entries used in the last ``in_use_s`` seconds stay in any case. Files that a killed process left in the making
        are removed, too.
        """
        left = freed = 0
        if self.root is None:
            return Cleaned(0, 0)
        now = time.time()
        for path, status in sorted(self._files(), key=lambda pair: pair[1].st_mtime, reverse=True):
            limit = _ABANDONED_S if path.name.startswith(_MAKING) else max_age_s
            age = now - status.st_mtime
            if age > limit or (left + status.st_size > max_bytes and age >= in_use_s):
                with contextlib.suppress(OSError):
                    path.unlink()
                    freed += status.st_size
            else:
                left += status.st_size
        return Cleaned(freed, left)

    def _files(self) -> Iterable[tuple[Path, os.stat_result]]:
        with contextlib.suppress(OSError):
            for path in list(self.root.iterdir()) if self.root is not None else ():
                with contextlib.suppress(OSError):
                    yield path, path.lstat()

    def _path(self, kind: str, key: str) -> Path | None:
        return None if self.root is None else self.root / f"{kind}-{key}.json"

    def _is_ready(self) -> bool:
        """Make the directory. A directory where other users can write is not used: packed files are run as code."""
        assert self.root is not None
        with contextlib.suppress(OSError):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.root.stat()
            return status.st_uid == os.geteuid() and not status.st_mode & 0o022
        return False


def key_of(*parts: object) -> str:
    """A key made of all parts, which are plain values for JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


@contextlib.contextmanager
def _making(path: Path) -> Iterator[Path]:
    """A file beside ``path``, put in its place at the end of the block; removed if the block raises."""
    handle, name = tempfile.mkstemp(prefix=_MAKING, dir=path.parent)
    os.close(handle)
    made = Path(name)
    try:
        yield made
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise

"""An artefact that is no file at all, for tests of what reads and keeps artefacts."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from koupleless.artifact.archive import DEFAULT_LIMITS, FileMark, Limits
from koupleless.artifact.reading.common_keys import path_issue
from koupleless.artifact.sources.content import Content, read_manifests, tree_digest
from koupleless.errors import ArchiveRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from koupleless.artifact.manifest import Manifest


class MemorySource:
    """Relative path -> content, among them a manifest."""

    mark: FileMark | None = None

    def __init__(
        self, files: Mapping[str, bytes], *, origin: str = "<memory>", limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._files = dict(sorted(files.items()))
        self._limits = limits
        self.origin = origin

    def digest(self) -> str:
        return tree_digest({name: hashlib.sha256(data).hexdigest() for name, data in self._files.items()})

    @contextlib.contextmanager
    def open(self) -> Iterator[Content]:
        for name in self._files:
            if (why := path_issue(name)) is not None:
                raise ArchiveRefused(self.origin, f"file {name!r} {why}")
        if sum(map(len, self._files.values())) > self._limits.max_bytes:
            raise ArchiveRefused(self.origin, f"the archive holds more than {self._limits.max_bytes} bytes")
        yield _MemoryContent(read_manifests(self._read_text, self.origin), self._files)

    def _read_text(self, name: str) -> str | None:
        data = self._files.get(name)
        try:
            return None if data is None else data.decode()
        except UnicodeDecodeError:
            raise ArchiveRefused(self.origin, f"its {name} is no UTF-8 text") from None


class _MemoryContent:
    def __init__(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        self.manifest = manifest
        self._files = files

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        for name, data in self._files.items():
            yield name, iter((data,))

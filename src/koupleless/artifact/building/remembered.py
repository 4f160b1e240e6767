"""pip with a memory: resolved requirements and packed libraries of earlier builds, from the cache of the user.

A resolution is remembered for a day under all that decides it: the requirements, the distributions of the base, the
interpreter, pip, and the settings of pip. Packed libraries are remembered by the archives that they were made from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import sys
import sysconfig
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.artifact.archive import digest_of, write_archive
from koupleless.artifact.building.options import print_nothing
from koupleless.artifact.building.pip import Pip, Resolved
from koupleless.artifact.cached.cache import Cache, key_of
from koupleless.artifact.cached.settings import digest_of_settings
from koupleless.artifact.keeping.bytecode import bytecode_path, compile_source
from koupleless.artifact.keeping.libraries import LIB
from koupleless.artifact.sources.content import tree_digest
from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from packaging.requirements import Requirement

    from koupleless.artifact.building.options import Tell
    from koupleless.artifact.building.requirements import Preferred

MAX_AGE_S: Final = 24 * 3600.0
"""The age up to which a resolution counts: later versions of a distribution come to the index all the time."""
_FORM: Final = 1
"""The form of the entries; raised when old entries must not be read any more."""
_RESOLVED, _PACKED = "resolved", "libraries"


@dataclass(frozen=True, slots=True)
class Libraries:
    """Packed libraries: the files, with bytecode, and the archive with all of them."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Relative path below ``lib`` -> SHA-256."""
    archive: Path | None = None
    """A zip with the files below ``lib``; ``None`` without files."""

    @property
    def digest(self) -> str:
        """The digest of all files together."""
        return tree_digest(self.files)

    @property
    def places(self) -> dict[str, str]:
        """The files as in an artefact: relative path -> SHA-256."""
        return {f"{LIB}/{place}": digest for place, digest in self.files.items()}


class RememberingPip:
    """pip on behalf of one build, asked only for what the cache does not hold. Used by one thread."""

    def __init__(
        self,
        project: str,
        python: str,
        cache: Cache,
        *,
        is_fresh: bool = False,
        tell: Tell = print_nothing,
    ) -> None:
        """``is_fresh`` resolves anew, and keeps the result; ``tell`` is called with the name of each slow step."""
        self._project = project
        self._step = ""
        self._pip = Pip(project, python, lambda detail: tell(self._step, detail))
        self._cache = cache
        self._is_fresh = is_fresh
        self._tell = tell
        self._interpreter = [python, *_stamp(python), sys.version, sysconfig.get_platform(), sys.flags.optimize]

    def resolve(
        self, requirements: Sequence[Requirement], base: Preferred, *, also: Sequence[Requirement]
    ) -> dict[str, Resolved]:
        """Resolve as `Pip.resolve` does.

        Requirements with an address of their own are always resolved anew, because the content there may change.
        """
        texts = [sorted(map(str, some)) for some in (requirements, also)]
        key = key_of(_FORM, self._interpreter, _version_of_pip(), digest_of_settings(), texts, base.mark())
        is_fresh = self._is_fresh or any(requirement.url for requirement in requirements)
        known = None if is_fresh else self._cache.read(_RESOLVED, key, max_age_s=MAX_AGE_S)
        if known is not None:
            return {name: Resolved(**{**one, "requires": tuple(one["requires"])}) for name, one in known.items()}
        self._begin(f"resolving {len(requirements)} requirements of {self._project}")
        found = self._pip.resolve(requirements, base.versions(), also=also)
        if all(one.is_fixed for one in found.values()):
            self._cache.write(_RESOLVED, key, {name: dataclasses.asdict(one) for name, one in found.items()})
        return found

    def pack(self, resolved: Sequence[Resolved], directory: Path, *, compiled: bool) -> Libraries:
        """Install and compile the distributions, and pack them into an archive.

        The archive lies in the cache, else below ``directory``, which also takes files in the making. Raises
        ``BuildFailed`` with the output of pip.
        """
        if not resolved:
            return Libraries()
        archives = sorted((one.pin, one.digest) for one in resolved)
        settings = "" if all(one.digest for one in resolved) else digest_of_settings()
        key = key_of(_FORM, self._interpreter, archives, settings, compiled)
        is_kept = all(one.is_fixed for one in resolved)
        known = self._cache.read(_PACKED, key) if is_kept else None
        if known is not None and (archive := self._cache.archive(known["archive"])) is not None:
            return Libraries(known["files"], archive)
        tree, made = directory / "tree", directory / "libraries.zip"
        self._begin(f"downloading {len(resolved)} libraries of {self._project}")
        self._pip.install([one.pin for one in resolved], tree)
        self._begin(f"compiling and packing {len(resolved)} libraries of {self._project}")
        files = self._pack_tree(tree, made, compiled=compiled)
        if not is_kept:
            return Libraries(files, made)
        digest, _ = digest_of(made)
        archive = self._cache.keep_archive(made, digest)
        if archive != made:
            self._cache.write(_PACKED, key, {"archive": digest, "files": files})
        return Libraries(files, archive)

    def _begin(self, step: str) -> None:
        self._step = step
        self._tell(step)

    def _pack_tree(self, tree: Path, archive: Path, *, compiled: bool) -> dict[str, str]:
        """Write all files below ``tree``, with bytecode, into an archive; relative path -> SHA-256."""
        try:
            files = {
                path.relative_to(tree).as_posix(): path.read_bytes()
                for path in sorted(tree.rglob("*"))
                if path.is_file()
            }
            if compiled:
                files |= bytecode_of(files, below=f"{LIB}/")
            write_archive(archive, {f"{LIB}/{place}": files[place] for place in sorted(files)})
        except OSError as error:
            raise BuildFailed(self._project, f"cannot pack the libraries: {error.strerror}") from None
        return {place: hashlib.sha256(files[place]).hexdigest() for place in sorted(files)}


def bytecode_of(files: Mapping[str, bytes], *, below: str = "") -> dict[str, bytes]:
    """The bytecode of the source files, equal in every process: relative path -> content.

    ``below`` is the directory of the files in the artefact, to be named in the code.
    """
    found = {}
    with warnings.catch_warnings():
        # Invalid escapes and the like in the code of others. The filter is process-wide; a build owns the process.
        warnings.simplefilter("ignore")
        for place, data in files.items():
            if place.endswith(".py") and (compiled := compile_source(data, below + place, reproducible=True)):
                found[bytecode_path(place)] = compiled
    return found


def _stamp(python: str) -> tuple[str, ...]:
    """Texts of which one changes when the interpreter is replaced."""
    try:
        status = os.stat(python)  # noqa: PTH116 - a text, as in a command
    except OSError:
        return ()
    return (os.path.realpath(python), str(status.st_size), str(status.st_mtime_ns))


def _version_of_pip() -> str:
    try:
        return importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return ""

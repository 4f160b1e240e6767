"""The content-addressed store: an artefact is unpacked and compiled once for all users, and appears whole or not."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.util
import marshal
import os
import shutil
import struct
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from koupleless.artifact.inventory import Inventory, in_words
from koupleless.artifact.manifest import parse_biz_toml, render_biz_toml
from koupleless.artifact.source import copy_files
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from koupleless.artifact.archive import FileMark
    from koupleless.artifact.manifest import Manifest
    from koupleless.artifact.source import BizSource

K = TypeVar("K")
V = TypeVar("V")

TAG: Final = sys.implementation.cache_tag or "python"

_ALIVE: Final = "alive"
_MANIFEST: Final = "manifest.toml"
_INVENTORY: Final = "files.json"
_DAMAGED: Final = "damaged.txt"
"""The file in an entry that lists damaged files, one a line. An entry with this file is not used any more."""
_TRIES: Final = 5
"""Attempts to make an entry while other processes keep removing it."""
_REMEMBERED: Final = 4096
_SETTLED_NS: Final = 100_000_000
"""Least age of a file, in nanoseconds, for a remembered digest: a younger file may change without a new mark."""
_UNCHECKED_HASH: Final = 0b01


def default_root() -> Path:
    """The default place of a user's store: ``$XDG_CACHE_HOME/koupleless/store``, or below ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "koupleless" / "store"


class Unpacked:
    """An entry in use: stays in the store until released. Has one owner; safe to read from any thread."""

    def __init__(self, store: Store, manifest: Manifest, digest: str, path: Path, *, notice: str | None = None) -> None:
        self.notice = notice
        """A sentence for the operator if the artefact had to be unpacked again, with the reason."""
        self.manifest = manifest
        """The manifest without the digests of files, which were checked while unpacking."""
        self.digest = digest
        self.path = path
        lib = path / "lib"
        self.class_path: tuple[Path, ...] = (path, lib) if lib.is_dir() else (path,)
        """Directories to import from: the biz's own code first, then the private dependencies."""
        self._store: Store | None = store

    def written(self) -> list[Path]:
        """Files written below `path` since unpacking, as relative paths.

        Bytecode, links, sockets and the like are left out. Raises ``OSError``.
        """
        try:
            inventory = Inventory.read(self.path.parent / _INVENTORY)
        except ValueError:
            return []
        return [Path(name) for name in inventory.written(self.path, with_code=True)]

    def damage(self) -> str | None:
        """Compare the code with the artefact's; a sentence if files differ, else ``None``. Reads all code.

        Asked after the biz has failed. A damaged entry is unpacked again at the next use.
        """
        entry = self.path.parent
        try:
            found = Inventory.read(entry / _INVENTORY).differences(self.path, code_alone=True)
            if found:
                (entry / _DAMAGED).write_text("\n".join(found), "utf-8")
        except (OSError, ValueError):
            found = [_INVENTORY]
        if not found:
            return None
        return f"its unpacked files were changed ({in_words(found)}), and are unpacked again at the next install"

    @property
    def scratch(self) -> Path:
        """The directory for work in progress, as `Store.scratch`. Raises ``ArtifactError`` after `release`."""
        if self._store is None:
            raise ArtifactError(f"{self.manifest.id} was given back to its store")
        return self._store.scratch

    def release(self) -> None:
        """End this use of the entry. An entry without users may be removed from the store. Idempotent."""
        store, self._store = self._store, None
        if store is not None:
            store.release(self.digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Unpacked {self.manifest.id} {self.digest[:12]} at {self.path}>"


@dataclasses.dataclass(frozen=True, slots=True)
class Removed:
    """The entries removed by `Store.remove_unused`, and the bytes freed."""

    digests: tuple[str, ...]
    size_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """The findings of `Store.verify` about one entry."""

    digest: str
    identity: str
    """The identity of the biz; empty if the manifest cannot be read any more."""
    damaged: tuple[str, ...]
    """Missing files, and code with other bytes than the artefact's."""
    written: tuple[str, ...]
    """Other files added or changed since unpacking, most likely by the biz."""


class Store:
    """A directory of unpacked artefacts, shared by any number of threads and processes of one user.

    ::

        root/lock                                   held for an instant while entries or sessions are changed
        root/cpython-311/<digest>/manifest.toml     the manifest
        root/cpython-311/<digest>/files.json        the inventory, to find files changed since unpacking
        root/cpython-311/<digest>/hello-1.0.0/      the files, with bytecode for this Python
        root/sessions/<n>/                          one per open store: work in progress, and marks of entries in use
        root/sessions/<n>/alive                     locked as long as the process lives

    A complete entry appears by one rename, and disappears by another. Work in progress lies in the directory of the
    session; if the process dies, the next store opened on the same root removes the directory. No data is flushed to
    the disk on purpose: after a power failure an entry may be damaged, and a store is a cache that may be deleted.

    Entries and directories removed or edited by others while the store is open are made again at the next use.

    Thread-safe. Lives as long as the base; `close` ends all uses of entries.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self._users: dict[str, int] = {}
        self._digests: OrderedDict[FileMark, str] = OrderedDict()
        self._entries = self.root / TAG
        self._session = self.root / "sessions"
        self._alive = -1
        self._open()

    def _open(self) -> None:
        """Make the missing directories, and a session of this store."""
        with _disk_errors(f"use {self.root} as a store"):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._refuse_strangers()
            self._entries.mkdir(exist_ok=True)
            (self.root / "sessions").mkdir(exist_ok=True)
            with self._locked(fcntl.LOCK_EX):
                self._session = Path(tempfile.mkdtemp(prefix="", dir=self.root / "sessions"))
                alive = os.open(self._session / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(alive, fcntl.LOCK_EX)
                for digest in self._users:
                    self._marker(digest).touch()
                dead = self._take_dead_sessions()
        before, self._alive = self._alive, alive
        if before >= 0:
            os.close(before)
        for leftover in dead:
            shutil.rmtree(leftover, ignore_errors=True)

    def _heal(self) -> None:
        """Make directories again that were removed while the store was open."""
        if self._alive < 0 or (self._entries.is_dir() and (self._session / _ALIVE).is_file()):
            return
        with self._lock:
            if not (self._session / _ALIVE).is_file():
                self._open()
        with _disk_errors(f"use {self.root} as a store"):
            self._entries.mkdir(exist_ok=True)

    def _refuse_strangers(self) -> None:
        """Refuse a root where other users can write, because the files in a store are run as code."""
        status = self.root.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o002:
            raise ArtifactError(f"{self.root} cannot be a store: other users can write to it; choose another directory")

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """Hold the root's lock: shared to take an entry into use, exclusive to remove entries and sessions.

        Each holder opens the file anew, because locks of one file description do not exclude each other.
        """
        gate = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(gate, kind)
            yield
        finally:
            os.close(gate)

    def _take_dead_sessions(self) -> list[Path]:
        """Move the sessions of dead processes into this session, to be deleted later without the lock."""
        dead = []
        for session in self._sessions():
            if session != self._session and not _is_alive(session):
                target = self._session / f"dead-{session.name}"
                session.rename(target)
                dead.append(target)
        return dead

    @property
    def scratch(self) -> Path:
        """A directory for work in progress, removed with the session even if the process dies."""
        self._heal()
        return self._session

    # --- unpacking -------------------------------------------------------------------------------------------------

    def unpack(self, source: BizSource) -> Unpacked:
        """Unpack and compile the artefact, and keep the entry in use until the result is released.

        Content already in the store is not read again. Raises ``ArchiveRefused``, ``ManifestInvalid``,
        ``DigestMismatch``, or another ``ArtifactError`` (full disk, file changed while being read, wrong Python);
        nothing is left behind then.
        """
        self._heal()
        digest = self._digest_of(source)
        notice = None
        with self._one_at_a_time(digest):
            for _ in range(_TRIES):
                manifest = self._acquire(digest)
                if manifest is not None:
                    return self._unpacked(digest, manifest, notice)
                damage = self._damage(digest)
                if damage:
                    notice = f"its files in {self.root} were changed ({in_words(damage)}), so it was unpacked again"
                try:
                    self._make(source, digest)
                except ArtifactError as error:
                    if not isinstance(error.__cause__, FileNotFoundError):
                        raise
                    self._heal()  # directories were removed while unpacking
        raise ArtifactError(f"{source.origin} was removed from the store {self.root} while it was unpacked")

    def find(self, digest: str) -> Unpacked | None:
        """Take the entry with this digest into use, as `unpack` does; ``None`` if there is no undamaged entry."""
        self._heal()
        manifest = self._acquire(digest)
        return None if manifest is None else self._unpacked(digest, manifest)

    def _unpacked(self, digest: str, manifest: Manifest, notice: str | None = None) -> Unpacked:
        return Unpacked(self, manifest, digest, self._entries / digest / _tree_name(manifest), notice=notice)

    def _digest_of(self, source: BizSource) -> str:
        mark = source.mark
        if mark is None:
            return source.digest()
        with self._lock:
            known = self._digests.get(mark)
        if known is not None:
            return known
        digest = source.digest()
        if time.time_ns() - max(mark.modified_ns, mark.changed_ns) > _SETTLED_NS and source.mark == mark:
            with self._lock:
                _remember(self._digests, mark, digest)
        return digest

    @contextlib.contextmanager
    def _one_at_a_time(self, digest: str) -> Iterator[None]:
        """Make threads that want the same content wait for the first. Other processes may do the same work."""
        with self._lock:
            lock = self._busy.setdefault(digest, threading.Lock())
        with lock:
            try:
                yield
            finally:
                with self._lock:
                    # Waiting threads hold this lock object and will find the entry; newcomers may take a new lock.
                    if self._busy.get(digest) is lock:
                        del self._busy[digest]

    def _acquire(self, digest: str) -> Manifest | None:
        """Take the entry into use and return the manifest; ``None`` if there is no undamaged entry."""
        with _disk_errors(f"use {self._entries / digest}"), self._locked(fcntl.LOCK_SH):
            manifest = self._read_entry(digest)
            if manifest is None:
                return None
            with self._lock:
                if digest not in self._users:
                    self._marker(digest).touch()
                    os.utime(self._entries / digest)
                self._users[digest] = self._users.get(digest, 0) + 1
            return manifest

    def _marker(self, digest: str) -> Path:
        """The file that tells other processes that this store uses the entry."""
        return self._session / f"{TAG}.{digest}"

    def _read_entry(self, digest: str) -> Manifest | None:
        """The manifest of the entry; ``None`` if the entry is missing or damaged."""
        manifest = self._manifest_of(digest)
        return None if manifest is None or self._damage_of(digest, manifest) else manifest

    def _manifest_of(self, digest: str) -> Manifest | None:
        entry = self._entries / digest
        try:
            return parse_biz_toml((entry / _MANIFEST).read_text("utf-8"), str(entry))
        except (OSError, ArtifactError, UnicodeDecodeError):
            return None

    def _damage_of(self, digest: str, manifest: Manifest) -> list[str]:
        entry = self._entries / digest
        try:
            known = (entry / _DAMAGED).read_text("utf-8").splitlines()
        except OSError:
            known = []
        try:
            return known or Inventory.read(entry / _INVENTORY).damage(entry / _tree_name(manifest))
        except (OSError, ValueError):
            return [_INVENTORY]

    def _damage(self, digest: str) -> list[str]:
        """The damaged files of the entry; empty if there is no such entry."""
        if not (self._entries / digest).is_dir():
            return []
        manifest = self._manifest_of(digest)
        return [_MANIFEST] if manifest is None else self._damage_of(digest, manifest)

    def _make(self, source: BizSource, digest: str) -> None:
        """Unpack and compile in the session's directory, then put the entry in place by one rename."""
        with _disk_errors(f"unpack {source.origin} into {self.root}"):
            work = Path(tempfile.mkdtemp(prefix="work-", dir=self._session))
            try:
                with source.open() as content:
                    manifest = content.manifest
                    if (issue := manifest.python_issue()) is not None:
                        raise ArtifactError(issue)
                    tree = work / _tree_name(manifest)
                    tree.mkdir()
                    written = copy_files(content, tree, source.origin)
                final = self._entries / digest
                _compile_tree(tree, written, final / tree.name)
                Inventory.of(tree, written).write(work / _INVENTORY)
                # The digests are not needed any more, and thousands of lines would slow down every later reading.
                kept = dataclasses.replace(manifest, files={})
                (work / _MANIFEST).write_text(render_biz_toml(kept), "utf-8")
                self._publish(work, final)
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def _publish(self, work: Path, final: Path) -> None:
        try:
            work.rename(final)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            with self._locked(fcntl.LOCK_EX):
                # Another process was faster, which is as good; or the entry in place is damaged and has to go.
                if self._read_entry(final.name) is None:
                    damaged = self._session / f"damaged-{os.urandom(8).hex()}"
                    with contextlib.suppress(FileNotFoundError):
                        final.rename(damaged)
                    work.rename(final)
                    _keep_written(damaged, final)
                    shutil.rmtree(damaged, ignore_errors=True)

    # --- giving back and removing ----------------------------------------------------------------------------------

    def release(self, digest: str) -> None:
        """End one use of the entry. The entry stays until `remove_unused`."""
        with self._lock:
            left = self._users.get(digest, 0) - 1
            if left > 0:
                self._users[digest] = left
            elif self._users.pop(digest, None) is not None:
                with contextlib.suppress(OSError):
                    self._marker(digest).unlink()

    def remove_unused(self, *, keep_newest: int = 0, keep_younger_s: float = 0.0) -> Removed:
        """Remove entries not used by any process, of every Python version.

        The ``keep_newest`` entries used last are kept, and entries used in the last ``keep_younger_s`` seconds. Raises
        ``ArtifactError`` if the disk refuses.
        """
        self._heal()
        taken: list[tuple[str, Path]] = []
        with _disk_errors(f"clear the store {self.root}"), self._locked(fcntl.LOCK_EX):
            used = {marker.name for session in self._sessions() if _is_alive(session) for marker in session.iterdir()}
            unused = [entry for entry in self._all_entries() if f"{entry.parent.name}.{entry.name}" not in used]
            by_age = sorted(unused, key=lambda entry: entry.stat().st_mtime, reverse=True)
            oldest_kept = time.time() - keep_younger_s
            for entry in by_age[keep_newest:]:
                if not keep_younger_s or entry.stat().st_mtime < oldest_kept:
                    target = self._session / f"removed-{entry.parent.name}-{entry.name}"
                    entry.rename(target)
                    taken.append((entry.name, target))
        size = 0
        for _, target in taken:
            size += _size_of(target)
            shutil.rmtree(target, ignore_errors=True)
        return Removed(tuple(digest for digest, _ in taken), size)

    def verify(self) -> list[Verified]:
        """Read all files of all entries, of every Python version. A damaged entry is unpacked again at the next use.

        Raises ``ArtifactError`` if the disk refuses.
        """
        self._heal()
        with _disk_errors(f"read the store {self.root}"):
            return [_verified(entry) for entry in sorted(self._all_entries())]

    def size_bytes(self) -> int:
        """Size of all entries in bytes, of every Python version."""
        return sum(_size_of(entry) for entry in self._all_entries())

    def _sessions(self) -> list[Path]:
        return list((self.root / "sessions").iterdir())

    def _all_entries(self) -> list[Path]:
        return [entry for tag in self.root.iterdir() if tag.name not in {"sessions", "lock"} for entry in tag.iterdir()]

    def close(self) -> None:
        """End the session, and so all uses of entries by this store. Idempotent; without effect in a forked child."""
        if self._pid == os.getpid() and self._alive >= 0:
            with contextlib.suppress(OSError), self._locked(fcntl.LOCK_EX):
                shutil.rmtree(self._session, ignore_errors=True)
            os.close(self._alive)
            self._alive = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_alive(session: Path) -> bool:
    """Whether the process of the session still runs. The lock on the file dies with the process."""
    try:
        handle = os.open(session / _ALIVE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(handle)


def _remember(table: OrderedDict[K, V], key: K, value: V) -> None:
    """Put an item into a table of bounded size; the oldest item is dropped."""
    table[key] = value
    if len(table) > _REMEMBERED:
        table.popitem(last=False)


def _tree_name(manifest: Manifest) -> str:
    """The name of the directory of the files: name and version of the biz, because tracebacks show the path."""
    return f"{manifest.id.name[:100]}-{manifest.id.version[:100]}"


def _size_of(directory: Path) -> int:
    return sum(
        os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - a text path, as os.walk gives it
        for parent, _, names in os.walk(directory)
        for name in names
    )


@contextlib.contextmanager
def _disk_errors(doing: str) -> Iterator[None]:
    """Turn an ``OSError`` of the block into an ``ArtifactError`` with a sentence."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = "no space is left on the disk" if full else (error.strerror or str(error))
        raise ArtifactError(f"cannot {doing}: {reason}; nothing was kept") from error


# --- bytecode ------------------------------------------------------------------------------------------------------


def bytecode_path(path: str, *, optimize: int = 0) -> str:
    """The place where the running Python looks for the bytecode of the source file ``path``."""
    parent, _, name = path.rpartition("/")
    suffix = f".opt-{optimize}" if optimize else ""
    return f"{parent}/__pycache__/{name.removesuffix('.py')}.{TAG}{suffix}.pyc".lstrip("/")


def compile_source(source: bytes, name: str, *, optimize: int = 0, reproducible: bool = False) -> bytes | None:
    """The content of a ``.pyc`` that stays valid at any time of the files (PEP 552, unchecked hash).

    ``None`` for a file that cannot be compiled: packages also hold templates and code for other Pythons, and the
    error belongs to the import of such a file. ``reproducible`` gives equal bytes in every process, but interns all
    texts of the code, on some Pythons for the rest of the process: meant for builds, not for a base.
    """
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=optimize)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return None
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", _UNCHECKED_HASH) + importlib.util.source_hash(source)
    return header + marshal.dumps(_interned(code) if reproducible else code)


def _interned(constant: Any) -> Any:
    """A copy of the constant with all texts interned.

    The bytes marshal writes for a text depend on whether the text is interned, and so on the process's history.
    """
    match constant:
        case str():
            return sys.intern(constant)
        case tuple():
            return tuple(map(_interned, constant))
        case frozenset():
            return frozenset(map(_interned, constant))
        case CodeType():
            return constant.replace(
                co_consts=tuple(map(_interned, constant.co_consts)),
                co_filename=sys.intern(constant.co_filename),
                co_name=sys.intern(constant.co_name),
                co_qualname=sys.intern(constant.co_qualname),
            )
        case _:
            return constant


def _keep_written(damaged: Path, entry: Path) -> None:
    """Carry files written by a biz below the biz's code from a damaged entry over into the new entry."""
    with contextlib.suppress(OSError, ValueError):
        inventory = Inventory.read(entry / _INVENTORY)
        (tree,) = (path.name for path in entry.iterdir() if path.is_dir())
        before, now = damaged / tree, entry / tree
        try:
            written = Inventory.read(damaged / _INVENTORY).written(before)
        except (OSError, ValueError):
            written = inventory.added(before)
        for name in written:
            with contextlib.suppress(OSError):
                (now / name).parent.mkdir(parents=True, exist_ok=True)
                (before / name).replace(now / name)


def _verified(entry: Path) -> Verified:
    identity = ""
    try:
        manifest = parse_biz_toml((entry / _MANIFEST).read_text("utf-8"), str(entry))
        identity, tree = str(manifest.id), entry / _tree_name(manifest)
        inventory = Inventory.read(entry / _INVENTORY)
    except (OSError, ArtifactError, ValueError):
        return Verified(entry.name, identity, (_INVENTORY,), ())
    written = inventory.written(tree)
    damaged = [name for name in inventory.differences(tree) if name not in written]
    if damaged:
        (entry / _DAMAGED).write_text("\n".join(damaged), "utf-8")
    return Verified(entry.name, identity, tuple(damaged), tuple(written))


def _compile_tree(tree: Path, digests: dict[str, str], final: Path) -> None:
    """Compile source files without bytecode for this Python. ``final`` is the place of the files at run time.

    ``digests`` holds the digests of the unpacked files; the digests of the bytecode are added.
    """
    optimize = sys.flags.optimize
    for name in list(digests):
        if not name.endswith(".py"):
            continue
        place = bytecode_path(name, optimize=optimize)
        target = tree / place
        if place in digests and _is_good_bytecode(target):
            continue
        compiled = compile_source((tree / name).read_bytes(), str(final / name), optimize=optimize)
        if compiled is None:
            target.unlink(missing_ok=True)
            digests.pop(place, None)
        else:
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(compiled)
            digests[place] = hashlib.sha256(compiled).hexdigest()


def _is_good_bytecode(path: Path) -> bool:
    with path.open("rb", buffering=0) as file:
        header = file.read(8)
    return header[:4] == importlib.util.MAGIC_NUMBER and header[4:] == struct.pack("<I", _UNCHECKED_HASH)

"""The content-addressed store: the same content is unpacked and compiled once, whoever asks, and never half."""

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
"""The files of an entry that were read and found damaged, one a line: it is not used any more."""
_TRIES: Final = 5
"""How often an entry is made that others remove before it can be used."""
_REMEMBERED: Final = 4096
_SETTLED_NS: Final = 100_000_000
"""A file younger than this may be written again within one tick of its clock, and its mark would not show it."""
_UNCHECKED_HASH: Final = 0b01


def default_root() -> Path:
    """Where a user's store is unless told otherwise: ``$XDG_CACHE_HOME/koupleless/store`` or below ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "koupleless" / "store"


class Unpacked:
    """A place in the store that stays there until it is released. Used by one owner; safe to read from any thread."""

    def __init__(self, store: Store, manifest: Manifest, digest: str, path: Path, *, notice: str | None = None) -> None:
        self.notice = notice
        """What an operator should know of it: that it had to be unpacked again, and why."""
        self.manifest = manifest
        """What the artefact says of itself, without the digests of its files: those were checked."""
        self.digest = digest
        self.path = path
        lib = path / "lib"
        self.class_path: tuple[Path, ...] = (path, lib) if lib.is_dir() else (path,)
        """Where its modules are imported from: its own code first, then its private dependencies."""
        self._store: Store | None = store

    def written(self) -> list[Path]:
        """The files that were written below it since it was unpacked, relative to it, but for bytecode.

        Links, sockets and the like are none of them. Raises ``OSError``.
        """
        try:
            inventory = Inventory.read(self.path.parent / _INVENTORY)
        except ValueError:
            return []
        return [Path(name) for name in inventory.written(self.path, with_code=True)]

    def damage(self) -> str | None:
        """For who has seen it fail: that its code is not the artefact's, in words; ``None`` if it is. Reads all of it.

        What is damaged is unpacked again at its next use.
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
        """See `Store.scratch`. Raises ``ArtifactError`` after `release`."""
        if self._store is None:
            raise ArtifactError(f"{self.manifest.id} was given back to its store")
        return self._store.scratch

    def release(self) -> None:
        """Let the store remove it, once it is asked to and nobody else uses it. Idempotent."""
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
    """What `Store.remove_unused` took away."""

    digests: tuple[str, ...]
    size_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """What `Store.verify` found of one entry."""

    digest: str
    identity: str
    """Of the biz; empty if that cannot be read any more."""
    damaged: tuple[str, ...]
    """Files that are missing, and code with other bytes than the artefact's."""
    written: tuple[str, ...]
    """Other files that were added or changed since, by a module most likely."""


class Store:
    """A directory of unpacked artefacts, shared by any number of threads and processes of one user.

    ::

        root/lock                                   held for an instant by whoever changes what is there
        root/cpython-311/<digest>/manifest.toml     what it is
        root/cpython-311/<digest>/files.json        its files, to see whether they still are what was unpacked
        root/cpython-311/<digest>/hello-1.0.0/      the files, with bytecode for that Python
        root/sessions/<n>/                          one per open store: half-done work, and what it uses
        root/sessions/<n>/alive                     locked as long as the process lives

    An entry appears by one rename, complete, and disappears by another. Work in progress lies in the session's own
    directory; if the process dies, the next store that opens the root sweeps it away. Nothing is flushed to the disk on
    purpose: after a power failure an entry may be damaged, and a store is a cache that may be deleted.

    What others remove or edit while it is open, its own directories among them, is made again at the next use.

    Thread-safe. Lives as long as its base; `close` gives everything back.
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
        """Make what is not there: the directories, and a session of this store."""
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
        """Make the directories again that somebody has removed under this store."""
        if self._alive < 0 or (self._entries.is_dir() and (self._session / _ALIVE).is_file()):
            return
        with self._lock:
            if not (self._session / _ALIVE).is_file():
                self._open()
        with _disk_errors(f"use {self.root} as a store"):
            self._entries.mkdir(exist_ok=True)

    def _refuse_strangers(self) -> None:
        """What lies in the store is run as code: nobody else may be able to put something there."""
        status = self.root.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o002:
            raise ArtifactError(f"{self.root} cannot be a store: other users can write to it; choose another directory")

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """Hold the root's lock: shared to take an entry into use, exclusive to remove entries and sessions.

        A file description of its own for each holder: locks of one description do not exclude each other.
        """
        gate = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(gate, kind)
            yield
        finally:
            os.close(gate)

    def _take_dead_sessions(self) -> list[Path]:
        """Move what dead processes left behind into this session, to be deleted there without holding the lock."""
        dead = []
        for session in self._sessions():
            if session != self._session and not _is_alive(session):
                target = self._session / f"dead-{session.name}"
                session.rename(target)
                dead.append(target)
        return dead

    @property
    def scratch(self) -> Path:
        """A directory for work in progress: what a dead process leaves in it is swept away with its session."""
        self._heal()
        return self._session

    # --- unpacking -------------------------------------------------------------------------------------------------

    def unpack(self, source: BizSource) -> Unpacked:
        """Have the artefact unpacked and compiled, and hold it there until the result is released.

        What the store has already is not read again. Raises ``ArchiveRefused``, ``ManifestInvalid``,
        ``DigestMismatch``, or another ``ArtifactError`` (a full disk, a file that changes while it is read, a Python
        that does not fit); nothing is left behind then.
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
                    self._heal()  # directories were removed while it was at work
        raise ArtifactError(f"{source.origin} was removed from the store {self.root} while it was unpacked")

    def find(self, digest: str) -> Unpacked | None:
        """The content of that digest, held as by `unpack`; ``None`` if the store does not have it whole."""
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
        """Threads that want the same content wait for the first. Other processes may do the same work beside us."""
        with self._lock:
            lock = self._busy.setdefault(digest, threading.Lock())
        with lock:
            try:
                yield
            finally:
                with self._lock:
                    # Whoever waits holds this very lock object and finds the entry made; newcomers may take a new one.
                    if self._busy.get(digest) is lock:
                        del self._busy[digest]

    def _acquire(self, digest: str) -> Manifest | None:
        """Take the entry into use if it is there, and say what it is."""
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
        """The file by which other processes see that this one uses the entry."""
        return self._session / f"{TAG}.{digest}"

    def _read_entry(self, digest: str) -> Manifest | None:
        """What the entry says of itself; ``None`` if it is not there, or not as it was unpacked."""
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
        """The files that are not as they were unpacked; nothing if there is no such entry."""
        if not (self._entries / digest).is_dir():
            return []
        manifest = self._manifest_of(digest)
        return [_MANIFEST] if manifest is None else self._damage_of(digest, manifest)

    def _make(self, source: BizSource, digest: str) -> None:
        """Unpack and compile beside the entries, then put the whole in place by one rename."""
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
                # The digests have done their work; thousands of lines would only slow down who reads this later.
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
                # Another process was faster, which is as good; or what stands there is damaged and has to go.
                if self._read_entry(final.name) is None:
                    damaged = self._session / f"damaged-{os.urandom(8).hex()}"
                    with contextlib.suppress(FileNotFoundError):
                        final.rename(damaged)
                    work.rename(final)
                    _keep_written(damaged, final)
                    shutil.rmtree(damaged, ignore_errors=True)

    # --- giving back and removing ----------------------------------------------------------------------------------

    def release(self, digest: str) -> None:
        """Give back one use of the entry; it stays until somebody removes what is unused."""
        with self._lock:
            left = self._users.get(digest, 0) - 1
            if left > 0:
                self._users[digest] = left
            elif self._users.pop(digest, None) is not None:
                with contextlib.suppress(OSError):
                    self._marker(digest).unlink()

    def remove_unused(self, *, keep_newest: int = 0, keep_younger_s: float = 0.0) -> Removed:
        """Remove what no process uses, but for the ``keep_newest`` last used entries and those used just now.

        Looks at the entries of every Python version. Raises ``ArtifactError`` if the disk refuses.
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
        """Read all files of all entries, of every Python version; what is damaged is unpacked again at its next use.

        Raises ``ArtifactError`` if the disk refuses.
        """
        self._heal()
        with _disk_errors(f"read the store {self.root}"):
            return [_verified(entry) for entry in sorted(self._all_entries())]

    def size_bytes(self) -> int:
        """How much the entries hold, of every Python version."""
        return sum(_size_of(entry) for entry in self._all_entries())

    def _sessions(self) -> list[Path]:
        return list((self.root / "sessions").iterdir())

    def _all_entries(self) -> list[Path]:
        return [entry for tag in self.root.iterdir() if tag.name not in {"sessions", "lock"} for entry in tag.iterdir()]

    def close(self) -> None:
        """End this session: what it used may be removed by others. Idempotent; a forked child has no say in it."""
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
    """Whether the process that opened the session still runs: it holds a lock that dies with it."""
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
    """Put it into a table of bounded size; the oldest goes."""
    table[key] = value
    if len(table) > _REMEMBERED:
        table.popitem(last=False)


def _tree_name(manifest: Manifest) -> str:
    """The directory of the files is what tracebacks show, so it says whose they are."""
    return f"{manifest.id.name[:100]}-{manifest.id.version[:100]}"


def _size_of(directory: Path) -> int:
    return sum(
        os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - a text path, as os.walk gives it
        for parent, _, names in os.walk(directory)
        for name in names
    )


@contextlib.contextmanager
def _disk_errors(doing: str) -> Iterator[None]:
    """Say in words what the disk refused."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = "no space is left on the disk" if full else (error.strerror or str(error))
        raise ArtifactError(f"cannot {doing}: {reason}; nothing was kept") from error


# --- bytecode ------------------------------------------------------------------------------------------------------


def bytecode_path(path: str, *, optimize: int = 0) -> str:
    """Where the running Python looks for the bytecode of the source file ``path``, beside it."""
    parent, _, name = path.rpartition("/")
    suffix = f".opt-{optimize}" if optimize else ""
    return f"{parent}/__pycache__/{name.removesuffix('.py')}.{TAG}{suffix}.pyc".lstrip("/")


def compile_source(source: bytes, name: str, *, optimize: int = 0, reproducible: bool = False) -> bytes | None:
    """The content of a ``.pyc`` that stays good whatever the times of the files are (PEP 552, unchecked hash).

    ``None`` for what cannot be compiled: templates and code for other Pythons travel in packages too, and whoever
    imports them shall see the error then. ``reproducible`` gives the same bytes in every process, at the price of
    keeping every text of the code interned, on some Pythons for good: for builds, not for a base.
    """
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=optimize)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return None
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", _UNCHECKED_HASH) + importlib.util.source_hash(source)
    return header + marshal.dumps(_interned(code) if reproducible else code)


def _interned(constant: Any) -> Any:
    """The same constant with every text in it interned.

    What marshal writes for a text depends on whether it is interned, and that on what the process did before.
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
    """Carry files that a module has written below its code from a damaged entry into the one in its place."""
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
    """Compile what came without bytecode for this Python. ``final`` is where the files will be when they are run.

    ``digests`` are those of the files that came, to which the bytecode's are added.
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

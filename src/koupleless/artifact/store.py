"""The content-addressed store: an artefact is unpacked and compiled once for all users, and appears whole or not."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from koupleless.artifact.keeping.bytecode import TAG, compile_tree
from koupleless.artifact.keeping.cleaning import Retention, add_book, books, needed, removable, size_of
from koupleless.artifact.keeping.entry import Entry, Verified
from koupleless.artifact.keeping.inventory import in_words
from koupleless.artifact.keeping.libraries import LIB, LIBRARIES, libraries_manifest, take_libraries
from koupleless.artifact.keeping.session import Session, is_alive
from koupleless.artifact.keeping.unpack import copy_files, copy_unpacked
from koupleless.artifact.manifest import DIGEST
from koupleless.artifact.sources.content import tree_digest
from koupleless.errors import ArtifactError, DigestMismatch, LibrariesMissing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import TracebackType

    from koupleless.artifact.archive import FileMark
    from koupleless.artifact.keeping.inventory import Inventory
    from koupleless.artifact.manifest import Manifest
    from koupleless.artifact.sources.content import BizSource

_TRIES: Final = 5
"""Attempts to make an entry while other processes keep removing it."""
_REMEMBERED: Final = 4096
_NOTHING: Final = Retention()
_SETTLED_NS: Final = 100_000_000
"""Least age of a file, in nanoseconds, for a remembered digest: a younger file may change without a new mark."""


class Unpacked:
    """An entry in use: stays in the store until released. Has one owner; safe to read from any thread."""

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        digest: str,
        path: Path,
        *,
        inventory: Inventory | None = None,
        libraries: Unpacked | None = None,
        notice: str | None = None,
    ) -> None:
        self.notice = notice
        """A sentence for the operator if the artefact had to be unpacked again, with the reason."""
        self.manifest = manifest
        """The manifest without the digests of files, which were checked while unpacking."""
        self.digest = digest
        self.path = path
        lib = path / LIB if libraries is None else libraries.path
        self.class_path: tuple[Path, ...] = (path, lib) if lib.is_dir() else (path,)
        """Directories to import from: the biz's own code first, then the private dependencies."""
        self._store: Store | None = store
        self._root = f"{os.path.abspath(path)}/"  # noqa: PTH100 - as in the paths of an import
        self._inventory = inventory
        self._libraries = libraries

    def text_of(self, path: str, size: int, changed_ns: int) -> bytes | None:
        """The SHA-256 of an unpacked file by the absolute path, without reading, by size and time of change.

        ``None`` for a file that looks otherwise than when it was unpacked, and for all after `forget_texts`.
        """
        inventory, libraries = self._inventory, self._libraries
        if inventory is None or path.startswith(self._root) or libraries is None:
            return None if inventory is None else inventory.text_of(path.removeprefix(self._root), size, changed_ns)
        return libraries.text_of(path, size, changed_ns)

    def forget_texts(self) -> None:
        """Let go of what `text_of` knows: most of the code of a biz is loaded while the biz starts."""
        self._inventory = None
        if self._libraries is not None:
            self._libraries.forget_texts()

    def written(self) -> list[Path]:
        """Files written below `path` since unpacking, as relative paths.

        Bytecode, links, sockets and the like are left out, and so are files written beside the private dependencies,
        where later versions find them. Raises ``OSError``.
        """
        return [Path(name) for name in Entry(self.path.parent).written(self.path)]

    def damage(self) -> str | None:
        """Compare the code with the artefact's; a sentence if files differ, else ``None``. Reads all code.

        Asked after the biz has failed. A damaged entry is unpacked again at the next use.
        """
        found = Entry(self.path.parent).compare_code(self.path)
        if not found:
            return None if self._libraries is None else self._libraries.damage()
        return (
            f"unpacked files of the module were changed ({in_words(found)}), and are unpacked again at the next install"
        )

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
        if self._libraries is not None:
            self._libraries.release()

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
    """The entries removed by `Store.remove_unused`, in the order of their last use, the newest first."""

    digests: tuple[str, ...]
    identities: tuple[str, ...]
    """The identity of the biz of each entry; empty for an entry with an unreadable manifest."""
    size_bytes: int
    """The bytes freed."""


class Store:
    """A directory of unpacked artefacts, shared by any number of threads and processes of one user.

    ::

        root/lock                                   held for an instant while entries or sessions are changed
        root/cpython-311/<digest>/                  one unpacked artefact with bytecode for this Python (`Entry`)
        root/cpython-311/libraries-<digest>/        large private dependencies, for all artefacts with the same ones
        root/books/<n>                              the files of bases that name needed entries
        root/sessions/<n>/                          one per open store: work in progress, and marks of entries in use
        root/sessions/<n>/alive                     locked as long as the process lives (`Session`)

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
        self._session = self._open()
        self._is_open = True

    def _open(self) -> Session:
        """Make the missing directories, and a session of this store."""
        with _disk_errors(f"use {self.root} as a store"):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._refuse_strangers()
            self._entries.mkdir(exist_ok=True)
            (self.root / "sessions").mkdir(exist_ok=True)
            with self._locked(fcntl.LOCK_EX):
                session = Session.begin(self.root / "sessions")
                for digest in self._users:
                    session.mark(_mark_of(digest))
                dead = session.take(self._sessions())
        for leftover in dead:
            shutil.rmtree(leftover, ignore_errors=True)
        return session

    def _heal(self) -> None:
        """Make directories again that were removed while the store was open."""
        if not self._is_open or (self._entries.is_dir() and self._session.is_there):
            return
        with self._lock:
            if not self._session.is_there:
                before, self._session = self._session, self._open()
                before.close()
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

    @property
    def scratch(self) -> Path:
        """A directory for work in progress, removed with the session even if the process dies."""
        self._heal()
        return self._session.directory

    # --- unpacking -------------------------------------------------------------------------------------------------

    def unpack(self, source: BizSource) -> Unpacked:
        """Unpack and compile the artefact, and keep the entry in use until the result is released.

        Content already in the store is not read again. Raises ``ArchiveRefused``, ``ManifestInvalid``,
        ``DigestMismatch``, ``LibrariesMissing`` for an artefact that travels without libraries which are not in the
        store, or another ``ArtifactError`` (full disk, file changed while being read, wrong Python); nothing is left
        behind then.
        """
        self._heal()
        digest = self._digest_of(source)
        notice = made = None
        with self._one_at_a_time(digest):
            for _ in range(_TRIES):
                found = self._take(digest, notice, made)
                if found is not None:
                    return found
                damage = self._damage(digest)
                if damage:
                    notice = (
                        f"files of the module in {self.root} were changed ({in_words(damage)}), "
                        "so the artefact was unpacked again"
                    )
                try:
                    made = self._make(source, digest)
                except ArtifactError as error:
                    if not isinstance(error.__cause__, FileNotFoundError):
                        raise
                    self._heal()  # directories were removed while unpacking
        raise ArtifactError(f"{source.origin} was removed from the store {self.root} while it was unpacked")

    def find(self, digest: str) -> Unpacked | None:
        """Keep an entry in use until the result is released; ``None`` if there is no undamaged entry.

        An artefact that was unpacked for another Python alone is made ready for this one. Raises ``ArtifactError`` if
        the disk refuses, and for an artefact that has compiled code for the other Python.
        """
        self._heal()
        with self._one_at_a_time(digest):
            found = self._take(digest, None)
            return self._take(digest, None) if found is None and self._carry_over(digest) else found

    def has_libraries(self, digest: str) -> bool:
        """Whether the private dependencies with this digest are in the store, undamaged. Never raises."""
        if not DIGEST.fullmatch(digest):
            return False
        try:
            return Entry(self._entries / f"{LIBRARIES}-{digest}").read() is not None
        except OSError:
            return False

    def _take(self, digest: str, notice: str | None, made: tuple[Manifest, Inventory] | None = None) -> Unpacked | None:
        """Take an artefact with its libraries into use; ``None`` unless both are in the store, undamaged.

        ``made`` are manifest and inventory of an entry just made.
        """
        found = self._acquire(digest, made)
        if found is None:
            return None
        manifest, inventory = found
        libraries = None
        if manifest.libraries:
            libraries = self._take(f"{LIBRARIES}-{manifest.libraries}", None)
            if libraries is None:
                self.release(digest)
                return None
        tree = Entry(self._entries / digest).tree(manifest)
        return Unpacked(self, manifest, digest, tree, inventory=inventory, libraries=libraries, notice=notice)

    def _damage(self, digest: str) -> list[str]:
        """The damaged files of an artefact, else those of its libraries; empty if there is no such entry."""
        entry = Entry(self._entries / digest)
        found = entry.read()
        if found is None or not found[0].libraries:
            return entry.damage()
        return Entry(self._entries / f"{LIBRARIES}-{found[0].libraries}").damage()

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
                self._digests[mark] = digest
                if len(self._digests) > _REMEMBERED:
                    self._digests.popitem(last=False)
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

    def _acquire(
        self, digest: str, made: tuple[Manifest, Inventory] | None = None
    ) -> tuple[Manifest, Inventory] | None:
        """Take the entry into use and return manifest and inventory; ``None`` if there is no undamaged entry."""
        path = self._entries / digest
        with _disk_errors(f"use {path}"), self._locked(fcntl.LOCK_SH):
            found = made if made is not None and path.is_dir() else Entry(path).read()
            if found is None:
                return None
            with self._lock:
                if digest not in self._users:
                    self._session.mark(_mark_of(digest))
                    os.utime(self._entries / digest)
                self._users[digest] = self._users.get(digest, 0) + 1
            return found

    def _make(self, source: BizSource, digest: str) -> tuple[Manifest, Inventory] | None:
        """Unpack and compile in the session's directory, then put the entry in place by one rename.

        Returns manifest and inventory; ``None`` if an entry made by another process is in place.
        """
        with _disk_errors(f"unpack {source.origin} into {self.root}"):
            work = Entry(Path(tempfile.mkdtemp(prefix="work-", dir=self._session.directory)))
            try:
                with source.open() as content:
                    manifest = content.manifest
                    if (issue := manifest.python_issue()) is not None:
                        raise ArtifactError(issue)
                    tree = work.tree(manifest)
                    tree.mkdir()
                    written = copy_files(content, tree, source.origin)
                manifest = self._part(manifest, tree, written, origin=source.origin)
                final = Entry(self._entries / digest)
                compile_tree(tree, written, final.tree(manifest))
                made = work.describe(manifest, written)
                return made if self._publish(work, final) else None
            finally:
                if work.path.is_dir():
                    shutil.rmtree(work.path, ignore_errors=True)

    def _carry_over(self, digest: str) -> bool:
        """Make an entry, and that of its libraries, from an entry of another Python; ``False`` if none can be used."""
        for path in (entry for entry in self._all_entries() if entry.name == digest and entry.parent != self._entries):
            found = Entry(path).read()
            if found is None:
                continue
            manifest, inventory = found
            if (issue := manifest.python_issue()) is not None:
                raise ArtifactError(issue)
            lacks = manifest.libraries and not self.has_libraries(manifest.libraries)
            if lacks and not self._carry_over(f"{LIBRARIES}-{manifest.libraries}"):
                continue
            with _disk_errors(f"unpack {manifest.id} into {self.root} for this Python"):
                work = Entry(Path(tempfile.mkdtemp(prefix="work-", dir=self._session.directory)))
                tree, final = work.tree(manifest), Entry(self._entries / digest)
                try:
                    tree.mkdir()
                    written = copy_unpacked(inventory, Entry(path).tree(manifest), tree)
                    compile_tree(tree, written, final.tree(manifest))
                    work.describe(manifest, written)
                    self._publish(work, final)
                except (DigestMismatch, FileNotFoundError):
                    continue  # damaged, or removed meanwhile
                finally:
                    shutil.rmtree(work.path, ignore_errors=True)
            return True
        return False

    def _part(self, manifest: Manifest, tree: Path, written: dict[str, str], *, origin: str) -> Manifest:
        """Move large private dependencies to an entry of their own, and return the manifest with their digest.

        Takes their files out of ``written``. Raises ``LibrariesMissing``.
        """
        if manifest.libraries:
            if not self.has_libraries(manifest.libraries):
                raise LibrariesMissing(origin)
            return manifest
        files = take_libraries(tree, written)
        if not files:
            return manifest
        digest = tree_digest(files)
        if self.has_libraries(digest):
            shutil.rmtree(tree / LIB)
        else:
            work = Entry(Path(tempfile.mkdtemp(prefix="work-", dir=self._session.directory)))
            try:
                described, final = libraries_manifest(digest), Entry(self._entries / f"{LIBRARIES}-{digest}")
                (tree / LIB).rename(work.tree(described))
                compile_tree(work.tree(described), files, final.tree(described))
                work.describe(described, files)
                self._publish(work, final)
            finally:
                shutil.rmtree(work.path, ignore_errors=True)
        return dataclasses.replace(manifest, libraries=digest)

    def _publish(self, work: Entry, final: Entry) -> bool:
        """Put an entry in place; ``False`` if another process may have been faster."""
        try:
            work.path.rename(final.path)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            with self._locked(fcntl.LOCK_EX):
                # Another process was faster, which is as good; or the entry in place is damaged and has to go.
                if final.read() is None:
                    damaged = self._session.directory / f"damaged-{os.urandom(8).hex()}"
                    with contextlib.suppress(FileNotFoundError):
                        final.path.rename(damaged)
                    work.path.rename(final.path)
                    final.take_written(damaged)
                    shutil.rmtree(damaged, ignore_errors=True)
            return False
        return True

    # --- giving back and removing ----------------------------------------------------------------------------------

    def release(self, digest: str) -> None:
        """End one use of the entry. The entry stays until `remove_unused`."""
        with self._lock:
            left = self._users.get(digest, 0) - 1
            if left > 0:
                self._users[digest] = left
            elif self._users.pop(digest, None) is not None:
                self._session.unmark(_mark_of(digest))

    def remove_unused(self, limits: Retention = _NOTHING, *, keep: Collection[str] = ()) -> Removed:
        """Remove entries not used by any process, of every Python version, except for those within the limits.

        Entries with a digest in ``keep`` stay, and their libraries. Entries are moved away under the lock of the store
        and deleted afterwards. Raises ``ArtifactError`` if the disk refuses.
        """
        self._heal()
        taken: list[tuple[str, str, Path]] = []
        with _disk_errors(f"clean the store {self.root}", consequence=""), self._locked(fcntl.LOCK_EX):
            used = {marker.name for session in self._sessions() if is_alive(session) for marker in session.iterdir()}
            entries = self._all_entries()
            stay = {entry for entry in entries if f"{entry.parent.name}.{entry.name}" in used} | needed(entries, keep)
            unused = [entry for entry in entries if entry not in stay]
            for entry in removable(unused, limits, used_bytes=lambda: sum(map(size_of, stay))):
                identity = Entry(entry).identity()
                target = self._session.directory / f"removed-{entry.parent.name}-{entry.name}"
                entry.rename(target)
                taken.append((entry.name, identity, target))
        size = 0
        for _, _, target in taken:
            size += size_of(target)
            shutil.rmtree(target, ignore_errors=True)
        return Removed(tuple(digest for digest, _, _ in taken), tuple(identity for _, identity, _ in taken), size)

    def verify(self) -> list[Verified]:
        """Read all files of all entries, of every Python version. A damaged entry is unpacked again at the next use.

        Raises ``ArtifactError`` if the disk refuses.
        """
        self._heal()
        with _disk_errors(f"read the store {self.root}", consequence=""):
            return [Entry(path).verify() for path in sorted(self._all_entries())]

    def add_book(self, book: Path) -> None:
        """Note that a file of a base names entries of this store that are needed even while the base does not run.

        Raises ``ArtifactError`` if the disk refuses.
        """
        with _disk_errors(f"note {book} in the store {self.root}", consequence=""):
            add_book(self.root / "books", book)

    def books(self) -> list[Path]:
        """List the files of bases that name needed entries, as noted by `add_book`, if they are still there."""
        with _disk_errors(f"read the store {self.root}", consequence=""):
            return books(self.root / "books")

    def size_bytes(self) -> int:
        """Size of all entries in bytes, of every Python version."""
        return sum(size_of(entry) for entry in self._all_entries())

    def _sessions(self) -> list[Path]:
        return list((self.root / "sessions").iterdir())

    def _all_entries(self) -> list[Path]:
        return [
            entry
            for tag in self.root.iterdir()
            if tag.name not in {"sessions", "lock", "books"}
            for entry in tag.iterdir()
        ]

    def close(self) -> None:
        """End the session, and so all uses of entries by this store. Idempotent; without effect in a forked child."""
        if self._pid == os.getpid() and self._is_open:
            with contextlib.suppress(OSError), self._locked(fcntl.LOCK_EX):
                shutil.rmtree(self._session.directory, ignore_errors=True)
            self._session.close()
            self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _mark_of(digest: str) -> str:
    """The name of the mark for an entry of this Python version."""
    return f"{TAG}.{digest}"


@contextlib.contextmanager
def _disk_errors(doing: str, *, consequence: str = "; nothing was kept") -> Iterator[None]:
    """Turn an ``OSError`` of the block into an ``ArtifactError`` with a sentence."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = "no space is left on the disk" if full else (error.strerror or str(error))
        raise ArtifactError(f"cannot {doing}: {reason}{consequence}") from error

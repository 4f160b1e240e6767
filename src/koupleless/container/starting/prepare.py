"""Makes a prepared module from a URL, without touching anything shared.

A prepared module may be dropped at any moment: this half of an install cannot hurt.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Self

from koupleless.adapters.releasers import forget_releasers, words_of_libraries
from koupleless.artifact.building.requirements import BaseFacts, unsatisfied
from koupleless.artifact.fetch import fetch
from koupleless.artifact.source import source_for
from koupleless.biz import BizState, Isolation
from koupleless.descriptions import BizInfo, StateRecord
from koupleless.errors import ArtifactError, DigestMismatch, IdentityMismatch, ManifestInvalid
from koupleless.isolation.libraries.distributions import base_index, index_of
from koupleless.isolation.libraries.extensions import shelf
from koupleless.isolation.libraries.holding import Speakers, Wishes, conflicts
from koupleless.isolation.libraries.known import SHARE, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from koupleless.artifact.fetching.credentials import Credentials
    from koupleless.artifact.manifest import Manifest
    from koupleless.artifact.store import Store, Unpacked
    from koupleless.biz import BizId
    from koupleless.descriptions import Library
    from koupleless.isolation.libraries.installed.index import Index


def words() -> Callable[[str], Share | None]:
    """Return the table of words about sharing: the word of a library itself, else the word of our tested table."""
    return _words(base_index())


@functools.lru_cache(maxsize=2)
def _words(index: Index) -> Callable[[str], Share | None]:  # noqa: ARG001 - a new one when the installed have changed
    forget_releasers()
    return {**SHARE, **{name: Share(word) for name, word in words_of_libraries().items()}}.get


class Prepared:
    """A prepared module: verified and unpacked. Holds its place in the store until `discard`; used by one thread."""

    def __init__(self, url: str, unpacked: Unpacked) -> None:
        self.url = url
        self.unpacked = unpacked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.discard()

    @property
    def manifest(self) -> Manifest:
        """The manifest of the artefact."""
        return self.unpacked.manifest

    @property
    def id(self) -> BizId:
        """The identity for the registration of the biz."""
        return self.unpacked.manifest.id

    @property
    def priority(self) -> int:
        """The priority of the biz: smaller numbers are installed earlier."""
        return self.unpacked.manifest.priority

    def describe(self, state: BizState, records: Sequence[StateRecord], libraries: tuple[Library, ...] = ()) -> BizInfo:
        """Make the snapshot of a biz from this artefact."""
        manifest = self.manifest
        return BizInfo(
            id=manifest.id,
            state=state,
            entry=manifest.entry,
            web_context_path=manifest.web_context_path,
            priority=manifest.priority,
            records=tuple(records),
            url=self.url,
            work_dir=str(self.unpacked.path),
            class_path=tuple(str(path) for path in self.unpacked.class_path),
            declared_libraries=tuple(manifest.declared_libraries),
            deny_imports=tuple(manifest.deny_imports),
            attributes=manifest.attributes,
            isolation=manifest.isolation,
            libraries=libraries,
        )

    def discard(self) -> None:
        """Give the place in the store back. Idempotent."""
        self.unpacked.release()


class Absent:
    """The place of a prepared module for a biz without an artefact: a broken one, known from former times."""

    def __init__(self, biz: BizId, url: str) -> None:
        self.id = biz
        self.url = url

    def describe(self, state: BizState, records: Sequence[StateRecord], libraries: tuple[Library, ...] = ()) -> BizInfo:
        """Make the snapshot of a biz from the identity alone."""
        return BizInfo(self.id, state, entry="", url=self.url, records=tuple(records), libraries=libraries)

    def discard(self) -> None:
        """Do nothing: there is no place in the store."""


class Preparation:
    """The sources from which a base may take artefacts, and the store for the artefacts. Thread-safe."""

    def __init__(
        self,
        store: Store,
        *,
        allowed_prefixes: Sequence[str] = (),
        timeout_s: float = 60.0,
        credentials: Credentials | None = None,
    ) -> None:
        self._store = store
        self._allowed_prefixes = tuple(allowed_prefixes)
        self._timeout_s = timeout_s
        self._credentials = credentials
        self._facts = BaseFacts.of_environment()

    def prepare(self, url: str, *, expected: BizId | None = None, digest: str | None = None) -> Prepared:
        """Fetch, verify, unpack and parse the artefact at ``url``.

        With ``digest`` the artefact is taken from the store; ``url`` is a last resort, and must have the same content.

        Raises the children of ``ArtifactError``: ``FetchFailed``, ``DigestMismatch``, ``ArchiveRefused``,
        ``IdentityMismatch`` if the artefact is not ``expected``, and ``ManifestInvalid``. The last is raised also for
        an isolation not offered by this base, for libraries left out by slimming that this base lacks, and for a
        library that cannot stand beside the present version or cannot be held as the biz asks.
        """
        unpacked = self._fetched(url) if digest is None else self._stored(url, digest)
        prepared = Prepared(url, unpacked)
        with prepared:
            if expected is not None and prepared.id != expected:
                raise IdentityMismatch(url, expected=expected, actual=prepared.id)
            if prepared.manifest.isolation is not Isolation.NAMESPACE:
                wanted = prepared.manifest.isolation.value
                raise ManifestInvalid(url, [f'isolation = "{wanted}" is not available yet; leave the key out'])
            self._check_base(prepared)
            own = index_of([str(path) for path in unpacked.class_path])
            manifest, base = prepared.manifest, base_index()
            wishes, brought = Wishes.of(manifest.own, manifest.shared), frozenset(own.versions)
            speakers = Speakers(module=wishes, brought=brought, words=words())
            if found := (*shelf.conflicts(own, base), *conflicts(base, speakers)):
                raise ManifestInvalid(url, found)
        return prepared

    def _fetched(self, url: str) -> Unpacked:
        # Into the store's own scratch space, where a process that dies half way leaves no files for good.
        scratch, prefixes = self._store.scratch, self._allowed_prefixes
        with fetch(
            url,
            into=scratch,
            allowed_prefixes=prefixes,
            timeout_s=self._timeout_s,
            credentials=self._credentials,
        ) as path:
            return self._store.unpack(source_for(path))

    def _stored(self, url: str, digest: str) -> Unpacked:
        unpacked = self._store.find(digest)
        if unpacked is not None:
            return unpacked
        try:
            unpacked = self._fetched(url)
        except ArtifactError as error:
            raise ArtifactError(
                f"the store {self._store.root} has no artefact {digest[:12]} any more, and the source does not help "
                f"({error}); deploy the module again"
            ) from error
        if unpacked.digest != digest:
            unpacked.release()
            raise DigestMismatch(url, expected=digest, actual=unpacked.digest)
        return unpacked

    def _check_base(self, prepared: Prepared) -> None:
        """Refuse an artefact if the base lacks a library; the base is read anew before, as libraries may have come."""
        if unsatisfied(prepared.manifest, self._facts):
            self._facts = BaseFacts.of_environment()
            lacking = unsatisfied(prepared.manifest, self._facts)
            if lacking:
                raise ManifestInvalid(prepared.url, lacking)


class Preparing:
    """One `Preparation.prepare`; the result may come when nobody waits any more."""

    def __init__(self, preparation: Preparation, url: str, expected: BizId | None, digest: str | None) -> None:
        self._prepare = functools.partial(preparation.prepare, url, expected=expected, digest=digest)
        self._lock = threading.Lock()
        self._prepared: Prepared | None = None
        self._is_unwanted = False

    def run(self) -> Prepared:
        """Prepare and return the prepared module; called once, on the stage. Raises as `Preparation.prepare` does."""
        prepared = self._prepare()
        with self._lock:
            self._prepared = prepared
            is_unwanted = self._is_unwanted
        if is_unwanted:
            prepared.discard()
        return prepared

    def discard(self) -> None:
        """Give back the prepared module, made already or still to come."""
        with self._lock:
            self._is_unwanted = True
            prepared = self._prepared
        if prepared is not None:
            prepared.discard()

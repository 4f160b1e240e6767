"""All objects of one kind that a selector finds, kept as the API server has them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, NamedTuple

from koupleless.controller.cluster.api import ApiError, Key, Unreachable, Unreadable, ValueT, VersionGone
from koupleless.controller.cluster.delays import Backoff
from koupleless.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, KeysView

    from koupleless.controller.cluster.api import Api, Document, Kind, Page

_log: Final = logging.getLogger("koupleless.controller")
_DOUBTS: Final = 5
"""Watches in a row with nothing of use in the answer, until the version is given up and a list is read."""

_LOOKING: Final = 0.25
"""The part of the pause between two looks over which a look is spread: tens of thousands of keys are work."""
_NO_DOUBT: Final = frozenset({401, 403, 429, 500, 502, 503})
"""Refusals that are the same for every version."""
_LASTING_S: Final = 1.0
"""Seconds after which an open watch is one, though nothing has come: a quiet kind has one bookmark in a minute."""
_BACKOFF: Final = Backoff(first_s=0.1, longest_s=30)


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of a cache. Watches and looks take up to twice as long, by chance, so that not all come at once."""

    watch_s: float = 300
    """The duration of a watch, at least."""
    quiet_s: float = 150
    """How long nothing may come on a watch, at most: API servers send a bookmark each minute."""
    look_again_s: float = 600
    """How often all keys are told without a change; zero for never."""
    page: int = 500
    """The number of objects in one answer to a list, at most."""
    backoff: Backoff = _BACKOFF


class Cache(Generic[ValueT]):
    """The objects of one kind, as far as the selectors find them, by key and by some of their properties.

    A change is told as a key to ``changed``, which is to return soon, as `Queue.add` does; whoever works on the key
    reads the object here. Lifetime: that of `run`. Threads: those of one event loop.
    """

    def __init__(
        self,
        api: Api,
        kind: Kind[ValueT],
        changed: Callable[[Key], object],
        *,
        labels: str = "",
        fields: str = "",
        index: Callable[[ValueT], tuple[str, ...]] | None = None,
        pace: Pace = Pace(),
    ) -> None:
        self.trouble = ""
        """The reason why the cache does not follow the API server at the moment; empty if it follows."""
        self._api = api
        self._kind = kind
        self._query = {"labelSelector": labels, "fieldSelector": fields}
        self._pace = pace
        self._content = _Content(kind, changed, index)
        self._synced = asyncio.Event()

    def __len__(self) -> int:
        return len(self._content.values)

    def __repr__(self) -> str:
        state = self.trouble or ("follows" if self.is_synced else "not synced")
        return f"<Cache {self._kind.path} {len(self)} objects, {state}>"

    @property
    def is_synced(self) -> bool:
        """Whether all objects were read once: before that, an absent object says nothing."""
        return self._synced.is_set()

    async def synced(self) -> None:
        """Return once `is_synced`."""
        await self._synced.wait()

    def get(self, key: Key) -> ValueT | None:
        """Return the object as it was told last, or ``None``."""
        return self._content.values.get(key)

    def keys(self) -> KeysView[Key]:
        """Return a view of all keys."""
        return self._content.values.keys()

    def of(self, value: str) -> Iterator[ValueT]:
        """Yield the objects with this text in their ``index``."""
        return (self._content.values[key] for key in self._content.indexed.get(value, ()))

    def count(self, value: str) -> int:
        """Return the number of objects with this ``index``."""
        return len(self._content.indexed.get(value, ()))

    async def run(self) -> None:
        """Follow the API server until cancelled. No failure of the API server ends this."""
        async with asyncio.TaskGroup() as group:
            if self._pace.look_again_s:
                group.create_task(self._look_again())
            group.create_task(self._follow())

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(_by_chance(self._pace.look_again_s))
            places = self._content.places()
            for keys in places:
                for key in keys:
                    self._content.tell(key)
                await asyncio.sleep(self._pace.look_again_s * _LOOKING / len(places))

    async def _follow(self) -> None:
        version = ""
        failures = doubts = 0
        while True:
            reached = _Reached(version)
            asked_s = 0.0
            try:
                if version:
                    await self._watch(reached)
                else:
                    await self._list(reached)
                trouble = "" if reached.is_moved else "the API server ends watches at once"
            except (ApiError, Unreachable) as error:
                trouble = str(error)
                asked_s = error.retry_after_s if isinstance(error, ApiError) else 0
                if isinstance(error, VersionGone):
                    reached.version = ""
                elif not _is_doubtful(error):
                    doubts -= 1
            if reached.is_moved:
                failures = doubts = 0
            version = reached.version
            if not trouble:
                self._is_well()
                continue
            failures, doubts = failures + 1, doubts + 1
            if doubts >= _DOUBTS:
                version, doubts = "", 0
            await self._wait(trouble, failures, asked_s)

    def _is_well(self) -> None:
        if self.trouble:
            _log.info("%s: the API server is followed again", self._kind.path)
            self.trouble = ""

    async def _wait(self, trouble: str, failures: int, asked_s: float) -> None:
        delay_s = max(_by_chance(self._pace.backoff.after(failures)), asked_s)
        if trouble != self.trouble:
            _log.warning("%s: %s; trying again in %.1f s", self._kind.path, trouble, delay_s)
            self.trouble = trouble
        await asyncio.sleep(delay_s)

    async def _list(self, reached: _Reached) -> None:
        """Read all objects, page by page; the content is replaced once the last page is there."""
        page = await self._page()
        found = self._content.read(page.items)
        while page.following:
            try:
                page = await self._page(following=page.following)
            except VersionGone:  # the list takes longer than the API server remembers: all in one answer, then
                page = await self._page(limit=0)
                found.clear()
            found |= self._content.read(page.items)
        self._content.replace(found)
        self._synced.set()
        reached.move(page.version)

    async def _page(self, *, limit: int | None = None, following: str = "") -> Page:
        most = self._pace.page if limit is None else limit
        return await self._api.page(self._kind.path, self._query, limit=most, following=following)

    async def _watch(self, reached: _Reached) -> None:
        times = {"ends_after_s": _by_chance(self._pace.watch_s), "quiet_s": self._pace.quiet_s}
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with contextlib.AsyncExitStack() as stack:

            def open_well() -> None:
                stack.callback(loop.call_later(_LASTING_S, self._is_well).cancel)

            watch = self._api.watch(self._kind.path, self._query, reached.version, opened=open_well, **times)
            events = await stack.enter_async_context(contextlib.aclosing(watch))
            async for event in events:
                if event.is_gone and event.found is not None:
                    self._content.drop(event.found)
                elif event.found is not None:
                    self._content.put(event.found)
                reached.move(event.version)
                self._is_well()
        # A watch without an event, as of a quiet kind without bookmarks, was one if it lasted.
        reached.is_moved |= loop.time() - began > self._pace.backoff.longest_s


def _is_doubtful(error: ApiError | Unreachable) -> bool:
    """Whether the version may be at fault, as after the API server was restored from a copy."""
    return error.code not in _NO_DOUBT if isinstance(error, ApiError) else isinstance(error, Unreadable)


def _by_chance(seconds: float) -> float:
    """Return the time, or a longer one, up to twice as long."""
    return seconds * (1 + random.random())  # noqa: S311 - no secret


class _Reached:
    """The version up to which all changes are known, kept also when the watch then fails."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.is_moved = False

    def move(self, version: str) -> None:
        self.is_moved |= version != self.version
        self.version = version


class _Kept(NamedTuple, Generic[ValueT]):
    """An object as it is kept: no value if it cannot be read."""

    version: str
    value: ValueT | None


class _Content(Generic[ValueT]):
    """The objects by key and by index, and the telling of changes: after them, never before."""

    def __init__(
        self, kind: Kind[ValueT], changed: Callable[[Key], object], index: Callable[[ValueT], tuple[str, ...]] | None
    ) -> None:
        self.values: dict[Key, ValueT] = {}
        self.indexed: dict[str, set[Key]] = {}
        self._versions: dict[Key, str] = {}
        self._kind = kind
        self._changed = changed
        self._index = index

    def read(self, documents: list[Document]) -> dict[Key, _Kept[ValueT]]:
        """Read the objects without keeping them. One that is known already, in this version, is not read again."""
        return {_key_of(document): self._read(document) for document in documents}

    def replace(self, found: dict[Key, _Kept[ValueT]]) -> None:
        """Keep these objects and no other, and tell the differences."""
        gone = self._versions.keys() - found.keys()
        changed = [key for key, kept in found.items() if self._versions.get(key) != kept.version]
        for key in gone:
            self._drop(key)
        for key in changed:
            self._drop(key)
            self._keep(key, found[key])
        for key in [*gone, *changed]:
            self._changed(key)

    def put(self, document: Document) -> None:
        """Keep an object, and tell unless it is known in this version."""
        key, kept = _key_of(document), self._read(document)
        if self._versions.get(key) != kept.version:
            self._drop(key)
            self._keep(key, kept)
            self._changed(key)

    def drop(self, document: Document) -> None:
        """Keep an object no more, and tell if it was kept."""
        key = _key_of(document)
        if key in self._versions:
            self._drop(key)
            self._changed(key)

    def places(self) -> list[tuple[Key, ...]]:
        """Return all keys: those of one index together, for one piece of work."""
        if self._index is None:
            return [(key,) for key in self._versions]
        unread = tuple(self._versions.keys() - self.values.keys())
        return [*map(tuple, self.indexed.values()), *([unread] if unread else [])]

    def tell(self, key: Key) -> None:
        """Tell a key without a change."""
        self._changed(key)

    def _read(self, document: Document) -> _Kept[ValueT]:
        key, version = _key_of(document), document["metadata"].get("resourceVersion", "")
        if self._versions.get(key) == version:
            return _Kept(version, self.values.get(key))
        try:
            value = self._kind.read(document)
            if self._index is not None:
                self._index(value)
        except Exception as error:  # noqa: BLE001 - one object that cannot be read must not hide all others
            _log.error("%s: %s cannot be read, and is passed over: %s", self._kind.path, key, in_words(error))
            return _Kept(version, None)
        return _Kept(version, value)

    def _keep(self, key: Key, kept: _Kept[ValueT]) -> None:
        self._versions[key] = kept.version
        if kept.value is not None:
            self.values[key] = kept.value
            for place in self._places(kept.value):
                self.indexed.setdefault(place, set()).add(key)

    def _drop(self, key: Key) -> None:
        self._versions.pop(key, None)
        value = self.values.pop(key, None)
        if value is not None:
            for place in self._places(value):
                self.indexed[place].discard(key)
                if not self.indexed[place]:
                    del self.indexed[place]

    def _places(self, value: ValueT) -> set[str]:
        return set() if self._index is None else {*self._index(value)}


def _key_of(document: Document) -> Key:
    metadata = document["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])

"""Requests to the API server, and the one place for turning its refusals into errors of ours.

lightkube knows how to reach a cluster: kubeconfig, service accounts, certificates, plugins. A watch of lightkube has no
bookmarks, asks again without a pause after an empty answer, and does not pass on ``Retry-After``; hence requests are
made here, over a connection set up by lightkube.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import httpx2
import msgspec
from lightkube.config import client_adapter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from lightkube.config.kubeconfig import SingleConfig

_log: Final = logging.getLogger("koupleless.controller")

_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 60.0
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_GONE: Final = 410
_INVALID: Final = 422

Document = dict[str, Any]
Observer = Callable[[str, str, float], object]
"""Told the verb, the status or ``unreachable``, and the seconds until the answer."""
ValueT = TypeVar("ValueT")


class Key(NamedTuple):
    """The name of an object among the objects of one kind; the namespace is empty for nodes and their like."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Kind(Generic[ValueT]):
    """A resource by its path, as ``/api/v1/pods``, and the part of an object to be kept in memory.

    ``read`` makes that part of the JSON document of an object, and is the only one to see the document.
    """

    path: str
    read: Callable[[Document], ValueT]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: the objects, the version of the whole list, and a token for the next part, if there is one."""

    items: list[Document]
    version: str
    following: str


@dataclass(frozen=True, slots=True)
class Event:
    """An object that is there, or is gone; without an object, the version up to which every change was told."""

    version: str
    found: Document | None
    is_gone: bool = False


_RIGHT: Final = re.compile(r'cannot (\S+) resource "([^"]+)" in API group "([^"]*)"')
_DENIED_S: Final = 120.0


class ApiError(Exception):
    """The API server refused a request. ``retry_after_s`` is its wish for the time until the next request."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after_s: float = 0) -> None:
        self.code = code
        self.reason = reason
        self.retry_after_s = retry_after_s
        super().__init__(f"the API server answers {code} {reason}: {message}")


class VersionGone(ApiError):
    """The version, or the place in a list, is too old for the API server: only a new list helps."""


class Unreachable(Exception):
    """The API server cannot be reached, or a connection has ended in the middle of an answer."""


class Unreadable(Unreachable):
    """The API server, or a proxy before it, sends something else than objects."""


class Patch(enum.Enum):
    """The ways to change an object in part."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


class _Cause(msgspec.Struct):
    field: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None

    @property
    def is_of_another(self) -> bool:
        """Whether the object has another UID than that in a patch: for a patch, the API server calls this invalid."""
        causes = self.details.causes if self.details is not None else []
        return self.code == _INVALID and {cause.field for cause in causes} == {"metadata.uid"}


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    following: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[Document] = []


class _Line(msgspec.Struct):
    type: str
    object: msgspec.Raw


_VERBS: Final = {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
_list: Final = msgspec.json.Decoder(_List)
_line: Final = msgspec.json.Decoder(_Line)
_status: Final = msgspec.json.Decoder(_Status)
_document: Final = msgspec.json.Decoder(Document)


@dataclass(slots=True)
class _Seen:
    """The answer to a request, as far as one has come."""

    code: str = "unreachable"


class Api:
    """The API server. Lifetime: as async context manager. Threads: those of one event loop."""

    def __init__(self, config: SingleConfig, *, observe: Observer = lambda _verb, _code, _seconds: None) -> None:
        """Prepare connections; nothing is asked yet. ``observe`` is told each request but watches, once answered."""
        self._observe = observe
        self._denied: dict[str, float] = {}
        """Rights that the API server has found missing, and when."""
        timeout = httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S, pool=None)
        self._http: httpx2.AsyncClient = client_adapter.AsyncClient(
            config, client_adapter.ConnectionParams(timeout=timeout, trust_env=False)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def denied(self) -> list[str]:
        """Return the rights that the API server has found missing a short time ago, as ``patch pods/status``."""
        return sorted(right for right, at in self._denied.items() if time.monotonic() - at < _DENIED_S)

    async def get(self, path: str) -> Document | None:
        """Return an object; ``None`` if there is none. Raises `ApiError` and `Unreachable`."""
        try:
            return await self._send("GET", path)
        except ApiError as error:
            if error.code == _NOT_FOUND:
                return None
            raise

    async def create(self, path: str, document: Mapping[str, Any]) -> Document:
        """Create an object among those of ``path``, and return the object. Raises `ApiError` and `Unreachable`."""
        return await self._send("POST", path, document)

    async def patch(self, path: str, change: Mapping[str, Any], kind: Patch = Patch.MERGE) -> Document:
        """Change an object in part, and return the object. Raises `ApiError` and `Unreachable`.

        With a resource version, or a UID, in the metadata of ``change``, another object is not changed, which is a
        conflict (409).
        """
        return await self._send("PATCH", path, change, kind.value)

    async def replace(self, path: str, document: Mapping[str, Any]) -> Document:
        """Write a whole object; of another version than that in the metadata, none is written.

        Raises `ApiError` and `Unreachable`.
        """
        return await self._send("PUT", path, document)

    async def delete(self, path: str, *, uid: str = "", version: str = "", grace_s: int | None = None) -> None:
        """Delete an object, if it has the ``uid`` and the ``version``, where given; succeeds for an absent one.

        Raises `ApiError` and `Unreachable`.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if preconditions := _given({"uid": uid, "resourceVersion": version}):
            options["preconditions"] = preconditions
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._send("DELETE", path, options)
        except ApiError as error:
            if error.code not in {_NOT_FOUND, _CONFLICT}:  # another object has the name by now
                raise

    async def _send(
        self, method: str, path: str, document: Mapping[str, Any] | None = None, sort: str = "application/json"
    ) -> Document:
        content = None if document is None else msgspec.json.encode(document)
        headers = {} if document is None else {"Content-Type": sort}
        with self._translated(), self._observed(_VERBS[method]) as seen:
            answer = await self._http.request(method, path, content=content, headers=headers)
            seen.code = str(answer.status_code)
            _check(answer)
            return _document.decode(answer.content)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with _translated():
                yield
        except ApiError as error:
            if error.code == _FORBIDDEN and (right := _right_of(str(error))):
                if right not in self.denied():
                    _log.error("the account of the controller lacks a right: %s (%s)", right, error)
                self._denied[right] = time.monotonic()
            raise

    @contextlib.contextmanager
    def _observed(self, verb: str) -> Iterator[_Seen]:
        seen, begun = _Seen(), time.monotonic()
        try:
            yield seen
        finally:
            self._observe(verb, seen.code, time.monotonic() - begun)

    async def page(self, path: str, query: Mapping[str, str], *, limit: int, following: str = "") -> Page:
        """Return one page of the objects as they are now; ``following`` is the token of the page before.

        ``query`` has the selectors. Raises `VersionGone` if the token is too old, `ApiError` and `Unreachable`.
        """
        with self._translated(), self._observed("list") as seen:
            answer = await self._http.get(path, params=_given({**query, "limit": str(limit), "continue": following}))
            seen.code = str(answer.status_code)
            _check(answer)
            found = _list.decode(answer.content)
        return Page(found.items, found.metadata.resource_version, found.metadata.following)

    async def watch(
        self,
        path: str,
        query: Mapping[str, str],
        version: str,
        *,
        ends_after_s: float,
        quiet_s: float,
        opened: Callable[[], object],
    ) -> AsyncGenerator[Event, None]:
        """Yield the changes after ``version`` until the API server ends the watch, ``ends_after_s`` at the latest.

        A connection on which nothing comes for ``quiet_s``, not even a bookmark, is taken for broken. Raises
        `VersionGone` if ``version`` is too old, `ApiError` and `Unreachable`. To be closed by the caller. ``opened`` is
        called once the API server has agreed to the watch.
        """
        asked = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        asked["timeoutSeconds"] = str(int(ends_after_s))
        timeout = httpx2.Timeout(quiet_s, connect=_CONNECT_S, pool=None)
        with self._translated():
            async with self._http.stream("GET", path, params=_given({**query, **asked}), timeout=timeout) as answer:
                if answer.is_error:
                    await answer.aread()
                _check(answer)
                opened()
                async for line in _lines(answer.aiter_bytes()):
                    yield _event(_line.decode(line))


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield whole lines. A long line comes in many pieces, and a line without an end was cut off."""
    kept: list[bytes] = []
    async for piece in pieces:
        first, *rest = piece.split(b"\n")
        kept.append(first)
        for later in rest:
            if line := b"".join(kept):
                yield line
            kept = [later]
    if any(kept):
        raise Unreachable("the watch ended in the middle of a line")


def _event(line: _Line) -> Event:
    if line.type == "ERROR":
        raise _refusal(_status.decode(line.object))
    found = _document.decode(line.object)
    version: str = found["metadata"]["resourceVersion"]
    return Event(version, None if line.type == "BOOKMARK" else found, is_gone=line.type == "DELETED")


def _given(query: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in query.items() if value}


def _right_of(message: str) -> str:
    """Return the right that a refusal names, as ``patch deployments.apps``; empty for other refusals."""
    found = _RIGHT.search(message)
    if found is None:
        return ""
    verb, resource, group = found.groups()
    return f"{verb} {resource}.{group}" if group else f"{verb} {resource}"


def _check(answer: httpx2.Response) -> None:
    if answer.is_success:
        return
    try:
        status = _status.decode(answer.content)
    except msgspec.MsgspecError:  # from a proxy before the API server
        status = _Status(message=answer.text[:200])
    status.code = answer.status_code
    asked = answer.headers.get("Retry-After", "")
    raise _refusal(status, retry_after_s=float(asked) if asked.isdecimal() else 0)


def _refusal(status: _Status, *, retry_after_s: float = 0) -> ApiError:
    if status.is_of_another:
        return ApiError(_CONFLICT, "Conflict", status.message)
    kind = VersionGone if status.code == _GONE else ApiError
    return kind(status.code, status.reason, status.message, retry_after_s=retry_after_s)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise Unreachable(f"the API server was not reached: {type(error).__name__} {error}".rstrip()) from error
    except (msgspec.MsgspecError, KeyError) as error:
        raise Unreadable(f"an answer of the API server cannot be read: {error}") from error

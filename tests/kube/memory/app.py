"""The HTTP of the API server in memory, as an ASGI application: requests, lists in pages, and watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.kube.memory.faults import Fault, Faults
from tests.kube.memory.kinds import KINDS, Kind
from tests.kube.memory.patching import BadPatch, json_patch, merge, strategic_merge
from tests.kube.memory.selecting import BadSelector, selected
from tests.kube.memory.store import Change, Object, Refused, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from starlette.requests import Request

_VERBS: Final = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PATCHES: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "application/merge-patch+json": merge,
    "application/json-patch+json": json_patch,
    "application/strategic-merge-patch+json": strategic_merge,
    "application/apply-patch+yaml": merge,  # of one owner
}
_REASONS: Final = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}
_DONE: Final = {"kind": "Status", "apiVersion": "v1", "status": "Success"}
_TRIES: Final = 5
_BOOKMARKS_S: Final = 0.2
"""The real server sends them each minute, and shortly before a watch ends."""


class Target(NamedTuple):
    """A path, taken apart: an object if it has a name, else all of one resource."""

    kind: Kind
    namespace: str
    name: str
    sub: str


class Seen(NamedTuple):
    """A request that has come, for tests that count."""

    verb: str
    plural: str
    query: Mapping[str, str]


class MemoryServer:
    """The application with its store and the faults to come. Lifetime: one test. Threads: those of `Store`."""

    def __init__(self) -> None:
        self.store = Store()
        self.faults = Faults()
        self.seen: list[Seen] = []
        self._pages: dict[str, tuple[int, list[Object]]] = {}
        methods = [*_VERBS]
        self.app = Starlette(
            routes=[
                Route("/readyz", lambda _: PlainTextResponse("ok")),
                Route("/api/v1/{path:path}", self._answer, methods=methods),
                Route("/apis/{group}/v1/{path:path}", self._answer, methods=methods),
            ]
        )

    async def _answer(self, request: Request) -> Response:
        query = dict(request.query_params)
        fault: Fault | None = None
        try:
            target = _target(request.path_params.get("group", ""), request.path_params["path"])
            verb = _verb(request.method, target, query)
            self.seen.append(Seen(verb, target.kind.plural, query))
            fault = self.faults.take(verb, target.kind.plural)
            if fault is not None:
                await asyncio.sleep(fault.delay_s)
                _refuse(fault)
            if verb == "watch":
                return self._watch(target, query, fault or Fault("watch", target.kind.plural))
            body = await request.body()
            sort = request.headers.get("content-type", "").partition(";")[0]
            return self._do(verb, target, query, json.loads(body) if body else {}, sort)
        except Refused as refused:
            return JSONResponse(_status(refused), refused.code, headers=fault.headers if fault else None)
        except (BadSelector, BadPatch, json.JSONDecodeError) as error:
            code, reason = (422, "Invalid") if isinstance(error, BadPatch) else (400, "BadRequest")
            return JSONResponse(_status(Refused(code, reason, str(error))), code)

    def _do(self, verb: str, target: Target, query: Mapping[str, str], body: Any, sort: str) -> Response:
        kind, namespace, name, sub = target
        match verb:
            case "list":
                answer = self._list(target, query)
            case "create" if sub == "binding":
                self.store.bind(namespace, name, body["target"]["name"])
                answer = _DONE
            case "create":
                answer = self.store.create(kind, namespace, body)
            case "update":
                answer = self.store.update(kind, namespace, name, body, sub=sub)
            case "patch":
                return self._patch(target, body, sort)
            case "delete":
                grace = {field: int(value) for field, value in query.items() if field == "gracePeriodSeconds"}
                answer = self.store.delete(kind, namespace, name, body | grace)
            case "deletecollection":
                for found in filter(selected(kind.plural, query), self.store.all_of(kind, namespace)):
                    self.store.delete(kind, found["metadata"].get("namespace", ""), found["metadata"]["name"], body)
                answer = _DONE
            case _:
                answer = self.store.get(kind, namespace, name)
        return JSONResponse(answer, 201 if verb == "create" else 200)

    def _patch(self, target: Target, patch: Any, sort: str) -> Response:
        kind, namespace, name, sub = target
        if sort not in _PATCHES:
            raise Refused(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {sort}")
        for attempt in range(_TRIES):
            try:
                before = self.store.get(kind, namespace, name)
            except Refused:
                if "apply" not in sort:
                    raise
                made = merge(patch, {"metadata": {"name": name}})
                return JSONResponse(self.store.create(kind, namespace, made), 201)
            after = _PATCHES[sort](before, patch)
            try:
                return JSONResponse(self.store.update(kind, namespace, name, after, sub=sub, is_patch=True))
            except Refused as refused:
                is_own = isinstance(patch, dict) and patch.get("metadata", {}).get("resourceVersion")
                if refused.code != 409 or is_own or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _list(self, target: Target, query: Mapping[str, str]) -> Object:
        keep = selected(target.kind.plural, query)
        limit = int(query.get("limit") or 0)
        if token := query.get("continue"):
            if token not in self._pages or self._pages[token][0] < self.store.forgotten:
                raise Refused(410, "Expired", "The provided continue parameter is too old")
            version, found = self._pages[token]
        else:
            with self.store.lock:
                version, found = self.store.version, [*filter(keep, self.store.all_of(target.kind, target.namespace))]
            if int(query.get("resourceVersion") or 0) > version:
                raise Refused(
                    504, "Timeout", f"Too large resource version: {query['resourceVersion']}, current: {version}"
                )
        metadata: Object = {"resourceVersion": str(version)}
        if limit and len(found) > limit:
            metadata |= {"continue": secrets.token_hex(8), "remainingItemCount": len(found) - limit}
            self._pages[metadata["continue"]] = version, found[limit:]
            found = found[:limit]
        kind = target.kind
        return {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": metadata, "items": found}

    # --- watches

    def _watch(self, target: Target, query: Mapping[str, str], fault: Fault) -> Response:
        keep = selected(target.kind.plural, query)
        return StreamingResponse(self._stream(target, query, keep, fault), media_type="application/json")

    async def _stream(
        self, target: Target, query: Mapping[str, str], keep: Callable[[Object], bool], fault: Fault
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + float(query.get("timeoutSeconds") or 1800)
        sent = 0
        with contextlib.closing(_Waking(self.store, loop)) as waking:
            events = self._events(target, query, keep, waking, ends)
            while fault.events is None or fault.is_cut or sent < fault.events:
                if (event := await anext(events, None)) is None:
                    return
                if sent == fault.events:
                    yield event[: len(event) // 2]
                    raise ConnectionAbortedError("a fault of the test")
                sent += 1
                yield event
            if fault.code is not None:
                yield _line("ERROR", _status(Refused(fault.code, _REASONS.get(fault.code, "Unknown"), "a fault")))

    async def _events(
        self, target: Target, query: Mapping[str, str], keep: Callable[[Object], bool], waking: _Waking, ends: float
    ) -> AsyncIterator[bytes]:
        kind, namespace, _, _ = target
        loop = asyncio.get_running_loop()
        has_bookmarks = query.get("allowWatchBookmarks") == "true"
        with self.store.lock:
            version = int(query.get("resourceVersion") or 0)
            initial = [] if version else [*filter(keep, self.store.all_of(kind, namespace))]
            version = version or self.store.version
        for found in initial:
            yield _line("ADDED", found)
        if query.get("sendInitialEvents") == "true":
            yield _line("BOOKMARK", _bookmark(kind, version, {"k8s.io/initial-events-end": "true"}))
        while (left := ends - loop.time()) > 0:
            with self.store.lock:
                current = self.store.version
                try:
                    changes = self.store.changes(kind, version)
                except Refused as refused:
                    yield _line("ERROR", _status(refused))
                    return
            for change in changes:
                if (event := _seen_as(change, namespace, keep)) is not None:
                    yield event
            version = max(version, current)
            if not await waking.wait(min(left, _BOOKMARKS_S)) and has_bookmarks:
                yield _line("BOOKMARK", _bookmark(kind, version, {}))


class _Waking:
    """A change of the store, waited for in a loop."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._event = asyncio.Event()
        self.close = store.watch(lambda: loop.call_soon_threadsafe(self._event.set))

    async def wait(self, timeout_s: float) -> bool:
        """Whether there was a change since the last time, or is one within ``timeout_s``."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return False
        self._event.clear()
        return True


def _refuse(fault: Fault) -> None:
    if fault.status is not None:
        raise Refused(fault.status, _REASONS.get(fault.status, "Unknown"), "a fault of the test")


def _target(group: str, path: str) -> Target:
    parts = path.strip("/").split("/")
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
        namespace, parts = parts[1], parts[2:]
    kind = KINDS.get((group, parts[0]))
    if kind is None:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    name, sub, *_ = [*parts[1:], "", ""]
    return Target(kind, namespace, name, sub)


def _verb(method: str, target: Target, query: Mapping[str, str]) -> str:
    if method == "GET" and query.get("watch") in ("true", "1"):
        return "watch"
    if method == "GET" and not target.name:
        return "list"
    if method == "DELETE" and not target.name:
        return "deletecollection"
    return _VERBS[method]


def _seen_as(change: Change, namespace: str, keep: Callable[[Object], bool]) -> bytes | None:
    """A change as a watch with a selector shows it: what the selector finds no more is gone."""
    either = change.after or change.before
    assert either is not None
    if namespace and either["metadata"].get("namespace") != namespace:
        return None
    was = change.before is not None and keep(change.before)
    if change.after is None:
        return _line("DELETED", change.before) if was else None
    if not keep(change.after):
        if not was:
            return None
        version = {"resourceVersion": change.after["metadata"]["resourceVersion"]}
        assert change.before is not None
        return _line("DELETED", {**change.before, "metadata": {**change.before["metadata"], **version}})
    return _line("MODIFIED" if was else "ADDED", change.after)


def _line(kind: str, found: Any) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def _bookmark(kind: Kind, version: int, annotations: Mapping[str, str]) -> Object:
    metadata: Object = {"resourceVersion": str(version), **({"annotations": annotations} if annotations else {})}
    return {"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata}


def _status(refused: Refused) -> Object:
    found: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    found |= {"message": str(refused), "reason": refused.reason, "code": refused.code}
    if refused.details:
        found["details"] = dict(refused.details)
    return found

"""The decision about callers, as a kubelet makes it: who is it, by certificate or token; and may it, by the cluster.

A certificate has to come from the authority for clients of the cluster, which the server checks in the handshake; the
name and the organizations in it are user and groups. A token is shown to the API server (TokenReview). Rights are those
of the cluster (SubjectAccessReview) for the resource ``nodes`` with the subresource of a path. Nobody is let in while
the API server cannot be asked, but for answers remembered for some seconds.

Source: Kubernetes documentation, "Kubelet authentication/authorization".
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from koupleless.controller.cluster.api import ApiError, Unreachable
from koupleless.wire.reviews import User

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

    from koupleless.controller.kubelet.transport.server import Request

_log: Final = logging.getLogger("koupleless.controller")

_RIGHTS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_AUTHENTICATED: Final = "system:authenticated"
_KEPT_S: Final = 10.0
"""How long an answer about rights counts; a right that was taken away counts for so long."""
_MOST_KEPT: Final = 4096


class Tokens(Protocol):
    """The judgements of the API server about tokens."""

    async def user(self, token: str, /) -> User | None:
        """Return the owner of a token; ``None`` for a refused token. Raises `ApiError` and `Unreachable`."""


class Reviewer(Protocol):
    """The API server, as far as rights go."""

    async def create(self, path: str, document: Mapping[str, Any], /) -> dict[str, Any]:
        """Ask for a review. Raises `ApiError` and `Unreachable`."""


@dataclass(frozen=True, slots=True)
class Act:
    """An act on a Node: ``verb``, any of the ``subresources``, and the name of the Node; empty for all Nodes."""

    verb: str
    subresources: tuple[str, ...]
    node: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason for refusing a request, and the status of HTTP."""

    status: int
    reason: str


class Callers:
    """Judges callers. All on one event loop; lives as long as the server."""

    def __init__(self, api: Reviewer, tokens: Tokens, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._tokens = tokens
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, asyncio.Future[Any]]] = {}

    async def judge(self, request: Request, act: Act) -> User | Refusal:
        """Return the caller, or the reason for refusing the act."""
        try:
            caller = await self._identify(request)
            if isinstance(caller, Refusal):
                return caller
            for subresource in act.subresources:
                if await self._may(caller, act, subresource):
                    return caller
        except (ApiError, Unreachable) as error:
            _log.warning("nobody is let in to the kubelet's API: the API server cannot be asked (%s)", error)
            return Refusal(500, "the API server cannot be asked about the caller at the moment")
        wanted = " or ".join(f"nodes/{subresource}" for subresource in act.subresources)
        return Refusal(403, f"{caller.name} may not {act.verb} {wanted} of {act.node or 'all Nodes'}")

    async def _identify(self, request: Request) -> User | Refusal:
        if request.subject is not None and (names := request.subject.get("commonName")):
            groups = request.subject.get("organizationName", ())
            return User(names[0], groups=(*groups, _AUTHENTICATED))
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return Refusal(401, "a certificate of a client of the cluster, or a token of the cluster, is required")
        user = await self._tokens.user(token)
        if user is None or not user.name:
            return Refusal(401, "the token is no valid token of the cluster")
        return user

    async def _may(self, caller: User, act: Act, subresource: str) -> bool:
        extra = tuple(sorted(caller.extra.items()))
        key = (caller.name, caller.uid, caller.groups, extra, act.verb, subresource, act.node)
        return await self._remembered(key, lambda: self._ask(caller, act, subresource))  # type: ignore[no-any-return]

    async def _ask(self, caller: User, act: Act, subresource: str) -> bool:
        attributes = {"verb": act.verb, "version": "v1", "resource": "nodes", "subresource": subresource}
        spec = {
            "user": caller.name,
            "groups": list(caller.groups),
            "uid": caller.uid,
            "extra": {name: list(values) for name, values in caller.extra.items()},
            "resourceAttributes": {**attributes, "name": act.node},
        }
        asked = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        status = (await self._api.create(_RIGHTS, asked)).get("status") or {}
        return status.get("allowed") is True and not status.get("denied")

    async def _remembered(self, key: Hashable, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return an answer that is remembered, or awaited already; errors are not remembered."""
        now = self._clock()
        until, kept = self._kept.get(key, (0.0, None))
        if kept is None or (kept.done() and (until <= now or kept.cancelled() or kept.exception() is not None)):
            kept = asyncio.ensure_future(ask())
            kept.add_done_callback(lambda one: one.cancelled() or one.exception())  # all callers may be gone
            self._forget(now)
            self._kept[key] = now + _KEPT_S, kept
        return await asyncio.shield(kept)

    def _forget(self, now: float) -> None:
        if len(self._kept) >= _MOST_KEPT:
            self._kept = {key: one for key, one in self._kept.items() if one[0] > now or not one[1].done()}
        while len(self._kept) >= _MOST_KEPT:  # by a stranger with many tokens: the oldest go
            self._kept.pop(next(iter(self._kept)))

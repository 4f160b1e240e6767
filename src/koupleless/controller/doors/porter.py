"""The judgement about callers who speak for a base.

Whoever speaks for a base is sent the modules of the base, and their secrets. The holder of the shared token may speak
for every base. The owner of a token of a service account, bound to a Pod, may announce addresses of this Pod alone; who
may speak for which identity is decided where the bases are known (`Fleet.hear`), by `Caller.speaker`.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller.cluster.api import ApiError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from koupleless.controller.cluster.api import Api
    from koupleless.controller.cluster.reviews import TokenReviews
    from koupleless.controller.doors.tokens import ReadToken
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.wire.reviews import User

_log: Final = logging.getLogger("koupleless.controller")

_KEPT_S: Final = 120.0
_REMEMBERED: Final = 10_000
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_UNAVAILABLE: Final = 503


class Refused(Exception):
    """A caller is not heard. ``status`` is that of HTTP; the text says why, and helps the operator of the base."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller who is heard."""

    account: str = ""
    """The service account, ``namespace/name``; empty for a caller with the shared token, or without one."""
    pod: str = ""
    """The name of the Pod to which the token is bound."""
    addresses: frozenset[str] = frozenset()
    """The addresses of this Pod."""

    @property
    def speaker(self) -> str:
        """The right of the caller to an identity, as the Node keeps it; empty for a right to all."""
        return f"{self.account}/{self.pod}" if self.account else ""

    def announce(self, base: AnnouncedBase) -> AnnouncedBase:
        """Return the base as this caller may announce it. Raises `Refused`."""
        if not self.pod:
            return replace(base, speaker=self.speaker)
        if not base.ip:
            return replace(base, speaker=self.speaker, ip=min(self.addresses))
        if _plain(base.ip) not in self.addresses:
            raise Refused(
                _FORBIDDEN,
                f"the address {base.ip} is none of Pod {self.pod} of {self.account}: a base announces its own address "
                "(localIP)",
            )
        return replace(base, speaker=self.speaker)


class Porter:
    """The judge of all callers. All on one event loop."""

    def __init__(
        self,
        token: ReadToken | None = None,
        *,
        reviews: TokenReviews | None = None,
        pods: Api | None = None,
        accounts: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``token`` is the shared one; ``reviews`` judges other tokens, of the ``accounts`` (``ns/name`` or ``ns/*``).

        With neither, everybody is heard.
        """
        self._token = token
        self._reviews = reviews
        self._pods = pods
        self._accounts = frozenset(accounts)
        self._clock = clock
        self._addresses: OrderedDict[str, tuple[frozenset[str], float]] = OrderedDict()
        """The addresses of Pods by UID, and the time until which they hold."""

    async def admit(self, authorization: str) -> Caller:
        """Judge a caller by the ``Authorization`` header, empty for none. Raises `Refused`."""
        shared = [] if self._token is None else self._token.all()
        if not shared and self._reviews is None:
            return Caller()
        kind, _, token = authorization.partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise Refused(_UNAUTHORIZED, "a token is required (arklet.controller.token-file of the base)")
        if any(hmac.compare_digest(token.encode(), one.encode()) for one in shared):
            return Caller()
        if self._reviews is None:
            raise Refused(_UNAUTHORIZED, "the token is not the right one (arklet.controller.token-file of the base)")
        try:
            return await self._review(token, self._reviews)
        except (ApiError, Unreachable) as error:
            _log.warning("a base cannot be heard, because its token cannot be judged: %s", error)
            raise Refused(_UNAVAILABLE, "the API server cannot be asked about the token at the moment") from None

    async def _review(self, token: str, reviews: TokenReviews) -> Caller:
        user = await reviews.user(token)
        if user is None:
            raise Refused(_UNAUTHORIZED, "the API server refuses the token: expired, or of another audience")
        namespace = user.account.partition("/")[0]
        if not user.is_one_of(self._accounts):
            raise Refused(_FORBIDDEN, f"{user.name} may not speak for a base (accounts of the controller)")
        if not user.pod:
            return Caller(user.account)
        return Caller(user.account, user.pod, await self._addresses_of(user, namespace))

    async def _addresses_of(self, user: User, namespace: str) -> frozenset[str]:
        now = self._clock()
        known = self._addresses.get(user.pod_uid)
        if known is not None and known[1] > now:
            return known[0]
        assert self._pods is not None
        document = await self._pods.get(f"/api/v1/namespaces/{namespace}/pods/{user.pod}")
        if document is None or document["metadata"].get("uid") != user.pod_uid:
            raise Refused(_FORBIDDEN, f"the Pod {namespace}/{user.pod} of the token is gone")
        found = _addresses(document)
        if not found:
            raise Refused(_FORBIDDEN, f"the Pod {namespace}/{user.pod} has no address yet")
        self._addresses[user.pod_uid] = found, now + _KEPT_S
        while len(self._addresses) > _REMEMBERED:
            self._addresses.popitem(last=False)
        return found


def _addresses(pod: Mapping[str, Any]) -> frozenset[str]:
    status = pod.get("status") or {}
    found = [one.get("ip") for one in status.get("podIPs") or ()] or [status.get("podIP")]
    return frozenset(_plain(ip) for ip in found if ip)


def _plain(ip: str) -> str:
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError:
        return ip

"""Tokens judged by the API server (TokenReview): who a caller is, remembered for a while.

A token is remembered by a digest, never as such. An API server out of reach admits nobody: callers see `Unreachable`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from koupleless.controller.cluster.api import Api

_log: Final = logging.getLogger("koupleless.controller")

REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"

_KEPT_S: Final = 120.0
"""Seconds for which a judgement holds, as with a kubelet: a token dies with the Pod, which only the server knows."""
_REFUSED_S: Final = 10.0
"""Seconds for which a refusal holds, so that a stranger does not keep the API server busy."""
_BEFORE_END_S: Final = 5.0
"""Seconds before the end of a token from which the token is not remembered any more."""
_REMEMBERED: Final = 10_000
_LONGEST: Final = 16 << 10
"""The longest token that is asked about."""
_SERVICE_ACCOUNT: Final = "system:serviceaccount:"
_EXTRA: Final = "authentication.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class User:
    """A caller in the words of the API server."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def account(self) -> str:
        """The service account as ``namespace/name``; empty for other users."""
        namespace, _, name = self.name.removeprefix(_SERVICE_ACCOUNT).partition(":")
        return f"{namespace}/{name}" if self.name.startswith(_SERVICE_ACCOUNT) and namespace and name else ""

    @property
    def pod(self) -> str:
        """The name of the Pod to which the token is bound; empty for other tokens."""
        return self._one(f"{_EXTRA}pod-name")

    @property
    def pod_uid(self) -> str:
        """The UID of this Pod."""
        return self._one(f"{_EXTRA}pod-uid")

    def _one(self, name: str) -> str:
        found = self.extra.get(name, ())
        return found[0] if len(found) == 1 else ""


@dataclass(frozen=True, slots=True)
class _Judgement:
    user: User | None
    until: float


class TokenReviews:
    """The judgements about tokens for certain audiences. All on one event loop, as ``api``.

    Needs the right to create tokenreviews (``system:auth-delegator``).
    """

    def __init__(
        self,
        api: Api,
        audiences: Sequence[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Without ``audiences``, tokens have to be for the API server itself."""
        self._api = api
        self._audiences = tuple(audiences)
        self._clock = clock
        self._wall = wall
        self._judged: OrderedDict[bytes, _Judgement] = OrderedDict()

    async def user(self, token: str) -> User | None:
        """Return the owner of a token; ``None`` for a token that is refused. Raises `ApiError` and `Unreachable`."""
        if not token or len(token) > _LONGEST:
            return None
        digest, now = hashlib.sha256(token.encode()).digest(), self._clock()
        known = self._judged.get(digest)
        if known is not None and known.until > now:
            return known.user
        user = await self._ask(token)
        self._judged.pop(digest, None)
        self._judged[digest] = _Judgement(user, now + self._kept_s(token, user))
        while len(self._judged) > _REMEMBERED:
            self._judged.popitem(last=False)
        return user

    async def _ask(self, token: str) -> User | None:
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = list(self._audiences)
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        status = (await self._api.create(REVIEWS, review)).get("status") or {}
        if not status.get("authenticated"):
            _log.info("a token is refused: %s", status.get("error") or "the API server does not know the token")
            return None
        if self._audiences and not set(self._audiences) & set(status.get("audiences") or ()):
            # An authenticator that knows nothing of audiences names none, and may have let in a token for others.
            _log.info("a token is refused: not meant for %s", ", ".join(self._audiences))
            return None
        return _user(status.get("user") or {})

    def _kept_s(self, token: str, user: User | None) -> float:
        if user is None:
            return _REFUSED_S
        end = _end_of(token)
        return _KEPT_S if end is None else min(_KEPT_S, end - self._wall() - _BEFORE_END_S)


def _user(document: Mapping[str, Any]) -> User:
    extra = {name: tuple(values) for name, values in (document.get("extra") or {}).items()}
    return User(document.get("username") or "", document.get("uid") or "", tuple(document.get("groups") or ()), extra)


class _Claims(msgspec.Struct):
    exp: float | None = None


def _end_of(token: str) -> float | None:
    """Return the end of a token by its own words, in seconds since the epoch; ``None`` where the token tells none.

    To be used on a token that the API server has taken.
    """
    _, _, rest = token.partition(".")
    payload, _, _ = rest.partition(".")
    try:
        claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return msgspec.json.decode(claims, type=_Claims).exp
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None

"""TokenReviews of Kubernetes: the question about a token, and the answer of an API server."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
LONGEST_TOKEN: Final = 16 << 10
"""The longest token that is asked about."""
KEPT_S: Final = 120.0
"""Seconds for which a judgement holds, as with a kubelet: a token dies with the Pod, which only the server knows."""
REFUSED_S: Final = 10.0
"""Seconds for which a refusal holds, so that a stranger does not keep the API server busy."""
_BEFORE_END_S: Final = 5.0
"""Seconds before the end of a token from which the token is not remembered any more."""
_SERVICE_ACCOUNT: Final = "system:serviceaccount:"
_EXTRA: Final = "authentication.kubernetes.io/"


class TokenRefused(Exception):
    """The API server does not vouch for a token; the text says why."""


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

    def is_one_of(self, accounts: frozenset[str]) -> bool:
        """Whether the account is among ``accounts``, each ``namespace/name`` or ``namespace/*``."""
        return bool(self.account) and bool({self.account, f"{self.account.partition('/')[0]}/*"} & accounts)

    def _one(self, name: str) -> str:
        found = self.extra.get(name, ())
        return found[0] if len(found) == 1 else ""


def question(token: str, audiences: Sequence[str]) -> dict[str, Any]:
    """Make the TokenReview about a token; without audiences, the token has to be for the API server itself."""
    spec: dict[str, Any] = {"token": token}
    if audiences:
        spec["audiences"] = list(audiences)
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def user_of(answer: Mapping[str, Any], audiences: Sequence[str]) -> User:
    """Return the owner of the token in an answered TokenReview. Raises `TokenRefused`."""
    status = answer.get("status") or {}
    if not status.get("authenticated"):
        raise TokenRefused(status.get("error") or "the API server does not know the token")
    if audiences and not set(audiences) & set(status.get("audiences") or ()):
        # An authenticator that knows nothing of audiences names none, and may have let in a token for others.
        raise TokenRefused(f"the token is not meant for {', '.join(audiences)}")
    user = status.get("user") or {}
    extra = {name: tuple(values) for name, values in (user.get("extra") or {}).items()}
    return User(user.get("username") or "", user.get("uid") or "", tuple(user.get("groups") or ()), extra)


def kept_s(token: str, *, now: float) -> float:
    """Return the seconds for which a good judgement about a token holds; ``now`` is in seconds since the epoch."""
    end = _end_of(token)
    return KEPT_S if end is None else min(KEPT_S, end - now - _BEFORE_END_S)


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

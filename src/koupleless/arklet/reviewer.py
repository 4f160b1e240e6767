"""Callers with the token of a service account, judged by the API server of the cluster (TokenReview).

For a controller without a token of the arklet: the controller shows a projected token of its own account, which changes
every hour by itself. An API server out of reach lets nobody in who was not let in a short time ago.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from koupleless.arklet.guard import Refusal, bearer
from koupleless.errors import KouplelessError, SettingsError, in_words
from koupleless.exchange import BadAnswer, exchange
from koupleless.wire.reviews import LONGEST_TOKEN, PATH, REFUSED_S, TokenRefused, kept_s, question, user_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

logger = logging.getLogger("koupleless.arklet")

_TIMEOUT_S: Final = 5.0
_REMEMBERED: Final = 1_000
_CREATED: Final = range(200, 300)


class Reviewer:
    """The judge of such callers. Any thread may call; lives as long as the server."""

    def __init__(
        self,
        server: str,
        *,
        accounts: Collection[str],
        audience: str,
        read_token: Callable[[], str | None],
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``server`` is the address of the API server, ``accounts`` are ``namespace/name`` or ``namespace/*``.

        ``read_token`` reads the token of the base itself, with the right to create tokenreviews; may raise
        ``SettingsError``.
        """
        parts = urlsplit(server)
        self._address = parts.hostname or "", parts.port or (443 if tls is not None else 80)
        self._path = f"{parts.path}{PATH}"
        self._accounts = frozenset(accounts)
        self._audiences = (audience,)
        self._read_token = read_token
        self._tls = tls
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._judged: OrderedDict[bytes, tuple[Refusal | None, float]] = OrderedDict()
        """Judgements by the digest of a token, each with the end of its time."""

    @classmethod
    def of(cls, server: str, *, ca: Path, **members: Any) -> Self:
        """Make one from settings. Raises ``SettingsError`` for issuers that cannot be read."""
        if not server.startswith("https://"):
            return cls(server, **members)
        import ssl  # noqa: PLC0415 - not for a base without TLS

        try:
            return cls(server, tls=ssl.create_default_context(cafile=str(ca)), **members)
        except OSError as error:  # ssl.SSLError is one
            reason = getattr(error, "reason", None) or error.strerror or error
            raise SettingsError(f"arklet.review.ca: {ca} cannot be used: {reason}") from None

    def remembered(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[Refusal | None] | None:
        """Return the last judgement about a caller, in a tuple, if still good; ``None`` to ask the server."""
        token = bearer(headers)
        if not token or len(token) > LONGEST_TOKEN or token.count(b".") != 2:  # noqa: PLR2004 - head, claims, signature
            return (Refusal(401, "the request lacks the right token (Authorization: Bearer ...)"),)
        with self._lock:
            found = self._judged.get(_digest(token))
        return (found[0],) if found is not None and self._clock() < found[1] else None

    def judge(self, headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
        """Ask the API server about a caller: ``None`` lets the caller in. Blocks for some seconds at most."""
        if (known := self.remembered(headers)) is not None:
            return known[0]
        token = bearer(headers)
        try:
            refusal, seconds = self._ask(token.decode("latin-1"))
        except (KouplelessError, OSError, BadAnswer, ValueError) as error:
            logger.warning("a token cannot be judged: the API server cannot be asked (%s)", in_words(error))
            return Refusal(503, "the API server cannot be asked about the token at the moment")
        with self._lock:
            self._judged.pop(_digest(token), None)
            self._judged[_digest(token)] = refusal, self._clock() + seconds
            while len(self._judged) > _REMEMBERED:
                self._judged.popitem(last=False)
        return refusal

    def _ask(self, token: str) -> tuple[Refusal | None, float]:
        """Return the judgement, and the seconds for which the judgement holds."""
        answer = exchange(
            self._address,
            "POST",
            self._path,
            headers={
                "Content-Type": "application/json",
                "Connection": "close",
                "Authorization": f"Bearer {self._read_token() or ''}",
            },
            body=json.dumps(question(token, self._audiences)).encode(),
            connect_timeout_s=_TIMEOUT_S,
            timeout_s=_TIMEOUT_S,
            tls=self._tls,
        )
        if answer.status not in _CREATED:
            raise BadAnswer(f"HTTP {answer.status}: {answer.content[:300].decode('utf-8', 'replace')}")
        found = json.loads(answer.content)
        if not isinstance(found, dict):
            raise BadAnswer("no TokenReview")
        try:
            user = user_of(found, self._audiences)
        except TokenRefused as refused:
            logger.info("a token is refused: %s", refused)
            return Refusal(401, "the API server refuses the token: expired, or of another audience"), REFUSED_S
        if not user.is_one_of(self._accounts):
            return Refusal(403, f"{user.name} may not call the arklet (arklet.review.accounts of the base)"), REFUSED_S
        return None, kept_s(token, now=self._wall())


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()

"""Tokens judged by the API server (TokenReview): who a caller is, remembered for a while.

A token is remembered by a digest, never as such. An API server out of reach admits nobody: callers see `Unreachable`.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from koupleless.wire.reviews import LONGEST_TOKEN, PATH, REFUSED_S, TokenRefused, User, kept_s, question, user_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from koupleless.controller.cluster.api import Api

_log: Final = logging.getLogger("koupleless.controller")

_REMEMBERED: Final = 10_000


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
        if not token or len(token) > LONGEST_TOKEN:
            return None
        digest, now = hashlib.sha256(token.encode()).digest(), self._clock()
        known = self._judged.get(digest)
        if known is not None and known.until > now:
            return known.user
        user = await self._ask(token)
        self._judged.pop(digest, None)
        until = now + (REFUSED_S if user is None else kept_s(token, now=self._wall()))
        self._judged[digest] = _Judgement(user, until)
        while len(self._judged) > _REMEMBERED:
            self._judged.popitem(last=False)
        return user

    async def _ask(self, token: str) -> User | None:
        answer = await self._api.create(PATH, question(token, self._audiences))
        try:
            return user_of(answer, self._audiences)
        except TokenRefused as refused:
            _log.info("a token is refused: %s", refused)
            return None

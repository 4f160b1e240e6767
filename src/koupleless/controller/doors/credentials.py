"""The tokens for arklets: one for all bases, or one for each base, from a Secret."""

from __future__ import annotations

import base64
import binascii
import logging
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from koupleless.controller.cluster.api import ApiError, Unreachable
from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from koupleless.controller.cluster.api import Api
    from koupleless.controller.doors.tokens import ReadToken
    from koupleless.controller.vnodes.base import AnnouncedBase

_log: Final = logging.getLogger("koupleless.controller")

_KEPT_S: Final = 60.0
_ABSENT_S: Final = 10.0
_AT_MOST_S: Final = 5.0
"""Seconds between two reads of one Secret after refusals, at least: an arklet may refuse every token."""
_REMEMBERED: Final = 10_000
_KEY: Final = "token"
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_LONGEST: Final = 253


class SharedCredential:
    """One token for all bases, or none for arklets that ask for none. See `Credentials`."""

    def __init__(self, token: ReadToken) -> None:
        self._token = token

    async def tokens(self, base: AnnouncedBase, *, is_fresh: bool = False) -> Sequence[str | None]:  # noqa: ARG002 - as asked
        """See `Credentials.tokens`."""
        return self._token.all() or [None]


@dataclass(frozen=True, slots=True)
class _Known:
    """The token of one Secret."""

    token: str | None
    former: str | None
    """The token before the last change: the Pod of the base gets a changed Secret later than the controller."""
    read: float


class SecretCredentials:
    """A token for each base, from the key ``token`` of a Secret. See `Credentials`. All on one event loop.

    A Secret is read again after a minute, and once an arklet refuses the token.
    """

    def __init__(
        self, api: Api, pattern: str, otherwise: ReadToken, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``pattern`` is ``namespace/name`` with ``{identity}``, ``{name}`` or ``{cluster}`` of the base in the name.

        ``otherwise`` is for bases without a Secret. Raises ``SettingsError`` for another pattern.
        """
        self._namespace, _, self._pattern = pattern.partition("/")
        try:
            sample = self._pattern.format(identity="i", name="n", cluster="c")
        except (KeyError, IndexError, ValueError, AttributeError):
            sample = ""
        if not _NAMESPACE.fullmatch(self._namespace) or not _NAME.fullmatch(sample):
            raise SettingsError(
                f"arklet-secret = {pattern!r} is no namespace/name, such as koupleless/arklet-{{identity}}, with "
                "{identity}, {name} or {cluster} of the base"
            )
        self._api = api
        self._otherwise = otherwise
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def tokens(self, base: AnnouncedBase, *, is_fresh: bool = False) -> Sequence[str | None]:
        """See `Credentials.tokens`. An API server in trouble leaves the last token in use."""
        name = self._pattern.format(identity=base.identity, name=base.name, cluster=base.cluster)
        if len(name) > _LONGEST or not _NAME.fullmatch(name):
            return self._otherwise.all() or [None]
        known, now = self._known.get(name), self._clock()
        age_s = _AT_MOST_S if is_fresh else _KEPT_S if known is not None and known.token else _ABSENT_S
        if known is None or now - known.read >= age_s:
            known = await self._refresh(name, known, now)
        if known.token is None:
            return self._otherwise.all() or [None]
        return [known.token] if known.former is None else [known.token, known.former]

    async def _refresh(self, name: str, known: _Known | None, now: float) -> _Known:
        token, former = (None, None) if known is None else (known.token, known.former)
        try:
            found = await self._read(name)
        except (ApiError, Unreachable) as error:
            _log.warning("the Secret %s/%s for an arklet cannot be read: %s", self._namespace, name, error)
        else:
            if found != token:
                token, former = found, token
        self._known.pop(name, None)
        self._known[name] = fresh = _Known(token, former, now)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return fresh

    async def _read(self, name: str) -> str | None:
        document = await self._api.get(f"/api/v1/namespaces/{self._namespace}/secrets/{name}")
        value = ((document or {}).get("data") or {}).get(_KEY)
        try:
            return None if value is None else base64.b64decode(value).decode().strip() or None
        except (binascii.Error, ValueError):
            _log.warning("the Secret %s/%s has no text in the key %s", self._namespace, name, _KEY)
            return None

"""Tokens in files: mounted Secrets and projected tokens change while the controller runs."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

_log: Final = logging.getLogger("koupleless.controller")

_EVERY_S: Final = 1.0
_OVERLAP_S: Final = 180.0
"""Seconds for which the former token counts: a changed Secret takes a minute or two to all Pods."""


class ReadToken:
    """A token that is read again, once a second at most. A file that is gone for a moment leaves the last token."""

    def __init__(self, read: Callable[[], str | None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """``read`` returns the token, or ``None`` where none is set. Raises the ``SettingsError`` of ``read``."""
        self._read = read
        self._clock = clock
        self._token = read()
        self._former: tuple[str | None, float] = (None, 0.0)
        """The former token, and the end of its time."""
        self._due = clock() + _EVERY_S

    def all(self) -> list[str]:
        """Return the token, and the former one for a while after a change; empty where none is set."""
        token, (former, until) = self.get(), self._former
        found = [] if token is None else [token]
        if former is not None and self._clock() < until:
            found.append(former)
        return found

    def get(self) -> str | None:
        """Return the token."""
        now = self._clock()
        if now >= self._due:
            self._due = now + _EVERY_S
            try:
                token = self._read()
                if token != self._token:
                    self._former = self._token, now + _OVERLAP_S
                    self._token = token
            except SettingsError as error:
                _log.warning("the last token stays in use: %s", error)
        return self._token

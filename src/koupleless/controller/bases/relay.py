"""News of a base that one controller hears, and another needs: passed on in an annotation of the Node.

Bases over HTTP send to a Service, behind which any controller may hear. The leader of the Node asks the base for signs
of life itself; a new start, a new address or the end of the base reach the leader by the Node. A controller that does
not lead writes only where the Node says something else, hence seldom.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from koupleless.controller import names
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState

if TYPE_CHECKING:
    from collections.abc import Mapping

WAIT_S: Final = 1.0
"""Seconds for the leader to write the same news: through a broker every controller hears every base."""


class _News(msgspec.Struct):
    by: str
    """The writer; nobody takes own news for those of others."""
    base: AnnouncedBase


_decoder: Final = msgspec.json.Decoder(_News)


class Relay:
    """The news of one base on the Node of the base. Used on one event loop; times are those of one monotonic clock."""

    def __init__(self, there: Mapping[str, Any] | None) -> None:
        """``there`` is the Node now: of the news there nothing is new."""
        self._by = secrets.token_hex(4)
        self._seen = _text_of(there)
        self._due: tuple[str, float] | None = None
        """The news on the Node at the time of other news, and the time to write the latter."""

    def text(self, base: AnnouncedBase, there: Mapping[str, Any] | None) -> str:
        """Return the annotation that a Node should have; the present one, if it says the same."""
        present = _text_of(there)
        found = _read(present)
        if found is not None and _says_the_same(found.base, base):
            return present
        return msgspec.json.encode(_News(self._by, base)).decode()

    def hear(self, base: AnnouncedBase, there: Mapping[str, Any] | None, now: float) -> float | None:
        """Take a heartbeat of a base that another controller leads; returns the time to pass the news on, if any."""
        present = _text_of(there)
        found = _read(present)
        if there is None or (found is not None and _says_the_same(found.base, base)):
            self._due = None
        elif self._due is None or self._due[0] != present:
            self._due = present, now + (WAIT_S if base.state is BaseState.ACTIVATED else 0)
        return None if self._due is None else self._due[1]

    def due(self, there: Mapping[str, Any] | None) -> float | None:
        """Return the time to pass the last news on; ``None`` if there are none, or somebody else was faster."""
        if self._due is not None and self._due[0] != _text_of(there):
            self._due = None
        return None if self._due is None else self._due[1]

    def forget(self) -> None:
        """Pass nothing on: the news are written, or this controller leads."""
        self._due = None

    def take(self, there: Mapping[str, Any] | None) -> AnnouncedBase | None:
        """Return the news on a Node if another controller has written them since the last call."""
        present = _text_of(there)
        if present == self._seen:
            return None
        self._seen = present
        found = _read(present)
        return None if found is None or found.by == self._by else found.base


def base_of(there: Mapping[str, Any]) -> AnnouncedBase | None:
    """Return the base of a Node: from the news there, else from labels and addresses; ``None`` for other Nodes."""
    base, found = AnnouncedBase.of_node(there), _read(_text_of(there))
    return found.base if base is not None and found is not None and found.base.identity == base.identity else base


def _says_the_same(told: AnnouncedBase, base: AnnouncedBase) -> bool:
    """Whether two news are alike, but for the way of each: a base with two tunnels is heard over both, in turn.

    A base of the original tells no port over one of the tunnels.
    """
    known = {name: getattr(told, name) or getattr(base, name) for name in ("port", "service_port", "ip")}
    other = {name: getattr(base, name) or getattr(told, name) for name in known}
    return replace(told, way=base.way, **known) == replace(base, **other)


def _text_of(there: Mapping[str, Any] | None) -> str:
    annotations: Mapping[str, str] = ({} if there is None else there["metadata"].get("annotations")) or {}
    return annotations.get(names.BASE_NEWS, "")


def _read(text: str) -> _News | None:
    try:
        return _decoder.decode(text) if text else None
    except msgspec.MsgspecError:
        return None

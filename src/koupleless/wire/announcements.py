"""Announcements: the words between a base and its controller, apart from commands and their replies."""

from __future__ import annotations

import msgspec

from koupleless.wire.envelope import ReplyInvalid
from koupleless.wire.requests import InstallBiz, read


class Metadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The identity of a base; also the body of a query for the baseline."""

    identity: str = ""
    name: str = ""
    version: str = ""
    cluster_name: str = ""


class BaseStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A heartbeat: who the base is, where the arklet listens, and the state of the base."""

    base_metadata: Metadata
    local_ip: str = msgspec.field(default="", name="localIP")
    local_host_name: str = ""
    port: int = 0
    state: str = ""
    """``ACTIVATED``; any other text means that the base ends."""
    start_id: str = ""
    """A text for one start of the base, by which a restart under the same identity is seen. Only this project's."""
    service_port: int = 0
    """The port of the application, at the address of the base; 0 where the base cannot tell. Only this project's."""


def decode_baseline(raw: bytes) -> list[InstallBiz]:
    """Read the modules that a controller wants in a base. Raises ``ReplyInvalid``.

    ``null`` is an empty baseline: the original controller writes one so.
    """
    try:
        items = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReplyInvalid(f"the baseline is not JSON: {error}") from None
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ReplyInvalid("the baseline is no array of objects")
    return [read(InstallBiz, item) for item in items]

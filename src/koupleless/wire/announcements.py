"""Announcements: the words between a base and its controller, apart from commands and their replies."""

from __future__ import annotations

import msgspec


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

"""``arkctl version``: the versions of arkctl and of the base."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.client import ArkletClient


def own_version() -> str:
    """The installed version of koupleless."""
    return importlib.metadata.version("koupleless")


def version_text(client: str, base: Mapping[str, str] | None = None) -> str:
    """The versions, in the form printed by the original client."""
    return f"arkctl Version: {client}" + (f"\nbase {base['bizName']} Version: {base['bizVersion']}" if base else "")


def versions(client: ArkletClient) -> tuple[str, dict[str, str] | None]:
    """The version of arkctl, and name and version of the base; ``None`` if the base does not answer."""
    own = own_version()
    try:
        info = client.health().master_biz_info
    except KouplelessError:
        return own, None
    return own, None if info is None else {"bizName": info.biz_name, "bizVersion": info.biz_version}

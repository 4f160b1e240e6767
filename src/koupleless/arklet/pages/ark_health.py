"""``/arkletHealth``: the health command of the original as an endpoint, with a code in the body.

An HTTP status other than 200 is never sent, as in the original; the code says what was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from koupleless.arklet.health import HealthRefused
from koupleless.arklet.pages.page import Page
from koupleless.errors import in_words
from koupleless.wire.envelope import InputInvalid
from koupleless.wire.requests import HealthQuery

if TYPE_CHECKING:
    from koupleless.arklet.health import Health
    from koupleless.health.readiness import Readiness

PATH: Final = "/arkletHealth"
_TYPES: Final = frozenset({"system", "biz", "plugin"})
_WITH_VERSION: Final = 3


class Found(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of ``/arkletHealth``."""

    healthy: bool
    code: int
    """200, 400 where the base is not ready, 404 for no such page, 500 for a query that cannot be answered."""
    code_type: str
    data: dict[str, Any]


def answer(readiness: Readiness, vitals: Health, path: str) -> Page:
    """Answer ``/arkletHealth``, ``/arkletHealth/{type}`` or ``/arkletHealth/{type}/{name}/{version}``."""
    parts = path.removeprefix(PATH).strip("/").split("/")
    kind = parts[0]
    if (kind and kind not in _TYPES) or len(parts) not in (1, _WITH_VERSION):
        return _page(404, "ENDPOINT_NOT_FOUND", {}, is_healthy=False)
    name, version = parts[1:] if len(parts) == _WITH_VERSION else ("", "")
    try:
        found = vitals.answer(HealthQuery(type=kind or None, biz_name=name or None, biz_version=version or None))
    except (HealthRefused, InputInvalid) as error:
        return _page(500, "ENDPOINT_PROCESS_INTERNAL_ERROR", {"error": str(error)}, is_healthy=False)
    except Exception as error:  # noqa: BLE001 - the answer says what happened
        return _page(500, "ENDPOINT_PROCESS_INTERNAL_ERROR", {"error": in_words(error)}, is_healthy=False)
    data: dict[str, Any] = msgspec.to_builtins(found)
    is_healthy = readiness.is_ready()
    data["masterBizHealth"] = {"readinessState": "ACCEPTING_TRAFFIC" if is_healthy else "REFUSING_TRAFFIC"}
    return _page(*((200, "HEALTHY") if is_healthy else (400, "UNHEALTHY")), data, is_healthy=is_healthy)


def _page(code: int, kind: str, data: dict[str, Any], *, is_healthy: bool) -> Page:
    return Page.of_json(Found(is_healthy, code, kind, data))

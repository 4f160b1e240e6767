"""The entry of every module of a trial: configures the library at import, and tells what is in effect when asked.

Copied beside ``use.py``, which configures and observes, and ``facts.json``, which says with what.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_FACTS = json.loads(Path(__file__).with_name("facts.json").read_text())
_USE = importlib.import_module("use")
_USE.configure(_FACTS["value"], _FACTS["number"])


async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Answer with the configuration in effect and the identities of the Python modules it was seen with."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    try:
        seen = _USE.observe()
        told = {"seen": await seen if inspect.isawaitable(seen) else seen}
    except Exception as error:  # noqa: BLE001 - an error of the library is an answer, too
        told = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    told["modules"] = {name: id(sys.modules[name]) for name in _FACTS["imports"] if name in sys.modules}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


async def _live(receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Close what the use opened, where it has something to close, when the application ends."""
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    closing = getattr(_USE, "close", lambda: None)()
    if inspect.isawaitable(closing):
        await closing
    await send({"type": "lifespan.shutdown.complete"})

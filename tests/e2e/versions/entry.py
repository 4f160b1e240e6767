"""What every module of a trial starts with, and a base uses too: says which version of a library it got, and uses it.

Copied beside ``use.py``, the real use, and ``facts.json``, which names the library.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def answer() -> dict[str, Any]:
    """What comes of the use, and whose library it was. Raises whatever the library raises."""
    facts = json.loads(Path(__file__).with_name("facts.json").read_text())
    result = json.loads(json.dumps(importlib.import_module("use").use()))
    package = importlib.import_module(facts["module"])
    return {
        "version": importlib.metadata.version(facts["distribution"]),
        "says": _says(package),
        "file": str(getattr(package, "__file__", None) or next(iter(package.__path__))),
        "result": result,
    }


def _says(package: Any) -> str | None:
    with contextlib.suppress(Exception):  # a deprecated attribute warns, some are no texts
        if isinstance(package.__version__, str):
            return str(package.__version__)
    return None


async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """The same over HTTP. On the server's one thread, which everybody uses: libraries keep things by thread, too."""
    assert scope["type"] == "http", scope["type"]
    try:
        told = answer()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        told = {"error": f"{traceback.format_exc()}{type(error).__name__}: {error}"}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})

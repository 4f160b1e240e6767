"""What every module of a trial starts with, and a base uses too: says which version of a library it got, and uses it.

Copied beside ``use.py``, the real use, and ``facts.json``, which names the library. A pair of libraries is used on
another thread, too, and from the second time on in further ways, for which it imports more.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import itertools
import json
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_times = itertools.count()


def answer() -> dict[str, Any]:
    """What comes of the use, and whose library it was. Raises whatever the library raises."""
    facts = json.loads(Path(__file__).with_name("facts.json").read_text())
    use = importlib.import_module("use")
    results = {"once": _plain(use.use())}
    if facts["is_pair"]:
        if next(_times):
            results["later"] = _plain(use.later())
        results["on a thread"] = _on_a_thread(use.use)
    package = importlib.import_module(facts["module"])
    return {
        "version": importlib.metadata.version(facts["distribution"]),
        "says": _says(package),
        "file": str(getattr(package, "__file__", None) or next(iter(package.__path__))),
        "results": results,
    }


def _plain(result: Any) -> Any:
    return json.loads(json.dumps(result))


def _on_a_thread(use: Callable[[], Any]) -> Any:
    """What comes of a use on a thread of its own."""
    told: list[Any] = []

    def run() -> None:
        try:
            told.append(_plain(use()))
        except Exception:  # noqa: BLE001 - whatever it is, it is the answer
            told.append(traceback.format_exc())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return told[0] if told else "nothing after 60 s"


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

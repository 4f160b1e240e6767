"""Modules that would replace threads and sockets of the whole process by green ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import BaseProcess

CASES = Path(__file__).parent.parent / "bizs" / "shared"

PLAIN: Final = """
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

app = Starlette()
app.routes.append(Route("/json", lambda request: JSONResponse({"a": 1})))
app.routes.append(Route("/html", lambda request: HTMLResponse("text")))
"""


def write(place: Path, name: str, text: str) -> Path:
    path = place / f"{name}.py"
    path.write_text(text)
    return path


MIGHT_BE_GREEN: Final = """
import os
import select
import socket
import sys
import threading
import time

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def patched():
    kinds = {
        "socket": socket.socket, "lock": threading.Lock, "thread": threading.Thread.start, "sleep": time.sleep,
        "fork": os.fork, "select": select.select, "info": socket.getaddrinfo,
    }
    return [name for name, kind in kinds.items() if "gevent" in f"{kind.__module__} {kind!r}"]
"""
HIDDEN: Final = """
import importlib

patch = getattr(importlib.import_module("gevent" + ".monkey"), "patch" + "_all")
patch()

from flask import Flask

app = Flask(__name__)
"""
PARTLY: Final = (
    "from gevent import monkey as m\n\nm.patch_socket()\n\nfrom flask import Flask\n\napp = Flask(__name__)\n"
)


@pytest.fixture(scope="module")
def base_in_danger(serve: Callable[..., BaseProcess], tmp_path_factory: pytest.TempPathFactory) -> BaseProcess:
    """A base of its own for what would spoil it."""
    place = tmp_path_factory.mktemp("danger")
    (place / "danger.py").write_text(MIGHT_BE_GREEN)
    return serve("danger:app", cwd=place)


@pytest.mark.parametrize("text", [None, PARTLY, HIDDEN], ids=["case", "partly", "hidden"])
def test_a_module_that_turns_the_process_green_is_refused_by_name(
    base_in_danger: BaseProcess, tmp_path: Path, text: str | None
) -> None:
    """A deployment fails with the name of the patch and advice, and nothing of the process is patched."""
    path = write(tmp_path, "green", text or (CASES / "green.py").read_text())
    said = base_in_danger.say("deploy", path, fails=True)
    assert "gevent.monkey" in said
    assert "patch_socket" in said if text is PARTLY else "patch_all" in said
    assert "every module" in said or "whole process" in said or "process of its own" in said, "why, and what to do"
    assert base_in_danger.get("/").json() == []
    assert base_in_danger.get("/green/").status_code == 404
    base_in_danger.deploy(write(tmp_path, "plain", PLAIN))
    assert base_in_danger.get("/plain/json").text == '{"a":1}'
    assert "nothing left behind" in base_in_danger.undeploy("plain")


def test_an_artefact_that_would_patch_the_process_is_not_even_built(
    base_in_danger: BaseProcess, tmp_path: Path
) -> None:
    """`arkctl build` refuses a call of `monkey.patch_all` that stands in the source, with file and line."""
    said = base_in_danger.say("build", CASES / "green.py", "--out", tmp_path, fails=True)
    assert "patch_all" in said
    assert "green.py:3" in said or "line 3" in said
    assert list(tmp_path.iterdir()) == []

"""What a base pays that has our hooks in and no module, in calls, which are the same on any machine.

``bench/hooks.py`` measures the same in time. It is run by hand; a price that comes back is to be seen here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import pytest

COUNT: Final = """
import asyncio, functools, importlib, json, os, sys
from koupleless.container.process import ProcessHooks
from koupleless.isolation.libraries import distributions

calls = of_nothing = 0

def counted(frame, event, argument):
    global calls
    calls += event == "call" or event == "c_call"

def count(function):
    global calls
    calls = 0
    sys.setprofile(counted)
    function()
    sys.setprofile(None)  # itself with a guard of ours
    return calls - of_nothing

def application():
    from fastapi import FastAPI
    app = FastAPI()

    @app.get("/")
    async def root() -> dict[str, str]:
        return {"hello": "world"}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "root_path": "", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [(b"host", b"test")],
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pass

    async def twenty():
        for _ in range(20):
            await app({**scope, "state": {}}, receive, send)

    loop = asyncio.new_event_loop()
    return lambda: loop.run_until_complete(twenty())

def statements():
    import json
    from json import dumps
    import os.path as path

if sys.argv[1] == "hooks":
    ProcessHooks().install(asyncio.new_event_loop())
of_nothing = count(lambda: None)
found = {name: count(functools.partial(importlib.import_module, name)) for name in sys.argv[2:]}
serve = application()
serve()
found["20 requests"] = count(serve)
found["import statements"] = count(statements)
found["environment"] = count(lambda: ("PATH" in os.environ, os.environ.get("HOME"), os.environ["PATH"]))
found["indexes"] = len(distributions._indexes._known)
print(json.dumps(found))
"""
LIBRARIES: Final = ("django.db.models", "django.test", "sqlalchemy", "sqlalchemy.orm")


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    """The calls without the hooks, and with them, in processes that import all anew."""

    def count(kind: str) -> dict[str, int]:
        command = [sys.executable, "-B", "-c", COUNT, kind, *LIBRARIES]
        counted: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return counted

    return {kind: count(kind) for kind in ("plain", "hooks")}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_first_import_makes_hardly_more_calls(found: dict[str, dict[str, int]], library: str) -> None:
    assert found["hooks"][library] <= found["plain"][library] * 1.08


def test_whose_code_is_whose_is_not_asked_before_there_is_a_module(found: dict[str, dict[str, int]]) -> None:
    assert found["hooks"]["indexes"] == 0


def test_a_request_makes_a_few_calls_more(found: dict[str, dict[str, int]]) -> None:
    # Of which nine are for FastAPI's three questions for a provider of OpenTelemetry, and for the variable of each.
    assert found["hooks"]["20 requests"] - found["plain"]["20 requests"] <= 20 * 11


def test_the_environment_asks_once_who_runs(found: dict[str, dict[str, int]]) -> None:
    assert found["hooks"]["environment"] - found["plain"]["environment"] <= len(("in", "get", "[]"))


def test_an_import_statement_makes_no_call_more(found: dict[str, dict[str, int]]) -> None:
    assert found["hooks"]["import statements"] == found["plain"]["import statements"]

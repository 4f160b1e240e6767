"""Patches of a base's own functions, methods and properties, each kind: they work for who made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import BaseProcess


def write(place: Path, name: str, text: str) -> Path:
    path = place / f"{name}.py"
    path.write_text(text)
    return path


THING: Final = """
import asyncio


def greet():
    return "original"


async def wait():
    return "original"


LEVEL = 1


class Thing:
    limit = 1

    def greet(self):
        return "original"

    @classmethod
    def made(cls):
        return "original"

    @staticmethod
    def told():
        return "original"

    @property
    def name(self):
        return "original"

    def __str__(self):
        return "original"


class Special(Thing):
    pass


ASK = {
    "function": lambda: greet(),
    "coroutine function": lambda: asyncio.new_event_loop().run_until_complete(wait()),
    "method": lambda: Thing().greet(),
    "inherited method": lambda: Special().greet(),
    "class method": lambda: Thing.made(),
    "static method": lambda: Thing.told(),
    "property": lambda: Thing().name,
    "special method": lambda: str(Thing()),
    "mock": lambda: greet(),
    "in a request": lambda: greet(),
}
"""

KINDS: Final = {
    "function": "thing.greet = lambda: 'patched'",
    "coroutine function": "async def wait(): return 'patched'\nthing.wait = wait",
    "method": "thing.Thing.greet = lambda self: 'patched'",
    "inherited method": "thing.Special.greet = lambda self: 'patched'",
    "class method": "thing.Thing.made = classmethod(lambda cls: 'patched')",
    "static method": "thing.Thing.told = staticmethod(lambda: 'patched')",
    "property": "thing.Thing.name = property(lambda self: 'patched')",
    "special method": "thing.Thing.__str__ = lambda self: 'patched'",
    "mock": "from unittest import mock\nmock.patch('thing.greet', return_value='patched').start()",
    "in a request": "",
}

ASKING: Final = """
import thing
from fastapi import FastAPI

app = FastAPI()


@app.get("/ask")
def ask(kind: str):
    return thing.ASK[kind]()


@app.get("/patch")
def patch():
    thing.greet = lambda: "patched"


@app.get("/data")
def data():
    return [thing.LEVEL, thing.Thing.limit]


@app.get("/types")
def types():
    return [type(vars(thing.Thing).get(name)).__name__ for name in ("greet", "made", "told", "name", "__str__")] + [
        "greet" in vars(thing.Special)
    ]
"""


@pytest.fixture(scope="module")
def base_with_thing(serve: Callable[..., BaseProcess], tmp_path_factory: pytest.TempPathFactory) -> BaseProcess:
    """A base with a Python file of its own, which its modules patch."""
    place = tmp_path_factory.mktemp("thing")
    (place / "thing.py").write_text(THING)
    (place / "asking.py").write_text(ASKING)
    return serve("asking:app", cwd=place)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_module_patches_of_the_base_is_the_original_for_everybody_else(
    base_with_thing: BaseProcess, tmp_path: Path, kind: str
) -> None:
    """A patch of each kind works for its module, before, beside and after which the base has the original."""
    base = base_with_thing

    def asked(prefix: str = "") -> str:
        answer: str = base.get(f"{prefix}/ask", params={"kind": kind}).json()
        return answer

    try:
        types = base.get("/types").json()
        base.deploy(write(tmp_path, "plain", ASKING))
        base.deploy(write(tmp_path, "patching", f"{ASKING}\n{KINDS[kind]}\n"))
        if kind == "in a request":
            assert base.get("/patching/patch").status_code == 200, "its first request"
        for _ in range(2):
            assert [asked("/patching"), asked("/plain"), asked()] == ["patched", "original", "original"]
        assert "nothing left behind" in base.undeploy("patching")
        assert [asked("/plain"), asked()] == ["original", "original"]
        assert base.get("/types").json() == types
        assert "nothing left behind" in base.undeploy("plain")
    finally:
        base.clear()


def test_the_patches_of_a_module_that_does_not_start_are_taken_back(
    base_with_thing: BaseProcess, tmp_path: Path
) -> None:
    """All that a module has patched is the original again when its start has failed."""
    base = base_with_thing
    types = base.get("/types").json()
    patches = "\n".join(KINDS.values())
    broken = write(tmp_path, "broken", f"{ASKING}\n{patches}\nraise RuntimeError('not today')\n")
    try:
        assert "not today" in base.say("deploy", broken, fails=True)
        assert {kind: base.get("/ask", params={"kind": kind}).json() for kind in KINDS} == dict.fromkeys(
            KINDS, "original"
        )
        assert base.get("/types").json() == types
    finally:
        base.clear()


def test_plain_data_that_a_module_sets_is_its_own_or_told_and_put_back(
    base_with_thing: BaseProcess, tmp_path: Path
) -> None:
    """The base either goes on with its own value, or the change is named at install; the old value comes back."""
    base = base_with_thing
    text = ASKING + "\nthing.LEVEL = 5\nthing.Thing.limit = 5\n"
    try:
        said = base.deploy(write(tmp_path, "setting", text)) + base.log.read_text()
        assert base.get("/setting/data").json() == [5, 5]
        for name, value in zip(("thing.LEVEL", "Thing.limit"), base.get("/data").json(), strict=True):
            assert value == 1 or any(name in line and "setting" in line for line in said.splitlines()), name
        base.undeploy("setting")
        assert base.get("/data").json() == [1, 1]
    finally:
        base.clear()

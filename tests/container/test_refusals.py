"""What would patch the process for everybody is refused by name, before anything is patched."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import shutil
import socket
import ssl
import sys
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.artifact.build import Options, build_project
from koupleless.errors import PatchRefused, StartFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.container.conftest import World

pytestmark = pytest.mark.filterwarnings(r"ignore:\s*Eventlet is deprecated")

HEAD = '[project]\nname = "green"\nversion = "{version}"\n[tool.koupleless.module]\nentry = "green:{entry}"\n'


class Green:
    """Makes a module that calls something in a function, so that the build does not see it, and installs it."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self._directory = directory
        self._count = 0

    def install(self, source: str, *libraries: str, entry: str = "main") -> Any:
        self._count += 1
        project = self._directory / f"green-{self._count}"
        project.mkdir()
        (project / "pyproject.toml").write_text(HEAD.format(version=self._count, entry=entry))
        (project / "green.py").write_text(source)
        for library in libraries:
            place = Path(_file_of(library))
            if place.name == "__init__.py":
                shutil.copytree(place.parent, project / library, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(place, project / place.name)
        built = build_project(project, Options(out=self._directory, compile=False)).path
        return self.world.container.install(self.world.container.prepare(str(built)))


def _file_of(library: str) -> str:
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        pytest.skip(f"{library} is not installed")
    return spec.origin


@pytest.fixture
def green(world: World, tmp_path: Path) -> Green:
    return Green(world, tmp_path)


@pytest.fixture
def untouched() -> Iterator[None]:
    """The standard library before and after is the same."""

    def parts() -> list[Any]:
        modules = (socket, ssl, threading, time, asyncio, asyncio.events, asyncio.tasks)
        return [getattr(module, name) for module in modules for name in _PARTS if hasattr(module, name)]

    before = parts()
    yield
    assert all(now is then for now, then in zip(parts(), before, strict=True))


_PARTS = ("socket", "SSLContext", "SSLSocket", "Thread", "Lock", "local", "sleep", "run", "get_event_loop", "Task")

CALLS = {
    "gevent.monkey.patch_all": "from gevent import monkey\ndef main():\n    monkey.patch_all()\n",
    "gevent.monkey.patch_socket": "import gevent.monkey\ndef main():\n    gevent.monkey.patch_socket()\n",
    "eventlet.monkey_patch": "import eventlet\ndef main():\n    eventlet.monkey_patch()\n",
    "eventlet.patcher.monkey_patch": "from eventlet.patcher import monkey_patch\ndef main():\n    monkey_patch()\n",
    "nest_asyncio.apply": "import nest_asyncio\ndef main():\n    nest_asyncio.apply()\n",
    "truststore.inject_into_ssl": "import truststore\ndef main():\n    truststore.inject_into_ssl()\n",
}


def _says(error: StartFailed, call: str, biz: str) -> None:
    library, _, function = call.rpartition(".")
    top = library.partition(".")[0]
    assert f"PatchRefused: biz {biz} may not call {top}." in error.reason
    assert f".{function}(): it replaces " in error.reason
    assert "the base and other modules included; remove the call" in error.reason


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("call", CALLS)
def test_a_library_of_the_base_patches_nothing_for_a_biz(
    green: Green, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    _file_of(call.partition(".")[0])
    with pytest.raises(StartFailed) as failed:
        green.install(CALLS[call])
    _says(failed.value, call, "green:1")
    assert green.world.states() == {}
    assert "left behind" not in caplog.text
    green.install("def main():\n    pass\n")  # and the next one starts


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("call", [call for call in CALLS if not call.startswith("gevent")])
def test_a_library_that_a_biz_has_for_itself_patches_nothing_either(green: Green, call: str) -> None:
    top = call.partition(".")[0]
    with pytest.raises(StartFailed) as failed:
        green.install(CALLS[call] + f"import {top}, sys\nassert {top}.__file__.startswith(__file__[:-9])\n", top)
    _says(failed.value, call, "green:1")


@pytest.mark.usefixtures("untouched")
def test_a_call_at_import_that_the_build_did_not_see_is_refused_with_the_line(green: Green) -> None:
    source = "import sys\nif sys:\n    import nest_asyncio as n\n    n.apply()\n"
    with pytest.raises(StartFailed, match=r"may not call nest_asyncio\.apply\(\)") as failed:
        green.install(source, entry="sys")
    assert 'green.py", line 4' in failed.value.traceback


def test_the_base_itself_may(world: World, green: Green, monkeypatch: pytest.MonkeyPatch) -> None:
    patched: list[str] = []
    library: Any = types.ModuleType("gevent.monkey")
    library.patch_all = types.FunctionType((lambda: 1).__code__, {})
    exec("def patch_all(): patched.append('all')\ndef patch_time(): patched.append('time')", vars(library))
    library.patched = patched
    monkeypatch.setitem(sys.modules, "gevent", types.ModuleType("gevent"))
    monkeypatch.setitem(sys.modules, "gevent.monkey", library)
    monkeypatch.setattr(sys.modules["gevent"], "monkey", library, raising=False)
    original = library.patch_all
    green.install("def main():\n    pass\n")
    library.patch_all()
    assert patched == ["all"]
    for function in ("patch_all", "patch_time"):
        with pytest.raises(StartFailed, match=rf"may not call gevent\.monkey\.{function}\(\)"):
            green.install(f"from gevent import monkey\ndef main():\n    monkey.{function}()\n")
    assert patched == ["all"]
    world.container.close()
    assert library.patch_all is original


def test_a_biz_may_catch_the_refusal_and_go_on(green: Green) -> None:
    _file_of("nest_asyncio")
    source = (
        "import nest_asyncio\ndef main():\n    try:\n        nest_asyncio.apply()\n    except Exception as error:\n"
    )
    green.install(source + "        assert type(error).__name__ == 'PatchRefused', error\n")
    assert green.world.states()["green:1"] == "ACTIVATED"


def test_the_error_has_what_a_caller_can_act_on() -> None:
    error = PatchRefused("green:1", "gevent.monkey.patch_all()", "it replaces everything")
    assert (error.identity, error.call, error.reason) == (
        "green:1",
        "gevent.monkey.patch_all()",
        "it replaces everything",
    )


def test_pymysql_stands_in_for_mysqldb_in_the_biz_that_asks(green: Green) -> None:
    _file_of("pymysql")
    green.install("import pymysql\ndef main():\n    pymysql.install_as_MySQLdb()\n    import MySQLdb\n")
    assert "MySQLdb" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("MySQLdb")

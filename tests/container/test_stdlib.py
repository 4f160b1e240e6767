"""Modules that set things in the standard library: others see nothing of it at any moment, and nothing stays."""

from __future__ import annotations

import asyncio
import csv
import decimal
import gc
import http.client
import logging
import mimetypes
import multiprocessing
import shutil
import socket
import ssl
import sys
import tarfile
import tempfile
import threading
import urllib.parse
import urllib.request
import webbrowser
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.artifact.build import Options, build_project
from koupleless.errors import StartFailed
from koupleless.view.shared.process import ProcessWideWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.container.conftest import World

pytestmark = pytest.mark.filterwarnings("ignore:.*event_loop_policy.*:DeprecationWarning")  # from 3.14 on

CARELESS = """
import gc
import http.client
import ssl

ssl._create_default_https_context = ssl._create_unverified_context
http.client.HTTPConnection.debuglevel = 1
gc.disable()

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    level = http.client.HTTPConnection.debuglevel
    verified = int(http.client.HTTPSConnection("x")._context.verify_mode)
    await send({"type": "http.response.body", "body": repr((verified, level)).encode()})
"""

THOROUGH = """
import asyncio, csv, decimal, email.charset, gettext, http.client, logging, mimetypes, multiprocessing, shutil, socket
import ssl, sys, tarfile, tempfile, threading, tracemalloc, urllib.parse, urllib.request, webbrowser
import xml.etree.ElementTree as ET
from unittest import mock

class Mine:
    def __call__(self, *args, **kwargs):
        return Mine

class Opener(urllib.request.OpenerDirector, Mine):
    pass

class Policy(type(asyncio.get_event_loop_policy()), Mine):
    pass

class Browser(webbrowser.BaseBrowser, Mine):
    pass

class Socket(socket.socket, Mine):
    pass

class Excel(csv.excel):
    delimiter = "|"
    owner = Mine

shutil.register_archive_format("own", Mine())
shutil.register_unpack_format("own", [".own"], Mine())
shutil.unregister_archive_format("zip")
urllib.request.install_opener(Opener())
urllib.parse.uses_relative.append("koupleless")
webbrowser.register("own", Browser)
asyncio.set_event_loop_policy(Policy())
asyncio.new_event_loop().close()
mimetypes.add_type("x/koupleless", ".koupleless")
mimetypes.types_map[".own"] = Mine()
csv.register_dialect("own", Excel)
ET.register_namespace("own", "urn:own")
email.charset.add_alias("own", "utf-8")
decimal.DefaultContext.prec = 50
gettext.NullTranslations().install()
assert _("hello") == "hello"
multiprocessing.set_start_method("spawn")
tempfile.tempdir = "/own"
ssl._create_default_https_context = Mine()
socket.socket = Socket
http.client._MAXHEADERS = 7
http.client.HTTPConnection.debuglevel = 1
tarfile.TarFile.extraction_filter = Mine()
logging.raiseExceptions = False
sys.tracebacklimit = 1
sys.set_asyncgen_hooks(firstiter=Mine(), finalizer=Mine())
tracemalloc.start()
mock.patch("shutil.disk_usage", Mine()).start()
mock.patch.dict(csv.__dict__, {"koupleless": Mine()}).start()

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(mimetypes.guess_type("a.koupleless")[0]).encode()})
"""

HEAD = '[project]\nname = "{name}"\nversion = "1"\n[tool.koupleless.module]\nentry = "app:app"\n'


@pytest.fixture
def install(world: World, tmp_path: Path) -> Callable[..., Any]:
    def put_in(source: str, name: str = "careless") -> Any:
        project = tmp_path / name
        project.mkdir()
        (project / "pyproject.toml").write_text(HEAD.format(name=name))
        (project / "app.py").write_text(source)
        built = build_project(project, Options(out=tmp_path)).path
        return world.container.install(world.container.prepare(str(built))).info.id

    return put_in


def seen() -> dict[str, Any]:
    """What the base sees."""
    opener = vars(urllib.request)["_opener"]
    return {
        "archives": [name for name, _ in shutil.get_archive_formats()],
        "unpacked": [name for name, *_ in shutil.get_unpack_formats()],
        "usage": shutil.disk_usage,
        "opener": getattr(opener, "installed", opener) if type(opener).__module__ != "urllib.request" else opener,
        "joined": urllib.parse.urljoin("koupleless://a/b", "c"),
        "browsers": "own" in vars(webbrowser)["_browsers"],
        "policy": asyncio.get_event_loop_policy(),
        "types": dict(mimetypes.types_map),
        "type": mimetypes.guess_type("a.koupleless"),
        "dialects": csv.list_dialects(),
        "patched": "koupleless" in vars(csv),
        "element": ET.tostring(ET.Element("{urn:own}a")),
        "decimal": (decimal.DefaultContext.prec, decimal.getcontext().prec),
        "builtin": "_" in vars(sys.modules["builtins"]),
        "start": multiprocessing.get_start_method(),
        "temporary": tempfile.gettempdir(),
        "ssl": ssl._create_default_https_context,
        "socket": socket.socket,
        "headers": vars(http.client)["_MAXHEADERS"],
        "debug": (http.client.HTTPConnection.debuglevel, http.client.HTTPSConnection("x").debuglevel),
        "filter": tarfile.TarFile.extraction_filter,
        "raises": logging.raiseExceptions,
        "limit": getattr(sys, "tracebacklimit", None),
        "hooks": sys.get_asyncgen_hooks(),
        "collector": (gc.isenabled(), gc.get_threshold()),
    }


@pytest.fixture
def watched() -> Iterator[list[Any]]:
    """What a thread of the base sees of three settings all the time: each pair that it saw."""
    found: list[Any] = []
    ended = threading.Event()
    real = vars(http.client)["HTTPConnection"]

    def watch() -> None:
        while not ended.wait(0.0002):
            now = ssl._create_default_https_context, real.debuglevel, gc.isenabled()
            if now not in found:
                found.append(now)

    thread = threading.Thread(target=watch)
    thread.start()
    yield found
    ended.set()
    thread.join()


@pytest.mark.filterwarnings("always::koupleless.view.shared.process.ProcessWideWarning")
def test_settings_that_switch_safety_off_are_as_before_at_every_moment(
    world: World, install: Callable[..., Any], watched: list[Any]
) -> None:
    with pytest.warns(ProcessWideWarning, match=r"biz careless:1 called gc\.disable\(\)"):
        identity = install(CARELESS)
    assert world.get("/careless/").text == "(0, 1)"
    assert watched == [(ssl.create_default_context, 0, True)]
    report = world.container.uninstall(identity)
    assert report.clean, report.summary()
    # The purge itself stops the collector for a moment.
    assert {(context, level) for context, level, _ in watched} == {(ssl.create_default_context, 0)}


def test_a_module_that_registers_in_everything_changes_nothing_for_others_and_leaves_clean(
    world: World, install: Callable[..., Any]
) -> None:
    multiprocessing.get_start_method()
    mimetypes.init()
    before = seen()
    install("async def app(scope, receive, send):\n    pass\n", "other")
    identity = install(THOROUGH, "thorough")
    assert world.get("/thorough/").text == "x/koupleless"
    during = seen()
    assert {name for name in before if before[name] != during[name]} <= {"usage", "patched"}  # undone at leaving
    del during  # it has what stands in for ``disk_usage``
    report = world.container.uninstall(identity)
    assert report.clean, report.summary()
    assert seen() == before
    assert report.undone["mock"] == 2


DIGITS = """
import asyncio, decimal
{change}

def third():
    return len(str(decimal.Decimal(1) / 3)), decimal.getcontext().prec

async def app(scope, receive, send):
    text = repr((third(), await asyncio.to_thread(third)))
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": text.encode()}})
"""


def test_a_default_that_a_module_changes_at_import_counts_in_its_requests_and_threads(
    world: World, install: Callable[..., Any]
) -> None:
    install(DIGITS.format(change="decimal.DefaultContext.prec = 50"), "precise")
    install(DIGITS.format(change=""), "plain")
    assert world.get("/precise/").text == "((52, 50), (52, 50))"
    assert world.get("/plain/").text == "((30, 28), (30, 28))"
    assert (decimal.DefaultContext.prec, decimal.getcontext().prec) == (28, 28)


def test_a_failed_start_leaves_nothing_either(
    world: World, install: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    multiprocessing.get_start_method()
    mimetypes.init()
    before = seen()
    with pytest.raises(StartFailed, match="ValueError: enough"):
        install(THOROUGH + "\nraise ValueError('enough')\n", "thorough")
    assert "left behind" not in caplog.text
    assert seen() == before
    assert world.states() == {}


def test_a_start_function_that_raises_is_let_go_of(
    world: World, install: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StartFailed, match="ValueError: enough") as kept:
        install("def app():\n    raise ValueError('enough')\n")
    assert "failed to start" in caplog.text
    assert "left behind" not in caplog.text
    del kept

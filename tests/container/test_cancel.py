"""An install that is cancelled: while the artefact is fetched, imported, or started; and nothing of it stays."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.conftest import until

from koupleless.artifact.build import Options, build_file
from koupleless.container.host import Host
from koupleless.container.surroundings import Deadlines
from koupleless.container.terms import Located, Strategy
from koupleless.errors import InstallCancelled, StartFailed
from koupleless.isolation.interpreter import REAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMPORTS = "BEGUN.set()\nGO_ON.wait()\ndef app(environ, start): ...\n"
STARTS = """
import asyncio

async def app(scope, receive, send):
    BEGUN.set()
    await asyncio.Event().wait()
"""
SERVES = "def app(environ, start):\n    start('200 OK', [])\n    return [b'old']\n"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host.make(tmp_path / "store", deadlines=Deadlines(stop_s=3.0))
    yield made
    made.container.close()


def artefact(directory: Path, source: str, version: str) -> str:
    path = directory / "slow.py"
    path.write_text(f"__version__ = {version!r}\n{source}")
    return str(build_file(path, Options(out=directory / version)).path)


@pytest.mark.parametrize("source", [IMPORTS, STARTS], ids=["import", "start-up"])
def test_a_cancelled_start_is_undone_and_the_old_version_answers(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("builtins.BEGUN", begun, raising=False)
    monkeypatch.setattr("builtins.GO_ON", go_on, raising=False)
    container = host.container
    old = container.install(container.prepare(artefact(tmp_path, SERVES, "1"))).info
    prepared = container.prepare(artefact(tmp_path, source, "2"))
    assert not host.stage.cancel("slow"), "nothing is being installed"
    with ThreadPoolExecutor(1) as pool:
        install = pool.submit(container.install, prepared, strategy=Strategy.REPLACE)
        assert begun.wait(30)
        assert not host.stage.cancel("other")
        assert host.stage.cancel("slow")
        with pytest.raises(StartFailed, match="the install was cancelled"):
            install.result(30)
    assert [biz.id for biz in container.bizs() if not biz.is_base] == [old.id]
    assert container.find(old.id).state.value == "ACTIVATED"
    assert container.uninstall(old.id).clean
    assert not host.stage.cancel("slow")
    again = container.install(container.prepare(artefact(tmp_path, SERVES, "3"))).info
    assert container.uninstall(again.id).clean
    assert not [thread.name for thread in threading.enumerate() if thread.name == "import slow:2"]
    assert "slow" not in REAL


def test_an_artefact_that_does_not_come_is_cancelled_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def prepare(*_: object, **__: object) -> None:
        begun.set()
        go_on.wait()
        raise OSError

    monkeypatch.setattr("koupleless.container.starting.prepare.Preparation.prepare", prepare)
    from koupleless.biz import BizId

    with ThreadPoolExecutor(1) as pool:
        install = pool.submit(host.container.install, Located(BizId.parse("slow:1"), "http://127.0.0.1:9/slow.zip"))
        assert begun.wait(30)
        until(lambda: host.stage.cancel("slow"), 10, otherwise="there is no install")
        with pytest.raises(InstallCancelled):
            install.result(30)
    go_on.set()


def sleeping(call: str) -> str:
    return f"import socket, threading, time\nBEGUN.set()\n{call}\ndef app(environ, start): ...\n"


LISTENS = "with socket.create_server(('127.0.0.1', 0)) as listener:\n    listener.accept()"
ENDED = {
    "a loop": sleeping("while True: pass"),
    "a sleep": sleeping("time.sleep(3600)"),
    "a wait": sleeping("threading.Event().wait()"),
    "a socket": sleeping(LISTENS),
    "a submodule": sleeping("def wait():\n    time.sleep(3600)\nexec(compile('wait()', 'other.py', 'exec'))"),
    "a function": "import time\ndef main():\n    BEGUN.set()\n    time.sleep(3600)\n",
    "a factory": "import time\ndef create_app():\n    BEGUN.set()\n    time.sleep(3600)\n",
}


# The end comes while the socket is about to be closed by the error of its own end.
@pytest.mark.filterwarnings("ignore:Exception ignored.*<socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("source", ENDED.values(), ids=list(ENDED))
def test_the_thread_of_a_cancelled_start_ends_and_holds_nothing(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    begun = threading.Event()
    monkeypatch.setattr("builtins.BEGUN", begun, raising=False)
    prepared = host.container.prepare(artefact(tmp_path, source, "1"))
    with ThreadPoolExecutor(1) as pool:
        install = pool.submit(host.container.install, prepared)
        assert begun.wait(30)
        assert host.stage.cancel("slow")
        with pytest.raises(StartFailed, match=r"was cancelled$"):
            install.result(30)
    assert not [thread.name for thread in threading.enumerate() if "slow:1" in thread.name]
    assert "slow" not in REAL
    assert host.container.zombies() == ()


def test_a_thread_that_catches_its_end_is_named_and_leaves_the_table_of_the_interpreter(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("builtins.BEGUN", begun, raising=False)
    monkeypatch.setattr("builtins.GO_ON", go_on, raising=False)
    source = sleeping("while not GO_ON.is_set():\n    try:\n        GO_ON.wait()\n    except BaseException: pass")
    prepared = host.container.prepare(artefact(tmp_path, source, "1"))
    with ThreadPoolExecutor(1) as pool:
        install = pool.submit(host.container.install, prepared)
        assert begun.wait(30)
        assert host.stage.cancel("slow")
        with pytest.raises(StartFailed, match="was cancelled"):
            install.result(30)
    assert "thread 'import slow:1': still runs at" in caplog.text
    assert "slow" not in REAL
    go_on.set()
    until(lambda: not any(thread.name == "import slow:1" for thread in threading.enumerate()))
    assert "slow" not in REAL

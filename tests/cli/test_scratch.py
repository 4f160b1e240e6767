"""What a command needs for a while is gone when it ends, whatever ends it and whenever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.cli.deploying.scratch import Ended, scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import FakeArklet

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("times", [1, 3])
def test_a_deployment_that_a_signal_ends_leaves_no_directory(
    arklet: FakeArklet, hello_file: Path, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    directory = tmp_path / "scratch"
    directory.mkdir()
    release = threading.Event()
    arklet.server_header = "koupleless"
    arklet.says("installBiz", lambda _: release.wait(60) and {"code": "SUCCESS"})
    command = [sys.executable, "-P", "-m", "koupleless", "deploy", "hello.py", "--port", str(arklet.port)]
    with subprocess.Popen(
        command, cwd=hello_file.parent, env={**os.environ, "TMPDIR": str(directory)}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert arklet.wait_for(lambda: bool(arklet.calls), timeout_s=60)
            assert [path.name[:7] for path in directory.iterdir()] == ["arkctl-"], "the artefact is in it"
            for _ in range(times):
                process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            release.set()
            process.kill()
    assert "Traceback" not in err
    assert list(directory.iterdir()) == []
    assert process.returncode == 128 + number


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the temporary directories of this process are for now."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str], None]]:
    """``interrupting(module, "function")``: the first call of it ends with a SIGTERM to this process."""
    before = {number: signal.getsignal(number) for number in ENDING}

    def change(module: Any, name: str) -> None:
        original, calls = getattr(module, name), []

        def changed(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            calls.append(name)
            if len(calls) == 1:
                signal.raise_signal(signal.SIGTERM)
            return result

        monkeypatch.setattr(module, name, changed)

    yield change
    assert {number: signal.getsignal(number) for number in ENDING} == before, "the handlers are those from before"


@pytest.mark.parametrize(("module", "name"), [(tempfile, "mkdtemp"), (shutil, "rmtree")], ids=["made", "removed"])
def test_a_signal_while_the_directory_is_made_or_removed_leaves_none(
    place: Path, interrupting: Callable[[Any, str], None], module: Any, name: str
) -> None:
    def use() -> None:
        with scratch() as directory:
            assert directory.parent == place
            (directory / "file").touch()

    interrupting(module, name)
    with pytest.raises(Ended) as raised:
        use()
    assert raised.value.code == 143
    assert list(place.iterdir()) == []


def test_a_signal_that_is_handled_or_ignored_stays_so(place: Path, interrupting: Callable[[Any, str], None]) -> None:
    handled: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: handled.append(number))
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with scratch():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, ignored)
    assert handled == [signal.SIGTERM]
    assert list(place.iterdir()) == []


def test_whoever_takes_a_signal_over_meanwhile_keeps_it(place: Path) -> None:
    def theirs(number: int, frame: object) -> None: ...

    before = signal.getsignal(signal.SIGTERM)
    try:
        with scratch():
            signal.signal(signal.SIGTERM, theirs)
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


def test_on_another_thread_there_is_the_directory_alone(place: Path) -> None:
    seen: list[object] = []

    def use() -> None:
        with scratch() as directory:
            seen.extend([directory.is_dir(), signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [True, signal.SIG_DFL]
    assert list(place.iterdir()) == []

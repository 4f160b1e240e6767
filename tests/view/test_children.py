"""What a biz starts its children with. Which virtual environment that is, and what is in it, is tested elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from koupleless.context import Scope, entered
from koupleless.view.children import Interpreter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    MakeBiz = Callable[..., Scope]

pytestmark = pytest.mark.usefixtures("with_environ")

OF_PROCESS = sys.executable


class Made:
    """Makes a directory with a program in it, and counts how often it is asked to."""

    def __init__(self, scope: Scope, prefix: Path) -> None:
        self.times = 0
        self.scripts = prefix / "bin"
        self.python = self.scripts / "python"
        self.interpreter = Interpreter(str(prefix), str(self.python), self)
        scope.attach(self.interpreter)

    def __call__(self) -> None:
        self.times += 1
        self.scripts.mkdir(parents=True, exist_ok=True)
        tool = self.scripts / "tool-of-the-biz"
        tool.write_text("#!/bin/sh\necho ours\n")
        tool.chmod(0o755)


def piped(command: str) -> str:
    with os.popen(command) as pipe:
        return pipe.read()


@pytest.fixture
def biz(make_biz: MakeBiz) -> Scope:
    return make_biz()


@pytest.fixture
def made(biz: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Of a biz, in a process whose virtual environment is active."""
    monkeypatch.setenv("PATH", os.pathsep.join(["/first", sysconfig.get_path("scripts"), "/usr/bin", "/bin"]))
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    made = Made(biz, tmp_path / "venv")
    yield made
    made.interpreter.close()


def test_the_interpreter_of_a_biz_is_its_own_and_made_when_it_is_asked_for(biz: Scope, made: Made) -> None:
    with entered(biz):
        dict(os.environ), vars(sys), sys.argv
        assert made.times == 0
        assert sys.executable == getattr(sys, "executable") == str(made.python)  # noqa: B009
        from sys import executable

        assert executable == str(made.python)
        assert made.times > 0
    assert sys.executable == OF_PROCESS


def test_a_biz_without_one_has_that_of_the_process(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        assert sys.executable == OF_PROCESS


def test_one_that_cannot_be_made_is_told_once_and_the_process_s_is_given(
    biz: Scope, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    path = os.pathsep.join([sysconfig.get_path("scripts"), "/bin"])
    monkeypatch.setenv("PATH", path)
    interpreter = Interpreter(str(tmp_path / "venv"), str(tmp_path / "venv/bin/python"), fail)
    biz.attach(interpreter)
    with contextlib.closing(interpreter), entered(biz), caplog.at_level(logging.WARNING):
        assert sys.executable == sys.executable == OF_PROCESS
        assert subprocess.check_output(["sh", "-c", "echo $PATH"], text=True).strip() == path
        assert os.environ["PATH"] == path
    assert [record.getMessage() for record in caplog.records] == [
        "child processes of biz hello:1.0 find what the base finds only: [Errno 28] No space left on device"
    ]


def test_what_a_biz_assigns_is_its_own_until_it_puts_back_what_it_found(biz: Scope, made: Made) -> None:
    with entered(biz):
        with mock.patch.object(sys, "executable", "/other"):
            assert sys.executable == "/other"
        assert sys.executable == str(made.python)
        found = sys.executable
        sys.executable = "/other"
        with entered(None):
            assert sys.executable == OF_PROCESS
        sys.executable = found
        assert sys.executable == str(made.python)
    assert sys.executable == OF_PROCESS


def test_what_is_active_for_the_process_is_the_biz_s_own_for_it(biz: Scope, made: Made) -> None:
    before = os.environ["PATH"]
    with entered(biz):
        assert os.environ["PATH"] == before.replace("/first:", f"/first:{made.scripts}:")
        assert dict(os.environ)["VIRTUAL_ENV"] == os.environ["VIRTUAL_ENV"] == str(made.scripts.parent)
        assert made.times == 0
        os.environ["PATH"] = "/mine"
        assert os.environ["PATH"] == "/mine"
    assert os.environ["PATH"] == before


def test_nothing_is_put_on_a_path_without_the_scripts_of_the_base(
    biz: Scope, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("VIRTUAL_ENV", "/somebody")
    with entered(biz):
        assert subprocess.check_output(["sh", "-c", "echo $PATH $VIRTUAL_ENV"], text=True).split() == [
            "/usr/bin:/bin",
            "/somebody",
        ]
        assert shutil.which("tool-of-the-biz") is None
    assert made.times == 0


@pytest.mark.parametrize(
    "run",
    [
        lambda: subprocess.check_output(["tool-of-the-biz"], text=True),
        lambda: subprocess.check_output("tool-of-the-biz", shell=True, text=True),
        lambda: piped("tool-of-the-biz"),
        lambda: subprocess.check_output([str(shutil.which("tool-of-the-biz"))], text=True),
    ],
    ids=["name", "shell", "popen", "which"],
)
def test_scripts_of_the_biz_are_there_when_a_child_may_look_for_them(
    biz: Scope, made: Made, run: Callable[[], str]
) -> None:
    with entered(biz):
        assert run() == "ours\n"
    assert made.times > 0
    assert shutil.which("tool-of-the-biz") is None


def test_the_directory_of_scripts_is_the_biz_s_where_no_scheme_or_place_is_named(biz: Scope, made: Made) -> None:
    of_base = sysconfig.get_paths()
    with entered(biz):
        assert sysconfig.get_path("scripts") == sysconfig.get_path(name="scripts") == str(made.scripts)
        assert sysconfig.get_paths() == {**of_base, "scripts": str(made.scripts)}
        assert sysconfig.get_path("purelib") == of_base["purelib"]
        assert sysconfig.get_path("scripts", "posix_prefix") == sysconfig.get_path("scripts", scheme="posix_prefix")
        assert sysconfig.get_path("scripts", vars={"base": "/x"}).startswith("/x")
    assert sysconfig.get_path("scripts") == of_base["scripts"]


def test_many_threads_of_two_bizs_each_get_their_own(make_biz: MakeBiz, tmp_path: Path) -> None:
    bizs = [make_biz(f"biz{number}") for number in range(2)]
    makers = [Made(biz, tmp_path / biz.biz.name) for biz in bizs]
    together = threading.Barrier(8)

    def ask(number: int) -> str:
        together.wait()
        with entered(bizs[number % 2]):
            return sys.executable

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [str(makers[number % 2].python) for number in range(8)]


def test_a_biz_that_is_gone_has_what_the_process_has(biz: Scope, made: Made) -> None:
    biz.close()
    with entered(biz):
        assert sys.executable == OF_PROCESS
    assert made.times == 0

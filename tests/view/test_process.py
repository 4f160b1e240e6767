"""Settings of the whole process, which a biz may ask for and not change."""

import locale
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koupleless.context import Scope, entered
from koupleless.view.shared.process import GUARDS, ProcessWideWarning

MakeBiz = Callable[..., Scope]

pytestmark = pytest.mark.usefixtures("with_guards")


def test_a_biz_cannot_change_the_working_directory(make_biz: MakeBiz, tmp_path: Path) -> None:
    before = Path.cwd()
    with entered(make_biz()), pytest.raises(PermissionError, match=r"hello:1\.0 may not change the working directory"):
        os.chdir(tmp_path)
    assert Path.cwd() == before


def test_a_directory_that_is_not_there_fails_as_ever(make_biz: MakeBiz, tmp_path: Path) -> None:
    with entered(make_biz()), pytest.raises(FileNotFoundError):
        os.chdir(tmp_path / "missing")


def test_a_biz_may_change_to_the_directory_it_is_in(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        os.chdir(".")
        descriptor = os.open(".", os.O_RDONLY)
        try:
            os.fchdir(descriptor)
        finally:
            os.close(descriptor)


@pytest.mark.parametrize(
    ("change", "read", "words"),
    [
        (lambda: locale.setlocale(locale.LC_TIME, "no_SUCH"), lambda: locale.setlocale(locale.LC_TIME), "setlocale"),
        (lambda: socket.setdefaulttimeout(12.5), socket.getdefaulttimeout, r"setdefaulttimeout\(12\.5\)"),
        (lambda: sys.setrecursionlimit(54_321), sys.getrecursionlimit, r"setrecursionlimit\(54321\)"),
        (lambda: signal.signal(signal.SIGUSR1, print), lambda: signal.getsignal(signal.SIGUSR1), r"signal\.signal"),
        (lambda: threading.settrace(print), threading.gettrace, r"threading\.settrace"),
        (lambda: threading.setprofile(print), threading.getprofile, r"threading\.setprofile"),
        (lambda: os.umask(0o123), lambda: None, r"umask\(0o123\)"),
    ],
    ids=["locale", "socket timeout", "recursion limit", "signal", "trace", "profile", "umask"],
)
def test_a_change_is_ignored_with_a_warning_that_names_the_biz(
    make_biz: MakeBiz, change: Any, read: Any, words: Any
) -> None:
    before = read()
    with entered(make_biz()), pytest.warns(ProcessWideWarning, match=rf"hello:1\.0 called .*{words}"):
        change()
    assert read() == before


def test_asking_for_what_is_set_already_needs_no_warning(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        assert locale.setlocale(locale.LC_TIME, None) == locale.setlocale(locale.LC_TIME)
        locale.setlocale(locale.LC_TIME, locale.setlocale(locale.LC_TIME))
        socket.setdefaulttimeout(socket.getdefaulttimeout())
        sys.setrecursionlimit(sys.getrecursionlimit())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there the mask can be read without setting it")
def test_the_umask_a_biz_is_told_is_the_one_in_force(make_biz: MakeBiz) -> None:
    before = os.umask(0o027)
    try:
        with entered(make_biz()):
            assert os.umask(0o027) == 0o027
    finally:
        assert os.umask(before) == 0o027


def test_the_base_changes_what_it_likes(tmp_path: Path) -> None:
    before, timeout = Path.cwd(), socket.getdefaulttimeout()
    try:
        os.chdir(tmp_path)
        socket.setdefaulttimeout(7)
        assert (Path.cwd(), socket.getdefaulttimeout()) == (tmp_path.resolve(), 7)
    finally:
        os.chdir(before)
        socket.setdefaulttimeout(timeout)


def test_after_removal_the_functions_are_those_of_the_process() -> None:
    GUARDS.acquire()
    GUARDS.release()
    guarded = os.chdir
    GUARDS.release()
    try:
        assert os.chdir is not guarded
        assert all(not hasattr(function, "__wrapped__") for function in (os.chdir, os.umask, socket.setdefaulttimeout))
    finally:
        GUARDS.acquire()


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_the_standard_streams_stay_open(
    make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    GUARDS.release()
    with (tmp_path / "stream").open("w+") as stream:
        monkeypatch.setattr(sys, name, stream)
        GUARDS.acquire()
        with entered(make_biz()):
            with pytest.warns(ProcessWideWarning, match=rf"hello:1\.0 called sys\.{name}\.close\(\)"):
                stream.close()
            with pytest.warns(ProcessWideWarning), stream:
                pass
        assert not stream.closed
        stream.close()
        assert stream.closed

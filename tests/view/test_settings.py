"""Settings of the standard library that exist once per process: ignored with a warning, or refused."""

import _thread
import csv
import faulthandler
import gc
import locale
import multiprocessing.forkserver
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import threading
import time
import zoneinfo
from collections.abc import Callable
from typing import Any

import pytest

from koupleless.context import Scope, entered
from koupleless.view.shared.process import ProcessWideWarning

resource = pytest.importorskip("resource")

MakeBiz = Callable[..., Scope]

pytestmark = pytest.mark.usefixtures("with_guards", "with_environ", "with_stdlib")

IGNORED: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "gc.disable()": (lambda: gc.disable(), gc.isenabled),  # noqa: PLW0108 - the present function, here and below
    "gc.freeze()": (lambda: gc.freeze(), gc.get_freeze_count),  # noqa: PLW0108
    "gc.set_threshold(7)": (lambda: gc.set_threshold(7), gc.get_threshold),
    "gc.set_debug(32)": (lambda: gc.set_debug(gc.DEBUG_SAVEALL), gc.get_debug),
    "sys.setswitchinterval(0.5)": (lambda: sys.setswitchinterval(0.5), sys.getswitchinterval),
    "sys.setdlopenflags(257)": (lambda: sys.setdlopenflags(257), sys.getdlopenflags),
    "sys.set_int_max_str_digits(0)": (lambda: sys.set_int_max_str_digits(0), sys.get_int_max_str_digits),
    "sys.set_int_max_str_digits(maxdigits=0)": (
        lambda: sys.set_int_max_str_digits(maxdigits=0),
        sys.get_int_max_str_digits,
    ),
    "threading.stack_size(262144)": (lambda: threading.stack_size(262144), threading.stack_size),
    "csv.field_size_limit(1)": (lambda: csv.field_size_limit(1), csv.field_size_limit),
    "faulthandler.disable()": (lambda: faulthandler.disable(), faulthandler.is_enabled),  # noqa: PLW0108
    "zoneinfo.reset_tzpath(['/'])": (lambda: zoneinfo.reset_tzpath(["/"]), lambda: zoneinfo.TZPATH),
    "locale.textdomain('own')": (lambda: locale.textdomain("own"), lambda: locale.textdomain(None)),
    "locale.bindtextdomain('own', '/')": (
        lambda: locale.bindtextdomain("own", "/"),
        lambda: locale.bindtextdomain("own", None),
    ),
    "multiprocessing.spawn.set_executable('own')": (
        lambda: multiprocessing.set_executable("own"),
        multiprocessing.spawn.get_executable,
    ),
    "multiprocessing.forkserver.set_forkserver_preload(['own'])": (
        lambda: multiprocessing.set_forkserver_preload(["own"]),
        lambda: list(multiprocessing.forkserver._forkserver._preload_modules),  # type: ignore[attr-defined]
    ),
    "signal.alarm(9999)": (lambda: signal.alarm(9999), lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 5000),
    "signal.setitimer(1, 9999)": (lambda: signal.setitimer(1, 9999), lambda: signal.getitimer(signal.ITIMER_VIRTUAL)),
    "resource.setrlimit": (
        lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        lambda: resource.getrlimit(resource.RLIMIT_CORE),
    ),
    "os.nice(1)": (lambda: os.nice(1), lambda: os.nice(0)),
    "os.setpriority(0, 0, 5)": (
        lambda: os.setpriority(os.PRIO_PROCESS, 0, 5),
        lambda: os.getpriority(os.PRIO_PROCESS, 0),
    ),
}
if sys.version_info >= (3, 15):
    IGNORED["sys.set_lazy_imports('all')"] = (lambda: sys.set_lazy_imports("all"), sys.get_lazy_imports)


@pytest.mark.parametrize("call", IGNORED)
def test_a_change_is_ignored_with_a_warning_that_names_the_biz_and_the_line(make_biz: MakeBiz, call: str) -> None:
    change, see = IGNORED[call]
    before = see()
    with entered(make_biz()), pytest.warns(ProcessWideWarning) as told:
        change()
    assert f"biz hello:1.0 called {call.partition('(')[0]}" in str(told[0].message)
    if "resource" not in call:
        assert f" {call.removesuffix(')')}" in str(told[0].message)  # 3.15 adds an argument of its own to one
    assert len(told) == 1
    if "multiprocessing" not in call:  # whose package calls it
        assert told[0].filename == __file__
    assert see() == before


def test_asking_for_what_is_set_needs_no_warning(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        gc.enable()
        gc.set_threshold(*gc.get_threshold())
        sys.setswitchinterval(sys.getswitchinterval())
        sys.set_int_max_str_digits(sys.get_int_max_str_digits())
        resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
        assert csv.field_size_limit() == 131072
        assert threading.stack_size() == 0
        assert os.nice(0) == os.nice(0)
        assert signal.setitimer(signal.ITIMER_VIRTUAL, 0) == (0.0, 0.0)
        os.setuid(os.getuid())
        time.tzset()


def test_the_time_zone_of_a_biz_that_differs_is_ignored(make_biz: MakeBiz) -> None:
    before = time.tzname
    with entered(make_biz()):
        os.environ["TZ"] = "Asia/Tokyo"
        with pytest.warns(ProcessWideWarning, match=r"time\.tzset\(\); the time zone"):
            time.tzset()
    assert time.tzname == before


def test_the_identity_of_the_process_is_refused(make_biz: MakeBiz) -> None:
    for call in (lambda: os.setuid(12345), lambda: os.setgid(12345), lambda: os.chroot("/"), lambda: os.setpgrp()):  # noqa: PLW0108
        with entered(make_biz()), pytest.raises(PermissionError, match=r"biz hello:1\.0 called os\..*was refused"):
            call()
    assert os.getuid() != 12345


REFUSED: dict[str, Callable[[], object]] = {
    "os._exit(3)": lambda: os._exit(3),
    "os.abort()": lambda: os.abort(),  # noqa: PLW0108 - the present function
    "os.execv": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "os.execve": lambda: os.execvpe(sys.executable, [sys.executable, "-c", ""], {}),
    "os.kill(": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "os.kill(0,": lambda: os.kill(0, signal.SIGTERM),
    "os.kill(-1,": lambda: os.kill(-1, signal.SIGTERM),
    "os.killpg(": lambda: os.killpg(os.getpgrp(), signal.SIGTERM),
    "signal.raise_signal(": lambda: signal.raise_signal(signal.SIGTERM),
    "signal.pthread_kill(": lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM),
    "_thread.interrupt_main()": lambda: _thread.interrupt_main(),  # noqa: PLW0108 - as above
    "os.closerange(3, 100)": lambda: os.closerange(3, 100),
    "os.close(2)": lambda: os.close(2),
    "os.dup2(2, 1)": lambda: os.dup2(2, 1),
    "os.setpgid(0, 0)": lambda: os.setpgid(0, 0),
}


@pytest.mark.parametrize("call", REFUSED)
def test_what_would_end_the_process_or_close_what_it_serves_with_is_refused(make_biz: MakeBiz, call: str) -> None:
    with entered(make_biz()), pytest.raises(PermissionError, match="was refused") as told:
        REFUSED[call]()
    assert f"biz hello:1.0 called {call}" in str(told.value)


def test_what_is_a_biz_s_own_it_may_close_and_end(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        one, other = os.pipe()
        os.dup2(one, other)
        os.dup2(fd=one, fd2=other, inheritable=False)
        os.close(one)
        os.close(other)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        os.kill(child.pid, 0)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(20) == -signal.SIGKILL
        child.communicate()
        os.kill(os.getpid(), 0)


def test_the_traceback_of_a_process_that_hangs_is_not_a_biz_s(make_biz: MakeBiz) -> None:
    for call in ("dump_traceback_later", "cancel_dump_traceback_later", "register", "unregister"):
        with entered(make_biz()), pytest.warns(ProcessWideWarning, match=rf"faulthandler\.{call}"):
            getattr(faulthandler, call)(10)


def test_no_signal_is_blocked_on_the_main_thread(make_biz: MakeBiz) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with entered(make_biz()), pytest.warns(ProcessWideWarning, match="pthread_sigmask"):
        assert signal.pthread_sigmask(how=signal.SIG_BLOCK, mask={signal.SIGUSR1}) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_module_may_mask_signals_in_its_threads(make_biz: MakeBiz) -> None:
    """As pools do while they start a process."""
    seen: list[Any] = []

    def work() -> None:
        with entered(make_biz()):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
            seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [{signal.SIGUSR1}]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="these functions came with 3.12")
def test_all_threads_are_traced_for_nobody(make_biz: MakeBiz) -> None:
    newer: Any = threading  # than the oldest Python that mypy is told of
    with entered(make_biz()), pytest.warns(ProcessWideWarning, match="settrace_all_threads"):
        newer.settrace_all_threads(print)
    assert threading.gettrace() is not print


def test_the_base_changes_what_it_likes() -> None:
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(0.25)
        assert sys.getswitchinterval() == 0.25
    finally:
        sys.setswitchinterval(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_process_that_a_biz_forks_is_its_own(make_biz: MakeBiz) -> None:
    def work() -> Any:
        gc.disable()
        os.setsid()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        return not gc.isenabled() and os.getsid(0) == os.getpid() and signal.getsignal(signal.SIGUSR1)

    with entered(make_biz()):
        child = os.fork()
        if not child:
            try:
                os._exit(0 if work() else 1)
            finally:
                os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert gc.isenabled()

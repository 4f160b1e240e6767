"""What belongs to threads and to the process: child processes, signals, tracing, values per thread, settings."""

from __future__ import annotations

import _thread
import decimal
import locale
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ownership.conftest import Trial


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed running multiprocessing pool")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_processes_and_pools_it_started(trial: Trial) -> None:
    mine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    report = trial(
        """
        import multiprocessing, subprocess, sys, time
        context = multiprocessing.get_context("spawn")
        pool = context.Pool(1)
        process = context.Process(target=time.sleep, args=(600,), daemon=True)
        process.start()
        shared.pids.extend([process.pid, *[worker.pid for worker in pool._pool]])
        pool.k = process.k = K
        """,
        pids=[],
    )
    assert report.clean
    assert len(trial.shared.pids) == 2
    for pid in trial.shared.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert mine.poll() is None
    mine.communicate(b"\n")
    assert mine.returncode == 0


@pytest.mark.parametrize("daemon", [True, False])
def test_a_process_whose_end_somebody_else_has_awaited(trial: Trial, daemon: bool) -> None:
    """``multiprocessing`` takes such a process for one that runs, and keeps it."""
    report = trial(
        f"""
        import multiprocessing, os
        process = multiprocessing.get_context("spawn").Process(target=int, daemon={daemon})
        process.start()
        process.k = K
        os.waitpid(process.pid, 0)
        """
    )
    assert report.clean, report.summary()


# --- signals and tracing ---------------------------------------------------------------------------------------------


def test_signal_handlers_and_what_else_is_the_whole_process_s(trial: Trial) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    trial(
        """
        import signal, warnings
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            signal.signal(signal.SIGUSR1, reach)
        assert "signal.signal" in str(seen[0].message), seen
        """
    )
    assert signal.getsignal(signal.SIGUSR1) is before


@pytest.mark.parametrize("name", ["profile", "trace"])
def test_tracing_of_the_base_s_loop_ends_with_the_module(trial: Trial, name: str) -> None:
    function, restore = getattr(sys, f"get{name}"), getattr(sys, f"set{name}")
    before = trial.on_loop(function)
    trial.on_loop(lambda: restore(None))  # a measurement of coverage
    try:
        trial(f"import sys\nasync def main():\n    sys.set{name}(lambda *_: K and None)\n")
        assert trial.on_loop(function) is None
    finally:
        trial.on_loop(lambda: restore(before))


@pytest.mark.parametrize("name", ["profile", "trace"])
def test_tracing_of_the_base_stays(trial: Trial, name: str) -> None:
    def mine(*_: object) -> None:
        return None

    before = trial.on_loop(getattr(sys, f"get{name}"))
    trial.on_loop(lambda: getattr(sys, f"set{name}")(mine))
    try:
        trial(f"import sys\nasync def main():\n    assert sys.get{name}() is not None\n")
        assert trial.on_loop(getattr(sys, f"get{name}")) is mine
    finally:
        trial.on_loop(lambda: getattr(sys, f"set{name}")(before))


# --- values per thread -----------------------------------------------------------------------------------------------


def test_values_in_a_thread_local_of_the_base(trial: Trial) -> None:
    class Sub(threading.local):
        pass

    mine: Any = threading.local()
    sub: Any = Sub()
    mine.value = sub.value = 1

    def fill() -> None:
        mine.other = sub.other = 2

    trial.on_loop(fill)
    trial(
        """
        async def main():
            for local in (shared.mine, shared.sub):
                local.k, local.f, local.other = K(), reach, 3
        """,
        mine=mine,
        sub=sub,
    )
    assert (vars(mine), vars(sub)) == ({"value": 1}, {"value": 1})
    assert trial.on_loop(lambda: (vars(mine), vars(sub))) == ({"other": 3}, {"other": 3})


def test_low_level_locks_and_threads(trial: Trial) -> None:
    ended = threading.Event()
    lock = _thread.allocate_lock()
    with lock:
        trial("import _thread\n_thread.start_new_thread(lambda: (K, shared.ended.set()), ())\n", ended=ended)
    assert ended.wait(30)


# --- settings of the process -----------------------------------------------------------------------------------------


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


SETTINGS: dict[str, tuple[Callable[[], object], str]] = {
    "an environment variable": (lambda: os.environ.get("ROW"), "os.environ['ROW'] = 'x'"),
    "the working directory": (os.getcwd, "os.chdir('/')"),
    "the mask of new files": (umask, "os.umask(0o777)"),
    "the locale": (lambda: locale.setlocale(locale.LC_ALL), "locale.setlocale(locale.LC_ALL, 'C')"),
    "the default timeout": (socket.getdefaulttimeout, "socket.setdefaulttimeout(7.0)"),
    "the recursion limit": (sys.getrecursionlimit, "sys.setrecursionlimit(4321)"),
    "the decimal context": (lambda: decimal.getcontext().prec, "decimal.getcontext().prec = 5"),
    "arguments": (lambda: list(sys.argv), "sys.argv.append('row')"),
    "the search path": (lambda: list(sys.path), "sys.path.append('/row')"),
}


@pytest.mark.parametrize(("read", "change"), SETTINGS.values(), ids=list(SETTINGS))
def test_settings_of_the_process_stay_as_the_base_has_them(
    trial: Trial, read: Callable[[], object], change: str
) -> None:
    before = read()
    modules = "decimal, locale, os, socket, sys, warnings"
    guarded = f"    try:\n        {change}\n    except (OSError, RuntimeWarning):\n        pass\n"
    source = f"import {modules}\nwith warnings.catch_warnings(record=True):\n{guarded}"
    identity = trial.install(source)
    assert read() == before
    report = trial.leave(identity)
    assert report.clean, report.summary()
    assert read() == before


def test_a_random_generator_of_its_own_is_no_trace(trial: Trial) -> None:
    state = random.getstate()
    trial("import random\nr = random.Random(1)\nr.random()\nr.k = K")
    assert random.getstate() == state

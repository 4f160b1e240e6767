"""A program that is run as a biz ends as it does alone: what it prints, in which order, when, and with which status."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import unmeasured

from koupleless.suite.inside import Order

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = {
    "falls off its end": "print('end')",
    "exit functions, last first": """
        import atexit, threading
        for number in range(3):
            atexit.register(print, "exit", number, threading.current_thread() is threading.main_thread(), flush=True)
    """,
    "an exit function that fails": """
        import atexit
        atexit.register(print, "later", flush=True)
        atexit.register(lambda: 1 / 0)
    """,
    "an exit function that registers another, and one that was taken back": """
        import atexit
        atexit.register(lambda: atexit.register(print, "another", flush=True))
        atexit.register(print, "never")
        atexit.unregister(print)
    """,
    "a thread that takes its time, then exit functions": """
        import atexit, threading, time
        atexit.register(print, "exit", flush=True)
        threading.Thread(target=lambda: time.sleep(0.4) or print("thread", flush=True)).start()
        print("main", flush=True)
    """,
    "a timer": "import threading; threading.Timer(0.3, print, ['rung'], {'flush': True}).start()",
    "a daemon that never ends": """
        import threading, time
        threading.Thread(target=lambda: [time.sleep(0.05) for _ in iter(int, 1)], daemon=True).start()
        print("main")
    """,
    "a daemon in C code": """
        import socket, threading, time
        ours, theirs = socket.socketpair()
        threading.Thread(target=ours.recv, args=(1,), daemon=True).start()
        time.sleep(0.1)
    """,
    "a thread of _thread": "import _thread, time; _thread.start_new_thread(time.sleep, (60,)); time.sleep(0.1)",
    "an event loop in a daemon": """
        import asyncio, threading
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(60), loop)
    """,
    "an executor with work that waits": """
        import atexit, time
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        for number in range(3):
            pool.submit(lambda number=number: time.sleep(0.1) or print("done", number, flush=True))
        atexit.register(print, "exit", flush=True)
    """,
    "a pool of processes": """
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        print(pool.submit(abs, -5).result(), flush=True)
    """,
    "children of multiprocessing, one of them a daemon": """
        import atexit, multiprocessing, time
        context = multiprocessing.get_context("fork")
        def work(seconds, text):
            time.sleep(seconds)
            print(text, flush=True)
        context.Process(target=work, args=(0.3, "child")).start()
        context.Process(target=work, args=(60, "never"), daemon=True).start()
        atexit.register(print, "exit", flush=True)
    """,
    "a child that goes on": """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        print("main")
    """,
    "a finaliser": """
        import weakref
        class Thing: pass
        thing = Thing()
        weakref.finalize(thing, print, "final", flush=True)
    """,
    "a generator and an object that are left": """
        class Thing:
            def __del__(self): print("deleted", flush=True)
        thing = Thing()
        def generate():
            try:
                yield 1
            finally:
                print("closed", flush=True)
        left = generate()
        next(left)
    """,
    "os._exit": "import atexit, os; atexit.register(print, 'never'); os._exit(5)",
    "os._exit in an exit function": "import atexit, os; atexit.register(os._exit, 6)",
    "os.abort": "import os; os.abort()",
    "a status": "import sys; sys.exit(7)",
    "a large status": "import sys; sys.exit(256 + 3)",
    "a text": "import sys; sys.exit('that is all')",
    "no status": "raise SystemExit",
    "an error": "def f():\\n    raise ValueError('no')\\nf()",
    "an error and a hook": "import sys; sys.excepthook = lambda *a: print('hook', a[0].__name__); 1 / 0",
    "an interrupt": "raise KeyboardInterrupt",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "an error in a thread": "import threading; threading.Thread(target=lambda: 1 / 0).start()",
    "an exit in a thread": "import sys, threading; threading.Thread(target=sys.exit, args=(4,)).start()",
    "output that is not flushed": "import sys; sys.stdout.write('no line end')",
    "logging": """
        import logging.handlers
        target = logging.StreamHandler(open(1, "w", closefd=False))
        logging.getLogger().addHandler(logging.handlers.MemoryHandler(100, target=target))
        logging.getLogger().warning("kept until the end")
    """,
}


def start(directory: Path, *, is_inside: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "-P"]
    if is_inside:
        order = Order("program", (str(directory),), scratch=str(directory / "scratch"))
        command += ["-m", "koupleless.suite.inside", order.as_text()]
    return subprocess.Popen(
        [*command, "program.py"],
        cwd=directory,
        env=unmeasured(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def errors(text: str) -> list[str]:
    """The last lines of tracebacks and what else is said: the files that a traceback goes through are not compared."""
    lines = re.sub(r"0x[0-9a-f]+", "0x", text).splitlines()
    return [line for line in lines if not line.startswith((" ", "Traceback"))]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_as_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAMS[name]).replace("\\n", "\n"))
    results = []
    for is_inside in (False, True):
        began = time.monotonic()
        with start(tmp_path, is_inside=is_inside) as process:
            said, failed = process.communicate(timeout=30)
        results.append((process.returncode, said, errors(failed)))
        assert time.monotonic() - began < 20
    assert results[1] == results[0]


@pytest.mark.parametrize(
    "program",
    [
        "import threading; threading.Thread(target=threading.Event().wait).start()",
        "from concurrent.futures import ThreadPoolExecutor as P; import time; P(1).submit(time.sleep, 60)",
        "import atexit, time; atexit.register(time.sleep, 60)",
    ],
    ids=["thread", "executor", "exit function"],
)
def test_what_never_ends_alone_does_not_end_inside(tmp_path: Path, program: str) -> None:
    (tmp_path / "program.py").write_text(program + "\nprint('end', flush=True)\n")
    for is_inside in (False, True):
        with start(tmp_path, is_inside=is_inside) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "end\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
            process.kill()

"""A child that a module forks in the middle of what the base runs for it ends with the module's code."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from tests.conftest import until

from koupleless.artifact.build import Options, build_file

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

MODULE = """
import asyncio, os, sys
from http.server import BaseHTTPRequestHandler

CHILDREN = []

def forks():
    pid = os.fork()
    if pid == 0:
        os.write(OUT, b"child ")
        {child}
    else:
        CHILDREN.append(pid)
    return pid

async def awaits():
    if forks() == 0:
        await asyncio.sleep(0)
        os.write(OUT, b"went on")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError
    {how}
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": str(CHILDREN[0]).encode()}})
"""


@pytest.fixture
def ask(world, tmp_path):
    """``ask(how, child)``: what the child wrote, and how it ended."""

    def run(how, child="pass"):
        out, into = os.pipe()
        path = tmp_path / "forking.py"
        path.write_text(MODULE.format(how=how, child=child).replace("OUT", str(into)))
        artefact = build_file(path, Options(out=tmp_path / "out")).path
        world.container.install(world.container.prepare(str(artefact)))
        pid = int(world.get("/forking/").text)
        os.close(into)
        try:
            _, status = until(lambda: [ended for ended in [os.waitpid(pid, os.WNOHANG)] if ended[0]])[0]
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        with os.fdopen(out, "rb") as reader:
            return reader.read().decode(), os.waitstatus_to_exitcode(status)

    return run


@pytest.mark.parametrize(
    ("how", "child", "expected"),
    [
        ("forks()", "pass", ("child ", 0)),
        ("forks()", "sys.exit(7)", ("child ", 7)),
        ("forks()", "sys.exit('words')", ("child ", 1)),
        ("forks()", "raise LookupError('in the child')", ("child ", 1)),
        ("forks()", "os._exit(9)", ("child ", 9)),
        ("await awaits()", "pass", ("child ", 0)),
        ("asyncio.get_running_loop().call_soon(forks); await asyncio.sleep(0.05)", "pass", ("child ", 0)),
        ("task = asyncio.create_task(awaits()); await asyncio.sleep(0.05)", "pass", ("child ", 0)),
        ("await asyncio.to_thread(forks)", "pass", ("child ", 0)),
        ("forks()", "os.fork() and os.write(OUT, b'parent ')", ("child parent ", 0)),
        ("forks()", "[os.write(OUT, b'x ') for _ in range(3)]", ("child x x x ", 0)),
    ],
)
def test_a_child_ends_where_the_code_of_the_module_does(ask, how, child, expected):
    assert ask(how, child) == expected


def test_a_signal_ends_the_child_and_says_nothing_to_the_parent(ask):
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the handler of the base"))
    try:
        waits = "import time; time.sleep(30)"
        killer = "threading.Timer(0.2, os.kill, (CHILDREN[0], 15)).start()"
        assert ask(f"import threading; forks(); {killer}", waits) == ("child ", -signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_processes_of_multiprocessing_are_as_ever(world, tmp_path):
    path = tmp_path / "pooling.py"
    path.write_text(
        "import multiprocessing\n"
        "def square(number): return number * number\n"
        "def app(environ, start_response):\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "        found = pool.map(square, range(4))\n"
        "    start_response('200 OK', [])\n"
        "    return [str(found).encode()]\n"
    )
    artefact = build_file(path, Options(out=tmp_path / "out")).path
    world.container.install(world.container.prepare(str(artefact)))
    assert world.get("/pooling/").text == "[0, 1, 4, 9]"
    assert threading.active_count() > 0

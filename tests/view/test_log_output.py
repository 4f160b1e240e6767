"""Output and requests of a module in its log."""

# ruff: noqa: T201 - output is the subject

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from koupleless.context import Scope, call_as, entered
from koupleless.view.logging.logbook import Logbook
from koupleless.view.logging.logs import LogSpace
from koupleless.view.logging.requests import logged
from koupleless.view.logging.streams import STREAMS

MakeBiz = Callable[..., Scope]


pytestmark = pytest.mark.usefixtures("with_logs")


@contextlib.contextmanager
def copied(scope: Scope) -> Iterator[None]:
    """Run as a module whose output is copied; the streams are those of the moment, which capture output."""
    STREAMS.acquire()
    try:
        with entered(scope):
            yield
    finally:
        STREAMS.release()


def said(path: Path) -> list[str]:
    """The lines of a log from the level on."""
    return [line.split(" ", 2)[2] for line in path.read_text().splitlines()]


def test_what_a_module_prints_is_in_its_log_as_whole_lines_and_goes_where_it_went(
    make_biz: MakeBiz, tmp_path: Path, capsys: Any
) -> None:
    log = tmp_path / "x.log"
    with copied(make_biz(file=log)):
        print("one", 2)
        print("begun, ", end="")
        sys.stderr.write("an error\nand ")
        print("ended")
        print("no end", end="")
    print("of the base")
    lines = said(log)
    assert lines[:3] == [
        "INFO hello:1.0 stdout: one 2",
        "WARNING hello:1.0 stderr: an error",
        "INFO hello:1.0 stdout: begun, ended",
    ]
    assert len([line for line in lines if "of the base" in line]) == 0
    out = capsys.readouterr()
    assert out.out == "one 2\nbegun, ended\nno endof the base\n"
    assert out.err.startswith("an error\nand ")


def test_two_threads_of_a_module_do_not_mix_their_lines(make_biz: MakeBiz, tmp_path: Path) -> None:
    log, scope, turn = tmp_path / "x.log", make_biz(file=tmp_path / "x.log"), threading.Barrier(2)

    def write(name: str) -> None:
        for part in (name, name, "\n"):
            turn.wait(10)
            sys.stdout.write(part)

    threads = [threading.Thread(target=call_as, args=(scope, write, name)) for name in "ab"]
    with copied(scope):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted(said(log)) == ["INFO hello:1.0 stdout: aa", "INFO hello:1.0 stdout: bb"]


def test_a_line_without_end_is_written_when_the_module_leaves(make_biz: MakeBiz, tmp_path: Path) -> None:
    scope = make_biz(file=tmp_path / "x.log")
    with copied(scope):
        print("waiting", end="")
    assert not (tmp_path / "x.log").exists()
    scope.facet(LogSpace).close()
    scope.facet(LogSpace).close()
    assert said(tmp_path / "x.log") == ["INFO hello:1.0 stdout: waiting"]


def test_a_line_without_end_is_cut(make_biz: MakeBiz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koupleless.view.logging.logspace._LONGEST", 10)
    with copied(make_biz(file=tmp_path / "x.log")):
        for _ in range(5):
            sys.stdout.write("12345")
    assert [line.rsplit(" ", 1)[1] for line in said(tmp_path / "x.log")] == ["123451234512345"]


@pytest.mark.parametrize("has_queue", [False, True])
def test_a_record_that_a_handler_of_the_module_writes_to_stderr_is_in_the_log_once(
    make_biz: MakeBiz, tmp_path: Path, capsys: Any, has_queue: bool
) -> None:
    scope = make_biz(file=tmp_path / "x.log")

    def configure() -> None:
        logging.basicConfig(level=logging.INFO)
        logging.getLogger("app").info("once")

    with copied(scope):
        configure()
        if has_queue:
            handler = scope.facet(LogSpace).root.handlers[0]
            record = logging.makeLogRecord({"msg": "by a listener"})
            thread = threading.Thread(target=call_as, args=(scope, handler.handle, record))
            thread.start()
            thread.join(10)
    assert said(tmp_path / "x.log") == ["INFO hello:1.0 app: once"]
    assert capsys.readouterr().err.count("once") == 1


def test_a_logger_that_propagates_nothing_is_in_the_log_too(keeping: Any, make_biz: MakeBiz, tmp_path: Path) -> None:
    with entered(make_biz(file=tmp_path / "x.log")):
        logger = logging.getLogger("apart")
        logger.propagate = False
        logger.addHandler(keeping())
        logger.warning("x")
    assert said(tmp_path / "x.log") == ["WARNING hello:1.0 apart: x"]


def test_without_a_file_output_is_as_ever(make_biz: MakeBiz, capsys: Any) -> None:
    with copied(make_biz()):
        print("x")
    assert capsys.readouterr().out == "x\n"


def test_the_streams_are_as_before_afterwards(make_biz: MakeBiz, capsys: Any) -> None:
    with copied(make_biz()):
        assert "write" in vars(sys.stdout)
    assert "write" not in vars(sys.stdout)


# --- requests -----------------------------------------------------------------------------------------------------

CONNECTION = {
    "type": "http", "method": "GET", "path": "/shop/a b", "raw_path": b"/shop/a%20b", "query_string": b"q=\xff",
    "client": ("10.0.0.7", 1234), "http_version": "1.1",
}  # fmt: skip


def ask(app: Any, space: LogSpace, connection: Any = CONNECTION) -> list[Any]:
    """The messages of an application that is asked once."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(logged(app, space)(connection, None, send))
    return sent


async def hello(connection: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


def without_time(line: str) -> str:
    return line.rsplit(" ", 2)[0]


def test_a_request_has_one_line_with_status_and_time(make_biz: MakeBiz, tmp_path: Path) -> None:
    space = make_biz(file=tmp_path / "x.log").facet(LogSpace)
    assert [message["type"] for message in ask(hello, space)] == ["http.response.start", "http.response.body"]
    ask(hello, space, {"type": "http", "method": "GET", "path": "/a\nb", "client": None})
    lines = said(tmp_path / "x.log")
    assert lines[0].endswith(" ms")
    assert [without_time(line) for line in lines] == [
        'INFO hello:1.0 access: 10.0.0.7:1234 "GET /shop/a%20b?q=\\xff HTTP/1.1" 201',
        'INFO hello:1.0 access: -:0 "GET /a%0Ab HTTP/1.1" 201',
    ]


def test_a_failed_request_is_there_with_its_traceback(make_biz: MakeBiz, tmp_path: Path) -> None:
    async def failing(connection: Any, receive: Any, send: Any) -> None:
        raise LookupError("nothing there")

    space = make_biz(file=tmp_path / "x.log").facet(LogSpace)
    with pytest.raises(LookupError):
        ask(failing, space)
    text = (tmp_path / "x.log").read_text()
    assert "ERROR hello:1.0 requests: GET /shop/a%20b?q=\\xff failed\nTraceback (most recent call last):\n" in text
    assert "in failing\n" in text
    assert "LookupError: nothing there\n" in text
    assert "noted" not in text
    assert without_time(said(tmp_path / "x.log")[-1]).endswith(" 500")


def test_a_request_that_is_given_up_and_a_websocket_have_a_status(make_biz: MakeBiz, tmp_path: Path) -> None:
    async def cancelled(connection: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    async def accepting(connection: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def refusing(connection: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    space = make_biz(file=tmp_path / "x.log").facet(LogSpace)
    with pytest.raises(asyncio.CancelledError):
        ask(cancelled, space)
    ask(accepting, space, {"type": "websocket", "path": "/ws"})
    ask(refusing, space, {"type": "websocket", "path": "/ws"})
    assert [without_time(line).split('"')[1:] for line in said(tmp_path / "x.log")] == [
        ["GET /shop/a%20b?q=\\xff HTTP/1.1", " 499"],
        ["WebSocket /ws HTTP/1.1", " 101"],
        ["WebSocket /ws HTTP/1.1", " 403"],
    ]


def test_without_an_access_log_errors_are_there_alone(make_biz: MakeBiz, tmp_path: Path) -> None:
    scope = make_biz()
    space = LogSpace(scope, Logbook(has_access=False), file=tmp_path / "x.log")
    ask(hello, space)
    assert not (tmp_path / "x.log").exists()
    space.close()


def test_without_a_file_an_application_is_served_as_it_is(make_biz: MakeBiz) -> None:
    assert logged(hello, make_biz().facet(LogSpace)) is hello

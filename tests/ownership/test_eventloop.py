from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import re
import socket
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
import uvicorn.server
import uvloop
from tests.conftest import until

from koupleless.context import current, entered
from koupleless.recorders.loops.eventloop import adopt_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ownership.conftest import LoopThread, MakeBiz, TinyBiz


VALUE: contextvars.ContextVar[object] = contextvars.ContextVar("VALUE")


def start(loop: LoopThread, biz: TinyBiz, source: str, **given: Any) -> None:
    """Run a module as the biz on the loop's thread."""

    def run() -> None:
        biz.run(source, asyncio=asyncio, **given)

    loop.run(run, scope=biz.scope)


def test_a_pending_task_is_cancelled_and_awaited(biz: TinyBiz, loop: LoopThread) -> None:
    ended: list[Any] = []
    start(
        loop,
        biz,
        """
        async def wait():
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0)
                ended.append(reach().__name__)
        task = asyncio.get_running_loop().create_task(wait())
        """,
        ended=ended,
    )
    report = biz.leave()
    assert report.clean, report
    assert ended == ["K"]
    assert report.undone["asyncio task"] == 1


def test_tasks_of_the_base_go_on(biz: TinyBiz, loop: LoopThread) -> None:
    release = loop.run(make_event)
    mine = loop.run(make_task, release.wait)
    start(loop, biz, "task = asyncio.ensure_future(asyncio.sleep(3600))")
    biz.leave()
    loop.run(release.set)

    async def result() -> Any:
        return await mine

    assert loop.run(result) is True


def call_later(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    loop.call_later(0.1, function)


async def make_event() -> Any:
    return asyncio.Event()


async def make_task(function: Any) -> Any:
    return asyncio.ensure_future(function())


async def cancel_others() -> None:
    """Cancel every task of the loop but this, and wait until they have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def is_idle() -> bool:
    """Whether nothing but this is left to do on the loop."""
    return asyncio.all_tasks() == {asyncio.current_task()}


def test_what_it_wants_to_do_at_the_end_of_a_task_of_the_base_is_forgotten(biz: TinyBiz, loop: LoopThread) -> None:
    """As anyio does, in a context of nobody's, with the task that runs the server."""
    module = biz.run(
        """
        import contextvars
        def wait_for(task):
            task.add_done_callback(reach, context=contextvars.Context())
        """
    )
    ended: list[object] = []

    async def of_base() -> asyncio.Task[None]:
        task = asyncio.create_task(asyncio.sleep(600))
        task.add_done_callback(ended.append)
        return task

    task = loop.run(of_base)
    loop.run(module.wait_for, task, scope=biz.scope)
    del module
    report = biz.leave()
    assert report.clean, report.summary()
    assert report.undone["done callback"] == 1

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    loop.run(end)
    assert ended == [task]


def test_a_task_that_ended_costs_nothing_at_the_end(biz: TinyBiz, loop: LoopThread) -> None:
    start(loop, biz, "task = asyncio.ensure_future(asyncio.sleep(0))")
    until(lambda: loop.run(is_idle))
    report = biz.leave()
    assert report.clean, report
    assert report.undone == {}


@pytest.mark.parametrize(
    "call", ["call_later(3600, reach)", "call_at(asyncio.get_running_loop().time() + 3600, reach)"]
)
def test_a_timer_handle_is_cancelled(biz: TinyBiz, loop: LoopThread, call: Any) -> None:
    start(loop, biz, f"asyncio.get_running_loop().{call}")
    report = biz.leave()
    assert report.clean, report
    assert report.undone == {"loop timer": 1}


def test_a_timer_of_the_base_still_fires(biz: TinyBiz, loop: LoopThread) -> None:
    fired = threading.Event()
    loop.run(functools.partial(call_later, loop.loop, fired.set))
    start(loop, biz, "asyncio.get_running_loop().call_later(3600, reach)")
    biz.leave()
    assert fired.wait(5)


def test_a_cancelled_timer_does_not_keep_the_context_it_was_made_in(biz: TinyBiz, loop: LoopThread) -> None:
    start(
        loop,
        biz,
        """
        VALUE.set(K())
        asyncio.get_running_loop().call_later(3600, reach).cancel()
        """,
        VALUE=VALUE,
    )
    report = biz.leave()
    assert report.clean, report


def test_what_call_soon_scheduled_has_run(biz: TinyBiz, loop: LoopThread) -> None:
    start(loop, biz, "asyncio.get_running_loop().call_soon(reach)\nasyncio.ensure_future(asyncio.sleep(0))")
    report = biz.leave()
    assert report.clean, report


def test_an_exception_handler_gives_way_to_the_one_before(biz: TinyBiz, make_biz: MakeBiz, loop: LoopThread) -> None:
    def own(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        pass

    other = make_biz("other")
    loop.run(loop.loop.set_exception_handler, own)
    start(loop, biz, "asyncio.get_running_loop().set_exception_handler(reach)")
    start(loop, other, "asyncio.get_running_loop().set_exception_handler(reach)")
    last = weakref.ref(loop.loop.get_exception_handler())
    assert biz.leave().clean
    assert loop.loop.get_exception_handler() is last()
    report = other.leave()
    assert report.clean, report
    assert loop.loop.get_exception_handler() is own


def test_a_reader_is_removed(biz: TinyBiz, loop: LoopThread) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        start(loop, biz, "asyncio.get_running_loop().add_reader(fd, reach)", fd=ours.fileno())
        report = biz.leave()
        assert report.clean, report
        assert report.undone == {"transport": 1}


def test_servers_and_connections_are_closed(biz: TinyBiz, loop: LoopThread) -> None:
    start(loop, biz, "pass")
    module = next(iter(biz.modules.values()))
    exec(
        """
class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        reach()

async def open_both():
    global server, transport
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(Echo, *server.sockets[0].getsockname())
""",
        module.__dict__,
    )
    loop.run(module.open_both, scope=biz.scope)
    del module
    report = biz.leave()
    assert report.held == (), report
    assert report.failures == ()
    assert report.undone["transport"] >= 2


def test_what_concerns_the_whole_loop_is_ignored_with_a_warning_that_names_the_biz(
    biz: TinyBiz, loop: LoopThread
) -> None:
    with pytest.warns(
        RuntimeWarning, match=r"biz tiny:1\.0 called set_task_factory of the event loop, which all modules share"
    ):
        start(loop, biz, "asyncio.get_running_loop().set_task_factory(reach)")
    assert loop.loop.get_task_factory() is None
    with pytest.warns(RuntimeWarning, match="add_signal_handler"):
        start(loop, biz, "asyncio.get_running_loop().add_signal_handler(12, reach)")
    assert biz.leave().clean


def test_the_default_executor_is_the_base_s_whoever_is_first_to_use_it(biz: TinyBiz, loop: LoopThread) -> None:
    async def work() -> Any:
        return await asyncio.to_thread(current)

    assert loop.run(work, scope=biz.scope) is biz.scope
    report = biz.leave()
    assert report.clean, report
    assert loop.run(work) is None


def test_tasks_that_a_task_makes_belong_to_the_same_biz(biz: TinyBiz, loop: LoopThread) -> None:
    runs = threading.Event()
    start(
        loop,
        biz,
        """
        async def inner():
            runs.set()
            await asyncio.sleep(3600)
        async def outer():
            global child
            child = asyncio.ensure_future(inner())
        task = asyncio.ensure_future(outer())
        """,
        runs=runs,
    )
    assert runs.wait(30)
    report = biz.leave()
    assert report.clean, report
    assert report.undone["asyncio task"] == 1


def test_a_blocked_loop_is_reported_within_the_deadline(biz: TinyBiz, loop: LoopThread) -> None:
    start(loop, biz, "asyncio.get_running_loop().call_later(3600, reach)")
    release = threading.Event()
    loop.loop.call_soon_threadsafe(release.wait, 10)
    failures = biz.undo(0.1)
    release.set()
    assert {failure.reason for failure in failures} == {"the event loop did not take its turn in time"}


def test_leaving_on_the_loop_s_own_thread_is_reported_instead_of_blocking(biz: TinyBiz, loop: LoopThread) -> None:
    start(loop, biz, "asyncio.get_running_loop().call_later(3600, reach)")
    failures = loop.run(lambda: biz.undo(1))
    assert "cannot be awaited on the thread of its own event loop" in {failure.reason for failure in failures}


def test_a_closed_loop_needs_no_undoing(biz: TinyBiz) -> None:
    loop = asyncio.new_event_loop()
    adopt_loop(loop)

    async def schedule() -> Any:
        biz.run("asyncio.get_running_loop().call_later(3600, reach)", asyncio=asyncio)

    loop.run_until_complete(schedule())
    loop.close()
    report = biz.leave()
    assert report.failures == ()


def test_a_loop_that_does_not_run_has_its_timers_cancelled(biz: TinyBiz) -> None:
    loop = asyncio.new_event_loop()
    adopt_loop(loop)

    async def schedule() -> Any:
        biz.run("asyncio.get_running_loop().call_later(3600, reach)", asyncio=asyncio)

    loop.run_until_complete(schedule())
    report = biz.leave()
    assert report.clean, report
    loop.close()


def test_the_last_release_puts_the_methods_back(loop: LoopThread) -> None:
    again = adopt_loop(loop.loop)
    assert again is loop.adoption
    again.release()
    assert "call_later" in vars(loop.loop)
    loop.adoption.release()
    assert not {"call_later", "create_task", "add_reader", "_koupleless_adoption"} & set(vars(loop.loop))
    loop.adoption = adopt_loop(loop.loop)


def test_an_adoption_does_not_keep_a_loop_alive() -> None:
    loop = asyncio.new_event_loop()
    adopt_loop(loop)
    loop.close()
    reference = weakref.ref(loop)
    del loop
    gc.collect()
    assert reference() is None


HELLO = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_the_server_s_keep_alive_timer_and_next_request_are_not_the_biz_s(
    biz: TinyBiz, loop: LoopThread, http: str
) -> None:
    module = biz.run(HELLO)
    seen: list[Any] = []
    apps = [module.app, module.app]
    del module

    async def front(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current())
        with entered(biz.scope):
            await apps.pop()(scope, receive, send)

    config = uvicorn.Config(front, http=http, lifespan="off", log_config=None, timeout_keep_alive=1)
    config.load()
    protocol = config.http_protocol_class

    async def ask() -> bytes:
        state = uvicorn.server.ServerState()
        here = asyncio.get_running_loop()
        server = await here.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)  # type: ignore[call-arg]
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        answer = b""
        while answer.count(b"ok") < 2:
            answer += await reader.read(1000)
        await asyncio.to_thread(biz.undo)
        answer += await asyncio.wait_for(reader.read(), 10)  # the end: the keep-alive timer has closed the connection
        writer.close()
        server.close()
        return answer

    assert loop.run(ask).count(b"200 OK") == 2
    assert seen == [None, None]
    assert biz.ledger.undone == {}
    report = biz.leave()
    assert report.clean, report.summary()


# --- what would end the loop ------------------------------------------------------------------------------------------

EXITS = {
    "task": "keep = asyncio.ensure_future(later())",
    "a task that asyncio is asked for": "keep = asyncio.Task(later(), loop=asyncio.get_running_loop())",
    "callback": "asyncio.get_running_loop().call_soon(end)",
    "timer": "asyncio.get_running_loop().call_later(0.001, end)",
    "from a thread": "threading.Thread(target=asyncio.get_running_loop().call_soon_threadsafe, args=(end,)).start()",
    "future": "keep = asyncio.get_running_loop().create_future(); keep.add_done_callback(end); keep.set_result(0)",
    "reader": "asyncio.get_running_loop().add_reader(ready, end)",
}


@pytest.mark.parametrize("raised", ["sys.exit(5)", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("kind", EXITS)
def test_what_ends_a_program_does_not_end_the_loop_and_is_told(
    biz: TinyBiz, loop: LoopThread, caplog: pytest.LogCaptureFixture, kind: str, raised: str
) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.send(b"x")
        start(
            loop,
            biz,
            f"""
            def end(*_):
                asyncio.get_running_loop().remove_reader(ready)
                {raised}
            async def later():
                end()
            {EXITS[kind]}
            """,
            sys=sys,
            threading=threading,
            ready=here.fileno(),
        )
        (record,) = until(lambda: [each for each in caplog.records if each.name == "koupleless"])
    call = "called sys.exit(5)" if "sys" in raised else "raised KeyboardInterrupt"
    said = rf"biz {biz.scope.biz} {re.escape(call)} on the shared event loop, at /biz/\S+:\d+; the base goes on"
    assert re.fullmatch(said, record.getMessage()), record.getMessage()
    assert loop.run(lambda: "goes on") == "goes on"
    biz.leave()


PROTOCOLS = {
    "factory": "def __init__(self):",
    "connection_made": "def connection_made(self, transport):",
    "data_received": "def data_received(self, data):",
    "eof_received": "def eof_received(self):",
    "connection_lost": "def connection_lost(self, error):",
    "get_buffer": "def get_buffer(self, hint):",
    "buffer_updated": "def get_buffer(self, hint): return bytearray(9)\n            def buffer_updated(self, count):",
}


@pytest.mark.parametrize("raised", ["sys.exit(5)", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("kind", PROTOCOLS)
def test_what_ends_a_program_in_a_protocol_ends_its_connection(
    biz: TinyBiz, loop: LoopThread, caplog: pytest.LogCaptureFixture, kind: str, raised: str
) -> None:
    """Loops call protocols from elsewhere, and asyncio calls one again that left its connection as it was."""
    listening = socket.create_server(("127.0.0.1", 0))
    start(
        loop,
        biz,
        f"""
        def end():
            {raised}
        class Protocol(asyncio.{"BufferedProtocol" if "buffer" in kind else "Protocol"}):
            {PROTOCOLS[kind]}
                end()
        async def serve():
            global server
            server = await asyncio.get_running_loop().create_server(Protocol, sock=listening)
        made = asyncio.get_running_loop().create_task(serve())
        """,
        sys=sys,
        listening=listening,
    )
    with socket.create_connection(listening.getsockname(), timeout=10) as client, contextlib.suppress(OSError):
        client.send(b"x")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    (record,) = until(lambda: [each for each in caplog.records if each.name == "koupleless"])
    call = "called sys.exit(5)" if "sys" in raised else "raised KeyboardInterrupt"
    said = rf"biz {biz.scope.biz} {re.escape(call)} on the shared event loop, at /biz/\S+:\d+; the base goes on"
    assert re.fullmatch(said, record.getMessage()), record.getMessage()
    assert loop.run(lambda: "goes on") == "goes on"
    report = biz.leave()
    assert report.clean, report.summary()


def test_a_protocol_goes_when_its_connection_does(biz: TinyBiz, loop: LoopThread) -> None:
    here, there = socket.socketpair()
    gone: list[int] = []
    start(
        loop,
        biz,
        """
        class Protocol(asyncio.Protocol):
            def data_received(self, data):
                pass
            def __del__(self, gone=gone.append):
                gone(1)
        async def connect():
            await asyncio.get_running_loop().connect_accepted_socket(Protocol, sock=here)
        made = asyncio.get_running_loop().create_task(connect())
        """,
        here=here,
        gone=gone,
    )
    until(lambda: loop.run(is_idle))
    assert not gone
    gc.disable()
    try:
        there.close()
        until(lambda: gone)
    finally:
        gc.enable()


def test_of_an_exit_that_a_timer_calls_itself_no_line_is_told(
    biz: TinyBiz, loop: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    start(loop, biz, "asyncio.get_running_loop().call_later(0, sys.exit, 5)", sys=sys)
    (record,) = until(lambda: [each for each in caplog.records if each.name == "koupleless"])
    said = f"biz {biz.scope.biz} called sys.exit(5) on the shared event loop; the base goes on"
    assert record.getMessage() == said
    biz.leave()


@pytest.mark.parametrize("made", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_base_ends_its_own_loop_as_ever(made: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = made()
    adoption = adopt_loop(loop)
    try:
        loop.call_soon(sys.exit, 3)
        with pytest.raises(SystemExit):
            loop.run_forever()
        loop.call_soon(loop.stop)
        loop.run_forever()
    finally:
        adoption.release()
        loop.close()


@pytest.mark.parametrize("call", ["stop()", "close()", "shutdown_asyncgens()", "shutdown_default_executor()"])
def test_a_shared_loop_cannot_be_ended(biz: TinyBiz, loop: LoopThread, call: str) -> None:
    with pytest.warns(
        RuntimeWarning, match=rf"called {call[:-2]} of the event loop, which all modules share; the call was ignored"
    ):
        start(
            loop,
            biz,
            f"""
            done = asyncio.get_running_loop().{call}
            if done is not None:
                done = asyncio.ensure_future(done)
            """,
        )
    assert loop.run(lambda: "goes on") == "goes on"
    biz.leave()


def test_a_biz_sees_its_own_tasks_and_the_one_that_runs(biz: TinyBiz, make_biz: MakeBiz, loop: LoopThread) -> None:
    of_base = loop.run(make_task, asyncio.Event().wait)
    other = make_biz("other")
    start(loop, other, "task = asyncio.ensure_future(asyncio.sleep(3600))")
    seen: dict[str, Any] = {}
    start(
        loop,
        biz,
        """
        task = asyncio.ensure_future(asyncio.sleep(3600))
        seen["mine"] = task
        seen["all"] = asyncio.all_tasks()
        seen["here"] = asyncio.current_task()
        """,
        seen=seen,
    )
    assert seen["all"] == {seen["mine"], seen["here"]}
    assert of_base in asyncio.all_tasks(loop.loop)
    seen.clear()
    assert biz.leave().clean
    assert other.leave().clean
    assert not of_base.done()
    loop.run(cancel_others)


def test_a_loop_of_its_own_is_as_alone(biz: TinyBiz) -> None:
    biz.run(
        """
        async def main():
            other = asyncio.ensure_future(asyncio.sleep(0))
            assert asyncio.all_tasks() == {other, asyncio.current_task()}
            asyncio.get_running_loop().stop()
        with pytest.raises(RuntimeError, match="stopped before"):
            asyncio.run(main())
        """,
        asyncio=asyncio,
        pytest=pytest,
    )
    biz.leave()

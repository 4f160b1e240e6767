"""A base on a socket that the service manager keeps open: started again under load, it loses no request."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
from typing import IO, TYPE_CHECKING, Final

import pytest
from tests.conftest import free_port, until
from tests.e2e.manager import Manager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.deployment

TELLING: Final = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    told = " ".join(name for name in os.environ if name.startswith("LISTEN_")) or str(os.getpid())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
    await send({"type": "http.response.body", "body": told.encode()})
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    (tmp_path / "telling.py").write_text(TELLING)
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def asked(port: int) -> bytes:
    """The answer on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read()


def test_a_base_started_again_on_the_socket_loses_no_request(manager: Manager) -> None:
    answers: list[bytes] = []
    failures: list[Exception] = []
    is_over = threading.Event()

    def ask(port: int) -> None:
        while not is_over.is_set() and not failures:
            try:
                answers.append(asked(port))
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)

    with listening() as kept:
        port = kept.getsockname()[1]
        base = manager.start(kept, "telling:app")
        manager.hears(b"READY=1")
        threads = [threading.Thread(target=ask, args=(port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            count = len(answers)
            until(lambda count=count: len(answers) > count + 50, otherwise="nobody is answered")  # type: ignore[misc]
            base.terminate()
            assert base.wait(60) == 0
            manager.hears(b"STOPPING=1")
            base = manager.start(kept, "telling:app")
            manager.hears(b"READY=1")
        count = len(answers)
        until(lambda: len(answers) > count + 50, otherwise="nobody is answered")
        is_over.set()
        for thread in threads:
            thread.join(60)
        base.terminate()
        assert base.wait(60) == 0

    assert failures == []
    assert len(set(answers)) == 3  # the numbers of three processes, and no variable of the manager
    assert all(answer.isdigit() for answer in answers)
    assert f"serving on 127.0.0.1:{port}, handed over by the service manager" in manager.log


def test_a_request_on_a_connection_just_accepted_is_answered_by_a_base_that_ends(manager: Manager) -> None:
    port = free_port()
    base = manager.start(None, "telling:app", "--port", port)
    manager.hears(b"READY=1")
    asked(port)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as late:
        asked(port)  # connections are accepted in their order
        base.terminate()
        manager.hears(b"STOPPING=1")
        late.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: late.recv(1000), b""))  # up to the end of the connection

    assert base.wait(60) == 0
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param(socket.SOCK_STREAM, "descriptor 3, which does not listen; a socket unit needs", id="Accept=yes"),
        pytest.param(socket.SOCK_DGRAM, "descriptor 3, which does not listen; a socket unit needs", id="datagrams"),
        pytest.param(None, "descriptor 3, which is no socket", id="a file"),
    ],
)
def test_a_descriptor_that_is_no_listening_socket_is_refused(
    manager: Manager, kind: socket.SocketKind | None, said: str
) -> None:
    with contextlib.ExitStack() as stack:
        handed: socket.socket | IO[bytes]
        if kind is None:
            handed = stack.enter_context(open(os.devnull, "rb"))  # noqa: PTH123 - a descriptor
        else:
            handed = stack.enter_context(socket.socket(type=kind))
        assert manager.start(handed, "telling:app").wait(60) != 0

    assert said in manager.log
    assert "Traceback" not in manager.log


def test_a_socket_for_another_process_is_left_alone(manager: Manager) -> None:
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISTEN_FDS", "1")
        patch.setenv("LISTEN_PID", "1")
        base = manager.start(None, "telling:app", "--port", port)
    manager.hears(b"READY=1")
    assert asked(port) == str(base.pid).encode()
    base.send_signal(signal.SIGTERM)
    assert base.wait(60) == 0

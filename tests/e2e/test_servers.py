"""Servers, clients and pools of libraries that a module leaves open, each with real clients: its ports are free again.

A base of a process of its own, since one that was done wrong would stand still with the interpreter lock held.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import psycopg
import pytest
import zmq
from tests.conftest import free_port, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import BaseProcess

APP = """

def app(environ, start_response):
    start_response("200 OK", [])
    return [VERSION.encode()]
"""

GRPC = """
from concurrent import futures

import grpc


def greet(request, context):
    return VERSION.encode() + request


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(greet)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("greet.Greeter", {"Greet": handler}),))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    server.start()
    return server

"""

GRPC_KINDS = {
    "a global": GRPC + "server = serve()",
    "one that a thread waits for": GRPC
    + "import threading\nthreading.Thread(target=lambda: serve().wait_for_termination()).start()",
    "one with a channel to itself": GRPC
    + "server = serve()\nchannel = grpc.insecure_channel(f'127.0.0.1:{PORT}')\n"
    + "assert channel.unary_unary('/greet.Greeter/Greet')(b'x') == VERSION.encode() + b'x'\n"
    + "channel.subscribe(print)",
}

GRPC_OF_LOOP = """
import grpc


async def greet(request, context):
    return VERSION.encode() + request


server = None


async def start():
    global server
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(greet)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("greet.Greeter", {"Greet": handler}),))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    await server.start()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": VERSION.encode()})
"""

ZMQ = """
import threading
import zmq

context = zmq.Context()


def serve():
    server = context.socket(zmq.REP)
    server.bind(f"tcp://127.0.0.1:{PORT}")
    while True:
        server.send(VERSION.encode() + server.recv())


threading.Thread(target=serve, daemon=True).start()
"""

ZMQ_GLOBAL = ZMQ.replace("zmq.Context()", "zmq.Context.instance()").replace(
    "server = context", "global server\n    server = context"
)

PAHO = """
import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.connect("127.0.0.1", PORT)
client.loop_start()
"""

REDIS = """
import redis

kept = redis.Redis(port=PORT), redis.Redis(connection_pool=redis.BlockingConnectionPool(port=PORT))
for each in kept:
    each.ping()
"""

MONGO = """
import pymongo

kept = pymongo.MongoClient(port=PORT, directConnection=True)
kept.admin.command("ping")
"""

WAREHOUSE = "host=127.0.0.1 port={PORT} user=postgres dbname=postgres"
URL = "postgres@127.0.0.1:{PORT}/postgres"

POSTGRES = {
    "psycopg": f"""
import psycopg, psycopg_pool
kept = psycopg.connect(f"{WAREHOUSE}"), psycopg_pool.ConnectionPool(f"{WAREHOUSE}", min_size=2, open=True)
kept[1].wait()
""",
    "psycopg2": f"""
import psycopg2.pool
kept = psycopg2.connect(f"{WAREHOUSE}"), psycopg2.pool.ThreadedConnectionPool(2, 4, f"{WAREHOUSE}")
out = kept[1].getconn()
""",
    "asyncpg": f"""
import asyncpg

async def start():
    url = f"postgresql://{URL}"
    return await asyncpg.connect(url), await asyncpg.create_pool(url, min_size=2)

async def app(scope, receive, send):
    global kept
    if scope["type"] == "lifespan":
        await receive()
        kept = await start()
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": VERSION.encode()}})
""",
    **{
        f"sqlalchemy {driver}": f"""
import sqlalchemy
engine = sqlalchemy.create_engine(f"postgresql+{driver}://{URL}")
with engine.connect() as other:
    other.execute(sqlalchemy.text("select 1"))
    kept = engine.connect()
    kept.execute(sqlalchemy.text("select 1"))
"""
        for driver in ("psycopg", "psycopg2")
    },
}

POOLS = """
import psycopg_pool
import sqlalchemy

engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.QueuePool)
with engine.connect() as connection:
    connection.execute(sqlalchemy.text("select 1"))
pool = psycopg_pool.ConnectionPool(f"host=127.0.0.1 port={PORT}", min_size=1, open=True, reconnect_timeout=600)
"""


@pytest.fixture(scope="module")
def base(serve: Callable[..., BaseProcess], tmp_path_factory: pytest.TempPathFactory) -> BaseProcess:
    """A base that has the libraries, as one that serves with them does."""
    directory = tmp_path_factory.mktemp("servers")
    (directory / "warm.py").write_text(
        "import grpc, grpc.aio, zmq, psycopg_pool, sqlalchemy\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'base']\n"
    )
    (directory / "koupleless.toml").write_text("[base]\nstop-timeout = 2\n")
    return serve("warm:app", cwd=directory)


@pytest.fixture
def deploy(base: BaseProcess, tmp_path: Path) -> Iterator[Callable[[str, str, int], None]]:
    """Deploy a version of a module that has the port as ``PORT``."""

    def put(source: str, version: str, port: int) -> None:
        text = f"VERSION, PORT = {version!r}, {port}\n{source}"
        (tmp_path / "greet.py").write_text(text if "def app" in source else text + APP)
        base.deploy(tmp_path / "greet.py")
        assert base.get("/greet/").text == version

    yield put
    base.clear()


@pytest.mark.parametrize("source", [*GRPC_KINDS.values(), GRPC_OF_LOOP], ids=[*GRPC_KINDS, "one of asyncio"])
def test_a_grpc_server_that_nobody_stops(
    base: BaseProcess, deploy: Callable[[str, str, int], None], source: str
) -> None:
    port = free_port()
    for version in ("1", "2"):
        deploy(source, version, port)
        assert greet(port) == f"{version}x"
        said = base.undeploy("greet")
        assert "nothing left behind" in said, said
        assert_free(port)
        assert base.get("/").text == "base"


def test_a_new_version_gets_all_grpc_clients(base: BaseProcess, deploy: Callable[[str, str, int], None]) -> None:
    """Both listen on one port while they change (``SO_REUSEPORT`` is gRPC's default)."""
    port = free_port()
    for version in ("1", "2", "3"):
        deploy(GRPC_KINDS["a global"], version, port)
        assert {greet(port) for _ in range(10)} == {f"{version}x"}
    assert "nothing left behind" in base.undeploy("greet")


@pytest.mark.parametrize("source", [ZMQ, ZMQ_GLOBAL], ids=["of its own context", "of the global context"])
def test_a_zeromq_server_that_nobody_stops(
    base: BaseProcess, deploy: Callable[[str, str, int], None], source: str
) -> None:
    port = free_port()
    deploy(source, "1", port)
    assert ask(port) == b"1x"
    said = base.undeploy("greet")
    if source is ZMQ:
        assert "nothing left behind" in said, said
        assert_free(port)
        deploy(source, "2", port)
        assert ask(port) == b"2x"
        assert "nothing left behind" in base.undeploy("greet")
    else:  # a thread in C code with a socket of a context that others may use: nobody can end it, and it is named
        assert "still runs at" in said, said
    assert base.get("/").text == "base"


def test_an_mqtt_client_that_nobody_stops(base: BaseProcess, deploy: Callable[[str, str, int], None]) -> None:
    with broker() as (port, ended):
        deploy(PAHO, "1", port)
        said = base.undeploy("greet")
        assert "nothing left behind" in said, said
        until(ended.is_set)


def test_pools_of_connections(base: BaseProcess, deploy: Callable[[str, str, int], None]) -> None:
    for version in ("1", "2"):
        deploy(POOLS, version, free_port())
        said = base.undeploy("greet")
        assert "nothing left behind" in said, said
        assert "did not end by itself" not in said


@pytest.mark.parametrize("library", ["redis", "pymongo"])
def test_clients_of_a_database(base: BaseProcess, deploy: Callable[[str, str, int], None], library: str) -> None:
    """With doubles, which speak as much as it takes to be connected to."""
    pytest.importorskip(library)
    source, answer = (REDIS, as_redis) if library == "redis" else (MONGO, as_mongo)
    with database(answer) as (port, clients):
        for version in ("1", "2"):
            deploy(source, version, port)
            assert len(clients) >= 1 + (library == "redis")
            said = base.undeploy("greet")
            assert "nothing left behind" in said, said
            until(lambda: not clients)


@pytest.mark.parametrize("kind", POSTGRES)
def test_connections_to_postgresql(
    base: BaseProcess, deploy: Callable[[str, str, int], None], postgres: int, kind: str
) -> None:
    pytest.importorskip(kind.rpartition(" ")[2])
    for version in ("1", "2"):
        deploy(POSTGRES[kind], version, postgres)
        assert (connections(postgres) or 0) >= 2
        said = base.undeploy("greet")
        assert "nothing left behind" in said, said
        until(lambda: connections(postgres) == 0)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that belongs to these tests, where PostgreSQL is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    there = Path(shutil.which("initdb") or (found[-1] if found else "")).parent
    if not (there / "initdb").is_file():
        pytest.skip("PostgreSQL is not installed here")
    directory = tmp_path_factory.mktemp("postgres")
    port = free_port()
    options: dict[str, Any] = {"cwd": directory, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.getuid() == 0:  # as whom it does not start
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        for each in (directory, *directory.parents):
            if each.stat().st_uid == 0 and each.name.startswith(("pytest-", "popen-")):
                each.chmod(each.stat().st_mode | 0o11)
        os.chown(directory, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = str(directory / "data")
    subprocess.run([there / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"], check=True, **options)
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
    with subprocess.Popen([there / "postgres", "-D", data, "-p", str(port), *settings], **options) as server:
        try:
            until(lambda: connections(port) is not None)
            yield port
        finally:
            server.send_signal(signal.SIGINT)


def connections(port: int) -> int | None:
    """Count the clients of a server, but for this one; ``None`` if it does not answer yet."""
    query = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
    try:
        with psycopg.connect(WAREHOUSE.format(PORT=port)) as connection:
            row = connection.execute(query).fetchone()
    except psycopg.OperationalError:
        return None
    return int(row[0]) if row else None


def as_redis(request: bytes) -> bytes:
    """Answer commands, each by what a client that has just come asks for."""
    known = {b"PING": b"+PONG\r\n", b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n"}
    commands = re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", request)
    return b"".join(known.get(command, b"+OK\r\n") for command in commands)


def as_mongo(request: bytes) -> bytes:
    """Answer a message as a server that is alone and does what it is told."""
    length, number, _, kind = struct.unpack_from("<iiii", request)
    assert length == len(request)
    body = b"\x01ok\0" + struct.pack("<d", 1.0) + b"\x08ismaster\0\1\x08isWritablePrimary\0\1"
    body += b"\x10minWireVersion\0" + struct.pack("<i", 0) + b"\x10maxWireVersion\0" + struct.pack("<i", 21)
    document = struct.pack("<i", len(body) + 5) + body + b"\0"
    if kind == 2004:  # OP_QUERY, with which a client begins
        reply, kind = struct.pack("<iqii", 8, 0, 0, 1) + document, 1
    else:
        reply = struct.pack("<ib", 0, 0) + document
    return struct.pack("<iiii", len(reply) + 16, 1, number, kind) + reply


@contextlib.contextmanager
def database(answer: Callable[[bytes], bytes]) -> Iterator[tuple[int, set[object]]]:
    """A server whose clients are known while they are connected."""
    clients: set[object] = set()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            clients.add(self)
            with contextlib.suppress(OSError):
                while request := self.request.recv(10_000):
                    self.request.sendall(answer(request))
            clients.discard(self)

    with listening(Handler) as port:
        yield port, clients


def greet(port: int) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/greet.Greeter/Greet")
        return bytes(call(b"x", timeout=10, wait_for_ready=True)).decode()


def ask(port: int) -> bytes:
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.setsockopt(zmq.RCVTIMEO, 10_000)
        client.connect(f"tcp://127.0.0.1:{port}")
        client.send(b"x")
        return client.recv()


def assert_free(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@contextlib.contextmanager
def broker() -> Iterator[tuple[int, threading.Event]]:
    """A broker of MQTT that takes every client, and knows when one has said goodbye."""
    ended = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"\x20\x02\x00\x00")  # CONNACK
            while data := self.request.recv(1000):
                if data[0] == 0xE0:  # DISCONNECT
                    ended.set()

    with listening(Handler) as port:
        yield port, ended


@contextlib.contextmanager
def listening(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()

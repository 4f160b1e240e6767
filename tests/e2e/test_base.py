"""A base as its users run it: under arkctl, uvicorn and hypercorn, around ASGI and WSGI applications, to its end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import websockets
from tests.conftest import free_port, until
from tests.e2e.conftest import BaseProcess

from koupleless.artifact.source import source_for
from koupleless.artifact.store import Store

BIZS = Path(__file__).parent.parent / "bizs"

ASGI_BASE = """
import time
from pathlib import Path

from fastapi import FastAPI

app = FastAPI()


@app.get("/own")
async def own(): return {"base": "asgi"}


@app.get("/block")
async def block(begun: Path, go_on: Path):
    begun.touch()
    while not go_on.exists():
        time.sleep(0.005)  # on the event loop, as it should not
"""

WSGI_BASE = """
from flask import Flask

app = Flask(__name__)


@app.get("/own")
def own(): return {"base": "wsgi"}
"""

EMBEDDED = """
from koupleless.base import Base
from asgi_base import app as inner

app = Base(inner, name="shop")
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sources")
    (directory / "asgi_base.py").write_text(ASGI_BASE)
    (directory / "wsgi_base.py").write_text(WSGI_BASE)
    (directory / "embedded.py").write_text(EMBEDDED)
    return directory


@pytest.fixture(scope="module")
def base(serve, sources):
    return serve("asgi_base:app", cwd=sources)


@pytest.fixture
def hello(base, artefact):
    base.ask("installBiz", bizUrl=artefact("hello-1.0").as_uri())
    yield f"{base.url}/hello"
    base.clear()


def test_the_routes_of_the_base_work_as_before(base, hello):
    assert base.get("/own").json() == {"base": "asgi"}
    assert base.get("/nowhere").json() == {"detail": "Not Found"}
    assert base.get("/hello/?name=you").json()["hello"] == "you"


def test_a_base_shows_metrics_of_its_modules_without_code_for_it(base, hello):
    base.get("/hello/")
    scraped = httpx.get(f"http://127.0.0.1:{base.arklet_port}/metrics", timeout=30).text

    assert 'koupleless_requests_total{biz="hello",method="GET",status="2xx",version="1.0"}' in scraped
    assert "process_resident_memory_bytes" in scraped


def test_the_service_manager_is_told_that_a_base_serves_and_stops(serve, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        process = serve()
        assert manager.recv(100) == b"READY=1"
        assert [manager.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
        process.ask_to_end()
        heard = [manager.recv(100)]
        while heard[-1] != b"STOPPING=1":
            heard.append(manager.recv(100))
        assert process.end() == 0


def test_a_flask_application_can_be_the_base(serve, sources):
    process = serve("wsgi_base:app", cwd=sources)
    process.deploy(BIZS / "flasky-1.0")

    assert process.get("/own").json() == {"base": "wsgi"}
    assert process.get("/flasky/user/3").json() == {"user": 3, "script": "/flasky"}


def test_an_empty_base_has_only_modules(serve):
    process = serve()
    assert process.get("/").status_code == 404
    process.deploy(BIZS / "hello-1.0")
    assert process.get("/hello/").status_code == 200


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "gunicorn", "granian"])
def test_a_base_lives_inside_another_server(server, sources, tmp_path, run_alone, monkeypatch):
    arklet = free_port()
    monkeypatch.setenv("KOUPLELESS_ARKLET_HTTP_PORT", str(arklet))
    options = {
        "uvicorn": lambda port: ["--port", str(port)],
        "hypercorn": lambda port: ["--bind", f"127.0.0.1:{port}"],
        "gunicorn": lambda port: ["--bind", f"127.0.0.1:{port}", "-k", "uvicorn_worker.UvicornWorker"],
        "granian": lambda port: ["--interface", "asgi", "--port", str(port)],
    }[server]
    process = run_alone(lambda port: [sys.executable, "-m", server, "embedded:app", *options(port)], sources)

    reply = ask(arklet, "installBiz", {"bizUrl": build("hello-1.0", tmp_path).as_uri()})

    assert reply["code"] == "SUCCESS", reply
    assert httpx.get(f"{process.url}/own").json() == {"base": "asgi"}
    assert httpx.get(f"{process.url}/hello/").json()["version"] == "1.0"
    reply = ask(arklet, "uninstallBiz", {"bizName": "hello", "bizVersion": "1.0"})
    assert "'clean': True" in str(reply), reply
    assert httpx.get(f"{process.url}/hello/").status_code == 404
    assert process.end() in (0, -signal.SIGTERM)


def wait_for(text: str, log: Path) -> str:
    """The log, once ``text`` is in it."""
    until(lambda: text in log.read_text(), 60, otherwise=f"{log} does not say {text!r}")
    return log.read_text()


def test_a_base_inside_another_server_says_once_where_its_arklet_is(sources, run_alone, monkeypatch):
    arklet = free_port()
    monkeypatch.setenv("KOUPLELESS_ARKLET_PORT", str(arklet))
    process = run_alone(lambda port: [sys.executable, "-m", "uvicorn", "embedded:app", "--port", str(port)], sources)

    said = wait_for("koupleless: the arklet listens on", process.log)
    line = (
        f"koupleless: the arklet listens on 127.0.0.1 port {arklet}; to reach this base: arkctl status --port {arklet}"
    )
    assert said.count(line) == 1
    assert f"ARKCTL_PORT={arklet} in the environment" in said
    assert "worker" not in said


def test_a_base_that_finds_the_first_port_taken_says_where_it_is_instead(sources, run_alone):
    command = [sys.executable, "-P", "-m", "koupleless", "serve", "asgi_base:app", "--port"]
    run_alone(lambda port: [*command, str(port)], sources)  # it has the first one, unless somebody else has
    second = run_alone(lambda port: [*command, str(port)], sources)

    said = wait_for("the arklet listens on", second.log)
    found = re.search(r"port 1238 is taken, so the arklet listens on 127.0.0.1 port (\d+); to reach", said)
    assert found, said
    assert ask(int(found[1]), "health", {})["code"] == "SUCCESS"
    assert "several worker processes" not in said, "these two are not workers of one server"


@pytest.mark.parametrize("is_given", [True, False], ids=["a port", "any port"])
def test_workers_of_one_server_are_told_that_each_is_a_base(is_given, sources, run_alone, monkeypatch):
    if is_given:
        monkeypatch.setenv("KOUPLELESS_ARKLET_PORT", str(free_port()))
    command = [sys.executable, "-m", "uvicorn", "embedded:app", "--workers", "2", "--port"]
    process = run_alone(lambda port: [*command, str(port)], sources)

    wait_for("this process is one of several workers, and each worker is a base of its own", process.log)


def build(directory: str, out: Path) -> Path:
    from koupleless.artifact.build import Options, build_project

    return build_project(BIZS / directory, Options(out=out)).path


def ask(port: int, command: str, body: object) -> dict[str, object]:
    reply: dict[str, object] = httpx.post(
        f"http://127.0.0.1:{port}/{command}", json=body, timeout=60, verify=False
    ).json()
    return reply


def test_streams_and_websockets_pass_through_the_server(base, hello):
    async def converse() -> list[str]:
        url = f"{base.url}/hello/echo".replace("http:", "ws:")
        async with websockets.connect(url) as socket:
            await socket.send("a")
            await socket.send("b")
            return [str(await socket.recv()), str(await socket.recv())]

    assert asyncio.run(converse()) == ["1.0:a", "1.0:b"]
    with httpx.stream("GET", f"{hello}/stream?count=3&pause=0.01") as response:
        assert list(response.iter_lines()) == ["0", "1", "2"]


def test_no_request_fails_while_versions_are_replaced(base, hello):
    stop, answers, problems = threading.Event(), [], []

    def load() -> None:
        with httpx.Client(base_url=base.url) as client:
            while not stop.is_set():
                response = client.get("/hello/slow?seconds=0.01")
                answers.append(response.json().get("version"))
                if response.status_code != 200:
                    problems.append(response.text)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for directory in ["hello-1.1", "hello-1.0"] * 3:
        base.deploy(BIZS / directory)
    stop.set()
    for thread in threads:
        thread.join()

    assert problems == []
    assert set(answers) == {"1.0", "1.1"}
    assert [row["bizVersion"] for row in json.loads(base.arkctl("status", "--output", "json"))["data"]] == ["1.0"]


HELD = """
import asyncio
from pathlib import Path

async def app(scope, receive, send):
    if scope["path"].endswith("/hold"):
        Path({begun!r}).touch()
        while not Path({go_on!r}).exists():
            await asyncio.sleep(0.005)
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": {version!r}.encode()}})
"""


def test_a_request_in_flight_is_finished_by_the_version_that_began_it(base, tmp_path):
    from koupleless.artifact.build import Options, build_file

    begun, go_on = tmp_path / "begun", tmp_path / "go-on"

    def deploy(version: str) -> None:
        (tmp_path / "held.py").write_text(HELD.format(begun=str(begun), go_on=str(go_on), version=version))
        artefact = build_file(tmp_path / "held.py", Options(out=tmp_path / "out", version=version)).path
        base.deploy(artefact)

    deploy("1")
    with ThreadPoolExecutor(2) as pool:
        request = pool.submit(base.get, "/held/hold")
        until(begun.exists)
        deployment = pool.submit(deploy, "2")
        until(lambda: base.get("/held/").text == "2", 60)
        is_drained = deployment.done()
        go_on.touch()
        assert request.result().text == "1"
        deployment.result()

    assert not is_drained, "the deployment lasts as long as its request"
    base.clear()


def test_the_arklet_answers_while_the_application_blocks_its_loop(base, tmp_path):
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    blocked = threading.Thread(target=base.get, args=[f"/block?begun={begun}&go_on={go_on}"])
    blocked.start()
    until(begun.exists)
    took = []
    try:
        for _ in range(10):
            begin = time.perf_counter()
            assert ask(base.arklet_port, "health", {})["code"] == "SUCCESS"
            took.append(time.perf_counter() - begin)
        assert blocked.is_alive(), "the application was to be blocked meanwhile"
    finally:
        go_on.touch()
        blocked.join()

    assert sorted(took)[len(took) // 2] < 1, (
        "answers came while the loop was blocked, and not much later than otherwise"
    )


def test_sigterm_during_an_install_ends_the_base_and_leaves_nothing(sources, tmp_path, monkeypatch):
    slow = tmp_path / "sluggish.py"
    started = tmp_path / "started"
    slow.write_text(f"import time\nopen({str(started)!r}, 'w').close()\ntime.sleep(60)\ndef main(): ...\n")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    process = BaseProcess(["asgi_base:app"], cwd=sources, log=tmp_path / "log")
    from koupleless.artifact.build import Options, build_file

    artefact = build_file(slow, Options(out=tmp_path)).path
    replies = []
    install = threading.Thread(
        target=lambda: replies.append(ask(process.arklet_port, "installBiz", {"bizUrl": artefact.as_uri()}))
    )
    install.start()
    until(started.exists)

    begin = time.monotonic()
    status = process.end(signal.SIGTERM)
    install.join()

    assert status == 0
    assert "the base is shutting down" in str(replies[0]["message"])
    assert time.monotonic() - begin < 20
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_port_in_use_is_a_start_up_error_that_names_it(base, sources):
    command = [sys.executable, "-m", "koupleless", "serve", "asgi_base:app", "--port", str(free_port())]
    done = subprocess.run(
        [*command, "--arklet-port", str(base.arklet_port)],
        cwd=sources,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert str(base.arklet_port) in done.stderr


def test_static_modules_are_there_when_the_base_is(serve, sources, tmp_path):
    process = serve("asgi_base:app", "--module", str(BIZS / "hello-1.0"), cwd=sources)

    assert process.get("/hello/").json()["version"] == "1.0"


def test_a_configured_store_is_cleaned_when_the_base_starts(serve, tmp_path, artefact):
    store, settings = tmp_path / "store", tmp_path / "koupleless.toml"
    with Store(store) as filled:
        for name in ("hello-1.0", "hello-1.1", "flasky-1.0"):
            filled.unpack(source_for(artefact(name))).release()
    settings.write_text(f'[base]\nstore-dir = "{store}"\nstore-keep = 1\nmodules = ["{artefact("hello-1.0")}"]\n')

    process = serve(cwd=tmp_path)

    assert process.get("/hello/").json()["version"] == "1.0"
    entries = [entry for tag in store.glob("cpython-*") for entry in tag.iterdir()]
    assert len(entries) == 2, "that of the installed module, and the last one that was used"


def test_a_taken_port_is_refused_before_anything_is_started(base, sources):
    command = [sys.executable, "-m", "koupleless", "serve", "asgi_base:app", "--port", str(base.port)]

    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode != 0
    assert f"port {base.port}: Address already in use; choose another with --port" in done.stderr
    assert "Traceback" not in done.stderr
    assert "arklet listens" not in done.stderr


def test_the_log_of_a_base_tells_what_happened_to_its_modules(base, hello):
    base.undeploy("hello")
    base.deploy(BIZS / "hello-1.0")

    said = base.log.read_text()
    assert re.search(r"biz hello:1.0 installed in \d+ ms", said)
    assert re.search(r"biz hello:1.0 uninstalled in \d+ ms \(clean\)", said)

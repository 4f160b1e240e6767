"""Bases behind nginx and Caddy, with the configurations of ``examples/`` but for the ports."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import pwd
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from tests.conftest import free_port, program, until
from tests.e2e.manager import Manager
from websockets.sync.client import connect

from koupleless.cli.commands import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import BaseProcess

    Configure = Callable[[Path, int, int, int], list[str]]

pytestmark = pytest.mark.deployment

ROOT: Final = Path(__file__).parents[2]
UPLOAD_MB: Final = 50

MODULE: Final = """
# /// script
# [tool.koupleless.module]
# name = "probe"
# version = "VERSION"
# ///
import asyncio, json

may_go_on = None

async def app(scope, receive, send):
    global may_go_on
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        return
    assert scope["type"] == "http"
    path = scope["path"].removeprefix(scope["root_path"])
    if path == "/events":
        may_go_on = asyncio.Event()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: first\\n\\n", "more_body": True})
        await asyncio.wait_for(may_go_on.wait(), 30)
        await send({"type": "http.response.body", "body": b"data: second\\n\\n"})
        return
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    if path == "/go-on":
        may_go_on.set()
    told = {"version": "VERSION", "root": scope["root_path"], "scheme": scope["scheme"], "client": scope["client"][0]}
    told |= {"size": size, "host": dict(scope["headers"])[b"host"].decode()}
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""

NGINX: Final = """
daemon off;
user {user};
worker_processes 1;
pid {here}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    include {here}/koupleless.conf;
}}
"""


def configured(text: str, replaced: dict[str, str]) -> str:
    """The text of an example with other addresses; each one is there."""
    for old, new in replaced.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def nginx(directory: Path, port: int, base: int, second: int) -> list[str]:
    example = (ROOT / "examples" / "nginx" / "koupleless.conf").read_text()
    replaced = {"listen 80;": f"listen 127.0.0.1:{port};", ":8080": f":{base}", ":8081/": f":{second}/"}
    (directory / "koupleless.conf").write_text(configured(example, replaced))
    (directory / "nginx.conf").write_text(NGINX.format(here=directory, user=pwd.getpwuid(os.getuid()).pw_name))
    return ["-p", str(directory), "-e", "stderr", "-c", str(directory / "nginx.conf")]


def caddy(directory: Path, port: int, base: int, second: int) -> list[str]:
    example = (ROOT / "examples" / "caddy" / "Caddyfile").read_text()
    # By the name of the site, Caddy would ask for a certificate. Its own port for commands stays closed here.
    replaced = {
        "{$SITE:shop.example} {": f"http://:{port} {{\n\tbind 127.0.0.1",
        "{$BASE:127.0.0.1:8080}": f"127.0.0.1:{base}",
        "127.0.0.1:8081": f"127.0.0.1:{second}",
    }
    (directory / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + configured(example, replaced))
    return ["run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]


class Site:
    """A proxy, a base behind it on a socket that a manager keeps open, and a second base below a path."""

    def __init__(self, manager: Manager, port: int, kept: socket.socket) -> None:
        self.manager = manager
        self.port = port
        self._kept = kept
        self.base = self.begin()

    def begin(self) -> subprocess.Popen[bytes]:
        base = self.manager.start(self._kept, "--state-dir", self.manager.directory / "state")
        self.manager.hears(b"READY=1")
        return base

    def restart(self) -> None:
        """Start the base again, as ``systemctl restart`` does."""
        self.base.terminate()
        assert self.base.wait(60) == 0, self.manager.log
        self.manager.hears(b"STOPPING=1")
        self.base = self.begin()

    def deploy(self, version: str) -> None:
        source = self.manager.directory / "probe.py"
        source.write_text(MODULE.replace("VERSION", version))
        assert main(["deploy", str(source), "--port", str(self.manager.arklet_port)]) == 0

    def get(self, path: str, **headers: str) -> dict[str, Any]:
        response = httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=30)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found


@pytest.fixture(scope="module")
def sites(
    tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., BaseProcess]
) -> Iterator[Callable[[Configure], Site]]:
    """``sites(nginx)`` is the site behind nginx, started once."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def site(configure: Configure) -> Site:
            name = configure.__name__
            path = program(tmp_path_factory, name)
            directory = tmp_path_factory.mktemp(name)
            second = serve("--root-path", "/back")
            kept = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
            manager = stack.enter_context(contextlib.closing(Manager(directory)))
            site = Site(manager, free_port(), kept)
            site.deploy("1")
            second.deploy(directory / "probe.py")
            arguments = configure(directory, site.port, kept.getsockname()[1], second.port)
            log = stack.enter_context((directory / "proxy.log").open("wb"))
            homes = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(directory))
            proxy = subprocess.Popen([path, *arguments], stdout=log, stderr=log, env={**os.environ, **homes})
            stack.callback(proxy.wait, 30)
            stack.callback(proxy.terminate)
            until(lambda: answers(site.port) or proxy.poll() is not None, 60, otherwise="the proxy does not start")
            assert proxy.poll() is None, (directory / "proxy.log").read_text()
            return site

        yield site


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def site(request: pytest.FixtureRequest, sites: Callable[[Configure], Site]) -> Site:
    return sites(request.param)


def answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/livez")
    except httpx.HTTPError:
        return False
    return True


def test_a_module_learns_of_the_client_from_the_proxy_and_not_from_the_client(site: Site) -> None:
    forged = {"X-Forwarded-For": "10.9.8.7", "X-Forwarded-Proto": "https", "Host": "shop.example"}
    told = site.get("/probe/", **forged)
    assert (told["client"], told["scheme"], told["root"], told["host"]) == (
        "127.0.0.1",
        "http",
        "/probe",
        "shop.example",
    )


def test_a_base_below_a_path_knows_the_path(site: Site) -> None:
    assert site.get("/back/probe/")["root"] == "/back/probe"


def test_websockets_pass(site: Site) -> None:
    with connect(f"ws://127.0.0.1:{site.port}/probe/", proxy=None) as one:
        one.send("hello")
        assert one.recv(30) == "HELLO"


def test_events_are_passed_on_as_they_come(site: Site) -> None:
    with httpx.stream("GET", f"http://127.0.0.1:{site.port}/probe/events", timeout=30) as response:
        lines = response.iter_lines()
        assert next(lines) == "data: first"  # the second is sent after the next request
        site.get("/probe/go-on")
        assert "data: second" in lines


def test_large_uploads_pass(site: Site) -> None:
    body = bytes(UPLOAD_MB << 20)
    response = httpx.post(f"http://127.0.0.1:{site.port}/probe/", content=body, timeout=60)
    assert response.json()["size"] == len(body)


def test_the_arklet_is_not_reached_through_the_proxy(site: Site) -> None:
    for name in ("127.0.0.1", "localhost", "shop.example"):
        url = f"http://127.0.0.1:{site.port}/queryAllBiz"
        assert httpx.post(url, json={}, headers={"Host": name}).status_code in {403, 404}
    probe = httpx.get(f"http://127.0.0.1:{site.port}/readyz")
    assert (probe.status_code, probe.json()) == (200, {"status": "UP"})


def test_a_new_version_and_a_restart_of_the_base_lose_no_request_behind_the_proxy(site: Site) -> None:
    versions: list[str] = []
    failures: list[object] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set() and not failures:
            connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
            with contextlib.closing(connection):
                try:
                    connection.request("POST", "/probe/", b"x")
                    response = connection.getresponse()
                    body = response.read()
                except (OSError, http.client.HTTPException) as error:
                    failures.append(error)
                    return
            if response.status == 200:
                versions.append(json.loads(body)["version"])
            else:
                failures.append((response.status, body))

    def wait_for(version: str) -> None:
        count = len(versions)
        until(lambda: version in versions[count:] or failures, otherwise="nobody is answered")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for version in ("2", "3"):
            site.deploy(version)
            wait_for(version)
        site.restart()
        wait_for("3")
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert {"2", "3"} <= set(versions)

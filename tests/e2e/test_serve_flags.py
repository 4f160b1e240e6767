"""``arkctl serve`` with the options of its server: TLS, proxies, Unix sockets, and a base that is started again."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.conftest import free_port, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOURCE = """
from fastapi import FastAPI, Request

app = FastAPI()


@app.get("/")
async def tell(request: Request):
    return {"letter": "LETTER", "url": str(request.url), "root": request.scope["root_path"], "client": request.client}
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """``start(flag, ...)`` serves the application; the log is in ``log``."""
    (tmp_path / "telling.py").write_text(SOURCE.replace("LETTER", "a"))
    running = []

    def serve(*flags: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "koupleless", "serve", "telling:app", "--log-dir", "-", *map(str, flags)]
        with (tmp_path / "log").open("wb") as file:
            running.append(subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT))
        return running[-1]

    yield serve
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()


def told(log: Path, url: str, *, verify: ssl.SSLContext | bool = False, uds: str | None = None) -> dict[str, object]:
    """The first answer of the base that writes to this log."""
    until(lambda: "Uvicorn running on" in log.read_text(), 60, otherwise=f"the base does not start: {log.read_text()}")
    with httpx.Client(transport=httpx.HTTPTransport(verify=verify, uds=uds), timeout=30) as http:
        found: dict[str, object] = http.get(url, headers={"X-Forwarded-For": "10.9.8.7"}).json()
    return found


def test_tls_and_a_proxy(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, certificate: Path) -> None:
    port = free_port()
    base = start("--ephemeral", "--port", port, "--root-path", "/shop/", "--ssl-certfile", certificate)
    trusted = ssl.create_default_context(cafile=str(certificate))
    reply = told(tmp_path / "log", f"https://127.0.0.1:{port}/", verify=trusted)
    assert reply["url"] == f"https://127.0.0.1:{port}/shop/"
    assert (reply["root"], reply["client"]) == ("/shop", ["10.9.8.7", 0])
    base.terminate()
    assert base.wait(30) == 0


def test_a_unix_socket_and_headers_that_are_not_believed(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    base = start("--ephemeral", "--uds", "base.sock", "--no-proxy-headers")
    assert told(tmp_path / "log", "http://base/", uds=str(tmp_path / "base.sock"))["client"] is None
    base.terminate()
    assert base.wait(30) == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ssl-certfile", "none.pem"], "there is no file .*none.pem"),
        (["--ssl-keyfile", "none.pem"], "ssl-certfile is missing"),
        (["--ssl-certfile", "telling.py"], "telling.py cannot be used"),
        (["--uds", "none/base.sock"], "there is no directory .*none"),
        (["--root-path", "shop"], "does not begin with a slash"),
    ],
)
def test_what_a_server_cannot_use_is_said_before_it_starts(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, flags: list[str], words: str
) -> None:
    assert start("--ephemeral", *flags).wait(60) != 0
    said = (tmp_path / "log").read_text()
    assert re.search(words, said), said
    assert "Traceback" not in said


def test_a_saved_file_starts_the_base_again_with_its_modules(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, artefact: Callable[[str], Path]
) -> None:
    port, arklet = free_port(), free_port()
    places = ["--port", port, "--arklet-port", arklet, "--state-dir", tmp_path / "state"]
    supervisor = start("--reload", *places)
    log, url = tmp_path / "log", f"http://127.0.0.1:{port}"
    assert told(log, f"{url}/")["letter"] == "a"
    body = {"bizUrl": artefact("hello-1.0").as_uri()}
    reply = httpx.post(f"http://127.0.0.1:{arklet}/installBiz", json=body, timeout=30).json()
    assert reply["code"] == "SUCCESS", reply
    (tmp_path / "telling.py").write_text("a mistake here")
    until(lambda: "SyntaxError" in log.read_text(), 60, otherwise="the base is not started again")
    (tmp_path / "telling.py").write_text(SOURCE.replace("LETTER", "b"))
    until(lambda: log.read_text().count("Uvicorn running on") == 2, 60, otherwise="the base is not started again")
    assert told(log, f"{url}/")["letter"] == "b"
    until(lambda: httpx.get(f"{url}/hello/").status_code == 200, 30, otherwise="the module does not come back")
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(60) == 0, log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a function can pass for an asynchronous one from 3.12 on")
def test_a_wsgi_server_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "embedded.py").write_text("from koupleless.base import Base\n\napp = Base(name='shop')\n")
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "gunicorn", "embedded:app", "--bind", f"127.0.0.1:{port}"]
    with log.open("wb") as file, subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file) as process:
        try:
            until(lambda: "Booting worker" in log.read_text(), 60, otherwise="gunicorn does not start")
            assert httpx.get(f"http://127.0.0.1:{port}/", timeout=60).status_code == 500
        finally:
            process.terminate()
    said = log.read_text()
    assert "a base is an ASGI application, and was called by a WSGI server" in said, said
    assert "-k uvicorn_worker.UvicornWorker" in said

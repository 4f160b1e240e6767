"""The ops API lets no stranger in: token, ``Origin`` and ``Host``, against real bases and on raw sockets."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.conftest import free_port
from tests.e2e.conftest import BaseProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIZS = Path(__file__).parent.parent / "bizs"
TOKEN = "open-sesame-4711"
COMMANDS = [
    "help",
    "queryAllBiz",
    "health",
    "installBiz",
    "batchInstallBiz",
    "uninstallBiz",
    "switchBiz",
    "queryBizOps",
]


def speak(port: int, command: str, *headers: str, body: bytes = b"{}", method: str = "POST") -> tuple[int, bytes]:
    """One request with exactly these header lines; the status and the body of the answer."""
    lines = [f"{method} /{command} HTTP/1.1", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = b""
        while part := raw.recv(65536):
            answer += part
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


def refused(answer: tuple[int, bytes], status: int, *words: str) -> None:
    assert answer[0] == status, answer
    for word in words:
        assert word in answer[1].decode().lower(), answer
    assert b"SUCCESS" not in answer[1]


@pytest.fixture(scope="module")
def base(serve: Callable[..., BaseProcess]) -> BaseProcess:
    process = serve()
    process.deploy(BIZS / "hello-1.0")
    return process


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever was tried, ``hello`` is there and answers."""
    yield
    for name in {"base", "guarded"} & set(request.fixturenames):
        process = request.getfixturevalue(name)
        reply = process.get("/hello/")
        assert (reply.status_code, reply.json()["life"]) == (200, ["started"])


UNINSTALL = json.dumps({"bizName": "hello", "bizVersion": "1.0"}).encode()


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:3000", "file://", ""]
)
@pytest.mark.parametrize("command", ["uninstallBiz", "queryAllBiz", "health"])
def test_a_request_of_a_web_page_is_refused(base: BaseProcess, origin: str, command: str) -> None:
    host = f"Host: 127.0.0.1:{base.arklet_port}"

    refused(speak(base.arklet_port, command, host, f"Origin: {origin}", body=UNINSTALL), 403, "origin")


def test_a_page_of_the_very_address_of_the_base_is_refused_as_well(base: BaseProcess) -> None:
    address = f"127.0.0.1:{base.arklet_port}"

    answer = speak(base.arklet_port, "uninstallBiz", f"Host: {address}", f"Origin: http://{address}", body=UNINSTALL)

    refused(answer, 403, "origin")


def test_a_browser_gets_no_leave_to_ask(base: BaseProcess) -> None:
    reply = httpx.request(
        "OPTIONS",
        f"http://127.0.0.1:{base.arklet_port}/installBiz",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
        trust_env=False,
    )

    assert not reply.is_success
    assert not any(name.startswith("access-control-") for name in reply.headers)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example:{port}",
        "127.0.0.1@evil.example",
        "evil.example:{port}@127.0.0.1",
        "",
    ],
)
@pytest.mark.parametrize("command", ["uninstallBiz", "queryAllBiz"])
def test_a_name_that_was_made_to_lead_here_is_refused(base: BaseProcess, host: str, command: str) -> None:
    line = "Host: " + host.replace("{port}", str(base.arklet_port))

    status, content = speak(base.arklet_port, command, line, body=UNINSTALL)

    assert status in {400, 403}, content
    assert b"SUCCESS" not in content


def test_two_hosts_are_no_way_around(base: BaseProcess) -> None:
    hosts = f"Host: 127.0.0.1:{base.arklet_port}", "Host: evil.example"
    for first, second in (hosts, hosts[::-1]):
        status, content = speak(base.arklet_port, "uninstallBiz", first, second, body=UNINSTALL)
        assert status in {400, 403}, content


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:{port}", "localhost", "localhost:{port}", "LocalHost:{port}"])
def test_our_own_names_are_let_in(base: BaseProcess, host: str) -> None:
    line = "Host: " + host.replace("{port}", str(base.arklet_port))

    status, content = speak(base.arklet_port, "queryAllBiz", line)

    assert (status, json.loads(content)["code"]) == (200, "SUCCESS")


# --- beyond loopback --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_beyond_loopback_a_base_does_not_start_without_a_token(tmp_path: Path, address: str) -> None:
    command = [sys.executable, "-P", "-m", "koupleless", "serve", "--arklet-host", address]
    command += ["--port", str(free_port()), "--arklet-port", str(free_port())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode not in {0, -9}, done
    said = done.stdout + done.stderr
    assert address in said
    assert "token" in said
    assert "--arklet-insecure" in said, "the way out is named as it is typed"


def test_a_mistaken_setting_is_a_line_and_not_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "koupleless", "serve", "--arklet-host", "0.0.0.0", "--port"]
    command.append(str(free_port()))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert "Traceback" not in done.stdout + done.stderr, done.stderr


@pytest.fixture(scope="module")
def guarded(serve: Callable[..., BaseProcess], tmp_path_factory: pytest.TempPathFactory) -> BaseProcess:
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "token").write_text(TOKEN + "\n")
    process = serve("--arklet-host", "0.0.0.0", "--arklet-token-file", str(directory / "token"), cwd=directory)
    process.deploy(BIZS / "hello-1.0", "--token", TOKEN)
    return process


@pytest.mark.parametrize("command", [*COMMANDS, "", "nothing"])
def test_without_the_token_no_command_is_served(guarded: BaseProcess, command: str) -> None:
    host = f"Host: 127.0.0.1:{guarded.arklet_port}"

    refused(speak(guarded.arklet_port, command, host, body=UNINSTALL), 401, "token")


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Bearer wrong",
        f"Authorization: Bearer {TOKEN[:-1]}",
        f"Authorization: Bearer {TOKEN}x",
        f"Authorization: Bearer {TOKEN.upper()}",
        "Authorization: Bearer ",
        "Authorization: Bearer",
        "Authorization: ",
        f"Authorization: Basic {TOKEN}",
        f"Authorization: {TOKEN}",
        "Authorization: Bearer \xff\xfe",
        f"Cookie: token={TOKEN}",
    ],
)
def test_a_wrong_token_is_refused(guarded: BaseProcess, header: str) -> None:
    host = f"Host: 127.0.0.1:{guarded.arklet_port}"

    answer = speak(guarded.arklet_port, "uninstallBiz", host, header, body=UNINSTALL)

    refused(answer, 401, "token")
    assert TOKEN.encode() not in answer[1]


def test_the_token_in_the_query_is_none(guarded: BaseProcess) -> None:
    host = f"Host: 127.0.0.1:{guarded.arklet_port}"

    refused(speak(guarded.arklet_port, f"queryAllBiz?token={TOKEN}", host), 401, "token")


def test_with_the_token_it_works_for_raw_clients_and_for_arkctl(guarded: BaseProcess) -> None:
    host = f"Host: 127.0.0.1:{guarded.arklet_port}"

    status, content = speak(guarded.arklet_port, "queryAllBiz", host, f"Authorization: Bearer {TOKEN}")

    assert status == 200
    assert [entry["bizName"] for entry in json.loads(content)["data"]] == ["hello"]
    assert "hello" in guarded.arkctl("status", "--token", TOKEN)


def test_arkctl_takes_the_token_from_the_environment(guarded: BaseProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARKCTL_TOKEN", TOKEN)

    assert "hello" in guarded.arkctl("status")


def test_arkctl_says_that_the_token_is_missing(guarded: BaseProcess) -> None:
    command = [sys.executable, "-P", "-m", "koupleless", "status", "--port", str(guarded.arklet_port)]
    done = subprocess.run(command, cwd=guarded.cwd, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode != 0
    assert done.stdout == ""
    assert "token" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_does_not_open_the_door_to_web_pages(guarded: BaseProcess) -> None:
    lines = f"Host: 127.0.0.1:{guarded.arklet_port}", f"Authorization: Bearer {TOKEN}", "Origin: http://evil.example"

    refused(speak(guarded.arklet_port, "uninstallBiz", *lines, body=UNINSTALL), 403, "origin")


def test_the_token_is_in_no_log(guarded: BaseProcess) -> None:
    speak(guarded.arklet_port, "help", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}")
    speak(guarded.arklet_port, "help", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}-wrong")

    assert TOKEN not in guarded.log.read_text()


def test_the_base_may_take_the_token_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOUPLELESS_ARKLET_TOKEN", TOKEN)
    process = BaseProcess(["--arklet-host", "0.0.0.0"], cwd=tmp_path, log=tmp_path / "log")
    try:
        host = f"Host: 127.0.0.1:{process.arklet_port}"
        refused(speak(process.arklet_port, "help", host), 401, "token")
        assert speak(process.arklet_port, "help", host, f"Authorization: Bearer {TOKEN}")[0] == 200
    finally:
        process.end()


def test_an_insecure_base_is_open_and_warns(tmp_path: Path) -> None:
    process = BaseProcess(["--arklet-host", "0.0.0.0", "--arklet-insecure"], cwd=tmp_path, log=tmp_path / "log")
    try:
        assert speak(process.arklet_port, "help", f"Host: 127.0.0.1:{process.arklet_port}")[0] == 200
        log = process.log.read_text()
        assert "WARNING" in log
        assert "0.0.0.0" in log
    finally:
        process.end()


@pytest.mark.parametrize("content", ["", "\n", "  \n"])
def test_an_empty_token_is_no_token(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    command = [sys.executable, "-P", "-m", "koupleless", "serve", "--arklet-host", "0.0.0.0"]
    command += ["--arklet-token-file", str(tmp_path / "token"), "--port", str(free_port())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode not in {0, -9}
    assert "token" in done.stdout + done.stderr

"""The service manager is told what systemd wants to know, by the process that it has started."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from koupleless.cli.commands import arkctl
from koupleless.settings.base import BaseSettings
from koupleless.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        yield listening


def life(supervisor: Supervisor, until: Callable[[], bool] = lambda: True) -> None:
    async def run() -> None:
        supervisor.begin()
        async with asyncio.timeout(10):
            while not until():  # noqa: ASYNC110 - the other side is a socket
                await asyncio.sleep(0.01)
        supervisor.end()

    asyncio.run(run())


def test_ready_and_stopping_are_told(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "HOME": "/"}
    life(Supervisor(environ))
    assert [manager.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("pid", ["", str(os.getpid())], ids=["any process", "this process"])
def test_the_watchdog_is_told_by_the_event_loop(manager: socket.socket, pid: str) -> None:
    heard: list[bytes] = []

    def beats() -> bool:
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            heard.append(manager.recv(100))
        return heard.count(b"WATCHDOG=1") >= 3

    environ = {
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "40000",
        **({"WATCHDOG_PID": pid} if pid else {}),
    }
    life(Supervisor(environ), beats)
    assert heard[0] == b"READY=1"


def test_the_watchdog_of_another_process_is_left_alone(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    life(Supervisor(environ))
    assert [manager.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]


@pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX") or os.uname().sysname != "Linux", reason="abstract names are Linux's"
)
def test_an_abstract_name_is_one() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0koupleless-{os.getpid()}")
        listening.settimeout(10)
        life(Supervisor({"NOTIFY_SOCKET": f"@koupleless-{os.getpid()}"}))
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "soon"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    life(Supervisor(environ))


def test_a_manager_that_is_gone_is_told_in_the_log_and_hurts_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    life(Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody")}))
    assert "was not told READY=1" in caplog.text


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(Path(__file__).parent.parent / "examples" / "systemd" / name, encoding="utf-8")
    return parser


def test_the_unit_starts_a_command_that_there_is_and_gives_it_time() -> None:
    service = unit("koupleless.service")["Service"]
    command, name, *arguments = shlex.split(service["ExecStart"])
    context = arkctl.commands[name].make_context(name, arguments)
    assert command.endswith("/arkctl")
    assert "shop.main:app" in context.params.values()
    settings = BaseSettings()
    assert float(service["TimeoutStopSec"]) > settings.drain_timeout_s + settings.stop_timeout_s
    assert float(service["WatchdogSec"]) > (settings.block_warning_s or 0) * 2
    assert service["Type"] == "notify"


def test_the_socket_unit_is_that_of_the_service_and_listens_where_the_service_would() -> None:
    socket_unit = unit("koupleless.socket")["Socket"]
    arguments = shlex.split(unit("koupleless.service")["Service"]["ExecStart"])
    assert socket_unit["ListenStream"] == f"127.0.0.1:{arguments[arguments.index('--port') + 1]}"
    assert socket_unit.get("Accept", "no") == "no"
    assert "Service" not in socket_unit  # a socket unit starts the service with the same name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd, which verifies units, is not here")
@pytest.mark.parametrize("name", ["koupleless.service", "koupleless.socket"])
def test_units_are_right_for_systemd(tmp_path: Path, name: str) -> None:
    for unit_name in ("koupleless.service", "koupleless.socket"):
        text = (Path(__file__).parent.parent / "examples" / "systemd" / unit_name).read_text(encoding="utf-8")
        text = text.replace("/srv/shop/.venv/bin/arkctl", sys.executable).replace("/srv/shop", str(tmp_path))
        (tmp_path / unit_name).write_text(text.replace("User=koupleless", "User=root"))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = "\n".join(line for line in done.stderr.splitlines() if str(tmp_path) in line or "koupleless" in line)
    assert (done.returncode, said) == (0, ""), done.stderr

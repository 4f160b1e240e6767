"""What a command does not import: `status` has to start in the time that Python itself takes, and a little more."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.conftest import unmeasured

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import FakeArklet

_PROGRAM = """
import sys
from koupleless.cli.commands import main
status = main(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(status)
"""

_UNUSED = {"http", "ssl", "email", "shlex", "koupleless.context", "koupleless.cli.showing.suggestions"}
_UNUSED |= {"koupleless.controller", "koupleless.cli.kube.kubectl", "koupleless.cli.kube.pods"}
_HEAVY = {"rich", "starlette", "uvicorn", "anyio", "asyncio", "psutil", "packaging", "watchfiles", "a2wsgi", "tomllib"}
_RUNTIME = {"base", "arklet", "container", "artifact", "isolation", "ownership", "view", "router", "service"}


@pytest.mark.parametrize("command", [["status"], ["status", "-o", "json"], ["switch", "a:1"], ["undeploy", "a:1"]])
def test_commands_that_only_ask_import_nothing_heavy(arklet: FakeArklet, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'shop'\nversion = '1'\n")
    for name in ("queryAllBiz", "switchBiz", "uninstallBiz"):
        arklet.says(
            name, {"code": "SUCCESS", "data": [] if name == "queryAllBiz" else {"code": "SUCCESS", "message": ""}}
        )
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, *command, "--port", str(arklet.port)],
        cwd=tmp_path,
        env=unmeasured(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = set(done.stderr.split())
    assert "koupleless.client" in modules
    assert not modules & _HEAVY
    assert not modules & _UNUSED
    assert not modules & {f"koupleless.{room}" for room in _RUNTIME}


@pytest.mark.parametrize(("command", "is_short"), [("status", True), ("serve", False), ("deploy", False)])
def test_the_collector_is_left_alone_but_for_commands_that_end_at_once(command: str, is_short: bool) -> None:
    program = f"""
import gc, sys
sys.argv = ["arkctl", "{command}", "--help"]
before, frozen = gc.get_threshold(), gc.get_freeze_count()
from koupleless.__main__ import run
assert run() == 0
print(gc.get_threshold() != before, gc.get_freeze_count() > frozen, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=unmeasured(), capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == [str(is_short)] * 2


def test_python_minus_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "koupleless", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    for command in (
        "serve",
        "new",
        "build",
        "deploy",
        "undeploy",
        "switch",
        "status",
        "show",
        "health",
        "doctor",
        "demo",
    ):
        assert f"\n  {command} " in done.stdout
    for later in ("create", "slim", "--pod"):
        assert later not in done.stdout


def test_no_help_of_a_command_is_wider_than_a_terminal() -> None:
    program = """
import click
from koupleless.cli.commands import arkctl
for name, command in arkctl.commands.items():
    print(command.get_help(click.Context(command, info_name=name, terminal_width=80)))
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("columns", ["80", "100"])
def test_no_line_of_the_help_is_cut(columns: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "koupleless", "--help"],
        env={**os.environ, "COLUMNS": columns},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "..." not in done.stdout.partition("Commands:")[2]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_output_into_a_pipe_that_is_closed_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -P -m koupleless doctor --port 9 -o json | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr

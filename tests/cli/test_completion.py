"""What a shell is told to complete: the names of installed modules, and nothing if no base answers."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.shell_completion import ShellComplete
from tests.cli.conftest import biz, succeeded
from tests.conftest import free_port

from koupleless.cli.commands import arkctl

if TYPE_CHECKING:
    from tests.cli.conftest import FakeArklet


def completions(*words: object) -> list[str]:
    shell = ShellComplete(arkctl, {}, "arkctl", "_ARKCTL_COMPLETE")
    *before, last = map(str, words)
    return [item.value for item in shell.get_completions(before, last)]


@pytest.mark.parametrize("command", ["show", "undeploy", "health", "env", "logs", "run", "restart", "rollback"])
def test_names_of_modules(arklet: FakeArklet, command: str) -> None:
    arklet.says("queryAllBiz", succeeded([biz("shop", "1"), biz("shop", "2"), biz("stock", "1"), biz("news", "1")]))
    assert completions(command, "--port", arklet.port, "s") == ["shop", "stock"]


def test_identities_of_modules(arklet: FakeArklet) -> None:
    arklet.says("queryAllBiz", succeeded([biz("shop", "1"), biz("shop", "2"), biz("news", "1")]))
    assert completions("switch", "--port", arklet.port, "shop") == ["shop:1", "shop:2"]


def test_without_a_base_there_are_none() -> None:
    assert completions("show", "--port", free_port(), "") == []


def test_a_shell_gets_its_script_and_its_answers(arklet: FakeArklet) -> None:
    arklet.says("queryAllBiz", succeeded([biz("shop", "1")]))

    def ask(**variables: str) -> str:
        code = "import sys; from koupleless.cli.commands import main; sys.exit(main())"
        command = [sys.executable, "-P", "-c", code]
        environment = {**os.environ, **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    assert "complete -o nosort -F _arkctl_completion arkctl" in ask(_ARKCTL_COMPLETE="bash_source")
    words = f"arkctl show --port {arklet.port} s"
    assert ask(_ARKCTL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="4") == "plain,shop\n"

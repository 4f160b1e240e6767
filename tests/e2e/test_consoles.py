"""Consoles inside modules: the module's own names and context, output, interrupts, limits, and the end."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import until

from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.errors import SettingsError
from koupleless.settings.base import ArkletSettings
from koupleless.wire.envelope import encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Inside

APP = """
import contextvars, koupleless
value = {value}
seen = contextvars.ContextVar("seen", default="nothing")

def who():
    return str(koupleless.current_biz())

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(value).encode()]
"""


class Terminal:
    """Asks the operations of a base for consoles."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    def ask(self, **members: Any) -> Any:
        answer = self.operations.handle("consoleBiz", encode(members))
        return answer.data if answer.is_success else answer.message

    def open(self, name: str = "shop", version: str = "1", **members: Any) -> Any:
        return self.ask(bizName=name, bizVersion=version, caller="alice", **members)

    def run(self, session: str, code: str | None, **members: Any) -> tuple[str, str, str]:
        """Give an input, and return output, errors and state once the input has run."""
        data = self.ask(session=session, code=code, **members)
        output, errors = data.output, data.errors
        while data.state == "running":
            data = self.ask(session=session)
            output, errors = output + data.output, errors + data.errors
        return output, errors, data.state


@pytest.fixture
def terminal(inside: Inside) -> Iterator[Terminal]:
    operations = Operations(inside.container, BaseMetadata(identity="me"), has_consoles=True)
    yield Terminal(operations)
    operations.close()


@pytest.fixture(scope="module")
def shops(inside_all: Inside) -> tuple[Path, Path]:
    """The artefacts of two versions of a module."""
    files = ({"shop_app.py": APP.format(value=number)} for number in (1, 2))
    one, two = (inside_all.build("shop", str(at), file, entry="shop_app:app") for at, file in enumerate(files, 1))
    return one, two


def test_code_runs_as_the_module_with_its_own_python_modules(
    inside: Inside, shops: tuple[Path, Path], terminal: Terminal
) -> None:
    for artefact in shops:
        inside.install(artefact)
    first, second = (terminal.open(version=version).session for version in ("1", "2"))
    assert terminal.run(first, "import shop_app") == ("", "", "ready")
    assert terminal.run(second, "import shop_app")[1] == ""
    assert terminal.run(first, "shop_app.value") == ("1\n", "", "ready")
    assert terminal.run(second, "shop_app.value") == ("2\n", "", "ready")
    assert terminal.run(first, "shop_app.who()")[0] == "'shop:1'\n"
    assert terminal.run(first, "shop_app.value = 7")[0] == ""
    assert inside.get("/shop").text in {"2", "7"}
    assert terminal.run(second, "shop_app.value")[0] == "2\n"
    assert "shop_app" not in sys.modules


def test_statements_of_several_lines_values_prints_and_errors(
    inside: Inside, shops: tuple[Path, Path], terminal: Terminal
) -> None:
    inside.install(shops[0])
    session = terminal.open().session
    assert terminal.run(session, "for number in range(2):") == ("", "", "more")
    assert terminal.run(session, "    print(number, number)") == ("", "", "more")
    assert terminal.run(session, "") == ("0 0\n1 1\n", "", "ready")
    assert terminal.run(session, "_ = 3; _") == ("3\n", "", "ready")
    output, errors, state = terminal.run(session, "1 / 0")
    assert (output, state) == ("", "ready")
    assert errors.startswith("Traceback")
    assert "consoles.py" not in errors
    assert errors.endswith("ZeroDivisionError: division by zero\n")
    assert "SyntaxError" in terminal.run(session, "1 +")[1]
    assert terminal.run(session, "raise SystemExit(3)")[2] == "ended"
    assert "no such console" in terminal.ask(session=session)


def test_a_script_runs_whole_and_ends_the_console(inside: Inside, shops: tuple[Path, Path], terminal: Terminal) -> None:
    inside.install(shops[0])
    data = terminal.open(code="import shop_app\nfor _ in range(2):\n    print(shop_app.value)\n", script=True)
    while data.state == "running":
        data = terminal.ask(session=data.session)
    assert (data.output, data.state, data.status) == ("1\n1\n", "ended", 0)
    data = terminal.open(code="raise SystemExit('no')", script=True)
    assert (data.errors, data.state, data.status) == ("no\n", "ended", 1)
    data = terminal.open(code="nothing", script=True)
    assert (data.state, data.status) == ("ended", 1)
    assert "NameError" in data.errors


def test_running_code_is_interrupted_and_ends_with_the_console(
    inside: Inside, shops: tuple[Path, Path], terminal: Terminal
) -> None:
    inside.install(shops[0])
    session = terminal.open().session
    assert terminal.ask(session=session, code="while True: pass").state == "more"
    assert terminal.ask(session=session, code="").state == "running"
    assert "busy" in terminal.ask(session=session, code="1")
    assert terminal.run(session, None, interrupt=True)[1:] == ("KeyboardInterrupt\n", "ready")
    assert terminal.run(session, "1 + 1") == ("2\n", "", "ready")
    terminal.ask(session=session, code="while True: pass")
    terminal.ask(session=session, code="")
    assert terminal.ask(session=session, close=True).state == "ended"
    until(lambda: not _threads(), otherwise="the thread of the console goes on")


def test_a_module_that_leaves_ends_its_consoles_and_is_freed(
    inside: Inside, shops: tuple[Path, Path], terminal: Terminal
) -> None:
    inside.install(shops[0])
    session = terminal.open().session
    assert terminal.run(session, "import shop_app; held = [shop_app] * 9") == ("", "", "ready")
    busy = terminal.open().session
    terminal.ask(session=busy, code="import shop_app")
    terminal.ask(session=busy, code="while True: shop_app.value")
    terminal.ask(session=busy, code="")
    inside.uninstall("shop:1")
    until(lambda: not _threads(), otherwise="threads of consoles go on")
    assert terminal.run(session, "1")[2] == "ended"
    assert "is started" in terminal.open()
    until(lambda: not inside.container.zombies(), otherwise="Python modules stay in memory")


def test_output_that_nobody_takes_waits_and_is_bounded(
    inside: Inside, shops: tuple[Path, Path], terminal: Terminal
) -> None:
    inside.install(shops[0])
    data = terminal.open(code="for _ in range(40):\n    print('x' * 99_999)\n", script=True)
    size = len(data.output)
    while data.state == "running":
        assert len(data.output) <= 1 << 19
        data = terminal.ask(session=data.session)
        size += len(data.output)
    assert size == 40 * 100_000


def test_consoles_are_few_and_off_by_default(inside: Inside, shops: tuple[Path, Path], terminal: Terminal) -> None:
    inside.install(shops[0])
    found = [terminal.open() for _ in range(9)]
    assert "8 consoles" in found[8]
    terminal.ask(session=found[0].session, close=True)
    assert terminal.open().state == "ready"
    assert "is started" in terminal.open("other")
    off = Operations(inside.container, BaseMetadata(identity="me"))
    assert "arklet.exec" in Terminal(off).open()
    off.close()


def test_consoles_need_a_token_also_on_loopback() -> None:
    with pytest.raises(SettingsError, match="needs a token on any address"):
        ArkletSettings(exec=True).has_consoles()
    assert ArkletSettings(exec=True, token="t").has_consoles()
    assert not ArkletSettings(token="t").has_consoles()


def test_each_console_and_each_input_is_told_on_one_line(
    inside: Inside, shops: tuple[Path, Path], terminal: Terminal, caplog: pytest.LogCaptureFixture
) -> None:
    inside.install(shops[0])
    with caplog.at_level(logging.INFO, "koupleless.console"):
        session = terminal.open().session
        terminal.run(session, "x = 1\nINFO forged")
        terminal.ask(session=session, close=True)
    told = [record.getMessage() for record in caplog.records if record.name == "koupleless.console"]
    short = session[:8]
    assert told == [
        f"console {short} in shop:1 is opened by 'alice'",
        f"console {short} in shop:1 runs: 'x = 1\\nINFO forged'",
        f"console {short} in shop:1 is closed",
    ]


def _threads() -> list[str]:
    import threading

    return [thread.name for thread in threading.enumerate() if thread.name.startswith("console ")]

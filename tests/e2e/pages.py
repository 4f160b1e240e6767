"""A reader of a page of the documentation: writes its files, runs its commands, and compares what the page shows.

Nothing else is in the fenced blocks of such a page:

- A block with the path of a file in a comment as its first line is that file.
- ``diff`` is a change to a file: ``--- path``, ``+++ path``, and the changed lines with some beside them.
- ``console`` has commands behind ``$``, each with the output below. A line ``...`` stands for any lines, and ``...``
  within a line for any text; times, dates and versions of three parts may differ. Commands without output on the page
  are only run. ``console fails`` has one command that fails.
- ``console stays`` has a server, and lines that it says when it is ready. It runs until the page ends, or, where the
  last line is ``^C``, until the next server starts.

Ports of the page are replaced by free ones.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import free_port, unmeasured, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

BASE_PORT, ARKLET_PORT, CONTROLLER_PORT = "8080", "1238", "7777"
PORTS = (BASE_PORT, ARKLET_PORT, "8000", "50051")
"""The ports that pages name: of a base, of its arklet, and of servers without a base."""
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"(?:#|//|/\*|<!--) ([\w./-]+)(?: \*/| -->)?\n")
_VARIES = re.compile(
    r"(?P<omitted>\.\.\.)|(?P<blanks> {2,})|(?P<times>(?<=\()build [^)]*(?=\)))"
    r"|\d+(?:\.\d+)*(?= ?m?s\b)|\d+\.\d+\.\d+|\d{4}-\d\d-\d\d[ T][\d:,.+]+|(?<=access: 127\.0\.0\.1:)\d+"
)
"""An omission, the blanks of a table, the times of a deployment, the time of anything, a version, a date, a client."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    language: str
    manner: str
    text: str
    line: int


def blocks_of(page: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(page):
        language, manner, text = found.groups()
        yield Block(language, manner.strip(), text, page.count("\n", 0, found.start()) + 1)


def pattern_of(lines: list[str]) -> re.Pattern[str]:
    """The pattern of an output, from the lines on the page."""
    return re.compile("".join("(?s:.*)" if line == "..." else rf"{_pattern_of(line)}\s*\n" for line in lines))


def _pattern_of(line: str) -> str:
    made, end = "", 0
    for found in _VARIES.finditer(line):
        is_text = found["omitted"] or found["times"]
        varying = ".*" if is_text else r"\s+" if found["blanks"] else r"[\d.:,+T -]+"
        made += re.escape(line[end : found.start()]) + varying
        end = found.end()
    return made + re.escape(line[end:])


class Server:
    """A process that stays."""

    def __init__(self, command: str, *, cwd: Path, environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=cwd, env=environment, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._log.read_text("utf-8")

    def wait(self, lines: list[str]) -> None:
        """Wait until it has said these lines, and listens on each port named in them."""
        pattern = pattern_of(lines)

        def is_ready() -> bool:
            assert self._process.poll() is None, f"it ended:\n{self.said}"
            return pattern.search(self.said) is not None

        until(is_ready, 60, otherwise=f"{lines} was not said")
        for port in re.findall(r"(?<=:)\d{4,5}\b", "".join(lines)):
            until(functools.partial(_answers, int(port)), 60, otherwise=f"nothing listens on {port}")

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


class Reader:
    """Does in a directory what a page says. To be closed, which ends the servers that the page started."""

    def __init__(
        self,
        directory: Path,
        *,
        ports: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
        path: Path | None = None,
    ) -> None:
        """``ports`` are named by the page beside `PORTS`; ``path`` has programs that the machine may lack."""
        self.directory = directory
        self.ports = {port: str(free_port()) for port in (*PORTS, *ports)}
        self._cwd = directory
        self._servers: list[Server] = []
        self._leaving: list[Server] = []
        self._home = directory.with_name(f"{directory.name}-home")
        self._home.mkdir()
        self._environment = {
            **{name: value for name, value in unmeasured().items() if not name.startswith(("KOUPLELESS_", "XDG_"))},
            "HOME": str(self._home),
            "XDG_STATE_HOME": str(self._home / "state"),  # root's would be the machine's
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}{path or ''}",
            "PYTHONUNBUFFERED": "1",
            # Plugins of the environment of these tests, which say something or take time.
            "PYTEST_ADDOPTS": "-p no:dash -p no:schemathesis -p no:time_machine -p no:random_order -p no:cacheprovider",
            "KOUPLELESS_BASE_PORT": self.ports[BASE_PORT],
            "KOUPLELESS_ARKLET_PORT": self.ports[ARKLET_PORT],
            "ARKCTL_PORT": self.ports[ARKLET_PORT],
            "KOUPLELESS_CONTROLLER_PORT": self.ports.get(CONTROLLER_PORT, CONTROLLER_PORT),
            "KOUPLELESS_CONTROLLER_PROBES_PORT": str(free_port()),
            **(environment or {}),
        }

    def follow(self, page: str) -> None:
        """Do everything the page says, from the first block to the last."""
        ports = re.compile(rf"\b(?:{'|'.join(self.ports)})\b")
        for block in blocks_of(page):
            text = ports.sub(lambda found: self.ports[found[0]], block.text)
            try:
                self._follow(block, text)
            except AssertionError as error:
                said = "".join(f"\n--- said by a server:\n{server.said}" for server in self._servers)
                raise AssertionError(f"line {block.line}: {error}{said}") from None

    def _follow(self, block: Block, text: str) -> None:
        if block.language == "diff":
            self._change(text)
        elif block.language != "console":
            path = _PATH.match(text)
            assert path, f"neither a file nor a command: {text}"
            target = self._cwd / path[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        elif block.manner == "stays":
            self._stay(text)
        else:
            for command, lines in commands_of(text):
                said = self.run(command, fails=block.manner == "fails")
                self.compare(block, command, lines, said)

    def compare(self, block: Block, command: str, lines: list[str], said: str) -> None:
        """Fail unless the output is as the lines on the page."""
        if lines:
            shown = "\n".join(lines)
            assert pattern_of(lines).fullmatch(said), f"$ {command}\n{said}--- but the page has:\n{shown}"

    def _change(self, text: str) -> None:
        head, *lines = text.splitlines(keepends=True)
        path = self._cwd / head.removeprefix("--- ").strip()
        assert lines[0] == f"+++ {head.removeprefix('--- ')}"
        before, after = ("".join(line[1:] for line in lines[1:] if line[0] in kept) for kept in (" -", " +"))
        old = path.read_text("utf-8")
        assert old.count(before) == 1, f"{path.name} has {old.count(before)} times:\n{before}"
        path.write_text(old.replace(before, after), encoding="utf-8")

    def _stay(self, text: str) -> None:
        ((command, lines),) = commands_of(text)
        while self._leaving:
            self._leaving.pop().end()
        log = self._home / f"{len(self._servers)}.log"
        server = Server(command, cwd=self._cwd, environment=self._environment, log=log)
        self._servers.append(server)
        if lines[-1] == "^C":
            self._leaving.append(server)
        server.wait([line for line in lines if line != "^C"])

    def run(self, command: str, *, fails: bool = False) -> str:
        """What a command says in a shell; the directory that it goes to is the one of the next command."""
        place = self._home / "cwd"
        script = f"{command}\nstatus=$?; pwd >{place}; exit $status"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self._cwd, env=self._environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode != 0) is fails, f"$ {command}\n{done.stdout}--- status {done.returncode}"
        self._cwd = Path(place.read_text().strip())
        # An answer of HTTP ends without the end of a line.
        return done.stdout if done.stdout.endswith("\n") else f"{done.stdout}\n"

    def close(self) -> None:
        for server in reversed(self._servers):
            server.end()


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines of output."""
    found: list[tuple[str, list[str]]] = []
    for line in text.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found

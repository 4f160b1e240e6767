"""Consoles by ``kubectl exec``: Python code inside the module of a container, as far as the base allows.

A module is no process: ``python``, ``python -c CODE`` and ``python -`` with a script are the commands there are. Input
and output go by questions to the base, so a console needs no further way to the base. With a terminal, this end echoes
and edits lines, as the terminal of a process would.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.controller.kubelet.logs import Senseless
from koupleless.controller.kubelet.transport.streams import Session, StreamGone
from koupleless.controller.tunnels.tunnel import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from koupleless.controller.kubelet.places import Bases, Located
    from koupleless.controller.kubelet.transport.server import Exchange, Request
    from koupleless.controller.kubelet.transport.streams import Stream

PROTOCOLS: Final = ("v4.channel.k8s.io",)
_STREAMS_S: Final = 30.0
_LAST_S: Final = 5.0
_MOST_SCRIPT: Final = 512 << 10
_TRUE: Final = frozenset({"1", "true"})
_LONGEST_LINE: Final = 64 << 10
_HELP: Final = (
    "a module is no process, and runs Python alone: `-- python -c CODE`, `-- python -` with a script as input (-i), or "
    "`-- python` with a terminal (-it)"
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a client."""

    code: str | None
    """The code given; ``None`` for code that comes as input."""
    streams: frozenset[str]
    """The kinds of streams that the client opens."""
    has_terminal: bool

    @classmethod
    def of(cls, request: Request) -> Self:
        """Read the query of a request. Raises `Senseless`."""
        words = list(request.query.get("command", ()))
        has_terminal = request.first("tty").lower() in _TRUE
        kinds = {"input": "stdin", "output": "stdout"} if has_terminal else _KINDS
        streams = {kind for name, kind in kinds.items() if request.first(name).lower() in _TRUE}
        code = _code(words)
        if code is None and "stdin" not in streams:
            raise Senseless(f"there is no code to run: {_HELP}")
        if has_terminal:
            streams.add("resize")
        return cls(code, frozenset({*streams, "error"}), has_terminal)


_KINDS: Final[Mapping[str, str]] = {"input": "stdin", "output": "stdout", "error": "stderr"}


def _code(words: Sequence[str]) -> str | None:
    head, *rest = words or [""]
    if head.rpartition("/")[2] in {"python", "python3"}:
        match rest:
            case [] | ["-"] | ["-i"]:
                return None
            case ["-c", code]:
                return code
    raise Senseless(_HELP)


class Console:
    """One console of a client, in one module. Lifetime: `open`, one call of `run`, and `close`."""

    def __init__(self, bases: Bases, found: Located, command: Command, *, caller: str) -> None:
        self._bases = bases
        self._found = found
        self._command = command
        self._caller = caller
        self._identity = ""
        self._streams: dict[str, Stream] = {}
        self._is_whole = asyncio.Event()

    async def open(self) -> None:
        """Open the console in the base. Raises `NoAnswer`."""
        key = self._found.module.key
        await self._ask({"bizName": key.name, "bizVersion": key.version, "caller": self._caller})

    async def close(self) -> None:
        """End the console in the base. Idempotent."""
        identity, self._identity = self._identity, ""
        if identity:
            with contextlib.suppress(NoAnswer):
                await self._bases.ask(self._found.base, "consoleBiz", {"session": identity, "close": True})

    async def run(self, exchange: Exchange, protocol: str) -> None:
        """Leave HTTP, and run the command of the client."""
        headers = {"x_stream_protocol_version": protocol} if protocol else {}
        source, sink = await exchange.switch("SPDY/3.1", **headers)
        session = Session(source, sink, self._open)
        serving = asyncio.create_task(session.run())
        working = asyncio.create_task(self._work())
        try:
            await asyncio.wait([serving, working], return_when=asyncio.FIRST_COMPLETED)
            if working.done() and not working.cancelled() and working.exception() is None:
                await asyncio.wait([serving], timeout=_LAST_S)  # the client closes the connection after the last words
        finally:
            for task in (serving, working):
                task.cancel()
            await asyncio.gather(serving, working, return_exceptions=True)

    def _open(self, stream: Stream) -> bool:
        kind = stream.headers.get("streamtype", "")
        if kind not in self._command.streams or kind in self._streams:
            return False
        self._streams[kind] = stream
        if self._streams.keys() == self._command.streams:
            self._is_whole.set()
        return True

    async def _work(self) -> None:
        async with asyncio.timeout(_STREAMS_S):
            await self._is_whole.wait()
        try:
            if self._command.has_terminal and self._command.code is None:
                status = await _Terminal(self, self._streams).run()
            else:
                status = await self._run_script()
            said = _outcome(status)
        except NoAnswer as error:
            said = _failure("InternalError", str(error))
        with contextlib.suppress(StreamGone):
            await self._streams["error"].write(json.dumps(said).encode())
        for stream in self._streams.values():
            stream.ignore()
            await stream.end()

    async def _run_script(self) -> int:
        code = self._command.code
        if code is None:
            code = await self._read_script()
        answer = await self.ask({"code": code, "script": True})
        while True:
            await self.show(answer)
            if answer["state"] != "running":
                return int(answer.get("status") or 0)
            answer = await self.ask({})

    async def _read_script(self) -> str:
        script = bytearray()
        while piece := await self._streams["stdin"].read():
            script += piece
            if len(script) > _MOST_SCRIPT:
                raise NoAnswer(f"the script has more than {_MOST_SCRIPT} bytes")
        return script.decode("utf-8", "replace")

    async def ask(self, members: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the open console. Raises `NoAnswer`."""
        return await self._ask({"session": self._identity, **members})

    async def _ask(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = await self._bases.ask(self._found.base, "consoleBiz", body)
        if not isinstance(answer.get("session"), str) or not isinstance(answer.get("state"), str):
            raise NoAnswer("the answer of the base is none of a console")
        self._identity = "" if answer["state"] == "ended" else answer["session"]
        return answer

    async def show(self, answer: Mapping[str, Any]) -> None:
        """Send output to the client; to a terminal with the line ends of one."""
        for kind, text in (("stdout", answer.get("output")), ("stderr", answer.get("errors"))):
            if not text:
                continue
            stream = self._streams.get("stdout" if self._command.has_terminal else kind)
            if stream is not None:
                shown = str(text).replace("\n", "\r\n") if self._command.has_terminal else str(text)
                await stream.write(shown.encode("utf-8", "replace"))

    @property
    def banner(self) -> str:
        """The first line on a terminal."""
        found = self._found
        return f"Python inside {found.module.key} of base {found.base.identity}; Ctrl-D ends the console\n"


def _outcome(status: int) -> dict[str, Any]:
    if not status:
        return {"metadata": {}, "status": "Success"}
    message = f"command terminated with non-zero exit code: exit status {status}"
    causes = [{"reason": "ExitCode", "message": str(status)}]
    return _failure("NonZeroExitCode", message) | {"details": {"causes": causes}}


def _failure(reason: str, message: str) -> dict[str, Any]:
    return {"metadata": {}, "status": "Failure", "reason": reason, "message": message}


class _Terminal:
    """The terminal of an interactive console: echo, line editing, prompts and interrupts."""

    def __init__(self, console: Console, streams: Mapping[str, Stream]) -> None:
        self._console = console
        self._input = streams["stdin"]
        self._output = streams.get("stdout")
        self._lines: asyncio.Queue[str | None] = asyncio.Queue(maxsize=64)
        self._is_interrupted = False
        self._line: list[str] = []
        self._is_escape = False
        self._keys: Mapping[str, Callable[[], Awaitable[None]]] = {
            "\x1b": self._escape,
            "\r": self._enter,
            "\n": self._enter,
            "\x03": self._interrupt,
            "\x04": self._leave,
            "\x7f": self._erase,
            "\x08": self._erase,
            "\x15": self._erase_line,
        }

    async def run(self) -> int:
        """Run inputs until the client ends the console; returns the exit status."""
        reading = asyncio.create_task(self._read())
        try:
            await self._say(self._console.banner.replace("\n", "\r\n"))
            prompt = ">>> "
            while True:
                await self._say(prompt)
                line = await self._lines.get()
                if line is None:
                    return 0
                answer = await self._ask({"code": line})
                while answer["state"] == "running":
                    answer = await self._ask({})
                if answer["state"] == "ended":
                    return int(answer.get("status") or 0)
                prompt = "... " if answer["state"] == "more" else ">>> "
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _ask(self, members: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the console, or interrupt the console in the place of that, and show the output."""
        is_interrupted, self._is_interrupted = self._is_interrupted, False
        answer = await self._console.ask({"interrupt": True} if is_interrupted else members)
        await self._console.show(answer)
        return answer

    async def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(StreamGone):
            while piece := await self._input.read():
                for character in decoder.decode(piece):
                    await self._take(character)
        await self._lines.put(None)

    async def _take(self, character: str) -> None:
        if self._is_escape:  # keys such as arrows: passed over, up to the letter that ends them
            self._is_escape = not (character.isalpha() or character == "~") or character in "[O"
        elif character in self._keys:
            await self._keys[character]()
        elif (character.isprintable() or character == "\t") and len(self._line) < _LONGEST_LINE:
            self._line.append(character)
            await self._say(character)

    async def _escape(self) -> None:
        self._is_escape = True

    async def _enter(self) -> None:
        await self._say("\r\n")
        await self._submit()

    async def _interrupt(self) -> None:
        self._is_interrupted = True
        self._line.clear()
        await self._say("^C\r\n")
        if not self._lines.full():  # a prompt that waits for a line goes on
            await self._submit()

    async def _leave(self) -> None:
        if not self._line:
            await self._say("\r\n")
            await self._lines.put(None)

    async def _erase(self) -> None:
        if self._line:
            self._line.pop()
            await self._say("\b \b")

    async def _erase_line(self) -> None:
        await self._say("\b \b" * len(self._line))
        self._line.clear()

    async def _submit(self) -> None:
        line = "".join(self._line)
        self._line.clear()
        await self._lines.put(line)

    async def _say(self, text: str) -> None:
        if self._output is not None:
            await self._output.write(text.encode("utf-8", "replace"))

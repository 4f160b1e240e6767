"""Consoles by ``kubectl exec``, against a base in memory: commands, streams, terminals, refusals, vanished clients."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.kubelet.test_api import Doors, Served, World, _until, served

from koupleless.controller.tunnels.tunnel import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.controller.kubelet.spdy import Client

    from koupleless.controller.vnodes.base import AnnouncedBase

V4 = {"X-Stream-Protocol-Version": "v4.channel.k8s.io"}
TTY = "/exec/shop/one/orders?command=python&input=1&output=1&tty=1"


class ConsoleWorld(World):
    """A base that upper-cases lines; ``loop`` runs until it is interrupted, ``end`` ends, ``if:`` wants more."""

    def __init__(self) -> None:
        super().__init__()
        self.open = 0
        self.callers: list[str] = []
        self.refusal = ""
        self.is_gone = False
        self._state = "ready"

    async def ask(self, base: AnnouncedBase, command: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if command != "consoleBiz":
            return await super().ask(base, command, body)
        await asyncio.sleep(0.01)
        if self.refusal or self.is_gone:
            raise NoAnswer(self.refusal or "base base-1 gives no answer")
        self.asked.append(body)
        output, status = "", 0
        if "session" not in body:
            self.open += 1
            self.callers.append(str(body["caller"]))
            self._state = "ready"
        elif body.get("close"):
            self.open -= 1
            self._state = "ended"
        elif body.get("interrupt"):
            output, self._state = "interrupted\n", "ready"
        elif (code := body.get("code")) is not None:
            self._state = {"loop": "running", "if:": "more"}.get(str(code), "ready")
            output = "" if self._state != "ready" else f"{str(code).upper()}\n"
            if body.get("script") or code == "end":
                self._state, status = "ended", 3 if code == "fail" else 0
                self.open -= 1
        return {"session": "s1", "output": output, "errors": "", "state": self._state, "status": status}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    return Doors(tmp_path_factory.mktemp("doors"))


def play(doors: Doors, act: Callable[[Served, ConsoleWorld], Awaitable[None]]) -> ConsoleWorld:
    world = ConsoleWorld()

    async def run() -> None:
        async with asyncio.timeout(30), served(world, doors) as found:
            await act(found, world)

    asyncio.run(run())
    return world


async def opened(served: Served, path: str, *kinds: str) -> tuple[Client, dict[str, int]]:
    head, client = await served.upgrade(path, **V4)
    assert head.startswith("HTTP/1.1 101"), head
    assert "v4.channel.k8s.io" in head
    return client, {kind: client.open(streamtype=kind) for kind in kinds}


def test_a_command_has_output_and_an_exit_status(doors: Doors) -> None:
    async def act(served: Served, world: ConsoleWorld) -> None:
        for code, expected in (("ok", "Success"), ("fail", "Failure")):
            path = f"/exec/shop/one/orders?command=python3&command=-c&command={code}&output=1&error=1"
            client, streams = await opened(served, path, "error", "stdout", "stderr")
            await client.until(lambda client=client, streams=streams: client.ended == set(streams.values()))
            assert client.got[streams["stdout"]].decode() == f"{code.upper()}\n"
            said = json.loads(client.got[streams["error"]])
            assert said["status"] == expected
            if expected == "Failure":
                assert said["reason"] == "NonZeroExitCode"
                assert said["details"] == {"causes": [{"reason": "ExitCode", "message": "3"}]}
            await client.close()

    world = play(doors, act)
    assert world.callers == ["alice for Pod shop/one"] * 2
    assert world.open == 0


def test_a_script_comes_as_input(doors: Doors) -> None:
    async def act(served: Served, world: ConsoleWorld) -> None:
        path = "/exec/shop/one/orders?command=/usr/bin/python&command=-&input=1&output=1&error=1"
        client, streams = await opened(served, path, "error", "stdin", "stdout", "stderr")
        client.send(streams["stdin"], b"a\n")
        client.send(streams["stdin"], b"b", is_last=True)
        await client.until(lambda: streams["error"] in client.ended)
        assert client.got[streams["stdout"]] == b"A\nB\n"
        await client.close()
        client, streams = await opened(served, path, "error", "stdin", "stdout", "stderr")
        for _ in range(20):
            client.send(streams["stdin"], bytes(64 << 10))
        await client.until(lambda: streams["error"] in client.ended)
        assert "the script has more than" in json.loads(client.got[streams["error"]])["message"]
        await client.close()
        await _until(lambda: world.open == 0)

    play(doors, act)


def test_a_terminal_echoes_and_edits_lines(doors: Doors) -> None:
    async def act(served: Served, world: ConsoleWorld) -> None:
        client, streams = await opened(served, TTY, "error", "stdin", "stdout", "resize")
        shown = client.got.setdefault(streams["stdout"], bytearray())

        async def typed(keys: str, then: str) -> None:
            shown.clear()
            client.send(streams["stdin"], keys.encode())
            await client.until(lambda: shown.decode().endswith(then))

        await client.until(lambda: shown.endswith(b"Ctrl-D ends the console\r\n>>> "))
        client.send(streams["resize"], b'{"Width":80,"Height":24}')
        await typed("abx\x7fc\r", "abx\b \bc\r\nABC\r\n>>> ")
        await typed("\x1b[A\x1b[3~é\r", "é\r\nÉ\r\n>>> ")
        await typed("wrong\x15\r", "\b \b" * 5 + "\r\n\r\n>>> ")
        await typed("if:\r", "if:\r\n... ")
        await typed("\x03", "^C\r\ninterrupted\r\n>>> ")
        await typed("loop\r", "loop\r\n")
        await _until(lambda: world._state == "running")
        await typed("\x03", "interrupted\r\n>>> " + "\r\n>>> ")
        await typed("x\x04\r", "x\r\nX\r\n>>> ")  # Ctrl-D within a line ends nothing
        client.send(streams["stdin"], b"\x04")
        await client.until(lambda: streams["error"] in client.ended)
        assert json.loads(client.got[streams["error"]])["status"] == "Success"
        await client.close()
        await _until(lambda: world.open == 0)

    play(doors, act)


def test_a_client_that_vanishes_leaves_no_console(doors: Doors) -> None:
    async def act(served: Served, world: ConsoleWorld) -> None:
        for keys in (b"", b"loop\r"):
            client, streams = await opened(served, TTY, "error", "stdin", "stdout", "resize")
            client.send(streams["stdin"], keys)
            await client.until(lambda client=client, streams=streams: client.got.get(streams["stdout"]))
            client.writer.transport.abort()
            await client.close()
            await _until(lambda: world.open == 0)

    play(doors, act)


def test_a_base_that_is_gone_ends_the_command_with_words(doors: Doors) -> None:
    async def act(served: Served, world: ConsoleWorld) -> None:
        client, streams = await opened(served, TTY, "error", "stdin", "stdout", "resize")
        client.send(streams["stdin"], b"loop\r")
        await _until(lambda: world._state == "running")
        world.is_gone = True
        await client.until(lambda: streams["error"] in client.ended)
        assert json.loads(client.got[streams["error"]])["message"] == "base base-1 gives no answer"
        await client.close()

    play(doors, act)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("command=sh&input=1&output=1&tty=1", "a module is no process"),
        ("command=python&command=-m&command=http.server&output=1", "a module is no process"),
        ("command=python&output=1", "there is no code to run"),
        ("output=1&input=1", "a module is no process"),
    ],
)
def test_other_commands_are_refused_with_words(doors: Doors, query: str, words: str) -> None:
    async def act(served: Served, world: ConsoleWorld) -> None:
        said, _ = await served.upgrade(f"/exec/shop/one/orders?{query}", **V4)
        assert said.startswith("HTTP/1.1 400")
        assert words in said

    assert play(doors, act).asked == []


def test_a_base_without_consoles_a_stranger_and_a_reader_open_none(doors: Doors) -> None:
    async def act(served: Served, world: ConsoleWorld) -> None:
        world.refusal = "base refuses consoleBiz: consoles are off in this base"
        said, _ = await served.upgrade(TTY, **V4)
        assert said.startswith("HTTP/1.1 500")
        assert "consoles are off" in said
        world.refusal = ""
        assert (await served.upgrade(TTY, token="", **V4))[0].startswith("HTTP/1.1 401")
        assert (await served.upgrade(TTY, token="weak", **V4))[0].startswith("HTTP/1.1 403")
        world.users["reading"] = ("carol", [])
        world.rights.add(("carol", "get"))
        assert (await served.upgrade(TTY, token="reading", **V4))[0].startswith("HTTP/1.1 403")
        assert world.open == 0

    play(doors, act)

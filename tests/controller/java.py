"""A Java base that answers with recorded bytes: no length, no type, the end of the connection ends the answer.

The recordings are those of the contract tests, with names of the modules of a test in the place of the recorded ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_RECORDED: Final = Path(__file__).parents[1] / "contract" / "recorded.jsonl"
_MEMBERS: Final = ("bizState", "state")


def _recordings() -> dict[str, str]:
    """The recorded replies by their ids, as JSON with numbers in the place of the marks of numbers."""
    found: dict[str, str] = {}
    for line in _RECORDED.read_text(encoding="utf-8").splitlines():
        exchange = json.loads(line)
        if exchange.get("reply") is not None:
            text = json.dumps(exchange["reply"])
            text = text.replace('"${int}"', "1731000000000").replace('"${number}"', "268435456")
            found[exchange["id"]] = re.sub(r"\$\{\w+\}", "0", text)
    return found


RECORDINGS: Final = _recordings()


@dataclass
class Biz:
    state: str
    changed: int
    """The number of changes of the base before the last change of this state."""


@dataclass
class JavaBase:
    """The state of a Java base of a test, and the replies."""

    word: Callable[[str], str] = str.lower
    """The case of letters of states, by the version of the base."""
    bizs: dict[tuple[str, str], Biz] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """Names of modules that fail to start."""
    shows_broken: bool = False
    """Whether a module that has failed to start stays in the list, as of a base of 1.4."""
    loses: set[str] = field(default_factory=set)
    """Commands of which the next one is carried out, and not answered."""
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, installs last."""
    port: int = 0
    _under_way: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.hold.set()

    def states(self) -> dict[str, str]:
        return {":".join(key): biz.state for key, biz in self.bizs.items()}

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        body = json.loads(await reader.readexactly(int(length[1]) if length else 0) or b"{}")
        command = head.split()[1].strip("/")
        reply = await self._reply(command, body)
        with contextlib.suppress(OSError):
            if command in self.loses:
                self.loses.discard(command)
                writer.transport.abort()
                return
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            for at in range(0, len(reply), 700):  # as in several packets
                writer.write(reply[at : at + 700].encode())
                await writer.drain()
            writer.close()

    async def _reply(self, command: str, body: dict[str, Any]) -> str:
        if command == "health":
            return self._written(RECORDINGS["138-health-installed-all"])
        if command == "queryAllBiz":
            return self._written(self._list())
        key = (body["bizName"], body["bizVersion"])
        self.calls.append(f"{command} {key[0]}:{key[1]}")
        if key in self._under_way:
            self.calls[-1] += " amid another"
            return self._of("252-uninstall-during-install", "copy10", key)
        self._under_way.add(key)
        try:
            return self._written(await self._act(command, key))
        finally:
            self._under_way.discard(key)

    async def _act(self, command: str, key: tuple[str, str]) -> str:
        if command == "installBiz":
            await self.hold.wait()
            return self._install(key)
        if key not in self.bizs:
            unknown = {"switchBiz": "174-switch-unknown", "uninstallBiz": "186-uninstall-missing-version"}[command]
            return RECORDINGS[unknown]
        if command == "switchBiz":
            for other in self._versions(key[0]):
                self._change(other, "activated" if other == key else "deactivated")
            return RECORDINGS["168-switch-to-second"]
        del self.bizs[key]
        return self._of("197-uninstall-clean-copy01", "copy01", key)

    def _install(self, key: tuple[str, str]) -> str:
        if key in self.bizs:
            return RECORDINGS["118-install-duplicate"]
        if key[0] in self.broken:
            if self.shows_broken:
                self._change(key, "broken")
            return RECORDINGS["105-install-broken-spring"]
        if self._versions(key[0]):
            self._change(key, "deactivated")
            return RECORDINGS["164-install-second-version-ctx"]
        self._change(key, "activated")
        return self._of("136-install-http", "copy03", key)

    def _versions(self, name: str) -> list[tuple[str, str]]:
        return [key for key in self.bizs if key[0] == name]

    def _change(self, key: tuple[str, str], state: str) -> None:
        changes = 1 + sum(biz.changed for biz in self.bizs.values())
        self.bizs[key] = Biz(state, changes)

    def _of(self, recording: str, name: str, key: tuple[str, str]) -> str:
        return RECORDINGS[recording].replace(f"{name}:1.0.0", ":".join(key)).replace(name, key[0])

    def _list(self) -> str:
        listed = json.loads(RECORDINGS["123-queryAllBiz-two"])
        (like,) = (one for one in listed["data"] if one["bizName"] == "copy01")
        created = like["bizStateRecords"][0]
        listed["data"] = [
            {
                **like,
                "bizName": name,
                "bizVersion": version,
                "bizState": biz.state,
                "bizStateRecords": [
                    created,
                    {**created, "changeTime": created["changeTime"] + biz.changed * 1_000, "state": biz.state},
                ],
            }
            for (name, version), biz in self.bizs.items()
        ]
        return json.dumps(listed)

    def _written(self, text: str) -> str:
        """A reply in the letters of this base."""

        def members(value: Any) -> Any:
            if isinstance(value, dict):
                return {
                    name: self.word(one) if name in _MEMBERS and isinstance(one, str) else members(one)
                    for name, one in value.items()
                }
            return [members(one) for one in value] if isinstance(value, list) else value

        return json.dumps(members(json.loads(text)))

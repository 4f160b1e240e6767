"""Commands that come over MQTT, done by the operations that also serve HTTP."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final

from koupleless.announce.fortune import logger
from koupleless.announce.letters import answer, is_missing, letter, plain, simple_list
from koupleless.wire.announcements import decode_baseline
from koupleless.wire.envelope import MAX_BODY_BYTES, InputInvalid, ReplyInvalid, decode_body
from koupleless.wire.requests import BizRequest, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.announce.baseline import Baseline
    from koupleless.announce.letters import Outbox, Topics
    from koupleless.wire.envelope import Envelope

_CHANGES: Final = frozenset({"installBiz", "switchBiz", "uninstallBiz"})
_BASELINE: Final = "base/baseline"
_LONGEST: Final = 100
"""Letters of an unknown command in the log."""


class Commands:
    """Does the commands of one session, and puts the answers into the outbox.

    Questions are answered at once. Changes are made on the workers of the operations, those about one name in the order
    in which they came: an uninstall does not overtake an install. Lifetime: of the session; used on its loop alone.
    """

    def __init__(
        self,
        baseline: Baseline,
        topics: Topics,
        outbox: Outbox,
        *,
        obeys_retained: bool,
    ) -> None:
        """``obeys_retained`` says whether changes kept by the broker are made."""
        self.has_baseline = False
        """Whether a controller has sent a baseline since the start of the base."""
        self._baseline = baseline
        self._operations = baseline.operations
        self._topics = topics
        self._outbox = outbox
        self._obeys_retained = obeys_retained
        self._last: dict[str, asyncio.Task[None]] = {}

    def take(self, topic: str, content: bytes, *, is_retained: bool) -> None:
        """Begin to do one command. Never raises."""
        command = self._topics.command_of(topic)
        if len(content) > MAX_BODY_BYTES:
            logger.warning("%s over MQTT has %s bytes, and is ignored", command, len(content))
        elif command == "health":
            self._answer("health", plain(self._operations.handle(command, content)))
        elif command == "queryAllBiz":
            reply = self._operations.handle(command, content)
            if reply.is_success:
                self._answer("simpleBiz", simple_list(reply.data))
        elif command not in _CHANGES and command != _BASELINE:
            logger.warning("unsupported command %s over MQTT, which is ignored", command[:_LONGEST])
        elif not content:
            return  # a kept message that was deleted at the broker
        elif is_retained and not self._obeys_retained:
            logger.info("%s over MQTT was kept by the broker from former times, and is ignored", command)
        elif command == _BASELINE:
            self._in_order("", self._do_baseline, content)
        else:
            self._in_order(_name_in(content), functools.partial(self._do_change, command), content)

    def _answer(self, kind: str, data: object, *, is_lasting: bool = False) -> None:
        self._outbox.put(self._topics.out(kind), letter(data), is_lasting=is_lasting)

    # --- changes -------------------------------------------------------------------------------------------------

    def _in_order(self, key: str, do: Callable[[bytes], Any], content: bytes) -> None:
        """Do a change after all former ones with the same key."""
        before = self._last.get(key)

        async def follow() -> None:
            try:
                if before is not None:
                    await asyncio.wait({before})
                await do(content)
            finally:
                if self._last.get(key) is task:
                    del self._last[key]

        task = self._last[key] = asyncio.get_running_loop().create_task(follow(), name=f"{key or 'baseline'} over MQTT")

    async def _do_change(self, command: str, content: bytes) -> None:
        reply = await self._on_a_worker(command, self._operations.handle, command, content)
        if command == "uninstallBiz" and is_missing(reply):
            return  # to an answer, the original controller sends the command again, for ever
        name, version = _identity_in(content)
        self._answer("bizOperation", answer(command, reply, name=name, version=version), is_lasting=True)

    async def _do_baseline(self, content: bytes) -> None:
        self.has_baseline = True
        try:
            wanted = decode_baseline(content)
        except (ReplyInvalid, InputInvalid) as error:
            logger.warning("the baseline that came over MQTT is ignored: %s", error)
            return
        reply = await self._on_a_worker("batchInstallBiz", self._baseline.bring, wanted)
        self._answer("batchInstallBizResponse", answer("batchInstallBiz", reply), is_lasting=True)

    async def _on_a_worker(self, command: str, function: Callable[..., Envelope], *arguments: object) -> Envelope:
        try:
            doing = asyncio.get_running_loop().run_in_executor(self._operations.workers, function, *arguments)
        except RuntimeError:  # the workers take no more work: the base ends
            return self._operations.give_up(command)
        return await doing


def _identity_in(content: bytes) -> tuple[str | None, str | None]:
    try:
        request = read(BizRequest, decode_body(content))
    except InputInvalid:
        return None, None
    return request.biz_name, request.biz_version


def _name_in(content: bytes) -> str:
    return _identity_in(content)[0] or "-"

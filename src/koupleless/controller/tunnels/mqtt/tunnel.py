"""The MQTT tunnel: commands out, and the answers to these.

A message to a base that is not subscribed at the moment is lost, and so is the answer to a controller without a
connection. A change is therefore sent to a base heard on the present connection alone, and if no answer comes, the list
of the base decides: the change is over, under way, or sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.controller.tunnels.answers import (
    Answer,
    Outcome,
    answer_to_install,
    answer_to_switch,
    answer_to_uninstall,
)
from koupleless.controller.tunnels.mqtt.clocks import Clocks
from koupleless.controller.tunnels.mqtt.inbox import LIST, Inbox
from koupleless.controller.tunnels.mqtt.leftovers import LISTEN_S, Leftovers
from koupleless.controller.tunnels.mqtt.letters import HEALTH, Topics, fits_topics, operation_question
from koupleless.controller.tunnels.mqtt.link import Link
from koupleless.controller.tunnels.mqtt.pending import Again, Pending
from koupleless.controller.tunnels.tunnel import (
    Deaf,
    Health,
    Limits,
    NoAnswer,
    install_body,
    read_health,
    uninstall_body,
)
from koupleless.controller.vpods.actual import State, table_of
from koupleless.wire.envelope import Envelope, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from koupleless.controller.tunnels.mqtt.broker import Broker
    from koupleless.controller.tunnels.mqtt.inbox import Audience
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.module import Module, ModuleKey

DOUBT_S: Final = 15.0
"""Seconds without an answer to a change before the list of the base is asked; then twice as long, and so on."""
_GRACE_S: Final = 60.0
"""Seconds after a connect in which bases may connect, too; until then silence says nothing about a base."""
_IDLE_S: Final = 120.0
"""Seconds after the last question to a base before its answers are no longer heard: another controller leads."""
_HOUSEKEEPING_S: Final = 30.0
_MOST_BASELINES: Final = 1_000
"""Baselines that are sent at a time; a base asks again."""

_NO_SWITCH: Final = (
    "bases of the original take no switch over MQTT: start the base with -Dactivate.new.module=true, or let the "
    "controller reach the arklet over HTTP"
)


@dataclass(frozen=True, slots=True)
class _Change:
    """One change of the modules of a base."""

    command: str
    key: ModuleKey
    body: Mapping[str, Any]
    limit_s: float
    judge: Callable[[Envelope], Answer]

    @property
    def subject(self) -> str:
        return operation_question(self.command, *self.key)


class MqttTunnel:
    """All bases of one env behind a broker.

    Lifetime: of a task that calls `run`; before and after, no base gives an answer. Threads: one event loop.
    """

    def __init__(
        self,
        broker: Broker,
        env: str,
        *,
        limits: Limits = Limits(),
        doubt_s: float = DOUBT_S,
        listen_s: float = LISTEN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``doubt_s`` and ``listen_s`` are the patience with lost answers and with kept commands."""
        self._topics = Topics.of(env)
        self._limits = limits
        self._doubt_s = doubt_s
        self._clock = clock
        self._clocks = Clocks(clock=clock)
        self._pending = Pending()
        self._leftovers = Leftovers(self._topics.leftovers, listen_s=listen_s)
        self._broker = broker
        self._link: Link | None = None
        self._inbox: Inbox | None = None
        self._asked: dict[str, float] = {}
        """The time of the last question to each base with answers that are heard."""
        self._sending: dict[str, asyncio.Task[None]] = {}
        """The baselines under way, by base."""

    @property
    def trouble(self) -> str:
        """The reason why no base is reached; empty if the broker is."""
        return "the MQTT tunnel is not open" if self._link is None else self._link.trouble

    async def run(self, audience: Audience, *, count: Callable[[str], object] = lambda _outcome: None) -> None:
        """Hear bases until cancelled. A broker that is away is tried again, for ever.

        ``count`` is told ``senseless`` of messages that do not reach the audience.
        """
        inbox = self._inbox = Inbox(
            audience,
            self._topics,
            self._pending,
            self._clocks,
            send_baseline=self._send_baseline,
            note_leftover=self._leftovers.note,
            count=count,
            clock=self._clock,
        )
        link = self._link = Link(
            self._broker, self._topics.broadcasts, take=inbox.take, begun=inbox.begin, ended=self._pending.fail
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(link.run())
                tasks.create_task(self._leftovers.clear(link))
                tasks.create_task(self._keep_house(link, inbox))
        finally:
            self._link = None
            self._pending.fail("the controller ends")
            for task in self._sending.values():
                task.cancel()

    # --- commands ----------------------------------------------------------------------------------------------------

    async def install(self, base: AnnouncedBase, module: Module, *, replaces: bool = False) -> Answer:
        """See `Commands.install`."""
        body, limit_s = install_body(module, replaces=replaces), self._limits.install_s
        return await self._make(base, _Change("installBiz", module.key, body, limit_s, answer_to_install))

    async def uninstall(self, base: AnnouncedBase, key: ModuleKey, *, drain_s: float | None = None) -> Answer:
        """See `Commands.uninstall`."""
        body, limit_s = uninstall_body(key, drain_s), self._limits.uninstall_s + (drain_s or 0)
        return await self._make(base, _Change("uninstallBiz", key, body, limit_s, answer_to_uninstall))

    async def switch(self, base: AnnouncedBase, key: ModuleKey) -> Answer:
        """See `Commands.switch`.

        Bases of the original have no switch over MQTT. A version installed while no other one answers does answer
        there: without another one, the version is uninstalled, and the next look at the list has it installed anew.
        """
        if base.start:  # which bases of the original do not send
            body, limit_s = uninstall_body(key, None), self._limits.health_s
            return await self._make(base, _Change("switchBiz", key, body, limit_s, answer_to_switch))
        for other in table_of(await self.modules(base)).values():
            if other.key.name == key.name and other.key != key and other.state is State.ACTIVATED:
                return Answer(Outcome.REFUSED, "NoSwitch", f"{other.key} answers, and {_NO_SWITCH}")
        answer = await self.uninstall(base, key)
        if answer.outcome is not Outcome.DONE:
            return answer
        return Answer(Outcome.UNCERTAIN, "Reinstalling", "the version is installed anew in order to answer")

    async def modules(self, base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
        """See `Commands.modules`."""
        found: tuple[Mapping[str, Any], ...] = await self._ask(base, "queryAllBiz", LIST, self._limits.list_s)
        return found

    async def health(self, base: AnnouncedBase) -> Health:
        """See `Commands.health`."""
        reply: Envelope = await self._ask(base, "health", HEALTH, self._limits.health_s)
        return read_health(reply.data) if reply.is_success else Health(None)

    async def _ask(self, base: AnnouncedBase, command: str, subject: str, limit_s: float) -> Any:
        """Ask a question that changes nothing."""
        link = await self._hear_answers(base)
        question = self._pending.open(base.identity, subject, self._clock())
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    await link.publish(self._topics.command(base.identity, command), b"{}")
                    with contextlib.suppress(Again):
                        return await question.answer(limit_s)
        except TimeoutError:
            kind = Deaf if link.age_s < _GRACE_S and not self._is_present(base) else NoAnswer
            raise kind(f"base {base.identity} gives no answer to {command} within {limit_s:g} s") from None
        finally:
            self._pending.close(base.identity, subject)

    async def _make(self, base: AnnouncedBase, change: _Change) -> Answer:
        """Make a change, at least once."""
        link = await self._hear_answers(base)
        if not self._is_present(base):
            await self.health(base)  # else the command may come before the base has subscribed, and be lost
        question = self._pending.open(base.identity, change.subject, self._clock())
        topic, content = self._topics.command(base.identity, change.command), encode(change.body)
        doubt_s, is_again = self._doubt_s, False
        try:
            async with asyncio.timeout(change.limit_s):
                await link.publish(topic, content)
                while True:
                    try:
                        answer = change.judge(await question.answer(doubt_s))
                    except TimeoutError:
                        doubt_s *= 2
                        found = await self._look(base, change)
                        if isinstance(found, Answer):
                            return found
                        if not found:
                            is_again = True
                            await link.publish(topic, content)
                        continue
                    except Again:
                        continue  # the base was heard before the change was sent
                    if not (is_again and answer.outcome is Outcome.BUSY):
                        return answer  # else the base still does the command as it came first
        except TimeoutError:
            words = f"base {base.identity} gives no answer to {change.subject} within {change.limit_s:g} s"
            raise NoAnswer(words) from None
        finally:
            self._pending.close(base.identity, change.subject)

    async def _look(self, base: AnnouncedBase, change: _Change) -> Answer | bool:
        """Look for the outcome of an unanswered change: the answer, or whether to wait on without sending again."""
        try:
            actual = table_of(await self.modules(base)).get(change.key)
        except NoAnswer:
            return True  # a base without an answer to a question has no use for the command once more
        if change.command == "uninstallBiz":
            return False if actual is not None else Answer(Outcome.DONE, "Uninstalled", "the base has no such module")
        if change.command != "installBiz" or actual is None:
            return False
        if actual.state is State.INSTALLING:
            return True
        return Answer(Outcome.UNCERTAIN, "AnswerLost", "the answer of the base was lost on the way")

    def _is_present(self, base: AnnouncedBase) -> bool:
        return self._inbox is not None and self._inbox.is_present(base.identity)

    async def _hear_answers(self, base: AnnouncedBase) -> Link:
        """Return the link, once the answers of a base are heard. Raises `NoAnswer`."""
        if self._link is None:
            raise Deaf(f"base {base.identity} cannot be reached: {self.trouble}")
        if not fits_topics(base.identity):
            raise NoAnswer(f"base {base.identity} cannot be reached over MQTT: its identity is no part of a topic")
        self._asked[base.identity] = self._clock()
        await self._link.subscribe(self._topics.answers(base.identity))
        return self._link

    # --- besides -----------------------------------------------------------------------------------------------------

    def _send_baseline(self, identity: str, modules: Sequence[dict[str, Any]]) -> None:
        """Begin to send a baseline, unless one is under way."""
        link = self._link
        if link is None or identity in self._sending or len(self._sending) >= _MOST_BASELINES:
            return

        async def send() -> None:
            try:
                with contextlib.suppress(NoAnswer):  # the base asks again
                    await link.publish(self._topics.baseline(identity), encode(list(modules)))
            finally:
                del self._sending[identity]

        self._sending[identity] = asyncio.create_task(send())

    async def _keep_house(self, link: Link, inbox: Inbox) -> None:
        """Forget bases that have gone, and hear no more of bases that another controller asks, until cancelled."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            before = self._clock() - _IDLE_S
            self._clocks.forget(before)
            inbox.forget(before)
            idle = [identity for identity, asked in self._asked.items() if asked < before]
            for identity in idle:
                del self._asked[identity]
                await link.unsubscribe(self._topics.answers(identity))

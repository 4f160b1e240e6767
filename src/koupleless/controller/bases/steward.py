"""The steward of one base: compares the Node and the Pods with the base, and works until they agree.

Level-triggered: `Steward.reconcile` looks at all facts anew, so calls may come at any time and any number may be lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.controller import names
from koupleless.controller.bases.farewells import Farewells
from koupleless.controller.bases.knowledge import Knowledge
from koupleless.controller.bases.questions import Questions
from koupleless.controller.bases.relay import Relay
from koupleless.controller.probes.prober import Prober
from koupleless.controller.tunnels.answers import Answer, Outcome
from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vnodes.base import BaseState
from koupleless.controller.vnodes.liveness import Life, Liveness
from koupleless.controller.vnodes.node import differences, node_of, node_status, words_of
from koupleless.controller.vnodes.node import is_told as is_node_told
from koupleless.controller.vnodes.ways import Ways
from koupleless.controller.vpods.attempts import Verb
from koupleless.controller.vpods.module import Refused, modules_of
from koupleless.controller.vpods.plan import SIGHTINGS, Claims, Policy, Read, agains, has_left, plan
from koupleless.controller.vpods.status import Facts, is_ready, is_told, status_of
from koupleless.controller.vpods.variables import Missing, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from typing import Any

    from koupleless.controller.bases.cluster import Cluster
    from koupleless.controller.probes.prober import Checks
    from koupleless.controller.tunnels.tunnel import Tunnel
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.module import Module, ModuleKey
    from koupleless.controller.vpods.plan import Operation
    from koupleless.controller.vpods.status import Status

_log: Final = logging.getLogger("koupleless.controller")

_FIRST_ANSWER_S: Final = 6.0
"""Seconds for the first answer of a base to a new leader that has not heard the base: till then nothing is told."""
_LONGEST: Final = 1_000
"""Characters of a message in a condition of a Node."""
_LOOK_AGAIN_S: Final = 0.5
_WORDS: Final = {
    (Verb.INSTALL, True): ("Normal", "ModuleInstalled"),
    (Verb.INSTALL, False): ("Warning", "ModuleInstallFailed"),
    (Verb.SWITCH, True): ("Normal", "ModuleSwitched"),
    (Verb.SWITCH, False): ("Warning", "ModuleSwitchFailed"),
    (Verb.RESTART, True): ("Normal", "ModuleRestarted"),
    (Verb.RESTART, False): ("Warning", "ModuleRestartFailed"),
    (Verb.UNINSTALL, True): ("Normal", "ModuleUninstalled"),
    (Verb.UNINSTALL, False): ("Warning", "ModuleUninstallFailed"),
}
"""The type and the reason of the Event about an ended operation, by success."""


@dataclass(frozen=True, slots=True)
class Habits:
    """The choices of an operator about bases."""

    env: str = "dev"
    policy: Policy = field(default_factory=Policy)
    keeps_dead_nodes: bool = False
    """Whether the Node of a dead base stays, not ready, until somebody deletes the Node."""
    list_every_s: float = 15.0
    health_every_s: float = 10.0
    kubelet_address: str | None = None
    """The address of the kubelet's API for the API server; ``None`` means that there is none."""
    kubelet_port: int | None = None


class Steward:
    """The care for one base, while the controller leads the Node.

    Lifetime: from the first news of a base, or from the Node, to the last `rest`. All on one event loop; `reconcile` is
    never called twice at a time.
    """

    def __init__(
        self,
        base: AnnouncedBase,
        cluster: Cluster,
        tunnel: Tunnel,
        *,
        habits: Habits,
        checks: Checks,
        wake: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``wake`` asks for a `reconcile` soon; ``clock`` never goes back, ``wall`` tells seconds since the epoch."""
        self.name = names.node_name(base.identity, habits.env)
        self._cluster = cluster
        self._tunnel = tunnel
        self._habits = habits
        self._wake = wake
        self._clock = clock
        self._wall = wall
        self.news = Knowledge(base, Liveness(clock(), has_ended=base.state is not BaseState.ACTIVATED))
        self._ways = Ways()
        self._relay = Relay(cluster.node(self.name))
        self._questions = Questions(
            self.news,
            tunnel,
            clock=clock,
            list_every_s=habits.list_every_s,
            health_every_s=habits.health_every_s,
            on_list=self._compare_list,
            on_health=wake,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._farewells = Farewells(self.news, tunnel, start=self._start, tell=cluster.tell, wake=wake, clock=clock)
        self._prober = Prober(checks, clock=clock, start=self._start, tell=cluster.tell, wake=wake)
        self._is_at_work = False
        self._silent_until = float("-inf")
        """The time until which silence of the base tells nothing."""
        self._told_life = Life.ALIVE
        self._wanted: AbstractSet[ModuleKey] = frozenset()
        """The modules of the Pods, as they were last read."""

    # --- news --------------------------------------------------------------------------------------------------------

    def hear(self, base: AnnouncedBase) -> None:
        """Take a heartbeat, also while another controller leads."""
        now, is_doubtful = self._clock(), self.news.liveness.is_unanswered
        told = self._ways.choose(self.news.base, base, now, is_doubtful=is_doubtful)
        is_new = self.news.hear(told, now)
        if base.state is not BaseState.ACTIVATED:
            self.news.liveness.end()
        if self.news.actual is None:
            self._questions.ask_for_list()
        if not self._is_at_work and self._relay.hear(told, self._cluster.node(self.name), now) is not None:
            is_new = True
        if is_new:
            self._wake()

    def see_node(self, document: Mapping[str, Any] | None) -> None:
        """Take a change of the Node: the news of other controllers there, and the deletion by the leader."""
        base = self._relay.take(document)
        if base is not None and base != self.news.base:
            if not self._is_at_work:
                self._ways.prefer(base.way, self._clock())  # two controllers would never agree
            self.hear(base)
        elif document is None and not self._is_at_work:
            self.news.liveness.end()  # until the base is heard again; a leader would make the Node anew

    def look(self) -> None:
        """Look at the modules of the base soon: they have changed otherwise than by this steward."""
        if self._is_at_work:
            self._questions.ask_for_list()

    @property
    def is_busy(self) -> bool:
        """Whether an operation on a module is under way."""
        return bool(self.news.attempts.running())

    @property
    def has_node(self) -> bool:
        """Whether the base has a Node."""
        return self._cluster.node(self.name) is not None

    def life(self) -> Life:
        """Judge the base by the signs of life."""
        return self.news.liveness.judge(self._clock())

    @property
    def has_left(self) -> bool:
        """Whether the base is dead, and the Node was deleted for that."""
        return self._told_life is Life.DEAD and not self._habits.keeps_dead_nodes

    def watch(self) -> None:
        """Wake the controller if the judgement about the base has changed; called every second or so."""
        if self.life() is not self._told_life:
            self._wake()

    # --- work --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to ask the base: the controller leads from now on. Idempotent, until `rest`."""
        if not self._is_at_work:
            self._is_at_work = True
            self._relay.forget()
            now = self._clock()
            self.news.liveness.answer(now)
            if self.has_node:
                self.news.liveness.doubt(now)
                self._silent_until = now + _FIRST_ANSWER_S
            self._start(self._questions.run())
            self._start(self._prober.run())

    async def reconcile(self) -> float | None:
        """Do what there is to do now; returns the seconds until the next operation; ``None`` without one.

        Raises the errors of writes to the API server; the caller calls again after a pause.
        """
        life, left_s = self.life(), self._silent_until - self._clock()
        if life is Life.SILENT and left_s > 0:
            return min(left_s, _LOOK_AGAIN_S)
        if life is not self._told_life:
            self._tell_life(life)
        self._told_life = life
        await self._keep_node(life)
        if life is Life.DEAD:
            return None
        pods = await self._read_pods()
        actual = self.news.actual if life is Life.ALIVE else None
        self._prober.keep(pods if self._is_at_work else (), Claims.of(pods), actual or {}, self.news.base.ip)
        due = self._begin_operations(pods) if life is Life.ALIVE else None
        if life is not Life.ALIVE or self.news.actual is not None or self.news.has_restarted:
            await self._tell_pods(pods, life)  # else nothing is known yet, and the last told statuses stand
        waits = [] if due is None else [due - self._clock()]
        waits += [read.pod.deadline - self._wall() for read in pods if read.pod.deadline is not None]
        if any(_lacks(module) for read in pods for module in read.modules):
            waits.append(self._habits.list_every_s)  # nobody tells of a new ConfigMap
        return max(min(waits), 0) if waits else None

    def _tell_life(self, life: Life) -> None:
        """Record an Event about the Node; the end of a base by its own word is no warning."""
        _, reason, message = words_of(life)
        is_well = life is Life.ALIVE or self.news.liveness.has_ended
        self._cluster.tell_node(self.name, "Normal" if is_well else "Warning", reason, message)

    async def pass_on(self) -> float | None:
        """Pass news on to the leader, once due; returns the seconds until then. Raises as `reconcile`."""
        there = self._cluster.node(self.name)
        due, now = self._relay.due(there), self._clock()
        if due is None or there is None:
            return None
        if due > now:
            return due - now
        change = {names.BASE_NEWS: self._relay.text(self.news.base, there)}
        await self._cluster.patch_node(self.name, {"metadata": {"annotations": change}})
        self._relay.forget()
        return None

    async def rest(self) -> None:
        """End the work: questions and operations under way are cancelled, and may have had their effects. Idempotent.

        Nothing known of the modules is trusted afterwards, because another controller may lead.
        """
        if not self._is_at_work:
            return
        self._is_at_work = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.news.forget()
        self._farewells.forget()
        self._prober.forget()

    async def _keep_node(self, life: Life) -> None:
        there, base = self._cluster.node(self.name), self.news.base
        if life is Life.DEAD and not self._habits.keeps_dead_nodes:
            await self._cluster.delete_node(self.name)  # an absent one, too: the Lease may have been left behind
            return
        wanted = node_of(base, self._habits.env)
        wanted["metadata"]["annotations"][names.BASE_NEWS] = self._relay.text(base, there)
        if there is None:
            if life is Life.ALIVE:
                await self._cluster.create_node(wanted)
                there = wanted
            else:
                return
        elif patch := differences(wanted, there):
            await self._cluster.patch_node(self.name, patch)
        before = there.get("status") or {}
        status = node_status(
            base,
            life,
            self.news.capacity,
            before,
            now=self._wall(),
            strays=self._strays(),
            address=self._habits.kubelet_address,
            kubelet_port=self._habits.kubelet_port,
        )
        if not is_node_told(status, before):
            await self._cluster.patch_node_status(self.name, status)

    def _strays(self) -> str:
        """Name the modules without a Pod, with the words of the base about a failed removal."""
        attempts, named = self.news.attempts, []
        for key in attempts.strays(SIGHTINGS):
            failure = attempts.failure(key, Verb.UNINSTALL)
            named.append(str(key) if failure is None else f"{key} ({failure.reason}: {failure.message})")
        text = f"no Pod has {', '.join(named)}"
        return text[:_LONGEST] if named else ""

    # --- modules -----------------------------------------------------------------------------------------------------

    async def _read_pods(self) -> list[Read]:
        around = Surroundings(self.name, self.news.base.ip)
        pods = sorted(self._cluster.pods_on(self.name), key=lambda pod: pod.age_order())
        self._farewells.keep({pod.uid for pod in pods})
        read = [Read(pod, modules_of(pod, await self._cluster.sources(pod), around)) for pod in pods]
        left_s = self._farewells.left_s
        return [one._replace(is_staying=self._is_staying(one), drain_s=left_s(one.pod)) for one in read]

    def _is_staying(self, read: Read) -> bool:
        """Whether the hooks of a leaving Pod hold its modules; a Pod without a started module has no hooks to run."""
        actual = self.news.actual or {}
        found = [actual[module.key] for module in read.wanted() if module.key in actual]
        return self._is_at_work and any(one.state.is_started for one in found) and self._farewells.is_staying(read.pod)

    def _begin_operations(self, pods: list[Read]) -> float | None:
        news = self.news
        self._wanted = {module.key for read in pods for module in read.wanted()}
        news.attempts.forget(besides={*self._wanted, *(news.actual or ())})
        made = plan(
            pods,
            news.actual,
            news.attempts,
            now=self._clock(),
            policy=self._habits.policy,
            falls=self._prober.falls(),
        )
        for operation in made.operations:
            news.attempts.begin(operation.verb, operation.key, operation.mark)
            if operation.fall is not None:
                news.attempts.crashes.begin(operation.key, operation.mark, operation.fall, at=self._wall())
            self._start(self._perform(operation, news.attempts))
        return made.due

    async def _perform(self, operation: Operation, attempts: object) -> None:
        """Carry out one operation, and note how it ended; news of a restarted base are not touched."""
        base = self.news.base
        try:
            if operation.module is not None:
                replaces = operation.verb is Verb.RESTART
                answer = await self._tunnel.install(base, operation.module, replaces=replaces)
            elif operation.verb is Verb.SWITCH:
                answer = await self._tunnel.switch(base, operation.key)
            else:
                answer = await self._tunnel.uninstall(base, operation.key, drain_s=operation.drain_s)
            self.news.liveness.answer(self._clock())
        except NoAnswer as error:
            answer = Answer(Outcome.UNCERTAIN, "BaseUnreachable", str(error))
        if attempts is self.news.attempts:
            self._note(operation, answer)
        self._wake()

    def _note(self, operation: Operation, answer: Answer) -> None:
        news, now = self.news, self._clock()
        is_done = answer.outcome is Outcome.DONE
        if is_done:
            if operation.fall is not None:
                news.attempts.crashes.end(operation.key, now=now)
            news.attempts.succeed(operation.key)
            news.settle(operation.verb, operation.key, now=now, at=self._wall())
        else:
            news.attempts.fail(
                operation.key, answer.reason, answer.message, now=now, at=self._wall(), pause_s=operation.pause_s
            )
        self._questions.ask_for_list()  # which tells the rest, such as versions that do not answer any more
        level = logging.INFO if is_done else logging.WARNING
        _log.log(
            level, "%s: %s of %s: %s", self.name, operation.verb.value, operation.key, answer.message or answer.reason
        )
        for pod in self._cluster.pods_on(self.name):
            if pod.key == operation.pod:
                self._cluster.tell(pod, *_WORDS[operation.verb, is_done], f"{operation.key}: {answer.message}")

    def _compare_list(self, is_new: bool) -> None:
        """Note the modules without a Pod on the last list, and work on if there is work."""
        strays = (self.news.actual or {}).keys() - self._wanted
        had_some = self.news.attempts.see(strays)
        if is_new or strays or had_some:
            self._wake()

    async def _tell_pods(self, pods: list[Read], life: Life) -> None:
        """Write the statuses that have changed: first of Pods that are not ready any more, the oldest first.

        A Deployment then deletes the old Pod of a base before the new one of the same base counts.
        """
        news, claims = self.news, Claims.of(pods)
        actual = news.actual if life is Life.ALIVE else None
        facts = Facts(
            news.base.ip,
            actual,
            claims,
            news.attempts,
            agains=agains(pods, claims, actual or {}, news.attempts),
            signs=self._prober.signs(),
        )
        changed: list[tuple[Read, Status]] = []
        for read in pods:
            if read.pod.is_leaving and has_left(read, claims, news.actual):
                await self._cluster.remove_pod(read.pod)
                continue
            status = status_of(read, facts, now=self._wall())
            if not is_told(status, read.pod):
                changed.append((read, status))
        for read, status in changed:
            if not is_ready(status):
                await self._cluster.patch_pod_status(read.pod, status)
        ready = [(read, status) for read, status in changed if is_ready(status)]
        await _all(self._cluster.patch_pod_status(read.pod, status) for read, status in ready)

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s: a task has ended by a mistake of the controller", self.name, exc_info=error)


def _lacks(module: Module | Refused) -> bool:
    """Whether a module waits for a ConfigMap or a Secret."""
    return isinstance(module, Refused) and module.reason == Missing.reason


async def _all(writes: Iterable[Coroutine[None, None, None]]) -> None:
    """Wait for all writes, and raise the first error of them."""
    for outcome in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome

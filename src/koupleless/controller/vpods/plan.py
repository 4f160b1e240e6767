"""The next operations on one base: the modules of the Pods, compared with the modules of the base.

Level-triggered: equal Pods, modules and attempts give an equal plan, whatever happened before.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from koupleless.controller.vpods.actual import State
from koupleless.controller.vpods.attempts import STRAY_PAUSE_S, Verb
from koupleless.controller.vpods.module import Module
from koupleless.controller.vpods.pod import Restart

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from koupleless.controller.vpods.actual import Actual
    from koupleless.controller.vpods.attempts import Attempts
    from koupleless.controller.vpods.crashes import Fall
    from koupleless.controller.vpods.module import ModuleKey, Refused
    from koupleless.controller.vpods.pod import PodKey, VPod

SIGHTINGS: Final = 2
"""Whole lists in a row with a module without a Pod, before the module is removed."""
_ABSENT: Final = frozenset({State.STOPPED})
RESTARTS: Final = "RolloutRestart"
"""The reason of a container with a module that runs, and is to start again."""
ALREADY_INSTALLED: Final = "AlreadyInstalled"
"""The reason of a base that starts no module again, such as one of the original."""
MARK_SIGN: Final = "#sha256-of-container="
"""Between the image and the mark of a module, in the ``imageID`` of the status of a container."""


class Read(NamedTuple):
    """A Pod with its modules."""

    pod: VPod
    modules: tuple[Module | Refused, ...]
    is_staying: bool = False
    """Whether the modules of a leaving Pod stay for a while, for the hooks of the Pod."""
    drain_s: float | None = None
    """The seconds left to a leaving Pod for the requests in flight; ``None`` for a Pod that stays."""

    def wanted(self) -> Iterator[Module]:
        """Yield the modules of the Pod, without refused containers."""
        for module in self.modules:
            if isinstance(module, Module):
                yield module


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on a module of a base."""

    verb: Verb
    key: ModuleKey
    module: Module | None = None
    """The module to install; else ``None``."""
    pod: PodKey | None = None
    """The Pod of the module; ``None`` for a module without a Pod."""
    pause_s: float | None = None
    """Seconds before each further attempt; ``None`` means a pause that grows."""
    drain_s: float | None = None
    """Seconds for requests in flight before an uninstall; ``None`` leaves the time to the base."""
    fall: Fall | None = None
    """The judgement that leads to an uninstall, if probes led there."""
    mark: str = ""
    """The mark of the module to install, or of the module that has fallen."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The choices of an operator about the modules of a base."""

    removes_strays: bool = True
    """Whether modules without a Pod are removed, such as those installed by hand."""
    at_once: int = 8
    """The greatest number of operations on a base at a time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The operations to begin now, and the time of the next ones."""

    operations: tuple[Operation, ...]
    due: float | None = None
    """The time to plan anew, if nothing happens before; ``None`` means never."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The wanted modules of a base, each with the newest Pod of the identity."""

    by_key: Mapping[ModuleKey, tuple[Module, VPod]] = field(default_factory=dict)

    @classmethod
    def of(cls, pods: Iterable[Read]) -> Claims:
        """Find the deciding Pod of each module.

        Pods with equal modules share one. Of different modules of one identity the newest Pod's is installed: a rolling
        restart ends, and does not wait for the replaced Pod.
        """
        found: dict[ModuleKey, tuple[Module, VPod]] = {}
        for read in sorted(pods, key=lambda read: read.pod.age_order()):
            if read.pod.is_wanted:
                found |= {module.key: (module, read.pod) for module in read.wanted()}
        return cls(found)

    def holds(self, module: Module) -> bool:
        """Whether the module, of all modules of the identity, is wanted."""
        claimed = self.by_key.get(module.key)
        return claimed is not None and claimed[0].mark == module.mark


def plan(
    pods: Iterable[Read],
    actual: Mapping[ModuleKey, Actual] | None,
    attempts: Attempts,
    *,
    now: float,
    policy: Policy = Policy(),
    falls: Mapping[ModuleKey, Fall] = MappingProxyType({}),
) -> Plan:
    """Decide on the next operations. ``actual`` is ``None`` before the first list of the base: then none come.

    ``falls`` are the modules that have to start again.
    """
    if actual is None:
        return Plan(())
    pods = tuple(pods)
    claims = Claims.of(pods)
    possible = [
        *_installs(claims, actual, attempts, falls),
        *_restarts(pods, claims, actual, attempts),
        *_switches(claims, actual),
        *_uninstalls(pods, claims, actual, attempts, policy),
    ]
    busy = attempts.running()
    names, room = set(busy), policy.at_once - len(busy)
    begun: list[Operation] = []
    later: list[float] = []
    for operation in possible:
        if operation.key.name in names:
            continue  # the end of the running operation leads to another plan
        due = attempts.due(operation.key, "" if operation.module is None else operation.module.mark)
        if operation.verb is Verb.INSTALL:
            due = max(due, attempts.crashes.due(operation.key, operation.mark))
        if due > now:
            later.append(due)
        elif len(begun) < room:
            names.add(operation.key.name)
            begun.append(operation)
    return Plan(tuple(begun), min(later, default=None))


class Again(NamedTuple):
    """A new revision of a workload for a running module: a rollout that starts the module again."""

    uids: frozenset[str]
    """The Pods of the revision, which wait for that."""
    since: str
    """The start of the present life, in the words of the statuses."""
    is_told: bool
    """Whether the statuses tell of the wait: before that, nothing is done, because it might be done twice."""


def agains(
    pods: Iterable[Read], claims: Claims, actual: Mapping[ModuleKey, Actual], attempts: Attempts
) -> dict[ModuleKey, Again]:
    """Find the modules that run for a former revision of the workload of the deciding Pod, and equal the wanted ones.

    As elsewhere in Kubernetes, a Pod of a new revision (``kubectl rollout restart``) means a new start. Where several
    versions of a name answer, none starts again: the others would be away for a while.
    """
    answering = Counter(one.key.name for one in actual.values() if one.state is State.ACTIVATED)
    sharing: dict[ModuleKey, list[tuple[VPod, Module]]] = {}
    for read in pods:
        for module in read.wanted() if read.pod.workload else ():
            sharing.setdefault(module.key, []).append((read.pod, module))
    found = {}
    for key, (module, pod) in claims.by_key.items():
        there, others = actual.get(key), sharing.get(key, ())
        if not others or there is None or there.state is not State.ACTIVATED or not there.is_listed:
            continue
        if answering[key.name] > 1:
            continue
        again = _again(module, pod, others, there)
        failure = attempts.failure(key, Verb.RESTART, module.mark)
        if again is not None and (failure is None or failure.reason != ALREADY_INSTALLED):
            found[key] = again
    return found


def _again(module: Module, pod: VPod, sharing: Iterable[tuple[VPod, Module]], there: Actual) -> Again | None:
    since = f"the module has run since {there.changed:.3f}, and starts again for a new revision"
    group, has_former, is_told = set(), False, False
    for other, same in sharing:
        if other.workload != pod.workload or same.mark != module.mark:
            continue
        if other.revision != pod.revision:
            has_former |= told_mark(other, same.container) == module.mark
            continue
        told = other.container_status(same.container)
        waiting = (told.get("state") or {}).get("waiting") or {}
        is_waiting = waiting.get("reason") == RESTARTS
        if told.get("imageID") or (is_waiting and not waiting.get("message", "").startswith(since)):
            return None  # the module has started for this revision
        is_told |= is_waiting
        group.add(other.uid)
    return Again(frozenset(group), since, is_told) if has_former or is_told else None


def _restarts(
    pods: Iterable[Read], claims: Claims, actual: Mapping[ModuleKey, Actual], attempts: Attempts
) -> Iterator[Operation]:
    """Yield restarts of modules for new revisions.

    A restart removes other versions of the name, which do not answer; those of Pods are installed again afterwards.
    """
    for key, again in agains(pods, claims, actual, attempts).items():
        if again.is_told:
            module, pod = claims.by_key[key]
            yield Operation(Verb.RESTART, key, module, pod.key, mark=module.mark)


def has_left(read: Read, claims: Claims, actual: Mapping[ModuleKey, Actual] | None) -> bool:
    """Whether all modules of a Pod have left the base, but for those of other Pods."""
    if actual is None or read.is_staying:
        return False
    return all(module.key in claims.by_key or not _is_there(module.key, actual) for module in read.wanted())


def _is_next_coming(key: ModuleKey, claims: Claims, actual: Mapping[ModuleKey, Actual]) -> bool:
    """Whether a module answers while the base still installs a wanted version of the name: there would be a gap.

    The install ends in the time that the base gives a start, and the module leaves then.
    """
    if actual[key].state is not State.ACTIVATED:
        return False
    others = (actual.get(other) for other in claims.by_key if other.name == key.name and other != key)
    return any(other is not None and other.state is State.INSTALLING for other in others)


def _is_there(key: ModuleKey, actual: Mapping[ModuleKey, Actual]) -> bool:
    found = actual.get(key)
    return found is not None and found.state not in _ABSENT


def _installs(
    claims: Claims, actual: Mapping[ModuleKey, Actual], attempts: Attempts, falls: Mapping[ModuleKey, Fall]
) -> Iterator[Operation]:
    """Yield installs of missing modules; first the uninstall of a broken, fallen or another module of the identity."""
    for key, (module, pod) in claims.by_key.items():
        found = actual.get(key)
        if pod.is_over(module.container) or _has_failed_for_good(module, pod, attempts):
            continue
        if found is None or found.state in _ABSENT:
            yield Operation(Verb.INSTALL, key, module, pod.key, mark=module.mark)
        elif found.state is State.BROKEN or (found.state.is_started and _is_another(module, pod, attempts)):
            yield Operation(Verb.UNINSTALL, key, None, pod.key)
        elif (fall := falls.get(key)) is not None:
            drain_s = fall.grace_s
            yield Operation(Verb.UNINSTALL, key, None, pod.key, drain_s=drain_s, fall=fall, mark=module.mark)


def _has_failed_for_good(module: Module, pod: VPod, attempts: Attempts) -> bool:
    return pod.restart is Restart.NEVER and attempts.failure(module.key, Verb.INSTALL, module.mark) is not None


def _switches(claims: Claims, actual: Mapping[ModuleKey, Actual]) -> Iterator[Operation]:
    """Yield a switch for each name with a newest Pod, of those with a started module, that does not answer."""
    newest: dict[str, tuple[ModuleKey, VPod]] = {}
    for key, (_, pod) in claims.by_key.items():
        found = actual.get(key)
        if found is not None and found.state.is_started:
            known = newest.get(key.name)
            if known is None or known[1].age_order() < pod.age_order():
                newest[key.name] = key, pod
    for key, pod in newest.values():
        if actual[key].state is State.DEACTIVATED:
            yield Operation(Verb.SWITCH, key, None, pod.key)


def _is_another(module: Module, pod: VPod, attempts: Attempts) -> bool:
    """Whether the module on the base was installed from another container than the wanted one."""
    known = attempts.mark(module.key) or told_mark(pod, module.container)
    return bool(known) and known != module.mark


def told_mark(pod: VPod, container: str) -> str:
    """Return the mark of the module in the last told status of a container; empty without one."""
    return str(pod.container_status(container).get("imageID") or "").partition(MARK_SIGN)[2]


def _uninstalls(
    pods: Iterable[Read],
    claims: Claims,
    actual: Mapping[ModuleKey, Actual],
    attempts: Attempts,
    policy: Policy,
) -> Iterator[Operation]:
    seen = {*claims.by_key, *(module.key for read in pods if read.is_staying for module in read.wanted())}
    for read in pods:
        for module in read.wanted():
            if module.key not in seen and not read.pod.is_wanted and _is_there(module.key, actual):
                seen.add(module.key)
                if _is_next_coming(module.key, claims, actual):
                    continue
                yield Operation(Verb.UNINSTALL, module.key, None, read.pod.key, drain_s=read.drain_s)
    for key in actual:
        if key in seen or not _is_there(key, actual):
            continue
        is_ours = bool(attempts.mark(key))  # installed by this controller, for a Pod that has gone meanwhile
        if is_ours or (policy.removes_strays and attempts.sightings(key) >= SIGHTINGS):
            yield Operation(Verb.UNINSTALL, key, pause_s=STRAY_PAUSE_S)

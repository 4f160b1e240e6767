"""The status of a Pod, made from the modules of the base: containers, conditions and phase, as with a kubelet.

Source: the Kubernetes API reference, type PodStatus; Kubernetes documentation, "Pod Lifecycle".
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.controller.times import time_text
from koupleless.controller.vpods.actual import State
from koupleless.controller.vpods.attempts import Verb
from koupleless.controller.vpods.module import Refused
from koupleless.controller.vpods.plan import MARK_SIGN, RESTARTS
from koupleless.controller.vpods.pod import DEACTIVATED, Restart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from koupleless.controller.vpods.actual import Actual
    from koupleless.controller.vpods.attempts import Attempts
    from koupleless.controller.vpods.module import Module, ModuleKey
    from koupleless.controller.vpods.plan import Again, Claims, Read
    from koupleless.controller.vpods.pod import VPod

Status = dict[str, Any]

_KILLED: Final = 137
"""The exit code of a process ended by force, as told of a container that fails its probes."""
_LATE: Final = "DeadlineExceeded"
_TOLD: Final = ("Initialized", "ContainersReady", "Ready")
"""The conditions of a Pod told by the controller; others belong to the scheduler and to users."""


class Signs(NamedTuple):
    """The signs of a running module, by the probes of a container."""

    is_started: bool = True
    is_ready: bool | None = None
    """``None`` without a readiness probe: the health in the words of the base counts."""


class Facts(NamedTuple):
    """The facts about a base for the status of the Pods there."""

    ip: str
    actual: Mapping[ModuleKey, Actual] | None
    """The modules; ``None`` before the first list of the base."""
    claims: Claims
    attempts: Attempts
    agains: Mapping[ModuleKey, Again] = MappingProxyType({})
    """The modules that are to start again for a new revision."""
    signs: Mapping[tuple[str, str], Signs] = MappingProxyType({})
    """The results of probes, by the UID of the Pod and the name of the container."""


def status_of(read: Read, facts: Facts, *, now: float) -> Status:
    """Make the status of a Pod: the members told by the controller, for a strategic merge patch.

    Equal facts give an equal status, and callers tell differences only (`is_told`). The time of a condition is that of
    the last change of the condition.
    """
    pod = read.pod
    containers = [_container(module, pod, facts) for module in read.modules]
    is_late = pod.deadline is not None and now >= pod.deadline
    if is_late:
        containers = [_stopped(container, now) for container in containers]
    phase = "Failed" if is_late else _phase(containers, pod)
    is_ready = bool(containers) and all(container["ready"] for container in containers)
    status: Status = {
        "phase": phase,
        "conditions": _conditions(pod, phase, containers, is_ready=is_ready, now=now),
        "containerStatuses": containers,
        "startTime": pod.status.get("startTime") or time_text(now),
    }
    if is_late:
        status |= {"reason": _LATE, "message": f"the Pod had not ended {pod.most_s} s after its start"}
    if facts.ip:
        ips = [{"ip": facts.ip}]
        status |= {"hostIP": facts.ip, "hostIPs": ips, "podIP": facts.ip, "podIPs": ips}
    return status


def is_told(status: Status, pod: VPod) -> bool:
    """Whether the API server has the status already."""
    told = pod.status
    conditions = {condition["type"]: condition for condition in told.get("conditions") or ()}
    rest = {member: value for member, value in status.items() if member != "conditions"}
    is_rest_told = all(
        (there := told.get(member)) == value or _bare(there) == _bare(value) for member, value in rest.items()
    )
    return is_rest_told and all(_covers(conditions.get(one["type"], {}), one) for one in status["conditions"])


def _covers(told: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    """Whether a told condition has the members of another; the API server adds members of its own."""
    return all(told.get(member) == value for member, value in condition.items())


def _bare(value: Any) -> Any:
    """Return a JSON value without the empty members that the API server adds."""
    if isinstance(value, dict):
        return {name: _bare(member) for name, member in value.items() if member is not None}
    return [_bare(one) for one in value] if isinstance(value, list) else value


def is_ready(status: Mapping[str, Any]) -> bool:
    """Whether all modules of the Pod answer, by a status."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())


# --- containers ------------------------------------------------------------------------------------------------------


def _container(module: Module | Refused, pod: VPod, facts: Facts) -> Status:
    before = pod.container_status(module.container)
    image = next(one.get("image") or "" for one in pod.containers if one["name"] == module.container)
    if isinstance(module, Refused):
        state = _waiting(module.reason, module.message)
        return _told(module.container, image, "", state, before, is_ready=False)
    if pod.has_ended or pod.is_over(module.container):
        return dict(before)
    if facts.actual is None and before:  # nothing is known of the base; the last news stand
        return {**before, "ready": False}
    state = _state(module, pod, facts)
    signs = facts.signs.get((pod.uid, module.container), Signs())
    actual = None if facts.actual is None else facts.actual.get(module.key)
    is_ready = signs.is_ready if signs.is_ready is not None else actual is not None and actual.is_healthy
    is_answering = "running" in state and not pod.is_leaving and signs.is_started and is_ready
    end = _last_end(module, state, before, facts.attempts)
    told = _told(module.container, image, module.mark, state, before, is_ready=is_answering, end=end)
    return {**told, "started": told["started"] and signs.is_started}


def _stopped(container: Status, now: float) -> Status:
    """Tell of a container that is out of time, unless the module has run to completion before."""
    if "terminated" in container["state"]:
        return container
    began = container["state"].get("running", {}).get("startedAt")
    end = {**_ended(_LATE, "", _KILLED, now)["terminated"], **({"startedAt": began} if began else {})}
    return {**container, "state": {"terminated": end}, "ready": False, "started": False}


def _told(
    name: str,
    image: str,
    mark: str,
    state: Status,
    before: Mapping[str, Any],
    *,
    is_ready: bool,
    end: Status | None = None,
) -> Status:
    """Join the status of a container; ``end`` is the last end of the module, where there are words for the end."""
    is_running = "running" in state
    restarts, last = _restarts(state, before, end)
    return {
        "name": name,
        "image": image,
        "imageID": f"{image}{MARK_SIGN}{mark}" if mark and is_running else before.get("imageID") or "",
        "ready": is_ready,
        "started": is_running,
        "restartCount": restarts,
        "state": state,
        "lastState": last,
    }


def _restarts(state: Status, before: Mapping[str, Any], end: Status | None) -> tuple[int, Status]:
    """Return the number of restarts, and the last end, of a container; a switch of versions is neither.

    As with a kubelet, each start but the first is a restart, failed ones too: a Job counts its failures by them.
    """
    count, last = before.get("restartCount") or 0, before.get("lastState") or {}
    past = before.get("state") or {}
    ran, runs = past.get("running"), state.get("running")
    has_ended = ran is not None and ran != runs and state.get("waiting", {}).get("reason") != DEACTIVATED
    if end is not None and end != last.get("terminated"):
        # A start that has failed, after an end told before, was one more start.
        count += 1 if ran is None and last and not _is_crash(end) else 0
        last = {"terminated": end}
    elif has_ended and (end is None or not _is_crash(end)):
        last = {"terminated": {"exitCode": 0, "reason": "Stopped", "startedAt": (ran or {}).get("startedAt")}}
    has_stopped = bool(last) and past.get("waiting", {}).get("reason") not in {None, DEACTIVATED}
    if runs is not None and ((ran is not None and ran != runs) or has_stopped):
        count += 1
    return count, last


def _last_end(module: Module, state: Status, before: Mapping[str, Any], attempts: Attempts) -> Status | None:
    """Return the last end of a module by its probes or by a failed start; ``None`` for other ends, and without one."""
    failure = attempts.failure(module.key, Verb.INSTALL, module.mark)
    if failure is not None:
        return _ended(failure.reason, failure.message, 1, failure.at)["terminated"]  # type: ignore[no-any-return]
    crash, ran = attempts.crashes.last(module.key), (before.get("state") or {}).get("running")
    if crash is None or state.get("running") == ran is not None:
        return None  # nothing has ended, or not yet
    past = ((before.get("lastState") or {}).get("terminated")) or {}
    if past.get("finishedAt") == time_text(crash.at):
        return dict(past)
    end = {"exitCode": _KILLED, "reason": "Error", "message": crash.message, "finishedAt": time_text(crash.at)}
    return {**end, "startedAt": ran.get("startedAt")} if ran else end


def _is_crash(end: Status) -> bool:
    return bool(end.get("exitCode") == _KILLED)


def _state(module: Module, pod: VPod, facts: Facts) -> Status:
    if not pod.is_leaving and not facts.claims.holds(module):
        return _waiting("Superseded", f"a newer Pod of this Node has another module {module.key}")
    actual = None if facts.actual is None else facts.actual.get(module.key)
    again = facts.agains.get(module.key)
    if again is not None and pod.uid in again.uids and not pod.is_leaving:
        failure = facts.attempts.failure(module.key, Verb.RESTART, module.mark)
        said = "" if failure is None else f": {failure.reason}: {failure.message}"
        return _waiting(RESTARTS, f"{again.since}{said}")
    if actual is not None and actual.state.is_started:
        ran = (pod.container_status(module.container).get("state") or {}).get("running")
        if ran and actual.state is State.DEACTIVATED and facts.attempts.crashes.is_under_way(module.key):
            return {"running": ran}  # not ended yet, and no other version has taken the place
        return (
            _started(pod, actual) if actual.is_listed or pod.restart is not Restart.ALWAYS else _starting(pod, module)
        )
    return _ended("Uninstalled", "", 0, None) if pod.is_leaving else _not_started(module, pod, actual, facts.attempts)


def _started(pod: VPod, actual: Actual) -> Status:
    if pod.restart is not Restart.ALWAYS:  # an install is over once the module has run
        return _ended("Completed", actual.message, 0, actual.changed)
    if actual.state is State.DEACTIVATED:
        return _waiting(DEACTIVATED, actual.message or "another version of the module answers")
    return {"running": {"startedAt": time_text(actual.changed)}}


def _starting(pod: VPod, module: Module) -> Status:
    """Tell of a module started a moment ago: the next list of the base has the time."""
    past: Status = pod.container_status(module.container).get("state") or {}
    known: Status = {name: past[name] for name in ("running", "waiting") if past.get(name)}
    return known or _waiting("ContainerCreating", "")


def _not_started(module: Module, pod: VPod, actual: Actual | None, attempts: Attempts) -> Status:
    failure = attempts.failure(module.key, Verb.INSTALL, module.mark) or attempts.failure(module.key, Verb.UNINSTALL)
    if failure is not None:
        if failure.verb is Verb.INSTALL and pod.restart is Restart.NEVER:
            return _ended(failure.reason, failure.message, 1, failure.at)
        return _waiting(failure.reason, failure.message)
    if actual is not None and actual.state is State.BROKEN:
        return _waiting("Broken", actual.message or actual.reason)
    crash = attempts.crashes.last(module.key)
    if crash is not None and crash.pause_s and module.key.name not in attempts.running():
        return _waiting("CrashLoopBackOff", f"the next start comes {crash.pause_s:g} s after the end: {crash.message}")
    return _waiting("ContainerCreating", "")


def _waiting(reason: str, message: str) -> Status:
    return {"waiting": {"reason": reason, "message": message} if message else {"reason": reason}}


def _ended(reason: str, message: str, code: int, at: float | None) -> Status:
    ended: Status = {"exitCode": code, "reason": reason}
    if message:
        ended["message"] = message
    if at:
        ended |= {"startedAt": time_text(at), "finishedAt": time_text(at)}
    return {"terminated": ended}


# --- the whole Pod ---------------------------------------------------------------------------------------------------


def _phase(containers: Sequence[Status], pod: VPod) -> str:
    if pod.has_ended:
        return str(pod.status["phase"])
    ends = [container["state"]["terminated"] for container in containers if "terminated" in container["state"]]
    if containers and len(ends) == len(containers) and pod.restart is not Restart.ALWAYS:
        return "Failed" if any(end["exitCode"] for end in ends) else "Succeeded"
    has_run = pod.status.get("phase") == "Running" or all("running" in one["state"] for one in containers)
    return "Running" if containers and has_run else "Pending"


def _conditions(
    pod: VPod, phase: str, containers: Sequence[Status], *, is_ready: bool, now: float
) -> list[dict[str, str | None]]:
    before = {condition["type"]: condition for condition in pod.status.get("conditions") or ()}
    waiting = [one["name"] for one in containers if not one["ready"]]
    reason, message = "", ""
    if phase == "Succeeded":
        reason = "PodCompleted"
    elif waiting:
        reason, message = "ContainersNotReady", f"containers with unready status: [{' '.join(waiting)}]"
    told = []
    for kind in _TOLD:
        holds = "True" if is_ready or kind == "Initialized" else "False"
        # A member without a value is taken away: left out, the merge would keep the former one.
        words = (reason or None, message or None) if holds == "False" else (None, None)
        condition = {"type": kind, "status": holds, "reason": words[0], "message": words[1]}
        past = before.get(kind, {})
        changed = past.get("lastTransitionTime") if past.get("status") == holds else None
        condition["lastTransitionTime"] = changed or time_text(now)
        told.append(condition)
    return told

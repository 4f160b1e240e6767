"""The next step of a rollout in batches, from the facts of the moment. Level-triggered: equal facts, equal step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from msgspec.structs import replace

from koupleless.controller import names
from koupleless.controller.batches.wishes import CONFIRMED, GATE
from koupleless.controller.times import time_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from koupleless.controller.batches.record import Record
    from koupleless.controller.batches.wishes import Wishes
    from koupleless.controller.cluster.api import Key
    from koupleless.controller.peers.deployment import Deployment
    from koupleless.controller.vpods.pod import VPod

_LOOK_AGAIN_S: Final = 5.0
"""Seconds after which a rollout is looked at again, whatever was told meanwhile."""


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """A ReplicaSet as a value: one revision of a Deployment."""

    uid: str
    name: str
    owner: str
    """The UID of the Deployment; empty without one."""
    deployment: str
    """The name of the Deployment."""
    template: str
    """The hash of the template of the Pods."""
    revision: str
    available: int
    """The number of Pods that have been ready for long enough."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON document of a ReplicaSet."""
        metadata = document["metadata"]
        owner: Mapping[str, Any] = next(
            (one for one in metadata.get("ownerReferences") or () if one.get("controller")), {}
        )
        return cls(
            uid=metadata.get("uid", ""),
            name=metadata["name"],
            owner=owner.get("uid", ""),
            deployment=owner.get("name", ""),
            template=(metadata.get("labels") or {}).get(names.POD_HASH, ""),
            revision=(metadata.get("annotations") or {}).get(names.REVISION, ""),
            available=(document.get("status") or {}).get("availableReplicas") or 0,
        )

    def ending(self, key: Key | tuple[str, str]) -> str:
        """Return the end of the name of a Pod of this ReplicaSet: the part that tells Pods apart."""
        return key[1].removeprefix(f"{self.name}-")


class Event(NamedTuple):
    """News for those who look at the Deployment."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one Deployment with gated Pods."""

    deployment: Deployment
    newest: ReplicaSet
    """The ReplicaSet of the present template."""
    pods: Sequence[VPod]
    """The Pods of that ReplicaSet, but for those at an end. A leaving Pod has its place until it is gone: the next one
    may come to the same base, where no two of one revision are wanted."""
    older: Sequence[tuple[ReplicaSet, VPod]]
    """The gated Pods of other ReplicaSets."""
    gone: frozenset[str] = frozenset()
    """The recorded Pods that the API server does not have any more, by the end of their names."""


@dataclass(frozen=True, slots=True)
class Step:
    """The step: first the record is written, if another, then Pods are let through."""

    record: Record
    progress: str
    """The progress in words."""
    unconfirmed: int
    """The number of the batch that waits for a confirmation; 0 for none."""
    forgets_confirmation: bool = False
    """Whether the confirmation is of a former rollout."""
    opened: tuple[VPod, ...] = ()
    """The Pods to be let through."""
    due_s: float | None = None
    events: tuple[Event, ...] = ()


def next_step(facts: Facts, wishes: Wishes, record: Record, *, now: float) -> Step:
    """Decide on the next step. ``now`` is in seconds since the epoch.

    Pods are let through up to the limit of the batch, the oldest first. A batch ends once all its Pods are available,
    and the next begins after a confirmation and a pause, if the author wishes those. Pods of a revision that all bases
    had are never held: such a base is filled again, and scaled, at any time.
    """
    newest, deployment = facts.newest, facts.deployment
    limits = wishes.limits(deployment.replicas)
    events: list[Event] = []
    is_new = record.revision != newest.revision
    if is_new:
        wishes = dataclasses.replace(wishes, confirmed=0)
        record = _begun(facts, wishes, record)
        if not record.is_over and len(limits) > 1 and deployment.spare:
            events.append(_GAPS)
    if record.is_over or deployment.replicas == 0:  # without a replica nothing is proven
        opened = _gated(facts.pods) if record.is_over else ()
        words = "" if not record.is_over else _all_words(limits)
        return Step(record, words, 0, is_new, (*opened, *_of_proven(facts, record)), None, tuple(events))
    place = _batch(facts, wishes, record, limits, now=now, events=events)
    record = place.record
    opened = tuple(pod for pod in _gated(facts.pods) if record.is_over or newest.ending(pod.key) in record.pods)
    opened += _of_proven(facts, record)
    return Step(record, place.words, place.unconfirmed, is_new, opened, place.due_s, tuple(events))


def _begun(facts: Facts, wishes: Wishes, record: Record) -> Record:
    """Return the record at the begin of a rollout."""
    newest = facts.newest
    begun = replace(record, revision=newest.revision, batch=1, is_over=False, pods=(), since=0)
    if newest.template in record.proven and not wishes.undoes_in_batches:
        return begun.proved(newest.template)
    return begun


class _Place(NamedTuple):
    """The present place of a rollout."""

    record: Record
    words: str
    due_s: float | None = None
    """Seconds to the next look."""
    unconfirmed: int = 0


def _batch(
    facts: Facts, wishes: Wishes, record: Record, limits: Sequence[int], *, now: float, events: list[Event]
) -> _Place:
    """Go on as far as can be now."""
    newest = facts.newest
    waiting = [newest.ending(pod.key) for pod in _gated(facts.pods)]
    through = {newest.ending(pod.key) for pod in facts.pods if GATE not in pod.gates}
    through |= {*record.pods} - facts.gone
    while record.batch < len(limits):
        before, limit = (0, *limits)[record.batch - 1 : record.batch + 1]
        words = f"batch {record.batch} of {len(limits)}"
        if facts.deployment.is_paused:
            return _Place(replace(record, pods=tuple(sorted(through))), f"{words}, the Deployment is paused")
        if room := [one for one in waiting if one not in through][: max(limit - len(through), 0)]:
            if len(through) <= before:
                told = f"{words}: up to {limit} of {limits[-1]} bases get the module"
                events.append(Event("Normal", "BatchBegun", told))
            through |= {*room}
        record = replace(record, pods=tuple(sorted(through)))
        if newest.available < limit:
            return _Place(replace(record, since=0.0), words, _LOOK_AGAIN_S)
        awaits = wishes.awaits_confirmation(record.batch)
        if awaits and not record.since:
            how = f"kubectl annotate --overwrite deployment {newest.deployment} {CONFIRMED}={record.batch}"
            events.append(Event("Normal", "BatchReady", f"{words} is ready; to go on: {how}"))
        record = replace(record, since=record.since or now)
        ends = record.since + wishes.pause_s
        if awaits:
            words += f" is ready, waiting for {CONFIRMED}={record.batch}"
            return _Place(record, words, _LOOK_AGAIN_S, record.batch)
        if now < ends:
            words += f" is ready, the next begins at {time_text(ends)}"
            return _Place(record, words, min(_LOOK_AGAIN_S, ends - now))
        record = replace(record, batch=record.batch + 1, since=0.0)
    if len(limits) > 1:
        events.append(Event("Normal", "LastBatchBegun", f"{_all_words(limits)}: all bases get the module"))
    return _Place(record.proved(newest.template), _all_words(limits))


def _all_words(limits: Sequence[int]) -> str:
    return f"batch {len(limits)} of {len(limits)}" if len(limits) > 1 else ""


def _gated(pods: Sequence[VPod]) -> tuple[VPod, ...]:
    return tuple(sorted((pod for pod in pods if GATE in pod.gates), key=lambda pod: pod.age_order()))


def _of_proven(facts: Facts, record: Record) -> tuple[VPod, ...]:
    return tuple(pod for revision, pod in facts.older if revision.template in record.proven)


_GAPS: Final = Event(
    "Warning",
    "BasesLackModule",
    "Kubernetes may delete Pods before their successors are let through: set maxUnavailable to 0",
)

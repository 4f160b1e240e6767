"""Messages of bases: heartbeats for the controller, and answers for those who have asked. Nothing here waits."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from koupleless.controller.tunnels.mqtt import letters
from koupleless.controller.tunnels.mqtt.letters import Unreadable, open_letter
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState, Foreign, Senseless, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from koupleless.controller.tunnels.mqtt.clocks import Clocks
    from koupleless.controller.tunnels.mqtt.letters import Letter, Place, Topics
    from koupleless.controller.tunnels.mqtt.pending import Pending

_log: Final = logging.getLogger("koupleless.controller")

LIST: Final = "list"
"""The subject of the question for the list of modules."""
_COMPLAINT_S: Final = 10.0
"""Seconds between two lines about senseless messages: a hostile base fills no log."""
_LONGEST: Final = 200


class Audience(Protocol):
    """The part of the controller that news of bases are for. Called on the event loop, and must not wait."""

    def hear(self, base: AnnouncedBase, *, has_changed: bool = False) -> None:
        """Take note of a heartbeat; or of news after which the modules of the base are others. Raises `Foreign`."""

    def baseline(self, cluster: str) -> Sequence[dict[str, Any]]:
        """Return the modules for every base of a cluster, in the order of their install."""


class _Present(NamedTuple):
    base: AnnouncedBase | None
    """The last heartbeat, if there was one."""
    at: float
    """The time of the last message."""


_UNKNOWN: Final = _Present(None, 0)


class Inbox:
    """Takes all messages of one env. Used on one event loop."""

    def __init__(
        self,
        audience: Audience,
        topics: Topics,
        pending: Pending,
        clocks: Clocks,
        *,
        send_baseline: Callable[[str, Sequence[dict[str, Any]]], object],
        note_leftover: Callable[[str], object],
        count: Callable[[str], object],
        clock: Callable[[], float],
    ) -> None:
        """``send_baseline`` begins to send a base its modules, ``note_leftover`` takes topics of kept commands.

        ``count`` is told ``senseless`` of messages that do not reach the audience.
        """
        self._present: dict[str, _Present] = {}
        """The bases heard since the last `begin`."""
        self._audience = audience
        self._topics = topics
        self._pending = pending
        self._clocks = clocks
        self._send_baseline = send_baseline
        self._note_leftover = note_leftover
        self._count = count
        self._clock = clock
        self._next_complaint = float("-inf")
        self._untold = 0

    def begin(self) -> None:
        """Begin with a new connection: nobody knows which bases have one."""
        self._present.clear()

    def is_present(self, identity: str) -> bool:
        """Whether a base was heard since the last `begin`: the base is subscribed to its commands."""
        return identity in self._present

    def forget(self, before: float) -> None:
        """Forget bases not heard since a moment."""
        self._present = {identity: known for identity, known in self._present.items() if known.at >= before}

    def take(self, topic: str, payload: bytes, is_kept: bool) -> None:
        """Take one message. Never raises."""
        place = self._topics.place(topic)
        try:
            if place is None:
                if is_kept and payload:
                    self._note_leftover(topic)
            elif is_kept:
                self._complain(topic, "the broker had kept it, perhaps from a former life of the base")
            else:
                self._read(place, open_letter(payload, place.kind))
        except (Unreadable, Senseless, Foreign) as error:
            self._complain(topic, str(error))
        except Exception:  # noqa: BLE001 - a mistake of the controller costs one message, not the connection
            _log.exception("a message of %s is lost by a mistake of the controller", topic[:_LONGEST])

    def _read(self, place: Place, letter: Letter) -> None:
        match place.kind:
            case letters.HEART:
                self._hear(place.identity, letter)
            case letters.QUERY_BASELINE:
                self._query_baseline(place.identity, letter)
            case letters.HEALTH:
                self._answer(place.identity, letters.HEALTH, letters.envelope_in(letter.data), letter)
            case letters.SHORT_LIST | letters.WHOLE_LIST as kind:
                self._answer(place.identity, LIST, letters.list_in(kind, letter.data), letter)
            case letters.OPERATION:
                subject, reply = letters.operation_in(letter.data)
                if not self._answer(place.identity, subject, reply, letter):
                    self._tell_change(place.identity)  # too late, or asked by another controller
            case letters.BATCH:
                # A batch names some of the modules, or none where one has failed: the whole list tells more.
                self._tell_change(place.identity)

    def _hear(self, identity: str, letter: Letter) -> None:
        base = replace(AnnouncedBase.of(letter.data), way=Way.MQTT)
        if base.identity != identity:
            raise Senseless(f"the heartbeat is of another base, {base.identity[:_LONGEST]!r}")
        is_late = self._clocks.is_late(identity, letter.made_ms)
        if base.state is not BaseState.ACTIVATED:
            self._present.pop(identity, None)
            self._pending.fail("the base has ended", of=identity)
        elif is_late:
            raise Senseless("the heartbeat comes late, and says nothing about the base now")
        else:
            before = self._present.get(identity, _UNKNOWN).base
            self._present[identity] = _Present(base, self._clock())
            if before is None:
                self._pending.repeat(identity)
            elif before.start != base.start:
                self._pending.fail("the base has restarted", of=identity)
        self._audience.hear(base)

    def _query_baseline(self, identity: str, letter: Letter) -> None:
        if not isinstance(letter.data, dict):
            raise Senseless("the metadata is no object")
        cluster = letter.data.get("clusterName")
        self._send_baseline(identity, self._audience.baseline(cluster if isinstance(cluster, str) else ""))

    def _answer(self, identity: str, subject: str, answer: object, letter: Letter) -> bool:
        """Give an answer to the open question; returns whether there is one, and the answer is not of before."""
        self._present[identity] = _Present(self._present.get(identity, _UNKNOWN).base, self._clock())
        question = self._pending.find(identity, subject)
        if question is None or self._clocks.is_older(identity, letter.made_ms, question.asked):
            return False
        question.take(answer)
        return True

    def _tell_change(self, identity: str) -> None:
        """Tell that modules have changed otherwise than by an open question; a base not heard yet is asked anyway."""
        base = self._present.get(identity, _UNKNOWN).base
        if base is not None:
            self._audience.hear(base, has_changed=True)

    def _complain(self, topic: str, reason: str) -> None:
        self._count("senseless")
        now = self._clock()
        if now < self._next_complaint:
            self._untold += 1
            return
        more = f" (and {self._untold} more messages before)" if self._untold else ""
        _log.warning("a message of %s is ignored: %s%s", topic[:_LONGEST], reason, more)
        self._next_complaint, self._untold = now + _COMPLAINT_S, 0

"""The last news of one base: heartbeat, list of modules, health; and the operations on modules."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from koupleless.controller.vnodes.node import Capacity
from koupleless.controller.vpods.actual import Actual, State, table_of
from koupleless.controller.vpods.attempts import Attempts, Verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vnodes.liveness import Liveness
    from koupleless.controller.vpods.module import ModuleKey


@dataclass(slots=True)
class Knowledge:
    """The news of one base. Used by one task at a time. Times are seconds of one monotonic clock, but where said."""

    base: AnnouncedBase
    liveness: Liveness
    actual: Mapping[ModuleKey, Actual] | None = None
    """The modules of the base; ``None`` before the first list, and after a restart of the base."""
    has_restarted: bool = False
    """Whether the base has restarted, and has told no list since: no module of before is there."""
    capacity: Capacity = field(default_factory=Capacity)
    attempts: Attempts = field(default_factory=Attempts)
    _settled: dict[ModuleKey, float] = field(default_factory=dict)
    """The end of the last operation on each module: older lists say nothing about the module."""
    _listed: tuple[float, bytes] = (float("-inf"), b"")
    """The time of the question for the last list, and a digest while `actual` is this list and nothing else."""

    def hear(self, base: AnnouncedBase, now: float) -> bool:
        """Take a heartbeat; returns whether the news are new to a steward.

        After a restart, the modules are unknown, and failures of former times do not count. A base known from the Node
        alone has no start yet: the first heartbeat tells of none.
        """
        before, self.base = self.base, base
        if before.start and base.start != before.start:
            self.forget()
            self.has_restarted = True
        self.liveness.see(now)
        return base != before

    def forget(self) -> None:
        """Forget modules and attempts."""
        self.actual, self.attempts, self.has_restarted = None, Attempts(), False
        self._listed = self._listed[0], b""
        self._settled.clear()

    def take_list(self, documents: Sequence[Mapping[str, Any]], *, asked: float) -> bool:
        """Take the whole list of modules, asked for at ``asked``; returns whether the list says something new.

        A module with an operation since then is as the operation has left the module. An unchanged list, as most are,
        costs no work on modules.
        """
        before_s, known = self._listed
        if asked < before_s:
            return False
        digest = hashlib.blake2b(msgspec.json.encode(documents), digest_size=16).digest()
        self._listed = asked, digest
        if digest == known:
            return False
        found = dict(table_of(documents))
        before = self.actual or {}
        for key, ended in self._settled.items():
            if ended >= asked:
                found.pop(key, None)
                if key in before:
                    found[key] = before[key]
        self._settled = {key: ended for key, ended in self._settled.items() if ended >= asked}
        if self._settled:
            self._listed = asked, b""
        is_new, self.actual, self.has_restarted = self.actual != found, found, False
        return is_new

    def settle(self, verb: Verb, key: ModuleKey, *, now: float, at: float, message: str = "") -> None:
        """Take the success of an operation; ``at`` is the time by the clock of the world, since the epoch.

        Only a list tells which of several versions answers after an install; until then, the install is not over. Only
        a list tells the time of the start by the clock of the base, too, by which lives of a module are told apart.
        """
        if self.actual is None:
            return
        self._listed = self._listed[0], b""
        changed = dict(self.actual)
        others = [other for other in changed if other.name == key.name and other != key]
        if verb is Verb.UNINSTALL:
            changed.pop(key, None)
        elif verb is Verb.RESTART:
            if key in changed:
                changed[key] = replace(changed[key], is_listed=False)
        else:
            state = State.INSTALLING if verb is Verb.INSTALL and others else State.ACTIVATED
            changed[key] = Actual(key, state, at, "Started", message, is_listed=False)
        if verb is Verb.SWITCH:  # else a Pod of a version that answers no more would be taken for ready
            for other in others:
                if changed[other].state is State.ACTIVATED:
                    changed[other] = replace(changed[other], state=State.DEACTIVATED, changed=at)
                    self._settled[other] = now
        self._settled[key] = now
        self.actual = changed

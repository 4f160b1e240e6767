"""The memory of operations on the modules of one base: running ones, failures, and the times of further attempts.

May be lost at any time: the next plan then comes from the Pods and the list of the base alone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.controller.vpods.crashes import Crashes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from koupleless.controller.vpods.module import ModuleKey

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 300.0
STRAY_PAUSE_S: Final = 60.0
"""Seconds between two attempts to remove a module without a Pod."""


class Verb(enum.Enum):
    """The operations on a module."""

    INSTALL = "install"
    SWITCH = "switch"
    """Let this version answer."""
    UNINSTALL = "uninstall"
    RESTART = "restart"
    """Start a new life beside the present one, which then leaves: no request is lost."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of an operation on a module, in the words of the base."""

    verb: Verb
    reason: str
    """One word, as in Kubernetes for waiting containers."""
    message: str
    at: float
    """Seconds since the epoch."""


@dataclass(slots=True)
class _Attempt:
    running: Verb | None = None
    mark: str = ""
    """The mark of the module of the last install."""
    failures: int = 0
    """Failures in a row."""
    not_before: float = 0.0
    failure: Failure | None = None


@dataclass(slots=True)
class Attempts:
    """The operations on the modules of one base. Used by one task at a time. Times are seconds of one clock."""

    crashes: Crashes = field(default_factory=Crashes)
    _by_key: dict[ModuleKey, _Attempt] = field(default_factory=dict)
    _strays: dict[ModuleKey, int] = field(default_factory=dict)
    """Modules without a Pod, with the number of lists in a row."""

    def begin(self, verb: Verb, key: ModuleKey, mark: str = "") -> None:
        """Note an operation before the begin."""
        attempt = self._of(key, mark if verb in (Verb.INSTALL, Verb.RESTART) else None)
        attempt.running = verb

    def succeed(self, key: ModuleKey) -> None:
        """Note the success of the running operation.

        The uninstall of a broken module leaves the failure, and the pause before the next install.
        """
        attempt = self._by_key[key]
        done, attempt.running = attempt.running, None
        if attempt.failure is not None and (done is Verb.INSTALL or attempt.failure.verb is done):
            attempt.failures, attempt.failure, attempt.not_before = 0, None, 0.0
        if done is Verb.UNINSTALL and attempt.failure is None:
            del self._by_key[key]

    def fail(
        self, key: ModuleKey, reason: str, message: str, *, now: float, at: float, pause_s: float | None = None
    ) -> None:
        """Note the failure of the running operation; the next attempt comes after ``pause_s``, or a pause that grows.

        ``at`` is the time by the clock of the world, in seconds since the epoch.
        """
        attempt = self._by_key[key]
        assert attempt.running is not None
        attempt.failure = Failure(attempt.running, reason, message, at)
        growing_s = min(_FIRST_PAUSE_S * 2 ** min(attempt.failures, 16), _LONGEST_PAUSE_S)
        attempt.not_before = now + (growing_s if pause_s is None else pause_s)
        attempt.failures += 1
        attempt.running = None

    def running(self) -> dict[str, Verb]:
        """Return the names of modules with a running operation: a base works on one version of a name at a time."""
        return {key.name: attempt.running for key, attempt in self._by_key.items() if attempt.running is not None}

    def due(self, key: ModuleKey, mark: str = "") -> float:
        """Return the time of the next attempt; 0 for a module without a failure, or changed since."""
        attempt = self._by_key.get(key)
        if attempt is None or (mark and attempt.mark != mark):
            return 0.0
        return attempt.not_before

    def mark(self, key: ModuleKey) -> str:
        """Return the mark of the last installed module; empty if unknown."""
        attempt = self._by_key.get(key)
        return "" if attempt is None else attempt.mark

    def failure(self, key: ModuleKey, verb: Verb, mark: str = "") -> Failure | None:
        """Return the failure of the last operation, for the same ``verb`` and an unchanged module."""
        attempt = self._by_key.get(key)
        if attempt is None or attempt.failure is None or attempt.failure.verb is not verb:
            return None
        return None if mark and attempt.mark != mark else attempt.failure

    def see(self, strays: Iterable[ModuleKey]) -> bool:
        """Note the modules without a Pod on a whole list of the base; returns whether the list before had some."""
        had_some = bool(self._strays)
        self._strays = {key: self._strays.get(key, 0) + 1 for key in strays}
        return had_some

    def sightings(self, key: ModuleKey) -> int:
        """Return the number of whole lists in a row with a module, while no Pod had the module."""
        return self._strays.get(key, 0)

    def strays(self, sightings: int) -> list[ModuleKey]:
        """Return the modules without a Pod on so many whole lists in a row, sorted."""
        return sorted(key for key, count in self._strays.items() if count >= sightings)

    def forget(self, *, besides: Iterable[ModuleKey]) -> None:
        """Forget all modules but ``besides`` and those with a running operation."""
        kept = set(besides)
        self.crashes.forget(besides=kept)
        self._by_key = {
            key: attempt for key, attempt in self._by_key.items() if key in kept or attempt.running is not None
        }

    def _of(self, key: ModuleKey, mark: str | None) -> _Attempt:
        attempt = self._by_key.get(key)
        if attempt is None or (mark is not None and attempt.mark != mark):
            attempt = self._by_key[key] = _Attempt(mark=mark or "")
        return attempt

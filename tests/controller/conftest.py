"""A clock that stands until it is told to go on, and the ways to the API servers of the tests."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

import pytest
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.plane import Access


class ManualAlarm:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """The clock of a queue or a cache in a test: `advance` makes the calls that are due, in their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = itertools.count()
        self._alarms: list[tuple[float, int, ManualAlarm]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> ManualAlarm:
        alarm = ManualAlarm(callback)
        heapq.heappush(self._alarms, (when, next(self._count), alarm))
        return alarm

    @property
    def alarms(self) -> int:
        return sum(alarm.callback is not None for _, _, alarm in self._alarms)

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._alarms and self._alarms[0][0] <= until:
            self.now, _, alarm = heapq.heappop(self._alarms)
            if alarm.callback is not None:
                alarm.callback()
        self.now = until


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def unsecured(url: str) -> SingleConfig:
    """The way to a server that lets everybody in."""
    config = KubeConfig.from_one(cluster=Cluster(server=url), user=User()).get()
    assert config is not None
    return config


def secured(access: Access, user: str, token: str | None = None) -> SingleConfig:
    """The way to the control plane for one of its users, or for whomever ``token`` is."""
    config = KubeConfig.from_dict(access.kubeconfig_of(user, token)).get()
    assert config is not None
    return config

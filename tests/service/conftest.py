"""A registry, a directory that stands for a container, and bizs in it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from koupleless.biz import BizId, BizState
from koupleless.context import Scope
from koupleless.errors import ServiceError
from koupleless.service import ServiceReference
from koupleless.service.directory import Directory, Listed
from koupleless.service.registry import Registry


class Bizs:
    """What a container would do: give bizs a state and a life, and publish each change."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._place = registry.join()
        self._lock = threading.Lock()

    def _publish(self, change: Callable[[Directory], Directory]) -> None:
        with self._lock:
            self._place.publish(change(self._place.directory))

    def add(self, name: str, version: str = "1.0", state: BizState = BizState.ACTIVATED) -> Scope:
        scope = Scope(BizId.of(name, version))
        scope.attach(self.registry.space(scope))
        self.move(scope, state)
        return scope

    def move(self, scope: Scope, state: BizState) -> None:
        self._publish(lambda directory: directory.with_biz(Listed(scope.biz, state, scope)))

    def remove(self, scope: Scope) -> tuple[str, ...]:
        failures = self.registry.withdraw(scope)
        self._publish(lambda directory: directory.without(scope.biz))
        scope.close()
        return failures


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def directory(registry: Registry) -> Bizs:
    return Bizs(registry)


@pytest.fixture
def code_of() -> Callable[[Any], tuple[str, str]]:
    """The code and text of the ``ServiceError`` that a call raises, or the use of a reference to a greeter."""

    def code_of(use: Any) -> tuple[str, str]:
        with pytest.raises(ServiceError) as caught:
            use.greet() if type(use) is ServiceReference else use()
        return caught.value.code, str(caught.value)

    return code_of

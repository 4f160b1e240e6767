"""A registry, a directory that stands for a container, and bizs in it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from koupleless.biz import BizId, BizState
from koupleless.context import Scope
from koupleless.errors import ServiceError
from koupleless.service import ServiceReference
from koupleless.service.registry import Registry


@dataclass
class Directory:
    """What a container would know: the state and the present life of each biz, in the order of registration."""

    registry: Registry
    bizs: dict[BizId, tuple[BizState, Scope]] = field(default_factory=dict)
    """Read by any thread, so every look-up goes over a copy."""

    def add(self, name: str, version: str = "1.0", state: BizState = BizState.ACTIVATED) -> Scope:
        scope = Scope(BizId.of(name, version))
        scope.attach(self.registry.space(scope))
        self.bizs[scope.biz] = (state, scope)
        return scope

    def move(self, scope: Scope, state: BizState) -> None:
        self.bizs[scope.biz] = (state, scope)

    def remove(self, scope: Scope) -> tuple[str, ...]:
        failures = self.registry.withdraw(scope)
        del self.bizs[scope.biz]
        scope.close()
        return failures

    def locate(self, name: str, version: str | None = None) -> tuple[BizId, BizState] | None:
        for biz, (state, _) in list(self.bizs.items()):
            if biz.name == name and (biz.version == version if version else state is BizState.ACTIVATED):
                return biz, state
        return None

    def scope_of(self, biz: BizId) -> Scope | None:
        known = self.bizs.get(biz)
        return None if known is None else known[1]


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def directory(registry: Registry) -> Directory:
    directory = Directory(registry)
    registry.join(directory)
    return directory


@pytest.fixture
def code_of() -> Callable[[Any], tuple[str, str]]:
    """The code and text of the ``ServiceError`` that a call raises, or the use of a reference to a greeter."""

    def code_of(use: Any) -> tuple[str, str]:
        with pytest.raises(ServiceError) as caught:
            use.greet() if type(use) is ServiceReference else use()
        return caught.value.code, str(caught.value)

    return code_of

"""A call through a service has the caller's context variables, but those that the lives of the two have changed."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.context import Scope, call_as, current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from koupleless.service.registry import Registry

IDENTIFIER: ContextVar[str] = ContextVar("identifier", default="none")
LANGUAGE: ContextVar[str] = ContextVar("language", default="none")


def seen() -> tuple[Scope | None, str, str, int]:
    return current(), IDENTIFIER.get(), LANGUAGE.get(), decimal.getcontext().prec


class Service:
    def plain(self) -> Any:
        return seen()

    async def later(self) -> Any:
        first = seen()
        with decimal.localcontext() as here:
            here.prec = 9
            await asyncio.sleep(0)
            second = seen()
        return first, second, seen()

    def steps(self) -> Iterator[Any]:
        yield seen()
        with decimal.localcontext() as here:
            here.prec = 9
            yield seen()
            yield seen()
        yield seen()

    async def async_steps(self) -> AsyncIterator[Any]:
        for one in self.steps():
            await asyncio.sleep(0)
            yield one

    @contextlib.contextmanager
    def language(self, name: str) -> Iterator[Any]:
        token = IDENTIFIER.set(name)
        yield seen()
        IDENTIFIER.reset(token)


@pytest.fixture
def started(directory: Any) -> Callable[..., Scope]:
    def start(name: str, *, digits: int | None = None, language: str | None = None) -> Scope:
        scope: Scope = directory.add(name)

        def begin() -> None:
            if digits is not None:
                decimal.getcontext().prec = digits
            if language is not None:
                LANGUAGE.set(language)

        scope.variables.context.run(begin)
        scope.variables.settle()
        return scope

    return start


@pytest.fixture(params=["a biz", "the base"])
def owner(request: pytest.FixtureRequest, started: Callable[..., Scope]) -> Scope | None:
    return started("owner", language="de") if request.param == "a biz" else None


@pytest.fixture
def caller(started: Callable[..., Scope]) -> Scope:
    return started("caller", digits=50)


def as_caller(caller: Scope, function: Callable[[], Any]) -> Any:
    def call() -> Any:
        IDENTIFIER.set("request 1")
        before = seen()
        assert before == (caller, "request 1", "none", 50)
        result = function()
        assert seen() == before
        return result

    return Context().run(call_as, caller, call)


def test_calls_and_their_steps(registry: Registry, owner: Scope | None, caller: Scope) -> None:
    registry.offer(Service(), name="service", scope=owner)
    service = registry.use("service", biz=None if owner is None else "owner")
    language = "none" if owner is None else "de"
    at_28, at_9 = ((owner, "request 1", language, digits) for digits in (28, 9))

    def iterate() -> list[Any]:
        found = []
        for one in service.steps():
            assert seen() == (caller, "request 1", "none", 50)
            found.append(one)
        return found

    async def iterate_later() -> list[Any]:
        found = []
        async for one in service.async_steps():
            assert seen() == (caller, "request 1", "none", 50)
            found.append(one)
        return found

    def manage() -> Any:
        with service.language("request 2") as inside:
            assert seen() == (caller, "request 2", "none", 50)
        return inside

    assert as_caller(caller, service.plain) == at_28
    assert as_caller(caller, lambda: asyncio.run(service.later())) == (at_28, at_9, at_28)
    assert as_caller(caller, iterate) == [at_28, at_9, at_9, at_28]
    assert as_caller(caller, lambda: asyncio.run(iterate_later())) == [at_28, at_9, at_9, at_28]
    assert as_caller(caller, manage) == (owner, "request 2", language, 28)


def test_a_call_back_has_the_callers_again(registry: Registry, started: Callable[..., Scope], caller: Scope) -> None:
    owner = started("owner", digits=40)
    registry.offer(lambda function: (seen()[3], function(), seen()[3]), name="around", scope=owner)
    registry.offer(lambda: seen()[3], name="digits", scope=caller)
    around, digits = registry.use("around", biz="owner"), registry.use("digits", biz="caller")
    assert as_caller(caller, lambda: around(digits)) == (40, 50, 40)


def test_what_is_closed_with_its_biz_has_the_bizs(registry: Registry, started: Callable[..., Scope]) -> None:
    owner = started("owner", digits=50, language="de")
    heard: list[Any] = []
    registry.offer([1], scope=owner, on_close=lambda: heard.append(seen()))
    registry.withdraw(owner)
    assert heard == [(owner, "none", "de", 50)]
    assert seen()[2:] == ("none", 28)

"""The context variables of a base and of bizs: what each starts with, what is laid on top, what comes back."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import gc
import weakref
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.context import (
    Scope,
    as_base,
    call_as,
    call_merged,
    carry,
    crossed,
    current,
    entered,
    life_context,
)
from koupleless.router.gate import Gate
from koupleless.variables import Ground, await_in

if TYPE_CHECKING:
    from collections.abc import Callable

LANGUAGE: ContextVar[str] = ContextVar("language", default="none")
REQUIRED: ContextVar[str] = ContextVar("required")


@pytest.fixture(autouse=True)
def own_context(request: pytest.FixtureRequest) -> None:
    """Each test in a context of its own, with nothing in it."""
    function: Callable[..., object] = request.node.obj
    request.node.obj = lambda **given: Context().run(function, **given)


def make(started: Callable[[], object] = lambda: None, *, ground: Ground | None = None) -> Scope:
    """A biz whose import does ``started``."""
    scope = Scope(BizId.of("hello", "1.0"), ground)
    scope.variables.context.run(started)
    scope.variables.settle()
    return scope


def precision(digits: int) -> Callable[[], None]:
    def use() -> None:
        decimal.getcontext().prec = digits

    return use


def seen() -> tuple[Scope | None, str, int]:
    return current(), LANGUAGE.get(), decimal.getcontext().prec


# --- a life ----------------------------------------------------------------------------------------------------------


def test_a_life_begins_with_what_the_base_has_and_changes_only_its_own() -> None:
    LANGUAGE.set("en")
    scope = make(lambda: LANGUAGE.set("de"))
    assert call_as(scope, seen) == (scope, "de", 28)
    assert call_as(make(), LANGUAGE.get) == "en"
    assert seen()[:2] == (None, "en")


def test_whoever_calls_leaves_nothing_in_the_life() -> None:
    scope = make()
    call_as(scope, LANGUAGE.set, "fr")
    assert call_as(scope, LANGUAGE.get) == "none"


def test_the_base_being_ready_is_what_counts() -> None:
    ground = Ground()
    LANGUAGE.set("en")
    ground.renew()
    assert call_as(make(ground=ground), LANGUAGE.get) == "en"


def test_what_says_which_loop_runs_is_not_inherited() -> None:
    loop = ContextVar("current_async_library_cvar", default="none")
    loop.set("asyncio")
    scope = make()
    with entered(scope):
        assert call_as(make(), loop.get) == "none"
        assert call_as(make(), current) is not scope


@pytest.mark.parametrize("of_base", [None, 28, 40])
def test_a_decimal_context_is_never_the_bases(of_base: int | None) -> None:
    if of_base is not None:
        precision(of_base)()
    before = copy_context()
    for run in (call_as, call_merged):
        scope, fifty = make(), make(precision(50))
        assert run(scope, seen)[2] == (of_base or 28)
        assert run(fifty, seen)[2] == 50
        run(scope, precision(7))
        run(scope, lambda: decimal.Decimal(1) / decimal.Decimal(3))
    assert dict(copy_context()) == dict(before)
    if of_base is not None:
        assert decimal.getcontext().prec == of_base
        assert not decimal.getcontext().flags[decimal.Inexact]


def test_without_a_context_of_its_own_a_request_makes_one_as_alone() -> None:
    scope = make()
    call_merged(scope, precision(7))
    assert call_merged(scope, seen)[2] == 28


def test_the_one_that_the_import_made_is_that_of_all_requests_as_alone() -> None:
    scope = make(decimal.getcontext)
    call_merged(scope, precision(7))
    assert call_merged(scope, seen)[2] == 7


# --- merging ---------------------------------------------------------------------------------------------------------


def test_what_arrives_is_kept_and_what_the_life_has_changed_lies_on_top() -> None:
    other: ContextVar[str] = ContextVar("other", default="none")
    scope = make(lambda: LANGUAGE.set("de"))

    def arrives() -> None:
        other.set("request 1")
        LANGUAGE.set("fr")
        assert call_merged(scope, lambda: (LANGUAGE.get(), other.get())) == ("de", "request 1")
        assert LANGUAGE.get() == "fr"

    Context().run(arrives)


def test_what_the_base_has_and_the_arriving_context_lacks_is_there() -> None:
    REQUIRED.set("by the base")
    scope = make()
    assert Context().run(call_merged, scope, REQUIRED.get) == "by the base"
    assert Context().run(call_as, scope, REQUIRED.get) == "by the base"


def test_a_request_leaves_nothing_in_the_context_it_came_in() -> None:
    scope = make(lambda: LANGUAGE.set("de"))

    found: list[tuple[Scope | None, str]] = []

    async def app(*_: object) -> None:
        assert LANGUAGE.get() == "de"
        LANGUAGE.set("fr")
        REQUIRED.set("here")
        await asyncio.sleep(0)
        found.append((current(), LANGUAGE.get()))

    async def nothing(*_: object) -> Any:
        return {}

    async def serve() -> None:
        before = dict(copy_context())
        assert await Gate(scope, app).serve({"type": "http"}, nothing, nothing)
        assert dict(copy_context()) == before

    asyncio.run(serve())
    assert found == [(scope, "fr")]


def test_base_work_in_a_thread_of_a_biz_has_nothing_of_the_biz() -> None:
    scope = make(lambda: (LANGUAGE.set("de"), precision(50)()))
    assert call_as(scope, call_merged, None, seen) == (None, "none", 28)


# --- imports on behalf of a biz --------------------------------------------------------------------------------------


def test_what_a_library_sets_that_is_imported_for_a_biz_is_there_for_all() -> None:
    late: ContextVar[object] = ContextVar("late")
    ground, mark = Ground(), object()
    first, second = make(precision(50), ground=ground), make(ground=ground)

    def load() -> int:
        late.set(mark)
        return decimal.getcontext().prec

    def first_use() -> None:
        assert current() is first
        assert ground.call(load) == 28
        assert late.get() is mark

    call_as(first, first_use)
    for scope in (first, second, make(ground=ground), make()):
        assert call_as(scope, late.get) is mark
        assert call_merged(scope, late.get) is mark
    assert late.get(None) is None


def test_an_import_as_the_base_runs_as_the_base_and_may_fail() -> None:
    late: ContextVar[str] = ContextVar("late")
    scope = make()

    def load() -> None:
        late.set("before it failed")
        assert current() is None
        raise ImportError("no")

    with entered(scope), pytest.raises(ImportError, match="no"):
        scope.ground.call(load)
    assert call_merged(scope, late.get) == "before it failed"


# --- crossing --------------------------------------------------------------------------------------------------------


def test_the_owner_has_its_own_and_the_callers_of_the_moment() -> None:
    identifier: ContextVar[str] = ContextVar("identifier", default="none")
    caller, owner = make(precision(50)), make(lambda: LANGUAGE.set("de"))

    def call() -> None:
        identifier.set("1")
        with crossed(owner):
            assert seen() == (owner, "de", 28)
            assert identifier.get() == "1"
            identifier.set("2")
        assert seen() == (caller, "none", 50)
        assert identifier.get() == "2"

    call_as(caller, call)


def test_the_base_is_called_without_what_the_callers_life_has_changed() -> None:
    LANGUAGE.set("en")
    caller = make(lambda: (LANGUAGE.set("de"), precision(50)()))

    def call() -> None:
        with crossed(None):
            assert seen() == (None, "en", 28)
        with crossed(caller):
            assert seen() == (caller, "de", 50)
        LANGUAGE.set("fr")
        with decimal.localcontext() as here, crossed(None):
            here.prec = 9
            assert seen() == (None, "fr", 9)  # of the moment, not of the life
        assert seen() == (caller, "fr", 50)

    call_as(caller, call)
    assert seen()[:2] == (None, "en")


def test_a_biz_that_is_called_by_the_base_does_not_change_its_decimal_context() -> None:
    owner = make()
    precision(40)()
    with crossed(owner):
        assert decimal.getcontext().prec == 40
        decimal.getcontext().prec = 7
    assert decimal.getcontext().prec == 40


def test_steps_find_again_what_they_have_set() -> None:
    owner = make(precision(50))
    way = crossed(owner)
    with way:
        inner = decimal.localcontext()
        inner.__enter__().prec = 9
    assert seen()[2] == 28
    with way:
        assert seen()[2] == 9
        inner.__exit__(None, None, None)
        assert seen()[2] == 50
    assert seen()[2] == 28


def test_a_carried_function_brings_the_variables_of_its_biz() -> None:
    scope = make(lambda: LANGUAGE.set("de"))
    carried = call_as(scope, carry, seen)
    assert carried() == (scope, "de", 28)
    assert seen() == (None, "none", 28)


def test_nothing_is_set_where_nothing_differs() -> None:
    one, two = make(), make()
    with crossed(one):
        before = len(copy_context())
        with crossed(two):
            assert len(copy_context()) == before


# --- leaving ---------------------------------------------------------------------------------------------------------


class Thing:
    pass


def test_a_closed_scope_holds_no_values() -> None:
    kept: ContextVar[Thing] = ContextVar("kept")
    scope = make(lambda: kept.set(Thing()))
    thing = weakref.ref(call_as(scope, kept.get))
    assert call_merged(scope, kept.get) is thing()
    with crossed(scope):
        assert kept.get() is thing()
    scope.close()
    gc.collect()
    assert thing() is None
    assert call_as(scope, seen) == (scope, "none", 28)
    assert call_merged(scope, seen) == (scope, "none", 28)
    with crossed(scope):
        assert seen() == (scope, "none", 28)
    with as_base():
        assert life_context(scope)[next(iter(life_context(scope)))] is scope


# --- driving ---------------------------------------------------------------------------------------------------------


def test_each_step_runs_in_the_context_and_the_task_stays_the_same() -> None:
    context = contextvars.Context()
    context.run(LANGUAGE.set, "de")

    async def steps() -> tuple[str, object]:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return LANGUAGE.get(), asyncio.current_task()

    async def main() -> None:
        assert await await_in(context, steps) == ("de", asyncio.current_task())
        assert LANGUAGE.get() == "none"

    asyncio.run(main())


def test_what_is_thrown_arrives_and_what_is_raised_comes_out() -> None:
    context = contextvars.Context()
    context.run(LANGUAGE.set, "de")
    heard: list[str] = []

    async def steps() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard.append(LANGUAGE.get())
        await asyncio.sleep(0)
        raise LookupError(LANGUAGE.get())

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(LookupError, match="de"):
            await task

    async def wait() -> Any:
        return await await_in(context, steps)

    asyncio.run(main())
    assert heard == ["de"]


def test_an_exception_that_was_thrown_in_does_not_hold_itself() -> None:
    async def steps() -> None:
        await asyncio.sleep(60)

    async def wait() -> None:
        await await_in(Context(), steps)

    async def main() -> weakref.ref[BaseException]:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(main())() is None
    finally:
        gc.enable()


def test_a_coroutine_that_is_closed_ends_in_its_context() -> None:
    context = contextvars.Context()
    context.run(LANGUAGE.set, "de")
    heard: list[str] = []

    async def steps() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            heard.append(LANGUAGE.get())

    async def wait() -> None:
        await await_in(context, steps)

    coroutine = wait()

    async def main() -> None:
        coroutine.send(None)

    asyncio.run(main())
    coroutine.close()
    assert heard == ["de"]

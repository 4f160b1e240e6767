"""Who offers what, who answers, and what is said when nobody does."""

import abc
import doctest
import functools
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import pytest

import koupleless.service
from koupleless.biz import BizState
from koupleless.context import current, entered
from koupleless.errors import ServiceError
from koupleless.service import ServiceReference, offer, use, use_all
from koupleless.service.registry import Registry, default_registry

CodeOf = Callable[[Any], tuple[str, str]]

T = TypeVar("T")


class Greets(Protocol):
    def greet(self) -> str: ...


class Speaker(abc.ABC):
    @abc.abstractmethod
    def greet(self) -> str: ...


class Greeter(Speaker):
    def __init__(self, word: Any = "hello") -> None:
        self.word = word

    def greet(self) -> Any:
        return self.word


class Polite(Greeter):
    pass


class Box(Generic[T]):
    pass


# --- offering and finding -----------------------------------------------------------------------------------------


def test_what_the_base_offers_by_name_base_and_bizs_find(registry: Registry, directory: Any) -> None:
    registry.offer(Greeter(), name="greeter")
    assert registry.use("greeter").greet() == "hello"
    with entered(directory.add("a")):
        assert use("greeter").greet() == "hello"


def test_what_a_biz_offers_the_base_and_another_biz_find(registry: Registry, directory: Any) -> None:
    with entered(directory.add("a")):
        offer(Greeter("from a"), name="greeter")
    assert registry.use("greeter", biz="a").greet() == "from a"
    with entered(directory.add("b")):
        assert use("greeter", biz="a").greet() == "from a"
        assert use("greeter", biz="a", version="1.0").greet() == "from a"


@pytest.mark.parametrize("key", [Polite, Greeter, Speaker])
def test_an_object_is_found_by_its_class_and_the_bases_of_that(registry: Registry, key: Any) -> None:
    registry.offer(Polite("please"))
    assert registry.use(key).greet() == "please"


def test_an_object_is_found_by_the_protocol_it_was_offered_as(registry: Registry, code_of: CodeOf) -> None:
    registry.offer(Polite("please"), type=(Greets, Greeter))
    assert registry.use(Greets).greet() == "please"
    assert registry.use(Speaker).greet() == "please"
    assert code_of(registry.use(Polite))[0] == "200001"


@pytest.mark.parametrize("key", [object, abc.ABC, Generic, Protocol])
def test_what_every_class_is_made_of_finds_nothing(registry: Registry, code_of: CodeOf, key: Any) -> None:
    registry.offer(Polite())
    registry.offer(Box())
    assert code_of(registry.use(key))[0] == "200001"


def test_one_object_may_have_a_name_and_types(registry: Registry) -> None:
    registration = registry.offer(Greeter(), name="greeter", type=Speaker)
    assert registry.use("greeter").greet() == registry.use(Speaker).greet() == "hello"
    assert str(registration) == "service 'greeter'"
    assert repr(registry) == "<Registry of 1 services>"


def test_functions_classes_and_modules_are_found_by_name(registry: Registry) -> None:
    def double(number: Any) -> Any:
        return number * 2

    registry.offer(double, name="double")
    registry.offer(Greeter, name="class")
    registry.offer(sys, name="module")
    assert registry.use("double")(4) == 8
    assert registry.use("class")("made").greet() == "made"
    assert registry.use("module").version == sys.version


@pytest.mark.parametrize("thing", [len, Greeter, sys], ids=["function", "class", "module"])
def test_what_can_only_be_found_by_name_needs_one(registry: Registry, thing: Any) -> None:
    with pytest.raises(TypeError, match="offer it with name="):
        registry.offer(thing)


def test_an_object_that_is_none_of_its_types_is_refused(registry: Registry) -> None:
    with pytest.raises(TypeError, match="Polite, but is no such object"):
        registry.offer(Greeter(), type=Polite)


def test_a_name_is_taken_once_per_owner(registry: Registry, directory: Any, code_of: CodeOf) -> None:
    registry.offer(1, name="n")
    code, text = code_of(lambda: registry.offer(2, name="n"))
    assert (code, text) == ("100002", "the base offers a service 'n' already; withdraw the first one")
    with entered(directory.add("a")):
        offer(3, name="n")
    assert registry.use("n") == 1
    assert registry.use("n", biz="a") == 3


def test_several_objects_of_a_type_have_to_be_asked_for_by_name(registry: Registry, code_of: CodeOf) -> None:
    registry.offer(Greeter("one"), name="one")
    registry.offer(Greeter("two"), name="two")
    code, text = code_of(registry.use(Greeter))
    assert code == "100002"
    assert text == "the base offers several of type Greeter (service 'one', service 'two'); ask by name"
    assert registry.use("two").greet() == "two"


def test_one_object_offered_twice_is_one_object(registry: Registry) -> None:
    greeter = Greeter()
    registry.offer(greeter, name="one")
    registry.offer(greeter, name="two")
    assert registry.use(Greeter).greet() == "hello"


def test_the_type_itself_is_nearer_than_what_inherits_from_it(registry: Registry) -> None:
    registry.offer(Polite("child"))
    registry.offer(Greeter("itself"))
    assert registry.use(Greeter).greet() == "itself"


# --- who answers --------------------------------------------------------------------------------------------------


def test_without_a_biz_the_base_answers_before_any_biz(registry: Registry, directory: Any) -> None:
    reference = registry.use("greeter")
    with entered(directory.add("a")):
        offer(Greeter("biz"), name="greeter")
    assert reference.greet() == "biz"
    registration = registry.offer(Greeter("base"), name="greeter")
    assert reference.greet() == "base"
    registration.withdraw()
    assert reference.greet() == "biz"


def test_without_a_biz_two_that_offer_the_same_are_too_many(
    registry: Registry, directory: Any, code_of: CodeOf
) -> None:
    for name in ("b", "a"):
        with entered(directory.add(name)):
            offer(Greeter(name), name="greeter")
    code, text = code_of(registry.use("greeter"))
    assert (code, text) == ("100002", "service 'greeter' is offered by biz a:1.0, biz b:1.0; say which with biz=")


def test_a_reference_follows_a_switch_of_versions(registry: Registry, directory: Any) -> None:
    old, new = directory.add("a", "1"), directory.add("a", "2", BizState.DEACTIVATED)
    for scope in (old, new):
        registry.offer(Greeter(scope.biz.version), name="greeter", scope=scope)
    reference, pinned, method = (
        registry.use("greeter", biz="a"),
        registry.use("greeter", biz="a", version="1"),
        registry.use("greeter", biz="a").greet,
    )
    assert (reference.greet(), pinned.greet(), method()) == ("1", "1", "1")
    directory.move(old, BizState.DEACTIVATED)
    directory.move(new, BizState.ACTIVATED)
    assert (reference.greet(), pinned.greet(), method()) == ("2", "1", "2")


def test_a_reference_follows_a_reinstall(registry: Registry, directory: Any, code_of: CodeOf) -> None:
    first = directory.add("a")
    registry.offer(Greeter("first"), name="greeter", scope=first)
    reference = registry.use("greeter", biz="a", version="1.0")
    assert reference.greet() == "first"
    directory.remove(first)
    assert code_of(reference) == ("100003", "biz a:1.0 does not exist when called")
    second = directory.add("a")
    registry.offer(Greeter("second"), name="greeter", scope=second)
    assert reference.greet() == "second"


def test_while_a_biz_is_replaced_by_itself_the_life_that_answers_is_the_directorys_choice(
    registry: Registry, directory: Any
) -> None:
    old = directory.add("a")
    registry.offer(Greeter("old"), name="greeter", scope=old)
    starting = directory.add("a")
    directory.move(old, BizState.ACTIVATED)
    registry.offer(Greeter("starting"), name="greeter", scope=starting)
    reference = registry.use("greeter", biz="a")
    assert (reference.greet(), registry.use("greeter").greet()) == ("old", "old")
    directory.move(starting, BizState.ACTIVATED)
    assert (reference.greet(), registry.use("greeter").greet()) == ("starting", "starting")


def test_a_service_may_be_looked_up_before_its_biz_is_there(
    registry: Registry, directory: Any, code_of: CodeOf
) -> None:
    reference = registry.use("greeter", biz="late")
    assert code_of(reference) == ("100003", "biz late does not exist when called")
    scope = directory.add("late", state=BizState.RESOLVED)
    registry.offer(Greeter(), name="greeter", scope=scope)
    assert code_of(registry.use("greeter", biz="late", version="1.0")) == (
        "100003",
        "biz late:1.0 is still installing when called",
    )
    directory.move(scope, BizState.ACTIVATED)
    assert reference.greet() == "hello"


@pytest.mark.parametrize("state", [BizState.UNRESOLVED, BizState.BROKEN, BizState.STOPPED])
def test_a_biz_in_a_state_that_cannot_answer_is_refused_at_look_up_and_at_call(
    registry: Registry, directory: Any, code_of: CodeOf, state: Any
) -> None:
    scope = directory.add("a")
    registry.offer(Greeter(), name="greeter", scope=scope)
    reference = registry.use("greeter", biz="a", version="1.0")
    directory.move(scope, state)
    expected = ("100004", f"biz a:1.0 state {state.value.lower()} is not valid")
    assert code_of(reference) == expected
    assert code_of(lambda: registry.use("greeter", biz="a", version="1.0")) == expected


def test_a_deactivated_version_answers_only_when_it_is_asked_for(
    registry: Registry, directory: Any, code_of: CodeOf
) -> None:
    scope = directory.add("a", state=BizState.DEACTIVATED)
    registry.offer(Greeter(), name="greeter", scope=scope)
    assert registry.use("greeter", biz="a", version="1.0").greet() == "hello"
    assert code_of(registry.use("greeter", biz="a")) == ("100003", "biz a does not exist when called")
    assert code_of(registry.use("greeter"))[0] == "200001"


def test_a_biz_that_offers_no_such_thing_and_a_base_that_has_none_say_so(
    registry: Registry, directory: Any, code_of: CodeOf
) -> None:
    directory.add("a")
    assert code_of(registry.use("greeter", biz="a")) == (
        "100004",
        "Cannot find service bean from the biz a:1.0: it offers no 'greeter'",
    )
    assert code_of(registry.use(Greeter)) == (
        "200001",
        "service Greeter was not found: neither the base nor an activated biz offers the service",
    )


def test_a_version_without_a_biz_is_a_mistake(registry: Registry, code_of: CodeOf) -> None:
    assert code_of(lambda: registry.use("x", version="1.0"))[0] == "100002"


def test_all_activated_bizs_that_offer_a_thing_are_listed_by_name(registry: Registry, directory: Any) -> None:
    registry.offer(Greeter("base"), name="greeter")
    states = {"b": BizState.ACTIVATED, "a": BizState.ACTIVATED, "off": BizState.DEACTIVATED, "new": BizState.RESOLVED}
    for name, state in states.items():
        registry.offer(Greeter(name), name="greeter", scope=directory.add(name, state=state))
    directory.add("offers nothing".replace(" ", "-"))
    listed = registry.use_all(Greeter)
    assert {name: reference.greet() for name, reference in listed.items()} == {"a": "a", "b": "b"}
    assert list(registry.use_all("greeter")) == ["a", "b"]
    with entered(directory.add("asks")):
        assert list(use_all("greeter")) == ["a", "b"]


def test_two_directories_share_a_registry_until_one_leaves(registry: Registry, directory: Any, code_of: CodeOf) -> None:
    leave = registry.join().leave
    registry.offer(Greeter(), name="greeter", scope=directory.add("a"))
    assert registry.use("greeter", biz="a").greet() == "hello"
    leave()
    assert registry.use("greeter", biz="a").greet() == "hello"
    other = Registry()
    other.join()
    assert code_of(other.use("greeter", biz="a"))[0] == "100003"


# --- leaving ------------------------------------------------------------------------------------------------------


def test_services_close_last_in_first_out_as_their_owner_and_are_all_gone_before(
    registry: Registry, directory: Any, code_of: CodeOf
) -> None:
    scope, seen = directory.add("a"), []
    reference = registry.use("1", biz="a")

    def note(number: int) -> None:
        seen.append((number, current(), code_of(lambda: int(reference))[0]))

    for number in range(3):
        registry.offer(
            number,
            name=str(number),
            scope=scope,
            on_close=functools.partial(note, number),
        )
    assert registry.withdraw(scope) == ()
    assert seen == [(2, scope, "100004"), (1, scope, "100004"), (0, scope, "100004")]
    assert registry.withdraw(scope) == ()
    assert len(seen) == 3


def test_failures_to_close_are_returned_and_keep_no_other_from_closing(registry: Registry, directory: Any) -> None:
    scope, closed = directory.add("a"), []

    def fail() -> None:
        raise RuntimeError("disk full")

    def leave() -> None:
        raise SystemExit(3)

    async def late() -> None:
        raise AssertionError

    registry.offer(0, name="first", scope=scope, on_close=lambda: closed.append("first"))
    registry.offer(1, name="failing", scope=scope, on_close=fail)
    registry.offer(Greeter(), scope=scope, on_close=leave)
    registry.offer(2, name="asynchronous", scope=scope, on_close=late)
    assert registry.withdraw(scope) == (
        "service 'asynchronous' failed to close: TypeError: on_close must not be asynchronous; use koupleless.on_stop for that",  # noqa: E501 - one message
        "service Greeter failed to close: SystemExit: 3",
        "service 'failing' failed to close: RuntimeError: disk full",
    )
    assert closed == ["first"]


def test_withdrawing_one_registration_closes_it_once_and_leaves_the_others(registry: Registry, code_of: CodeOf) -> None:
    closed = []
    registry.offer(1, name="stays")
    registration = registry.offer(2, name="goes", on_close=lambda: closed.append(1))
    registration.withdraw()
    registration.withdraw()
    assert closed == [1]
    assert code_of(lambda: int(registry.use("goes")))[0] == "200001"
    assert registry.use("stays") == 1


def test_an_error_of_on_close_reaches_who_withdraws(registry: Registry) -> None:
    def fail() -> None:
        raise RuntimeError("disk full")

    registration = registry.offer(1, name="x", on_close=fail)
    with pytest.raises(RuntimeError, match="disk full"):
        registration.withdraw()


def test_a_biz_that_is_gone_can_offer_nothing(registry: Registry, directory: Any, code_of: CodeOf) -> None:
    scope = directory.add("a")
    directory.remove(scope)
    assert code_of(lambda: registry.offer(1, name="x", scope=scope))[1].startswith("biz a:1.0 was uninstalled")


def test_references_registrations_and_methods_keep_nothing_of_a_biz_that_left(
    registry: Registry, directory: Any
) -> None:
    scope, target = directory.add("a"), Greeter()
    watched = weakref.ref(target)
    registration = registry.offer(target, name="greeter", scope=scope, on_close=target.greet)
    reference = registry.use("greeter", biz="a")
    method = reference.greet
    assert method() == "hello"
    directory.remove(scope)
    del target
    gc.collect()
    assert watched() is None
    assert registration.scope is scope
    assert repr(reference) == "<ServiceReference 'greeter' of biz a>"


def test_threads_offer_use_and_withdraw_at_the_same_time(  # noqa: C901 - two kinds of threads
    registry: Registry, directory: Any
) -> None:
    unexpected: list[Any] = []
    rounds, ready = 100, threading.Barrier(5)
    registry.offer(Greeter("base"), name="base")

    def churn(number: Any) -> None:
        ready.wait(10)
        for round_ in range(rounds):
            scope = directory.add(f"biz{number}", str(round_))
            registry.offer(Greeter(str(round_)), name="greeter", scope=scope)
            if registry.use("greeter", biz=f"biz{number}", version=str(round_)).greet() != str(round_):
                unexpected.append((number, round_))
            unexpected.extend(registry.withdraw(scope))

    def call() -> None:
        ready.wait(10)
        reference = registry.use("greeter")
        for _ in range(rounds * 3):
            try:
                reference.greet()
            except ServiceError:
                pass
            except Exception as error:  # noqa: BLE001 - anything else is what this test looks for
                unexpected.append(error)
            if registry.use("base").greet() != "base":
                unexpected.append("base")

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(3)]
    threads += [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert unexpected == []


# --- without a base -----------------------------------------------------------------------------------------------


@pytest.fixture
def alone() -> Any:
    yield
    default_registry().withdraw(None)


@pytest.mark.usefixtures("alone")
def test_the_example_of_the_documentation_runs() -> None:
    assert doctest.testmod(koupleless.service).failed == 0


@pytest.mark.usefixtures("alone")
def test_a_module_that_runs_alone_offers_and_uses_in_its_own_process(code_of: CodeOf) -> None:
    registration = offer(Greeter("alone"), name="greeter")
    assert use("greeter").greet() == use(Greeter).greet() == "alone"
    assert use_all("greeter") == {}
    assert code_of(use("greeter", biz="other")) == ("100003", "biz other does not exist when called")
    registration.withdraw()
    assert code_of(use("greeter"))[0] == "200001"


@pytest.mark.usefixtures("alone")
def test_a_biz_with_a_registry_of_its_base_never_meets_the_one_of_the_process(directory: Any) -> None:
    offer(Greeter("process"), name="greeter")
    with entered(directory.add("a")):
        reference = use("greeter")
        offer(Greeter("biz"), name="other")
    with pytest.raises(ServiceError):
        reference.greet()
    assert use("greeter").greet() == "process"


def test_before_any_container_joins_whoever_offers_counts_as_activated(registry: Registry, code_of: CodeOf) -> None:
    from koupleless.biz import BizId
    from koupleless.context import Scope

    scope = Scope(BizId.of("a", "1"))
    registry.offer(Greeter(), name="greeter", scope=scope)
    reference = registry.use("greeter", biz="a")
    assert reference.greet() == registry.use("greeter").greet() == "hello"
    assert list(registry.use_all(Greeter)) == ["a"]
    scope.close()
    assert code_of(reference)[0] == "100003"


# --- keys that are none, and classes that do harm --------------------------------------------------------------------


@pytest.mark.parametrize("name", [5, b"greeter", ("greeter",), object()])
def test_a_service_is_named_by_a_text_or_a_type(registry: Registry, name: Any) -> None:
    with pytest.raises(TypeError, match="a service has a text for a name, or a type"):
        registry.offer(Greeter(), name=name)
    with pytest.raises(TypeError, match="a service has a text for a name, or a type"):
        registry.use(name)
    with pytest.raises(TypeError, match="a service has a text for a name, or a type"):
        registry.use_all(name)
    assert repr(registry) == "<Registry of 0 services>"


@pytest.mark.parametrize("given", [(), ("Greeter",), (Greeter, 5)])
def test_what_is_no_type_is_refused(registry: Registry, given: Any) -> None:
    with pytest.raises(TypeError, match="type"):
        registry.offer(Greeter(), type=given)


class Loud(type):
    """A metaclass whose classes cannot be compared, nor named."""

    def __eq__(cls, other: object) -> bool:
        raise SystemExit("compared")

    def __hash__(cls) -> int:
        raise SystemExit("hashed")

    def __instancecheck__(cls, instance: object) -> bool:
        raise SystemExit("asked")

    def __getattribute__(cls, name: str) -> Any:
        if name in {"__name__", "__qualname__"}:
            raise SystemExit("named")
        return super().__getattribute__(name)


class Text(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise SystemExit("compared")

    def __hash__(self) -> int:
        raise SystemExit("hashed")


class Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit("asked")


def test_classes_that_do_harm_stop_neither_others_nor_a_withdrawal(registry: Registry, directory: Any) -> None:
    class Harm(metaclass=Loud):
        pass

    def fail() -> None:
        raise Silent

    closed: list[str] = []
    scope = directory.add("a")
    registry.offer(Greeter(), name="first", scope=scope, on_close=lambda: closed.append("first"))
    registry.offer(Harm(), scope=scope, on_close=fail)
    registry.offer(Greeter("loud"), name=Text("named"), scope=scope)

    assert registry.use("first", biz="a").greet() == "hello"
    assert registry.use("named").greet() == "loud"
    assert type(registry.use(Harm)) is ServiceReference
    (failure,) = directory.remove(scope)
    assert failure.startswith("service test_classes_that_do_harm_")
    assert failure.endswith(".Harm failed to close: Silent")
    assert closed == ["first"]


def test_twenty_thousand_offers_take_a_time_that_grows_with_their_number(registry: Registry, directory: Any) -> None:
    def taken(number: int) -> float:
        scope = directory.add(f"biz{number}")
        begun = time.thread_time()
        offered = [registry.offer(Greeter(), name=f"{index}", scope=scope) for index in range(number)]
        for index in range(0, number, 100):
            assert registry.use(f"{index}", biz=f"biz{number}").greet() == "hello"
        for registration in offered[: number // 2]:
            registration.withdraw()
        directory.remove(scope)
        return time.thread_time() - begun

    few, many = min(taken(2000), taken(2001)), taken(20_000)

    assert many < 30 * few


def test_what_is_withdrawn_is_no_longer_found_under_any_key(registry: Registry, directory: Any) -> None:
    scope = directory.add("a")
    first = registry.offer(Greeter("one"), name="one", scope=scope)
    second = registry.offer(Polite("two"), name="two", scope=scope)

    with pytest.raises(ServiceError, match="offers several of type Speaker"):
        registry.use(Speaker, biz="a").greet()
    first.withdraw()
    first.withdraw()
    assert registry.use(Speaker, biz="a").greet() == "two"
    assert registry.use(Greeter, biz="a").greet() == "two"
    registry.offer(Greeter("again"), name="one", scope=scope)
    assert registry.use(Greeter, biz="a").greet() == "again"
    second.withdraw()
    with pytest.raises(ServiceError, match="it offers no Polite"):
        registry.use(Polite, biz="a").greet()

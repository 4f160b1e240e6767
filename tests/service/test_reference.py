"""What a use of a reference does with the object, and as whom."""

import asyncio
import contextlib
import copy
import inspect
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from koupleless.context import current, entered
from koupleless.errors import ServiceError
from koupleless.service.registry import Registry

CodeOf = Callable[[Any], tuple[str, str]]


class Service:
    label = "service"

    def __init__(self) -> None:
        self.values = [3, 1, 2]

    def who(self) -> Any:
        return current()

    def echo(self, thing: Any) -> Any:
        return thing

    def fail(self) -> None:
        raise LookupError("original")

    def warn(self) -> None:
        warnings.warn("old", DeprecationWarning, stacklevel=2)

    @property
    def runner(self) -> Any:
        return current()

    @staticmethod
    def static() -> Any:
        return current()

    async def later(self) -> Any:
        before = current()
        await asyncio.sleep(0)
        return before, current()

    async def fail_later(self) -> None:
        await asyncio.sleep(0)
        raise LookupError("original")

    def coroutine_from_plain_method(self) -> Any:
        return self.later()

    def steps(self) -> Any:
        """Yields who runs, and what it is sent or thrown."""
        got = None
        while got != "stop":
            try:
                got = yield current(), got
            except KeyError as error:
                got = f"caught {error}"
        return "end"

    async def stream(self) -> Any:
        try:
            for _ in range(3):
                await asyncio.sleep(0)
                yield current()
        finally:
            self.closed_as = current()

    @contextlib.contextmanager
    def session(self) -> Any:
        opened = current()
        try:
            yield opened
        except KeyError:
            self.session_end = ("error", current())
        else:
            self.session_end = ("end", current())

    @contextlib.asynccontextmanager
    async def async_session(self) -> Any:
        yield current()
        self.session_end = ("end", current())

    def __call__(self, number: Any) -> Any:
        return number + 1, current()


@pytest.fixture
def owner(directory: Any) -> Any:
    return directory.add("owner")


@pytest.fixture
def target(registry: Registry, owner: Any) -> Any:
    target = Service()
    registry.offer(target, name="service", scope=owner)
    return target


@pytest.fixture
def reference(registry: Registry, target: Any) -> Any:
    return registry.use("service", biz="owner")


def offered(registry: Registry, thing: Any) -> Any:
    registry.offer(thing, name="thing")
    return registry.use("thing")


# --- as whom ------------------------------------------------------------------------------------------------------


def test_methods_properties_and_calls_run_as_the_owner_and_the_caller_is_himself_again(
    reference: Any, owner: Any, directory: Any
) -> None:
    caller = directory.add("caller")
    with entered(caller):
        assert reference.who() is owner
        assert reference.static() is owner
        assert reference.runner is owner
        assert reference(1) == (2, owner)
        assert current() is caller
    assert reference.who() is owner
    assert current() is None


def test_a_service_of_the_base_runs_as_the_base(registry: Registry, directory: Any) -> None:
    reference = offered(registry, Service())
    with entered(directory.add("caller")):
        assert reference.who() is None


def test_an_exception_arrives_as_it_is_and_the_caller_is_himself_again(reference: Any, directory: Any) -> None:
    caller = directory.add("caller")
    with entered(caller):
        with pytest.raises(LookupError, match="original") as caught:
            reference.fail()
        assert current() is caller
    assert caught.traceback[-1].name == "fail"
    with pytest.raises(AttributeError, match="'Service' object has no attribute 'missing'"):
        _ = reference.missing


def test_a_warning_of_a_service_names_the_line_of_the_call(reference: Any, directory: Any) -> None:
    with warnings.catch_warnings(record=True) as seen, entered(directory.add("caller")):
        warnings.simplefilter("always")
        reference.warn()
    assert [each.filename for each in seen] == [__file__]


def test_arguments_and_results_are_passed_without_copies(reference: Any) -> None:
    thing = object()
    assert reference.echo(thing) is thing
    assert reference.echo(thing=thing) is thing
    assert reference.echo(Service) is Service
    assert reference.echo(print) is print


def test_a_coroutine_runs_as_the_owner_throughout(reference: Any, owner: Any, directory: Any) -> None:
    caller = directory.add("caller")

    async def main() -> None:
        with entered(caller):
            assert await reference.later() == (owner, owner)
            assert await reference.coroutine_from_plain_method() == (owner, owner)
            assert await asyncio.create_task(reference.later()) == (owner, owner)
            results = list(await asyncio.gather(reference.later(), reference.later()))
            assert results == [(owner, owner)] * 2
            with pytest.raises(LookupError, match="original"):
                await reference.fail_later()
            assert current() is caller

    asyncio.run(main())


def test_cancelling_a_call_cancels_the_coroutine_of_the_service(registry: Registry, directory: Any) -> None:
    class Waiting:
        async def wait(self, started: Any) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled_as = current()
                raise

    target, owner = Waiting(), directory.add("owner")
    registry.offer(target, name="waiting", scope=owner)

    async def main() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(registry.use("waiting", biz="owner").wait(started))
        await asyncio.wait_for(started.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert target.cancelled_as is owner


def test_a_coroutine_function_is_one_for_who_asks(reference: Any) -> None:
    assert asyncio.iscoroutinefunction(reference.later)
    assert inspect.iscoroutinefunction(reference.later.__call__)
    assert not asyncio.iscoroutinefunction(reference.who)


def test_a_generator_runs_as_the_owner_and_the_loop_around_it_as_the_caller(
    reference: Any, owner: Any, directory: Any
) -> None:
    caller = directory.add("caller")
    with entered(caller):
        steps = reference.steps()
        assert next(steps) == (owner, None)
        assert current() is caller
        assert steps.send("sent") == (owner, "sent")
        assert steps.throw(KeyError("x")) == (owner, "caught 'x'")
        with pytest.raises(StopIteration) as caught:
            steps.send("stop")
        assert caught.value.value == "end"
        other = reference.steps()
        next(other)
        other.close()
        with pytest.raises(LookupError, match="out"):
            reference.steps().throw(LookupError("out"))


def test_an_asynchronous_generator_runs_as_the_owner_and_the_loop_around_it_as_the_caller(
    reference: Any, target: Any, owner: Any, directory: Any
) -> None:
    caller = directory.add("caller")

    async def main() -> None:
        with entered(caller):
            runners = []
            async for runner in reference.stream():
                runners.append(runner)
                assert current() is caller
            assert runners == [owner] * 3
            del target.closed_as
            stream = reference.stream()
            await anext(stream)
            await stream.aclose()
            assert target.closed_as is owner
            stream = reference.stream()
            await anext(stream)
            with pytest.raises(LookupError, match="thrown"):
                await stream.athrow(LookupError("thrown"))

    asyncio.run(main())


def test_context_managers_of_a_service_run_as_the_owner_at_both_ends(
    reference: Any, target: Any, owner: Any, directory: Any
) -> None:
    caller = directory.add("caller")

    def fail() -> None:
        raise KeyError

    with entered(caller):
        with reference.session() as runner:
            assert (runner, current()) == (owner, caller)
        assert target.session_end == ("end", owner)
        with reference.session():
            fail()
        assert target.session_end == ("error", owner)

    async def main() -> None:
        async with reference.async_session() as runner:
            assert (runner, current()) == (owner, None)
        assert target.session_end == ("end", owner)

    asyncio.run(main())


def test_iteration_runs_as_the_owner(registry: Registry, directory: Any) -> None:
    class Range:
        def __iter__(self) -> Any:
            yield current()
            yield current()

        async def __aiter__(self) -> Any:
            yield current()

    class Countdown:
        left = 2

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            if not self.left:
                raise StopIteration
            self.left -= 1
            return current()

    owner = directory.add("owner")
    registry.offer(Range(), name="range", scope=owner)
    registry.offer(Countdown(), name="countdown", scope=owner)
    assert list(registry.use("range", biz="owner")) == [owner, owner]
    assert list(registry.use("countdown", biz="owner")) == [owner, owner]
    with pytest.raises(StopIteration):
        next(registry.use("countdown", biz="owner"))

    async def main() -> Any:
        return [runner async for runner in registry.use("range", biz="owner")]

    assert asyncio.run(main()) == [owner]


# --- standing for the object --------------------------------------------------------------------------------------


def test_attributes_are_read_set_and_deleted_on_the_object(reference: Any, target: Any) -> None:
    assert reference.label == "service"
    assert reference.values is target.values
    reference.label = "changed"
    assert target.label == "changed"
    del reference.label
    assert target.label == "service"
    assert "values" in dir(reference)
    assert hasattr(reference, "who")
    assert not hasattr(reference, "missing")


def test_a_method_that_was_kept_is_found_again_at_every_call(
    reference: Any, target: Any, registry: Registry, owner: Any
) -> None:
    method = reference.who
    assert method() is owner
    target.who = lambda: "replaced"
    assert method() == "replaced"
    assert method.__name__ == "who"
    assert repr(method) == "<method 'service' of biz owner.who>"
    assert str(inspect.signature(reference.echo)) == "(thing: Any) -> Any"


def test_a_reference_is_an_instance_of_the_class_of_whoever_answers(
    reference: Any, registry: Registry, owner: Any
) -> None:
    assert isinstance(reference, Service)
    assert not isinstance(reference, str)
    registry.withdraw(owner)
    assert not isinstance(reference, Service)


@pytest.mark.parametrize(
    ("target", "use", "expected"),
    [
        ([3, 1], len, 2),
        ([3, 1], lambda r: r[0], 3),
        ([3, 1], list, [3, 1]),
        ([3, 1], lambda r: list(reversed(r)), [1, 3]),
        ([3, 1], lambda r: 3 in r, True),
        ([3, 1], lambda r: r == [3, 1], True),
        ([3, 1], lambda r: r != [3], True),
        ([3, 1], lambda r: r + [0], [3, 1, 0]),  # noqa: RUF005 - the operator is what is tested
        ([3, 1], lambda r: [0] + r, [0, 3, 1]),  # noqa: RUF005 - the operator is what is tested
        ({"a": 1}, dict, {"a": 1}),
        ({"a": 1}, lambda r: r | {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, lambda r: {"b": 2} | r, {"a": 1, "b": 2}),
        (5, lambda r: (r - 1, 1 - r, -r, +r, abs(r), ~r), (4, -4, -5, 5, 5, -6)),
        (5, lambda r: (r * 2, r / 2, r // 2, r % 2, r**2, 2**r, divmod(r, 2)), (10, 2.5, 2, 1, 25, 32, (2, 1))),
        (5, lambda r: (r < 6, r <= 5, r > 6, r >= 5, r << 1, r >> 1, r & 4, r ^ 1), (1, 1, 0, 1, 10, 2, 4, 4)),
        (5, lambda r: (int(r), float(r), complex(r), round(r), range(9)[r], bool(r)), (5, 5.0, 5 + 0j, 5, 5, True)),
        (5, lambda r: (str(r), f"{r:03}", hash(r)), ("5", "005", hash(5))),
        (b"x", bytes, b"x"),
        (0, bool, False),
    ],
)
def test_operators_and_conversions_are_those_of_the_object(
    registry: Registry, target: Any, use: Any, expected: Any
) -> None:
    assert use(offered(registry, target)) == expected


def test_changes_reach_the_object(registry: Registry) -> None:
    target = [1, 2]
    reference = offered(registry, target)
    same = reference
    reference += [3]
    reference[0] = 0
    del reference[1]
    reference.append(4)
    assert target == [0, 3, 4]
    assert reference is same


def test_in_place_operators_on_what_cannot_change_give_the_result(registry: Registry) -> None:
    number = offered(registry, 5)
    number += 1
    assert type(number) is int
    assert number == 6


def test_two_references_are_compared_by_their_objects(registry: Registry) -> None:
    one, other = offered(registry, [1]), registry.use(list)
    assert one == other
    assert one + other == [1, 1]


def test_a_reference_may_be_copied_and_stays_the_same_but_cannot_leave_the_process(reference: Any) -> None:
    assert copy.copy(reference) is reference
    assert copy.deepcopy({"key": reference})["key"] is reference
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(reference)


def test_a_reference_takes_part_in_no_with_statement(reference: Any) -> None:
    with pytest.raises(TypeError, match="context manager"), reference:
        pass


@pytest.mark.parametrize(
    "use",
    [
        lambda r: r.who,
        lambda r: r(1),
        list,
        len,
        str,
        bool,
        lambda r: r == 1,
        lambda r: setattr(r, "label", 1),
        lambda r: delattr(r, "label"),
        dir,
    ],
    ids=["attribute", "call", "iteration", "len", "str", "bool", "comparison", "set", "delete", "dir"],
)
def test_once_the_owner_is_gone_every_use_says_so(reference: Any, directory: Any, owner: Any, use: Any) -> None:
    directory.remove(owner)
    with pytest.raises(ServiceError, match="biz owner does not exist when called") as caught:
        use(reference)
    assert caught.value.code == "100003"
    assert repr(reference) == "<ServiceReference 'service' of biz owner>"


def test_once_the_owner_is_gone_a_kept_method_says_so(reference: Any, directory: Any, owner: Any) -> None:
    method, later = reference.who, reference.later
    directory.remove(owner)
    with pytest.raises(ServiceError, match="does not exist when called"):
        method()
    with pytest.raises(ServiceError, match="does not exist when called"):
        asyncio.run(later())

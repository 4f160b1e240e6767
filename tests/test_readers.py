"""Functions of a module that read its variables as whoever runs has assigned them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import types
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.readers import Layer, Readers, home_of_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = '''
import functools
import inspect
import types

LIMIT = 5
made = None
total = 0


def read():
    return LIMIT


taken = read


def parameters(a, /, b, c=3, *rest, d, e=5, **more):
    """Told."""
    return LIMIT, a, b, c, rest, d, e, more


def nested():
    return [LIMIT for _ in range(2)], (lambda: LIMIT)()


def generator():
    sent = yield LIMIT
    yield sent
    return LIMIT


async def coroutine():
    return LIMIT


@types.coroutine
def old():
    yield LIMIT


async def agenerator():
    try:
        sent = yield LIMIT
        yield sent
    except KeyError:
        yield "caught"


def closing(free):
    def inner():
        return LIMIT, free

    return inner


closed = closing("free")


def decorated(function):
    def around(*args):
        return "around", function(*args)

    return around


@decorated
def hidden():
    return LIMIT


@functools.lru_cache
def cached(x):
    return LIMIT, x


def make():
    global made
    if made is None:
        made = [LIMIT]
    return made


def is_made():
    return made is not None


def everything():
    return LIMIT, globals().get("LIMIT")


def other():
    return len([1])


class Above:
    def told(self):
        return "above"


class Thing(Above):
    def told(self):
        return super().told(), LIMIT

    @classmethod
    def of_class(cls):
        return cls.__name__, LIMIT

    @staticmethod
    def of_nobody():
        return LIMIT

    @property
    def prop(self):
        return LIMIT

    @functools.cached_property
    def kept(self):
        return LIMIT

    class Within:
        def told(self):
            return LIMIT, __class__.__name__
'''


class World:
    """A module, who runs, and the layers of those who have assigned something."""

    def __init__(self) -> None:
        self.module: Any = types.ModuleType("lib")
        exec(compile(SOURCE, "lib.py", "exec"), vars(self.module))
        self.layers: dict[str, Layer] = {}
        self.readers = Readers(self.module, self.layer)

    def layer(self, scope: Scope) -> Layer | None:
        return self.layers.get(scope.biz.name)

    def assign(self, who: str, **variables: Any) -> None:
        self.layers.setdefault(who, self.readers.make_layer()).update(variables)

    def of(self, who: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with entered(Scope(BizId.of(who, "1.0")) if who else None):
            return function(*args, **kwargs)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    codes = {name: value.__code__ for name, value in vars(made.module).items() if inspect.isfunction(value)}
    yield made
    made.readers.close()
    assert {name: getattr(made.module, name).__code__ for name in codes} == codes


def drained(generator: Any, *sent: Any) -> list[Any]:
    found = [next(generator)]
    try:
        found.extend(generator.send(each) for each in sent)
        next(generator)
    except StopIteration as end:
        found.append(end.value)
    return found


async def drained_later(module: Any) -> list[Any]:
    inner = module.agenerator()
    found = [await inner.__anext__(), await inner.asend("sent")]
    inner = module.agenerator()
    await inner.__anext__()
    return [*found, await inner.athrow(KeyError()), await module.coroutine()]


READS: dict[str, Callable[[Any], Any]] = {
    "a function": lambda lib: lib.read(),
    "one taken by another name": lambda lib: lib.taken(),
    "all kinds of parameters": lambda lib: lib.parameters(1, 2, 4, 6, d=7, f=8),
    "their defaults": lambda lib: lib.parameters(1, b=2, d=7),
    "functions inside": lambda lib: lib.nested(),
    "a generator": lambda lib: drained(lib.generator(), "sent"),
    "coroutines": lambda lib: asyncio.run(drained_later(lib)),
    "a generator as a coroutine": lambda lib: lib.old().send(None),
    "a closure": lambda lib: lib.closed(),
    "inside a decorator": lambda lib: lib.hidden(),
    "a method and super": lambda lib: lib.Thing().told(),
    "a class method": lambda lib: lib.Thing.of_class(),
    "a static method": lambda lib: lib.Thing.of_nobody(),
    "a property": lambda lib: lib.Thing().prop,
    "a cached property": lambda lib: lib.Thing().kept,
    "a method of a class inside": lambda lib: lib.Thing.Within().told(),
}


@pytest.mark.parametrize("read", READS.values(), ids=list(READS))
def test_whoever_runs_gets_what_he_would_get_alone(world: World, read: Callable[[Any], Any]) -> None:
    right = {}
    for value in (5, 6, 7):
        alone = World().module
        alone.LIMIT = value
        right[value] = read(alone)
    assert len(set(map(repr, right.values()))) == 3
    world.assign("first", LIMIT=6)
    world.readers.follow(["LIMIT"])
    world.assign("second", LIMIT=7)
    seen = {who: world.of(who, read, world.module) for who in ("", "first", "second", "third")}
    assert seen == {"": right[5], "first": right[6], "second": right[7], "third": right[5]}
    world.module.LIMIT = 7
    assert [read(world.module), world.of("first", read, world.module)] == [right[7], right[6]]
    world.layers["first"].drop()
    assert world.of("first", read, world.module) == right[7]
    world.readers.close()
    assert world.of("second", read, world.module) == right[7]


def test_functions_look_as_they_did(world: World) -> None:
    lib = world.module
    functions = [lib.parameters, lib.generator, lib.coroutine, lib.agenerator, lib.old, lib.Thing.told]
    before = [(inspect.signature(each), inspect.getfullargspec(each)) for each in functions]
    world.readers.follow(["LIMIT"])
    assert [(inspect.signature(each), inspect.getfullargspec(each)) for each in functions] == before
    assert [inspect.isgeneratorfunction(lib.generator), inspect.iscoroutinefunction(lib.coroutine)] == [True, True]
    assert [inspect.isasyncgenfunction(lib.agenerator), inspect.isawaitable(lib.old())] == [True, True]
    assert (lib.parameters.__doc__, lib.parameters.__name__, lib.parameters.__code__.co_filename) == (
        "Told.",
        "parameters",
        "lib.py",
    )
    with pytest.raises(TypeError, match=r"parameters\(\) missing 1 required keyword-only argument: 'd'"):
        lib.parameters(1, 2)
    lib.parameters.__defaults__ = (4,)
    assert lib.parameters(1, 2, d=3)[3] == 4
    assert functools.partial(lib.read)() == 5


def test_what_a_function_makes_of_a_variable_belongs_to_whoever_has_assigned_it(world: World) -> None:
    world.assign("first", LIMIT=6)
    assert world.readers.follow(["LIMIT"]) == {"LIMIT", "made"}
    lib = world.module
    assert world.of("first", lib.make) == [6]
    assert [lib.is_made(), world.of("first", lib.is_made), world.of("second", lib.is_made)] == [False, True, False]
    assert lib.make() == world.of("second", lib.make) == [5]
    assert world.of("first", lib.make) == [6]


def test_functions_that_cannot_be_asked_stay_as_they_are(world: World) -> None:
    world.assign("first", LIMIT=6)
    lib = world.module
    codes = {each: each.__code__ for each in (lib.everything, lib.make, lib.other)}
    assert world.readers.follow(["LIMIT"], but=frozenset({"made"})) == {"LIMIT"}
    assert {each: each.__code__ for each in codes} == codes
    assert world.of("first", lib.everything) == (5, 5)


def test_names_can_be_added_and_code_of_others_stays(world: World) -> None:
    world.assign("first", LIMIT=6, total=1)
    world.readers.follow(["LIMIT"])
    lib = world.module
    code = lib.read.__code__
    assert world.readers.follow(["total", "LIMIT"]) == {"total", "LIMIT", "made"}
    assert lib.read.__code__ is code
    lib.read.__code__ = (lambda: "other").__code__
    world.readers.close()
    assert lib.read() == "other"
    lib.read.__code__ = lib.taken.__code__ = World().module.read.__code__


def test_a_class_of_no_module_is_passed_over() -> None:
    """As one is that is made by code whose globals have no name."""
    module: Any = types.ModuleType("bare")
    exec("LIMIT = 1\ndef read(self=None): return LIMIT\n", vars(module))
    module.Bare = eval("type('Bare', (), {'read': read})", {"read": module.read})
    readers = Readers(module, lambda _: None)
    assert readers.follow(["LIMIT"]) == {"LIMIT"}
    readers.close()
    assert home_of_class(module.Bare) == ""
    assert (module.read(), module.Bare().read()) == (1, 1)


def test_functions_may_be_called_while_others_begin_to_follow(world: World) -> None:
    world.assign("first", LIMIT=6)
    lib = world.module
    wrong: list[Any] = []
    is_over = threading.Event()

    def call() -> None:
        while not is_over.is_set():
            wrong.extend(each for each in (lib.read(), lib.Thing().told()[1], lib.closed()[0]) if each != 5)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        world.readers.follow(["LIMIT"])
        world.readers.close()
    is_over.set()
    for thread in threads:
        thread.join()
    assert wrong == []

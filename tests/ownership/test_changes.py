"""What bizs change in shared modules: kept to whoever changed it, told where that cannot be, taken back at leaving."""

from __future__ import annotations

import asyncio
import builtins
import functools
import gc
import inspect
import pickle
import sys
import threading
import types
import weakref
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import pytest

from koupleless.biz import BizId
from koupleless.changes.changes import Changes, SharedStateWarning, Watch
from koupleless.changes.dispatch import Patched
from koupleless.changes.origin import is_done_by
from koupleless.context import Scope, entered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIBRARY = """
import functools

LIMIT = 5
TABLE = {}
NAMES = []
hook = None
counter = 0


def limit():
    return LIMIT


made = None


def pool():
    global made
    if made is None:
        made = [LIMIT]
    return made


def function(x=1):
    return ["base", x]


def calls_function():
    return function()


async def coroutine():
    return ["base"]


def generator():
    yield "base"


async def agenerator():
    try:
        yield "base"
    except ValueError:
        yield "caught"


@functools.lru_cache
def cached(x):
    return ["base", x]


def count():
    global counter
    counter += 1


class Other:
    def method(self):
        return ["other"]


def other():
    return Other()


class Above:
    def inherited(self):
        return ["above"]

    @classmethod
    def inherited_class(cls):
        return ["above", cls.__name__]


class Thing(Above):
    size = 3
    hook = None
    known = {}

    def __init__(self, x=0):
        self.x = x

    def method(self, x=1):
        return ["base", x]

    @classmethod
    def make(cls):
        return ["base", cls.__name__]

    @staticmethod
    def plain():
        return ["base"]

    @property
    def prop(self):
        return ["base", self.x]

    @prop.setter
    def prop(self, value):
        self.x = value

    @functools.cached_property
    def kept(self):
        return ["base"]

    async def acall(self):
        return ["base"]

    def __len__(self):
        return 7

    class Inner:
        size = 3
        known = {}

        def method(self, x=1):
            return ["base", x]

        class Innermost:
            def method(self, x=1):
                return ["base", x]
"""


class Storing:
    """The names a test says that its biz's code stores."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def has_attribute(self, name: str) -> bool:
        return name in self.names

    def has_container(self, name: str, holders: frozenset[str] = frozenset()) -> bool:
        return any(f"{holder}.{name}" in self.names for holder in holders) if holders else name in self.names


class Biz:
    def __init__(self, changes: Changes, library: Any, name: str, *stores: str) -> None:
        self.scope = Scope(BizId.of(name, "1.0"))
        self.table = {**vars(builtins)}
        self.globals: dict[str, Any] = {"__builtins__": self.table, "__name__": f"app_{name}", "lib": library}
        modules = {library.__name__: library}
        self.watch = changes.watch(self.scope, lambda: modules, builtins=self.table, storing=Storing(*stores))
        self.watch.begin()

    def run(self, source: str) -> tuple[str, ...]:
        """Run code as the biz, and look at what it did."""
        self.do(source)
        return self.watch.check()

    def do(self, source: str) -> None:
        with entered(self.scope):
            exec(compile(inspect.cleandoc(source), "app.py", "exec"), self.globals)

    def sees(self, expression: str) -> Any:
        with entered(self.scope):
            return eval(expression, self.globals)

    def leave(self) -> Any:
        left = self.watch.leave()
        self.scope.close()
        self.globals.clear()
        return left


@pytest.fixture
def lib() -> Iterator[Any]:
    library: Any = types.ModuleType("lib")
    library.__spec__ = ModuleSpec("lib", None)
    sys.modules["lib"] = library
    exec(compile(LIBRARY, "lib.py", "exec"), vars(library))
    inner = library.Thing.Inner
    kinds = (library.Thing, library.Above, library.Other, inner, inner.Innermost)
    before = dict(vars(library)), {kind: dict(vars(kind)) for kind in kinds}
    yield library
    library.__spec__ = before[0]["__spec__"]
    # Whatever a test did, everything is as it was once all bizs have left.
    assert type(library) is types.ModuleType
    assert dict(vars(library)) == before[0]
    for kind, table in before[1].items():
        assert {name: value for name, value in vars(kind).items() if table.get(name) is not value} == {}
        assert vars(kind).keys() == table.keys()
    del sys.modules["lib"]


@pytest.fixture
def make(lib: Any) -> Iterator[Callable[..., Biz]]:
    changes = Changes()
    made: list[Biz] = []

    def make(name: str, *stores: str) -> Biz:
        made.append(Biz(changes, lib, name, *stores))
        return made[-1]

    yield make
    for biz in made:
        biz.leave()
    assert changes._places == {}
    assert changes._assigned == {}
    assert changes._baseline is None


WRAPS = {
    "method of a class in a class": (
        "o = lib.Thing.Inner.method\nlib.Thing.Inner.method = lambda self, x=1: ['NAME', *o(self, x)]",
        "lib.Thing.Inner().method(2)",
        ["base", 2],
    ),
    "method of a class further in": (
        "K = lib.Thing.Inner.Innermost\no = K.method\nK.method = lambda self, x=1: ['NAME', *o(self, x)]",
        "lib.Thing.Inner.Innermost().method(2)",
        ["base", 2],
    ),
    "function": ("o = lib.function\nlib.function = lambda x=1: ['NAME', *o(x)]", "lib.function(2)", ["base", 2]),
    "function, called by the library": (
        "o = lib.function\nlib.function = lambda x=1: ['NAME', *o(x)]",
        "lib.calls_function()",
        ["base", 1],
    ),
    "method": (
        "o = lib.Thing.method\nlib.Thing.method = lambda self, x=1: ['NAME', *o(self, x=x)]",
        "lib.Thing().method(x=2)",
        ["base", 2],
    ),
    "class method": (
        "o = lib.Thing.make.__func__\nlib.Thing.make = classmethod(lambda cls: ['NAME', *o(cls)])",
        "lib.Thing.make()",
        ["base", "Thing"],
    ),
    "static method": (
        "o = lib.Thing.plain\nlib.Thing.plain = staticmethod(lambda: ['NAME', *o()])",
        "lib.Thing().plain()",
        ["base"],
    ),
    "property": (
        "o = lib.Thing.prop\nlib.Thing.prop = property(lambda self: ['NAME', *o.fget(self)], o.fset)",
        "lib.Thing(4).prop",
        ["base", 4],
    ),
    "inherited method": (
        "o = lib.Thing.inherited\nlib.Thing.inherited = lambda self: ['NAME', *o(self)]",
        "lib.Thing().inherited()",
        ["above"],
    ),
    "special method": (
        """
        o = lib.Thing.__init__
        def init(self, x=0):
            o(self, x)
            self.x = ["NAME", *(x if isinstance(x, list) else [x])]
        lib.Thing.__init__ = init
        """,
        "lib.Thing(1).x",
        1,
    ),
    "what is cached": ("o = lib.cached\nlib.cached = lambda x: ['NAME', *o(x)]", "lib.cached(3)", ["base", 3]),
}


@pytest.mark.parametrize(("source", "expression", "plain"), WRAPS.values(), ids=list(WRAPS))
def test_two_bizs_that_wrap_the_same_thing_each_have_their_own(
    lib: Any, make: Callable[..., Biz], source: str, expression: str, plain: Any
) -> None:
    first, second, third = make("first"), make("second"), make("third")

    def wrapped(name: str) -> Any:
        return [name, *(plain if type(plain) is list else [plain])]

    def seen() -> list[Any]:
        return [eval(expression, {"lib": lib}), *(biz.sees(expression) for biz in (first, second, third))]

    assert first.run(source.replace("NAME", "first")) == ()
    assert seen() == [plain, wrapped("first"), plain, plain]
    assert second.run(source.replace("NAME", "second")) == ()
    assert seen() == [plain, wrapped("first"), wrapped("second"), plain]
    assert third.run(source.replace("NAME", "third")) == ()
    assert second.leave().undone == {"patch": 1}
    with entered(second.scope):
        assert eval(expression, {"lib": lib}) == plain
    assert [eval(expression, {"lib": lib}), first.sees(expression)] == [plain, wrapped("first")]
    assert third.sees(expression) == wrapped("third")
    first.leave()
    assert eval(expression, {"lib": lib}) == plain
    assert third.sees(expression) == wrapped("third")


def test_what_stands_there_looks_like_the_original(lib: Any, make: Callable[..., Biz]) -> None:
    original, method = lib.function, lib.Thing.method
    make("first").run("lib.function = lambda x: x\nlib.Thing.method = lambda self: None")
    assert inspect.signature(lib.function) == inspect.signature(original)
    assert inspect.signature(lib.Thing.method) == inspect.signature(method)
    assert lib.Thing.method.__qualname__ == "Thing.method"
    assert inspect.unwrap(lib.function) is original
    assert pickle.loads(pickle.dumps(lib.function)) is lib.function


def test_coroutines_and_generators_stay_what_they_are(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first")
    first.run("""
        async def coroutine(): return ["first"]
        async def acall(self): return ["first"]
        def generator(): yield "first"
        async def agenerator():
            yield (yield "first")
        lib.coroutine, lib.Thing.acall, lib.generator, lib.agenerator = coroutine, acall, generator, agenerator
    """)
    assert inspect.iscoroutinefunction(lib.coroutine)
    assert inspect.iscoroutinefunction(lib.Thing.acall)
    assert inspect.isgeneratorfunction(lib.generator)
    assert inspect.isasyncgenfunction(lib.agenerator)

    async def throw() -> list[str]:
        made = lib.agenerator()
        return [await anext(made), await made.athrow(ValueError())]

    async def send() -> list[str]:
        made = lib.agenerator()
        return [await anext(made), await made.asend("sent")]

    assert (asyncio.run(lib.coroutine()), list(lib.generator())) == (["base"], ["base"])
    assert asyncio.run(throw()) == ["base", "caught"]
    with entered(first.scope):
        assert (asyncio.run(lib.coroutine()), list(lib.generator())) == (["first"], ["first"])
        assert asyncio.run(lib.Thing().acall()) == ["first"]
        assert asyncio.run(send()) == ["first", "sent"]


def test_a_biz_that_wraps_twice_calls_both_once(make: Callable[..., Biz]) -> None:
    first, second = make("first"), make("second")
    wrap = "o{0} = lib.function\nlib.function = lambda x=1: ['{0}', *o{0}(x)]"
    first.run(wrap.format("a"))
    second.run(wrap.format("s"))
    first.run(wrap.format("b"))
    first.run(wrap.format("c"))
    assert first.sees("lib.function()") == ["c", "b", "a", "base", 1]
    assert second.sees("lib.function()") == ["s", "base", 1]


def test_a_patch_that_is_taken_back_by_who_made_it_is_gone_for_him_alone(lib: Any, make: Callable[..., Biz]) -> None:
    first, second = make("first"), make("second")
    wrap = "o = lib.function\nlib.function = lambda x=1: ['NAME', *o(x)]"
    original = lib.function
    first.run(wrap.replace("NAME", "first"))
    second.run(wrap.replace("NAME", "second"))
    first.run("lib.function = o")
    assert [lib.function(), first.sees("lib.function()")] == [["base", 1]] * 2
    assert second.sees("lib.function()") == ["second", "base", 1]
    second.run("lib.function = o")
    assert lib.function is not original or second.sees("lib.function()") == ["base", 1]
    second.leave()
    first.leave()
    assert lib.function is original


def test_mocks_are_the_bizs_own_and_can_be_asked(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first")
    first.globals["mock"] = mock
    first.run("""
        patches = [mock.patch("lib.function", return_value="mocked"), mock.patch.object(lib.Thing, "method"),
                   mock.patch.object(lib.Thing, "prop", new_callable=mock.PropertyMock, return_value=9)]
        for patch in patches: patch.start()
    """)
    assert [lib.function(), lib.Thing().method(), lib.Thing(2).prop] == [["base", 1], ["base", 1], ["base", 2]]
    assert first.sees("[lib.function(), lib.calls_function(), lib.Thing().prop]") == ["mocked", "mocked", 9]
    assert first.sees("(lib.function.call_count, lib.Thing.method.called, lib.Thing().method(1))")[:2] == (2, False)
    assert first.sees("lib.Thing.method.call_args") == mock.call(1)
    thing = lib.Thing()
    thing.prop = 5
    assert thing.x == 5
    first.run("for patch in patches: patch.stop()")
    assert first.sees("lib.function()") == ["base", 1]
    assert first.leave().undone == {}


def test_a_descriptor_of_another_kind_is_shown_to_its_owner_alone(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first")
    first.globals["functools"] = functools
    first.run("""
        lib.Thing.method = staticmethod(lambda x: ["first", x])
        lib.Thing.make = property(lambda self: "first")
        kept = functools.cached_property(lambda self: ["first"])
        kept.__set_name__(lib.Thing, "kept")
        lib.Thing.kept = kept
        lib.Thing.hook = lambda self: "first"
    """)
    thing = lib.Thing()
    assert (thing.method(2), thing.make(), thing.kept, thing.hook) == (["base", 2], ["base", "Thing"], ["base"], None)
    with entered(first.scope):
        thing = lib.Thing()
        assert (thing.method(2), thing.make, thing.kept, thing.hook()) == (["first", 2], "first", ["first"], "first")


def test_what_was_not_there_is_there_for_who_put_it_there(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first", "flag")
    first.run("lib.Thing.added = lambda self: 'first'\nlib.added = lambda: 'first'\nlib.Thing.flag = lib.flag = True")
    assert first.sees("(lib.Thing().added(), lib.added(), lib.Thing.flag, lib.flag)") == ("first", "first", True, True)
    with pytest.raises(AttributeError, match="'Thing' object has no attribute 'added'"):
        lib.Thing().added()
    assert not hasattr(lib, "added")
    assert not hasattr(lib, "flag")
    assert not hasattr(lib.Thing, "flag")
    assert not hasattr(lib.Thing(), "flag")


def test_what_is_put_into_a_module_that_the_base_made_by_hand_is_the_bases(lib: Any, make: Callable[..., Biz]) -> None:
    lib.__spec__ = None
    first = make("first", "result")
    assert first.run("lib.result = [1]") == ()
    assert lib.result == [1]
    assert first.leave().undone == {}
    assert lib.result == [1]
    del lib.result


def test_special_methods_that_were_not_there(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first", "__bool__")
    with pytest.warns(SharedStateWarning, match="`lib.Other.__bool__` of the shared lib, which every module sees"):
        first.run("lib.Other.__getattr__ = lambda self, name: name\nlib.Other.__bool__ = lambda self: False")
    assert first.sees("lib.Other().anything") == "anything"
    with pytest.raises(AttributeError, match="'Other' object has no attribute 'anything'"):
        _ = lib.Other().anything
    assert not lib.Other()  # it would have been an error for others, had it been dispatched
    first.leave()
    assert lib.Other()


def test_what_cannot_be_kept_apart_does_not_keep_the_rest_from_it(
    lib: Any, make: Callable[..., Biz], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = make("first")
    change = Patched.change

    def fail(place: Patched, scope: Scope, value: object) -> None:
        if place.name == "function":
            raise RuntimeError("no")
        change(place, scope, value)

    monkeypatch.setattr(Patched, "change", fail)
    original = lib.function
    first.run("lib.function = lib.Thing.method = lambda *args: 'first'")
    assert "a change of lib.function could not be kept apart" in caplog.text
    assert lib.Thing().method() == ["base", 1]
    lib.function = original


def test_a_class_in_the_place_of_another_one(lib: Any, make: Callable[..., Biz]) -> None:
    first, second = make("first"), make("second")
    source = "class Other(lib.Other):\n    def method(self): return ['NAME', *super().method()]\nlib.Other = Other"
    first.run(source.replace("NAME", "first"))
    second.run(source.replace("NAME", "second"))
    seen = "lib.Other().method()"
    assert [eval(seen, {"lib": lib}), first.sees(seen), second.sees(seen)] == [
        ["other"],
        ["first", "other"],
        ["second", "other"],
    ]
    calls = "lib.other().method()"  # functions of the module read it, too
    assert [eval(calls, {"lib": lib}), first.sees(calls), second.sees(calls)] == [
        ["other"],
        ["first", "other"],
        ["second", "other"],
    ]
    assert first.leave().undone == {"patch": 1}
    assert second.sees(seen) == ["second", "other"]


def test_a_data_attribute_of_a_class_is_shown_to_its_owner_and_told(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first", "size")
    with pytest.warns(SharedStateWarning, match="biz first:1.0 changed `lib.Thing.size` of the shared lib") as caught:
        (told,) = first.run("lib.Thing.size = 4")
    assert 'own = ["lib"]' in told
    assert str(caught[0].message) == told
    thing = lib.Thing()
    assert (lib.Thing.size, thing.size, first.sees("lib.Thing.size")) == (3, 3, 4)
    thing.size = 5
    assert (thing.size, lib.Thing().size) == (5, 3)
    assert first.leave().undone == {"shared attribute": 1}
    assert vars(lib.Thing)["size"] == 3


def test_a_variable_of_a_module_is_another_one_for_who_has_set_it(lib: Any, make: Callable[..., Biz]) -> None:
    first, second, third = make("first", "LIMIT", "hook"), make("second", "LIMIT"), make("third")
    code = lib.limit.__code__
    seen = "(lib.LIMIT, lib.limit(), lib.hook and lib.hook())"
    assert first.run("lib.LIMIT = 6\nlib.hook = lambda: 'first'") == ()
    second.do("lib.LIMIT = 7")  # from now on nobody else sees it, not even until the next comparison
    assert [eval(seen, {"lib": lib}), *(biz.sees(seen) for biz in (first, second, third))] == [
        (5, 5, None),
        (6, 6, "first"),
        (7, 7, None),
        (5, 5, None),
    ]
    assert second.run("") == ()
    assert [first.leave().undone, second.leave().undone] == [
        {"shared attribute": 1, "patch": 1},
        {"shared attribute": 1},
    ]
    assert third.sees(seen) == (5, 5, None)
    assert lib.limit.__code__ is code


def test_who_has_put_a_variable_back_goes_by_that_of_the_module(lib: Any, make: Callable[..., Biz]) -> None:
    first, second = make("first", "LIMIT"), make("second", "LIMIT")
    first.run("lib.LIMIT = 6")
    second.do("before = lib.LIMIT\nlib.LIMIT = 7")
    assert second.sees("lib.limit()") == 7
    second.do("lib.LIMIT = before")
    lib.LIMIT = 8
    assert [lib.limit(), first.sees("lib.limit()"), second.sees("lib.limit()")] == [8, 6, 8]
    lib.LIMIT = 5
    assert [second.leave().undone, first.leave().undone] == [{}, {"shared attribute": 1}]


def test_what_functions_make_of_a_variable_is_the_bizs_own(lib: Any, make: Callable[..., Biz]) -> None:
    first, second = make("first", "LIMIT"), make("second")
    first.run("lib.LIMIT = 6")
    assert first.sees("(lib.pool(), lib.made)") == ([6], [6])
    assert lib.made is None
    assert [second.sees("(lib.pool(), lib.made)"), (lib.pool(), lib.made)] == [([5], [5])] * 2
    assert first.sees("lib.pool() is lib.made == [6]")
    assert first.leave().undone == {"shared attribute": 2}
    lib.made = None


@pytest.mark.filterwarnings("ignore::koupleless.changes.changes.SharedStateWarning")
def test_a_variable_of_a_compiled_module_is_put_back_when_the_last_one_who_set_it_leaves(
    lib: Any, make: Callable[..., Biz]
) -> None:
    lib.__spec__ = ModuleSpec("lib", ExtensionFileLoader("lib", "lib.so"))
    first, second, third = (make(name, "LIMIT") for name in ("first", "second", "third"))
    (told,) = first.run("lib.LIMIT = 6")
    assert "`lib.LIMIT` of the shared lib, which every module sees" in told
    second.run("lib.LIMIT = 7")
    third.run("lib.LIMIT = 7")  # the same value, which no comparison sees
    assert first.leave().undone == {"shared attribute": 1}
    assert lib.LIMIT == 7
    second.leave()
    assert lib.LIMIT == 7
    third.leave()
    assert lib.LIMIT == 5


def test_what_the_base_has_put_over_it_stays(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first")
    original = lib.function
    first.run("o = lib.function\nlib.function = lambda x=1: ['first', *o(x)]")
    inner = lib.function
    lib.function = lambda x=1: ["new", *inner(x)]
    assert first.sees("lib.function()") == ["new", "first", "base", 1]
    first.leave()
    assert lib.function() == ["new", "base", 1]
    lib.function = original


def test_what_the_library_does_by_itself_is_not_the_bizs(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first", "counter", "elsewhere")
    assert first.run("lib.count()") == ()
    lib.elsewhere = types.ModuleType("lib.elsewhere")
    assert first.watch.check() == ()
    first.leave()
    assert lib.counter == 1
    lib.counter = 0
    del lib.elsewhere


FILLING: Final = """
class Lazy:
    def __init__(self, name):
        self.name = name

    def __get__(self, instance, kind):
        setattr(instance, self.name, [self.name])
        delattr(type(instance), self.name)
        return vars(instance)[self.name]


class Names:
    first = Lazy("first")
    second = Lazy("second")


class Events:
    pass


def register(kind):
    kind.events = Events()
"""


def test_what_a_library_does_to_its_classes_at_their_first_use_stays(make: Callable[..., Biz], lib: Any) -> None:
    """A descriptor that resolves itself, as those of six, and an object that is hung on a class, as by SQLAlchemy."""
    exec(FILLING, vars(lib))
    biz = make("one", "first", "second", "events", "size")
    try:
        told = biz.run("lib.Names().first\nlib.register(lib.Thing)\nlib.Thing.size = 4")
        assert [one for one in told if "size" not in one] == []
        events = lib.Thing.events
        biz.leave()
        assert lib.Thing.events is events
        assert "first" not in vars(lib.Names)
        assert "second" in vars(lib.Names)
        assert lib.Thing.size == 3, "which the biz itself has set"
    finally:
        del lib.Thing.events
        for name in ("Lazy", "Names", "Events", "register"):
            vars(lib).pop(name, None)


def test_data_and_containers_of_a_class_in_a_class(lib: Any, make: Callable[..., Biz]) -> None:
    first, second = make("first", "size", "known"), make("second")
    with pytest.warns(SharedStateWarning):
        told = first.run("lib.Thing.Inner.size = 5\nlib.Thing.Inner.known['mine'] = 1")
    assert [words.split("`")[1] for words in told] == ["lib.Thing.Inner.size", "lib.Thing.Inner.known"]
    assert [biz.sees("lib.Thing.Inner.size") for biz in (first, second)] == [5, 3]
    assert first.leave().remaining() == ("lib.Thing.Inner.known",)
    lib.Thing.Inner.known.clear()


def test_what_is_put_into_a_class_that_a_biz_puts_into_another_is_its_own(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first", "Late", "size")
    first.run("class Late:\n    size = 1\nLate.__module__ = 'lib'\nlib.Thing.Late = Late")
    first.run("lib.Thing.Late.size = 2")
    kept = weakref.ref(first.globals["Late"])
    first.leave()
    gc.collect()
    assert kept() is None
    assert not hasattr(lib.Thing, "Late")


def test_what_a_library_does_in_a_class_in_a_class_is_its_own(lib: Any, make: Callable[..., Biz]) -> None:
    source = "class Outer:\n    class Lazy:\n        made = None\n        def make(self): Outer.Lazy.made = 5\n"
    exec(compile(source, "lib.py", "exec"), vars(lib))
    try:
        first = make("first", "made")
        assert first.run("lib.Outer.Lazy().make()") == ()
        first.leave()
        assert lib.Outer.Lazy.made == 5
    finally:
        del lib.Outer


def test_a_container_that_has_grown_is_told_and_named_as_long_as_it_has(lib: Any, make: Callable[..., Biz]) -> None:
    first = make("first", "NAMES")
    with pytest.warns(SharedStateWarning):
        told = first.run("lib.NAMES.append('plain')\nlib.TABLE['key'] = lambda: 1\nlib.Thing.known['mine'] = lambda: 1")
    assert [words.split("`")[1] for words in told] == ["lib.TABLE", "lib.NAMES", "lib.Thing.known"]
    left = first.leave()
    assert left.remaining() == ("lib.NAMES", "lib.TABLE", "lib.Thing.known")
    lib.TABLE.clear()
    lib.Thing.known.clear()
    assert left.remaining() == ("lib.NAMES",)
    lib.NAMES.clear()


@pytest.mark.parametrize(("stores", "told"), [("optparse.known", ["optparse.known"]), ("known", []), ("lib.known", [])])
@pytest.mark.filterwarnings("ignore::koupleless.changes.changes.SharedStateWarning")
def test_a_container_of_pythons_own_is_whose_code_adds_to_it_there(stores: str, told: list[str]) -> None:
    module: Any = types.ModuleType("optparse")
    module.known = {}
    biz = Biz(Changes(), module, "first", stores)
    module.known["key"] = "value"
    assert [words.split("`")[1] for words in biz.watch.check()] == told
    assert biz.leave().remaining() == tuple(told)


def test_a_change_is_found_whosever_moment_it_is(lib: Any, make: Callable[..., Biz]) -> None:
    first, second = make("first"), make("second")
    first.do("lib.function = lambda x=1: 'first'")
    second.run("pass")
    assert (lib.function(), first.sees("lib.function()")) == (["base", 1], "first")
    assert second.leave().undone == {}


def test_nothing_of_a_biz_is_kept(lib: Any, make: Callable[..., Biz]) -> None:
    first, second = make("first"), make("second")
    wrap = "o = lib.Thing.method\ndef method(self, x=1): return ['NAME', *o(self, x)]\nlib.Thing.method = method"
    first.run(wrap.replace("NAME", "first"))
    second.run(wrap.replace("NAME", "second"))
    alive = weakref.ref(first.globals["method"])
    first.leave()
    gc.collect()
    assert alive() is None
    assert second.sees("lib.Thing().method()") == ["second", "base", 1]


def test_a_thousand_new_versions_do_not_make_a_call_longer(lib: Any, make: Callable[..., Biz]) -> None:
    source = "import sys\no = lib.function\nlib.function = lambda x=1: [sys._getframe(1) and depth(), *o(x)]"
    depths = []
    before = make("v0")
    before.run("o = lib.function\nlib.function = lambda x=1: o(x)")
    for number in range(1, 100):
        biz = make(f"v{number}")
        biz.globals["depth"] = lambda: len(inspect.stack(0))
        biz.run(source)
        before.leave()
        before = biz
        depths.append(biz.sees("lib.function()")[0])
    assert len(set(depths[1:])) == 1
    assert lib.function() == ["base", 1]


def test_a_hundred_bizs_on_one_function_do_not_meet(lib: Any, make: Callable[..., Biz]) -> None:
    bizs = [make(f"b{number}") for number in range(100)]
    for biz in bizs:
        biz.run(f"o = lib.function\nlib.function = lambda x=1: ['{biz.scope.biz.name}', *o(x)]")
    results: dict[str, Any] = {}

    def call(biz: Biz) -> None:
        for _ in range(20):
            results.setdefault(biz.scope.biz.name, set()).add(tuple(biz.sees("lib.function()")))

    threads = [threading.Thread(target=call, args=(biz,)) for biz in bizs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {biz.scope.biz.name: {(biz.scope.biz.name, "base", 1)} for biz in bizs}
    for biz in bizs[::2]:
        biz.leave()
    assert all(biz.sees("lib.function()") == [biz.scope.biz.name, "base", 1] for biz in bizs[1::2])


def test_a_biz_is_no_longer_watched_once_it_has_left(make: Callable[..., Biz]) -> None:
    first = make("first")
    watch = first.scope.facet(Watch)
    first.run("lib.function = lambda: 'first'")
    first.leave()
    assert watch.check() == ()
    assert watch.leave().undone == {}


def test_code_that_uses_constant_tuples_is_read_for_who_sets_what() -> None:
    """An empty one is no pair of variables, whose second would be what is set."""
    module = types.ModuleType("reads")
    exec(
        "class Thing: pass\ndef change(other, made=()):\n  other.limit = ()\n  other.label = made or ()\n", vars(module)
    )
    assert is_done_by(module, vars(module)["Thing"], "limit")
    assert not is_done_by(module, vars(module)["Thing"], "change")

"""Values of a biz in the place of those of the process: containers, variables, attributes, objects, caches."""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
import json
import pickle
import sys
import textwrap
import types
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.adapters import door
from koupleless.adapters.containers import hides_some, own_containers
from koupleless.adapters.own import OwnAttribute, own_cache, own_object
from koupleless.adapters.variables import own_variables
from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.ownership.kinds import Own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIBRARY = """
import functools

TABLE = {"a": 1, "deep": {"x": 1}, "list": [1]}
ITEMS = [1, 2]
NAMES = {"a", "b"}
LIMIT = 1
CLIENT = "of the base"

def read_table():
    return dict(TABLE), [*ITEMS]

def limit():
    return LIMIT

def client():
    global CLIENT
    if CLIENT is None:
        CLIENT = [LIMIT]
    return CLIENT

def set_limit(value):
    global LIMIT
    LIMIT = value

async def later():
    return LIMIT

class User:
    kept = {}
    @property
    def limit(self):
        return LIMIT
    @limit.setter
    def limit(self, value):
        self.set = LIMIT + value
    @classmethod
    def of_class(cls):
        return LIMIT
    @staticmethod
    def of_nobody():
        return LIMIT
    def of_self(self, more=0, *, factor=1):
        return (LIMIT + more) * factor

@functools.lru_cache(maxsize=2)
def made(name):
    return [name]
"""


@pytest.fixture
def library() -> Iterator[Any]:
    module = types.ModuleType("owned")
    sys.modules["owned"] = module
    exec(textwrap.dedent(LIBRARY), vars(module))
    sys.modules["owned.other"] = other = types.ModuleType("owned.other")
    vars(other).update(ALIAS=module.TABLE, limit=module.limit)
    yield module
    del sys.modules["owned"], sys.modules["owned.other"]


@pytest.fixture
def undo() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def run(scope: Scope, function: Callable[..., Any], *args: Any) -> Any:
    with entered(scope):
        return function(*args)


def two() -> tuple[Scope, Scope]:
    return Scope(BizId.of("one", "1")), Scope(BizId.of("two", "1"))


def test_a_container_is_each_biz_s_own_from_its_first_change_on(library, undo):
    original, other = library.TABLE, sys.modules["owned.other"]
    own_containers(undo, library, "TABLE", "ITEMS", "ABSENT")
    one, second = two()
    with entered(one):
        library.TABLE["b"] = 2
        library.TABLE["deep"]["y"] = 2
        library.TABLE["list"].append(2)
        library.ITEMS.extend([3])
        library.ITEMS += [4]
        assert library.read_table() == ({"a": 1, "deep": {"x": 1, "y": 2}, "list": [1, 2], "b": 2}, [1, 2, 3, 4])
        assert other.ALIAS is library.TABLE
        assert json.loads(json.dumps(library.TABLE)) == library.TABLE
        assert {**library.TABLE}.keys() == set(library.TABLE) == {"a", "b", "deep", "list"}
        assert type(copy.copy(library.TABLE)) is type(pickle.loads(pickle.dumps(library.TABLE))) is dict
        assert [*library.ITEMS, len(library.ITEMS)] == [1, 2, 3, 4, 4]
        assert copy.copy(library.ITEMS) == pickle.loads(pickle.dumps(library.ITEMS)) == [1, 2, 3, 4]
    as_made = ({"a": 1, "deep": {"x": 1}, "list": [1]}, [1, 2])
    assert run(second, library.read_table) == library.read_table() == as_made
    undo.close()
    assert library.TABLE is other.ALIAS is original
    assert library.read_table() == as_made
    assert [type(library.TABLE["deep"]), type(library.ITEMS)] == [dict, list]


def test_what_the_base_changes_reaches_a_biz_but_where_that_has_changed_it(library, undo):
    own_containers(undo, library, "TABLE", "ITEMS")
    one, _ = two()
    with entered(one):
        library.TABLE.update(a="mine", own="mine")
        library.ITEMS.append("mine")
    library.TABLE.update(a="base", late="base")
    library.TABLE.pop("list")
    library.ITEMS.append("base")
    with entered(one):
        assert library.TABLE == {"a": "mine", "own": "mine", "late": "base", "deep": {"x": 1}}
        assert library.ITEMS == [1, 2, "mine", "base"]
    undo.close()
    assert [library.TABLE, library.ITEMS] == [{"a": "base", "late": "base", "deep": {"x": 1}}, [1, 2, "base"]]


def test_a_container_of_a_class_and_of_an_object(library, undo):
    thing = library.User()
    thing.bag = {}
    own_containers(undo, library.User, "kept")
    own_containers(undo, thing, "bag")
    one, _ = two()
    with entered(one):
        library.User.kept["a"] = thing.bag["a"] = 1
        assert [library.User.kept, thing.bag] == [{"a": 1}, {"a": 1}]
    assert [library.User.kept, thing.bag] == [{}, {}]
    undo.close()
    assert type(library.User.kept) is type(thing.bag) is dict


def test_a_variable_is_each_biz_s_own_for_all_code_that_reads_it(library, undo):
    own_variables(undo, library, "LIMIT", "ABSENT")
    one, second = two()

    def seen() -> list[int]:
        user = library.User()
        user.limit = 0
        assert user.set == user.limit
        read = [library.LIMIT, library.limit(), sys.modules["owned.other"].limit()]
        with contextlib.suppress(StopIteration):
            library.later().send(None)
        return [*read, user.limit, user.of_class(), user.of_nobody(), user.of_self(1, factor=2) // 2 - 1]

    with entered(one):
        library.LIMIT = 5
        assert seen() == [5] * 7
    with entered(second):
        assert seen() == [1] * 7
        library.set_limit(7)
        assert seen() == [7] * 7
    library.set_limit(2)
    assert [seen(), run(one, seen), run(second, seen)] == [[2] * 7, [5] * 7, [7] * 7]
    with entered(one):
        library.LIMIT = 2  # what it found
        assert seen() == [2] * 7
    undo.close()
    assert [library.limit(), type(library), library.limit.__name__] == [2, types.ModuleType, "limit"]
    assert not hasattr(library.limit, "__wrapped__")


def test_a_variable_that_the_library_makes_is_made_for_each_biz(library, undo):
    own_variables(undo, library, "CLIENT", start={"CLIENT": None})
    one, second = two()
    made = run(one, library.client)
    assert made == [1] == run(second, library.client)
    assert [run(one, library.client) is made, run(second, library.client) is made] == [True, False]
    assert [run(one, lambda: library.CLIENT) is made, library.CLIENT, library.client()] == [True, *["of the base"] * 2]


def test_a_set_is_each_biz_s_own(library, undo):
    original = library.NAMES
    own_containers(undo, library, "NAMES")
    one, second = two()
    with entered(one):
        library.NAMES.add("c")
        library.NAMES |= {"d"}
        library.NAMES.discard("a")
        assert library.NAMES == {"b", "c", "d"} == copy.copy(library.NAMES) | set()
        assert ["c" in library.NAMES, len(library.NAMES), max({"x"} | library.NAMES)] == [True, 3, "x"]
        assert type(pickle.loads(pickle.dumps(library.NAMES))) is set
    library.NAMES.add("late")
    assert run(one, lambda: sorted(library.NAMES)) == ["b", "c", "d", "late"]
    assert run(second, lambda: sorted(library.NAMES)) == sorted(library.NAMES) == ["a", "b", "late"]
    undo.close()
    assert library.NAMES is original == {"a", "b", "late"}


def test_an_object_without_a_dictionary_and_a_module_that_has_put_another_in_its_place(library, undo, monkeypatch):
    class Slotted:
        __slots__ = ("bag",)
        bag: list[int]

    thing, other = Slotted(), types.ModuleType("owned")
    thing.bag = []
    vars(other).update(vars(library))
    monkeypatch.setitem(sys.modules, "owned", other)
    own_containers(undo, thing, "bag")
    own_containers(undo, other, "ITEMS")
    one, _ = two()
    with entered(one):
        thing.bag.append(1)
        other.ITEMS.append(3)
        assert [thing.bag, other.read_table()[1]] == [[1], [1, 2, 3]]
    assert [thing.bag, other.read_table()[1]] == [[], [1, 2]]
    undo.close()
    assert type(thing.bag) is type(library.ITEMS) is list


def test_results_are_kept_for_each_biz(library, undo):
    own_cache(undo, library, "made")
    one, second = two()
    of_base = library.made("x")
    of_one = run(one, library.made, "x")
    assert of_one == of_base == run(second, library.made, "x")
    assert [run(one, library.made, "x") is of_one, library.made("x") is of_base, of_one is of_base] == [1, 1, 0]
    assert [library.made.cache_info().hits, run(second, library.made.cache_info).hits] == [1, 0]
    run(one, library.made.cache_clear)
    assert [library.made("x") is of_base, run(one, library.made, "x") is of_one] == [True, False]
    assert library.made.cache_parameters()["maxsize"] == 2
    undo.close()
    assert type(library.made) is functools._lru_cache_wrapper


def test_an_attribute_of_a_class_is_there_for_whom_it_was_put(library, undo):
    attribute = OwnAttribute(library.User, "extra")
    attribute.put_in(undo)
    one, second = two()
    with entered(one):
        attribute.put(lambda self: self.limit)
        assert [library.User().extra(), hasattr(library.User, "extra")] == [1, True]
    assert not hasattr(library.User, "extra")
    with entered(second), pytest.raises(AttributeError, match="no attribute 'extra'"):
        library.User().extra  # noqa: B018
    undo.close()
    assert "extra" not in vars(library.User)


def test_an_object_is_another_one_for_each_biz(undo):
    class Registry(collections.OrderedDict[str, int]):
        total = 0

        def add(self, name: str) -> None:
            self[name] = len(self)
            self.total += 1

        def __call__(self) -> list[str]:
            return [*self]

    registry = Registry(base=0)
    bound = registry.add
    own_object(undo, registry, Registry)
    one, second = two()
    for scope, name in ((one, "one"), (second, "two")):
        with entered(scope):
            bound(name)
            assert [registry(), len(registry), name in registry, registry.total] == [[name], 1, True, 1]
            assert [bool(registry), next(iter(registry.items()))] == [True, (name, 0)]
            del registry.total
            assert registry.total == 0
    assert [registry(), registry.total, isinstance(registry, Registry)] == [["base"], 0, True]
    assert run(one, registry) == ["one"]
    undo.close()
    assert type(registry) is Registry


def test_a_biz_that_has_left_has_nothing(undo):
    own: Own[list[int]] = Own(list)
    one, second = two()
    with entered(one):
        mine = own.get()
        assert own.get() is own.peek() is mine == []
    with entered(second):
        assert own.peek() is None
        own.put([2])
        assert own.get() == [2]
    assert [own.get(), own.peek(), sorted(own.of_everybody())] == [None, None, [[], [2]]]
    one.close()
    with entered(one):
        own.put([1])
        assert [own.get(), own.peek()] == [None, None]


def test_a_version_that_an_adapter_does_not_know_is_left_alone_and_told(monkeypatch, caplog, library):
    def follow(undo: contextlib.ExitStack, module: Any) -> None:
        own_containers(undo, module, "TABLE")
        module.absent  # noqa: B018

    adapter = types.SimpleNamespace(distribution="owned", follow={"owned": follow})
    monkeypatch.setattr(door, "KNOWN", (adapter,))
    door.ADAPTERS.acquire()
    try:
        assert (
            "all modules share the state of owned, as the adapter does not know this version: AttributeError"
            in caplog.text
        )
        assert type(library.TABLE) is dict
    finally:
        door.ADAPTERS.release()


@pytest.mark.parametrize(("versions", "is_put_in"), [("", True), (">=1", True), (">=10000", False)])
def test_an_adapter_is_put_into_versions_that_it_is_for(monkeypatch, caplog, library, versions, is_put_in):
    def follow(undo: contextlib.ExitStack, module: Any) -> None:
        own_containers(undo, module, "TABLE")

    adapter = types.SimpleNamespace(distribution="pytest", versions=versions, follow={"owned": follow})
    monkeypatch.setattr(door, "KNOWN", (adapter,))
    door.ADAPTERS.acquire()
    try:
        assert (type(library.TABLE) is not dict) is is_put_in
        assert ("the adapter is for pytest >=10000" in caplog.text) is not is_put_in
    finally:
        door.ADAPTERS.release()


def test_bizs_that_share_a_blacksheep_which_they_bring_along_have_routers_of_their_own():
    module: Any = types.ModuleType("blacksheep.server.routing")
    exec(BLACKSHEEP, vars(module))
    one, second = two()
    door.put_into_own(one, module)
    router = module.router
    assert run(one, lambda: module.bind("app", "/one")) == ["/one"]
    assert run(second, lambda: module.bind("app", "/two")) == ["/two"]
    assert (router.routes, module.known()) == ([], [])
    with pytest.raises(LookupError):
        run(one, lambda: module.bind("other", "/"))
    one.close()
    assert run(second, module.known) == ["app"]
    assert isinstance(router, module.Router)


BLACKSHEEP = """
_apps_by_router_id = {}

class Router:
    __slots__ = ("routes",)
    def __init__(self): self.routes = []

router = Router()

def bind(app, path):
    if id(router) in _apps_by_router_id:
        raise LookupError(app)
    _apps_by_router_id[id(router)] = app
    router.routes.append(path)
    return router.routes

def known():
    return list(_apps_by_router_id.values())
"""
"""How ``blacksheep.server.routing`` keeps applications."""


def test_whose_code_is_whose_may_be_asked_of_the_container_itself(library, undo):
    asked: list[int] = []

    def hides(key: Any, _: Any) -> bool:
        asked.append(len(library.TABLE))
        return bool(key == "a")

    own_containers(undo, library, "TABLE", hides=hides)
    library.TABLE["b"] = 2
    assert asked == []
    one, _ = two()
    assert run(one, lambda: sorted(library.TABLE)) == ["b", "deep", "list"]
    assert set(asked) == {4}
    asked.clear()
    assert run(one, lambda: "b" in library.TABLE)
    assert asked == []


def test_code_of_the_base_alone_is_not_what_a_biz_starts_with(library, undo):
    def of_tests() -> None: ...

    library.TABLE.update(mine=of_tests, wrapped=functools.partial(of_tests), stdlib=json.dumps, ours=pytest.raises)
    library.ITEMS.append((1, of_tests))
    library.NAMES.add(of_tests)
    own_containers(undo, library, "TABLE", "ITEMS", "NAMES")
    one, second = two()
    with entered(one):
        assert library.TABLE.keys() == {"a", "deep", "list", "stdlib"}
        assert [[1, 2], {"a", "b"}] == [library.ITEMS, library.NAMES]
        library.TABLE["mine"] = "own"
    library.TABLE.update(later=of_tests, late=json.loads)
    assert run(one, lambda: sorted(library.TABLE)) == ["a", "deep", "late", "list", "mine", "stdlib"]
    assert run(second, lambda: sorted(library.TABLE)) == ["a", "deep", "late", "list", "stdlib"]
    assert [library.TABLE["mine"], len(library.ITEMS), of_tests in library.NAMES] == [of_tests, 3, True]
    for key in ("mine", "wrapped", "later"):
        del library.TABLE[key]
    assert hides_some(library.TABLE)  # pytest, of which each biz would have a copy
    del library.TABLE["ours"]
    assert not hides_some(library.TABLE)
    undo.close()
    assert type(library.TABLE) is dict

"""Classes of a module that answer `==`, `hash`, `isinstance` and the like with an exception: it leaves all the same."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.testing import assert_unloads, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = """
import atexit, codecs, contextvars, copyreg, json, logging, re, sys, threading, typing, types, weakref
import functools

import shelf

IS_ARMED = False
ATTRIBUTES = {
    "__class__", "__dict__", "__module__", "__name__", "__qualname__", "__doc__", "__wrapped__", "__self__", "__func__",
    "__code__", "__globals__", "__mro__", "__bases__", "__file__", "__spec__", "__path__", "__loader__",
}


def answer(usual):
    def hostile(self, *arguments):
        if IS_ARMED:
            raise SystemExit(usual.__name__)
        return usual(self, *arguments)

    return hostile


def attribute_of(plain):
    def __getattribute__(self, name):
        if IS_ARMED and name in ATTRIBUTES:
            raise SystemExit(name)
        return plain.__getattribute__(self, name)

    return __getattribute__


class Meta(type):
    __eq__ = answer(lambda one, other: one is other)
    __hash__ = answer(lambda one: 5)
    __instancecheck__ = answer(type.__instancecheck__)
    __subclasscheck__ = answer(type.__subclasscheck__)
    __repr__ = answer(type.__repr__)
    __bool__ = answer(lambda one: True)
    __getattribute__ = attribute_of(type)


class Answers:
    __eq__ = answer(lambda one, other: one is other)
    __hash__ = answer(lambda one: 7)
    __len__ = answer(lambda one: 1)
    __bool__ = answer(lambda one: True)
    __repr__ = answer(object.__repr__)
    __str__ = answer(object.__str__)
    __sizeof__ = answer(object.__sizeof__)
    __dir__ = answer(object.__dir__)


class Harm(Answers, metaclass=Meta):
    __getattribute__ = attribute_of(object)

    def __call__(self, *arguments):
        pass


class HarmList(Answers, list): pass
class HarmDict(Answers, dict): pass
class HarmText(Answers, str): pass
class HarmError(Answers, Exception): __getattribute__ = attribute_of(Exception)
class HarmModule(Answers, types.ModuleType): __getattribute__ = attribute_of(types.ModuleType)
class HarmHandler(Answers, logging.Handler): pass
class HarmLocal(Answers, threading.local): pass


harm = Harm()
things = [harm, Harm, HarmList([harm]), HarmDict(a=harm), HarmText("x"), HarmError("x"), HarmLocal()]
table, group = {harm: harm, Harm: Harm, HarmText("k"): 1}, {harm, Harm}
local = threading.local()
local.harm = harm
variable = contextvars.ContextVar("harm")
variable.set(harm)
logging.getLogger().addHandler(HarmHandler())
atexit.register(Harm(), harm)
copyreg.pickle(Harm, Harm())
codecs.register_error("harm", Harm())
json._harm, json.JSONEncoder.harm, re._harm, threading._harm = harm, harm, HarmText("t"), [harm]
sys.modules["harm_module"] = HarmModule("harm_module")
sys.modules["harm_object"] = harm
weak = weakref.WeakSet([harm]), weakref.WeakKeyDictionary({harm: harm})
weakref.finalize(harm, Harm())
shelf.kind_of.register(Harm)(lambda one: "harm")
for thing in (harm, Harm, HarmText("x")):
    shelf.seen(thing)


@functools.lru_cache
def cached(one):
    return one


cached(harm)


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def arm():
    global IS_ARMED
    IS_ARMED = True


def keep():
    shelf.LIST.append(harm)
    arm()
"""


@pytest.fixture
def shelf() -> Iterator[Any]:
    """A library of the base that keeps what it is given."""
    module: Any = types.ModuleType("shelf")
    module.LIST = []

    @functools.singledispatch
    def kind_of(one: object) -> str:
        return "thing"

    module.kind_of = kind_of
    module.seen = functools.lru_cache(lambda one: True)
    sys.modules["shelf"] = module
    yield module
    del sys.modules["shelf"]


def test_a_module_of_hostile_classes_leaves_without_a_trace(shelf: Any) -> None:
    with loaded(HOSTILE, name="hostile") as module:
        assert module.get("/").text == "ok"
        module.call("arm")

    assert shelf.kind_of(5) == "thing"
    assert len(shelf.kind_of.registry) == 1
    assert_unloads("async def app(scope, receive, send): pass\n", name="next_one")


def test_who_holds_hostile_classes_is_named(shelf: Any) -> None:
    with pytest.raises(AssertionError) as caught, loaded(HOSTILE, name="hostile") as module:
        module.call("keep")

    assert "held by global shelf.LIST in the base -> a list -> a hostile.Harm" in str(caught.value)
    assert "not undone" not in str(caught.value)
    shelf.LIST.clear()
    assert_unloads("async def app(scope, receive, send): pass\n", name="next_one")

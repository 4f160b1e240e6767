"""A walk through what an application may do with Python; each part answers with what came of it."""

from __future__ import annotations

import abc
import asyncio
import atexit
import collections
import concurrent.futures
import copy
import dataclasses
import enum
import functools
import gettext
import importlib
import importlib.resources
import importlib.util
import inspect
import json
import logging
import logging.config
import pickle
import pkgutil
import sys
import threading
import typing
import weakref
from importlib.metadata import version
from string import Formatter

from tour import store

gettext.install("tour")

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"loud": {"()": "tour.logs.Loud", "fmt": "%(name)s %(message)s"}},
        "filters": {"mine": {"()": lambda: importlib.import_module("tour.logs").only_tour}},
        "handlers": {
            "memory": {"()": "tour.logs.Memory", "size": 9, "formatter": "loud", "filters": ["mine"]},
            "external": {"class": "tour.logs.Memory", "size": 1},
        },
        "root": {"handlers": ["memory"], "level": "INFO"},
        "loggers": {"tour.quiet": {"handlers": ["external"], "propagate": False}},
    }
)


class Colour(enum.Enum):
    RED = 1


class Permission(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@dataclasses.dataclass(order=True, slots=True)
class Leaf:
    colour: Colour
    size: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass
class Tree:
    leaves: list[Leaf]
    parent: Tree | None = None


class Point(typing.NamedTuple):
    x: int
    y: int


Pair = collections.namedtuple("Pair", "a b")


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape):
    def area(self):
        return 4


@collections.abc.Sequence.register
class Row:
    pass


class Options(typing.TypedDict, total=False):
    tree: Tree


@functools.singledispatch
def show(thing):
    return "?"


@show.register
def show_leaf(thing: Leaf) -> str:
    return "leaf"


@functools.lru_cache
def cached(leaf):
    return leaf


# A generic function of the standard library, which is everybody's.
pkgutil.iter_importer_modules.register(Row, lambda importer, prefix="": iter(()))
atexit.register(logging.getLogger("tour").info, "bye")
pool = concurrent.futures.ThreadPoolExecutor(2)
local = threading.local()
local.tree = Tree([])
watched = weakref.WeakValueDictionary({"tree": local.tree})
weakref.finalize(local.tree, print, end="")
background = []


async def forever():
    background.append(asyncio.current_task())
    while True:
        await asyncio.sleep(0.01)


def pickles():
    things = [Leaf(Colour.RED, 2), Tree([Leaf(Colour.RED)]), Point(1, 2), Pair(1, 2), Permission.READ | Permission.WRITE]
    things += [Square, show]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(things, protocol))
        assert again == things, (protocol, again)
    slow = pickle._loads(pickle._dumps(things))
    return slow == things and copy.deepcopy(things) == things


def typed():
    hints = typing.get_type_hints(Tree)
    options = typing.get_type_hints(Options)
    return [hints["leaves"] == list[Leaf], hints["parent"] == typing.Optional[Tree], options == {"tree": Tree}]


def dynamic():
    names = sorted(info.name for info in pkgutil.iter_modules(importlib.import_module("tour.plugins").__path__))
    modules = [importlib.import_module(f".{name}", "tour.plugins") for name in names]
    found = importlib.util.find_spec("tour.plugins.two")
    loaded = importlib.util.module_from_spec(found)
    found.loader.exec_module(loaded)
    walked = [info.name for info in pkgutil.walk_packages(importlib.import_module("tour").__path__, "tour.")]
    return {
        "names": [module.NAME for module in modules],
        "again": loaded.NAME,
        "namespace": importlib.import_module("spread.deep.thing").WHERE,
        "resolved": pkgutil.resolve_name("tour.plugins.two:NAME"),
        "walked": walked,
        "missing": importlib.util.find_spec("tour.nothing") is None,
    }


def resources():
    files = importlib.resources.files("tour")
    with importlib.resources.as_file(files / "data.txt") as path:
        text = path.read_text()
    return [text, files.joinpath("data.txt").read_text(), pkgutil.get_data("tour", "data.txt").decode()]


def pooled():
    jobs = [pool.submit(importlib.import_module, "tour.plugins.one") for _ in range(3)]
    mapped = list(pool.map(lambda n: pickle.loads(pickle.dumps(Point(n, n))).x, range(3)))
    return [all(job.result() is sys.modules["tour.plugins.one"] for job in jobs), mapped]


def logged():
    logging.getLogger("tour.here").info("said")
    logging.getLogger("elsewhere").info("not mine")
    logging.getLogger("tour.quiet").warning("hush")
    (handler,) = [handler for handler in logging.getLogger().handlers if type(handler).__name__ == "Memory"]
    return handler.lines[-1]


def insides():
    return {
        "source": inspect.getsource(Square.area).strip().splitlines()[-1].strip(),
        "module": inspect.getmodule(Square) is sys.modules[__name__],
        "main": sys.modules["__main__"].__name__,
        "subclasses": [kind.__name__ for kind in Shape.__subclasses__()],
        "is_sequence": issubclass(Row, collections.abc.Sequence),
        "underscore": _("word"),  # noqa: F821 - gettext.install put it there
        "shown": [show(Leaf(Colour.RED)), show(1)],
        "exec": eval("__import__('tour.plugins.one').__name__"),
        "formatted": Formatter().format("{0.x}", Point(3, 4)),
        "version": version("tour"),
    }


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        keep = asyncio.create_task(forever())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        del keep
        return
    cached(Point(1, 2))
    answer = {
        "pickles": pickles(),
        "typed": typed(),
        "dynamic": dynamic(),
        "resources": resources(),
        "pooled": await asyncio.to_thread(pooled),
        "logged": logged(),
        "store": await asyncio.to_thread(store.use),
        "insides": insides(),
        "background": not background[0].done(),
        "gathered": await asyncio.gather(*(asyncio.sleep(0, n) for n in range(3))),
    }
    body = json.dumps(answer, sort_keys=True).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})

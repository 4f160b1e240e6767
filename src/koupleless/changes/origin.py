"""The origin of a replacement: the bizs with code in a new value. Runs no code of the value."""

from __future__ import annotations

import dis
import gc
import types
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from koupleless.changes.dispatch import table_of
from koupleless.changes.forwarding import ABSENT
from koupleless.ownership.belonging import attributes, builtins_of, is_a, is_findable
from koupleless.readers import home_of_class

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.changes.baseline import Difference

_OURS: Final = "koupleless."
_NODES: Final = 200
_DEPTH: Final = 6
_PLAIN: Final = frozenset(map(id, (int, str, bytes, float, bool, complex, type(None), types.CodeType)))


def is_behaviour(thing: Any) -> bool:
    """Whether an object is there to be called, or to answer when an attribute is read: not a class, not data."""
    kind = type(thing)
    return not issubclass(kind, type) and (callable(thing) or hasattr(kind, "__get__"))


def home_of(thing: Any) -> str:
    """The name of an object's Python module: for a function the one with the code, whatever ``__module__`` says."""
    while is_a(thing, (classmethod, staticmethod)):
        thing = thing.__func__
    if type(thing) is property:
        thing = thing.fget
    if is_a(thing, types.FunctionType):
        return str(thing.__globals__.get("__name__", ""))
    if type(thing) is types.BuiltinFunctionType:
        return str(thing.__module__)
    kind = thing if is_a(thing, type) else type(thing)
    return home_of_class(kind)


def makers_of(thing: Any) -> Iterator[Any]:
    """Yield the ``__builtins__`` of code in an object, the nearest first: the code of each biz has its own."""
    seen = {id(thing)}
    kept = []  # so that no address is used twice
    todo = deque([(thing, 0)])
    while todo and len(seen) < _NODES:
        thing, depth = todo.popleft()
        if is_a(thing, types.FunctionType):
            yield thing.__builtins__
        elif is_a(thing, types.ModuleType):
            table = attributes(thing)
            if type(table) is dict:
                yield builtins_of(table)
            continue
        if depth < _DEPTH:
            for part in _parts(thing, depth):
                if id(part) not in seen and id(type(part)) not in _PLAIN:
                    seen.add(id(part))
                    kept.append(part)
                    todo.append((part, depth + 1))


def _parts(thing: Any, depth: int) -> list[Any]:
    """List the parts of an object: no globals of functions, no content of Python modules, no class known to others."""
    kind = type(thing)
    if home_of(thing).startswith(_OURS):  # a dispatcher is nobody's, whichever function is called
        return []
    if is_a(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if not _is_empty(cell)]
        defaults = [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        return [*cells, *defaults, *thing.__dict__.values()]
    if issubclass(kind, type):
        if is_findable(thing):
            return []
        return [*table_of(thing).values(), *type.__dict__["__bases__"].__get__(thing)]
    if id(kind) in _CONTAINERS and depth > _OPENED:
        return []
    found = [part for part in gc.get_referents(thing) if not _is_globals(part)]
    if id(kind) not in _CONTAINERS:
        found.append(kind)
    return found


_CONTAINERS: Final = frozenset(map(id, (dict, list, tuple, set, frozenset)))
_OPENED: Final = 2
"""The depth to which containers are looked into: attributes of an instance and objects given to one; not registries."""


def _is_globals(part: Any) -> bool:
    return type(part) is dict and "__builtins__" in part


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def is_done_by(module: Any, holder: Any, name: str) -> bool:
    """Whether functions of a Python module set its variable, or an attribute of classes, of this name themselves."""
    if module is None:
        return False
    is_module = holder is module
    return any(name in code.co_names and _sets(code, name, is_module=is_module) for code in _codes(module))


def is_done_by_library(modules: dict[str, Any], found: Difference) -> bool:
    """Whether a library itself changed one of its classes, as libraries do at a first use.

    There are two signs. The new value is an object of one of the library's classes, and some code of the library sets
    attributes of this name. Or the former value is a descriptor of the library, and has resolved itself: code of the
    descriptor sets and deletes attributes by names given to the descriptor.
    """
    if not issubclass(type(found.holder), type):
        return False
    top = found.module.partition(".")[0]
    if found.after is not ABSENT and _is_object_of(top, found.after):
        names = [name for name in list(modules) if name.partition(".")[0] == top]
        if any(is_done_by(modules.get(name), found.holder, found.name) for name in names):
            return True
    before = found.before
    if before is ABSENT or not (_is_object_of(top, before) and hasattr(type(before), "__get__")):
        return False
    return any(not _RESOLVING.isdisjoint(code.co_names) for code in _codes(modules.get(home_of(before))))


_RESOLVING: Final = frozenset({"setattr", "delattr"})


def _is_object_of(top: str, thing: Any) -> bool:
    """Whether an object is an instance of a class of a package, and neither a function nor a class."""
    is_plain = id(type(thing)) in _PLAIN or is_a(thing, types.FunctionType) or is_a(thing, type)
    return not is_plain and home_of(thing).partition(".")[0] == top


def _sets(code: types.CodeType, name: str, *, is_module: bool) -> bool:
    target: Any = None
    for instruction in dis.get_instructions(code):
        if instruction.argval == name:
            if is_module and instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                return True
            if instruction.opname == "STORE_ATTR" and target != "self":
                return True
        # From 3.13 on, one instruction may load two variables.
        is_pair = type(instruction.argval) is tuple and "_FAST" in instruction.opname  # and no constant
        target = instruction.argval[-1] if is_pair else instruction.argval
    return False


def _codes(module: Any) -> Iterator[types.CodeType]:
    if not is_a(module, types.ModuleType):
        return
    name = table_of(module).get("__name__")
    todo: list[Any] = list(table_of(module).values())
    seen: set[int] = set()
    for thing in todo:  # grows
        if is_a(thing, type) and home_of_class(thing) == name and id(thing) not in seen:
            seen.add(id(thing))
            todo += table_of(thing).values()
    for thing in todo:
        while is_a(thing, (classmethod, staticmethod)):
            thing = thing.__func__  # noqa: PLW2901
        if type(thing) is property:
            thing = thing.fget  # noqa: PLW2901
        if is_a(thing, types.FunctionType) and thing.__globals__ is table_of(module):
            codes = [thing.__code__]
            for code in codes:  # grows
                codes += [constant for constant in code.co_consts if type(constant) is types.CodeType]
            yield from codes

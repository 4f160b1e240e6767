"""Stores: possible changes by code to objects of other owners, read from code objects before the code runs. Pure.

Most Python modules set attributes of ``self`` and of objects just made, and change nothing visible to others; nothing
has to be compared for such a Python module. Stores are looked for whenever code is loaded, so the search works on
slices of bytecode, and disassembles only the few instructions before an instruction that stores.
"""

from __future__ import annotations

import sys
import weakref
from opcode import opmap
from types import CodeType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Stores(NamedTuple):
    """Possible changes by code to outside objects."""

    attributes: frozenset[str]
    """Names of attributes set, or deleted, on Python modules, classes and objects made by other code."""
    containers: frozenset[tuple[str, str]]
    """Containers added to or taken from: the name of the holder, and the name of the container.

    The holder is a Python module or a class; the name is empty where the code does not show the holder."""
    is_opaque: bool
    """Whether the code can also change attributes without showing the names (``setattr``, ``mock.patch``); `attributes`
    then has the constants that may be such a name."""
    mentioned: frozenset[str] = frozenset()
    """All names, and constants that may be names, in code that changes containers."""

    def __bool__(self) -> bool:
        return self.is_opaque or bool(self.attributes or self.containers)


def stores_of(code: CodeType) -> Stores:
    """Return the stores of a code object, and of all code objects nested in it, into objects of other owners."""
    attributes: set[str] = set()
    containers: set[tuple[str, str]] = set()
    is_opaque = False
    whole = _Globals(code)
    parts = list(_parts(code))
    for part in parts:
        if not _OPAQUE.isdisjoint(part.co_names):
            is_opaque = True
            attributes.update(_texts(part.co_consts))
        reader = _Reader(part, whole)
        attributes.update(reader.attributes())
        containers.update(reader.containers())
    if not containers:
        return Stores(frozenset(attributes), frozenset(), is_opaque)
    return Stores(frozenset(attributes), _by_real_names(containers, parts, whole), is_opaque, _mentioned(parts))


def _by_real_names(
    containers: set[tuple[str, str]], parts: list[CodeType], whole: _Globals
) -> frozenset[tuple[str, str]]:
    """Return ``containers`` with the names at the origin of imports, instead of the names given by ``import as``."""
    imported: dict[str, set[str]] = {}
    for part in parts:
        for given, real in _Reader(part, whole).imported():
            imported.setdefault(given, set()).add(real)
    found: set[tuple[str, str]] = set()
    for holder, name in containers:
        if holder.startswith(_VARIABLE):
            variable = holder.removeprefix(_VARIABLE)
            found.update((real, name) for real in imported.get(variable, ("",)))
        elif holder:
            found.add((holder, name))
        else:
            found.update(("", real) for real in imported.get(name, (name,)))
    return frozenset(found)


def _mentioned(parts: list[CodeType]) -> frozenset[str]:
    found: set[str] = set()
    for part in parts:
        found.update(name.rpartition(".")[2] for name in part.co_names)
        found.update(_texts(part.co_consts))
    return frozenset(found)


def may_store(code: CodeType) -> bool:
    """Whether `stores_of` would find a store. Ends at the first store found, soon in most libraries."""
    whole = _Globals(code)
    for part in _parts(code):
        if not _OPAQUE.isdisjoint(part.co_names):
            return True
        reader = _Reader(part, whole)
        if any(True for _ in reader.attributes()) or any(True for _ in reader.containers()):
            return True
    return False


def _parts(code: CodeType) -> Iterator[CodeType]:
    todo = [code]
    while todo:
        code = todo.pop()
        todo += [constant for constant in code.co_consts if type(constant) is CodeType]
        if code.co_names:
            yield code


class Stored:
    """Stores of the code of one owner, as far as loaded; more with every Python module.

    ``begin``, or the function given to `when_first`, is called once, before the first code runs that may change objects
    outside of itself. From then on code is only remembered, and read when somebody asks for a name; callers ask where a
    change was found. Thread-safe.
    """

    __slots__ = ("_begin", "_is_blind", "_known", "_unread")

    def __init__(self, begin: Callable[[], object] | None = None) -> None:
        self._begin = begin
        self._unread: list[CodeType] | None = None
        self._known: list[Stores] = []
        self._is_blind = False

    def __bool__(self) -> bool:
        """Whether any code may change objects of other owners."""
        return self._unread is not None

    def when_first(self, begin: Callable[[], object]) -> None:
        """Set the function ``begin``; not after code was noted."""
        self._begin = begin

    def note(self, code: CodeType) -> None:
        """Look at code before the first run."""
        if self._unread is not None:
            self._unread.append(code)
        elif may_store(code):
            self._start([code])

    def suspect(self) -> None:
        """Note the next run of unreadable code, which may store anything."""
        self._is_blind = True
        if self._unread is None:
            self._start([])

    def _start(self, unread: list[CodeType]) -> None:
        self._unread = unread
        begin, self._begin = self._begin, None
        if begin is not None:
            begin()

    def has_attribute(self, name: str) -> bool:
        """Whether the owner's code may set an attribute of the name."""
        return self._is_blind or any(name in stores.attributes for stores in self._read())

    def has_container(self, name: str, holders: frozenset[str] = frozenset()) -> bool:
        """Whether the owner's code may change a container of the name, in one of ``holders`` if there are any.

        Where the code does not show the holder of a container, the mention of one of ``holders`` is enough.
        """
        for stores in self._read():
            for holder, known in stores.containers:
                if known == name:
                    shown = {holder} if holder else stores.mentioned
                    if not holders or not holders.isdisjoint(shown):
                        return True
        return False

    def _read(self) -> list[Stores]:
        while self._unread:
            self._known.append(_read_once(self._unread.pop()))
        return self._known


_read: Final[dict[int, tuple[weakref.ref[CodeType], Stores]]] = {}
"""Stores of code objects, by address: several bizs execute the same code object. Kept for the life of a code object."""


def _read_once(code: CodeType) -> Stores:
    key = id(code)
    known = _read.get(key)
    if known is not None and known[0]() is code:
        return known[1]
    found = stores_of(code)

    def forget(gone: weakref.ref[CodeType]) -> None:
        known = _read.get(key)
        if known is not None and known[0] is gone:
            del _read[key]

    _read[key] = weakref.ref(code, forget), found
    return found


# --- reading bytecode ------------------------------------------------------------------------------------------------

_OPAQUE: Final = frozenset(
    {
        "setattr", "delattr", "__dict__", "vars", "__setattr__", "__delattr__", "globals", "exec", "eval",
        "patch", "patch_all", "monkey_patch", "monkeypatch", "wrap_function_wrapper", "wrap_object",
        "patch_function_wrapper", "instrument", "install_cache", "inject_into_ssl", "defuse_stdlib",
    }
)  # fmt: skip
_MUTATORS: Final = frozenset(
    {
        "append", "extend", "insert", "update", "setdefault", "add", "pop", "popitem", "remove", "discard", "clear",
        "appendleft", "extendleft",
    }
)  # fmt: skip
_OWN: Final = frozenset({"self", "cls", "mcs", "mcls", "metacls"})
_MAKERS: Final = frozenset({"import_module", "__import__", "getattr", "modules", "type", "getmodule"})
"""Names of calls and mappings with results that may well belong to another owner."""


def _op(name: str) -> int:
    return opmap.get(name, -1)


_STORE_ATTR, _DELETE_ATTR, _LOAD_ATTR = opmap["STORE_ATTR"], opmap["DELETE_ATTR"], opmap["LOAD_ATTR"]
_LOAD_METHOD, _LOAD_GLOBAL, _LOAD_NAME = _op("LOAD_METHOD"), opmap["LOAD_GLOBAL"], opmap["LOAD_NAME"]
_LOAD_DEREF, _EXTENDED, _COPY, _SWAP = opmap["LOAD_DEREF"], opmap["EXTENDED_ARG"], opmap["COPY"], opmap["SWAP"]
_STORE_FAST, _CALL, _CACHE, _NOP = opmap["STORE_FAST"], opmap["CALL"], _op("CACHE"), opmap["NOP"]
_STORE_SUBSCR: Final = opmap["STORE_SUBSCR"]
_STORE_FAST_LOAD_FAST: Final = _op("STORE_FAST_LOAD_FAST")
_FAST: Final = {_op(name) for name in ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW")} - {-1}
_FAST_TWICE: Final = {_op(name) for name in ("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW")} - {-1}
_CALLS: Final = {_op(name) for name in ("CALL", "CALL_FUNCTION_EX", "CALL_KW")} - {-1}
_STORE_NAME: Final = opmap["STORE_NAME"]
_MADE: Final = _CALLS | {
    _op(name) for name in ("MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE", "BUILD_LIST", "BUILD_MAP", "BUILD_SET")
}
_HAS_LOAD_METHOD: Final = sys.version_info < (3, 12)
_SHIFTED_ATTR: Final = int(not _HAS_LOAD_METHOD)
"""Bits below the name's number in the argument of LOAD_ATTR: from 3.12 on, the lowest bit asks for a method."""
_NAMED: Final = {_LOAD_ATTR: _SHIFTED_ATTR, _LOAD_GLOBAL: 1, _LOAD_NAME: 0}
"""Instructions that load by a name -> the number of bits below the name's number in the argument."""
_IMPORTED: Final = {opmap["IMPORT_NAME"]: 2 if sys.version_info >= (3, 15) else 0, opmap["IMPORT_FROM"]: 0}
"""Instructions that import -> the number of bits below the name's number: two from 3.15 on, for lazy imports."""
_STORE_GLOBAL, _STORE_DEREF = opmap["STORE_GLOBAL"], opmap["STORE_DEREF"]
_VARIABLE: Final = "="
"""Marks the name of a variable, as opposed to the name of an imported object."""


class _Globals:
    """Variables of a Python module that only hold objects made by its code: classes, functions, results of calls."""

    __slots__ = ("_code", "_own")

    def __init__(self, code: CodeType) -> None:
        self._code = code
        self._own: set[str] | None = None

    def __contains__(self, name: str) -> bool:
        if self._own is None:
            reader = _Reader(self._code, self)
            made, other = set[str](), set[str]()
            makers = _MADE - _CALLS if not _MAKERS.isdisjoint(reader.names) else _MADE
            at = reader.ops.find(_STORE_NAME)
            while at >= 0:
                (made if reader.op_before(at) in makers else other).add(reader.name_at(at))
                at = reader.ops.find(_STORE_NAME, at + 1)
            self._own = made - other
        return name in self._own


class _Reader:
    """One code object, read backwards from the instructions that store."""

    __slots__ = ("code", "globals", "names", "ops", "whole")

    def __init__(self, code: CodeType, module: _Globals) -> None:
        self.code = code
        self.globals = module
        self.names = code.co_names
        self.whole = code.co_code
        self.ops = self.whole[::2]

    def attributes(self) -> Iterator[str]:
        """Yield the names set or deleted on objects that are not plainly the code's own."""
        for op in (_STORE_ATTR, _DELETE_ATTR):
            at = self.ops.find(op)
            while at >= 0:
                name = self.names[self._arg(at)]
                if not self._is_own(self._before(at), name):
                    yield name
                at = self.ops.find(op, at + 1)

    def containers(self) -> Iterator[tuple[str, str]]:
        """Yield the containers, as holder and name, in which items are set, or of which changing methods are called.

        A holder known as a variable is marked with `_VARIABLE`.
        """
        at = self.ops.find(_STORE_SUBSCR)
        while at >= 0:
            # value, container, key: the key is one instruction, or the name of the container is not known here.
            yield from self._container_at(self._before(self._before(at)))
            at = self.ops.find(_STORE_SUBSCR, at + 1)
        if _MUTATORS.isdisjoint(self.names):
            return
        for index, name in enumerate(self.names):
            if name not in _MUTATORS:
                continue
            wanted = index if _HAS_LOAD_METHOD else index << 1 | 1
            call = bytes((_LOAD_METHOD if _HAS_LOAD_METHOD else _LOAD_ATTR, wanted & 255))
            place = self.whole.find(call)
            while place >= 0:
                at = place // 2
                if place % 2 == 0 and self._arg(at) == wanted:
                    yield from self._container_at(self._before(at))
                place = self.whole.find(call, place + 1)

    def _container_at(self, at: int) -> Iterator[tuple[str, str]]:
        op = self.ops[at] if at >= 0 else -1
        if op in _NAMED and not self._is_own(at, ""):
            name = self._named_at(at)
            if name != "__annotations__":  # filled by bodies of Python modules and classes
                yield self._holder_at(self._before(at)) if op == _LOAD_ATTR else "", name

    def _named_at(self, at: int) -> str:
        return self.names[self._arg(at) >> _NAMED[self.ops[at]]]

    def _holder_at(self, at: int) -> str:
        op = self.ops[at] if at >= 0 else -1
        if op == _LOAD_ATTR:
            return self._named_at(at)
        if op in _NAMED:
            return _VARIABLE + self._named_at(at)
        return _VARIABLE + self._variables()[self._arg(at)] if op in _FAST or op == _LOAD_DEREF else _VARIABLE

    def imported(self) -> Iterator[tuple[str, str]]:
        """Yield the variables set by imports, each with the last part of the name of the imported object."""
        for op, shift in _IMPORTED.items():
            at = self.ops.find(op)
            while at >= 0:
                real = self.names[self._arg(at) >> shift].rpartition(".")[2]
                store = self._after(at)
                if self.ops[store] in (_STORE_NAME, _STORE_GLOBAL):
                    yield self.names[self._arg(store)], real
                elif self.ops[store] in (_STORE_FAST, _STORE_DEREF):
                    yield self._variables()[self._arg(store)], real
                at = self.ops.find(op, at + 1)

    def _is_own(self, at: int, name: str) -> bool:
        """Whether the object that the instruction at a place leaves on the stack is the code's own.

        The code owns ``self``, attributes of ``self``, and results of its calls.
        """
        while at >= 0:
            op = self.ops[at]
            if op == _LOAD_ATTR:
                at = self._before(at)
            elif op in _FAST:
                return self._is_own_variable(self._arg(at))
            elif op in _FAST_TWICE or op == _STORE_FAST_LOAD_FAST:
                return self._is_own_variable(self._arg(at) & 15)
            elif op in (_LOAD_GLOBAL, _LOAD_NAME):
                return self.names[self._arg(at) >> int(op == _LOAD_GLOBAL)] in self.globals
            elif op == _LOAD_DEREF:
                return self._variables()[self._arg(at)] in _OWN
            elif op == _SWAP and name:  # target.name += value
                at = self._target_of_update(at, name)
            else:
                return False
        return False

    def _target_of_update(self, at: int, name: str) -> int:
        while (at := self.ops.rfind(_COPY, 0, at)) >= 0:
            after = at + 1
            while after < len(self.ops) and self.ops[after] == _EXTENDED:
                after += 1
            is_read = self.ops[after] == _LOAD_ATTR and self.names[self._arg(after) >> _SHIFTED_ATTR] == name
            if self._arg(at) == 1 and is_read:
                return self._before(at)
        return -1

    def _is_own_variable(self, index: int) -> bool:
        name = self._variables()[index]
        if name in _OWN:
            return True
        if not _MAKERS.isdisjoint(self.names) or index < self.code.co_argcount + self.code.co_kwonlyargcount:
            return False
        made = False
        at = -1
        while (at := self.ops.find(_STORE_FAST, at + 1)) >= 0:
            if self._arg(at) == index:
                if self.ops[self._before(at)] not in _CALLS:
                    return False
                made = True
        return made

    def _variables(self) -> tuple[str, ...]:
        code = self.code
        arguments = code.co_varnames
        return (*arguments, *(name for name in code.co_cellvars if name not in arguments), *code.co_freevars)

    def op_before(self, at: int) -> int:
        """Return the instruction before the one at a place."""
        return self.ops[self._before(at)]

    def name_at(self, at: int) -> str:
        """Return the name in the argument of the instruction at a place."""
        return self.names[self._arg(at)]

    def _before(self, at: int) -> int:
        """Return the place of the instruction before; -1 if there is none."""
        ops = self.ops
        at -= 1
        while at >= 0 and (ops[at] in (_CACHE, _NOP, _EXTENDED)):
            at -= 1
        return at

    def _after(self, at: int) -> int:
        """Return the place of the instruction after."""
        at += 1
        while self.ops[at] in (_CACHE, _NOP, _EXTENDED):
            at += 1
        return at

    def _arg(self, at: int) -> int:
        value, shift = self.whole[2 * at + 1], 8
        while at > 0 and self.ops[at - 1] == _EXTENDED:
            at -= 1
            value |= self.whole[2 * at + 1] << shift
            shift += 8
        return value


def _texts(constants: tuple[object, ...]) -> set[str]:
    """Return the last parts of dotted names among constants."""
    found = set()
    for constant in constants:
        for text in constant if type(constant) is tuple else (constant,):
            if type(text) is str and len(text) < _LONGEST and text.replace(".", "_").isidentifier():
                found.add(text.rpartition(".")[2])
    return found


_LONGEST: Final = 100

"""Keep the tables in which extension modules of an interpreter find each other's types: one set for each owner.

pybind11 and nanobind enter types into a table shared by all extension modules of the same kind, and pybind11 enters
modules into another one, by name. A second version of a library, or a second copy of its files, would be refused there,
or be handed the module of the first. The tables lie in the interpreter's own dictionary, and an extension module looks
for them once, while it is initialised: so the tables of an owner are put there for just this time.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.isolation.interpreter import bootstrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.isolation.linking.linker import Linker
    from koupleless.isolation.linking.table import Table

_BEGINNINGS: Final = ("__pybind11_", "__nb_")


class World:
    """The tables of some owners that find each other's types. Lives as long as the process, once a table is in it."""

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        """Entries for the interpreter's dictionary, while the world is not present."""
        self.inhabitants: set[str] = set()
        """Names of the distributions with types in the world, one version of each."""


_worlds: Final[weakref.WeakKeyDictionary[Table, World]] = weakref.WeakKeyDictionary()
_lasting: Final[list[World]] = []
_present: World | None = None
_lock: Final = bootstrap._ModuleLock("extension modules of bizs")  # noqa: SLF001 - notices deadlocks with locks of modules


def world_of(linker: Linker) -> World:
    """Return the world of an owner's extension modules: a used library's, if without another version of the owner.

    Extension modules of a biz's own code live alone: they may be made anew for each life of the biz.
    """
    table = linker.table
    world = _worlds.get(table)
    if world is None:
        name = linker.scope.biz.name
        near = [_worlds[lender] for lender in table.lenders if lender in _worlds] if table.claims else []
        world = next((one for one in near if one.tables and name not in one.inhabitants), None) or World()
        world.inhabitants.add(name)
        _worlds[table] = world
    return world


@contextlib.contextmanager
def inhabiting(world: World) -> Iterator[None]:
    """Put the tables of a world into the interpreter's dictionary, for extension modules to be initialised there."""
    is_locked = True
    try:
        _lock.acquire()
    except bootstrap._DeadlockError:  # noqa: SLF001 - two threads import each other's modules: half a world is better
        is_locked = False
    before = _present
    _move_to(world)
    try:
        yield
    finally:
        _move_to(before)
        if is_locked:
            _lock.release()


def _move_to(world: World | None) -> None:
    global _present
    here, _present = _present, world
    if world is here:
        return
    table = _dictionary()
    tables = {key: table.pop(key) for key in list(table) if isinstance(key, str) and key.startswith(_BEGINNINGS)}
    (_of_base if here is None else here).tables = tables
    if here is not None and tables and here not in _lasting:
        _lasting.append(here)
    table.update((_of_base if world is None else world).tables)


_of_base: Final = World()


@functools.cache
def _dictionary() -> dict[Any, Any]:
    """Return the interpreter's dictionary, in which extension modules keep objects of which an interpreter has one."""
    import ctypes  # noqa: PLC0415 - for those who need it

    api = ctypes.pythonapi
    api.PyInterpreterState_Get.restype = ctypes.c_void_p
    api.PyInterpreterState_GetDict.restype = ctypes.c_void_p
    api.PyInterpreterState_GetDict.argtypes = [ctypes.c_void_p]
    found = api.PyInterpreterState_GetDict(api.PyInterpreterState_Get())
    return ctypes.cast(found, ctypes.py_object).value  # type: ignore[no-any-return]

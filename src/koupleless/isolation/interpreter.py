"""The interpreter's own side of importing: its table of Python modules, and the temporary exceptions.

C code reads the table directly. The table holds Python modules of the base and of the standard library, none of a biz,
except for moments that end by themselves: a look-up by C code right after an import (`restorer`), the initialisation of
compiled code (`withholding`, `exposing`), and the run of a Python module's own code (`stored`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import threading
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from importlib.machinery import ModuleSpec

    from koupleless.context import Scope

bootstrap: Final[Any] = importlib._bootstrap  # noqa: SLF001
"""``importlib._bootstrap``; the interpreter looks up its functions there by name, each time."""

_FIND_SPEC: Final = FileFinder.find_spec
_LOADERS: Final = [
    *((suffix, ExtensionFileLoader) for suffix in EXTENSION_SUFFIXES),
    *((suffix, SourceFileLoader) for suffix in SOURCE_SUFFIXES),
    *((suffix, SourcelessFileLoader) for suffix in BYTECODE_SUFFIXES),
]


def is_plain_finder(finder: Any) -> bool:
    """Whether a finder of files is Python's own, with Python's own loaders, as nobody has changed it."""
    is_plain = type(finder) is FileFinder and FileFinder.find_spec is _FIND_SPEC
    return is_plain and getattr(finder, "_loaders", None) == _LOADERS


load_whole: Final[Callable[[ModuleSpec], ModuleType] | None] = getattr(bootstrap, "_load_backward_compatible", None)
"""Loads by the ``load_module`` of a loader without ``exec_module``; ``None`` from 3.15 on, where there is none."""

REAL: Final[dict[str, ModuleType]] = sys.modules
"""The interpreter's own table: Python modules of the base and of the standard library, never one of a biz."""

_ABSENT: Final = cast("ModuleType", object())


loaded: Final[list[Callable[[str, ModuleType], object]]] = []
"""Functions called with each Python module loaded by the base while there are bizs, before the importer gets it."""


loading: Final[list[Callable[[], object]]] = []
"""Called before the base loads a Python module for a biz: code of the Python module may read any change of a biz."""


awaited: Final[dict[str, list[Callable[[Scope, ModuleType], object]]]] = {}
"""Functions to call with Python modules executed by bizs, by the name of the Python module."""


def when_loaded(name: str, tell: Callable[[Scope, ModuleType], object]) -> Callable[[], None]:
    """Call ``tell(scope, module)`` for each biz, right after the biz has executed a Python module of the name.

    An error of ``tell`` makes the import fail. Returns a function that ends the calls.
    """
    awaited.setdefault(name, []).append(tell)
    return lambda: awaited[name].remove(tell)


def is_initialising(module: object) -> bool:
    """Whether the code of the Python module is still running."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def name_of(module: object) -> str | None:
    """Return the ``__name__`` of a Python module, read without running code; ``None`` if there is no text."""
    if not issubclass(type(module), ModuleType):
        return None
    name = variables_of(module).get("__name__")
    return name if type(name) is str else None


variables_of: Final[Callable[[object], dict[str, Any]]] = vars(ModuleType)["__dict__"].__get__
"""Returns the real variables of a Python module, past all that its class shows to the running biz."""


views: Final[list[dict[str, ModuleType]]] = []
"""The objects at ``sys.modules`` while there are bizs.

The methods answer by context. C code takes the object for an ordinary dictionary, and reads the items stored inside:
Python modules of the base, and a Python module of a biz while its code runs."""


def store(name: str, module: ModuleType) -> None:
    """Let C code see a Python module of the base when the code reads ``sys.modules`` past the methods."""
    for view in views:
        dict.__setitem__(view, name, module)


def unstore(name: str) -> None:
    """Remove a Python module of the base from the view of C code that reads ``sys.modules`` past the methods."""
    for view in views:
        dict.pop(view, name, None)


class stored:  # noqa: N801 - a context manager
    """Let C code see a Python module of a biz while the Python module's own code runs.

    In `views`, even a Python module of the base is replaced for so long. Needed by msgspec, for example: while a class
    is made with texts as annotations, msgspec looks for the Python module of the class.
    """

    __slots__ = ("_before", "_exposed", "_module", "_name")

    def __init__(self, name: str, module: ModuleType) -> None:
        self._name = name
        self._module = module
        self._exposed = exposing({name: module})

    def __enter__(self) -> None:
        name, module = self._name, self._module
        self._before = [(view, dict.get(view, name, _ABSENT)) for view in views]
        _running.add(self)
        store(name, module)
        self._exposed.__enter__()

    def __exit__(self, *_: object) -> None:
        self._exposed.__exit__()
        for view, module_before in self._before:
            if module_before is _ABSENT:
                dict.pop(view, self._name, None)
            else:
                dict.__setitem__(view, self._name, module_before)
        self._before = []
        _running.discard(self)

    def end_for(self, builtins: dict[str, Any]) -> None:
        """End this early if the Python module has these ``__builtins__``; its own end then changes nothing."""
        try:  # without asking the class, which may be code of a biz, as that of any object that a loader makes
            table = object.__getattribute__(self._module, "__dict__")
        except AttributeError:
            return
        if table.get("__builtins__") is builtins:
            self.__exit__()


_running: Final[set[stored]] = set()
"""Those that have not ended."""


def end_stored(builtins: dict[str, Any]) -> None:
    """Let C code no longer see Python modules with these ``__builtins__`` whose code runs, or was interrupted.

    An exception raised in a thread from outside may come at any place, also while an import is undone.
    """
    for each in tuple(_running):
        each.end_for(builtins)


withheld: Final[dict[str, tuple[ModuleType, int]]] = {}
"""Python modules of the base that are out of the interpreter's table, each with the number of reasons."""

apart: Final[set[str]] = set()
"""Top-level packages with a loaded compiled copy besides the base's. For the life of the process.

An import in a function of compiled code looks in the interpreter's table first, past every hook. So the base's Python
modules of these packages stay out of the table, and ``_find_and_load`` answers all imports.
"""


@contextlib.contextmanager
def withholding(tops: Collection[str]) -> Iterator[None]:
    """Take Python modules of the base out of the table, while compiled code of another owner is initialised.

    ``tops`` are top-level packages of both; nothing happens without any. Code by Cython and others imports past
    ``__import__``, straight from the interpreter's table; a missing name leads to ``_find_and_load``, which answers by
    context, for threads of the base too.
    """
    if not tops:
        yield
        return
    with _lock:
        names = [
            name
            for name in {**REAL, **withheld}
            if name.partition(".")[0] in tops and (name in withheld or name not in exposed)
        ]
        for name in names:
            module, users = withheld.get(name) or (REAL[name], 0)
            withheld[name] = (module, users + 1)
            REAL.pop(name, None)
    try:
        yield
    finally:
        with _lock:
            for name in names:
                if name not in withheld:  # removed meanwhile
                    continue
                module, users = withheld[name]
                if users > 1:
                    withheld[name] = (module, users - 1)
                else:
                    REAL.setdefault(name, module)
                    del withheld[name]


exposed: Final[dict[str, tuple[ModuleType, int]]] = {}
"""Python modules of other owners that are in the interpreter's table for a moment, each with the number of reasons."""


class exposing:  # noqa: N801 - a context manager
    """Put Python modules with names unknown to the base into the table, while compiled code is initialised.

    Code by mypyc looks there, and nowhere else, for its own package and for the Python module that holds all its code.
    """

    __slots__ = ("_mine", "_modules")

    def __init__(self, modules: Mapping[str, ModuleType]) -> None:
        self._modules = modules

    def __enter__(self) -> None:
        modules = self._modules
        with _lock:
            self._mine = [name for name, module in modules.items() if REAL.get(name, module) is module]
            for name in self._mine:
                _, users = exposed.get(name) or (None, 0)
                if users or name not in REAL:
                    exposed[name] = (modules[name], users + 1)
                    REAL[name] = modules[name]

    def __exit__(self, *_: object) -> None:
        modules = self._modules
        with _lock:
            for name in self._mine:
                module, users = exposed.get(name, (None, 0))
                if users > 1:
                    exposed[name] = (modules[name], users - 1)
                elif users:
                    if REAL.get(name) is module:
                        del REAL[name]
                    del exposed[name]
            self._mine = []


class _Initialisation(threading.local):
    """The running initialisations of compiled code on this thread."""

    undo: contextlib.ExitStack | None = None
    contested: frozenset[str] = frozenset()
    owners: tuple[object, ...] = ()


_initialisation: Final = _Initialisation()


@contextlib.contextmanager
def initialising(owner: object, table: Mapping[str, object], contested: Collection[str]) -> Iterator[bool]:
    """Let compiled code find Python modules of its owner in the table while it is initialised, as C code expects.

    ``contested`` are top-level packages of which the base has other Python modules: these are taken out, and imports by
    the base go past the table meanwhile. Yields whether this thread is in no other initialisation for the same owner.
    """
    own = {name: module for name, module in table.items() if isinstance(module, ModuleType)}
    state = _initialisation
    before = state.undo, state.contested, state.owners
    with contextlib.ExitStack() as undo:
        # Packages taken out by an outer initialisation are out already: entries made there since are the owner's.
        undo.enter_context(withholding(frozenset(contested) - state.contested))
        undo.enter_context(exposing(own))
        state.undo, state.contested, state.owners = undo, state.contested.union(contested), (*state.owners, owner)
        try:
            yield owner not in before[2]
        finally:
            state.undo, state.contested, state.owners = before


def is_initialising_compiled() -> bool:
    """Whether this thread is initialising compiled code."""
    return _initialisation.undo is not None


def lend(name: str, module: ModuleType, fromlist: object = None) -> None:
    """Put a Python module into the table for C code, which looks there right after the import.

    During an initialisation the Python module stays until the end; else until ``fromlist``, a list as `is_c_call`
    describes, is freed. Outside of an initialisation and without a list, nothing is put there.
    """
    if REAL.get(name) is module:
        return
    undo = _initialisation.undo
    if undo is not None:
        undo.enter_context(exposing({name: module}))
    elif fromlist is not None:
        cast("list[object]", fromlist).append(restorer(name))
        REAL[name] = module


_lock: Final = threading.Lock()
_is_apart = False
"""Whether the hooks are in: only by the hooks does the base find Python modules out of the table."""


def keep_apart(tops: Collection[str]) -> None:
    """Keep Python modules of the base below ``tops``, present and future, out of the table from now on. Thread-safe."""
    if not apart.issuperset(tops):
        with _lock:
            apart.update(tops)
        take_apart()


def take_apart() -> None:
    """Take Python modules of the base out of the table if their package is kept apart; each stays in while it loads."""
    if not apart:
        return
    with _lock:
        for name, module in list(REAL.items()) if _is_apart else ():
            if name.partition(".")[0] in apart and name not in exposed and not is_initialising(module):
                _withhold_locked(name, module)


def begin_apart() -> None:
    """Take out Python modules of packages kept apart, those loaded by the base later too, until `put_together`."""
    global _is_apart  # noqa: PLW0603 - the interpreter has one table
    with _lock:
        _is_apart = True
    take_apart()


def settle(name: str, module: ModuleType) -> None:
    """Take a Python module loaded by the base out of the table, once its code has run; for packages kept apart."""
    with _lock:
        # An import of the base may end after the hooks are gone: then nothing would find the Python module again.
        if _is_apart and REAL.get(name) is module and name not in exposed and not is_initialising(module):
            _withhold_locked(name, module)


def _withhold_locked(name: str, module: ModuleType) -> None:
    _, users = withheld.get(name, (module, 0))
    withheld[name] = (module, users + 1)
    del REAL[name]


def put_together() -> None:
    """Put all withheld Python modules of the base back into the table, once there are no bizs."""
    global _is_apart  # noqa: PLW0603 - as above
    with _lock:
        _is_apart = False
        for name, (module, _) in withheld.items():
            REAL.setdefault(name, module)
        withheld.clear()


def find_of_base(name: str) -> ModuleType | None:
    """Return the Python module of the base under a name; ``None`` if there is none."""
    if name in withheld:
        held = withheld.get(name)
        if held is not None:
            return held[0]
    module = REAL.get(name)
    return None if exposed and _is_exposed(name, module) else module


def set_of_base(name: str, module: ModuleType) -> None:
    """Enter a Python module of the base by hand."""
    with _lock:
        held = withheld.get(name)
        if held is None:
            REAL[name] = module
        else:
            withheld[name] = (module, held[1])


def take_of_base(name: str) -> ModuleType:
    """Remove a Python module of the base by hand and return the removed one. Raises ``KeyError`` if there is none."""
    with _lock:
        held = withheld.pop(name, None)
        if held is not None:
            return held[0]
        if _is_exposed(name, REAL[name]):
            raise KeyError(name)
        return REAL.pop(name)


def of_base(name: str) -> ModuleType:
    """Return the Python module of the base under a name. Raises ``KeyError`` if there is none."""
    if name in withheld:
        held = withheld.get(name)
        if held is not None:
            return held[0]
    module = REAL[name]
    if exposed and _is_exposed(name, module):
        raise KeyError(name)
    return module


def is_of_base(name: str) -> bool:
    """Whether the base has a Python module, or ``None``, under a name."""
    if name in withheld:
        return True
    return name in REAL and not (exposed and _is_exposed(name, REAL.get(name)))


def _is_exposed(name: str, module: object) -> bool:
    held = exposed.get(name)
    return held is not None and held[0] is module


def all_of_base() -> dict[str, ModuleType]:
    """The table of the base: the interpreter's own, or a copy while there are exceptions."""
    if not withheld and not exposed:
        return REAL
    table = {**REAL, **{name: module for name, (module, _) in withheld.copy().items()}}
    for name, (module, _) in exposed.copy().items():
        if table.get(name) is module and name not in withheld:
            del table[name]
    return table


class _AtRelease:
    """Calls ``__del__``, an instance attribute, when the object is freed: in C, with no bytecode of ours in between."""

    __slots__ = ("__del__",)

    def __init__(self, action: Callable[[], object]) -> None:
        self.__del__ = action


def restorer(name: str) -> object:
    """Make an object that restores the present meaning of a name in the interpreter's table when freed."""
    previous = REAL.get(name, _ABSENT)
    if previous is _ABSENT:
        return _AtRelease(functools.partial(REAL.pop, name, None))
    return _AtRelease(functools.partial(REAL.__setitem__, name, previous))


def is_c_call(fromlist: object) -> bool:
    """Whether the arguments of ``__import__`` are those of ``PyImport_Import``: an empty list, new for each call."""
    return type(fromlist) is list and not fromlist

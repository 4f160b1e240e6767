"""Linker: finds and loads Python modules for one owner, a biz or a library used by several bizs.

The semantics are those of ``importlib._bootstrap``, with three differences: the table is the owner's, nothing is ever
registered in the interpreter's own table, and a `locator.Locator` decides on the origin of a Python module. Every
Python module loaded here gets the owner's ``__builtins__`` with an ``__import__`` that leads back here: ownership
follows the code into threads, callbacks and late imports, independent of the context.

Threads: one lock per owner and name of a Python module, of the kind the interpreter uses for its own Python modules (so
a deadlock among threads is noticed, across owners too), none shared with the base or with another owner.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
import threading
import warnings
import weakref
from importlib.machinery import (
    ExtensionFileLoader,
    ModuleSpec,
    NamespaceLoader,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import LazyLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from koupleless.context import crossed, current, library_context
from koupleless.errors import BizGone, ModuleRefused
from koupleless.frames import passed_over, seen_as
from koupleless.isolation.codes import SharedCodeLoader
from koupleless.isolation.interpreter import (
    REAL,
    awaited,
    bootstrap,
    find_of_base,
    is_initialising_compiled,
    load_whole,
    stored,
)
from koupleless.isolation.linking.answers import Answers
from koupleless.isolation.linking.children import Children
from koupleless.isolation.linking.lazy import LazyImports
from koupleless.isolation.linking.lent import AT_START, left_as_it_is
from koupleless.isolation.linking.locator import Gone
from koupleless.isolation.linking.statements import make_import
from koupleless.isolation.linking.stores import Stored
from koupleless.isolation.linking.table import ABSENT, Edits, Table
from koupleless.isolation.policy import is_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.abc import Loader
    from types import CodeType

    from koupleless.context import Scope
    from koupleless.isolation.linking.statements import Import


class _Running:
    """Lets others find a new Python module by name while the body runs its code; nothing stays if the code fails.

    A class: imports are many, and a generator would take longer than all the rest here.
    """

    __slots__ = ("_child", "_is_bound_early", "_linker", "_module", "_parent", "_spec", "_stored", "_tracked")

    def __init__(
        self, linker: Linker, module: ModuleType, spec: ModuleSpec, parent: ModuleType | None, child: str
    ) -> None:
        self._linker = linker
        self._module = module
        self._spec = spec
        self._parent = parent
        self._child = child
        self._is_bound_early = False
        self._stored = None if spec.loader is None else stored(spec.name, module)
        self._tracked: list[str] = getattr(getattr(parent, "__spec__", None), "_uninitialized_submodules", [])

    def __enter__(self) -> None:
        table, module, parent, child, name = (
            self._linker.table,
            self._module,
            self._parent,
            self._child,
            self._spec.name,
        )
        self._spec._initializing = True  # type: ignore[attr-defined]  # noqa: SLF001 - for messages about import cycles
        self._linker._loading[name] = threading.get_ident()  # noqa: SLF001 - here and below: a part of the linker
        table.modules[name] = module
        # In an import cycle C code looks for a child on its parent, then in the interpreter's table, in vain; so the
        # child is bound before its code runs. An attribute of the package with the same name goes first until then.
        if parent is not None and child not in getattr(parent, "__dict__", {}) and table.has(parent):
            setattr(parent, child, module)
            self._is_bound_early = True
        self._tracked.append(child)
        if self._stored is not None:
            self._stored.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        linker, name = self._linker, self._spec.name
        try:
            if self._stored is not None:
                self._stored.__exit__()
            if kind is None:
                for tell in tuple(awaited.get(name, ())):
                    tell(linker.scope, self._module)
            else:
                self._undo()
        except BaseException:
            self._undo()
            raise
        finally:
            self._tracked.pop()
            self._spec._initializing = False  # type: ignore[attr-defined]  # noqa: SLF001
            del linker._loading[name]  # noqa: SLF001
        if kind is None and linker.is_gone:  # dropped meanwhile: a start that took too long
            raise BizGone(linker.scope.biz, name=name)

    def _undo(self) -> None:
        self._linker.table.modules.pop(self._spec.name, None)
        if self._is_bound_early and getattr(self._parent, self._child, None) is self._module:
            delattr(self._parent, self._child)


class Linker:
    """Locks, and imports, of one owner.

    Lifetime: made with the owner, emptied by `drop`; from then on the ``__import__``, which leaked code of the owner
    may still call, raises ``BizGone``. A linker is a facet of the owner's scope; the process-wide hooks find the linker
    there.
    """

    def __init__(self, scope: Scope, *, claims: frozenset[str] = frozenset()) -> None:
        """``claims`` are the top-level names of a library used by several bizs; none for a biz.

        Without a finder, which enters itself into the table, the owner has no other Python module than its builtins.
        """
        self.scope = scope
        self.table = Table(Gone(scope.biz), claims)
        self.answers = Answers(is_shared=bool(claims))
        self.edits = Edits(self.table, self.answers)
        self.children = Children(_children_asked)
        """Python modules of the owner below packages of other owners."""
        self.stores = Stored()
        """Possible stores of the owner's code into objects of other owners."""
        self.is_gone = False
        self._locks = _Locks()
        self._loading: dict[str, int] = {}
        """Name of a Python module with running code -> identifier of the thread."""
        self._lending: dict[str, int] = {}
        """Name of another owner's Python module, in import by a spec of an import hook -> identifier of the thread."""
        own = _copy_of_builtins()
        self.builtins: dict[str, Any] = own.__dict__
        self.import_: Import = make_import(self)
        self.builtins["__import__"] = self.import_
        self.lazy = LazyImports(self.import_)
        self.lazy.place(self.builtins)
        self.table.modules["builtins"] = self.table.personal["builtins"] = own
        _enter(self)

    def drop(self) -> None:
        """Let go of every Python module. Idempotent."""
        self.is_gone = True
        self.table.drop(Gone(self.scope.biz))
        self.children.clear()
        self.lazy.drop()
        self.answers.close()
        _leave(self)

    # --- find --------------------------------------------------------------------------------------------------------

    @seen_as(bootstrap._find_and_load)  # noqa: SLF001 - here and below: in its place
    def load(self, name: str, import_: Import | None = None) -> ModuleType:
        """Return the Python module of an absolute name, imported if need be. Raises the errors of an import statement.

        ``import_`` is called for the package; this method by default.
        """
        module = self.loaded(name)
        if module is ABSENT:
            module = self.find_and_load(name, self.parent_of(name, import_ or self.load))
        return module

    @passed_over
    def load_submodule(self, name: str) -> ModuleType | None:
        """Return the Python module of an absolute name, imported if need be; ``None`` if there is none."""
        try:
            return self.load(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            return None

    @passed_over
    def loaded(self, name: str) -> ModuleType:
        """Return the Python module of a name if imported by the owner, or known as another owner's; else `ABSENT`.

        Waits for another thread in the middle of the load. Raises ``ModuleNotFoundError`` if the name is blocked, and
        ``BizGone`` after `drop`.
        """
        table = self.table
        module: ModuleType | None = table.modules.get(name, ABSENT)
        if module is None:
            raise ModuleNotFoundError(f"import of {name} halted; None in sys.modules", name=name)
        if module is not ABSENT:
            if name in self._loading:
                self._wait_for(name)
            return module
        if self.is_gone:
            raise BizGone(self.scope.biz, name=name)
        if name in table.personal:
            table.modules[name] = table.personal[name]
            return table.personal[name]
        if not (table.removed and self._is_anew(name)) and not self._is_hooked(name):
            found = table.locator.foreign(name)
            if found is not None:
                table.met.add(name)
                return found
        if is_initialising_compiled() and name in REAL and name.partition(".")[0] in table.own_tops():
            return REAL[name]  # entered there by compiled code, which knows no linker
        return ABSENT

    @seen_as(getattr(bootstrap, "_resolve_parents", bootstrap._find_and_load_unlocked))  # noqa: SLF001
    def parent_of(self, name: str, import_: Import) -> ModuleType | None:
        """Return the package of a Python module, imported if need be; ``None`` for a top-level name.

        The package is imported first, and without the child's lock: code of the package may import the child while
        another thread, with a request for the child, waits for the parent.
        """
        parent = name.rpartition(".")[0]
        if not parent:
            return None
        if parent in self.table.modules and parent not in self._loading:
            return self.load(parent)
        return cast("ModuleType", bootstrap._call_with_frames_removed(import_, parent))  # noqa: SLF001

    @seen_as(bootstrap._find_and_load_unlocked)  # noqa: SLF001
    def find_and_load(self, name: str, parent: ModuleType | None) -> ModuleType:
        """Look for a Python module not there yet, and load it. Threads wait for each other here."""
        table = self.table
        with self._locks.of(name):
            try:
                if name not in table.modules:
                    child = name.rpartition(".")[2]
                    is_anew = bool(table.removed) and self._is_anew(name)
                    is_hooked = self._is_hooked(name)
                    if is_hooked:
                        self.answers.shown.pop(name, None)
                        with table.seeking(name):
                            spec = table.locator.hooks.ask(name, parent)
                        if spec is not None:
                            with self._loading_of(spec, is_hooked=True) as load_unlocked:
                                return load_unlocked(spec, parent, child)
                    found = self._locate(name, parent, is_anew=is_anew, is_asked=is_hooked)
                    if not isinstance(found, ModuleSpec):
                        return found
                    if current() is self.scope:
                        return self._load_unlocked(found, parent, child)
                    with self._loading_of(found) as load_unlocked:
                        return load_unlocked(found, parent, child)
            except BaseException:
                table.met.discard(name)
                raise
        return self.load(name)

    def _is_anew(self, name: str) -> bool:
        """Whether another owner's Python module is to be executed anew: removed before, or below a removed package."""
        table = self.table
        if name in table.removed:
            return True
        package = name.rpartition(".")[0]
        return package in table.removed and package in table.modules and table.of_others(name) is ABSENT

    def _is_hooked(self, name: str) -> bool:
        """Whether import hooks of the owner's code are to be asked for a name, for Python modules of any owner.

        Without a base an import hook sees each name not in ``sys.modules`` yet: neither names imported by the
        interpreter before any code (`lent.AT_START`), nor names imported by the program before. Here the program is the
        owner. A Python module loaded by the base is new to the owner unless the owner has imported the name by a
        statement or a call, even where a shared Python module imported by the owner uses the new one.
        """
        table = self.table
        if not table.locator.hooks.are_there() or name in table.met or name in AT_START:
            return False
        return not table.is_sought(name)

    @contextlib.contextmanager
    def _loading_of(self, spec: ModuleSpec, *, is_hooked: bool = False) -> Iterator[Import]:
        """Yield a `_load_unlocked` for the context of the execution of a Python module, without a frame of ours."""
        with contextlib.ExitStack() as stack:
            if is_hooked and not isinstance(spec.loader, LazyLoader):
                self._lending[spec.name] = threading.get_ident()
                stack.callback(self._lending.pop, spec.name, None)
            if current() is self.scope:
                yield self._load_unlocked
            elif self.answers.is_shared:  # context variables set by the import are there for all users of the library
                context = stack.enter_context(library_context(self.scope))
                yield cast("Import", functools.partial(context.run, cast("Any", self._load_unlocked)))
            else:
                stack.enter_context(crossed(self.scope))
                yield self._load_unlocked

    @passed_over
    def lend(self, name: str) -> ModuleType | None:
        """Return another owner's Python module if an import hook led to the import on this thread, else ``None``."""
        if self._lending.get(name) != threading.get_ident() or name in self.table.removed or self.is_gone:
            return None
        locator = self.table.locator
        parent = name.rpartition(".")[0]
        found = locator.foreign(name) or locator.locate(name, self.load(parent) if parent else None, is_asked=True)
        return None if isinstance(found, ModuleSpec) else found

    @passed_over
    def reload(self, name: str) -> bool:
        """Have import hooks of the owner's code handle another owner's Python module as in an import.

        The Python module itself is shared, and not executed again. Returns whether a hook answers for the name.
        """
        locator = self.table.locator
        if not locator.hooks.are_there():
            return False
        parent, _, child = name.rpartition(".")
        package = self.load(parent) if parent else None
        self.answers.shown.pop(name, None)
        with self.table.seeking(name):
            spec = locator.hooks.ask(name, package)
        if spec is None:
            return False
        with self._loading_of(spec, is_hooked=True) as load_unlocked:
            load_unlocked(spec, package, child)
        return True

    @passed_over
    def _locate(
        self, name: str, parent: ModuleType | None, *, is_anew: bool, is_asked: bool
    ) -> ModuleSpec | ModuleType:
        """Return a spec for the owner to load, or the Python module of another owner."""
        table = self.table
        parent_name, _, child = name.rpartition(".")
        if is_asked and not is_anew:
            shared = table.locator.foreign(name)
            if shared is not None:
                return shared
        is_own = parent is not None and table.modules.get(parent_name) is parent
        if is_own and not hasattr(parent, "__path__"):  # another owner's parent may get a path with the child
            raise ModuleNotFoundError(f"No module named {name!r}; {parent_name!r} is not a package", name=name)
        locator = table.locator
        found = locator.anew(name, parent) if is_anew else locator.locate(name, parent, is_asked=is_asked)
        if isinstance(found, ModuleSpec):
            return found
        if is_anew:
            table.removed.discard(name)
            if parent is not None:
                self.children.bind(parent, child, found, is_own=table.has(parent))
        elif is_own and not hasattr(parent, child):
            setattr(parent, child, found)  # another owner's portion of a namespace package
        return found

    @seen_as(bootstrap._load_unlocked)  # noqa: SLF001
    def _load_unlocked(self, spec: ModuleSpec, parent: ModuleType | None, child: str) -> ModuleType:
        """Make a Python module, run its code, and return the object under its name afterwards."""
        if load_whole is not None and spec.loader is not None and not hasattr(spec.loader, "exec_module"):
            module = load_whole(spec)
        else:
            module = cast("ModuleType", bootstrap.module_from_spec(spec))
            if spec.name in self._lending:
                if not self.table.has(module):
                    self.stores.suspect()
                    with left_as_it_is(module):
                        cast("Loader", spec.loader).exec_module(module)
                    return module
                if is_one(spec.name) and (shared := self.lend(spec.name)) is not None:
                    return shared
            if not isinstance(spec.loader, ExtensionFileLoader):
                self.adopt(module)
            with _Running(self, module, spec, parent, child):
                execute, *arguments = self._execution(spec, module)
                execute(*arguments)
            # The code may have put another object in the place of the Python module.
            modules = self.table.modules
            modules[spec.name] = module = modules.pop(spec.name)
        if parent is not None:
            try:
                self.children.bind(parent, child, module, is_own=self.table.has(parent))
            except AttributeError:
                message = f"Cannot set an attribute on {parent.__name__!r} for child module {child!r}"
                warnings.warn(message, ImportWarning, stacklevel=2)
        return module

    def _execution(self, spec: ModuleSpec, module: ModuleType) -> tuple[Any, ...]:
        """Return the function that runs the code of a Python module, and the arguments; note the stores of the code.

        The caller calls the function, which saves a frame: imports nest.
        """
        loader: Any = spec.loader
        if loader is None:
            if spec.submodule_search_locations is None:
                raise ImportError("missing loader", name=spec.name)
            return (_do_nothing,)
        if type(loader) not in _PLAIN_LOADERS or "exec_module" in vars(loader):
            if not isinstance(loader, ExtensionFileLoader | NamespaceLoader):
                self.stores.suspect()
            return loader.exec_module, module
        code = loader.get_code(module.__name__)
        if code is None:
            raise ImportError(f"cannot load module {module.__name__!r} when get_code() returns None")
        self.stores.note(code)
        return _exec_module, code, module

    def adopt(self, module: ModuleType) -> None:
        """Make code in the dictionary of a Python module the owner's, unless the Python module is the base's.

        A loader may answer with an older Python module, as the loader of ``six.moves`` does with the standard library.
        """
        known = module.__dict__
        if "__builtins__" not in known and find_of_base(getattr(module, "__name__", "")) is not module:
            known["__builtins__"] = self.builtins

    def is_loading(self, name: str) -> bool:
        """Whether the code of a Python module is running."""
        return name in self._loading

    def _wait_for(self, name: str) -> None:
        """Wait until another thread has loaded the Python module; return at once if this thread is loading."""
        if self._loading.get(name) == threading.get_ident():
            return
        try:
            with self._locks.of(name):
                pass
        except bootstrap._DeadlockError:  # noqa: SLF001 - a cycle across threads: half a Python module is better, as in importlib
            return

    def __repr__(self) -> str:
        return f"<Linker of {self.scope.biz}, {len(self.table.modules)} modules{', gone' if self.is_gone else ''}>"


class _Locks:
    """Locks by the name of a Python module; each lives while a thread holds the lock, or waits for the lock."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._known: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    def of(self, name: str) -> _Holding:
        """Hold the lock of a name. Raises the interpreter's ``_DeadlockError`` if threads would wait in a circle."""
        with self._guard:
            lock = self._known.get(name)
            if lock is None:
                lock = self._known[name] = bootstrap._ModuleLock(name)  # noqa: SLF001
        return _Holding(lock)


class _Holding:
    """Holds a lock of the interpreter's while the body runs; a class, as `_Running`."""

    __slots__ = ("_lock",)

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@seen_as(SourceFileLoader.exec_module)
def _exec_module(code: CodeType, module: ModuleType) -> None:
    """Run the code of a Python module in its dictionary."""
    bootstrap._call_with_frames_removed(exec, code, module.__dict__)  # noqa: SLF001


def _do_nothing() -> None:
    """Execute a namespace package, which has no code."""


_PLAIN_LOADERS: Final = frozenset({SourceFileLoader, SourcelessFileLoader, SharedCodeLoader})

# --- the linkers of the process --------------------------------------------------------------------------------------

_linkers: weakref.WeakSet[Linker] = weakref.WeakSet()
_by_builtins: weakref.WeakValueDictionary[int, Linker] = weakref.WeakValueDictionary()


def _copy_of_builtins() -> ModuleType:
    own = ModuleType("builtins", builtins.__doc__)
    own.__dict__.update(builtins.__dict__)
    return own


def _enter(linker: Linker) -> None:
    _linkers.add(linker)
    _by_builtins[id(linker.builtins)] = linker


def _leave(linker: Linker) -> None:
    _linkers.discard(linker)
    _by_builtins.pop(id(linker.builtins), None)


def linker_of(scope: Scope | None) -> Linker | None:
    """Return the linker of a biz, ``None`` if there is none (any more)."""
    return None if scope is None else scope.find_facet(Linker)


def all_linkers() -> list[Linker]:
    """Return the linkers of all owners."""
    return list(_linkers)


def asking() -> Linker | None:
    """Return the linker that the caller's caller works for: the running biz's, else the code owner's."""
    scope = current()
    if scope is not None:
        return scope.find_facet(Linker)
    return owner_of(sys._getframe(2).f_builtins)  # noqa: SLF001


def _children_asked(known: Mapping[str, Any]) -> Children | None:
    scope = current()
    linker = owner_of(known) if scope is None else scope.find_facet(Linker)
    return None if linker is None else linker.children


def owner_of(known: object) -> Linker | None:
    """Return the linker of the code with these builtins; ``None`` for code of the base."""
    return None if known is builtins.__dict__ else _by_builtins.get(id(known))


def advice_on(error: BaseException, scope: Scope) -> str:
    """Advise a change after which an import that failed in a biz succeeds; empty where nothing is known.

    The error itself is Python's own, as without a base: code compares, prints and pickles errors. The importer may be
    a shared library, with other Python modules in sight than the biz: the code nearest to the raise decides.
    """
    if isinstance(error, ModuleRefused):
        return error.advice
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    asked, trace = linker_of(scope), error.__traceback__
    while trace is not None:
        asked = owner_of(trace.tb_frame.f_builtins) or asked
        trace = trace.tb_next
    return "" if asked is None else asked.table.locator.advice(error.name)

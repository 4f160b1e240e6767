"""Linker: finds and loads Python modules for one owner, with a table, locks and an ``__import__`` of the owner's own.

The semantics are those of ``importlib._bootstrap``, with three differences: the table is the owner's, nothing is ever
registered in the interpreter's own table, and a `Locator` decides on the origin of a Python module. Every Python module
loaded here gets the owner's ``__builtins__`` with an ``__import__`` that leads back here: ownership follows the code
into threads, callbacks and late imports, independent of the context.

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
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

from koupleless.context import crossed, current, library_context
from koupleless.errors import BizGone, ModuleRefused
from koupleless.frames import making_seen_as, passed_over, seen_as
from koupleless.isolation.codes import SharedCodeLoader
from koupleless.isolation.interpreter import (
    REAL,
    all_of_base,
    awaited,
    bootstrap,
    clean,
    find_of_base,
    is_c_call,
    is_initialising,
    is_initialising_compiled,
    lend,
    load_whole,
    stored,
)
from koupleless.isolation.linking.children import Children
from koupleless.isolation.linking.lazy import LazyImports
from koupleless.isolation.linking.lent import AT_START, left_as_it_is
from koupleless.isolation.linking.stores import Stored
from koupleless.isolation.policy import PROCESS_NAMES, is_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from importlib.abc import Loader
    from types import CodeType

    from koupleless.context import Scope

Import: TypeAlias = "Callable[..., ModuleType]"

ABSENT: Final = cast("ModuleType", object())


class Locator(Protocol):
    """Decides on the origin of the Python modules of one owner."""

    def foreign(self, name: str) -> ModuleType | None:
        """Return the Python module of another owner under a name; ``None`` if no other owner is known (yet)."""

    def locate(self, name: str, parent: ModuleType | None, *, is_asked: bool = False) -> ModuleSpec | ModuleType:
        """Return a spec for the owner to load, or the Python module of another owner.

        ``is_asked`` says that `hooked` was asked before. Raises ``ModuleNotFoundError``, as Python, if nothing is
        found.
        """

    def owns(self, top: str) -> bool:
        """Whether a top-level package, not imported yet, would be the owner's."""

    def hooked(self, name: str, parent: ModuleType | None) -> ModuleSpec | None:
        """Ask the import hooks of the owner's code before the owner's search path; ``None`` without an answer.

        A spec with a lazy loader for a Python module shared by all counts as no answer: the lazy one would take the
        place of the shared one.
        """

    def anew(self, name: str, parent: ModuleType | None) -> ModuleSpec | ModuleType:
        """Return a spec of another owner's Python module, for the owner to execute anew.

        Returns the Python module itself where a process can have one only. Raises ``ModuleNotFoundError`` if there is
        none.
        """

    def is_copied(self, name: str) -> bool:
        """Whether a Python module of the base, not imported yet by the owner, is to be an own copy."""

    def is_own_part(self, name: str) -> bool:
        """Whether the owner executes a Python module of a lent library for itself."""

    def sight(self) -> Callable[[str], bool]:
        """Return a function that tells whether the owner's code sees a Python module of the base in ``sys.modules``.

        The function is valid for the present moment only.
        """

    def is_settled(self, name: str) -> bool:
        """Whether a name belongs to another owner for good, or until `invalidate_caches`."""

    def advice(self, name: str) -> str:
        """Advise a change after which the owner can import a Python module not found before; empty if not needed."""

    def invalidate_caches(self) -> None:
        """Forget all answers, so that files new since then are seen."""


class Linker:
    """Table, locks and ``__import__`` of one owner.

    Lifetime: made with the owner, emptied by `drop`; from then on the ``__import__``, which leaked code of the owner
    may still call, raises ``BizGone``. A linker is a facet of the owner's scope; the process-wide hooks find the linker
    there.
    """

    def __init__(self, scope: Scope, locator: Locator, *, is_shared: bool = False) -> None:
        """``is_shared`` says that the owner is a library used by several bizs."""
        self.scope = scope
        self.table: dict[str, ModuleType] = {}
        """Python modules imported by the owner, but for those of the base. ``None`` as a value blocks the name."""
        self.shown: dict[str, ModuleType | None] = {}
        """Python modules of the base looked up in ``sys.modules``, ``None`` for one out of sight.

        Forgotten with the answers of imports, and when another Python module is taken from the base.
        """
        self.plain_hooks: list[Any] = []
        """The items of ``sys.meta_path`` as long as the owner's code adds no import hook."""
        self.removed: set[str] = set()
        """Names of other owners' Python modules that the owner's code has deleted from ``sys.modules``, or replaced.

        Such Python modules show through no more, and an import executes each anew.
        """
        self.placed: set[str] = set()
        """Names of entries put into ``sys.modules`` by the owner's code."""
        self.lenders: list[Linker] = []
        """Owners of shared Python modules in use here; their tables show through."""
        self.claims: set[str] = set()
        """Top-level names of this owner, loaded or not, as far as known beforehand."""
        self.meta_path: list[Any] = []
        self.search_path: list[str] = []
        self.assigned: dict[str, Any] = {}
        """Values assigned by the owner's code to variables of ``sys``, by name."""
        self.children = Children(_children_asked)
        """Python modules of the owner below packages of other owners."""
        self.stores = Stored()
        """Possible stores of the owner's code into objects of other owners."""
        self.is_gone = False
        self.is_shared = is_shared
        self._locator: Locator | None = locator
        self._loading: dict[str, int] = {}
        self._met: set[str] = set()
        """Names of other owners' Python modules imported by the owner: the owner's import hooks see these no more."""
        self._sought: dict[str, int] = {}
        """Name in question at import hooks -> identifier of the asking thread.

        The asking thread sees no Python module of the name.
        """
        self._lending: dict[str, int] = {}
        """Name of another owner's Python module, in import by a spec of an import hook -> identifier of the thread."""
        self._guard = threading.Lock()
        self._locks: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        # Answers of finished imports, by the text of the statement: of ``import x``, and of ``from x import``.
        self._plain: dict[str, ModuleType] = {}
        self._flat: dict[str, ModuleType] = {}
        self._packages: dict[str, ModuleType] = {}
        self._relative: dict[tuple[str, str, int], ModuleType] = {}
        own = _copy_of_builtins()
        self.builtins: dict[str, Any] = own.__dict__
        self.import_: Import = _make_import(self, self._plain, self._flat, self._packages, self._relative)
        self.builtins["__import__"] = self.import_
        self.lazy = LazyImports(self.import_)
        self.lazy.place(self.builtins)
        self.table["builtins"] = own
        self.personal: dict[str, ModuleType] = {"builtins": own}
        """Python modules made for every owner at the beginning, for later use when code has emptied the table."""
        _enter(self)

    # --- look-up without loading ---------------------------------------------------------------------------------

    def find(self, name: str) -> ModuleType | None:
        """Return the value under a name in the table, or in a lender's table that shows through; else ``ABSENT``."""
        found = self.table.get(name, ABSENT)
        if found is ABSENT and self.lenders and name not in self.removed:
            return self._lent(name)
        return found

    def _lent(self, name: str) -> ModuleType | None:
        if name not in _PERSONAL:
            for lender in self.all_lenders():
                found = lender.table.get(name, ABSENT)
                if found is not ABSENT:
                    return found
        return ABSENT

    def _of_others(self, name: str, *, is_narrow: bool = False) -> ModuleType | None:
        """Return the Python module that shows through under a name, if deletions by the owner's code are ignored.

        Returns ``ABSENT`` if there is none.
        """
        found = self._lent(name)
        if found is not ABSENT:
            return found
        of_base = None if self._is_covered(name) else find_of_base(name)
        return ABSENT if of_base is None or (is_narrow and not self.sight()(name)) else of_base

    def sight(self) -> Callable[[str], bool]:
        """See `Locator`."""
        return self._locator.sight() if self._locator is not None else bool

    def is_settled(self, name: str) -> bool:
        """Whether a name of the base cannot become the owner's, except by changes of the owner's code."""
        return self._locator is not None and self._locator.is_settled(name)

    def all_lenders(self) -> list[Linker]:
        """The linkers with tables that show through here: the lenders, and their lenders."""
        lenders = list(self.lenders)
        for lender in lenders:  # grows
            lenders += [further for further in lender.lenders if further not in lenders and further is not self]
        return lenders

    def names(self) -> list[str]:
        """Every name known to `find`."""
        names = dict.fromkeys(self.table.copy())
        for lender in self.all_lenders():
            names.update(dict.fromkeys(lender.table.copy().keys() - _PERSONAL - self.removed))
        return list(names)

    def is_lent(self, name: str, module: object) -> bool:
        """Whether a Python module belongs to a lender under the name given."""
        return bool(self.lenders) and any(lender.table.get(name) is module for lender in self.all_lenders())

    def is_lent_somehow(self, module: object) -> bool:
        """Whether a Python module belongs to a lender under any name."""
        return any(known is module for lender in self.all_lenders() for known in lender.table.copy().values())

    def hides(self, name: object) -> bool:
        """Whether a name of the base is out of sight: removed, or below a top-level package of the owner."""
        if not isinstance(name, str):  # any object may be looked up in a dictionary
            return False
        is_sought = self._sought and self._sought.get(name) == threading.get_ident()
        return bool(is_sought) or name in self.removed or self._is_covered(name)

    def _is_covered(self, name: str) -> bool:
        top, dot, _ = name.partition(".")
        if top in self.removed:
            return False  # one Python module was replaced, without all Python modules below
        if top in _PERSONAL:
            return name == "__mp_main__"
        package = self.find(top)
        if package is ABSENT:
            return self._locator is not None and self._locator.owns(top)
        # Portions of a namespace package belong to several owners; all portions but the owner's are the base's.
        if not dot or getattr(package, "__file__", None) is not None:
            return True
        return self._locator is not None and self._locator.is_copied(name)

    def is_own_part(self, name: str) -> bool:
        """Whether the owner executes a Python module of a shared library for itself."""
        return self._locator is not None and self._locator.is_own_part(name)

    def own_tops(self) -> set[str]:
        """Top-level names of the owner, as far as known by now."""
        return {*self.claims, *(name for name in self.table.copy() if "." not in name)} - _PERSONAL

    def contested(self) -> set[str]:
        """Top-level names of the owner under which the base has another Python module."""
        of_base = all_of_base()
        return {name for name in self.own_tops() if name in of_base and self.table.get(name) is not of_base[name]}

    # --- changes by code that writes to sys.modules --------------------------------------------------------------

    def put(self, name: str, module: ModuleType | None, *, is_narrow: bool = False) -> None:
        """Enter a Python module by hand, as ``sys.modules[name] = module`` in the owner's context.

        Another owner's Python module, put back under its name, shows through again. ``is_narrow`` here and below says
        that the calling code sees only libraries of the base in the owner's sight.
        """
        known = self._of_others(name)
        if module is not None and module is known and (name not in self.table or name in self.removed):
            self.table.pop(name, None)
            self.removed.discard(name)
            self.placed.discard(name)
        else:
            self.table[name] = module  # type: ignore[assignment]  # ``None`` blocks the name
            self.placed.add(name)
            if self._of_others(name, is_narrow=is_narrow) is not ABSENT:
                self.removed.add(name)
            _dispute({name})
        self.forget()

    def take(self, name: str, *, is_narrow: bool = False) -> ModuleType:
        """Remove a name by hand and return the Python module; another owner's is out of sight from now on.

        Raises ``KeyError`` if the name means nothing.
        """
        known = ABSENT if name in self.removed else self._of_others(name, is_narrow=is_narrow)
        module = self.table.pop(name, cast("ModuleType", known))
        if module is ABSENT:
            raise KeyError(name)
        if known is not ABSENT:
            self.removed.add(name)
            _dispute({name})
        self.placed.discard(name)
        self._met.discard(name)
        self.forget()
        return module

    def clear(self, *, is_narrow: bool = False) -> None:
        """Remove every name by hand."""
        is_seen = self.sight() if is_narrow else bool
        others = {*filter(is_seen, all_of_base().copy()), *self.names()}
        hidden = {name for name in others if self._of_others(name) is not ABSENT}
        self.removed |= hidden
        _dispute(hidden)
        self.table.clear()
        self.placed.clear()
        self._met.clear()
        self.forget()

    def has_changed(self, name: str) -> bool:
        """Whether the owner's code has set the meaning of a name, by changes of ``sys.modules``."""
        return name in self.placed or name in self.removed

    def forget(self) -> None:
        """Forget the answers of finished imports; the next ones look at the tables again."""
        self.shown.clear()
        self._plain.clear()
        self._flat.clear()
        self._packages.clear()
        self._relative.clear()

    def path_in_use(self) -> list[str]:
        """The list at ``sys.path`` as seen by the owner."""
        return self.assigned.get("path", self.search_path)  # type: ignore[no-any-return]

    def hooks_in_use(self) -> list[Any]:
        """The list at ``sys.meta_path`` as seen by the owner."""
        return self.assigned.get("meta_path", self.meta_path)  # type: ignore[no-any-return]

    def invalidate_caches(self) -> None:
        """Look at the files again for the next import."""
        if self._locator is not None:
            self._locator.invalidate_caches()

    def advice(self, name: str) -> str:
        """See `Locator.advice`."""
        return "" if self._locator is None else self._locator.advice(name)

    def drop(self) -> None:
        """Let go of every Python module. Idempotent."""
        self.is_gone = True
        self._locator = None
        self.table.clear()
        self.personal.clear()
        self.children.clear()
        self.lenders.clear()
        self.meta_path.clear()
        self.search_path.clear()
        self.assigned.clear()
        self.lazy.drop()
        self.forget()
        _linkers.discard(self)
        _by_builtins.pop(id(self.builtins), None)

    # --- find and load -------------------------------------------------------------------------------------------

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
        module: ModuleType | None = self.table.get(name, ABSENT)
        if module is None:
            raise ModuleNotFoundError(f"import of {name} halted; None in sys.modules", name=name)
        if module is not ABSENT:
            if name in self._loading:
                self._wait_for(name)
            return module
        locator = self._locator
        if locator is None:
            raise BizGone(self.scope.biz, name=name)
        if name in self.personal:
            self.table[name] = self.personal[name]
            return self.personal[name]
        if not (self.removed and self._is_anew(name)) and not self._is_hooked(name):
            found = locator.foreign(name)
            if found is not None:
                self._met.add(name)
                return found
        if is_initialising_compiled() and name in REAL and name.partition(".")[0] in self.own_tops():
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
        if parent in self.table and parent not in self._loading:
            return self.load(parent)
        return cast("ModuleType", bootstrap._call_with_frames_removed(import_, parent))  # noqa: SLF001

    @seen_as(bootstrap._find_and_load_unlocked)  # noqa: SLF001
    def find_and_load(self, name: str, parent: ModuleType | None) -> ModuleType:
        """Look for a Python module not there yet, and load it. Threads wait for each other here."""
        lock = self._lock_of(name)
        lock.acquire()
        try:
            if name not in self.table:
                child = name.rpartition(".")[2]
                is_anew = bool(self.removed) and self._is_anew(name)
                is_hooked = self._is_hooked(name)
                if is_hooked and self._locator is not None:
                    with self._seeking(name):
                        spec = self._locator.hooked(name, parent)
                    if spec is not None:
                        with self._loading_of(spec, is_hooked=True) as load_unlocked:
                            return load_unlocked(spec, parent, child)
                found = self._locate(name, parent, is_anew=is_anew, is_asked=is_hooked)
                if not isinstance(found, ModuleSpec):
                    return found
                with self._loading_of(found) as load_unlocked:
                    return load_unlocked(found, parent, child)
        except BaseException:
            self._met.discard(name)
            raise
        finally:
            lock.release()
        return self.load(name)

    def _is_anew(self, name: str) -> bool:
        """Whether another owner's Python module is to be executed anew: removed before, or below a removed package."""
        if name in self.removed:
            return True
        package = name.rpartition(".")[0]
        return package in self.removed and package in self.table and self._of_others(name) is ABSENT

    def _is_hooked(self, name: str) -> bool:
        """Whether import hooks of the owner's code are to be asked for a name, for Python modules of any owner.

        Without a base an import hook sees each name not in ``sys.modules`` yet: neither names imported by the
        interpreter before any code (`lent.AT_START`), nor names imported by the program before. Here the program is the
        owner. A Python module loaded by the base is new to the owner unless the owner has imported the name by a
        statement or a call, even where a shared Python module imported by the owner uses the new one.
        """
        if self.hooks_in_use() == self.plain_hooks or name in self._met or name in AT_START:
            return False
        return self._sought.get(name) != threading.get_ident()  # a hook that imports the name in question

    @contextlib.contextmanager
    def _seeking(self, name: str) -> Iterator[None]:
        """Hide a Python module while the body asks import hooks of the owner's code for the name.

        Without a base the Python module would not be there yet.
        """
        self.shown.pop(name, None)
        self._sought[name] = threading.get_ident()
        try:
            yield
        finally:
            self._sought.pop(name, None)
            self._met.add(name)

    @contextlib.contextmanager
    def _loading_of(self, spec: ModuleSpec, *, is_hooked: bool = False) -> Iterator[Import]:
        """Yield a `_load_unlocked` for the context of the execution of a Python module, without a frame of ours."""
        with contextlib.ExitStack() as stack:
            if is_hooked and not isinstance(spec.loader, LazyLoader):
                self._lending[spec.name] = threading.get_ident()
                stack.callback(self._lending.pop, spec.name, None)
            if current() is self.scope:
                yield self._load_unlocked
            elif self.is_shared:  # context variables set by the import are there for all users of the library
                context = stack.enter_context(library_context(self.scope))
                yield cast("Import", functools.partial(context.run, cast("Any", self._load_unlocked)))
            else:
                stack.enter_context(crossed(self.scope))
                yield self._load_unlocked

    @passed_over
    def lend(self, name: str) -> ModuleType | None:
        """Return another owner's Python module if an import hook led to the import on this thread, else ``None``."""
        locator = self._locator
        if self._lending.get(name) != threading.get_ident() or name in self.removed or locator is None:
            return None
        parent = name.rpartition(".")[0]
        found = locator.foreign(name) or locator.locate(name, self.load(parent) if parent else None, is_asked=True)
        return None if isinstance(found, ModuleSpec) else found

    @passed_over
    def reload(self, name: str) -> bool:
        """Have import hooks of the owner's code handle another owner's Python module as in an import.

        The Python module itself is shared, and not executed again. Returns whether a hook answers for the name.
        """
        if self.hooks_in_use() == self.plain_hooks or self._locator is None:
            return False
        parent, _, child = name.rpartition(".")
        package = self.load(parent) if parent else None
        with self._seeking(name):
            spec = self._locator.hooked(name, package)
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
        parent_name, _, child = name.rpartition(".")
        if is_asked and not is_anew and self._locator is not None:
            shared = self._locator.foreign(name)
            if shared is not None:
                return shared
        is_own = parent is not None and self.table.get(parent_name) is parent
        if is_own and not hasattr(parent, "__path__"):  # another owner's parent may get a path with the child
            raise ModuleNotFoundError(f"No module named {name!r}; {parent_name!r} is not a package", name=name)
        if self._locator is None:
            raise BizGone(self.scope.biz, name=name)
        found = self._locator.anew(name, parent) if is_anew else self._locator.locate(name, parent, is_asked=is_asked)
        if isinstance(found, ModuleSpec):
            return found
        if is_anew:
            self.removed.discard(name)
            if parent is not None:
                self._bind_child(parent, child, found)
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
                if not self.has(module):
                    self.stores.suspect()
                    with left_as_it_is(module):
                        cast("Loader", spec.loader).exec_module(module)
                    return module
                if is_one(spec.name) and (shared := self.lend(spec.name)) is not None:
                    return shared
            if not isinstance(spec.loader, ExtensionFileLoader):
                self.adopt(module)
            with self._running(module, spec, parent, child):
                execute, *arguments = self._execution(spec, module)
                execute(*arguments)
            # The code may have put another object in the place of the Python module.
            self.table[spec.name] = module = self.table.pop(spec.name)
        if parent is not None:
            try:
                self._bind_child(parent, child, module)
            except AttributeError:
                message = f"Cannot set an attribute on {parent.__name__!r} for child module {child!r}"
                warnings.warn(message, ImportWarning, stacklevel=2)
        return module

    def _bind_child(self, parent: ModuleType, child: str, module: ModuleType) -> None:
        """Let the owner find a Python module as an attribute of the package."""
        if self.has(parent):
            setattr(parent, child, module)
        elif getattr(parent, "__dict__", {}).get(child) is module:
            self.children.hide(parent, child)
        else:
            self.children.show(parent, child, module)

    def has(self, module: ModuleType) -> bool:
        """Whether a Python module in use by the owner belongs to the owner, or to nobody."""
        name = getattr(module, "__name__", "")
        return find_of_base(name) is not module and not self.is_lent(name, module)

    def executed(self) -> dict[str, ModuleType]:
        """Python modules of the owner alone, by name."""
        table: dict[str, ModuleType | None] = {**self.table}
        return {name: module for name, module in table.items() if module is not None and self.has(module)}

    @contextlib.contextmanager
    def _running(self, module: ModuleType, spec: ModuleSpec, parent: ModuleType | None, child: str) -> Iterator[None]:
        """Let others find a new Python module by name while the body runs its code; nothing stays if the code fails."""
        name = spec.name
        tracked: list[str] = getattr(getattr(parent, "__spec__", None), "_uninitialized_submodules", [])
        spec._initializing = True  # type: ignore[attr-defined]  # noqa: SLF001 - for messages about import cycles
        self._loading[name] = threading.get_ident()
        self.table[name] = module
        # In an import cycle C code looks for a child on its parent, then in the interpreter's table, in vain; so the
        # child is bound before its code runs. An attribute of the package with the same name goes first until then.
        is_bound_early = parent is not None and child not in getattr(parent, "__dict__", {}) and self.has(parent)
        if is_bound_early:
            setattr(parent, child, module)
        tracked.append(child)
        try:
            with stored(name, module) if spec.loader is not None else contextlib.nullcontext():
                yield
            for tell in tuple(awaited.get(name, ())):
                tell(self.scope, module)
        except BaseException:
            self.table.pop(name, None)
            if is_bound_early and getattr(parent, child, None) is module:
                delattr(parent, child)
            raise
        finally:
            tracked.pop()
            spec._initializing = False  # type: ignore[attr-defined]  # noqa: SLF001
            del self._loading[name]
        if self.is_gone:  # dropped meanwhile: a start that took too long
            raise BizGone(self.scope.biz, name=name)

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
        if find_of_base(getattr(module, "__name__", "")) is not module:
            module.__dict__.setdefault("__builtins__", self.builtins)

    def _lock_of(self, name: str) -> Any:
        with self._guard:
            lock = self._locks.get(name)
            if lock is None:
                lock = self._locks[name] = bootstrap._ModuleLock(name)  # noqa: SLF001
            return lock

    def _wait_for(self, name: str) -> None:
        """Wait until another thread has loaded the Python module; return at once if this thread is loading."""
        if self._loading.get(name) == threading.get_ident():
            return
        lock = self._lock_of(name)
        try:
            lock.acquire()
        except bootstrap._DeadlockError:  # noqa: SLF001 - a cycle across threads: half a Python module is better, as in importlib
            return
        lock.release()

    # --- statements ----------------------------------------------------------------------------------------------

    @passed_over
    def absolute(self, name: str, namespace: Mapping[str, Any] | None, level: int) -> str:
        """Return the absolute name of the Python module for arguments of ``__import__``. Raises errors as Python."""
        if not level:
            bootstrap._sanity_check(name, None, 0)  # noqa: SLF001
            return name
        package = bootstrap._calc___package__(namespace or {})  # noqa: SLF001
        bootstrap._sanity_check(name, package, level)  # noqa: SLF001
        return bootstrap._resolve_name(name, package, level)  # type: ignore[no-any-return]  # noqa: SLF001

    def remember(
        self, absolute: str, name: str, namespace: Mapping[str, Any] | None, level: int, module: ModuleType
    ) -> None:
        """Remember the Python module of ``from name import`` as the answer, if the answer cannot change by itself."""
        if not self._is_settled(absolute, module):
            return
        package = None if namespace is None else namespace.get("__package__")
        if not level:
            (self._packages if hasattr(module, "__path__") else self._flat)[name] = module
        elif isinstance(package, str):
            self._relative[package, name, level] = module

    @passed_over
    def top_of(self, absolute: str, name: str, level: int, module: ModuleType) -> ModuleType:
        """Return the top-level Python module for ``import name``, after the import of the absolute name."""
        if level:
            cut_off = len(name) - len(name.partition(".")[0])
            return self.load(absolute[: len(absolute) - cut_off]) if cut_off else module
        top_name = name.partition(".")[0]
        top = self.load(top_name)
        self._bind(name, module)
        if self._is_settled(absolute, module) and self._is_settled(top_name, top):
            self._plain[name] = top
        return top

    def _is_settled(self, name: str, module: ModuleType) -> bool:
        """Whether memory may answer a later import of the same name; notes a name of the base, to hear of changes."""
        if self.is_gone or name in self._loading:
            return False
        if name in self.table:
            return True
        if is_initialising(module):
            return False
        if self.is_shared and not self._is_undisputed(name):
            return False  # each user of the library may have another Python module there
        if find_of_base(name) is module:
            _borrowed.add(name)
            return True
        return self.is_lent(name, module)

    def _is_undisputed(self, name: str) -> bool:
        top = name.partition(".")[0]
        return (top in self.claims or top in PROCESS_NAMES) and name not in _disputed

    @passed_over
    def items(self, module: ModuleType, fromlist: Iterable[str], *, is_all: bool = False) -> list[str]:
        """Return the names that ``from package import ...`` has to find. Raises ``TypeError`` for an item but text."""
        found: list[str] = []
        for item in fromlist:
            if not isinstance(item, str):
                where = module.__name__ + ".__all__" if is_all else "``from list''"  # type: ignore[unreachable]
                raise TypeError(f"Item in {where} must be str, not {type(item).__name__}")
            if item != "*":
                found.append(item)
            elif not is_all and hasattr(module, "__all__"):
                found += self.items(module, module.__all__, is_all=True)
        return found

    def _bind(self, name: str, module: ModuleType | None) -> None:
        """Bind Python modules imported by ``import a.b.c as d`` at their parents; some parents may be new.

        The statement looks for a missing attribute in the interpreter's table, in vain.
        """
        parent_name, _, child = name.rpartition(".")
        while parent_name:
            parent = self.table.get(parent_name)
            known = getattr(parent, "__dict__", {})
            if parent is not None and module is not None and child not in known and "__getattr__" not in known:
                self._bind_child(parent, child, module)
            name, module = parent_name, parent
            parent_name, _, child = name.rpartition(".")

    def bind_item(self, module: ModuleType, item: str, child: ModuleType) -> None:
        """Let ``from module import`` find a submodule just imported."""
        if not hasattr(module, item):  # the package failed, and is loaded again: C looks into the real table next
            self._bind_child(module, item, child)

    def error_of_item(self, module: ModuleType, item: str, error: ModuleNotFoundError) -> ImportError | None:
        """Return the error of ``from module import`` for a submodule not found; ``None`` leaves the error to Python."""
        name = f"{module.__name__}.{item}"
        if error.name != name or self.table.get(name, ABSENT) is None:
            return error
        if name in REAL and self.hides(name) and not hasattr(module, item):
            # The interpreter would now look into its own table, and find the Python module of the base.
            where = getattr(module, "__file__", None) or "unknown location"
            message = f"cannot import name {item!r} from {module.__name__!r} ({where})"
            return ImportError(message, name=module.__name__, path=getattr(module, "__file__", None))
        return None

    def __repr__(self) -> str:
        return f"<Linker of {self.scope.biz}, {len(self.table)} modules{', gone' if self.is_gone else ''}>"


@seen_as(SourceFileLoader.exec_module)
def _exec_module(code: CodeType, module: ModuleType) -> None:
    """Run the code of a Python module in its dictionary."""
    bootstrap._call_with_frames_removed(exec, code, module.__dict__)  # noqa: SLF001


def _do_nothing() -> None:
    """Execute a namespace package, which has no code."""


_PLAIN_LOADERS: Final = frozenset({SourceFileLoader, SourcelessFileLoader, SharedCodeLoader})

_linkers: weakref.WeakSet[Linker] = weakref.WeakSet()
_by_builtins: weakref.WeakValueDictionary[int, Linker] = weakref.WeakValueDictionary()
_borrowed: set[str] = set()
"""Names of the base with an answer in the memory of some linker."""
_disputed: Final[set[str]] = set()
"""Names with a meaning changed by code of some owner."""
_PERSONAL: Final = frozenset({"builtins", "importlib", "__main__", "__mp_main__"})
"""Names for which every owner has a Python module of its own; Python modules below these names are the process's."""


def _copy_of_builtins() -> ModuleType:
    own = ModuleType("builtins", builtins.__doc__)
    own.__dict__.update(builtins.__dict__)
    return own


def _enter(linker: Linker) -> None:
    _linkers.add(linker)
    _by_builtins[id(linker.builtins)] = linker


def _dispute(names: set[str]) -> None:
    """Let shared libraries ask for the meaning of these names again, each time."""
    if not names <= _disputed:
        _disputed.update(names)
        for linker in list(_linkers):
            if linker.is_shared:
                linker.forget()


def linker_of(scope: Scope | None) -> Linker | None:
    """Return the linker of a biz, ``None`` if there is none (any more)."""
    return None if scope is None else scope.find_facet(Linker)


def other_linkers(than: Linker) -> list[Linker]:
    """Return the linkers of all other owners."""
    return [linker for linker in list(_linkers) if linker is not than]


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
    return "" if asked is None else asked.advice(error.name)


def base_changed(name: str) -> None:
    """Forget remembered answers: code of the base has replaced or removed a Python module in the table of the base."""
    if name in _borrowed:
        _borrowed.discard(name)
        for linker in list(_linkers):
            linker.forget()


@making_seen_as(bootstrap._find_and_load)  # noqa: SLF001
def _make_import(  # noqa: C901, PLR0915 - as below
    linker: Linker,
    plain: dict[str, ModuleType],
    flat: dict[str, ModuleType],
    packages: dict[str, ModuleType],
    relative: dict[tuple[str, str, int], ModuleType],
) -> Import:
    """Make the ``__import__`` of one owner's code: a closure, as fast as can be, for every import statement."""
    flat_get, packages_get, load = flat.get, packages.get, linker.load
    call: Callable[..., ModuleType] = bootstrap._call_with_frames_removed  # noqa: SLF001

    def __import__(  # noqa: A001, C901, N807, PLR0911, PLR0912 - one frame, and no call, for finished imports
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the signature of the built-in function
        locals: Mapping[str, Any] | None = None,  # noqa: A002, ARG001
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import a Python module, as code of this biz."""
        if level == 0:
            if fromlist is None:
                try:
                    return plain[name]
                except KeyError:
                    pass
            else:
                module = flat_get(name)
                if module is not None and fromlist:
                    return module
                module = packages_get(name)
                if module is not None and fromlist:
                    known = module.__dict__
                    for item in fromlist:
                        if item not in known:
                            break
                    else:
                        return module
        elif fromlist and globals is not None:
            try:
                module = relative[globals["__package__"], name, level]
            except KeyError:
                pass
            else:
                known = module.__dict__
                for item in fromlist:
                    if item not in known:
                        break
                else:
                    return module
        # From here on this frame stands for importlib's frame of the import, so all further steps are called here.
        try:
            absolute = linker.absolute(name, globals, level)
            module = linker.loaded(absolute)
            if module is ABSENT:
                module = linker.find_and_load(absolute, linker.parent_of(absolute, load))
            if fromlist:
                if hasattr(module, "__path__"):
                    for item in linker.items(module, fromlist):
                        if hasattr(module, item):
                            continue
                        try:
                            child = call(load, f"{module.__name__}.{item}")
                        except ModuleNotFoundError as error:
                            other = linker.error_of_item(module, item, error)
                            if other is error:
                                raise
                            if other is not None:
                                raise other from None
                        else:
                            linker.bind_item(module, item, child)
                linker.remember(absolute, name, globals, level, module)
                return module
            module = linker.top_of(absolute, name, level, module)
            if not is_c_call(fromlist):
                return module
            wanted = load(name)
        except BaseException as error:
            clean(error)
            raise
        lend(name, wanted, fromlist)
        return module

    return __import__

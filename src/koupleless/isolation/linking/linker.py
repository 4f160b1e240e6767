"""Find and load for one owner of modules: its table, its locks, and the ``__import__`` its code runs with.

The semantics are those of ``importlib._bootstrap``; what differs is whose table is looked at, that nothing is ever
registered in the interpreter's own table, and who decides where a module comes from (a `Locator`). Every module that is
loaded here gets the owner's ``__builtins__``, whose ``__import__`` leads back here: ownership follows the code into
threads, callbacks and late imports, whatever the context says.

Threads: one lock per module name and owner, of the kind the interpreter uses for its own modules (so a deadlock among
threads is noticed, across owners too), none shared with the base or with another owner.
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
from koupleless.isolation.linking.codes import SharedCodeLoader
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
    """Decides where the modules of one owner come from."""

    def foreign(self, name: str) -> ModuleType | None:
        """The module of a name that is known to be somebody else's; ``None`` if that is not known (yet)."""

    def locate(self, name: str, parent: ModuleType | None, *, is_asked: bool = False) -> ModuleSpec | ModuleType:
        """A spec of the owner's to be loaded, or the module of somebody else.

        ``is_asked`` says that `hooked` was asked before. Raises ``ModuleNotFoundError``, as Python, if nobody has it.
        """

    def owns(self, top: str) -> bool:
        """Whether a top-level package that is not imported yet would be the owner's."""

    def hooked(self, name: str, parent: ModuleType | None) -> ModuleSpec | None:
        """What import hooks of the owner's code answer, those that come before its search path.

        What is lazy is no module yet, and would become one in the place of one that all share: then it is ``None``.
        """

    def anew(self, name: str, parent: ModuleType | None) -> ModuleSpec | ModuleType:
        """The spec of somebody else's module, for the owner to execute; the module where there can be one only.

        Raises ``ModuleNotFoundError`` if there is none.
        """

    def is_copied(self, name: str) -> bool:
        """Whether a module of the base that the owner has not imported yet is to be an own copy."""

    def is_own_part(self, name: str) -> bool:
        """Whether the owner executes a module of a library that it is lent for itself."""

    def sight(self) -> Callable[[str], bool]:
        """Tells for now whether a module of the base is in the owner's ``sys.modules``, as its own code sees it."""

    def is_settled(self, name: str) -> bool:
        """Whether a name is somebody else's for good, or until `invalidate_caches`."""

    def advice(self, name: str) -> str:
        """What to change so that the owner can import a module that was not found; empty if it can."""

    def invalidate_caches(self) -> None:
        """Forget what was found, so that files that appeared since are seen."""


class Linker:
    """Table, locks and ``__import__`` of one owner.

    Lifetime: made with the owner, emptied by `drop`; its ``__import__``, which leaked code of the owner may still call,
    then raises ``BizGone``. It is a facet of the owner's scope, which is where the process-wide hooks find it.
    """

    def __init__(self, scope: Scope, locator: Locator, *, is_shared: bool = False) -> None:
        """``is_shared`` says that the owner is a library that several bizs use."""
        self.scope = scope
        self.table: dict[str, ModuleType] = {}
        """What the owner has imported that is not the base's. ``None`` as a value blocks the name."""
        self.shown: dict[str, ModuleType | None] = {}
        """Modules of the base that were looked up in ``sys.modules``, ``None`` for one that is out of sight.

        Forgotten with the answers of imports, and when another one is taken.
        """
        self.plain_hooks: list[Any] = []
        """What stands at ``sys.meta_path`` as long as the owner's code adds no import hook."""
        self.removed: set[str] = set()
        """Names of others' modules that the owner's code took out of ``sys.modules``, or put another one over.

        They do not show through any more, and are executed anew when they are imported.
        """
        self.placed: set[str] = set()
        """Names under which the owner's code has put something into ``sys.modules``."""
        self.lenders: list[Linker] = []
        """Owners of shared modules this one uses; their tables show through."""
        self.claims: set[str] = set()
        """Top-level names that are this owner's, loaded or not, as far as that is known beforehand."""
        self.meta_path: list[Any] = []
        self.search_path: list[str] = []
        self.assigned: dict[str, Any] = {}
        """What the owner's code assigned to variables of ``sys``, by name."""
        self.children = Children(_children_asked)
        """What the owner has below packages of others."""
        self.stores = Stored()
        """What the owner's code may change of things that are not its own."""
        self.is_gone = False
        self.is_shared = is_shared
        self._locator: Locator | None = locator
        self._loading: dict[str, int] = {}
        self._met: set[str] = set()
        """Names of others' modules that the owner has imported, and that its import hooks see no more."""
        self._sought: dict[str, int] = {}
        """Names that import hooks are being asked for, and on which thread, which sees no module of that name."""
        self._lending: dict[str, int] = {}
        """Names of others' modules that are being imported through a spec of an import hook, and on which thread."""
        self._guard = threading.Lock()
        self._locks: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        # Answers of finished imports, by the text of the statement: what ``import x``, and ``from x import`` yield.
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
        """Modules that every owner has of its own from the beginning, for when its code has emptied the table."""
        _enter(self)

    # --- look-up without loading ---------------------------------------------------------------------------------

    def find(self, name: str) -> ModuleType | None:
        """What the table, or one that shows through, holds under the name; ``ABSENT`` if nothing does."""
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
        """What shows through under a name, or would if the owner's code had not removed it; ``ABSENT`` if nothing."""
        found = self._lent(name)
        if found is not ABSENT:
            return found
        of_base = None if self._is_covered(name) else find_of_base(name)
        return ABSENT if of_base is None or (is_narrow and not self.sight()(name)) else of_base

    def sight(self) -> Callable[[str], bool]:
        """See `Locator`."""
        return self._locator.sight() if self._locator is not None else bool

    def is_settled(self, name: str) -> bool:
        """Whether a module of the base cannot become one of the owner, unless its code says so."""
        return self._locator is not None and self._locator.is_settled(name)

    def all_lenders(self) -> list[Linker]:
        """Whose modules show through here: the lenders, and theirs."""
        lenders = list(self.lenders)
        for lender in lenders:  # grows
            lenders += [further for further in lender.lenders if further not in lenders and further is not self]
        return lenders

    def names(self) -> list[str]:
        """Every name `find` answers."""
        names = dict.fromkeys(self.table.copy())
        for lender in self.all_lenders():
            names.update(dict.fromkeys(lender.table.copy().keys() - _PERSONAL - self.removed))
        return list(names)

    def is_lent(self, name: str, module: object) -> bool:
        """Whether a module belongs to a lender."""
        return bool(self.lenders) and any(lender.table.get(name) is module for lender in self.all_lenders())

    def is_lent_somehow(self, module: object) -> bool:
        """The same under whatever name."""
        return any(known is module for lender in self.all_lenders() for known in lender.table.copy().values())

    def hides(self, name: object) -> bool:
        """Whether a name of the base is out of sight: it was removed, or its top-level package is the owner's."""
        if not isinstance(name, str):  # any object may be looked up in a dictionary
            return False
        is_sought = self._sought and self._sought.get(name) == threading.get_ident()
        return bool(is_sought) or name in self.removed or self._is_covered(name)

    def _is_covered(self, name: str) -> bool:
        top, dot, _ = name.partition(".")
        if top in self.removed:
            return False  # one module of others was replaced, and not all that is below
        if top in _PERSONAL:
            return name == "__mp_main__"
        package = self.find(top)
        if package is ABSENT:
            return self._locator is not None and self._locator.owns(top)
        # The portions of a namespace package belong to several; what is not the owner's is the base's.
        if not dot or getattr(package, "__file__", None) is not None:
            return True
        return self._locator is not None and self._locator.is_copied(name)

    def is_own_part(self, name: str) -> bool:
        """Whether a module of a shared library is one that the owner executes for itself."""
        return self._locator is not None and self._locator.is_own_part(name)

    def own_tops(self) -> set[str]:
        """Top-level names that are the owner's, as far as that is known by now."""
        return {*self.claims, *(name for name in self.table.copy() if "." not in name)} - _PERSONAL

    def contested(self) -> set[str]:
        """Top-level names that are the owner's, and of which the base has something else."""
        of_base = all_of_base()
        return {name for name in self.own_tops() if name in of_base and self.table.get(name) is not of_base[name]}

    # --- changes by code that writes to sys.modules --------------------------------------------------------------

    def put(self, name: str, module: ModuleType | None, *, is_narrow: bool = False) -> None:
        """Enter a module by hand, as ``sys.modules[name] = module`` in the owner's context.

        The module of somebody else, put where it was, shows through again. ``is_narrow`` here and below says that the
        code which does it sees those of the base's libraries only that are in the owner's sight.
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
        """Remove a name by hand and hand back its module; that of somebody else is out of sight from now on.

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
        """Whether the owner's code, by its changes of ``sys.modules``, says what a name means."""
        return name in self.placed or name in self.removed

    def forget(self) -> None:
        """Forget the answers of finished imports; the next ones look at the tables again."""
        self.shown.clear()
        self._plain.clear()
        self._flat.clear()
        self._packages.clear()
        self._relative.clear()

    def path_in_use(self) -> list[str]:
        """What the owner finds at ``sys.path``."""
        return self.assigned.get("path", self.search_path)  # type: ignore[no-any-return]

    def hooks_in_use(self) -> list[Any]:
        """What the owner finds at ``sys.meta_path``."""
        return self.assigned.get("meta_path", self.meta_path)  # type: ignore[no-any-return]

    def invalidate_caches(self) -> None:
        """Look at the files again for the next import."""
        if self._locator is not None:
            self._locator.invalidate_caches()

    def advice(self, name: str) -> str:
        """See `Locator.advice`."""
        return "" if self._locator is None else self._locator.advice(name)

    def drop(self) -> None:
        """Let go of every module. Idempotent."""
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
        """The module of an absolute name, imported if need be. Raises what an import statement raises.

        ``import_`` is called for its package; by default that is this method.
        """
        module = self.loaded(name)
        if module is ABSENT:
            module = self.find_and_load(name, self.parent_of(name, import_ or self.load))
        return module

    @passed_over
    def load_submodule(self, name: str) -> ModuleType | None:
        """The same; ``None`` if there is no module of that name."""
        try:
            return self.load(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            return None

    @passed_over
    def loaded(self, name: str) -> ModuleType:
        """The module of a name if the owner has imported it, or if it is known to be somebody else's; else `ABSENT`.

        Waits for another thread that is loading it. Raises ``ModuleNotFoundError`` if the name is blocked.
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
            raise BizGone(str(self.scope.biz), name=name)
        if name in self.personal:
            self.table[name] = self.personal[name]
            return self.personal[name]
        if not (self.removed and self._is_anew(name)) and not self._is_hooked(name):
            found = locator.foreign(name)
            if found is not None:
                self._met.add(name)
                return found
        if is_initialising_compiled() and name in REAL and name.partition(".")[0] in self.own_tops():
            return REAL[name]  # entered there by the compiled code, which knows nothing of us
        return ABSENT

    @seen_as(getattr(bootstrap, "_resolve_parents", bootstrap._find_and_load_unlocked))  # noqa: SLF001
    def parent_of(self, name: str, import_: Import) -> ModuleType | None:
        """The package of a module, imported if need be.

        It comes first, and without the child's lock: its code may import the child while another thread that asked for
        the child waits for the parent.
        """
        parent = name.rpartition(".")[0]
        if not parent:
            return None
        if parent in self.table and parent not in self._loading:
            return self.load(parent)
        return cast("ModuleType", bootstrap._call_with_frames_removed(import_, parent))  # noqa: SLF001

    @seen_as(bootstrap._find_and_load_unlocked)  # noqa: SLF001
    def find_and_load(self, name: str, parent: ModuleType | None) -> ModuleType:
        """Look for a module that is not there yet, and load it. Threads wait for each other here."""
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
        """Whether a module of somebody else is to be executed for the owner: it was removed, or its package was."""
        if name in self.removed:
            return True
        package = name.rpartition(".")[0]
        return package in self.removed and package in self.table and self._of_others(name) is ABSENT

    def _is_hooked(self, name: str) -> bool:
        """Whether import hooks of the owner's code are to be asked for a name, whoever has the module.

        Alone an import hook sees each name that is not in ``sys.modules`` yet: not those that the interpreter has
        imported before any code (`lent.AT_START`), not those that the program has imported before. Here the program is
        the owner: what the base has loaded, and the owner has not imported by a statement or a call of its own, is new
        to it, also where a shared module that it has imported uses it.
        """
        if self.hooks_in_use() == self.plain_hooks or name in self._met or name in AT_START:
            return False
        return self._sought.get(name) != threading.get_ident()  # a hook that imports what it is asked for

    @contextlib.contextmanager
    def _seeking(self, name: str) -> Iterator[None]:
        """The body asks import hooks of the owner's code for a module, which alone is not there yet then."""
        self.shown.pop(name, None)
        self._sought[name] = threading.get_ident()
        try:
            yield
        finally:
            self._sought.pop(name, None)
            self._met.add(name)

    @contextlib.contextmanager
    def _loading_of(self, spec: ModuleSpec, *, is_hooked: bool = False) -> Iterator[Import]:
        """Yields `_load_unlocked` in the context that a module is to be executed in, which has no frame of ours."""
        with contextlib.ExitStack() as stack:
            if is_hooked and not isinstance(spec.loader, LazyLoader):
                self._lending[spec.name] = threading.get_ident()
                stack.callback(self._lending.pop, spec.name, None)
            if current() is self.scope:
                yield self._load_unlocked
            elif self.is_shared:  # what its import sets in context variables is there for all who use it
                context = stack.enter_context(library_context(self.scope))
                yield cast("Import", functools.partial(context.run, cast("Any", self._load_unlocked)))
            else:
                stack.enter_context(crossed(self.scope))
                yield self._load_unlocked

    @passed_over
    def lend(self, name: str) -> ModuleType | None:
        """The module of somebody else, if this thread is importing it through a spec of an import hook."""
        locator = self._locator
        if self._lending.get(name) != threading.get_ident() or name in self.removed or locator is None:
            return None
        parent = name.rpartition(".")[0]
        found = locator.foreign(name) or locator.locate(name, self.load(parent) if parent else None, is_asked=True)
        return None if isinstance(found, ModuleSpec) else found

    @passed_over
    def reload(self, name: str) -> bool:
        """Have import hooks of the owner's code do with somebody else's module what they do when it is imported.

        The module itself is everybody's, and not executed again. Tells whether a hook knows it.
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
        """The spec of a module of the owner's, or the module of somebody else."""
        parent_name, _, child = name.rpartition(".")
        if is_asked and not is_anew and self._locator is not None:
            shared = self._locator.foreign(name)
            if shared is not None:
                return shared
        is_own = parent is not None and self.table.get(parent_name) is parent
        if is_own and not hasattr(parent, "__path__"):  # that of somebody else may come with the module
            raise ModuleNotFoundError(f"No module named {name!r}; {parent_name!r} is not a package", name=name)
        if self._locator is None:
            raise BizGone(str(self.scope.biz), name=name)
        found = self._locator.anew(name, parent) if is_anew else self._locator.locate(name, parent, is_asked=is_asked)
        if isinstance(found, ModuleSpec):
            return found
        if is_anew:
            self.removed.discard(name)
            if parent is not None:
                self._bind_child(parent, child, found)
        elif is_own and not hasattr(parent, child):
            setattr(parent, child, found)  # a portion of a namespace package that is somebody else's
        return found

    @seen_as(bootstrap._load_unlocked)  # noqa: SLF001
    def _load_unlocked(self, spec: ModuleSpec, parent: ModuleType | None, child: str) -> ModuleType:
        """Make a module, run its code, and hand back what stands under its name afterwards."""
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
            # Its code may have put something else in its place.
            self.table[spec.name] = module = self.table.pop(spec.name)
        if parent is not None:
            try:
                self._bind_child(parent, child, module)
            except AttributeError:
                message = f"Cannot set an attribute on {parent.__name__!r} for child module {child!r}"
                warnings.warn(message, ImportWarning, stacklevel=2)
        return module

    def _bind_child(self, parent: ModuleType, child: str, module: ModuleType) -> None:
        """Let the owner find a module as an attribute of its package."""
        if self.has(parent):
            setattr(parent, child, module)
        elif getattr(parent, "__dict__", {}).get(child) is module:
            self.children.hide(parent, child)
        else:
            self.children.show(parent, child, module)

    def has(self, module: ModuleType) -> bool:
        """Whether a module that the owner uses is its own, or nobody's."""
        name = getattr(module, "__name__", "")
        return find_of_base(name) is not module and not self.is_lent(name, module)

    def executed(self) -> dict[str, ModuleType]:
        """The modules of the owner that are nobody else's, by name."""
        table: dict[str, ModuleType | None] = {**self.table}
        return {name: module for name, module in table.items() if module is not None and self.has(module)}

    @contextlib.contextmanager
    def _running(self, module: ModuleType, spec: ModuleSpec, parent: ModuleType | None, child: str) -> Iterator[None]:
        """The body runs the code of a new module: others find it by its name, or nothing if that fails."""
        name = spec.name
        tracked: list[str] = getattr(getattr(parent, "__spec__", None), "_uninitialized_submodules", [])
        spec._initializing = True  # type: ignore[attr-defined]  # noqa: SLF001 - what messages about cycles go by
        self._loading[name] = threading.get_ident()
        self.table[name] = module
        # In an import cycle C code looks for a child on its parent, then in the interpreter's table, which never has
        # it; so the child is bound before its code runs. Whatever the package itself calls so comes first until then.
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
            raise BizGone(str(self.scope.biz), name=name)

    def _execution(self, spec: ModuleSpec, module: ModuleType) -> tuple[Any, ...]:
        """The function that runs a module's code, and its arguments; what code there is to see is looked at.

        Called where the module is run, which has one frame less in between then: imports nest.
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
        """Make what runs in the module's dictionary code of this owner; not if it is a module that has an owner.

        A loader may answer with one that was there before, as that of ``six.moves`` does with the standard library's.
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
        """Until another thread has finished loading the module; at once if this thread is doing it."""
        if self._loading.get(name) == threading.get_ident():
            return
        lock = self._lock_of(name)
        try:
            lock.acquire()
        except bootstrap._DeadlockError:  # noqa: SLF001 - a cycle across threads: half a module is better, as in importlib
            return
        lock.release()

    # --- statements ----------------------------------------------------------------------------------------------

    @passed_over
    def absolute(self, name: str, namespace: Mapping[str, Any] | None, level: int) -> str:
        """The name of the module that these arguments of ``__import__`` mean."""
        if not level:
            bootstrap._sanity_check(name, None, 0)  # noqa: SLF001
            return name
        package = bootstrap._calc___package__(namespace or {})  # noqa: SLF001
        bootstrap._sanity_check(name, package, level)  # noqa: SLF001
        return bootstrap._resolve_name(name, package, level)  # type: ignore[no-any-return]  # noqa: SLF001

    def remember(
        self, absolute: str, name: str, namespace: Mapping[str, Any] | None, level: int, module: ModuleType
    ) -> None:
        """Answer from memory from now on what ``from name import`` has imported, if that cannot change by itself."""
        if not self._is_settled(absolute, module):
            return
        package = None if namespace is None else namespace.get("__package__")
        if not level:
            (self._packages if hasattr(module, "__path__") else self._flat)[name] = module
        elif isinstance(package, str):
            self._relative[package, name, level] = module

    @passed_over
    def top_of(self, absolute: str, name: str, level: int, module: ModuleType) -> ModuleType:
        """What ``import name`` yields, which has imported the module of an absolute name."""
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
        """Whether a later import of the same name may be answered from memory; remembers who has to hear of changes."""
        if self.is_gone or name in self._loading:
            return False
        if name in self.table:
            return True
        if is_initialising(module):
            return False
        if self.is_shared and not self._is_undisputed(name):
            return False  # each of its users may have something else there
        if find_of_base(name) is module:
            _borrowed.add(name)
            return True
        return self.is_lent(name, module)

    def _is_undisputed(self, name: str) -> bool:
        top = name.partition(".")[0]
        return (top in self.claims or top in PROCESS_NAMES) and name not in _disputed

    @passed_over
    def items(self, module: ModuleType, fromlist: Iterable[str], *, is_all: bool = False) -> list[str]:
        """What is to be there after ``from module import ...``, of a package."""
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
        """Make sure that what ``import a.b.c as d`` imported is found on its parents, some of which may be new.

        The statement looks for the rest in the interpreter's table, which never has it.
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
        """A submodule was imported that ``from module import`` names: let the statement find it."""
        if not hasattr(module, item):  # its package failed, and is loaded again: C looks into the real table next
            self._bind_child(module, item, child)

    def error_of_item(self, module: ModuleType, item: str, error: ModuleNotFoundError) -> ImportError | None:
        """What ``from module import`` raises when a submodule that it names was not found; ``None`` if nothing yet."""
        name = f"{module.__name__}.{item}"
        if error.name != name or self.table.get(name, ABSENT) is None:
            return error
        if name in REAL and self.hides(name) and not hasattr(module, item):
            # The interpreter would now look into its own table, and find the module of the base.
            where = getattr(module, "__file__", None) or "unknown location"
            message = f"cannot import name {item!r} from {module.__name__!r} ({where})"
            return ImportError(message, name=module.__name__, path=getattr(module, "__file__", None))
        return None

    def __repr__(self) -> str:
        return f"<Linker of {self.scope.biz}, {len(self.table)} modules{', gone' if self.is_gone else ''}>"


@seen_as(SourceFileLoader.exec_module)
def _exec_module(code: CodeType, module: ModuleType) -> None:
    """Run the code of a module in its dictionary."""
    bootstrap._call_with_frames_removed(exec, code, module.__dict__)  # noqa: SLF001


def _do_nothing() -> None:
    """What there is to execute of a namespace package."""


_PLAIN_LOADERS: Final = frozenset({SourceFileLoader, SourcelessFileLoader, SharedCodeLoader})

_linkers: weakref.WeakSet[Linker] = weakref.WeakSet()
_by_builtins: weakref.WeakValueDictionary[int, Linker] = weakref.WeakValueDictionary()
_borrowed: set[str] = set()
"""Names of the base whose answers some linker remembers."""
_disputed: Final[set[str]] = set()
"""Names of which some owner's code has changed the meaning."""
_PERSONAL: Final = frozenset({"builtins", "importlib", "__main__", "__mp_main__"})
"""Names every owner has a module of its own for; modules below them are the process's."""


def _copy_of_builtins() -> ModuleType:
    own = ModuleType("builtins", builtins.__doc__)
    own.__dict__.update(builtins.__dict__)
    return own


def _enter(linker: Linker) -> None:
    _linkers.add(linker)
    _by_builtins[id(linker.builtins)] = linker


def _dispute(names: set[str]) -> None:
    """Let shared libraries ask again what these names mean, each time."""
    if not names <= _disputed:
        _disputed.update(names)
        for linker in list(_linkers):
            if linker.is_shared:
                linker.forget()


def linker_of(scope: Scope | None) -> Linker | None:
    """The linker of a biz, unless there is none (any more)."""
    return None if scope is None else scope.find_facet(Linker)


def other_linkers(than: Linker) -> list[Linker]:
    """Those of all other owners that are there."""
    return [linker for linker in list(_linkers) if linker is not than]


def asking() -> Linker | None:
    """Whom the caller of the caller works for: the biz the context names, else the one whose code it is."""
    scope = current()
    if scope is not None:
        return scope.find_facet(Linker)
    return owner_of(sys._getframe(2).f_builtins)  # noqa: SLF001


def _children_asked(known: Mapping[str, Any]) -> Children | None:
    scope = current()
    linker = owner_of(known) if scope is None else scope.find_facet(Linker)
    return None if linker is None else linker.children


def owner_of(known: object) -> Linker | None:
    """Whose code runs with these builtins; ``None`` if it is the base's."""
    return None if known is builtins.__dict__ else _by_builtins.get(id(known))


def advice_on(error: BaseException, scope: Scope) -> str:
    """What to change so that an import that failed in a biz succeeds; empty where nothing is known.

    The error itself is Python's own, as without a base: code compares, prints and pickles it. Who asked for the module
    may be a shared library, which sees others than the biz: the code nearest to where the error was raised tells.
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
    """Code of the base replaced or removed a module of the interpreter's table."""
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
    """The ``__import__`` of one owner's code: a closure, since this is where every import statement of it goes."""
    flat_get, packages_get, load = flat.get, packages.get, linker.load
    call: Callable[..., ModuleType] = bootstrap._call_with_frames_removed  # noqa: SLF001

    def __import__(  # noqa: A001, C901, N807, PLR0911, PLR0912 - one frame, and no call, for what is imported already
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the signature of the built-in function
        locals: Mapping[str, Any] | None = None,  # noqa: A002, ARG001
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import a module, as code of this biz."""
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
        # From here on this is the frame that importlib has for the import, so what leads on is called here.
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

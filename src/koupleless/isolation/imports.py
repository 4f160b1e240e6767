"""Hooks in the import system, and the ``importlib`` given to code of a biz.

Shared code names Python modules in two ways. An import *statement* of shared code means the Python modules of the base,
for any running biz, as the code is the base's. A *call* (``importlib.import_module``, ``__import__``, C code such as
pickle's) means the Python modules of the biz that the code works for; the context names the biz. The hooks make the
difference. The hooks pass straight on while no biz is running, and are not there at all while there is no biz.
"""

from __future__ import annotations

import builtins
import copy
import functools
import importlib
import importlib.util
import sys
from importlib.machinery import ExtensionFileLoader
from types import FunctionType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from koupleless.context import current
from koupleless.errors import BizGone
from koupleless.frames import making_seen_as, passed_over, standing_for
from koupleless.isolation.interpreter import (
    REAL,
    apart,
    begin_apart,
    bootstrap,
    exposed,
    find_of_base,
    is_c_call,
    is_of_base,
    lend,
    loaded,
    loading,
    of_base,
    put_together,
    restorer,
    settle,
    withheld,
)
from koupleless.isolation.libraries import distributions
from koupleless.isolation.libraries.resident import arrivals
from koupleless.isolation.linking.lazy import HAS_LAZY_IMPORTS, Filters, is_resolved_for_base, resolve_own
from koupleless.isolation.linking.linker import Linker, asking, linker_of, owner_of
from koupleless.isolation.modules import place_view
from koupleless.isolation.reloading import reload_of
from koupleless.isolation.system import place_variables
from koupleless.replacing import Shared, replace
from koupleless.tracebacks import clean

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec

    from koupleless.isolation.linking.statements import Import


def _put_in(undo: contextlib.ExitStack) -> None:
    """Put all hooks in. Each hook keeps the function replaced, and works on when another hook is put on top."""

    def hook(where: Any, name: str, make: Callable[[Any], object]) -> None:
        replace(undo, where, name, make(getattr(where, name)))

    if HAS_LAZY_IMPORTS:
        resolve_own()
    hook(builtins, "__import__", _make_statement_hook)
    hook(bootstrap, "_find_and_load", _make_load_hook)
    hook(bootstrap, "_init_module_attrs", _make_module_hook)
    if HAS_LAZY_IMPORTS:
        hook(bootstrap, "_find_and_load_lazy_submodule", _make_submodule_hook)
        filters = Filters(undo, asking)
        hook(sys, "set_lazy_imports_filter", filters.setter)
        hook(sys, "get_lazy_imports_filter", filters.getter)
    hook(importlib, "reload", _make_reload_hook)
    hook(importlib.util, "find_spec", _make_find_hook)
    place_view(undo)
    place_variables(undo)
    undo.callback(put_together)
    begin_apart()


HOOKS: Final = Shared("hooks of imports", _put_in)
"""The hooks, in for as long as there is a biz."""


@passed_over
def _make_statement_hook(original: Import) -> Import:  # noqa: C901 - as below
    """Make ``builtins.__import__``, for import statements of the base, and for calls by its Python and C code."""

    def __import__(  # noqa: A001, N807, PLR0911 - every statement of the base pays for a call
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the signature of the built-in function
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import a Python module: as the base in a statement, for the running biz in a call."""
        scope = current()
        if scope is None and not withheld and not apart and not exposed:
            return original(name, globals, locals, fromlist, level)
        linker = None if scope is None else scope.find_facet(Linker)
        if linker is None:
            # The table may hold Python modules of another owner for a moment: the Python half of importlib asks our
            # hooks instead.
            asked: Import = bootstrap.__import__ if exposed else original
            if is_c_call(fromlist):
                asked = _told_if_gone(asked)
            module = asked(name, globals, locals, fromlist, level)
            if name in withheld and is_c_call(fromlist):
                cast("list[object]", fromlist).append(restorer(name))
                REAL[name] = of_base(name)
            return module
        if apart and is_c_call(fromlist) and globals is not None and _goes_with_base(globals, name):
            return linker.scope.ground.call(__import__, name, globals, locals, fromlist, level)
        if globals is not None and (fromlist is None or (fromlist and type(fromlist) is tuple)):
            if name == "builtins":
                return linker.load("builtins")
            if _is_of_base(globals) or (HAS_LAZY_IMPORTS and is_resolved_for_base(_owner(globals), fromlist, level)):
                if _is_loaded(name, globals, fromlist, level):
                    return original(name, globals, locals, fromlist, level)
                importing: Import = bootstrap.__import__ if exposed else original
                with arrivals.written_down(), linker.scope.ground.copied() as context:
                    return context.run(importing, name, globals, locals, fromlist, level)
        return linker.import_(name, globals, locals, fromlist, level)

    return __import__


def _is_of_base(namespace: Mapping[str, Any]) -> bool:
    """Whether globals belong to a Python module of the base, as opposed to text that a biz had executed by ``exec``."""
    name = namespace.get("__name__", "")
    module = find_of_base(name)
    if getattr(module, "__dict__", None) is namespace:
        return True
    # A Python module may have put another object in its place. A program run by runpy is no Python module of the base.
    return module is not None and name != "__main__" and namespace.get("__spec__") is not None


def _goes_with_base(namespace: Mapping[str, Any], name: str) -> bool:
    """Whether the caller of compiled code, which imports a library with several copies, goes with the base's copy.

    The caller does so if the distribution of the caller requires the library: objects of the caller are instances of
    classes of the base's copy.
    """
    asking: str = namespace.get("__name__", "")
    # A frame of ours only stands in the middle: compiled code has no frame while it is initialised.
    if name.partition(".")[0] not in apart or asking.partition(".")[0] == _OURS or not _is_of_base(namespace):
        return False
    index = distributions.base_index()
    wanted = index.owners(name)
    return any(not index.relations.closure(owner).isdisjoint(wanted) for owner in index.owners(asking))


_OURS: Final = __name__.partition(".")[0]


def _owner(namespace: Mapping[str, Any]) -> Linker | None:
    return owner_of(namespace.get("__builtins__"))


def _is_loaded(name: str, namespace: Mapping[str, Any], fromlist: Sequence[str] | None, level: int) -> bool:
    """Whether a statement of the base loads nothing, so that the running biz does not matter."""
    if level:
        package = namespace.get("__package__")
        if not package:
            return False
        if level > 1:
            package, *beyond = package.rsplit(".", level - 1)
            if len(beyond) < level - 1:  # above the top-level package: importlib refuses it
                return False
        name = f"{package}.{name}" if name else package
    if name in exposed:
        return False
    module = REAL.get(name)
    if module is None or fromlist is None:
        return module is not None
    known = module.__dict__
    for item in fromlist:  # noqa: SIM110 - a generator would cost more than all the rest
        if item not in known:
            return False
    return True


@passed_over
def _make_load_hook(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``_find_and_load``, for ``import_module``, and for C code that finds a name missing in the real table."""

    def _find_and_load(name: str, import_: object, **how: bool) -> Any:
        linker = linker_of(current())
        is_apart = bool(apart) and name.partition(".")[0] in apart
        if is_apart:
            linker = _asking_for_one_of_several(linker, name)
        if linker is None:
            if name in withheld:
                return of_base(name)
            scope = current() if is_apart else None
            load = original if scope is None else functools.partial(scope.ground.call, original)
            if import_ is bootstrap._gcd_import:  # noqa: SLF001 - a statement means a Python module of the base
                load = _told_if_gone(load)
            _tell_loading(name)
            with arrivals.measured(name) as arrived:
                module: Any = load(name, import_, **how)
                arrived(module)
            if module is None:  # a package has no such submodule
                return None
            for told in loaded:
                told(name, module)
            if is_apart:
                settle(name, module)
            return module
        try:
            module = linker.load(name)
        except BaseException as error:
            clean(error)
            raise
        lend(name, module)
        return module

    return _find_and_load


def _tell_loading(name: str) -> None:
    """Tell that the base is about to load a Python module for a biz, unless a load for the biz is under way."""
    if arrivals.is_outermost and not is_of_base(name):
        for told in loading:
            told()


def _told_if_gone(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``load``, or for a biz that has left a function that raises ``BizGone`` for a missing Python module."""
    scope = current()
    if scope is None or not scope.is_closed:
        return load

    def load_for_gone(name: str, *details: Any, **how: bool) -> Any:
        try:
            return load(name, *details, **how)
        except ModuleNotFoundError:
            raise BizGone(scope.biz, name=name) from None

    return load_for_gone


def _make_submodule_hook(original: Callable[[str, object], ModuleType | None]) -> Callable[..., ModuleType | None]:
    """Make ``_find_and_load_lazy_submodule``, called by a package for a submodule named in some lazy import."""

    def _find_and_load_lazy_submodule(name: str, import_: object) -> ModuleType | None:
        scope = current()
        linker = owner_of(sys._getframe(1).f_builtins) or linker_of(scope)  # noqa: SLF001
        if linker is not None and name in linker.lazy.names:
            return linker.load_submodule(name)
        # Then the package is of the base, for any reader of the attribute.
        return original(name, import_) if scope is None else scope.ground.call(original, name, import_)

    return _find_and_load_lazy_submodule


def _asking_for_one_of_several(running: Linker | None, name: str) -> Linker | None:
    """Return the linker of the copy meant; ``None`` for the base's copy.

    The nearest Python code decides, if it goes with one copy; else the running biz. Compiled code leaves no frame, and
    the Python code that calls compiled code is mostly of the same library.
    """
    frame = sys._getframe(2)  # noqa: SLF001
    owner = owner_of(frame.f_builtins)
    if owner is not None:
        return owner
    is_of_the_bases_copy = frame.f_globals.get("__name__", "").partition(".")[0] in apart
    return None if is_of_the_bases_copy or _goes_with_base(frame.f_globals, name) else running


def _make_module_hook(original: Callable[..., ModuleType]) -> Callable[..., ModuleType]:
    """Make ``_init_module_attrs``: a Python module made from a spec while a biz runs is code of the biz."""

    def _init_module_attrs(spec: ModuleSpec, module: ModuleType, *, override: bool = False) -> ModuleType:
        linker = linker_of(current())
        if linker is not None and not linker.table.has(module):
            return module  # a loader of the biz gave a Python module of another owner, which keeps its origin
        if linker is not None and not isinstance(spec.loader, ExtensionFileLoader):
            linker.adopt(module)
        return original(spec, module, override=override)

    return _init_module_attrs


def _make_reload_hook(original: Callable[[ModuleType], ModuleType]) -> Callable[[ModuleType], ModuleType]:
    """Make ``importlib.reload`` of the base; a call for a biz goes to the ``reload`` of the biz."""

    @standing_for(original)
    def reload(module: ModuleType) -> ModuleType:
        linker = linker_of(current())
        return original(module) if linker is None else linker.table.personal["importlib"].reload(module)

    return reload


def _make_find_hook(original: Callable[..., ModuleSpec | None]) -> Callable[..., ModuleSpec | None]:
    """Make ``importlib.util.find_spec``: a biz gets a copy of a spec of the base, as code may change a spec."""

    @standing_for(original)
    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        spec = original(name, package)
        linker = linker_of(current())
        if linker is None or spec is None or spec is not getattr(find_of_base(spec.name), "__spec__", None):
            return spec
        return copy.copy(spec)

    return find_spec


def importlib_for(linker: Linker) -> ModuleType:
    """Make the ``importlib`` of one biz.

    Functions of the new Python module work for the biz with or without context; all else comes from the real one. The
    two functions with a copy of the names of ``importlib`` around them are made when the biz asks: most never do.
    """
    facade = ModuleType("importlib", importlib.__doc__)
    made_when_asked: dict[str, Callable[[], object]] = {
        "import_module": lambda: _with_import(_make_gcd_import(linker)),
        "reload": lambda: reload_of(linker),
    }

    def __getattr__(name: str) -> Any:  # noqa: N807
        make = made_when_asked.get(name)
        return getattr(importlib, name) if make is None else vars(facade).setdefault(name, make())

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*vars(importlib), *vars(facade)})

    def invalidate_caches() -> None:
        """Look at the files again for the next import."""
        linker.table.locator.invalidate_caches()

    own: dict[str, object] = {
        "invalidate_caches": invalidate_caches,
        "__import__": linker.import_,
        "__getattr__": __getattr__,
        "__dir__": __dir__,
    }
    about = ("__path__", "__spec__", "__file__", "__cached__", "__package__", "__loader__", "__all__")
    vars(facade).update({name: getattr(importlib, name) for name in about if hasattr(importlib, name)} | own)
    return facade


@making_seen_as(bootstrap._gcd_import)  # noqa: SLF001
def _make_gcd_import(linker: Linker) -> Callable[..., ModuleType]:
    def _gcd_import(name: str, package: str | None = None, level: int = 0) -> ModuleType:
        try:
            bootstrap._sanity_check(name, package, level)  # noqa: SLF001
            absolute = bootstrap._resolve_name(name, package, level) if level else name  # noqa: SLF001
            return linker.load(absolute, _gcd_import)
        except BaseException as error:
            clean(error)
            raise

    return _gcd_import


def _with_import(gcd_import: Callable[..., ModuleType]) -> FunctionType:
    """Make ``importlib.import_module`` from the very code of Python's, with ``gcd_import`` to do the import."""
    where = {**vars(importlib), "_bootstrap": SimpleNamespace(_gcd_import=gcd_import)}
    made = FunctionType(_IMPORT_MODULE.__code__, where, None, _IMPORT_MODULE.__defaults__)
    return cast("FunctionType", functools.update_wrapper(made, _IMPORT_MODULE, updated=()))


_IMPORT_MODULE: Final[Any] = importlib.import_module

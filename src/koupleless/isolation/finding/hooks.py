"""Import hooks of one owner: the items of ``sys.meta_path`` as the owner's code has put them.

In the place of Python's ``PathFinder`` the owner's code sees a class that stands in for it (`path_finder`), and in an
import this item means the owner's files. Hooks before this item are asked first, for Python modules of any owner; hooks
behind, for Python modules that nobody has found yet.
"""

from __future__ import annotations

from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from importlib.util import LazyLoader
from typing import TYPE_CHECKING, Any

from koupleless.context import entered
from koupleless.frames import passed_over, seen_as
from koupleless.isolation.interpreter import bootstrap
from koupleless.isolation.policy import is_one

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from koupleless.context import Scope
    from koupleless.isolation.finding.files import Files
    from koupleless.isolation.system import SysVariables


class Hooks:
    """The import hooks of one owner, and the files among them. Lifetime and threads: as the linker's."""

    def __init__(self, own: SysVariables, files: Files, on_path: type, scope: Scope) -> None:
        """``on_path`` is the item that stands for the owner's files."""
        self._own = own
        self._files = files
        self._on_path = on_path
        self._scope = scope
        own.begin_with((BuiltinImporter, FrozenImporter, on_path))

    def drop(self) -> None:
        """Let go of the finders in the item: a class is freed by a collection alone. Idempotent."""
        for name, value in list(vars(self._on_path).items()):
            if isinstance(value, staticmethod):
                delattr(self._on_path, name)

    def are_there(self) -> bool:
        """Whether the owner's code has changed ``sys.meta_path``."""
        return self._own.has_hooks()

    @seen_as(bootstrap._find_spec)  # noqa: SLF001 - in its place
    def ask(self, name: str, parent: ModuleType | None) -> ModuleSpec | None:
        """See `locator.ImportHooks`."""
        if parent is not None and not hasattr(parent, "__path__"):
            return None  # a compiled file may enter Python modules below itself; Python asks no finder for these
        path = None if parent is None else parent.__path__
        spec: ModuleSpec | None
        for hook in list(self._own.hooks_in_use()):
            if hook is self._on_path:
                break
            if hook is BuiltinImporter or hook is FrozenImporter:
                if hook.find_spec(name) is not None:
                    break
            elif hasattr(hook, "find_spec"):
                with entered(self._scope):
                    spec = hook.find_spec(name, path, None)
                if spec is not None:
                    return None if isinstance(spec.loader, LazyLoader) and is_one(name) else spec
        return None

    @passed_over
    def find(self, name: str, path: Sequence[str] | None, *, is_asked: bool) -> ModuleSpec | None:
        """Search the owner's files, or ``path`` if given, and ask the hooks: those behind alone if ``is_asked``."""
        spec: ModuleSpec | None
        hooks = list(self._own.hooks_in_use())
        for hook in hooks[hooks.index(self._on_path) :] if is_asked and self._on_path in hooks else hooks:
            if hook is self._on_path:
                spec = self._files.find(name, self._files.own_path() if path is None else path)
            elif hasattr(hook, "find_spec") and hook is not BuiltinImporter and hook is not FrozenImporter:
                with entered(self._scope):
                    spec = hook.find_spec(name, path, None)
            else:
                continue
            if spec is not None:
                return spec
        return None


class _PathFinderKind(type):
    """The class of the stand-in for ``PathFinder`` among the finders of an owner, which equals ``PathFinder``."""

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is PathFinder

    def __hash__(cls) -> int:
        return hash(PathFinder)

    def __delattr__(cls, name: str) -> None:
        """Delete an attribute, and hide the inherited one: an attribute deleted from Python's own finder is gone."""
        is_there = hasattr(cls, name)
        if name in vars(cls) and not isinstance(vars(cls)[name], _Deleted):
            super().__delattr__(name)
        elif not is_there or name not in vars(PathFinder):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        if name in vars(PathFinder):
            setattr(cls, name, _Deleted(name))


class _Deleted:
    """Hides the inherited attribute under a name that was deleted."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, kind: type) -> Any:
        raise AttributeError(f"type object {kind.__name__!r} has no attribute {self._name!r}")


def path_finder(**functions: Callable[..., object]) -> type:
    """Make the stand-in for ``PathFinder``: a class, as import hooks expect, with these functions in it."""
    variables: dict[str, Any] = {name: staticmethod(function) for name, function in functions.items()}
    about = {name: getattr(PathFinder, name) for name in ("__module__", "__qualname__", "__doc__")}
    return _PathFinderKind("PathFinder", (PathFinder,), variables | about)

"""The baseline: shared Python modules as last seen, with variables, attributes of classes, and lengths of containers.

All values are compared by identity, so that no code of anybody runs, and a container by its length. Looking through the
tens of thousands of names of a base with large libraries takes a few milliseconds.
"""

from __future__ import annotations

import itertools
import operator
import sys
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.changes.dispatch import table_of
from koupleless.changes.forwarding import ABSENT
from koupleless.readers import home_of_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OURS: Final = "koupleless"
_LEFT_OUT: Final = frozenset({"__main__", "__mp_main__", "builtins", "sys", "gc", "_frozen_importlib", "importlib"})
"""Python modules with variables which are the process's own business, or which each biz has already."""
_CONTAINERS: Final = frozenset(map(id, (dict, list, set)))
_IMMUTABLE: Final = 1 << 8
"""The flag of classes with attributes which cannot be set."""


class Difference(NamedTuple):
    """An attribute with another value than before."""

    module: str
    holder: Any
    """The Python module or class."""
    name: str
    before: object
    """The former value, ``ABSENT`` for none."""
    after: object

    @property
    def path(self) -> str:
        """``package.module.Class.name``."""
        return dotted(self.module, self.holder, self.name)


class Growth(NamedTuple):
    """A container with another length than before."""

    module: str
    holder: Any
    name: str
    container: Any
    before: int
    after: int

    @property
    def path(self) -> str:
        """``package.module.Class.name``."""
        return dotted(self.module, self.holder, self.name)

    @property
    def holders(self) -> frozenset[str]:
        """Names by which code reaches the holder: of the Python module and, for a class's attribute, of the class."""
        return frozenset(part.rpartition(".")[2] for part in (self.module, self.path.rpartition(".")[0]))


def dotted(module: str, holder: Any, name: str) -> str:
    """The name of an attribute as code would write it."""
    is_class = issubclass(type(holder), type)
    return f"{module}.{type.__dict__['__qualname__'].__get__(holder)}.{name}" if is_class else f"{module}.{name}"


class _Table:
    """The variables of one Python module or class at an earlier moment."""

    __slots__ = ("containers", "holder", "keys", "labels", "lengths", "module", "values", "variables")

    labels: tuple[str, ...]
    containers: tuple[Any, ...]
    lengths: tuple[int, ...]

    def __init__(self, module: str, holder: Any, variables: Any) -> None:
        self.module = module
        self.holder = holder
        self.variables = variables
        self.take()

    def take(self) -> None:
        """Remember the variables at this moment."""
        now = self.variables.copy()
        self.keys = tuple(now)
        self.values = values = tuple(now.values())
        self.labels = self.containers = self.lengths = ()
        if not _CONTAINERS.isdisjoint(map(id, map(type, values))):
            members = [(key, value) for key, value in now.items() if id(type(value)) in _CONTAINERS]
            found = [(key, value) for key, value in members if not is_dunder(key)]
            self.labels = tuple(key for key, _ in found)
            self.containers = tuple(value for _, value in found)
            self.lengths = tuple(map(len, self.containers))

    def note(self, name: str, value: object) -> None:
        """Remember one new value, whatever else has changed."""
        known = dict(zip(self.keys, self.values, strict=True))
        known[name] = value
        self.keys, self.values = tuple(known), tuple(known.values())

    def is_same(self) -> bool:
        """Whether all variables have their remembered values."""
        try:
            return len(self.variables) == len(self.values) and all(
                map(operator.is_, self.variables.values(), self.values)
            )
        except RuntimeError:  # changed during the look
            return False

    def differences(self) -> Iterator[Difference]:
        """Yield the variables without their remembered values."""
        before = dict(zip(self.keys, self.values, strict=True))
        now = self.variables.copy()
        for name in [*now, *(key for key in before if key not in now)]:
            old, new = before.get(name, ABSENT), now.get(name, ABSENT)
            if old is not new and type(name) is str:
                yield Difference(self.module, self.holder, name, old, new)

    def growths(self) -> Iterator[Growth]:
        """Yield the containers with a changed length, each change once."""
        now = tuple(map(len, self.containers))
        if now == self.lengths:
            return
        for label, container, before, after in zip(self.labels, self.containers, self.lengths, now, strict=True):
            if before != after:
                yield Growth(self.module, self.holder, label, container, before, after)
        self.lengths = now


class Baseline:
    """All shared Python modules as last looked at.

    A baseline keeps the former values alive, and is therefore dropped as soon as no biz is left which may change
    anything. Used under the lock of `changes`, as the base.
    """

    def __init__(self) -> None:
        self._modules: dict[str, Any] = {}
        self._tables: dict[int, _Table] = {}

    def extend(self, modules: dict[str, Any]) -> None:
        """Take in new Python modules, and forget those that have gone."""
        for name, module in modules.copy().items():
            if self._modules.get(name) is not module and not _is_initialising(module):
                self._take_in(name, module)
        if len(self._modules) > len(modules):
            for name in [name for name in self._modules if name not in modules]:
                self._forget(name)

    def add(self, name: str, module: Any) -> None:
        """Take in a Python module right after its load, also as a variable of its package.

        A Python module taken in earlier may have been changed since: its remembered values stay.
        """
        if self._modules.get(name) is module or _is_initialising(module):
            return
        self._take_in(name, module)
        parent, _, child = name.rpartition(".")
        package = self._tables.get(id(self._modules.get(parent)))
        if package is not None and package.variables.get(child) is module:
            package.note(child, module)

    def _take_in(self, name: str, module: Any) -> None:
        """Take one Python module in, as at this moment."""
        if not issubclass(type(module), types.ModuleType) or _is_left_out(name):
            return
        if name in self._modules:
            self._forget(name)
        self._modules[name] = module
        variables = table_of(module)
        own_name = variables.get("__name__")
        if own_name != name and sys.modules.get(own_name) is module:  # taken in under that name
            return
        self._tables[id(module)] = _Table(name, module, variables)
        self._take_classes(name, list(variables.values()))

    def _forget(self, name: str) -> None:
        del self._modules[name]
        for key in [key for key, table in self._tables.items() if table.module == name]:
            del self._tables[key]

    def differences(self) -> list[Difference]:
        """Return variables and attributes with another value than the remembered one."""
        changed = [table for table in self._tables.values() if not table.is_same()]
        return list(itertools.chain.from_iterable(table.differences() for table in changed))

    def growths(self) -> list[Growth]:
        """Return containers with another length than the remembered one, each once."""
        tables = [table for table in self._tables.values() if table.containers]
        return list(itertools.chain.from_iterable(table.growths() for table in tables))

    def renew(self, holders: Iterable[Any]) -> None:
        """Remember these Python modules and classes as at this moment."""
        for holder in holders:
            table = self._tables.get(id(holder))
            if table is not None:
                table.take()
                self._take_classes(table.module, table.values)

    def _take_classes(self, module: str, values: Iterable[Any]) -> None:
        """Take in classes of the package of a Python module, and classes in these.

        Some packages give a class a public Python module as its home.
        """
        top = module.partition(".")[0]
        todo = _classes_among(values)
        while todo:
            kind = todo.pop()
            if id(kind) not in self._tables:
                home = home_of_class(kind)
                if home.partition(".")[0] == top and not _FLAGS(kind) & _IMMUTABLE:
                    self._tables[id(kind)] = table = _Table(home, kind, _CLASS_TABLE(kind))
                    todo += _classes_among(table.values)

    def __len__(self) -> int:
        return sum(len(table.keys) for table in self._tables.values())


def is_dunder(name: object) -> bool:
    """Whether Python itself gives a name its meaning."""
    return type(name) is str and name.startswith("__") and name.endswith("__")


_CLASS_TABLE: Final = type.__dict__["__dict__"].__get__
_FLAGS: Final = type.__dict__["__flags__"].__get__


def _classes_among(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if issubclass(type(value), type)]


def _is_left_out(name: str) -> bool:
    return name.partition(".")[0] == _OURS or name in _LEFT_OUT or name.startswith(("importlib.", "_frozen_importlib"))


def _is_initialising(module: Any) -> bool:
    if not issubclass(type(module), types.ModuleType):
        return False
    spec = table_of(module).get("__spec__")
    return spec is not None and bool(getattr(spec, "_initializing", False))


def is_of_standard_library(module: str) -> bool:
    """Whether a Python module belongs to Python itself."""
    return module.partition(".")[0] in sys.stdlib_module_names

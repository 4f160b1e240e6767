"""PyYAML: each biz has constructors, representers and resolvers of its own for the loaders and dumpers of all.

The tables hang on classes, and a class gets a table of its own, copied from the inherited one, at the first addition. A
biz that adds to a class gets the table, and the class of the base goes on inheriting. Methods that a biz puts on these
classes are not covered.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import OwnDict, is_hidden, own_containers
from koupleless.context import current
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Own
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

distribution: Final = "pyyaml"

_TABLES: Final = {
    "add_constructor": "yaml_constructors",
    "add_multi_constructor": "yaml_multi_constructors",
    "add_representer": "yaml_representers",
    "add_multi_representer": "yaml_multi_representers",
    "add_implicit_resolver": "yaml_implicit_resolvers",
    "add_path_resolver": "yaml_path_resolvers",
}


class _Inherited:
    """Stands in a class for a table: a biz with additions has a table, and others see the inherited one."""

    def __init__(self, kind: type, name: str) -> None:
        self._kind = weakref.ref(kind)
        self._name = name
        self._own = Own(self._copy)
        self.of_base: OwnDict | None = None

    def begin(self) -> None:
        """Make the table of the running biz."""
        if current() is not None:
            self._own.get()
        elif self.of_base is None:
            self.of_base = OwnDict(self._copy(), is_hidden)

    def _copy(self) -> dict[Any, Any]:
        table = self.__get__(None, self._kind())
        return {key: list(value) if isinstance(value, list) else value for key, value in table.items()}

    def __get__(self, instance: Any, kind: type | None = None) -> dict[Any, Any]:
        table = self._own.peek()
        if table is None:
            table = self.of_base
        return getattr(super(self._kind(), kind), self._name) if table is None else table


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``yaml``, which imports the rest of itself."""
    placed: weakref.WeakSet[type] = weakref.WeakSet()
    undo.callback(_take_out, placed)
    for root in (module.constructor.BaseConstructor, module.representer.BaseRepresenter, module.resolver.BaseResolver):
        for kind in _descendants(root):
            own_containers(undo, kind, *_TABLES.values())
        for adder, name in _TABLES.items():
            if adder in vars(root):
                replace(undo, root, adder, classmethod(_adder(undo, vars(root)[adder].__func__, name, placed)))


def _descendants(root: Any) -> Iterator[Any]:
    yield root
    for kind in root.__subclasses__():
        yield from _descendants(kind)


def _adder(
    undo: contextlib.ExitStack, original: Callable[..., Any], name: str, placed: weakref.WeakSet[type]
) -> Callable[..., Any]:
    @standing_for(original)
    def add(cls: type, *args: Any, **kwargs: Any) -> None:
        if current() is not None and name not in vars(cls):
            setattr(cls, name, _Inherited(cls, name))
            placed.add(cls)
        there = vars(cls).get(name)
        if type(there) is _Inherited:
            there.begin()
        original(cls, *args, **kwargs)
        if current() is None:
            own_containers(undo, cls, name)  # where the original has made one

    return add


def _take_out(placed: weakref.WeakSet[type]) -> None:
    kind: Any
    for kind in list(placed):
        for name, there in list(vars(kind).items()):
            if type(there) is _Inherited:
                if there.of_base is None:
                    delattr(kind, name)
                else:
                    setattr(kind, name, there.of_base.restore({}))


follow: Final = {"yaml": _follow}

"""Let attributes of classes of the standard library have another value for each biz.

Reading is easy: an attribute may answer by context. An assignment to a class reaches everybody, and only the metaclass
could prevent this. So a biz that asks the module for such a class gets a stand-in: derived from the class, taken for
the class by ``isinstance``, and handing on everything else: calls, subclasses, attributes.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from koupleless.contextual import assign_by_context
from koupleless.replacing import replace
from koupleless.view.own import own_of

if TYPE_CHECKING:
    import contextlib
    import types


def own_attributes(undo: contextlib.ExitStack, module: types.ModuleType, name: str, *attributes: str) -> None:
    """Let the running biz assign to ``attributes`` of the class ``module.name`` for itself.

    The process, and a biz without such an assignment, see the attributes as before. Leaves the way back with ``undo``.
    """
    real = vars(module)[name]
    for attribute in attributes:
        replace(undo, real, attribute, _Attribute(module.__name__, real, attribute))
    stand_in = _StandIn.make(real, module.__name__, frozenset(attributes))
    assign_by_context(undo, module, name, functools.partial(own_of, module.__name__), default=stand_in)


class _Attribute:
    """Descriptor in the class: gives the running biz's value, else the process's; an instance may have its own."""

    def __init__(self, module: str, real: type, name: str) -> None:
        self._module = module
        self._real = real
        self._name = name
        self._of_process: Any = vars(real).get(name, _INHERITED)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        own = own_of(self._module)
        value = (own or {}).get(_key(self._real, self._name), self._of_process)
        if value is _INHERITED:
            return getattr(super(self._real, owner if instance is None else instance), self._name)
        bind = getattr(type(value), "__get__", None)
        return value if bind is None else bind(value, instance, owner)


_INHERITED: Final = object()


def _key(real: type, name: str) -> str:
    return f"{real.__qualname__}.{name}"


class _StandIn(type):
    """The class of stand-ins."""

    _real: Any
    _module: str
    _attributes: frozenset[str]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        """Make a subclass of stand-ins: a subclass of the real classes in their places."""
        return type(name, tuple(_real(base) for base in bases), namespace, **options)

    @classmethod
    def make(cls, real: Any, module: str, attributes: frozenset[str]) -> Any:
        """Make the stand-in of one class."""
        about = {"__module__": real.__module__, "__qualname__": real.__qualname__, "__doc__": real.__doc__}
        made = super().__new__(cls, real.__name__, (real,), {**about, "__slots__": ()})
        for name, value in (("_real", real), ("_module", module), ("_attributes", attributes)):
            type.__setattr__(made, name, value)
        return made

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._real(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls._real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls._real)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls._real

    def __hash__(cls) -> int:
        return hash(cls._real)

    def __setattr__(cls, name: str, value: Any) -> None:
        own = own_of(cls._module) if name in cls._attributes else None
        if own is None:
            setattr(cls._real, name, value)
        else:
            own[_key(cls._real, name)] = value

    def __delattr__(cls, name: str) -> None:
        own = own_of(cls._module) if name in cls._attributes else None
        if own is None:
            delattr(cls._real, name)
        else:
            own.pop(_key(cls._real, name), None)


def _real(kind: Any) -> Any:
    return kind._real if type(kind) is _StandIn else kind  # noqa: SLF001 - of a class of this file

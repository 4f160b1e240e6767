"""Stand-ins by context: a list, mapping or variable of a Python module, with a value of its own for each biz.

A stand-in takes the place of a plain object of the process, and answers exactly as the plain one while no biz is
running, because the base and its libraries go on using it. Telling the biz is up to the maker of the stand-in: each
stand-in is given a function that returns the object of the present context, its *target*.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import types
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeAlias, TypeVar

from koupleless.frames import passed_over

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class ContextMapping(MutableMapping[K, V]):
    """A mapping that passes on to another mapping by context; ``target`` returns the present one."""

    __slots__ = ("_target",)

    def __init__(self, target: Callable[[], MutableMapping[K, V]]) -> None:
        self._target = target

    def __getitem__(self, key: K) -> V:
        return self._target()[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._target()[key] = value

    def __delitem__(self, key: K) -> None:
        del self._target()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._target())

    def __len__(self) -> int:
        return len(self._target())

    def __repr__(self) -> str:
        return repr(self._target())

    def clear(self) -> None:
        """Empty the present mapping."""
        self._target().clear()

    def copy(self) -> dict[K, V]:
        """Copy the present mapping into a dictionary."""
        return dict(self._target())


class ContextList(list[T]):
    """A list that passes on to another list by context.

    ``target`` returns the present one. The list's own storage is read by C code only, which cannot ask for the target;
    the storage keeps the items of ``mirror``.
    """

    __slots__ = ("_target",)

    def __init__(self, target: Callable[[], list[T]], *, mirror: list[T] | None = None) -> None:
        super().__init__(mirror or ())
        self._target = target

    def __iadd__(self, other: Any) -> ContextList[T]:  # type: ignore[misc, override]
        self._target().extend(other)
        return self

    def __imul__(self, times: SupportsIndex) -> ContextList[T]:
        target = self._target()
        target *= times
        return self

    def __radd__(self, other: list[T]) -> list[T]:
        return other + self._target()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> tuple[Any, ...]:
        return list, (list(self._target()),)


class _Method:
    """A method of a list by context; called, it is the target's own method, with no frame of ours in between."""

    __slots__ = ("_bind", "_call")

    def __init__(self, name: str) -> None:
        plain = getattr(list, name)
        self._bind: Any = plain.__get__

        def method(self: ContextList[Any], /, *args: Any, **kwargs: Any) -> Any:
            return plain(self._target(), *args, **kwargs)

        method.__name__ = method.__qualname__ = name
        method.__doc__ = plain.__doc__
        self._call = method

    def __get__(self, instance: ContextList[Any] | None, kind: type) -> Any:
        return self._call if instance is None else self._bind(instance._target())  # noqa: SLF001


def _with_others(name: str) -> Callable[..., Any]:
    """Make a method which takes lists and hands their targets on: C code reads a list's storage, past all methods."""
    plain = getattr(list, name)

    def method(self: ContextList[Any], /, *args: Any, **kwargs: Any) -> Any:
        others = (other._target() if isinstance(other, ContextList) else other for other in args)  # noqa: SLF001
        return plain(self._target(), *others, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = plain.__doc__
    return method


_METHODS = """
__contains__ __delitem__ __getitem__ __iter__ __len__ __mul__ __repr__ __reversed__ __rmul__ append clear copy count
index insert pop remove reverse sort
"""
_METHODS_WITH_OTHERS = "__add__ __eq__ __ge__ __gt__ __le__ __lt__ __ne__ __setitem__ extend"
for _name in _METHODS.split():
    setattr(ContextList, _name, _Method(_name))
for _name in _METHODS_WITH_OTHERS.split():
    setattr(ContextList, _name, passed_over(_with_others(_name)))


class ContextCallable:
    """A callable by context; called, it is the present return value of ``target``, with no frame of ours in between."""

    __slots__ = ("_target",)

    def __init__(self, target: Callable[[], Callable[..., Any]]) -> None:
        self._target = target

    @property
    def __call__(self) -> Callable[..., Any]:  # noqa: D102 - the class says it
        return self._target()

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._target())


# --- variables of modules --------------------------------------------------------------------------------------------

Here: TypeAlias = Callable[[], dict[str, Any] | None]
"""Returns the assignments of the running biz so far, by name; ``None`` for the process."""

_one_at_a_time = threading.Lock()


def _variables(module: types.ModuleType) -> dict[str, Any]:
    """All variables of a Python module, as the process has them."""
    return _DICT(module)  # type: ignore[no-any-return]


_DICT: Final[Any] = vars(types.ModuleType)["__dict__"].__get__


class _ModuleKind(type):
    """The metaclass of classes for Python modules with variables by context; each passes for the ordinary class.

    ``type(sys)`` is a common way to name ``types.ModuleType``, in the import system first of all: Python modules are
    made with this name, tested as instances, and classes derived. The class also equals ``types.ModuleType``, so that a
    table by class (of a pickler, of ``functools.singledispatch``) has one entry for all Python modules. The two classes
    are not the same object.
    """

    assigned: dict[str, list[_Variable]]
    """The variables by context, by name. Of several under one name the last is the property, above the others."""
    is_open: bool
    """Whether any other variable may become one by context."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        """Make a class derived from such a class: an ordinary class of Python modules."""
        plain = (types.ModuleType if type(base) is mcs else base for base in bases)
        return type(name, tuple(plain), namespace)

    @classmethod
    def make(cls) -> Any:
        """Make a class for one Python module, to have the variables by context as properties."""
        namespace = {"__dict__": property(_shown), "__module__": types.ModuleType.__module__}
        made = super().__new__(cls, "module", (types.ModuleType,), namespace)
        made.assigned = {}
        made.is_open = False
        return made

    def __call__(cls, *args: Any, **kwargs: Any) -> types.ModuleType:
        return types.ModuleType(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, types.ModuleType)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, types.ModuleType)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is types.ModuleType or type(other) is _ModuleKind

    def __hash__(cls) -> int:
        return hash(types.ModuleType)


def _shown(module: Any) -> dict[str, Any]:
    """The ``__dict__`` of a Python module; for a biz with assignments a copy which has them, as ``mock`` expects."""
    variables = _variables(module)
    own = {
        name: assigned[name]
        for name, layers in type(module).assigned.items()
        for layer in layers
        if (assigned := layer.here()) is not None and name in assigned
    }
    return {**variables, **own} if own else variables


def assign_by_context(
    undo: contextlib.ExitStack,
    module: types.ModuleType,
    name: str,
    here: Here,
    *,
    default: object = None,
    computed: Callable[[], object | None] | None = None,
) -> None:
    """Let each biz assign to ``module.name`` for itself, and leave the way back with ``undo``.

    The process, and a biz without an assignment, see the Python module's own value. Such a biz rather sees ``default``,
    if given, or the result of ``computed`` at each reading, unless ``None``. The assignment of a biz ends when the biz
    assigns this value again, as code does to put back a value found before. Functions of the Python module itself read
    their globals, with the values of the process.

    Raises ``TypeError`` if other code has given the Python module a class.
    """
    _put_in(undo, module, _Variable(name, here, default) if computed is None else _Computed(name, here, computed))


def assigned_of(module: types.ModuleType) -> frozenset[str]:
    """The variables of a Python module to which each biz may assign for itself."""
    kind: Any = type(module)
    return frozenset(kind.assigned) if type(kind) is _ModuleKind else frozenset()


def call_by_context(undo: contextlib.ExitStack, module: types.ModuleType, name: str, here: Here) -> None:
    """Let each biz assign for itself to a hook, which functions of the Python module and the interpreter call.

    The dictionary of the Python module gets a function to call the hook of the running biz.
    """
    hook = _Hook(name, here, _variables(module)[name])
    _put_in(undo, module, hook)
    undo.callback(hook.take_out, module)
    _variables(module)[name] = hook.standing


def assign_any_by_context(undo: contextlib.ExitStack, module: types.ModuleType, here: Here, *outside: str) -> None:
    """Let each biz assign to any variable of a Python module for itself, and leave the way back with ``undo``.

    A variable becomes one by context when a biz assigns to it for the first time. Readers in packages named ``outside``
    get the value of the process, whichever biz runs.

    Raises ``TypeError`` as `assign_by_context`.
    """
    kind = _give_kind(module)
    later = contextlib.ExitStack()

    def prepare(name: str) -> None:
        if here() is not None and name not in kind.assigned and not (name[:2] == name[-2:] == "__"):
            with _one_at_a_time:
                if kind.is_open and name not in kind.assigned:
                    _put_in_locked(later, module, _ForInsiders(name, here, frozenset(outside)))

    def assign(module: types.ModuleType, name: str, value: Any) -> None:
        prepare(name)
        _ASSIGN(module, name, value)

    def delete(module: types.ModuleType, name: str) -> None:
        prepare(name)
        _DELETE(module, name)

    def end() -> None:
        with _one_at_a_time:
            kind.is_open = False
        later.close()
        with _one_at_a_time:
            del kind.__setattr__, kind.__delattr__
            _take_kind_locked(module, kind)

    undo.callback(end)
    kind.is_open = True
    kind.__setattr__, kind.__delattr__ = assign, delete


_ASSIGN: Final[Any] = types.ModuleType.__setattr__
_DELETE: Final[Any] = types.ModuleType.__delattr__


def _give_kind(module: types.ModuleType) -> Any:
    with _one_at_a_time:
        kind: Any = type(module)
        if kind is types.ModuleType:
            kind = _ModuleKind.make()
            module.__class__ = kind
            if _IS_READ_PAST_CLASSES:
                table = _variables(module)
                table[_ODD] = None
                del table[_ODD]
        elif type(kind) is not _ModuleKind:
            raise TypeError(f"module {module.__name__!r} is an instance of {kind} already")
        return kind


def _take_kind_locked(module: types.ModuleType, kind: Any) -> None:
    if not kind.assigned and not kind.is_open and type(module) is kind:
        module.__class__ = types.ModuleType


def _put_in(undo: contextlib.ExitStack, module: types.ModuleType, variable: _Variable) -> None:
    _give_kind(module)
    with _one_at_a_time:
        _put_in_locked(undo, module, variable)


def _put_in_locked(undo: contextlib.ExitStack, module: types.ModuleType, variable: _Variable) -> None:
    kind: Any = type(module)
    layers = kind.assigned.setdefault(variable.name, [])
    layers.append(variable)
    _show(kind, variable.name)

    def restore() -> None:
        with _one_at_a_time:
            layers.remove(variable)
            _show(kind, variable.name)
            _take_kind_locked(module, kind)

    undo.callback(restore)


def _show(kind: Any, name: str) -> None:
    """Make the last variable of a name the property, and let the variable find the others; or take the name out."""
    layers = kind.assigned[name]
    if not layers:
        delattr(kind, name)
        del kind.assigned[name]
        return
    *below, top = layers
    top.below = tuple(layer.here for layer in reversed(below))
    setattr(kind, name, property(top.get, top.assign, top.delete))


class _Odd(str):
    """A name that is no plain text."""

    __slots__ = ()


_IS_READ_PAST_CLASSES: Final = sys.version_info >= (3, 14)
"""Whether frequent reads of a variable of a Python module go by the dictionary alone, whatever the module's class says.

Not so where the dictionary has, or once had, a key that is no plain text.
"""
_ODD: Final = _Odd("koupleless")


class _Variable:
    """One variable by context, as three functions of the Python module."""

    def __init__(self, name: str, here: Here, default: object) -> None:
        self.name = name
        self.here = here
        self.below: tuple[Here, ...] = ()
        """Further assignments under this name, of other mechanisms: looked at after the own ones."""
        self._default = default

    def get(self, module: types.ModuleType) -> Any:
        own = self.here()
        if own is not None and self.name in own:
            return own[self.name]
        for here in self.below:  # called from this very function: some look at the frame above
            assigned = here()
            if assigned is not None and self.name in assigned:
                return assigned[self.name]
        if own is not None and self._default is not None:
            return self._default
        try:
            return _variables(module)[self.name]
        except KeyError:
            raise self._missing(module) from None

    def assign(self, module: types.ModuleType, value: Any) -> None:
        own = self.here()
        if own is None:
            _variables(module)[self.name] = value
        elif value is (_variables(module).get(self.name) if self._default is None else self._default):
            own.pop(self.name, None)
        else:
            own[self.name] = value

    def delete(self, module: types.ModuleType) -> None:
        own = self.here()
        if own is not None:
            own.pop(self.name, None)
        elif _variables(module).pop(self.name, module) is module:
            raise self._missing(module)

    def _missing(self, module: types.ModuleType) -> AttributeError:
        return AttributeError(f"module {module.__name__!r} has no attribute {self.name!r}")


class _ForInsiders(_Variable):
    """A variable by context which readers in some packages get with the value of the process."""

    def __init__(self, name: str, here: Here, outside: frozenset[str]) -> None:
        super().__init__(name, here, None)
        self._outside = outside

    def get(self, module: types.ModuleType) -> Any:
        own = self.here()
        if own is not None and self.name in own:
            reader = str(sys._getframe(1).f_globals.get("__name__", ""))  # noqa: SLF001 - past the property, which is C
            if reader.partition(".")[0] not in self._outside:
                return own[self.name]
        try:
            return _variables(module)[self.name]
        except KeyError:
            raise self._missing(module) from None


class _Computed(_Variable):
    """A variable by context with a value computed at each reading."""

    def __init__(self, name: str, here: Here, compute: Callable[[], object | None]) -> None:
        super().__init__(name, here, None)
        self._compute = compute

    def get(self, module: types.ModuleType) -> Any:
        own = self.here()
        if own is not None and self.name not in own and (value := self._compute()) is not None:
            return value
        return super().get(module)

    def assign(self, module: types.ModuleType, value: Any) -> None:
        own = self.here()
        if own is not None and self.name in own and value == self._compute():
            del own[self.name]
        else:
            super().assign(module, value)


class _Hook(_Variable):
    """A variable by context which is called from its place; the function of the process is kept here."""

    def __init__(self, name: str, here: Here, of_process: Any) -> None:
        super().__init__(name, here, None)
        self._found = self._of_process = of_process

        def standing(*args: Any, **kwargs: Any) -> Any:
            try:
                hook = self._meant()
            except TypeError:  # the interpreter is ending, and has taken functions away
                hook = self._of_process
            return hook(*args, **kwargs)

        standing.__name__ = standing.__qualname__ = name
        self.standing = standing

    def get(self, module: types.ModuleType) -> Any:
        hook = self._meant()
        if hook is _DELETED:
            raise self._missing(module)
        return hook

    def _meant(self) -> Any:
        own = self.here()
        return self._of_process if own is None else own.get(self.name, self._of_process)

    def assign(self, module: types.ModuleType, value: Any) -> None:  # noqa: ARG002 - the setter of a property
        own = self.here()
        if value is self.standing:  # from the dictionary, as ``mock`` takes it, to be put back
            value = self._found if own is None else self._of_process
        if own is None:
            self._of_process = value
        elif value is self._of_process:
            own.pop(self.name, None)
        else:
            own[self.name] = value

    def delete(self, module: types.ModuleType) -> None:
        own = self.here()
        if own is not None:
            own.pop(self.name, None)
        elif self._of_process is _DELETED:
            raise self._missing(module)
        else:
            self._of_process = _DELETED  # called in vain, and told so, as for a missing attribute

    def take_out(self, module: types.ModuleType) -> None:
        """Put the function of the process back into its place."""
        variables = _variables(module)
        if variables.get(self.name) is not self.standing:
            return
        if self._of_process is _DELETED:
            del variables[self.name]
        else:
            variables[self.name] = self._of_process


_DELETED: Final = object()

"""Dictionaries, lists and sets, copied for a biz at the first change by the biz."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from koupleless.adapters.origin import is_of_base_alone
from koupleless.adapters.own import holders_of, named
from koupleless.context import as_base, current
from koupleless.ownership.kinds import Own
from koupleless.replacing import MISSING, present, replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable


Hides: TypeAlias = "Callable[[Any, Any], bool]"
"""Whether an entry of the base, a key and a value, or twice an item, is to be the base's alone."""


def is_hidden(key: Any, value: Any) -> bool:
    """Whether the key or the value is code of the base alone."""
    return is_of_base_alone(key) or is_of_base_alone(value)


class OwnDict(dict[Any, Any]):
    """A dictionary, copied for a biz at the first change by the biz. The storage is the base's.

    A biz starts with the entries of the base, except entries for which ``hides(key, value)`` is true: by default, code
    of the base alone. Later entries of the base, such as those of a library with parts that are imported when needed,
    reach every biz without a change of the same key. Dictionaries, lists and sets among the values are treated
    likewise, at any depth. C code that reads past the methods sees the entries of the base.
    """

    __slots__ = ("_hides", "_hiding", "_own")

    def __init__(self, of_base: dict[Any, Any], hides: Hides) -> None:
        super().__init__((key, _deep(value)) for key, value in of_base.items())
        self._hides = hides
        self._own: Own[dict[Any, Any]] = Own(self._of_all)
        self._hiding: object = None

    def restore(self, original: dict[Any, Any]) -> dict[Any, Any]:
        """Bring ``original`` to the present state of the base, and return ``original``."""
        before = dict(original)
        original.clear()
        original.update((key, _plain(value, before.get(key))) for key, value in dict.items(self))
        return original

    def _of_base(self) -> dict[Any, Any]:
        return dict(dict.items(self))

    def _of_all(self) -> dict[Any, Any]:
        with as_base():  # telling the owner of an entry may take reading this very container
            return {key: value for key, value in self._of_base().items() if not self._hides(key, value)}

    def _tell(self, before: dict[Any, Any]) -> None:
        """Bring a change of the base to the copies."""
        self._hiding = None
        everybody = self._own.of_everybody()
        if not everybody:
            return
        after = self._of_all()
        for own in everybody:
            for key, value in after.items():
                if value is not before.get(key, MISSING) and own.get(key, MISSING) is before.get(key, MISSING):
                    own[key] = value
            for key in before.keys() - self._of_base().keys():
                if own.get(key, MISSING) is before[key]:
                    own.pop(key, None)

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return dict, (dict(self.items()),)

    def __copy__(self) -> dict[Any, Any]:
        return dict(self.items())


class OwnList(list[Any]):
    """A list, copied for a biz at the first change by the biz, otherwise as `OwnDict`."""

    __slots__ = ("_hides", "_hiding", "_own")

    def __init__(self, of_base: list[Any], hides: Hides) -> None:
        super().__init__(of_base)
        self._hides = hides
        self._own: Own[list[Any]] = Own(self._of_all)
        self._hiding: object = None

    def restore(self, original: list[Any]) -> list[Any]:
        """Bring ``original`` to the present state of the base, and return ``original``."""
        original[:] = self._of_base()
        return original

    def _of_base(self) -> list[Any]:
        return list(list.__iter__(self))

    def _of_all(self) -> list[Any]:
        with as_base():  # telling the owner of an entry may take reading this very container
            return [item for item in self._of_base() if not self._hides(item, item)]

    def _tell(self, before: list[Any]) -> None:
        """Bring additions of the base to the copies."""
        self._hiding = None
        everybody = self._own.of_everybody()
        if not everybody:
            return
        known = {id(item) for item in before}
        more = [item for item in self._of_all() if id(item) not in known]
        for own in everybody:
            own.extend(more)

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return list, (list(self),)

    def __copy__(self) -> list[Any]:
        return list(self)


class OwnSet(set[Any]):
    """A set, copied for a biz at the first change by the biz, otherwise as `OwnDict`.

    ``set(container)`` reads past the methods.
    """

    __slots__ = ("_hides", "_hiding", "_own")

    def __init__(self, of_base: set[Any], hides: Hides) -> None:
        super().__init__(of_base)
        self._hides = hides
        self._own: Own[set[Any]] = Own(self._of_all)
        self._hiding: object = None

    def restore(self, original: set[Any]) -> set[Any]:
        """Bring ``original`` to the present state of the base, and return ``original``."""
        original.clear()
        original.update(self._of_base())
        return original

    def _of_base(self) -> set[Any]:
        return set(set.__iter__(self))

    def _of_all(self) -> set[Any]:
        with as_base():  # telling the owner of an entry may take reading this very container
            return {item for item in self._of_base() if not self._hides(item, item)}

    def _tell(self, before: set[Any]) -> None:
        """Bring a change of the base to the copies."""
        self._hiding = None
        everybody = self._own.of_everybody()
        if not everybody:
            return
        after = self._of_all()
        for own in everybody:
            own.update(after - before)
            own.difference_update(before - self._of_base())

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return set, (list(self),)

    def __copy__(self) -> set[Any]:
        return set(iter(self))


_KINDS: Final[dict[type, Any]] = {dict: OwnDict, list: OwnList, set: OwnSet}


def _deep(value: object) -> object:
    kind = _KINDS.get(type(value))
    return value if kind is None else kind(value, is_hidden)


def _plain(value: Any, original: Any) -> object:
    if type(value) is OwnDict:
        return value.restore(original if type(original) is dict else {})
    if type(value) is OwnList:
        return value.restore(original if type(original) is list else [])
    if type(value) is OwnSet:
        return value.restore(original if type(original) is set else set())
    return value


def hides_some(container: Any) -> bool:
    """Whether anything in one of these containers is the base's alone.

    Asked when a biz reads, and not when the base writes: telling the owner of code takes an index of everything
    installed. The answer is remembered until the base changes the container.
    """
    known = container._hiding  # noqa: SLF001 - it is of the three classes of this file
    if type(known) is bool:
        return known
    container._hiding = asking = object()  # noqa: SLF001
    kind: Any = type(container).__base__
    found: bool = len(container._of_all()) < kind.__len__(container)  # noqa: SLF001
    if container._hiding is asking:  # noqa: SLF001 - else the base has changed it meanwhile
        container._hiding = found  # noqa: SLF001
    return found


def _reader(plain: Any) -> Callable[..., Any]:
    def method(self: Any, /, *args: Any) -> Any:
        if current() is None:
            return plain(self, *args)
        own = self._own.get() if hides_some(self) else self._own.peek()
        return plain(self if own is None else own, *args)

    return named(method, plain)


def _writer(plain: Any) -> Callable[..., Any]:
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        own = self._own.get()
        if own is not None:
            result = plain(own, *args, **kwargs)
            return self if result is own else result
        before = self._of_base()
        try:
            return plain(self, *args, **kwargs)
        finally:
            self._tell(before)

    return named(method, plain)


_METHODS: Final = (
    (
        OwnDict,
        """
        __contains__ __eq__ __getitem__ __iter__ __len__ __ne__ __or__ __repr__ __reversed__ copy get items keys values
        """,
        "__delitem__ __ior__ __setitem__ clear pop popitem setdefault update",
    ),
    (
        OwnList,
        """
        __add__ __contains__ __eq__ __ge__ __getitem__ __gt__ __iter__ __le__ __len__ __lt__ __mul__ __ne__ __repr__
        __reversed__ __rmul__ copy count index
        """,
        "__delitem__ __iadd__ __imul__ __setitem__ append clear extend insert pop remove reverse sort",
    ),
    (
        OwnSet,
        """
        __and__ __contains__ __eq__ __ge__ __gt__ __iter__ __le__ __len__ __lt__ __ne__ __or__ __rand__ __repr__ __ror__
        __rsub__ __rxor__ __sub__ __xor__ copy difference intersection isdisjoint issubset issuperset
        symmetric_difference union
        """,
        """
        __iand__ __ior__ __isub__ __ixor__ add clear difference_update discard intersection_update pop remove
        symmetric_difference_update update
        """,
    ),
)
for _kind, _readers, _writers in _METHODS:
    for _name in _readers.split():
        setattr(_kind, _name, _reader(getattr(_kind.__base__, _name)))
    for _name in _writers.split():
        setattr(_kind, _name, _writer(getattr(_kind.__base__, _name)))


def own_containers(
    undo: contextlib.ExitStack, holder: Any, *names: str, package: str = "", hides: Hides = is_hidden
) -> None:
    """Give each biz its own dictionaries, lists and sets of a Python module, a class or an object.

    The containers of a Python module are also replaced under other names in Python modules of the ``package``, by
    default the package of the holder.
    """
    found = {name: present(holder, name) for name in names}
    originals = {name: original for name, original in found.items() if type(original) in _KINDS}
    places = [(holder, name, original) for name, original in originals.items()]
    if isinstance(holder, types.ModuleType):
        others = holders_of(originals.values(), package or holder.__name__.partition(".")[0])
        # The holder, a Python module of a biz, may be out of sight.
        places += [place for place in others if place[0] is not holder or place[1] not in originals]
    made = {id(original): _KINDS[type(original)](original, hides) for original in originals.values()}
    for place, label, original in places:
        own = made[id(original)]
        replace(undo, place, label, own, back=functools.partial(own.restore, original))

"""Give a biz that has seeded ``random`` the numbers of its own generator.

A biz with a seed for the process's generator would make numbers of everybody else foreseeable, and draw other numbers
than alone as soon as somebody else draws some. Nothing is changed before the first biz seeds.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.frames import standing_for
from koupleless.replacing import replace, specialise
from koupleless.view.own import own_of

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

_NAME: Final = "random"
_KEY: Final = "generator"
_BY_CONTEXT: Final = ("getrandbits", "getstate", "random", "seed", "setstate")
"""Functions behind all functions of the module."""


def put_in(undo: contextlib.ExitStack, random: Any) -> None:
    """Replace the functions that set the next numbers."""
    views = _Functions(undo, random)
    for name in ("seed", "setstate"):
        replace(undo, random, name, views.deciding(vars(random)[name]))


class _Functions:
    """The functions by context; made for one installation."""

    def __init__(self, undo: contextlib.ExitStack, random: Any) -> None:
        self._undo = undo
        self._module = random
        self._generator = random._inst  # noqa: SLF001 - it has no public name
        self._one_at_a_time = threading.Lock()

    def _place(self) -> None:
        """Let the generator behind the module's functions answer by context."""
        kind, generator = self._module.Random, self._generator
        with self._one_at_a_time:
            if type(generator) is not kind:
                return
            specialise(self._undo, generator, type("Random", (kind,), _namespace(kind)))
            for name, function in list(vars(self._module).items()):
                if getattr(function, "__self__", None) is generator:
                    replace(self._undo, self._module, name, getattr(generator, name))

    def deciding(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @standing_for(original)
        def decide(*args: Any, **kwargs: Any) -> Any:
            own = own_of(_NAME)
            if own is None:
                return original(*args, **kwargs)
            self._place()
            if _KEY not in own:
                own[_KEY] = self._module.Random()
            return getattr(own[_KEY], original.__name__)(*args, **kwargs)

        return decide


def _namespace(kind: Any) -> dict[str, Any]:
    """Return the namespace by context for the class of the process's generator."""

    def by_context(name: str) -> Callable[..., Any]:
        inherited = getattr(kind, name)

        @standing_for(inherited)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            own = None if current() is None else own_of(_NAME)
            mine = own and own.get(_KEY)
            return getattr(mine, name)(*args, **kwargs) if mine else inherited(self, *args, **kwargs)

        return method

    def get(self: Any) -> Any:
        own = own_of(_NAME)
        mine = own and own.get(_KEY)
        return mine.gauss_next if mine else self.__dict__[_SPARE]

    def put(self: Any, value: Any) -> None:
        own = own_of(_NAME)
        mine = own and own.get(_KEY)
        if mine:
            mine.gauss_next = value
        else:
            self.__dict__[_SPARE] = value

    return {"__slots__": (), _SPARE: property(get, put), **{name: by_context(name) for name in _BY_CONTEXT}}


_SPARE: Final = "gauss_next"
"""The second of two numbers made at a time by ``gauss``."""

"""Give each biz its own types of ``mimetypes``, over the process's.

All functions of the module ask one object with tables that answer by context; so do the dictionaries shown by the
module.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current
from koupleless.contextual import ContextMapping, assign_by_context
from koupleless.replacing import replace, specialise
from koupleless.view.own import Overlay, own_of

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

_NAME: Final = "mimetypes"
_TABLES: Final[dict[str, Callable[[Any], Any]]] = {
    "types_map": lambda both: tuple(Overlay(each) for each in both),
    "types_map_inv": lambda both: tuple(Overlay(each, copied=list) for each in both),
    "encodings_map": Overlay,
    "suffix_map": Overlay,
}
"""Attributes of ``MimeTypes``, with the function that makes a biz's own over the process's."""
_SHOWN: Final[dict[str, Callable[[Any], Any]]] = {
    "types_map": lambda db: db.types_map[True],
    "common_types": lambda db: db.types_map[False],
    "encodings_map": lambda db: db.encodings_map,
    "suffix_map": lambda db: db.suffix_map,
}
"""Dictionaries shown by the module."""


def put_in(undo: contextlib.ExitStack, mimetypes: Any) -> None:
    """Let the module answer by context."""
    known = _Known(undo, mimetypes)
    known.adopt()
    replace(undo, mimetypes, "init", known.init)
    for name, pick in _SHOWN.items():
        shown = ContextMapping[Any, Any](functools.partial(known.table, pick))
        assign_by_context(undo, mimetypes, name, functools.partial(own_of, _NAME), default=shown)


class _Known:
    """The module's object, which is made at the first use; made for one installation."""

    def __init__(self, undo: contextlib.ExitStack, mimetypes: Any) -> None:
        self._undo = undo
        self._module = mimetypes
        self._original: Callable[[Any], None] = mimetypes.init
        tables = {name: _by_context(name) for name in _TABLES}
        self._view = type("MimeTypes", (mimetypes.MimeTypes,), {"__slots__": (), **tables})

    def adopt(self) -> None:
        """Let the object, if there is one, answer by context."""
        db = self._module._db  # noqa: SLF001 - it has no public name
        if type(db) is self._view.__base__:
            specialise(self._undo, db, self._view)

    def _start(self) -> None:
        with as_base():
            self._original(None)
            self.adopt()

    def init(self, files: Any = None) -> None:
        """Read the tables anew: the running biz's, else the process's."""
        own, module = own_of(_NAME), self._module
        if own is None:
            self._original(files)
            self.adopt()
            return
        if module._db is None:  # noqa: SLF001 - as above
            self._start()
        elif files is None:
            fresh = module.MimeTypes()
            own.update((_key(name), vars(fresh)[name]) for name in _TABLES)
            files = module.knownfiles
        for file in filter(os.path.isfile, files or ()):
            module._db.read(file)  # noqa: SLF001 - as above

    def table(self, pick: Callable[[Any], Any]) -> Any:
        """Return one of the tables shown by the module: the running biz's, else the process's."""
        if self._module._db is None:  # noqa: SLF001 - as above
            self._start()
        return pick(self._module._db)  # noqa: SLF001 - as above


def _key(name: str) -> str:
    return f"MimeTypes.{name}"


def _by_context(name: str) -> property:
    def get(self: Any) -> Any:
        own = None if current() is None else own_of(_NAME)
        if own is None:
            return self.__dict__[name]
        if _key(name) not in own:
            own.setdefault(_key(name), _TABLES[name](self.__dict__[name]))
        return own[_key(name)]

    def put(self: Any, value: Any) -> None:
        own = own_of(_NAME)
        if own is None:
            self.__dict__[name] = value
        else:
            own[_key(name)] = value

    return property(get, put)

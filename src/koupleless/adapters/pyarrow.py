"""pyarrow: each biz has extension types of its own, so that two may know different types by one name.

Compiled code has one table of names. In the place of a type of a biz stands a type that makes the type of the running
biz, of the base, or for others the plain type of the storage. The pools of threads are the process's: a biz is shown
the number of threads that it has set, and the number of the base counts.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.own import replace_function
from koupleless.isolation.interpreter import find_of_base
from koupleless.ownership.kinds import Own

if TYPE_CHECKING:
    import contextlib

distribution: Final = "pyarrow"

_COUNTS: Final = (("set_cpu_count", "cpu_count"), ("set_io_thread_count", "io_thread_count"))


class _Types:
    """The extension types of all, by name."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._known: list[Any] = library._python_extension_types_registry  # noqa: SLF001 - it has no public name
        self._register = library.register_extension_type
        self._unregister = library.unregister_extension_type
        self._own: Own[dict[str, Any]] = Own(dict)
        self._of_base: dict[str, Any] = {}
        """The types behind the name of a dispatcher."""
        self._standing: dict[str, Any] = {}
        self._lock = threading.Lock()

    def register(self, ext_type: Any) -> None:
        own = None if _is_of_library(type(ext_type)) else self._own.get()
        name: Any = getattr(ext_type, "extension_name", None)
        if not isinstance(ext_type, self._library.BaseExtensionType) or (own is None and name not in self._standing):
            self._register(ext_type)
            return
        mine = self._of_base if own is None else own
        if name in mine:
            raise self._library.ArrowKeyError(f"A type extension with name {name} already defined")
        with self._lock:
            if name not in self._standing:
                self._stand_locked(name, ext_type.storage_type)
        mine[name] = ext_type

    def unregister(self, type_name: str) -> None:
        own = self._own.get()
        if own is None and type_name not in self._standing:
            self._unregister(type_name)
        elif (self._of_base if own is None else own).pop(type_name, None) is None:
            raise self._library.ArrowKeyError(f"No type extension with name {type_name} found")

    def restore(self) -> None:
        for name in self._standing:
            self._unregister(name)
            self._known[:] = [kind for kind in self._known if kind is not self._standing[name]]
            if name in self._of_base:
                self._register(self._of_base[name])
        self._standing.clear()

    def _stand_locked(self, name: str, storage: Any) -> None:
        """Put a dispatcher into the place of a name, which nobody has, or the base."""
        try:
            self._unregister(name)
        except self._library.ArrowKeyError:
            pass
        else:
            of_base = [kind for kind in self._known if kind.extension_name == name]
            self._known[:] = [kind for kind in self._known if kind.extension_name != name]
            self._of_base.update((name, kind) for kind in of_base)
        kind = self._library.ExtensionType
        members = {
            "__init__": lambda dispatcher: kind.__init__(dispatcher, storage, name),
            "__arrow_ext_serialize__": lambda _: b"",
            "__arrow_ext_deserialize__": classmethod(functools.partial(self._make, name)),
        }
        self._standing[name] = dispatcher = type("ByContext", (kind,), members)()
        self._register(dispatcher)

    def _make(self, name: str, _: type, storage: Any, serialized: bytes) -> Any:
        meant = (self._own.peek() or {}).get(name) or self._of_base.get(name)
        return storage if meant is None else type(meant).__arrow_ext_deserialize__(storage, serialized)


def _is_of_library(kind: type) -> bool:
    """Whether a type belongs to a shared Python module: whichever biz imported it first, the type is there for all."""
    module = find_of_base(kind.__module__)
    return getattr(module, kind.__name__, None) is kind


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``pyarrow.lib``, once the package is there, which has the same functions."""
    library = module.lib
    types = _Types(library)
    undo.callback(types.restore)

    @functools.wraps(library.register_extension_type)
    def register_extension_type(ext_type: Any) -> None:
        types.register(ext_type)

    @functools.wraps(library.unregister_extension_type)
    def unregister_extension_type(type_name: str) -> None:
        types.unregister(type_name)

    replace_function(undo, library, "register_extension_type", register_extension_type)
    replace_function(undo, library, "unregister_extension_type", unregister_extension_type)
    for setter, getter in _COUNTS:
        _own_count(undo, library, setter, getter)


def _own_count(undo: contextlib.ExitStack, library: Any, setter: str, getter: str) -> None:
    own: Own[dict[str, int]] = Own(dict)
    set_of_process, get_of_process = vars(library)[setter], vars(library)[getter]

    @functools.wraps(set_of_process)
    def set_count(count: int) -> None:
        mine = own.get()
        if mine is None or count < 1:
            set_of_process(count)  # which refuses a wrong name
        else:
            mine["count"] = int(count)

    @functools.wraps(get_of_process)
    def get_count() -> int:
        return (own.peek() or {}).get("count") or get_of_process()

    replace_function(undo, library, setter, set_count)
    replace_function(undo, library, getter, get_count)


follow: Final = {"pyarrow": _follow}

"""Take Python modules of the base out of the interpreter's table, for good or to see whether anybody misses one."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from koupleless.isolation.interpreter import bootstrap, find_of_base, set_of_base, store, take_of_base, unstore
from koupleless.isolation.linking.answers import base_changed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from types import ModuleType


@contextlib.contextmanager
def unimportable(names: Iterable[str]) -> Iterator[None]:
    """Make every import of the top-level packages of these Python modules wait for the end of the body."""
    with contextlib.ExitStack() as locks:
        for top in sorted({name.partition(".")[0] for name in names}):
            locks.enter_context(bootstrap._ModuleLockManager(top))  # noqa: SLF001 - as every import of it does
        yield


@contextlib.contextmanager
def taken_out(names: Collection[str]) -> Iterator[dict[str, ModuleType]]:
    """Take Python modules out of the table while the body looks at them, and put the dictionary's rest back.

    A Python module removed from the dictionary by the body has left, and with it the remembered files of its
    directories: the next import loads a new one. Call inside `unimportable` for the same names.
    """
    # Before the modules go, since the path of a namespace package is looked up at the parent.
    directories = {name: list(getattr(find_of_base(name), "__path__", ())) for name in names}
    modules: dict[str, ModuleType] = {}
    try:
        for name in names:
            if find_of_base(name) is not None:
                modules[name] = take_of_base(name)
                unstore(name)
        yield modules
    finally:
        for name, module in modules.items():
            set_of_base(name, module)
            store(name, module)
    for name in names:
        if name not in modules:
            base_changed(name)
            for directory in directories[name]:
                sys.path_importer_cache.pop(directory, None)

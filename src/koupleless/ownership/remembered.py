"""Caches of the standard library that remember who entered what: the entries of a biz leave with it.

Shared code enters there on a biz's behalf, too: whoever generates code, its lines in ``linecache``. Nothing in such an
entry tells whose it is, and the name of a module or class in its key may be another biz's as well.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.ledger import Ledger, owner

if TYPE_CHECKING:
    from typing import Self

    from koupleless.ownership.ledger import Entered, Patches

_CACHES: Final = (
    ("linecache", "cache"),
    ("inspect", "modulesbyfile"),
    ("inspect", "_filesbymodname"),
    ("gettext", "_translations"),
    ("zipimport", "_zip_directory_cache"),
)
"""Dictionaries of modules that are found again, or made again, by whoever misses an entry."""


def install(patches: Patches) -> None:
    """Put one that remembers in the place of each, once its module is there."""
    patches.when_opened(_lives.add)
    for module, name in _CACHES:
        patches.when_imported(module, functools.partial(_follow, name))


def _follow(name: str, patches: Patches, module: Any) -> None:
    original = vars(module).get(name)
    if type(original) is not dict:
        return
    cache = Cache(original)
    patches.replace(module, name, lambda _: cache)
    if vars(module)[name] is cache:
        patches.when_restored(functools.partial(_bring, cache, original))


def _bring(cache: Cache, original: dict[Any, Any]) -> None:
    """Bring the dictionary that stood there to what was entered since: others may hold it."""
    original.clear()
    original.update(cache)


_lives: Final[weakref.WeakSet[Ledger]] = weakref.WeakSet()


class Cache(dict[Any, Any]):
    """A dictionary that writes what a biz enters into the biz's ledger, and is as any other in all else.

    Lifetime: from the first container of the process to the last. Threads: as a dictionary.
    """

    __slots__ = ()

    __hash__ = object.__hash__  # type: ignore[assignment] # the ledgers know it by identity

    def __setitem__(self, key: Any, value: Any) -> None:
        dict.__setitem__(self, key, value)
        ledger = owner()
        if ledger is not None:
            ledger.entered.setdefault(self, {})[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As a dictionary's. What several ask for stays until the last of them leaves; for good if the base does."""
        value = dict.setdefault(self, key, default)
        ledger = owner()
        if ledger is None:
            for life in list(_lives):
                life.entered.get(self, {}).pop(key, None)
        elif value is default or any(entered is value for entered in _entered_by(self, key)):
            ledger.entered.setdefault(self, {})[key] = value
        return value

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As a dictionary's."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return dict, (dict(self),)


def _entered_by(cache: Cache, key: Any) -> list[Any]:
    """What the bizs that are there have entered for a key."""
    return [entries[key] for life in list(_lives) if key in (entries := life.entered.get(cache, {}))]


def forget(entered: Entered) -> None:
    """Take out what one biz has entered, where it still stands and nobody else asked for it; forget it. Idempotent.

    Another one's that it replaced is there again.
    """
    while entered:
        cache, entries = entered.popitem()
        for key, value in entries.items():
            if cache.get(key, cache) is not value:
                continue
            others = _entered_by(cache, key)
            if not others:
                cache.pop(key, None)
            elif all(other is not value for other in others):
                dict.__setitem__(cache, key, others[-1])

"""Caches of the standard library that remember who entered what: the entries of a biz leave with it.

Shared code enters there on a biz's behalf, too: whoever generates code, its lines in ``linecache``. Nothing in such an
entry tells whose it is, and the name of a module or class in its key may be another biz's as well.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.ledger import Ledger, owner
from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    from typing import Self

    from koupleless.ownership.caches import Survey
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
    patches.when_opened(_opened)
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


_lives: Final[list[weakref.ref[Ledger]]] = []


def _opened(ledger: Ledger) -> None:
    _lives.append(weakref.ref(ledger, _lives.remove))


class Cache(dict[Any, Any]):
    """A dictionary that writes what a biz enters into the biz's ledger, and is as any other in all else.

    Lifetime: from the first container of the process to the last. Threads: as a dictionary.
    """

    __slots__ = ("replaced",)

    __hash__ = object.__hash__  # type: ignore[assignment] # the ledgers know it by identity

    def __init__(self, of_base: dict[Any, Any]) -> None:
        super().__init__(of_base)
        self.replaced: dict[Any, Any] = {}
        """What the base had entered where a biz has entered something else."""

    def entered(self, key: Any) -> list[Any]:
        """What the bizs that are there have entered for a key, each once."""
        return [entries[key] for entries in self._of_bizs() if key in entries]

    def _of_bizs(self) -> list[dict[Any, Any]]:
        lives = [life for reference in tuple(_lives) if (life := reference()) is not None]
        return [entries for life in lives if (entries := life.entered.get(self)) is not None]

    def _disown(self, key: Any) -> None:
        """What stands there is no biz's any more."""
        self.replaced.pop(key, None)
        for entries in self._of_bizs() if _lives else ():
            entries.pop(key, None)

    def __setitem__(self, key: Any, value: Any) -> None:
        ledger = owner()
        if ledger is None:
            self._disown(key)
        else:
            there = dict.get(self, key, value)
            if there is not value and not any(entered is there for entered in self.entered(key)):
                self.replaced[key] = there
            ledger.entered.setdefault(self, {})[key] = value
        dict.__setitem__(self, key, value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As a dictionary's. What several ask for stays until the last of them leaves; for good if the base does."""
        is_new = key not in self
        value = dict.setdefault(self, key, default)
        ledger = owner()
        if ledger is None:
            self._disown(key)
        elif is_new or any(entered is value for entered in self.entered(key)):
            ledger.entered.setdefault(self, {})[key] = value
        return value

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As a dictionary's."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        self.update(other)
        return self

    def __delitem__(self, key: Any) -> None:
        dict.__delitem__(self, key)
        self._disown(key)

    def pop(self, key: Any, *default: Any) -> Any:
        """As a dictionary's."""
        self._disown(key)
        return dict.pop(self, key, *default)

    def popitem(self) -> tuple[Any, Any]:
        """As a dictionary's."""
        item = dict.popitem(self)
        self._disown(item[0])
        return item

    def clear(self) -> None:
        """As a dictionary's."""
        dict.clear(self)
        self.replaced.clear()
        for entries in self._of_bizs():
            entries.clear()

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return dict, (dict(self),)


def forget(entered: Entered) -> None:
    """Take out what one biz has entered, where it still stands and nobody else asked for it; forget it. Idempotent.

    What it replaced of another one, or of the base, is there again.
    """
    while entered:
        cache, entries = entered.popitem()
        for key, value in list(entries.items()):
            others = cache.entered(key)
            if cache.get(key, cache) is not value or any(other is value for other in others):
                continue
            before = others[-1] if others else cache.replaced.pop(key, cache)
            if before is cache:
                dict.pop(cache, key, None)
            else:
                dict.__setitem__(cache, key, before)


def _sweep(survey: Survey) -> int:
    """Take entries of the biz out of these caches. Not counted: a cache may forget any entry at any time."""
    forget(survey.entered)
    return 0


SWEEPS: Final = (Sweep("remembered entry", _sweep),)

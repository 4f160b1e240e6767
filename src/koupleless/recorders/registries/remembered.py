"""Caches of the standard library that remember the biz of each entry: the entries of a biz leave with the biz.

Shared code, too, enters on behalf of a biz: a generator of code, say, enters lines into ``linecache``. Nothing in such
an entry tells the biz, and the Python module or class named in the key may exist in another biz as well.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from koupleless.ownership.kinds import Own
from koupleless.ownership.ledger import owner
from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    from typing import Self

    from koupleless.context import Scope
    from koupleless.ownership.belonging import Survey
    from koupleless.ownership.recording import Patches

_CACHES: Final = (
    ("linecache", "cache"),
    ("inspect", "modulesbyfile"),
    ("inspect", "_filesbymodname"),
    ("gettext", "_translations"),
    ("zipimport", "_zip_directory_cache"),
)
"""Dictionaries of Python modules; a reader that misses an entry finds or makes the entry again."""


def install(patches: Patches) -> None:
    """Put a remembering cache in the place of each dictionary, once the Python module of the dictionary is imported."""
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
    """Bring the original dictionary up to date with the cache: other code may refer to the dictionary."""
    original.clear()
    original.update(cache)


Entered: TypeAlias = "dict[Cache, dict[Any, Any]]"
"""Cache, which is known by identity -> entries made in the cache."""

ENTERED: Final[Own[Entered]] = Own(dict, is_swept=True)
"""The entries of each biz; taken out of the caches, and forgotten, by the first purge."""


class Cache(dict[Any, Any]):
    """Dictionary that notes the entries of a biz; otherwise an ordinary dictionary.

    Lifetime: from the first container of the process to the last. Threads: as safe as a dictionary.
    """

    __slots__ = ("_noted", "replaced")

    __hash__ = object.__hash__  # type: ignore[assignment] # the notes know a cache by identity

    def __init__(self, of_base: dict[Any, Any]) -> None:
        super().__init__(of_base)
        self.replaced: dict[Any, Any] = {}
        """Values of the base, by key, where a biz has entered another value."""
        self._noted: dict[Any, int] = {}
        """Key -> number of bizs with an entry, rather too high: for most keys no biz has to be asked."""

    def entered(self, key: Any) -> list[Any]:
        """List the values that the living bizs have entered for a key, each once."""
        return [entries[key] for entries in self._of_bizs() if key in entries] if key in self._noted else []

    def note(self, scope: Scope, key: Any, value: Any) -> None:
        """Note an entry of a biz."""
        entries = ENTERED.of(scope).setdefault(self, {})
        if key not in entries:
            self._noted[key] = self._noted.get(key, 0) + 1
        entries[key] = value

    def forget(self, key: Any) -> None:
        """Forget that one biz, whose entries are no more among those of the others, has an entry."""
        left = self._noted.pop(key, 0) - 1
        if left > 0:
            self._noted[key] = left

    def _of_bizs(self) -> list[dict[Any, Any]]:
        return [entries for entered in ENTERED.of_everybody() if (entries := entered.get(self)) is not None]

    def _disown(self, key: Any) -> None:
        """Forget the entries of all bizs for a key: the value now there is the base's."""
        self.replaced.pop(key, None)
        if self._noted.pop(key, 0):
            for entries in self._of_bizs():
                entries.pop(key, None)

    def __setitem__(self, key: Any, value: Any) -> None:
        ledger = owner()
        if ledger is None:
            self._disown(key)
        else:
            there = dict.get(self, key, value)
            if there is not value and not any(entered is there for entered in self.entered(key)):
                self.replaced[key] = there
            self.note(ledger.scope, key, value)
        dict.__setitem__(self, key, value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Set a default. A value asked for by several bizs stays until the last leaves; for good if the base asks."""
        is_new = key not in self
        value = dict.setdefault(self, key, default)
        ledger = owner()
        if ledger is None:
            self._disown(key)
        elif is_new or any(entered is value for entered in self.entered(key)):
            self.note(ledger.scope, key, value)
        return value

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Enter all items, as ``dict.update`` does."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        self.update(other)
        return self

    def __delitem__(self, key: Any) -> None:
        dict.__delitem__(self, key)
        self._disown(key)

    def pop(self, key: Any, *default: Any) -> Any:
        """Take out an entry, as ``dict.pop`` does."""
        self._disown(key)
        return dict.pop(self, key, *default)

    def popitem(self) -> tuple[Any, Any]:
        """Take out the last item, as ``dict.popitem`` does."""
        item = dict.popitem(self)
        self._disown(item[0])
        return item

    def clear(self) -> None:
        """Take out all entries, as ``dict.clear`` does."""
        dict.clear(self)
        self.replaced.clear()
        self._noted.clear()
        for entries in self._of_bizs():
            entries.clear()

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return dict, (dict(self),)


def forget(entered: Entered) -> None:
    """Take out the entries of one biz that still stand and that no other biz asked for; forget all. Idempotent.

    A value of another biz, or of the base, that an entry replaced is put back.
    """
    while entered:
        cache, entries = entered.popitem()
        for key, value in list(entries.items()):
            cache.forget(key)
            others = cache.entered(key)
            if cache.get(key, cache) is not value or any(other is value for other in others):
                continue
            before = others[-1] if others else cache.replaced.pop(key, cache)
            if before is cache:
                dict.pop(cache, key, None)
            else:
                dict.__setitem__(cache, key, before)


def _sweep(survey: Survey) -> int:
    """Take the entries of the biz out of the caches. Not counted: a cache may forget any entry at any time."""
    forget(survey.find(ENTERED) or {})
    return 0


SWEEPS: Final = (Sweep("remembered entry", "linecache, inspect, gettext and zipimport", _sweep),)

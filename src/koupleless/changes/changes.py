"""Changes by bizs to Python modules they share with others: seen by comparing, kept to the biz, taken back at leaving.

There are three moments: the Python modules are looked at before the first code runs that may change anything
(`Watch.begin`), compared after a start and after the first request (`Watch.check`), and again when the biz leaves
(`Watch.leave`). During a start the Python modules are compared, too, before another shared library is loaded, which
would be made of the changes otherwise. A changed function, method or property becomes a dispatcher (`dispatch`), and
so does a data attribute of a class. Any other variable of a Python module becomes one by context, also for functions
which read the variable (`assigned`). Code of a compiled Python module reads variables past us: such a change is told,
and put back at leaving; an addition to a container is told.

A change belongs to the biz with the code in the new value, whenever the change is found. A value without code (a mock,
a number) belongs to the biz at whose moment the change is found, if code of the biz may have stored the value, and the
Python module does not store such values itself.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import threading
import types
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from koupleless.changes.assigned import Assigned, is_of_python
from koupleless.changes.baseline import Baseline, Difference, Growth, is_dunder, is_of_standard_library
from koupleless.changes.dispatch import Patched, Place, Shown, put, table_of
from koupleless.changes.forwarding import ABSENT, inherited
from koupleless.changes.origin import home_of, is_behaviour, is_done_by, is_done_by_library, makers_of
from koupleless.context import as_base, entered
from koupleless.ownership.purge import Grown, Left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from koupleless.context import Scope


_log: Final = logging.getLogger("koupleless")


class SharedStateWarning(RuntimeWarning):
    """A biz changed an attribute of a shared Python module, as seen by all users."""


class Storing(Protocol):
    """The names of attributes and containers to which the code of a biz may store."""

    def has_attribute(self, name: str) -> bool:
        """Whether the code may set, or delete, an attribute of this name."""

    def has_container(self, name: str, holders: frozenset[str] = frozenset()) -> bool:
        """Whether the code may add to a container of this name; with ``holders``, to one in a holder of such a name."""


class Anything:
    """The names for code which nobody has looked at: all."""

    def has_attribute(self, name: str) -> bool:  # noqa: ARG002
        """Return ``True``: any attribute may be set."""
        return True

    def has_container(self, name: str, holders: frozenset[str] = frozenset()) -> bool:  # noqa: ARG002
        """Return ``True``: any container may be added to."""
        return True


class Watch:
    """The changes by one life of one biz; a facet of its scope.

    Lifetime: from the set-up of the biz until `leave`. Thread-safe, by the lock of its `Changes`.
    """

    def __init__(self, changes: Changes, scope: Scope, builtins: object, storing: Storing) -> None:
        self.scope = scope
        self.storing = storing
        self.builtins = builtins
        """The ``__builtins__`` by which code of the biz is known."""
        self.has_begun = False
        """Whether the Python modules were looked at: there is code that may change something."""
        self.is_starting = True
        """True until the first comparison: a change without another owner belongs to this biz until then."""
        self.told: dict[str, str] = {}
        """Changes seen by everybody, by path, in words."""
        self.said: set[str] = set()
        """Paths of changes returned by `check` before."""
        self.grown: list[Grown] = []
        self._changes = changes

    def begin(self) -> None:
        """Look at the shared Python modules before code runs which may change them. Idempotent."""
        self._changes.begin(self)

    def check(self) -> tuple[str, ...]:
        """Compare, and keep changes to the biz; returns in words the changes since then which everybody sees.

        Each of these changes is also warned of, as the biz.
        """
        found = self._changes.check(self)
        for words in found:
            with entered(self.scope), contextlib.suppress(SharedStateWarning):  # a biz may have warnings raised
                warnings.warn_explicit(words, SharedStateWarning, f"biz {self.scope.biz}", 0)
        return found

    def check_soon(self) -> None:
        """Compare as `check` does, on a new thread, for callers which must not wait; not for a biz without code."""
        if self.has_begun:
            with as_base():
                threading.Thread(target=self.check, name=f"compare {self.scope.biz}", daemon=True).start()

    def leave(self) -> Left:
        """Compare for the last time and take everything back. Idempotent."""
        return self._changes.leave(self)


NOTHING_CHANGED: Final = Left({}, is_compared=True)


class Changes:
    """The changes by all bizs of a process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._baseline: Baseline | None = None
        self._modules: Callable[[], dict[str, Any]] = dict
        self._watches: dict[Scope, Watch] = {}
        self._places: dict[tuple[int, str], list[Place]] = {}
        self._assigned: dict[int, Assigned] = {}

    def watch(
        self,
        scope: Scope,
        modules: Callable[[], dict[str, Any]],
        *,
        builtins: object,
        storing: Storing | None = None,
    ) -> Watch:
        """Watch a biz that is about to start; ``modules`` returns the Python modules shared now, by name."""
        self._modules = modules
        made = Watch(self, scope, builtins, Anything() if storing is None else storing)
        scope.attach(made)
        return made

    def begin(self, watch: Watch) -> None:
        """Look at the shared Python modules, for `Watch.begin`."""
        with self._lock, as_base():
            if watch.has_begun:
                return
            if self._baseline is None:
                self._baseline = Baseline()
            else:
                self._compare(None)
            self._baseline.extend(self._modules())
            watch.has_begun = True
            self._watches[watch.scope] = watch

    def check(self, watch: Watch) -> tuple[str, ...]:
        """Compare for the biz of a watch, for `Watch.check`."""
        with self._lock, as_base():
            if watch.scope not in self._watches:
                return ()
            self._compare(watch)
            self._join(watch)
            watch.is_starting = False
            words = tuple(words for path, words in watch.told.items() if path not in watch.said)
            watch.said.update(watch.told)
            return words

    def leave(self, watch: Watch) -> Left:
        """Compare for the last time and take everything back, for `Watch.leave`."""
        with self._lock, as_base():
            if watch.scope not in self._watches:
                return NOTHING_CHANGED
            self._compare(watch)
            undone: Counter[str] = Counter()
            for key, places in list(self._places.items()):
                for place in places:
                    if place.leave(watch.scope):
                        undone[place.kind] += 1
                        self._renew([place.holder])
                self._tidy(key)
            del self._watches[watch.scope]
            for assigned in self._assigned.values():
                values = assigned.leave(watch.scope).values()
                undone.update(Patched.kind if _is_code(value) else Place.kind for value in values)
            watch.builtins, watch.storing = None, Anything()
            self._end_unused()
            if not self._watches:
                self._baseline = None
            grown, watch.grown = tuple(watch.grown), []
            return Left({kind: count for kind, count in undone.items() if count}, True, grown)

    def modules_needed(self) -> None:
        """Keep replacements by starting bizs apart, before shared Python modules are loaded for a biz.

        A library would take a replacement for the original. Additions stay: no other biz has an addition, and a library
        asks for one by name.
        """
        with self._lock, as_base():
            if self._baseline is not None and any(watch.is_starting for watch in self._watches.values()):
                self._judge_all(None, [one for one in self._baseline.differences() if one.before is not ABSENT])

    def module_loaded(self, name: str, module: Any) -> None:
        """Take in a shared Python module right after its load, before any change."""
        with self._lock, as_base():
            if self._baseline is not None:
                self._baseline.add(name, module)

    # --- comparing ---------------------------------------------------------------------------------------------------

    def _compare(self, watch: Watch | None) -> None:
        baseline = self._baseline
        assert baseline is not None
        differences, growths = baseline.differences(), baseline.growths()
        self._judge_all(watch, differences)
        for growth in growths:
            self._judge_growth(watch, growth)
        holders = [*(one.holder for one in differences), *(one.holder for one in growths)]
        baseline.renew({id(holder): holder for holder in holders}.values())
        baseline.extend(self._modules())

    def _judge_all(self, watch: Watch | None, differences: list[Difference]) -> None:
        for difference in differences:
            try:
                self._judge(watch, difference)
            except Exception:  # noqa: BLE001 - it looks at objects of anybody's making, and the other changes are to be kept apart
                _log.exception("a change of %s could not be kept apart", difference.path)

    def _renew(self, holders: Iterable[Any]) -> None:
        if self._baseline is not None:
            self._baseline.renew(holders)

    def _judge(self, watch: Watch | None, found: Difference) -> None:
        key = id(found.holder), found.name
        place = self._places.get(key, [None])[-1]
        if place is not None:
            if place.standing is found.after:
                return
            if place.take_back(found.after) is not None:
                self._tidy(key)
                return
        owner = self._owner(watch, found)
        if owner is None:
            return
        is_module = not issubclass(type(found.holder), type)
        if is_module and _is_handed_over(found):
            return
        if is_module and _is_assigned(found) and self._assign(owner, found):
            return
        kind = _kind_of(found, is_module=is_module)
        if place is None or place.standing is not found.before or type(place) is not kind:
            place = kind(found.holder, found.name, found.before)
            self._places.setdefault(key, []).append(place)
        place.change(owner.scope, found.after)
        if kind is Place:
            then = "which every module sees. The change is undone when the biz leaves."
        elif kind is Shown and found.before is not ABSENT:
            then = "which only this biz is shown, but compiled code may see. The change is undone when the biz leaves."
        else:
            return
        owner.told[found.path] = _told(owner, found.module, f"changed `{found.path}`", then)

    def _join(self, watch: Watch) -> None:
        """Take a biz, too, for one that has set an attribute to the present value, if its code may have.

        A new version of a biz does so beside the old version. A comparison cannot see this.
        """
        if type(watch.storing) is Anything:
            return
        for place in [places[-1] for places in self._places.values()]:
            is_data = type(place) is Place and place.changes and not place.is_of(watch.scope)
            if is_data and watch.storing.has_attribute(place.name):
                place.change(watch.scope, place.standing)

    def _owner(self, watch: Watch | None, found: Difference) -> Watch | None:
        after = found.after
        if after is not ABSENT:
            for builtins in makers_of(after):
                owner = next((one for one in self._watches.values() if one.builtins is builtins), None)
                if owner is not None:
                    return owner
        if watch is None or (is_dunder(found.name) and not is_behaviour(after)):
            return None
        if issubclass(type(after), types.ModuleType) or is_done_by_library(self._modules(), found):
            return None
        if is_behaviour(after) and found.before is not ABSENT:
            is_foreign = home_of(after).partition(".")[0] != found.module.partition(".")[0]
            is_plausible = (watch.is_starting and is_foreign) or watch.storing.has_attribute(found.name)
            return watch if is_plausible else None
        if not watch.storing.has_attribute(found.name) or (type(watch.storing) is Anything and found.before is ABSENT):
            return None
        return None if is_done_by(self._modules().get(found.module), found.holder, found.name) else watch

    def _judge_growth(self, watch: Watch | None, found: Growth) -> None:
        added = _added(found)
        owner = None
        # Python's own modules add to their caches whichever biz runs, and such a cache has a name like all caches.
        is_pythons = is_of_standard_library(found.module)
        if not is_pythons:
            for builtins in (builtins for thing in added for builtins in makers_of(thing)):
                owner = next((one for one in self._watches.values() if one.builtins is builtins), None)
                if owner is not None:
                    break
        if owner is None and watch is not None and type(watch.storing) is not Anything:
            holders = found.holders if is_pythons else frozenset[str]()
            owner = watch if watch.storing.has_container(found.name, holders) else None
        if owner is None:
            return
        count = found.after - found.before
        owner.grown.append(Grown(found.path, found.container, found.after if count > 0 else 0))
        did = f"changed `{found.path}` ({f'{count} more' if count > 0 else f'{-count} fewer'})"
        then = "which every module sees. The change stays when the biz leaves, unless the biz takes the change back."
        owner.told[found.path] = _told(owner, found.module, did, then)

    def _tidy(self, key: tuple[int, str]) -> None:
        left = [place for place in self._places.get(key, ()) if place.changes]
        if left:
            self._places[key] = left
        else:
            self._places.pop(key, None)

    # --- variables of modules by context -----------------------------------------------------------------------------

    def _assign(self, owner: Watch, found: Difference) -> bool:
        """Let a variable of a Python module be another one for this biz; ``False`` if the module cannot have such."""
        module = found.holder
        assigned = self._assigned.get(id(module)) or Assigned(module, self._watches.__contains__)
        try:
            assigned.add(found.name)
        except TypeError:
            return False
        self._assigned[id(module)] = assigned
        assigned.put(owner.scope, found.name, found.after)
        put(module, found.name, found.before)
        return True

    def _end_unused(self) -> None:
        for key, assigned in list(self._assigned.items()):
            if not assigned.is_used:
                del self._assigned[key]
                assigned.close()


_PLAIN_METACLASSES: Final = frozenset(map(id, (type, abc.ABCMeta)))
"""Metaclasses of classes which leave the meaning of an attribute to Python."""


def _is_handed_over(found: Difference) -> bool:
    """Whether an object was put into a Python module made by the base by hand, as a place for such objects."""
    return found.before is ABSENT and table_of(found.holder).get("__spec__") is None


def _is_assigned(found: Difference) -> bool:
    """Whether a biz is to get its own variable of a Python module: not for functions, which are dispatched."""
    if found.before is ABSENT or (_is_code(found.after) and not is_behaviour(found.after)):
        return True
    return _kind_of(found, is_module=True) is Place and found.after is not ABSENT and is_of_python(found.holder)


def _is_code(thing: Any) -> bool:
    return is_behaviour(thing) or issubclass(type(thing), type | types.ModuleType)


def _kind_of(found: Difference, *, is_module: bool) -> type[Place]:
    before, after = found.before, found.after
    if is_module:
        return Patched if is_behaviour(after) and is_behaviour(before) else Place
    if is_dunder(found.name) and found.name != "__getattr__":
        # A special method with an effect by being there (``__len__``: an object may be false) cannot be there for one
        # alone.
        known = inherited(found.holder, found.name) if before is ABSENT else before
        return Patched if is_behaviour(after) and is_behaviour(known) else Place
    if is_behaviour(after):
        return Patched
    return Shown if id(type(found.holder)) in _PLAIN_METACLASSES else Place


def _added(found: Growth) -> list[Any]:
    """List the new members of a container, as far as known."""
    container, count = found.container, found.after - found.before
    if count <= 0:
        return []
    if type(container) is dict:
        items = list(container.copy().items())[-count:]
        return [part for item in items for part in item]
    return list(container.copy())[-count:] if type(container) is list else list(container.copy())[:_LOOKED_AT]


_LOOKED_AT: Final = 1_000
"""The number of members of a set to look at."""


def _told(owner: Watch, module: str, did: str, then: str) -> str:
    library = module.partition(".")[0]
    if is_of_standard_library(module):
        return f"biz {owner.scope.biz} {did} of Python's own {library}, {then}"
    return (
        f"biz {owner.scope.biz} {did} of the shared {library}, {then} "
        f'To keep such changes to itself, the biz can hold the library as an own copy: own = ["{library}"].'
    )


changes: Final = Changes()
"""The changes of this process."""

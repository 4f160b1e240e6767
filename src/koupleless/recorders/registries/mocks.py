"""Recorder for ``unittest.mock``: patches that a biz has started, and never stopped, are stopped with the biz."""

from __future__ import annotations

import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import entered
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Pair
from koupleless.ownership.ledger import NOTHING, owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.context import Scope
    from koupleless.ownership.recording import Patches

_MOCKS: Final[Pair[weakref.ref[Any]]] = Pair("mock", "mock.patch().start", "stopped, or taken out of its chain")
KINDS: Final = (_MOCKS,)


def install(patches: Patches) -> None:
    """Replace the methods for starting and stopping patches, once a ``mock`` is imported."""
    for name in ("unittest.mock", "mock.mock"):
        patches.when_imported(name, _follow)


_of_bizs: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Patches started by a biz, and not stopped."""


def _follow(patches: Patches, mock: Any) -> None:
    for kind in (mock._patch, mock._patch_dict):  # noqa: SLF001 - they have no public name
        patches.replace(kind, "start", _start)
        patches.replace(kind, "stop", _stop)
    patches.replace(mock.patch, "stopall", functools.partial(_stop_all, mock._patch._active_patches))  # noqa: SLF001


def _start(original: Callable[[Any], Any]) -> Any:
    @standing_for(original)
    def start(self: Any) -> Any:
        result = original(self)
        ledger = owner()
        if ledger is not None:
            started = _Started(self, ledger.scope)
            _of_bizs.add(self)
            _MOCKS.add(ledger, weakref.ref(self), started.describe(), started.undo)
        return result

    return start


def _stop(original: Callable[[Any], Any]) -> Any:
    @standing_for(original)
    def stop(self: Any) -> Any:
        _of_bizs.discard(self)
        _MOCKS.remove(weakref.ref(self))
        return original(self)

    return stop


def _stop_all(active: list[Any], original: Callable[[], None]) -> Any:
    @standing_for(original)
    def stopall() -> None:
        mine = None if owner() is None else _MOCKS.of_running()
        for patcher in reversed(active.copy()):
            if patcher not in _of_bizs if mine is None else weakref.ref(patcher) in mine:
                patcher.stop()

    return stopall


class _Started:
    """One patch started by a biz. The reference is weak: mock itself keeps a patch until the stop."""

    def __init__(self, patcher: Any, scope: Scope) -> None:
        self._patcher = weakref.ref(patcher)
        self._scope = scope
        self._placed = id(_standing(patcher))

    def describe(self) -> str:
        patcher: Any = self._patcher()
        if hasattr(patcher, "in_dict"):
            return "a dictionary"
        target = patcher.target
        return f"{getattr(target, '__qualname__', None) or getattr(target, '__name__', '?')}.{patcher.attribute}"

    def undo(self) -> object:
        patcher = self._patcher()
        if patcher is None or patcher not in _active(patcher):
            return NOTHING
        _of_bizs.discard(patcher)
        with entered(self._scope):  # the patched object may depend on the current biz
            if hasattr(patcher, "in_dict"):
                _put_back_items(patcher)
            elif id(_standing(patcher)) == self._placed:
                patcher.stop()
            else:
                _leave_chain(patcher, self._placed)
        return None


def _active(patcher: Any) -> list[Any]:
    """Return the active patches of the ``mock`` that made this patch."""
    return sys.modules[type(patcher).__module__]._patch._active_patches  # type: ignore[no-any-return]  # noqa: SLF001


def _standing(patcher: Any) -> Any:
    """Return the value that now stands in the place of a patch."""
    target = getattr(patcher, "target", None)
    table = getattr(target, "__dict__", {})
    return table.get(getattr(patcher, "attribute", None), getattr(target, getattr(patcher, "attribute", ""), None))


def _put_back_items(patcher: Any) -> None:
    """Put back the items set by the patch, and no others: mock would put back the whole dictionary of that time."""
    _active(patcher).remove(patcher)
    if patcher.clear:
        patcher._unpatch_dict()  # noqa: SLF001 - what its ``stop`` calls
        return
    for key in patcher.values:
        if key in patcher._original:  # noqa: SLF001 - as above
            patcher.in_dict[key] = patcher._original[key]  # noqa: SLF001 - as above
        else:
            patcher.in_dict.pop(key, None)


def _leave_chain(patcher: Any, placed: int) -> None:
    """Leave a place taken by another value: the later patch, which found this one, is to put back the value before."""
    _active(patcher).remove(patcher)
    for later in _active(patcher):
        same = getattr(later, "target", later) is patcher.target and later.attribute == patcher.attribute
        if same and id(later.temp_original) == placed:
            later.temp_original, later.is_local = patcher.temp_original, patcher.is_local
    patcher._exit_stack.close()  # noqa: SLF001 - patches that were made together with it

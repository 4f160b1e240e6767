"""Replacing functions of the process so that what a biz registers is recorded at the source, and putting them back.

A recorder passes straight through while the base is running (one call of a context variable) and otherwise writes what
was registered into the ledger of the biz that is running. Registries that Python code can read (lists, dictionaries,
hooks) need no recorder: ``interpreter`` and ``libraries`` sweep them by ownership when a biz leaves.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership import adapters, interpreter, libraries, threads

if TYPE_CHECKING:
    from collections.abc import Callable

_MISSING: Final = object()


class Patches:
    """Attributes that were replaced, and the way back.

    An attribute that somebody else has replaced since is left alone at `restore`, because theirs calls ours; ours
    stays in that chain, passes through, and is not put in a second time by a later `replace`.
    """

    def __init__(self) -> None:
        self._applied: list[tuple[object, str, object, object]] = []

    def replace(self, holder: object, name: str, make: Callable[[Any], Any]) -> None:
        """Put ``make(original)`` in the place of an attribute of a module, class or instance, if there is one."""
        original = getattr(holder, name, _MISSING)
        if original is _MISSING or any(held is holder and called == name for held, called, _, _ in self._applied):
            return
        before = vars(holder).get(name, _MISSING)
        after = make(original)
        setattr(holder, name, after)
        self._applied.append((holder, name, before, after))

    def restore(self) -> None:
        """Put back, last first, everything that is still ours."""
        kept = []
        for patch in reversed(self._applied):
            holder, name, before, after = patch
            if vars(holder).get(name, _MISSING) is not after:
                kept.append(patch)
            elif before is _MISSING:
                delattr(holder, name)
            else:
                setattr(holder, name, before)
        self._applied = kept[::-1]


_RECORDERS: Final = (threads, interpreter, libraries, adapters)

_lock = threading.Lock()
_patches: Final = Patches()
_installed = 0


def install_recorders() -> None:
    """Start recording; counted, so that several containers share one set. The first call replaces the functions.

    Called as the base, before the first biz is installed.
    """
    global _installed  # noqa: PLW0603 - the process has one set of functions to replace
    with _lock:
        _installed += 1
        if _installed == 1:
            try:
                for recorder in _RECORDERS:
                    recorder.install(_patches)
            except BaseException:
                _installed = 0
                _patches.restore()
                raise


def remove_recorders() -> None:
    """Undo one `install_recorders`; the last one puts every function back. Raises ``RuntimeError`` if none is left."""
    global _installed  # noqa: PLW0603 - as above
    with _lock:
        if _installed == 0:
            raise RuntimeError("no recorders are installed")
        _installed -= 1
        if _installed == 0:
            _patches.restore()

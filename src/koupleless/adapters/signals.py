"""Signals of libraries: receivers of a biz are taken out of signals of the base when the biz leaves."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.frames import standing_for
from koupleless.ownership.kinds import Pair
from koupleless.ownership.ledger import NOTHING, Pending, owner
from koupleless.ownership.recording import Patches

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable


_RECEIVERS: Final[Pair[tuple[int, Any]]] = Pair("signal receiver", "Signal.connect", "Signal.disconnect")
KINDS: Final = (_RECEIVERS,)


class Signals(NamedTuple):
    """How signals of one library keep their receivers."""

    entries: Callable[[Any], dict[Any, Any]]
    """From a signal, return receivers, or weak references to receivers, by key."""
    take_out: Callable[[Any, Any], object]
    """Take the receiver with the given key out of the given signal."""


def follow_signals(kind: Signals, undo: contextlib.ExitStack, module: Any) -> None:
    """Record the receivers that bizs connect to signals of the class ``Signal`` in a Python module."""
    patches = Patches.until(undo)
    patches.replace(module.Signal, "connect", functools.partial(_connect, kind))
    patches.replace(module.Signal, "disconnect", functools.partial(_disconnect, kind))


def _connect(kind: Signals, original: Callable[..., Any]) -> Any:
    @standing_for(original)
    def connect(self: Any, receiver: Any, *args: Any, **kwargs: Any) -> Any:
        ledger = owner()
        if ledger is None:
            return original(self, receiver, *args, **kwargs)
        before = kind.entries(self)
        result = original(self, receiver, *args, **kwargs)
        for key, entry in kind.entries(self).items():
            if before.get(key) is entry:
                continue
            undo = functools.partial(_take_receiver, kind, weakref.ref(self), key, entry)
            what = f"of {getattr(self, 'name', 'a signal')}"
            _RECEIVERS.add(ledger, (id(self), key), what, undo)
        return result

    return connect


def _disconnect(kind: Signals, original: Callable[..., Any]) -> Any:
    @standing_for(original)
    def disconnect(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        mine = [key for key in list(_RECEIVERS.of_running()) if key[0] == id(self)]
        left = kind.entries(self) if mine else {}
        for key in mine:
            if key[1] not in left:
                _RECEIVERS.remove(key)
        return result

    return disconnect


def _take_receiver(kind: Signals, of: Callable[[], Any], key: Any, entry: Any) -> Pending | None:
    signal = of()
    # A key is made of addresses, and another receiver may have the same addresses by now.
    if signal is None or kind.entries(signal).get(key) is not entry:
        return NOTHING
    kind.take_out(signal, key)
    return None

"""blinker: ``signal("name")`` is each biz's own, and receivers of a biz leave signals of the base with the biz.

Signals that code of the base makes and hands out reach receivers of bizs as any object does.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.own import own_object
from koupleless.adapters.signals import Signals, follow_signals

if TYPE_CHECKING:
    import contextlib

distribution: Final = "blinker"


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``blinker.base``; before 1.8 the namespace is called otherwise, and stays one for all."""
    follow_signals(_SIGNALS, undo, module)
    namespace = vars(module).get("default_namespace")
    if namespace is not None:
        own_object(undo, namespace, type(namespace))


def _take_out(signal: Any, key: Any) -> None:
    receiver = signal.receivers[key]
    if isinstance(receiver, weakref.ref):
        receiver = receiver()
    if receiver is not None:
        signal.disconnect(receiver)


_SIGNALS: Final = Signals(lambda signal: dict(signal.receivers), _take_out)

follow: Final = {"blinker.base": _follow}

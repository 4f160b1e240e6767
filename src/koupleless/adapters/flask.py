"""Flask and blinker: each biz has signals of its own in the place of those that Flask sends.

``blinker.signal("name")`` is each biz's own, too. Signals that the base's own code makes and hands out reach receivers
of bizs as any object does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.own import own_object

if TYPE_CHECKING:
    import contextlib

DISTRIBUTIONS: Final = ("flask", "blinker")


def _follow_signals(undo: contextlib.ExitStack, module: Any) -> None:
    """``flask.signals``."""
    for signal in list(vars(module).values()):
        kind: Any = type(signal)
        if kind.__module__ == "blinker.base" and kind.__name__ == "NamedSignal":
            own_object(undo, signal, lambda kind=kind, name=signal.name: kind(name))  # type: ignore[misc]


def _follow_names(undo: contextlib.ExitStack, module: Any) -> None:
    """``blinker.base``; before 1.8 the namespace is called otherwise, and stays one for all."""
    namespace = vars(module).get("default_namespace")
    if namespace is not None:
        own_object(undo, namespace, type(namespace))


FOLLOWED: Final = {"flask.signals": _follow_signals, "blinker.base": _follow_names}

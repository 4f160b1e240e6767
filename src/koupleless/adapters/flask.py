"""Flask and blinker: each biz has signals of its own in the place of those that Flask sends.

Signals that the base defines go on reaching receivers of bizs. ``blinker.signal("name")`` is the base's if it has one
of that name, otherwise each biz's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.own import own_object

if TYPE_CHECKING:
    import contextlib

DISTRIBUTION: Final = "flask"


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
        kind: Any = type(namespace)
        members = {
            "__contains__": lambda self, name: dict.__contains__(self, name) or dict.__contains__(namespace, name),
            "__missing__": lambda _, name: dict.__getitem__(namespace, name),  # asked by dict.__getitem__
        }
        own_object(undo, namespace, type(kind.__name__, (kind,), members))


FOLLOWED: Final = {"flask.signals": _follow_signals, "blinker.base": _follow_names}

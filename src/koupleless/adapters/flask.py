"""Flask: each biz has signals of its own in the place of the signals that Flask sends.

The instance folder, if Flask finds the folder by itself, is in the data directory of the biz.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.own import own_object
from koupleless.frames import standing_for
from koupleless.replacing import replace
from koupleless.view.data import led

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

distribution: Final = "flask"


def _follow_signals(undo: contextlib.ExitStack, module: Any) -> None:
    """``flask.signals``."""
    for signal in list(vars(module).values()):
        kind: Any = type(signal)
        if kind.__module__ == "blinker.base" and kind.__name__ == "NamedSignal":
            own_object(undo, signal, lambda kind=kind, name=signal.name: kind(name))  # type: ignore[misc]


def _lead_instance_folder(undo: contextlib.ExitStack, module: Any) -> None:
    """The Python module of the class that looks for the folder: ``flask.sansio.app``, before 2.3 ``flask.app``."""
    for kind in list(vars(module).values()):
        if isinstance(kind, type) and kind.__module__ == module.__name__ and _FINDER in vars(kind):
            replace(undo, kind, _FINDER, _leading(vars(kind)[_FINDER]))


def _leading(original: Callable[[Any], str]) -> Callable[[Any], str]:
    @standing_for(original)
    def auto_find_instance_path(self: Any) -> str:
        return led(original(self))

    return auto_find_instance_path


_FINDER: Final = "auto_find_instance_path"

follow_own: Final = {"flask.sansio.app": _lead_instance_folder, "flask.app": _lead_instance_folder}
"""Followed in own copies and own versions of a biz, too."""
follow: Final = {"flask.signals": _follow_signals, **follow_own}

"""The adapters, and putting them in: each as soon as the base has imported the module that it follows."""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters import protobuf
from koupleless.ownership.ledger import Patches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

_ADAPTERS: Final[tuple[ModuleType, ...]] = (protobuf,)

_lock: Final = threading.Lock()
_patches: Final = Patches()
_undo: Final = contextlib.ExitStack()
_users = 0


def install_adapters() -> None:
    """Put the adapters in, or count one more user. Called as the base, before the first biz is installed."""
    global _users  # noqa: PLW0603 - the process has one set of libraries
    with _lock:
        _users += 1
        if _users == 1:
            try:
                for adapter in _ADAPTERS:
                    followed: Mapping[str, Callable[[contextlib.ExitStack, Any], None]] = adapter.FOLLOWED
                    for name, follow in followed.items():
                        _patches.when_imported(name, functools.partial(follow, _undo))
            except BaseException:
                _users = 0
                _take_out()
                raise


def remove_adapters() -> None:
    """Count one user less; the last one puts everything back. Raises ``RuntimeError`` if none is left."""
    global _users  # noqa: PLW0603 - as above
    with _lock:
        if _users == 0:
            raise RuntimeError("no adapters are installed")
        _users -= 1
        if _users == 0:
            _take_out()


def _take_out() -> None:
    _patches.restore()
    _undo.close()

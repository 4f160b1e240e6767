"""The adapters, and their start: each as soon as the base has imported the Python module that the adapter follows."""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters import (
    closing,
    flask,
    freezegun,
    jinja2,
    lxml,
    matplotlib,
    numpy,
    pandas,
    plain,
    polars,
    protobuf,
    psycopg,
    pyarrow,
    pymongo,
    pyyaml,
    scipy,
    sentry_sdk,
    sklearn,
    sqlalchemy,
    sqlalchemy_events,
    zope,
)
from koupleless.errors import in_words
from koupleless.late import when_imported
from koupleless.replacing import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from koupleless.context import Scope
    from koupleless.ownership.purge import Sweep

    _Follow = Callable[[contextlib.ExitStack, Any], None]

_ADAPTERS: Final[tuple[ModuleType, ...]] = (
    closing,
    flask,
    freezegun,
    jinja2,
    lxml,
    matplotlib,
    numpy,
    pandas,
    plain,
    polars,
    protobuf,
    psycopg,
    pyarrow,
    pymongo,
    pyyaml,
    scipy,
    sentry_sdk,
    sklearn,
    sqlalchemy,
    sqlalchemy_events,
    zope,
)

KINDS: Final = closing.KINDS
"""The kinds of registration that adapters see."""
SWEEPS: Final[tuple[Sweep, ...]] = ()
"""The sweeps of a purge for libraries."""

OWN: Final[Mapping[str, _Follow]] = {**closing.OWN, **flask.OWN, **freezegun.OWN}
"""The Python modules followed in own copies and own versions of a biz, too."""

_log: Final = logging.getLogger("koupleless")


def put_into_own(scope: Scope, module: ModuleType) -> None:  # noqa: ARG001 - goes with the module
    """Follow a Python module that a biz has executed as its own. The adapter goes with the Python module."""
    _put_in(OWN[module.__name__], module)


def _put_in(follow: _Follow, module: Any) -> Callable[[], None] | None:
    """Put the adapter of one Python module in, and return the function that takes the adapter out.

    A version that the adapter does not know stays without the adapter, and a warning says so.
    """
    undo = contextlib.ExitStack()  # adapters may keep the stack, for later replacements
    try:
        follow(undo, module)
    except Exception as error:  # noqa: BLE001 - any version of a library, whose import is not to fail for it
        undo.close()
        _log.warning("all modules share what %s keeps: %s", module.__name__, in_words(error))
        return None
    return undo.close


def _put_all_in(undo: contextlib.ExitStack) -> None:
    for adapter in _ADAPTERS:
        followed: Mapping[str, _Follow] = adapter.FOLLOWED
        for name, follow in followed.items():
            undo.callback(when_imported(name, functools.partial(_put_in, follow)))


ADAPTERS: Final = Shared("adapters", _put_all_in)
"""All adapters. Put in as the base, before the first biz is installed."""

"""The adapters, and their start: each as soon as the base has imported a Python module that the adapter follows."""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters import (
    anyio,
    blacksheep,
    blinker,
    celery,
    django,
    flask,
    freezegun,
    grpc,
    jinja2,
    lxml,
    matplotlib,
    numpy,
    opentelemetry,
    opentelemetry_calls,
    paho,
    pandas,
    plain,
    polars,
    prometheus,
    protobuf,
    psycopg,
    psycopg2,
    psycopg_pool,
    pyarrow,
    pydantic,
    pymongo,
    pyyaml,
    pyzmq,
    redis,
    scipy,
    sentry_sdk,
    signals,
    sklearn,
    sqlalchemy,
    sqlalchemy_events,
    sqlalchemy_models,
    sqlalchemy_pools,
    timemachine,
    zope,
)
from koupleless.adapters.versions import is_installed
from koupleless.errors import in_words
from koupleless.late import when_imported
from koupleless.replacing import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from koupleless.context import Scope
    from koupleless.ownership.kinds import Kind

    _Follow = Callable[[contextlib.ExitStack, Any], None]

KNOWN: Final[tuple[Any, ...]] = (
    *plain.ADAPTERS,
    anyio,
    blacksheep,
    blinker,
    celery,
    django,
    flask,
    freezegun,
    grpc,
    jinja2,
    lxml,
    matplotlib,
    numpy,
    opentelemetry,
    opentelemetry_calls,
    paho,
    pandas,
    polars,
    prometheus,
    protobuf,
    psycopg,
    psycopg2,
    psycopg_pool,
    pyarrow,
    pydantic,
    pymongo,
    pyyaml,
    pyzmq,
    redis,
    scipy,
    sentry_sdk,
    sklearn,
    sqlalchemy,
    sqlalchemy_events,
    sqlalchemy_models,
    sqlalchemy_pools,
    timemachine,
    zope,
)
"""The adapters, in the published form of a releaser; see the charter."""

KINDS: Final[tuple[Kind, ...]] = (
    *signals.KINDS,
    *(kind for adapter in KNOWN for kind in getattr(adapter, "KINDS", ())),
)
"""The kinds of registration that adapters see."""
RELEASED: Final[Mapping[str, str]] = {
    kind: found for adapter in KNOWN for kind, found in getattr(adapter, "released", {}).items()
}
"""The kinds of registration that adapters find when a biz leaves, with the registry."""
OWN: Final[Mapping[str, _Follow]] = {
    name: follow for adapter in KNOWN for name, follow in getattr(adapter, "follow_own", {}).items()
}
"""The Python modules followed in own copies and own versions of a biz, too."""

_log: Final = logging.getLogger("koupleless")


def put_into_own(scope: Scope, module: ModuleType) -> None:  # noqa: ARG001 - goes with the module
    """Follow a Python module that a biz has executed as its own. The adapter goes with the Python module."""
    _put_in(None, OWN[module.__name__], module)


def _put_in(adapter: Any, follow: _Follow, module: Any) -> Callable[[], None] | None:
    """Put the adapter of one Python module in, and return the function that takes the adapter out.

    A version that the adapter does not know stays without the adapter, and a warning says so.
    """
    undo = contextlib.ExitStack()  # adapters may keep the stack, for later replacements
    try:
        if getattr(adapter, "versions", "") and not is_installed(adapter):
            raise LookupError(f"the adapter is for {adapter.distribution} {adapter.versions}")  # noqa: TRY301 - told below
        follow(undo, module)
    except Exception as error:  # noqa: BLE001 - any version of a library, whose import is not to fail for it
        undo.close()
        _log.warning(
            "all modules share the state of %s, as the adapter does not know this version: %s",
            module.__name__,
            in_words(error),
        )
        return None
    return undo.close


def _put_all_in(undo: contextlib.ExitStack) -> None:
    for adapter in KNOWN:
        followed: Mapping[str, _Follow] = getattr(adapter, "follow", {})
        for name, follow in followed.items():
            undo.callback(when_imported(name, functools.partial(_put_in, adapter, follow)))


ADAPTERS: Final = Shared("adapters", _put_all_in)
"""All adapters. Put in as the base, before the first biz is installed."""

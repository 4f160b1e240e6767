"""Keeps exits of a biz inside the callbacks of its protocols: outside, an exit would end the event loop.

Loops call a protocol past all replaced functions (uvloop from C code), and asyncio calls a protocol again and again
if the connection was left as before. So a protocol made by a biz has guards among the attributes of the instance: an
exit is told, and the connection is aborted.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.exits import EXITS, is_of_signal
from koupleless.frames import passed_over
from koupleless.ownership.belonging import is_findable

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.context import Scope

    _Tell = Callable[[Scope, BaseException], object]

_CALLBACKS: Final = (
    *("connection_made", "connection_lost", "pause_writing", "resume_writing"),
    *("data_received", "eof_received", "get_buffer", "buffer_updated"),
    *("datagram_received", "error_received"),
    *("pipe_data_received", "pipe_connection_lost", "process_exited"),
)
_ABORTING: Final = frozenset({"data_received", "eof_received", "get_buffer", "buffer_updated"})
"""Callbacks after which a loop closes the connection if the callback raises."""


def guarded_factory(make: Any, tell: _Tell) -> Any:
    """Wrap a factory of protocols of a biz; ``tell`` is called with the biz and each exit."""
    if not callable(make):
        return make  # the loop refuses the factory

    @passed_over
    @functools.wraps(make, updated=())
    def made() -> Any:
        protocol = _kept_in(tell, "the factory", make)
        if protocol is None:
            return _Aborting()
        table = getattr(protocol, "__dict__", None)
        if type(table) is dict and not is_findable(type(protocol)):
            for name in _CALLBACKS:
                if callable(callback := getattr(protocol, name, None)):
                    table[name] = _guard(tell, name, callback)
        return protocol

    return made


def _guard(tell: _Tell, name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    try:
        reference: Callable[[], Any] = weakref.WeakMethod(callback)
    except TypeError:  # no method, or a method of an object without weak references
        reference = functools.partial(_same, callback)

    @passed_over
    def call(*args: Any) -> Any:
        return _kept_in(tell, name, reference(), *args)

    return call


def _same(callback: Any) -> Any:
    return callback


@passed_over
def _kept_in(tell: _Tell, name: str, call: Any, *args: Any) -> Any:
    try:
        return call(*args)
    except EXITS as error:
        scope = current()
        if scope is None or is_of_signal(error):
            raise
        tell(scope, error)
    if name == "connection_made":
        _Aborting().connection_made(args[0])
    elif name in _ABORTING:
        raise ConnectionAbortedError(f"{name} of its protocol ended the program")
    return None


class _Aborting(asyncio.Protocol):
    """Stands for a protocol that could not be made: one end of a connection that is over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        getattr(transport, "abort", transport.close)()

"""The face of an entry object: an ASGI application, a WSGI application, a start function, or nothing to call."""

from __future__ import annotations

import enum
import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.router.wsgi import DEFAULT_WORKERS, WsgiApp

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.router.types import ASGIApp

_ASGI_ARGUMENTS: Final = 3
_WSGI_ARGUMENTS: Final = 2


class FaceKind(enum.Enum):
    """The kinds of entry objects."""

    ASGI = "asgi"
    WSGI = "wsgi"
    START = "start"
    """A function without arguments that is called once, when the biz starts."""
    NONE = "none"
    """A Python module, or any other object that cannot be called: the import was all."""


@dataclass(frozen=True, slots=True)
class Face:
    """An entry object, as the base serves or starts the object."""

    kind: FaceKind
    asgi: ASGIApp | None = None
    """For `FaceKind.ASGI` the entry itself, for `FaceKind.WSGI` a bridge to the entry; the application of a gate."""
    close: Callable[[float], tuple[str, ...]] | None = None
    """For `FaceKind.WSGI`: ends the threads of the bridge, see `WsgiApp.close`."""
    start: Callable[[], Any] | None = None
    """For `FaceKind.START`; the result may be awaitable."""


def refusing_wsgi(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let an asynchronous ``__call__`` of ASGI raise ``TypeError`` with advice if a WSGI server calls it.

    A function that is not asynchronous can pass for an asynchronous one, as servers ask, from CPython 3.12 on; before,
    the server shows the ``TypeError`` of Python about a missing argument.
    """
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is None:
        return call

    @functools.wraps(call)
    def refusing(self: object, scope: Any, receive: Any, *send: Any) -> Any:
        if not send:
            raise TypeError(
                "a base is an ASGI application, and was called by a WSGI server: serve it with an ASGI server (arkctl "
                "serve, uvicorn, hypercorn, granian --interface asgi), under gunicorn with -k "
                "uvicorn_worker.UvicornWorker; a WSGI application belongs inside: Base(app)"
            )
        return call(self, scope, receive, *send)

    marked: Callable[..., Any] = mark(refusing)
    return marked


def face_of(entry: object, *, name: str, workers: int = DEFAULT_WORKERS) -> Face:
    """Tell the kind of ``entry`` by the arguments that a call takes; ``entry`` is not called.

    ``name`` is the identity of the biz: worker threads of a WSGI application are named after the biz, and there are at
    most ``workers`` threads. Raises ``TypeError`` with a sentence for the author of the module if ``entry`` can be
    called, but not in any of these ways.
    """
    if entry is None or inspect.ismodule(entry) or not callable(entry):
        return Face(FaceKind.NONE)
    match kind_of(entry):
        case FaceKind.ASGI:
            return Face(FaceKind.ASGI, asgi=entry)
        case FaceKind.WSGI:
            bridge = WsgiApp(entry, name=name, workers=workers)
            return Face(FaceKind.WSGI, asgi=bridge, close=bridge.close)
        case kind:
            return Face(kind, start=entry)


def kind_of(entry: Callable[..., Any]) -> FaceKind:
    """Which of the three a callable is. Raises ``TypeError`` as `face_of` does."""
    is_async = _is_async(entry)
    try:
        signature = inspect.signature(entry)
    except (TypeError, ValueError):
        # Compiled code may show no signature.
        if is_async:
            return FaceKind.ASGI
        raise TypeError(
            f"{entry!r} does not say which arguments it takes; wrap it in a function (scope, receive, send) or "
            "(environ, start_response)"
        ) from None
    parameters = signature.parameters.values()
    takes = [found for found in parameters if found.kind in (found.POSITIONAL_ONLY, found.POSITIONAL_OR_KEYWORD)]
    takes_any = any(found.kind is found.VAR_POSITIONAL for found in parameters)
    needs = sum(found.default is found.empty for found in takes)
    if not any(found.kind is found.KEYWORD_ONLY and found.default is found.empty for found in parameters):
        if needs == _ASGI_ARGUMENTS or (is_async and takes_any):
            return FaceKind.ASGI
        if needs == _WSGI_ARGUMENTS and not is_async:
            return FaceKind.WSGI
        if needs == 0:
            # An instance that takes any arguments wraps an application; a function that takes any is a main().
            what = _unbound(entry)
            wraps = takes_any and not inspect.isroutine(what) and not inspect.isclass(what)
            return FaceKind.WSGI if wraps else FaceKind.START
        if needs == 1 and takes[0].name == "scope":
            raise TypeError(
                f"{entry!r} is an ASGI 2 application, which is called twice: with the scope, then with receive and "
                "send. Make it ASGI 3 (scope, receive, send); asgiref.compatibility.guarantee_single_callable does that"
            )
    raise TypeError(
        f"{entry!r} takes {signature}, which is neither an ASGI application (scope, receive, send) nor a WSGI "
        "application (environ, start_response) nor a function without arguments; "
        "a factory is written 'package.module:create_app()'"
    )


def _unbound(entry: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside a partial, or inside partials of partials."""
    while isinstance(entry, functools.partial):
        entry = entry.func
    return entry


def _is_async(entry: Callable[..., Any]) -> bool:
    """Whether a call makes a coroutine: an ``async def``, a partial of one, an instance with an async ``__call__``."""
    entry = _unbound(entry)
    if inspect.iscoroutinefunction(entry) or inspect.iscoroutinefunction(inspect.unwrap(entry)):
        return True
    return not inspect.isclass(entry) and inspect.iscoroutinefunction(type(entry).__call__)

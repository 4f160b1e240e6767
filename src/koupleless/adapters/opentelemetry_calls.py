"""OpenTelemetry: spans of calls of services from one biz, or the base, to another, as of calls between processes.

A call within a trace gets a span of the caller, and below a span of the owner, each from the provider of its side. A
call outside of any trace gets none. Nothing stands in the way of calls before the SDK is imported.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current, entered
from koupleless.errors import ServiceError
from koupleless.frames import passed_over
from koupleless.ownership.recording import Patches
from koupleless.service.use import AsyncMethod, Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koupleless.context import Scope

distribution: Final = "opentelemetry-sdk"

_TRACER: Final = "_koupleless_tracer"
"""The attribute of a provider that holds the tracer for calls: making a tracer takes longer than a span."""


def _follow(undo: contextlib.ExitStack, module: Any) -> None:  # noqa: ARG001 - the API has all that is needed
    """``opentelemetry.sdk.trace``."""
    trace = sys.modules["opentelemetry.trace"]
    patches = Patches.until(undo)
    patches.replace(Method, "__call__", lambda original: _calling(trace, original))
    patches.replace(AsyncMethod, "__call__", lambda original: _awaiting(trace, original))


@passed_over
def _calling(trace: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Method, /, *args: Any, **kwargs: Any) -> Any:
        if not trace.get_current_span().is_recording():
            return original(self, *args, **kwargs)
        with _spans(trace, self):
            return original(self, *args, **kwargs)

    return call


@passed_over
def _awaiting(trace: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    async def call(self: AsyncMethod, /, *args: Any, **kwargs: Any) -> Any:
        if not trace.get_current_span().is_recording():
            return await original(self, *args, **kwargs)
        with _spans(trace, self):
            return await original(self, *args, **kwargs)

    return call


@passed_over
@contextlib.contextmanager
def _spans(trace: Any, method: Method) -> Iterator[None]:
    """Open the spans of both sides; none for a call within a biz, and for a service that is not there."""
    lookup, here = method._koupleless_lookup, current()  # noqa: SLF001 - named so for the objects of users
    try:
        owner = lookup.provider().scope
    except ServiceError:  # which the call raises again
        owner = here
    if owner is here:
        yield
        return
    name = f"{lookup.name}.{method.__name__}"
    about = {"rpc.system": "koupleless", "rpc.service": lookup.name, "rpc.method": method.__name__}
    with (
        _span(trace, here, name, kind=trace.SpanKind.CLIENT, attributes=about),
        _span(trace, owner, name, kind=trace.SpanKind.SERVER, attributes=about),
    ):
        yield


@passed_over
@contextlib.contextmanager
def _span(trace: Any, side: Scope | None, name: str, **given: Any) -> Iterator[None]:
    """Open a span by the provider of one side, and end it; code of the provider runs as this side."""
    with entered(side):
        provider = trace.get_tracer_provider()
        tracer = vars(provider).get(_TRACER)
        if tracer is None:
            tracer = vars(provider)[_TRACER] = provider.get_tracer("koupleless")
        span = tracer.start_span(name, **given)
    if not span.is_recording():  # without a provider, the side takes no part in the trace
        yield
        return
    try:
        with trace.use_span(span):
            yield
    finally:
        with entered(side):
            span.end()


follow: Final = {"opentelemetry.sdk.trace": _follow}

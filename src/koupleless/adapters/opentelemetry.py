"""OpenTelemetry: each biz has providers of its own, which are shut down with the biz, and is a service by its name."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, call_as, current
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Kind, Own
from koupleless.ownership.ledger import bounded, owner
from koupleless.ownership.recording import Patches

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from koupleless.ownership.ledger import Ledger

distribution: Final = "opentelemetry-api"

_PROVIDERS: Final = Kind(
    "opentelemetry provider", "set_tracer_provider, set_meter_provider, set_logger_provider", "shut down"
)
KINDS: Final = (_PROVIDERS,)

_MODULES: Final = {
    "opentelemetry.trace": "tracer",
    "opentelemetry.metrics._internal": "meter",
    "opentelemetry.metrics": "meter",
    "opentelemetry._logs._internal": "logger",
    "opentelemetry._logs": "logger",
}
"""Python modules with the functions for the global providers, or with a copy of the functions, and the signal."""
_OWN: Final[dict[str, Own[Any]]] = {signal: Own(lambda: None) for signal in _MODULES.values()}
"""The provider of each biz, by signal."""


def _follow(signal: str, undo: contextlib.ExitStack, module: Any) -> None:
    patches = Patches.until(undo)
    patches.replace(module, f"set_{signal}_provider", functools.partial(_set_provider, signal))
    patches.replace(module, f"get_{signal}_provider", functools.partial(_get_provider, signal))


def _set_provider(signal: str, original: Callable[[Any], None]) -> Any:
    own = _OWN[signal]

    @standing_for(original)
    def set_provider(provider: Any) -> None:
        ledger = owner()
        if ledger is None:
            original(provider)
        elif own.find(ledger.scope) is not None:
            logging.getLogger(original.__module__).warning("Overriding of current provider is not allowed")
        else:
            own.put(provider)
            _PROVIDERS.record(ledger, signal, functools.partial(_shut_down, ledger, provider))

    return set_provider


def _get_provider(signal: str, original: Callable[[], Any]) -> Any:
    own = _OWN[signal]

    @standing_for(original)
    def get_provider() -> Any:
        mine = None if current() is None else own.peek()  # the fast way: FastAPI asks three times in each request
        return original() if mine is None else mine

    return get_provider


def _shut_down(ledger: Ledger, provider: Any) -> None:
    if hasattr(provider, "shutdown"):
        shut_down = functools.partial(call_as, ledger.scope, provider.shutdown)
        bounded(shut_down, name=f"telemetry {ledger.biz}", timeout_s=ledger.remaining_s())


# --- the name of the service ------------------------------------------------------------------------------------------


def _follow_resources(undo: contextlib.ExitStack, module: Any) -> None:
    """``opentelemetry.sdk.resources``."""
    detect = functools.partial(_detect, module.Resource)
    Patches.until(undo).replace(module.OTELResourceDetector, "detect", detect)


def _detect(resource: Any, original: Callable[[Any], Any]) -> Any:
    """The attributes in the environment: name and version of a biz, in the place of what the biz has from the base."""

    @standing_for(original)
    def detect(self: Any) -> Any:
        scope, found = current(), original(self)
        if scope is None:
            return found
        with as_base():
            inherited = original(self).attributes
        own = {"service.name": scope.biz.name, "service.version": scope.biz.version}
        missing = {key: value for key, value in own.items() if found.attributes.get(key) == inherited.get(key)}
        return found.merge(resource(missing))

    return detect


follow: Final[dict[str, Callable[[contextlib.ExitStack, Any], None]]] = {
    **{name: functools.partial(_follow, signal) for name, signal in _MODULES.items()},
    "opentelemetry.sdk.resources": _follow_resources,
}
follow_own: Final = {"opentelemetry.sdk.resources": _follow_resources}

"""Prometheus: each biz has a registry of its own in the place of the shared one; a scrape of the base shows them all.

The identity of the biz is a label of its metrics there. A biz that reads the registry sees only the metrics of the biz,
as without a base. The registry goes with the biz.
"""

from __future__ import annotations

import copy
import functools
import itertools
import logging
import sys
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import call_merged
from koupleless.errors import in_words
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Kind
from koupleless.ownership.ledger import NOTHING, Pending, owner
from koupleless.ownership.recording import Patches

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from koupleless.ownership.ledger import Ledger

distribution: Final = "prometheus-client"

_COLLECTORS: Final = Kind("prometheus collector", "CollectorRegistry.register", "unregistered")
KINDS: Final = (_COLLECTORS,)

_log: Final = logging.getLogger("koupleless")

_registries: Final[dict[Ledger, Any]] = {}


_gauges: Final[dict[object, tuple[str, str, str, Callable[[], Mapping[str, int]]]]] = {}


def publish_gauge(
    name: str, text: str, read: Callable[[], Mapping[str, int]], *, label: str = "biz"
) -> Callable[[], object]:
    """Show a number for each biz, as returned by ``read``, to scrapes of the base's Prometheus registry.

    ``label`` names another kind of key, if the numbers are not by biz.

    Costs nothing where Prometheus is not loaded. Returns the function that removes the gauge. Thread-safe.
    """
    key = object()
    _gauges[key] = name, text, label, read
    return functools.partial(_gauges.pop, key, None)


def _own_metrics() -> Iterator[Any]:
    core: Any = sys.modules.get("prometheus_client.metrics_core")
    numbers: dict[tuple[str, str, str], Counter[str]] = {}
    for name, text, label, read in dict.fromkeys(list(_gauges.values())):  # another container may publish the same
        numbers.setdefault((name, text, label), Counter()).update(read())
    for (name, text, label), by_label in numbers.items() if core is not None else ():
        family = core.GaugeMetricFamily(name, text, labels=[label])
        for value, number in by_label.items():
            family.add_metric([value], number)
        yield family


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``prometheus_client.registry``."""
    patches, registry = Patches.until(undo), module.CollectorRegistry
    patches.replace(registry, "register", functools.partial(_register_collector, module))
    patches.replace(registry, "unregister", functools.partial(_unregister_collector, module))
    patches.replace(registry, "collect", functools.partial(_collect, module))
    patches.replace(registry, "restricted_registry", functools.partial(_restricted, module))


def _register_collector(module: Any, original: Callable[[Any, Any], None]) -> Any:
    @standing_for(original)
    def register(self: Any, collector: Any) -> None:
        ledger = owner()
        if ledger is None:
            return original(self, collector)
        if self is module.REGISTRY:
            own = _registries.get(ledger)
            if own is None:
                own = _registries[ledger] = module.CollectorRegistry(auto_describe=True)
                _COLLECTORS.record(ledger, "of the shared registry", functools.partial(_drop, ledger))
            return original(own, collector)
        original(self, collector)
        undo = functools.partial(_unregister, weakref.ref(self), weakref.ref(collector))
        _COLLECTORS.record(ledger, type(collector).__name__, undo)
        return None

    return register


def _unregister(of: Callable[[], Any], which: Callable[[], Any]) -> Pending | None:
    registry, collector = of(), which()
    if registry is None or collector not in registry._collector_to_names:  # noqa: SLF001
        return NOTHING
    registry.unregister(collector)
    return None


def _drop(ledger: Ledger) -> Pending:
    own = _registries.pop(ledger)
    return Pending(lambda _: None, count=len(own._collector_to_names))  # noqa: SLF001


def _unregister_collector(module: Any, original: Callable[[Any, Any], None]) -> Any:
    @standing_for(original)
    def unregister(self: Any, collector: Any) -> None:
        ledger = owner()
        own = _registries.get(ledger) if ledger is not None and self is module.REGISTRY else None
        original(self if own is None else own, collector)

    return unregister


def _collect(module: Any, original: Callable[[Any], Iterable[Any]]) -> Any:
    @standing_for(original)
    def collect(self: Any) -> Iterable[Any]:
        ledger = owner()
        if self is not module.REGISTRY:
            return original(self)
        if ledger is None:
            of_base = itertools.chain(original(self), _own_metrics())
            return _merged(of_base, {life: original(own) for life, own in list(_registries.items())})
        own = _registries.get(ledger)
        return () if own is None else original(own)

    return collect


def _merged(of_base: Iterable[Any], of_bizs: dict[Ledger, Iterable[Any]]) -> Iterator[Any]:
    """Merge the families of the base and of all bizs by name; samples of a biz have the identity as a label."""
    families: dict[str, Any] = {}
    for metric in of_base:
        families[metric.name] = family = copy.copy(metric)
        family.samples = list(metric.samples)
    for ledger, metrics in of_bizs.items():
        try:
            collected = call_merged(ledger.scope, list, metrics)
        except Exception as error:  # noqa: BLE001 - code of one biz, which must not cost everybody their metrics
            _log.warning("metrics of biz %s could not be collected: %s", ledger.biz, in_words(error))
            continue
        for metric in collected:
            family = families.get(metric.name)
            if family is None:
                families[metric.name] = family = copy.copy(metric)
                family.samples = []
            family.samples += [_labelled(sample, str(ledger.biz)) for sample in metric.samples]
    yield from families.values()


def _labelled(sample: Any, biz: str) -> Any:
    labels = {("exported_biz" if label == "biz" else label): value for label, value in sample.labels.items()}
    return sample._replace(labels={**labels, "biz": biz})


def _restricted(module: Any, original: Callable[[Any, Iterable[str]], Any]) -> Any:
    @standing_for(original)
    def restricted_registry(self: Any, names: Iterable[str]) -> Any:
        if self is not module.REGISTRY:
            return original(self, names)
        return _Restricted(self, frozenset(names))

    return restricted_registry


class _Restricted:
    """Some metrics of the registry, as the current biz, or the base, sees the registry."""

    def __init__(self, registry: Any, names: frozenset[str]) -> None:
        self._registry = registry
        self._names = names

    def collect(self) -> Iterator[Any]:
        for metric in self._registry.collect():
            part = metric._restricted_metric(self._names)  # noqa: SLF001 - as the library's own does
            if part:
                yield part


follow: Final = {"prometheus_client.registry": _follow}

"""Prometheus: each biz has a registry of its own in the place of the shared one; a scrape of the base shows them all.

Name and version of the biz are labels of its metrics there. A biz that reads the registry sees the metrics of the biz
alone, as without a base. The registry goes with the biz.
"""

from __future__ import annotations

import copy
import functools
import itertools
import logging
import re
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.adapters.rounds import call_each
from koupleless.errors import in_words
from koupleless.frames import standing_for
from koupleless.ownership.kinds import Kind
from koupleless.ownership.ledger import NOTHING, Pending, owner
from koupleless.ownership.recording import Patches

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from koupleless.biz import BizId
    from koupleless.ownership.ledger import Ledger

distribution: Final = "prometheus-client"

_COLLECTORS: Final = Kind("prometheus collector", "CollectorRegistry.register", "unregistered")
KINDS: Final = (_COLLECTORS,)

_log: Final = logging.getLogger("koupleless")

_registries: Final[dict[Ledger, Any]] = {}
_following: Final[list[Any]] = []
"""The Python module that is followed, so that its registry shows everything by itself."""


class Distribution(NamedTuple):
    """The value of a histogram: numbers by place, the last one beyond all bounds, and the sum of all observations."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class Family(NamedTuple):
    """A metric of ours: its values by the values of its labels."""

    name: str
    kind: str
    """``gauge``, ``counter`` or ``histogram``."""
    text: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float | Distribution]


_readers: Final[dict[object, Callable[[], Iterable[Family]]]] = {}


def publish(read: Callable[[], Iterable[Family]]) -> Callable[[], object]:
    """Show the families returned by ``read`` to scrapes of the base's Prometheus registry.

    Families of one name are added up over all readers. A reader that was published twice counts once. Costs nothing
    where Prometheus is not loaded. Returns the function that ends the publication. Thread-safe.
    """
    key = object()
    _readers[key] = read
    return functools.partial(_readers.pop, key, None)


def collected(registry: Any) -> Iterator[Any]:
    """Yield all families of the default registry as the base: of the base, of the bizs with labels, and ours."""
    if _following:
        yield from registry.collect()
    else:
        yield from itertools.chain(registry.collect(), _own_metrics())


def _own_metrics() -> Iterator[Any]:
    core: Any = sys.modules.get("prometheus_client.metrics_core")
    if core is None:
        return
    families: dict[str, Family] = {}
    for read in dict.fromkeys(list(_readers.values())):  # another container may publish the same
        for family in read():
            known = families.get(family.name)
            families[family.name] = family if known is None else known._replace(values=_added(known, family))
    for family in families.values():
        if family.values:
            yield _as_metric(core, family)


def _added(one: Family, other: Family) -> dict[tuple[str, ...], float | Distribution]:
    values = dict(one.values)
    for labels, value in other.values.items():
        known = values.get(labels)
        if isinstance(known, Distribution) and isinstance(value, Distribution):
            counts = [a + b for a, b in zip(known.counts, value.counts, strict=True)]
            values[labels] = Distribution(known.bounds, counts, known.total + value.total)
        elif isinstance(known, float | int) and isinstance(value, float | int):
            values[labels] = known + value
        else:
            values[labels] = value
    return values


def _as_metric(core: Any, family: Family) -> Any:
    kinds = {"gauge": "GaugeMetricFamily", "counter": "CounterMetricFamily", "histogram": "HistogramMetricFamily"}
    metric = getattr(core, kinds[family.kind])(family.name, family.text, labels=family.labels)
    for labels, value in family.values.items():
        if isinstance(value, Distribution):
            names = [*map(str, value.bounds), "+Inf"]
            buckets = list(zip(names, itertools.accumulate(value.counts), strict=True))
            metric.add_metric(labels, buckets, value.total)
        else:
            metric.add_metric(labels, value)
    return metric


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``prometheus_client.registry``."""
    patches, registry = Patches.until(undo), module.CollectorRegistry
    patches.replace(registry, "register", functools.partial(_register_collector, module))
    patches.replace(registry, "unregister", functools.partial(_unregister_collector, module))
    patches.replace(registry, "collect", functools.partial(_collect, module))
    patches.replace(registry, "restricted_registry", functools.partial(_restricted, module))
    _following.append(module)
    undo.callback(_following.pop)


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
            return _merged(of_base, {life: _metrics_of(own) for life, own in list(_registries.items())})
        own = _registries.get(ledger)
        return () if own is None else original(own)

    return collect


def _metrics_of(own: Any) -> Iterator[Any]:
    """Yield the metrics in a registry of a biz; without those of the process, which the base shows."""
    for collector in list(own._collector_to_names):  # noqa: SLF001 - to tell the collectors apart
        if type(collector).__module__ not in _OF_PROCESS:
            yield from collector.collect()


_OF_PROCESS: Final = frozenset(f"prometheus_client.{name}_collector" for name in ("gc", "platform", "process"))


def _merged(of_base: Iterable[Any], of_bizs: Mapping[Ledger, Iterable[Any]]) -> Iterator[Any]:
    """Merge the families of the base and of all bizs by name; samples of a biz have name and version as labels.

    No biz can spoil the whole: a call that raises or hangs, another type under a known name, and names that would break
    the text are left out, with a warning. Of two lives of one identity the newer one is shown.
    """
    families: dict[str, Any] = {}
    for metric in of_base:
        families[metric.name] = family = copy.copy(metric)
        family.samples = list(metric.samples)
    shown: dict[BizId, tuple[Ledger, list[Any]]] = {}
    calls = [(ledger, functools.partial(_labelled, ledger.biz, metrics)) for ledger, metrics in of_bizs.items()]
    for ledger, answer in call_each(calls):
        if isinstance(answer, BaseException):
            _tell(ledger, f"metrics of biz {ledger.biz} could not be collected: {in_words(answer)}")
            continue
        rival = shown.get(ledger.biz)
        if rival is None or rival[0].scope.generation < ledger.scope.generation:
            shown[ledger.biz] = ledger, answer
    for ledger, metrics in shown.values():
        for metric in metrics:
            family = families.setdefault(metric.name, metric)
            if family.type != metric.type:
                text = f"metric {metric.name} of biz {ledger.biz} is left out: it is a {metric.type}"
                _tell(ledger, f"{text}, and a {family.type} elsewhere in this process")
            elif family is not metric:
                family.samples += metric.samples
    yield from families.values()


def _labelled(biz: BizId, metrics: Iterable[Any]) -> list[Any]:
    """Copy the families of a biz, with name and version in each sample, and without names that would break the text."""
    found = []
    for metric in metrics:
        if _is_plain(metric.name) and _is_plain(metric.type) and not metric.name.startswith(_OURS):
            own = copy.copy(metric)
            own.samples = [_sample(one, biz) for one in metric.samples if all(map(_is_plain, (one.name, *one.labels)))]
            found.append(own)
    return found


def _sample(sample: Any, biz: BizId) -> Any:
    labels = {
        (f"exported_{label}" if label in _LABELS else label): str(value) for label, value in sample.labels.items()
    }
    time = None if sample.timestamp is None else float(sample.timestamp)
    return sample._replace(
        labels={**labels, "biz": biz.name, "version": biz.version}, value=float(sample.value), timestamp=time
    )


_LABELS: Final = ("biz", "version")
_OURS: Final = "koupleless_"
_PLAIN: Final = re.compile(r'[^\s{}"\\,=#]+')


@functools.lru_cache(4096)
def _is_plain(name: str) -> bool:
    return _PLAIN.fullmatch(name) is not None


def _tell(ledger: Ledger, text: str) -> None:
    """Log a warning about a biz, once for each life: scrapes come every few seconds."""
    told = _told.setdefault(ledger, set())
    if text not in told:
        told.add(text)
        _log.warning("%s", text)


_told: Final[weakref.WeakKeyDictionary[Ledger, set[str]]] = weakref.WeakKeyDictionary()


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


def _follow_own(undo: contextlib.ExitStack, module: Any) -> None:  # noqa: ARG001 - goes with the Python module
    """``prometheus_client.registry`` of a biz: the default registry there is the biz's own from the start."""
    ledger = owner()
    if ledger is not None:
        _registries[ledger] = module.REGISTRY
        _COLLECTORS.record(ledger, "of an own copy", functools.partial(_let_go, ledger))


def _let_go(ledger: Ledger) -> Pending:
    _registries.pop(ledger, None)
    return NOTHING


follow: Final = {"prometheus_client.registry": _follow}
follow_own: Final = {"prometheus_client.registry": _follow_own}

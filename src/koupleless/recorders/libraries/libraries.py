"""Recorders and sweeps for registries of shared libraries.

Known are ``logging``, overloads of ``typing``, pydantic, SQLAlchemy, Celery and the signals of blinker and Django
(``telemetry`` has the rest). No library is imported for its recorder: the functions are replaced when the base imports
the library. Registries that Python code can read (lists, dictionaries, hooks) need no recorder: they are swept when a
biz leaves.
"""

from __future__ import annotations

import functools
import logging
import sys
import typing
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.context import current
from koupleless.frames import standing_for
from koupleless.ownership.belonging import attributes
from koupleless.ownership.ledger import NOTHING, Order, Pending, owner, take_out
from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koupleless.context import Scope
    from koupleless.ownership.belonging import Survey
    from koupleless.ownership.ledger import Entry, Ledger
    from koupleless.ownership.recording import Patches


def install(patches: Patches) -> None:
    """Replace the functions that register, of ``logging`` and of libraries that the base has or will have."""
    patches.replace(logging.Logger, "addHandler", functools.partial(_adder, "logging handler", "removeHandler"))
    patches.replace(logging.Logger, "removeHandler", _remover)
    patches.replace(logging.Filterer, "addFilter", functools.partial(_adder, "logging filter", "removeFilter"))
    patches.replace(logging.Filterer, "removeFilter", _remover)
    patches.replace(logging, "_addHandlerRef", _handler_made)
    for name, follow in _LIBRARIES.items():
        patches.when_imported(name, follow)


# --- logging --------------------------------------------------------------------------------------------------------


def _adder(kind: str, remove: str, original: Callable[[Any, Any], None]) -> Any:
    @standing_for(original)
    def add(self: Any, thing: Any) -> None:
        ledger = owner()
        # A handler or filter already present was added by another owner, or is recorded.
        present = ledger is not None and thing in (self.handlers if remove == "removeHandler" else self.filters)
        original(self, thing)
        if ledger is not None and not present:
            _record(ledger, kind, remove, self, thing)

    return add


def _record(ledger: Ledger, kind: str, remove: str, target: Any, thing: Any) -> None:
    # Both weakly: the logger may be the biz's own and die with the biz, and the handler is kept by the logger.
    book: dict[tuple[int, int], Entry] = ledger.notes.setdefault("logging", {})
    key = (id(target), id(thing))
    targets, things = weakref.ref(target), _weakly(thing)

    def undo() -> Pending | None:
        book.pop(key, None)
        target, thing = targets(), things()
        if target is None or thing is None:
            return NOTHING
        try:
            getattr(target, remove)(thing)
        except BaseException:  # noqa: BLE001 - ``==`` of the biz's handler, or of one before it
            take_out(target.handlers if remove == "removeHandler" else target.filters, thing)
        return None

    name = getattr(target, "name", None) or type(target).__name__
    book[key] = ledger.record(kind, f"{type(thing).__name__} on {name}", undo)


def _remover(original: Callable[[Any, Any], None]) -> Any:
    @standing_for(original)
    def remove(self: Any, thing: Any) -> None:
        original(self, thing)
        ledger = owner()
        if ledger is not None:
            entry = ledger.notes.get("logging", {}).pop((id(self), id(thing)), None)
            if entry is not None:
                ledger.forget(entry)

    return remove


def _handler_made(original: Callable[[logging.Handler], None]) -> Any:
    @standing_for(original)
    def _addHandlerRef(handler: logging.Handler) -> None:  # noqa: N802
        original(handler)
        ledger = owner()
        if ledger is None:
            return
        handlers: weakref.WeakKeyDictionary[logging.Handler, None] | None = ledger.notes.get("handlers")
        if handlers is None:
            handlers = ledger.notes["handlers"] = weakref.WeakKeyDictionary()
            ledger.record("logging", "its handlers", functools.partial(_close_handlers, handlers), order=Order.LAST)
        handlers[handler] = None

    return _addHandlerRef


def _close_handlers(handlers: weakref.WeakKeyDictionary[logging.Handler, None]) -> Pending:
    # As logging.shutdown does at interpreter exit, the last made first: a handler may write into one made before.
    for handler in reversed(list(handlers)):
        handler.acquire()
        try:
            handler.flush()
            handler.close()
        except (OSError, ValueError):
            continue  # a stream that was closed before; logging.shutdown ignores the error, too
        finally:
            handler.release()
    return NOTHING


def _weakly(thing: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


# --- caches that need to be known by name ----------------------------------------------------------------------------


def _sweep_overloads(survey: Survey) -> int:
    # typing.get_overloads() finds the variants of a function by the names of Python module and function. So the entry
    # of a Python module called ``app.models`` may hold functions of several bizs and of the base. A variant may be a
    # static or class method. ``overload`` returns the same function each time; an attribute set by another decorator
    # on the returned function stays there.
    registry: dict[str, dict[str, dict[int, Any]]] = getattr(typing, "_overload_registry", {})
    notes: dict[str, Any] = vars(getattr(typing, "_overload_dummy", _sweep_overloads))
    foreign = [name for name, note in list(notes.items()) if survey.reaches_deeply(note)]
    for name in foreign:  # such as __dataclass_transform__
        notes.pop(name, None)
    count = len(foreign)
    for module in survey.names & registry.keys():
        functions = registry[module]
        for name, variants in list(functions.items()):
            doomed = [line for line, variant in list(variants.items()) if survey.reaches(variant)]
            for line in doomed:
                variants.pop(line, None)
            count += len(doomed)
            if not variants:
                functions.pop(name, None)
        if not functions:
            registry.pop(module, None)
    return count


def _sweep_pydantic(survey: Survey) -> int:
    # The values are weak, the keys are not: a key that mentions a class of the biz keeps the class.
    cache = getattr(sys.modules.get("pydantic._internal._generics"), "_GENERIC_TYPES_CACHE", None)
    data: dict[Any, Any] | None = getattr(cache, "data", None)
    if data is None:
        return 0
    doomed = [key for key in list(data) if survey.reaches(key)]
    for key in doomed:
        data.pop(key, None)
    return len(doomed)


# --- SQLAlchemy -----------------------------------------------------------------------------------------------------

# Tables that left with their bizs, and engines used by bizs: compiled statements are searched for both.
_tables: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_engines: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def _follow_tables(patches: Patches, module: Any) -> None:
    patches.replace(module.MetaData, "_add_table", _add_table)
    patches.replace(module.Table, "append_column", _append_column)


def _add_table(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def _add_table(self: Any, name: str, schema: str | None, table: Any) -> None:
        original(self, name, schema, table)
        ledger = owner()
        if ledger is not None:
            undo = functools.partial(_remove_table, weakref.ref(self), weakref.ref(table))
            ledger.record("sqlalchemy table", name, undo)

    return _add_table


def _remove_table(of: Callable[[], Any], which: Callable[[], Any]) -> Pending | None:
    metadata, table = of(), which()
    if table is not None:
        _tables.add(table)
    if metadata is None or table is None or metadata.tables.get(table.key) is not table:
        return NOTHING
    metadata.remove(table)
    return None


def _append_column(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def append_column(self: Any, column: Any, **kwargs: Any) -> None:
        original(self, column, **kwargs)
        ledger = owner()
        if ledger is not None:
            undo = functools.partial(_remove_column, weakref.ref(self), weakref.ref(column))
            ledger.record("sqlalchemy column", column.key, undo)

    return append_column


def _remove_column(of: Callable[[], Any], which: Callable[[], Any]) -> Pending | None:
    table, column = of(), which()
    if table is None or column is None or table.columns.get(column.key) is not column:
        return NOTHING
    table._columns.remove(column)  # noqa: SLF001 - there is no public way back
    return None


def _follow_engines(patches: Patches, module: Any) -> None:
    patches.replace(module.Connection, "__init__", _connection_init)


def _connection_init(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        if owner() is not None:
            _engines.add(self.engine)

    return __init__


# Registries of mappers -> the lives of the bizs that made the registries. Registries of the base are absent.
_registries: Final[weakref.WeakKeyDictionary[Any, weakref.ref[Scope]]] = weakref.WeakKeyDictionary()


def _follow_registries(patches: Patches, module: Any) -> None:
    patches.replace(module.registry, "__init__", _registry_init)


def _registry_init(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        scope = current()
        if scope is not None:
            _registries[self] = weakref.ref(scope)

    return __init__


def maker_of(registry: Any) -> Scope | None:
    """Return the life of the biz that made a registry of SQLAlchemy's mappers; ``None`` for the base."""
    made_by = _registries.get(registry)
    return None if made_by is None else made_by()


def _sweep_listeners(survey: Survey) -> int:
    # A listener on a class stands in a dictionary with weak keys, even if the class is the biz's own. The listener
    # refers to the Python module, and the Python module to the class, so the entry keeps itself alive.
    registry = sys.modules.get("sqlalchemy.event.registry")
    collections: dict[Any, dict[Any, Any]] = getattr(registry, "_collection_to_key", {})
    count = 0
    for reference, listeners in list(collections.items()):
        collection = reference()
        doomed = [listener for known in list(listeners) if survey.reaches(listener := known())]
        if collection is None or not doomed:
            continue
        by_class = getattr(collection, "_clslevel", None)
        kept = [collection.listeners] if by_class is None else list(by_class.values())
        for listener in doomed:
            for entries in kept:
                if listener in entries:
                    entries.remove(listener)
            getattr(collection, "propagate", set()).discard(listener)
        registry._clear(collection, doomed)  # type: ignore[union-attr]  # noqa: SLF001 - as its own clear() does
        count += len(doomed)
    return count


def _sweep_mappers(survey: Survey) -> int:
    """Take classes of the biz out of mappers of the base: mappers know each other by relationships. Returns a count."""
    registries = list(getattr(sys.modules.get("sqlalchemy.orm.mapper"), "_mapper_registries", ()))
    managers = [manager for registry in registries for manager in list(registry._managers)]  # noqa: SLF001
    mappers = [manager.mapper for manager in managers if attributes(manager).get("mapper") is not None]
    # A model may look like a class of several bizs; then the model belongs to the maker of its registry.
    kept = {mapper for mapper in mappers if (scope := maker_of(mapper.registry)) is not None and not scope.is_closed}
    doomed = {mapper for mapper in mappers if survey.owns_class(mapper.class_)} - kept
    if not doomed:
        return 0
    for mapper in mappers:
        if mapper not in doomed:
            _part(mapper, doomed)
    for mapper in doomed:
        registry, manager = mapper.registry, mapper.class_manager
        registry._dispose_manager_and_mapper(manager)  # noqa: SLF001 - as its dispose() does
        registry._managers.pop(manager, None)  # noqa: SLF001 - the next configure_mappers() would stumble over it
    return len(doomed)


def _part(mapper: Any, doomed: set[Any]) -> None:
    for key, prop in list(mapper._props.items()):  # noqa: SLF001 - a mapper has no way to take a property back
        own = attributes(prop) or {}
        if own.get("entity") in doomed or own.get("mapper") in doomed:
            mapper._props.pop(key)  # noqa: SLF001
            mapper._init_properties.pop(key, None)  # noqa: SLF001
            manager = mapper.class_manager
            if manager.local_attrs.pop(key, None) is not None:
                type.__delattr__(mapper.class_, key)  # the declarative class refuses the deletion
            manager.uninstrument_attribute(key, True)
    known: list[Any] = mapper._dependency_processors  # noqa: SLF001
    known[:] = [processor for processor in known if processor.mapper not in doomed and processor.parent not in doomed]
    for identity in [identity for identity, sub in mapper.polymorphic_map.items() if sub in doomed]:
        mapper.polymorphic_map.pop(identity)
    mapper._expire_memoizations()  # noqa: SLF001


def _sweep_statements(survey: Survey) -> int:
    """Drop compiled statements about the biz's classes and tables from caches of engines used by bizs."""
    count = 0
    for engine in list(_engines):
        cache: Any = getattr(engine, "_compiled_cache", None)
        for key in list(cache or ()):
            if any(_is_of(survey, part) for part in _flat(key)):
                cache.pop(key, None)
                count += 1
    return count


def _is_of(survey: Survey, part: Any) -> bool:
    kind = part if isinstance(part, type) else getattr(part, "class_", None)
    if isinstance(kind, type):
        return survey.owns_class(kind)
    return type(part).__module__ == "sqlalchemy.sql.schema" and part in _tables


def _flat(key: Any) -> Iterator[Any]:
    todo = [key]
    while todo:
        part = todo.pop()
        if type(part) is tuple:
            todo += part
        elif not isinstance(part, (str, int)) and part is not None:
            yield part


# --- blinker, Django: receivers of a base's signal -------------------------------------------------------------------


class _Signals(NamedTuple):
    """How signals of one library keep their receivers."""

    entries: Callable[[Any], dict[Any, Any]]
    """From a signal, return receivers, or weak references to receivers, by key."""
    take_out: Callable[[Any, Any], object]
    """Take the receiver with the given key out of the given signal."""


def _follow_signals(kind: _Signals, patches: Patches, module: Any) -> None:
    patches.replace(module.Signal, "connect", functools.partial(_connect, kind))
    patches.replace(module.Signal, "disconnect", functools.partial(_disconnect, kind))


def _connect(kind: _Signals, original: Callable[..., Any]) -> Any:
    @standing_for(original)
    def connect(self: Any, receiver: Any, *args: Any, **kwargs: Any) -> Any:
        ledger = owner()
        if ledger is None:
            return original(self, receiver, *args, **kwargs)
        before = kind.entries(self)
        result = original(self, receiver, *args, **kwargs)
        book: dict[Any, Entry] = ledger.notes.setdefault("receivers", {})
        for key, entry in kind.entries(self).items():
            if before.get(key) is entry:
                continue
            undo = functools.partial(_take_receiver, kind, weakref.ref(self), key, entry)
            what = f"of {getattr(self, 'name', 'a signal')}"
            book[id(self), key] = ledger.record("signal receiver", what, undo)
        return result

    return connect


def _disconnect(kind: _Signals, original: Callable[..., Any]) -> Any:
    @standing_for(original)
    def disconnect(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        ledger = owner()
        if ledger is not None:
            book: dict[Any, Entry] = ledger.notes.get("receivers", {})
            left = kind.entries(self)
            for key in [key for key in list(book) if key[0] == id(self) and key[1] not in left]:
                ledger.forget(book.pop(key))
        return result

    return disconnect


def _take_receiver(kind: _Signals, of: Callable[[], Any], key: Any, entry: Any) -> Pending | None:
    signal = of()
    # A key is made of addresses, and another receiver may have the same addresses by now.
    if signal is None or kind.entries(signal).get(key) is not entry:
        return NOTHING
    kind.take_out(signal, key)
    return None


def _take_from_blinker(signal: Any, key: Any) -> None:
    receiver = signal.receivers[key]
    if isinstance(receiver, weakref.ref):
        receiver = receiver()
    if receiver is not None:
        signal.disconnect(receiver)


def _take_from_django(signal: Any, key: Any) -> None:
    with signal.lock:
        signal.receivers = [entry for entry in signal.receivers if entry[0] != key]
        signal.sender_receivers_cache.clear()


_BLINKER: Final = _Signals(lambda signal: dict(signal.receivers), _take_from_blinker)
_DJANGO: Final = _Signals(lambda signal: {entry[0]: entry[1] for entry in list(signal.receivers)}, _take_from_django)


# --- Celery ----------------------------------------------------------------------------------------------------------


def _sweep_celery(survey: Survey) -> int:
    # ``shared_task`` leaves a function for every application to come, and a task in every application there is.
    state = sys.modules.get("celery._state")
    finalizers: set[Any] = getattr(state, "_on_app_finalizers", set())
    doomed = [function for function in list(finalizers) if survey.reaches(function)]
    for function in doomed:
        finalizers.discard(function)
    count = len(doomed)
    for app in list(getattr(state, "_apps", ())):
        tasks: dict[str, Any] = vars(app).get("_tasks", {})
        for name, task in list(tasks.items()):
            # The class is made by Celery under the name of the function's module, and other bizs may have that name.
            if survey.reaches(vars(type(task)).get("run")):
                tasks.pop(name, None)
                count += 1
    return count


SWEEPS: Final = (
    Sweep("celery task", _sweep_celery),
    Sweep("pydantic generic", _sweep_pydantic),
    Sweep("overload", _sweep_overloads),
    Sweep("sqlalchemy listener", _sweep_listeners),
    Sweep("sqlalchemy mapper", _sweep_mappers),
    Sweep("sqlalchemy statement", _sweep_statements),
)
_LIBRARIES: Final[dict[str, Callable[[Patches, Any], None]]] = {
    "sqlalchemy.sql.schema": _follow_tables,
    "blinker.base": functools.partial(_follow_signals, _BLINKER),
    "django.dispatch.dispatcher": functools.partial(_follow_signals, _DJANGO),
    "sqlalchemy.engine.base": _follow_engines,
    "sqlalchemy.orm.decl_api": _follow_registries,
}
"""Functions that replace functions of a library once the Python module is imported, by name of the Python module."""

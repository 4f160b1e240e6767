"""Recorders and sweeps for SQLAlchemy: tables and columns, listeners, mappers, and compiled statements of a biz."""

from __future__ import annotations

import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.frames import standing_for
from koupleless.ownership.belonging import attributes
from koupleless.ownership.kinds import Kind
from koupleless.ownership.ledger import NOTHING, Pending, owner
from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koupleless.context import Scope
    from koupleless.ownership.belonging import Survey
    from koupleless.ownership.recording import Patches


_TABLES: Final = Kind("sqlalchemy table", "sqlalchemy.Table()", "MetaData.remove")
_COLUMNS: Final = Kind("sqlalchemy column", "Table.append_column", "taken out")
KINDS: Final = (_TABLES, _COLUMNS)


def install(patches: Patches) -> None:
    """Replace the methods for making tables, connections and registries of mappers, once SQLAlchemy is imported."""
    patches.when_imported("sqlalchemy.sql.schema", _follow_tables)
    patches.when_imported("sqlalchemy.engine.base", _follow_engines)
    patches.when_imported("sqlalchemy.orm.decl_api", _follow_registries)


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
            _TABLES.record(ledger, name, undo)

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
            _COLUMNS.record(ledger, column.key, undo)

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


SWEEPS: Final = (
    Sweep("sqlalchemy listener", "sqlalchemy.event.listen", _sweep_listeners),
    Sweep("sqlalchemy mapper", "mappers of the base, with relationships", _sweep_mappers),
    Sweep("sqlalchemy statement", "compiled statements of engines", _sweep_statements),
)

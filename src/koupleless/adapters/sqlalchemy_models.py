"""Models of SQLAlchemy: tables, columns, mappers and compiled statements of a biz leave the base with the biz."""

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
from koupleless.ownership.recording import Patches

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

    from koupleless.adapters.leaving import Leaving
    from koupleless.context import Scope

distribution: Final = "sqlalchemy"
module: Final = "sqlalchemy"
released: Final = {
    "sqlalchemy mapper": "mappers of the base, with relationships",
    "sqlalchemy statement": "compiled statements of engines",
}

_TABLES: Final = Kind("sqlalchemy table", "sqlalchemy.Table()", "MetaData.remove")
_COLUMNS: Final = Kind("sqlalchemy column", "Table.append_column", "taken out")
KINDS: Final = (_TABLES, _COLUMNS)

# Tables that left with their bizs, and engines used by bizs: compiled statements are searched for both.
_tables: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_engines: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def _follow_tables(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.sql.schema``."""
    patches = Patches.until(undo)
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


def _follow_engines(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.engine.base``."""
    Patches.until(undo).replace(module.Connection, "__init__", _connection_init)


def _connection_init(original: Callable[..., None]) -> Any:
    @standing_for(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        if owner() is not None:
            _engines.add(self.engine)

    return __init__


# Registries of mappers -> the lives of the bizs that made the registries. Registries of the base are absent.
_registries: Final[weakref.WeakKeyDictionary[Any, weakref.ref[Scope]]] = weakref.WeakKeyDictionary()


def _follow_registries(undo: contextlib.ExitStack, module: Any) -> None:
    """``sqlalchemy.orm.decl_api``."""
    Patches.until(undo).replace(module.registry, "__init__", _registry_init)


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


def _release_mappers(leaving: Leaving) -> int:
    """Take classes of the biz out of mappers of the base: mappers know each other by relationships. Returns a count."""
    registries = list(getattr(sys.modules.get("sqlalchemy.orm.mapper"), "_mapper_registries", ()))
    managers = [manager for registry in registries for manager in list(registry._managers)]  # noqa: SLF001
    mappers = [manager.mapper for manager in managers if attributes(manager).get("mapper") is not None]
    # A model may look like a class of several bizs; then the model belongs to the maker of its registry.
    kept = {mapper for mapper in mappers if _is_of_another(maker_of(mapper.registry), leaving)}
    doomed = {mapper for mapper in mappers if leaving.owns(mapper.class_)} - kept
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


def _is_of_another(maker: Scope | None, leaving: Leaving) -> bool:
    """Tell whether a present biz, and not the leaving one, has made a registry."""
    return maker is not None and not maker.is_closed and maker.generation != leaving.life


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


def _release_statements(leaving: Leaving) -> int:
    """Drop compiled statements about the biz's classes and tables from caches of engines used by bizs."""
    count = 0
    for engine in list(_engines):
        cache: Any = getattr(engine, "_compiled_cache", None)
        for key in list(cache or ()):
            if any(_is_of(leaving, part) for part in _flat(key)):
                cache.pop(key, None)
                count += 1
    return count


def _is_of(leaving: Leaving, part: Any) -> bool:
    kind = part if isinstance(part, type) else getattr(part, "class_", None)
    if isinstance(kind, type):
        return leaving.owns(kind)
    return type(part).__module__ == "sqlalchemy.sql.schema" and part in _tables


def _flat(key: Any) -> Iterator[Any]:
    todo = [key]
    while todo:
        part = todo.pop()
        if type(part) is tuple:
            todo += part
        elif not isinstance(part, (str, int)) and part is not None:
            yield part


def release(leaving: Leaving) -> dict[str, int]:
    """Take the mappers of the biz out, then the statements that were compiled for them."""
    return {"sqlalchemy mapper": _release_mappers(leaving), "sqlalchemy statement": _release_statements(leaving)}


follow: Final = {
    "sqlalchemy.sql.schema": _follow_tables,
    "sqlalchemy.engine.base": _follow_engines,
    "sqlalchemy.orm.decl_api": _follow_registries,
}

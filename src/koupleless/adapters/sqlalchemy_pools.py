"""Pools of SQLAlchemy: connections of a biz are closed with the biz, in use or not.

Disposing of a pool leaves connections in use open.
"""

from __future__ import annotations

from typing import Any, Final

from koupleless.ownership.ledger import Order
from koupleless.recorders.running.closing import Closer

distribution: Final = "sqlalchemy"


def _close_record(record: Any, _: float) -> bool:
    """Close a connection of a pool."""
    connection = record.dbapi_connection
    if connection is None or hasattr(connection, "driver_connection"):
        return False  # a connection of an event loop; the transport is closed with the others
    try:
        connection.close()
    except Exception:  # noqa: BLE001 - a driver may allow this to the thread alone that has opened it (sqlite3)
        return False
    record.dbapi_connection = None  # nobody rolls the connection back then
    return True


KINDS: Final = (Closer("database connection", "sqlalchemy.pool.base", "_ConnectionRecord", _close_record, Order.LAST),)

follow: Final = {closer.module: closer.follow for closer in KINDS}
follow_own: Final = follow
"""Followed in own copies and own versions of a biz, too."""

"""redis: connection pools of a biz are disconnected with the biz."""

from __future__ import annotations

from typing import Final

from koupleless.ownership.ledger import Order
from koupleless.recorders.running.closing import Closer, calling

distribution: Final = "redis"

KINDS: Final = (Closer("connection pool", "redis.connection", "ConnectionPool", calling("disconnect"), Order.LAST),)
follow: Final = {closer.module: closer.follow for closer in KINDS}
follow_own: Final = follow
"""Followed in own copies and own versions of a biz, too."""

"""psycopg2: connection pools of a biz are closed with the biz."""

from __future__ import annotations

from typing import Final

from koupleless.recorders.running.closing import Closer, calling

distribution: Final = "psycopg2"

KINDS: Final = (
    Closer("connection pool", "psycopg2.pool", "AbstractConnectionPool", calling("closeall", unless="closed")),
)
follow: Final = {closer.module: closer.follow for closer in KINDS}
follow_own: Final = follow
"""Followed in own copies and own versions of a biz, too."""

"""Tell a biz that expects another time zone than the process's: a process has one.

``datetime`` is a C type shared by all: ``now()``, ``fromtimestamp()``, ``timestamp()`` and ``astimezone()`` of naive
values ask the C library, which knows one zone for all threads. Functions of ``time`` could answer for a biz, but would
then contradict ``datetime``, and results computed with both would be wrong without a sign. So both answer for the
process.
"""

from __future__ import annotations

import datetime as dt
import os
import time
import zoneinfo

from koupleless.context import as_base

_MONTHS = (1, 7)
"""Months, one of which has summer time if the zone has any."""


def is_of_process() -> bool:
    """Tell whether the running biz expects the zone of the process: by its name, or by offsets in winter and summer."""
    mine = os.environ.get("TZ")
    with as_base():
        if mine == os.environ.get("TZ"):
            return True
    try:
        zone = zoneinfo.ZoneInfo((mine or "UTC").removeprefix(":"))
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    months = [dt.datetime(2026, month, 1, tzinfo=zone) for month in _MONTHS]
    return all(time.localtime(moment.timestamp()).tm_gmtoff == _seconds(moment) for moment in months)


def _seconds(moment: dt.datetime) -> float:
    offset = moment.utcoffset()
    return 0.0 if offset is None else offset.total_seconds()


def other_zone() -> str | None:
    """Return words for the running biz if it expects another zone than the process has; ``None`` if not."""
    if is_of_process():
        return None
    mine = os.environ.get("TZ")
    with as_base():
        known = os.environ.get("TZ") or "/".join(dict.fromkeys(time.tzname))
    return (
        f"the time zone of the biz is {mine!r} (TZ), but local times without a zone, as of `datetime.now()` and "
        f"`time.localtime()`, are those of the process, {known}; start the base with TZ={mine}, or compute with aware "
        f"times, as `datetime.now(ZoneInfo({mine!r}))`"
    )

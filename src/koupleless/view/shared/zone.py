"""Local time. A process has one time zone, and a biz that expects another one is told.

``datetime`` is a C type that all share: ``now()``, ``fromtimestamp()``, ``timestamp()`` and ``astimezone()`` of naive
values ask the C library, which knows one zone for all threads. Functions of ``time`` could answer for a biz, but then
contradict ``datetime``, so that what a biz computes with both would be wrong without a sign. So neither does.
"""

from __future__ import annotations

import datetime as dt
import os
import time
import zoneinfo

from koupleless.context import as_base

_MONTHS = (1, 7)
"""In one of them there is summer time, where there is any."""


def is_of_process() -> bool:
    """Whether the running biz expects the zone of the process: by its name, or by its offsets in winter and summer."""
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
    """Words for a biz, which is running, that expects another zone than the process has; ``None`` if it does not."""
    if is_of_process():
        return None
    mine = os.environ.get("TZ")
    with as_base():
        known = os.environ.get("TZ") or "/".join(dict.fromkeys(time.tzname))
    return (
        f"its time zone is {mine!r} (TZ), but local times without a zone, as of `datetime.now()` and "
        f"`time.localtime()`, are those of the process, {known}; start the base with TZ={mine}, or compute with aware "
        f"times, as `datetime.now(ZoneInfo({mine!r}))`"
    )

"""Times as the API server writes them (RFC 3339), and as numbers."""

from __future__ import annotations

import datetime as dt


def seconds_of(time: str) -> float:
    """Return a time of the API server (RFC 3339) in seconds since the epoch."""
    return dt.datetime.fromisoformat(time).timestamp()


def time_text(seconds: float) -> str:
    """Return a time in the form of the API server, in whole seconds."""
    moment = dt.datetime.fromtimestamp(int(seconds), dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

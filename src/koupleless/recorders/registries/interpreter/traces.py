"""Sweeps of traces that a biz leaves without registering: the last exception, shown warnings, lines of sources."""

from __future__ import annotations

import linecache
import sys
from typing import TYPE_CHECKING, Final

from koupleless.ownership.belonging import tables_of_base
from koupleless.ownership.ledger import take_out
from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    import types
    from collections.abc import Iterable

    from koupleless.ownership.belonging import Survey


def _forget_exceptions(survey: Survey) -> int:
    trace = getattr(sys, "last_traceback", None)
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    is_ours = survey.owns(error) or any(survey.owns(part) for part in _traces(trace))
    if is_ours:
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            if hasattr(sys, name):
                delattr(sys, name)
    return int(is_ours)


def _traces(trace: types.TracebackType | None) -> Iterable[types.TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _forget_warnings(survey: Survey) -> int:
    """Drop warning categories of the biz from the ``__warningregistry__`` of all Python modules. Returns the number."""
    count = 0
    for registry in [table["__warningregistry__"] for table in tables_of_base() if "__warningregistry__" in table]:
        if type(registry) is not dict:
            continue
        for key in list(registry):
            if type(key) is tuple and any(survey.owns(part) for part in key):
                take_out(registry, key)
                count += 1
    return count


def _forget_sources(survey: Survey) -> int:
    """Remove the lines of source files of the biz from ``linecache``. Not counted: the lines were not registered."""
    for file in survey.files:
        linecache.cache.pop(file, None)
    return 0


SWEEPS: Final = (
    Sweep("stored exception", "sys.last_exc", _forget_exceptions),
    Sweep("shown warning", "warnings shown in Python modules", _forget_warnings),
    Sweep("source line", "linecache.cache", _forget_sources),
)

"""Sweep of the overloads of ``typing``: the variants of functions of a biz leave with the biz."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    from koupleless.ownership.belonging import Survey


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


SWEEPS: Final = (Sweep("overload", "typing.overload", _sweep_overloads),)

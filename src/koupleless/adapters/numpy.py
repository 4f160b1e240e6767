"""NumPy: each biz has a global random generator of its own, which the biz may seed.

The functions of ``numpy.random`` use this generator, and other libraries take it for their default (``mtrand._rand``).
The handling of errors and the printing of arrays are context variables, and a biz has a context of its own.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.contextual import assign_by_context
from koupleless.ownership.kinds import Own
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

distribution: Final = "numpy"


def _follow_random(undo: contextlib.ExitStack, module: Any) -> None:
    """``numpy.random``."""
    compiled = importlib.import_module("numpy.random.mtrand")
    of_base = compiled._rand  # noqa: SLF001 - others name it so, too
    own: Own[dict[str, Any]] = Own(lambda: {"_rand": compiled.RandomState()})
    aliases = {"seed": "seed", "ranf": "random_sample", "sample": "random_sample"}

    def set_bit_generator(generator: Any) -> None:
        mine = own.get()
        if mine is None:
            original(generator)
        else:
            mine["_rand"] = compiled.RandomState(generator)

    for place in (module, compiled):
        for label, member in list(vars(place).items()):
            if getattr(member, "__self__", None) is of_base:
                replace(undo, place, label, _by_biz(label, member, own, label))
            elif label in aliases:
                replace(undo, place, label, _by_biz(label, member, own, aliases[label]))
            elif label == "set_bit_generator":
                original = member
                replace(undo, place, label, functools.wraps(member)(set_bit_generator))
            elif label == "get_bit_generator":
                replace(undo, place, label, _by_biz(label, member, own, "_get_bit_generator"))
    assign_by_context(undo, compiled, "_rand", own.get)


def _by_biz(label: str, original: Callable[..., Any], own: Own[dict[str, Any]], method: str) -> Callable[..., Any]:
    def by_biz(*args: Any, **kwargs: Any) -> Any:
        mine = own.get()
        if mine is None:
            return original(*args, **kwargs)
        if method == "_get_bit_generator":
            return mine["_rand"]._bit_generator  # noqa: SLF001 - as the original does
        return getattr(mine["_rand"], method)(*args, **kwargs)

    by_biz.__name__ = by_biz.__qualname__ = label
    by_biz.__module__ = "numpy.random"
    by_biz.__doc__ = original.__doc__
    return by_biz


follow: Final = {
    "numpy.random": _follow_random,
    # Where the options are no context variable: NumPy 1.
    "numpy.core.arrayprint": lambda undo, module: own_containers(undo, module, "_format_options"),
}

"""The owner of code in a registry: a library that bizs share, or the base alone."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from koupleless.isolation.interpreter import find_of_base
from koupleless.isolation.libraries.distributions import base_index
from koupleless.isolation.libraries.holding import Holding, Speakers, decide

if TYPE_CHECKING:
    from koupleless.isolation.libraries.installed.index import Index

_OURS: Final = "koupleless."
"""Stand-ins for objects of a library: containers that look at their entries themselves."""
_PLAIN: Final = frozenset({bool, bytes, complex, float, int, str, type(None), dict})


def is_of_base_alone(thing: Any) -> bool:
    """Whether ``thing`` is code of the base that no biz has: a function, a class or an instance, or a tuple with one.

    Such code is the application of the base, and libraries of which each biz has a copy: a biz with a copy registers
    again whatever the library registers. Plain data has no owner.
    """
    kind = type(thing)
    if kind in _PLAIN or kind.__module__.startswith(_OURS):
        return False
    if kind in (tuple, list, set, frozenset):
        return any(map(is_of_base_alone, thing))
    if isinstance(thing, functools.partial):
        return is_of_base_alone(thing.func)
    if isinstance(thing, classmethod | staticmethod | types.MethodType):
        return is_of_base_alone(thing.__func__)
    name = getattr(thing if hasattr(thing, "__qualname__") else kind, "__module__", None)
    return type(name) is str and _belongs_to_base_alone(base_index(), name)


@functools.lru_cache(maxsize=1024)
def _belongs_to_base_alone(index: Index, name: str) -> bool:
    if name.partition(".")[0] in sys.stdlib_module_names:
        return False
    owners = index.owners(name)
    if not owners:
        return getattr(find_of_base(name), "__file__", None) is not None
    holdings = decide(index, Speakers())
    return not any(owner in holdings and holdings[owner].holding is Holding.SHARED for owner in owners)

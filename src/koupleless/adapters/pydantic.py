"""Pydantic: entries about classes of a biz leave the cache of generic models with the biz."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from koupleless.adapters.leaving import Leaving

distribution: Final = "pydantic"
versions: Final = ">=2"
module: Final = "pydantic._internal._generics"
released: Final = {"pydantic generic": "parametrised generic models"}


def release(leaving: Leaving) -> dict[str, int]:
    """Take the entries with a class of the biz out of the cache."""
    # The values are weak, the keys are not: a key that mentions a class of the biz keeps the class.
    cache = getattr(sys.modules[module], "_GENERIC_TYPES_CACHE", None)
    data: dict[Any, Any] = getattr(cache, "data", {})
    doomed = [key for key in list(data) if leaving.owns(key)]
    for key in doomed:
        data.pop(key, None)
    return {"pydantic generic": len(doomed)}

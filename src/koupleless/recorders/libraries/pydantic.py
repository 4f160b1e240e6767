"""Sweep of pydantic's cache of generic models: entries about classes of a biz leave with the biz."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    from koupleless.ownership.belonging import Survey


def _sweep_pydantic(survey: Survey) -> int:
    # The values are weak, the keys are not: a key that mentions a class of the biz keeps the class.
    cache = getattr(sys.modules.get("pydantic._internal._generics"), "_GENERIC_TYPES_CACHE", None)
    data: dict[Any, Any] | None = getattr(cache, "data", None)
    if data is None:
        return 0
    doomed = [key for key in list(data) if survey.reaches(key)]
    for key in doomed:
        data.pop(key, None)
    return len(doomed)


SWEEPS: Final = (Sweep("pydantic generic", "parametrised generic models", _sweep_pydantic),)

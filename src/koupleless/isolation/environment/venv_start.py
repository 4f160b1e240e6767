"""The search path of an interpreter that a biz has started. Runs in that process, before anything else does.

The virtual environment of a biz has a link to this file. It imports nothing that the interpreter has not imported by
then, and no other file of ours.
"""

from __future__ import annotations

import os
import site
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


def extend(program: Sequence[str], libraries: Sequence[str], base: Sequence[str], *, keeps_base: bool) -> None:
    """Let ``sys.path`` go on with what the biz finds.

    ``program`` are directories of modules, ``libraries`` those that distributions are installed in, each in the order
    of the search. ``base`` are the entries of the base's own search path: where this process has inherited one, it
    counts for less than those of the biz, or for nothing, unless ``keeps_base``.
    """
    sys.path += [entry for entry in program if entry not in sys.path]
    for directory in libraries:
        site.addsitedir(directory)
    sys.meta_path.insert(0, _Order([*program, *libraries], base, keeps_base=keeps_base))


class _Order:
    """Asked for the program's first import, when its own entry is there: puts the path in order, and goes."""

    def __init__(self, own: Sequence[str], base: Sequence[str], *, keeps_base: bool) -> None:
        self._own = {*own} - {*base}
        self._base = {*base}
        self._keeps_base = keeps_base

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - a finder
        if _is_starting():
            return
        # Not out of the list itself: the interpreter is going through it, and would leave out the next one.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        try:
            here = os.getcwd()  # noqa: PTH109 - as the path finder; pathlib takes long to import
        except OSError:
            here = ""
        inherited = dict.fromkeys(entry for entry in sys.path if (entry or here) in self._base)
        others = [entry for entry in sys.path if (entry or here) not in self._base]
        last = max((place for place, entry in enumerate(others) if entry in self._own), default=len(others) - 1)
        sys.path[:] = [*others[: last + 1], *(inherited if self._keeps_base else ()), *others[last + 1 :]]


def _is_starting() -> bool:
    """Whether the interpreter is still looking for what is installed, and other customisations."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - there is no other way to know
    while frame is not None:
        if frame.f_globals is vars(site):
            return True
        frame = frame.f_back
    return False

"""Extend the search path of an interpreter started by a biz. Runs in the child process, before anything else does.

The virtual environment of a biz has a link to this file. The file imports only modules that the interpreter has
imported by then, and no other file of ours.
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
    """Let ``sys.path`` go on with the directories of the biz.

    ``program`` are directories of modules, ``libraries`` are directories with installed distributions, each in the
    order of the search. ``base`` are the entries of the base's own search path: where this process has inherited one,
    such an entry comes after the biz's with ``keeps_base``, and is dropped without.
    """
    sys.path += [entry for entry in program if entry not in sys.path]
    for directory in libraries:
        site.addsitedir(directory)
    sys.meta_path.insert(0, _Order([*program, *libraries], base, keeps_base=keeps_base))


class _Order:
    """Finder asked for the program's first import, when the program's own entry is there: orders the path, and goes."""

    def __init__(self, own: Sequence[str], base: Sequence[str], *, keeps_base: bool) -> None:
        self._own = {*own} - {*base}
        self._base = {*base}
        self._keeps_base = keeps_base

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - a finder
        if _is_starting():
            return
        # A new list: the interpreter is going through the old one, and would leave out the next finder after a removal.
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
    """Tell whether the interpreter is still looking for installed distributions and other customisations."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - there is no other way to know
    while frame is not None:
        if frame.f_globals is vars(site):
            return True
        frame = frame.f_back
    return False

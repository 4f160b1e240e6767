"""Finds and frees shared libraries without users: a library may go if no object outside of the library refers to it.

A library loaded for bizs belongs to the process when the last user has left. Reference counts tell whether anything
outside refers to the library: all objects reached from the library's Python modules must have as many references from
one another as the counts say. Every reference of unknown origin (C code, a callback registered with the interpreter, a
global of the base) counts as a holder, so in doubt a library stays.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.ownership.belonging import Survey
from koupleless.ownership.caches import purge_caches, purge_typing
from koupleless.ownership.collect import collect_these, reach
from koupleless.ownership.registered import Overloads, registrations

if TYPE_CHECKING:
    import types
    from collections.abc import Collection, Mapping
    from typing import Any

_ITSELF: Final = BizId.of("idle-libraries", "1")


class Idle:
    """Python modules of libraries, taken out of the interpreter's table, by library; tells which are held.

    Threads: made, asked and dropped by one thread, while no other thread can import the Python modules. Refers to the
    Python modules, so nothing is freed before `free` is called.
    """

    def __init__(self, libraries: Mapping[str, Mapping[str, types.ModuleType]], *, kept: Mapping[int, int]) -> None:
        """Copy ``libraries``; ``kept`` has the caller's number of references to each Python module, by address."""
        self._kept = kept
        self._libraries = {library: dict(modules) for library, modules in libraries.items()}
        self._home = {name: library for library, modules in libraries.items() for name in modules}

    def find_free(self) -> frozenset[str]:
        """Find the libraries without a holder outside of them; libraries that hold each other are free together."""
        free = set(self._libraries)
        while free:
            held = self._held(free)
            if not held:
                break
            free -= held
        return frozenset(free)

    def free(self, libraries: Collection[str]) -> int:
        """Let go of some libraries and collect their objects; returns the number of Python modules that live on."""
        modules = {name: module for library in libraries for name, module in self._libraries.pop(library).items()}
        survey = Survey(Scope(_ITSELF), modules)
        Overloads(modules)
        _take_back(survey)
        doomed = list(reach(survey).values())
        modules.clear()
        self._home.clear()
        collect_these(doomed)
        return len(survey.alive())

    def _held(self, libraries: Collection[str]) -> set[str]:
        """Find those of ``libraries`` that an object outside of all ``libraries`` holds."""
        modules = {name: module for library in libraries for name, module in self._libraries[library].items()}
        survey = Survey(Scope(_ITSELF), modules)
        overloads = Overloads(modules)
        try:
            purge_typing()
            purge_caches(survey)
            asked = {id(module): self._kept.get(id(module), 0) + _OURS for module in modules.values()}
            held = _held_modules(survey, asked)
        finally:
            overloads.put_back()
        return {self._home[name] for name in held if name in self._home}


def _registered(survey: Survey, reached: Mapping[int, Any]) -> list[int]:
    """List the addresses of ``reached`` in the interpreter's registries for the libraries, once for each reference."""
    things = [registration.thing for registration in registrations(survey)]
    held = [id(thing) for thing in things if id(thing) in reached]
    for thing in things:
        if id(thing) not in reached:
            held += [id(part) for part in gc.get_referents(thing) if id(part) in reached]
    return held


def _take_back(survey: Survey) -> None:
    for registration in registrations(survey):
        with contextlib.suppress(Exception):  # code of a library, which goes despite errors
            registration.take_back()


def _held_modules(survey: Survey, asked: Mapping[int, int]) -> set[str]:
    """Name the Python modules that can be reached from an object held outside.

    ``asked`` has the number of the caller's references to each Python module, by address.
    """
    reached = reach(survey)
    cores = {id(thing): name for name, thing in survey.survivors() if id(thing) in reached}
    uses: Counter[int] = Counter()
    holders: dict[int, list[int]] = {}
    for key, thing in reached.items():
        for part in gc.get_referents(thing):
            if id(part) in reached:
                uses[id(part)] += 1
                holders.setdefault(id(part), []).append(key)
    uses.update(_registered(survey, reached))
    thing = part = None
    # From the Python modules outwards: find the objects that lead to a Python module.
    leads = dict(cores)
    order = list(cores)
    for key in order:
        for holder in holders.get(key, ()):
            if holder not in leads:
                leads[holder] = leads[key]
                order.append(holder)
    # Besides the counted references, the dictionary and the argument refer to each object.
    entries = [key for key in order if sys.getrefcount(reached[key]) - 2 - asked.get(key, 0) > uses[key]]
    return _all_led_to(entries, reached, cores)


_OURS: Final = 2
"""Number of dictionaries of this room with a reference to a Python module during the search."""


def _all_led_to(entries: list[int], reached: Mapping[int, Any], cores: Mapping[int, str]) -> set[str]:
    """Name the Python modules that can be reached from ``entries``."""
    todo, seen = list(entries), set(entries)
    found = set()
    while todo:
        key = todo.pop()
        if key in cores:
            found.add(cores[key])
        for part in gc.get_referents(reached[key]):
            if id(part) in reached and id(part) not in seen:
                seen.add(id(part))
                todo.append(id(part))
    return found

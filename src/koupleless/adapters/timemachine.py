"""time-machine: a biz that travels in time travels alone.

The library replaces the functions of ``time`` and ``datetime`` in C, for the process. At each call these look in the
table of the interpreter for the Python module ``time_machine``, and in there for the journeys under way; without any
they answer as ever. Here the journeys are by context, in every copy of the library, and while anybody travels there is
a Python module of this name in the table: the base's, or a stand-in. The first traveller has the functions replaced,
the last has them put back. One copy of the library does so for all, since a second one, perhaps in another version,
would take the functions of the first for the real ones.

A version before 3.3 imports ``time_machine`` at each call, and fails where there is none: there the refusal of
`koupleless.patching` stays in place.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import weakref
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.variables import own_variables
from koupleless.contextual import ContextList
from koupleless.frames import standing_for
from koupleless.isolation.interpreter import REAL, apart, exposing, withholding
from koupleless.ownership.kinds import Kind, Own
from koupleless.ownership.ledger import owner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.ownership.ledger import Entry, Ledger

distribution: Final = "time-machine"

_NAME: Final = "time_machine"
_JOURNEY: Final = Kind("faked clock", "time_machine.travel", "the module is in the present again")
KINDS: Final = (_JOURNEY,)
_VARIABLES: Final = ("naive_mode", "original_uuid_generate_time_safe", "original_uuid_uuid_create")


class _Clocks:
    """The functions that are replaced in C, and who travels; the process has them once.

    Threads: any. The lock guards the travellers, and the replacing and putting back.
    """

    def __init__(self) -> None:
        self.journeys: ContextList[Any] = ContextList(self.of_whom)
        """The journeys of whoever is running, the innermost last."""
        self.of_base: list[Any] = []
        """The journeys of the base, in the list of the base's copy of the library if there is one."""
        self._own: Own[list[Any]] = Own(list)
        self._lock = threading.Lock()
        self._travellers: dict[Ledger | None, Entry | None] = {}
        self._real: Mapping[str, Any] = {}
        """The functions of the copy of the library that has replaced the clocks."""
        self._way_back = contextlib.ExitStack()

    def of_whom(self) -> list[Any]:
        """Return the plain list of whoever is running."""
        own = self._own.get()
        return self.of_base if own is None else own

    def start(self, machine: ModuleType, real: Mapping[str, Any]) -> None:
        """Let whoever is running travel; the clocks are replaced, by a copy of the library, if they are not yet."""
        ledger = owner()
        with self._lock:
            if ledger in self._travellers:
                return
            if not self._travellers:
                self._replace_locked(machine, real)
            stop = functools.partial(self.stop, ledger)
            entry = None if ledger is None else _JOURNEY.record(ledger, "of time-machine", stop)
            self._travellers[ledger] = entry

    def stop(self, ledger: Ledger | None) -> None:
        """Let a biz, or the base, be in the present again; nothing happens if it is."""
        with self._lock:
            entry = self._travellers.pop(ledger, None)
            if not self._travellers and self._real:
                self._real["unpatch"]()
                self._forget_locked()
        if ledger is not None and entry is not None:
            ledger.forget(entry)

    def adopt(self, machine: ModuleType, real: Mapping[str, Any], journeys: list[Any]) -> None:
        """Use the base's copy of the library, just found, from now on; ``journeys`` are the base's."""
        with self._lock:
            self.of_base = journeys
            if journeys:
                self._travellers[None] = None
            if self._travellers:
                if self._real:
                    self._real["unpatch"]()
                self._forget_locked()
                self._replace_locked(machine, real)

    def release(self, module: ModuleType, real: Mapping[str, Any]) -> None:
        """Leave the base's copy, with a journey of the base, to itself: bizs are gone."""
        with self._lock:
            if self._real:
                self._real["unpatch"]()
            self._forget_locked()
            self._travellers.clear()
            if self.of_base:
                REAL.setdefault(_NAME, module)
                real["patch"]()
            self.of_base = []

    def _replace_locked(self, machine: ModuleType, real: Mapping[str, Any]) -> None:
        there: Any = REAL.get(_NAME)
        if _NAME not in apart and getattr(there, "traveller_stack", None) is self.journeys:
            machine = there._time_machine  # noqa: SLF001 - the name that code in C asks for
            real = _functions[machine]
        else:
            self._way_back.enter_context(withholding({_NAME}))
            self._way_back.enter_context(exposing({_NAME: _StandIn(machine, self.of_whom)}))
        real["patch"]()
        self._real = real

    def _forget_locked(self) -> None:
        self._real = {}
        self._way_back.close()

    def ask(self, name: str) -> Callable[..., Any]:
        """Return the function that asks the real clock. Raises ``ValueError``, as alone, in the present."""
        if not self.journeys:
            raise ValueError("Not currently time-travelling.")
        return self._real[name]  # type: ignore[no-any-return]


class _StandIn(ModuleType):
    """The part of ``time_machine`` that code in C asks for."""

    def __init__(self, machine: ModuleType, of_whom: Callable[[], list[Any]]) -> None:
        super().__init__(_NAME)
        self._time_machine = machine
        self._of_whom = of_whom

    @property
    def traveller_stack(self) -> list[Any]:
        """The journeys of whoever is running: a plain list, since each reading of a clock asks."""
        return self._of_whom()


_clocks: Final = _Clocks()
_functions: Final[weakref.WeakKeyDictionary[ModuleType, Mapping[str, Any]]] = weakref.WeakKeyDictionary()
"""The functions of each ``_time_machine``, which several copies of ``time_machine`` may share."""


def _follow_own(undo: contextlib.ExitStack, module: Any) -> None:
    """``time_machine``."""
    if hasattr(module, "time_ns") or not hasattr(module, "traveller_stack"):
        raise LookupError("before version 3.3 nobody can travel beside others")
    _follow_machine(undo, module._time_machine)  # noqa: SLF001 - there is no other name
    own_variables(undo, module, *_VARIABLES)
    undo.callback(setattr, module, "traveller_stack", module.traveller_stack)
    module.traveller_stack = _clocks.journeys


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``time_machine`` of the base."""
    journeys = module.traveller_stack
    _follow_own(undo, module)
    machine = module._time_machine  # noqa: SLF001 - as above
    real = _functions[machine]
    undo.callback(_clocks.release, module, real)
    _clocks.adopt(machine, real, journeys)


def _follow_machine(undo: contextlib.ExitStack, machine: Any) -> None:
    """``_time_machine``."""
    if machine in _functions:
        return
    # The function that refuses, if there is one, goes.
    real = {name: inspect.unwrap(value) for name, value in vars(machine).items() if inspect.isroutine(value)}
    undo.callback(_functions.pop, machine)
    _functions[machine] = real

    @standing_for(real["patch"])
    def patch() -> None:
        _clocks.start(machine, real)

    @standing_for(real["unpatch"])
    def unpatch() -> None:
        _clocks.stop(owner())

    asking = {name: _asking(name, function) for name, function in real.items() if name.startswith("original_")}
    for name, function in {"patch": patch, "unpatch": unpatch, **asking}.items():
        undo.callback(setattr, machine, name, real[name])
        setattr(machine, name, function)


def _asking(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @standing_for(function)
    def ask(*args: Any, **kwargs: Any) -> Any:
        return _clocks.ask(name)(*args, **kwargs)

    return ask


follow_own: Final = {_NAME: _follow_own}
follow: Final = {_NAME: _follow}

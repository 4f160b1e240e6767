"""A program run as a biz of this process: the child of `arkctl test`.

``python -P -m koupleless.suite.inside ORDER PROGRAM [ARGUMENT]...``, where ORDER is an `Order` as JSON. The process is
a base for this one biz. The base first imports its own copies of the Python modules that the biz brings, so that there
is something to keep apart. The program runs on the main thread, which signals and many libraries need, as ``__main__``.

The biz may change here the settings of the process that no biz may change beside others: the working directory, the
locale, the time zone, the clock.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import logging
import os
import runpy
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.biz import BizId
from koupleless.container.process import HOOKS
from koupleless.container.starting.facets import equip
from koupleless.context import Scope, call_as
from koupleless.isolation.interpreter import exposing, when_loaded, withholding
from koupleless.isolation.namespace import Namespace
from koupleless.isolation.policy import SELF, Policy
from koupleless.recorders.running.forks import OwnProcess
from koupleless.tracebacks import trimmed
from koupleless.view.environ import Environment
from koupleless.view.logging.logs import LogSpace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from koupleless.replacing import Shared

_LOOKED_UP_IN_C: Final = ("time_machine",)
"""Python modules that set the clock of the process by C code, which looks in the table of the interpreter only."""

_program: Scope | None = None
"""The biz, which stays until the process ends: alone, the Python modules of a program stay as long."""


@dataclass(frozen=True, slots=True)
class Order:
    """The order to run a program as a biz."""

    name: str
    """Of the biz."""
    paths: tuple[str, ...]
    """The search path: places of the tree first, the requirements last."""
    warm: tuple[str, ...] = ()
    """Python modules for the base to import first; absent ones are left out."""
    scratch: str = ""
    """A directory for a virtual environment, which somebody else removes afterwards."""

    def as_text(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Order:
        """The opposite of `as_text`."""
        read = json.loads(text)
        return cls(read["name"], tuple(read["paths"]), tuple(read["warm"]), read["scratch"])


def run(order: Order, program: str, arguments: Sequence[str]) -> int:
    """Run a Python module, or a script if ``program`` ends in ``.py``, as a biz; returns the exit status.

    ``module:function`` calls a function, as the console script of a library does.

    To be called on the main thread, as the last act of a process: threads, pools and exit functions of the program end
    with the interpreter, which awaits threads and calls exit functions as for a program alone. A ``KeyboardInterrupt``
    of the program is shown, and raised again.
    """
    _warm(order.warm)
    scope = begin(BizId.of(order.name, "0"))
    envs = {"PYTHONPATH": _search_path(order.paths)}
    equip(
        scope,
        Environment(scope, envs=envs, args=arguments, name=program, has_process=True),
        order.paths,
        # Declared mode, with nothing declared: libraries of the base alone must not make a test pass. Python modules of
        # the tree are not lent to a library among the requirements that requires the tree: the tree is to be tested.
        Policy(declared=frozenset({SELF}), private=order.paths[:-1]),
        # As the environment of a program alone, for children whose variables do not name the search path.
        prefix=Path(order.scratch, "venv"),
        is_bare=True,
        logs=lambda: LogSpace(scope, has_process=True),
    )
    return finish(scope, program)


def begin(biz: BizId, *further: Shared) -> Scope:
    """Make the one biz of this process, for good; ``further`` are hooks beside those that every biz needs."""
    global _program  # noqa: PLW0603 - see there
    _program = scope = Scope(biz)
    for hook in HOOKS:
        if hook.is_for_one or hook.change in further:
            hook.change.acquire()
    scope.attach(OwnProcess())
    return scope


def finish(scope: Scope, program: str) -> int:
    """Run the program as the equipped biz; returns the exit status, as `run`."""
    for name in _LOOKED_UP_IN_C:
        when_loaded(name, _show_to_c)
    atexit.register(_left.clear)
    atexit.register(call_as, scope, logging.shutdown)
    # In a copy, so that threads of the program do not inherit the variables that the program sets, as alone.
    return call_as(scope, _run, program)


_shown_to_c: Final = contextlib.ExitStack()
"""Never closed: the process is the program's."""


def _show_to_c(scope: Scope, module: ModuleType) -> None:  # noqa: ARG001 - as `when_loaded` calls it
    name = module.__name__
    _shown_to_c.enter_context(withholding({name}))  # the base has a copy of its own
    _shown_to_c.enter_context(exposing({name: module}))


def _warm(names: Sequence[str]) -> None:
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _search_path(paths: Sequence[str]) -> str:
    """For the child processes of the program, which are no bizs."""
    return os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])


def _run(program: str) -> int:
    try:
        if program.endswith(".py"):
            sys.path.insert(0, os.path.dirname(os.path.abspath(program)))  # noqa: PTH100, PTH120 - as the interpreter does
            _left.append(runpy.run_path(program, run_name="__main__"))
        elif ":" in program:
            assert _program is not None
            _left.append(sys.exit(_program.facet(Namespace).resolve(program)()))
        else:
            _left.append(runpy.run_module(program, run_name="__main__", alter_sys=True))
    except SystemExit as error:
        _left.append(error)
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt as error:
        _tell(error)
        raise
    except BaseException as error:  # noqa: BLE001 - the program ends with it, as any program does
        _tell(error)
        _left.append(error)
        return 1
    return 0


_left: Final[list[object]] = []
"""Results that keep the variables of the program until threads, pools and exit functions have ended, as alone."""


def _tell(error: BaseException) -> None:
    sys.excepthook(type(error), error, trimmed(error.__traceback__))


if __name__ == "__main__":
    try:
        sys.exit(run(Order.parse(sys.argv[1]), sys.argv[2], sys.argv[3:]))
    except KeyboardInterrupt:
        sys.excepthook = lambda *_: None  # the traceback was shown
        raise

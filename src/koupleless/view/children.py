"""Give child processes of a biz their start: ``sys.executable``, the biz's place on ``PATH``, and the environment.

A biz finds its own interpreter at ``sys.executable``, in a virtual environment with the biz's Python modules. Another
room makes the environment, when asked from here: not before the biz asks for the interpreter.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current
from koupleless.contextual import assign_by_context
from koupleless.frames import standing_for
from koupleless.replacing import Shared, replace
from koupleless.view.own import own_of, put_in_late

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

_log = logging.getLogger(__name__)


class Interpreter:
    """The interpreter with which a biz starts its children: a facet of its scope.

    ``make`` makes the virtual environment at ``prefix``, with the interpreter ``executable`` in it and the scripts of
    the biz's libraries beside. ``make`` is called when somebody may need the environment, from any thread, and may
    raise ``OSError``: the biz then gets the process's interpreter, with a warning in the biz's log. Lifetime: until
    `close`; ``sys.executable`` answers by context as long as any interpreter of a biz is open.
    """

    def __init__(self, prefix: str, executable: str, make: Callable[[], None]) -> None:
        self.executable = executable
        self.scripts = os.path.dirname(executable)  # noqa: PTH120 - a text, as in PATH
        self._prefix = prefix
        self._make = make
        self._has_failed = False
        _executables.acquire()

    def close(self) -> None:
        """Let go of ``sys.executable``. Called once."""
        _executables.release()

    def is_there(self) -> bool:
        """Make the virtual environment if need be; returns whether there is one."""
        if not self._has_failed:
            try:
                with as_base():
                    self._make()
            except OSError as error:
                self._has_failed = True
                _log.warning("child processes of biz %s find what the base finds only: %s", _name(), error)
        return not self._has_failed

    def variable(self, name: str, value: str) -> str:
        """Return a variable of the process's environment as the biz has it.

        The biz's virtual environment stands for the base's, and the biz's scripts come before the base's on ``PATH``.
        """
        if self._has_failed:
            return value
        if name == "VIRTUAL_ENV":
            return self._prefix if value == sys.prefix else value
        entries, of_base = value.split(os.pathsep), _scripts_of_base()
        if of_base not in entries:
            return value
        place = entries.index(of_base)
        return os.pathsep.join([*entries[:place], self.scripts, *entries[place:]])


@functools.cache
def _scripts_of_base() -> str:
    with as_base():
        return importlib.import_module("sysconfig").get_path("scripts")  # type: ignore[no-any-return]  # takes a while


DERIVED: Final = frozenset({b"PATH", b"VIRTUAL_ENV"})
"""Variables of the process with another value for a biz."""


def _name() -> str:
    scope = current()
    return "?" if scope is None else str(scope.biz)


def interpreter() -> Interpreter | None:
    """Return the interpreter of the running biz; ``None`` for the process."""
    scope = current()
    return None if scope is None else scope.find_facet(Interpreter)


def before_a_child() -> None:
    """Make the virtual environment if ``PATH`` of the running biz leads there, since a child process may look there."""
    here = interpreter()
    if here is not None and here.scripts in os.environ.get("PATH", "").split(os.pathsep):
        here.is_there()


def _executable() -> str | None:
    here = interpreter()
    return here.executable if here is not None and here.is_there() else None


def _with_environment(original: Callable[..., Any], given: Callable[..., Any]) -> Callable[..., Any]:
    """Replace ``os.execv``, which takes the environment of the process, by ``given`` with the biz's environment."""

    @standing_for(original)
    def execute(path: Any, argv: Any, /) -> Any:
        return original(path, argv) if current() is None else given(path, argv, os.environ)

    return execute


def _prepared(original: Callable[..., Any]) -> Callable[..., Any]:
    @standing_for(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        if current() is not None:
            before_a_child()
        return original(*args, **kwargs)

    return function


def _put_into_sys(undo: contextlib.ExitStack) -> None:
    assign_by_context(undo, sys, "executable", functools.partial(own_of, "sys"), computed=_executable)


# Apart from the other replacements, which stay as long as the container: without bizs, ``sys`` is as Python has made
# it.
_executables: Final = Shared("views of the executable", _put_into_sys)


def put_in(undo: contextlib.ExitStack) -> None:
    """Let all functions that start children answer by context."""
    replace(undo, os, "execv", _with_environment(os.execv, os.execve))
    replace(undo, shutil, "which", _prepared(shutil.which))
    for name in ("execve", "posix_spawn", "posix_spawnp"):
        if hasattr(os, name):
            replace(undo, os, name, _prepared(getattr(os, name)))
    put_in_late(undo, "multiprocessing.spawn", _put_into_spawn)
    put_in_late(undo, "sysconfig", _put_into_sysconfig)


def _put_into_spawn(undo: contextlib.ExitStack, spawn: Any) -> None:
    original = spawn.get_executable

    @standing_for(original)
    def get_executable() -> Any:
        mine, of_process = _executable(), original()
        if mine is None or of_process is None:
            return of_process
        return os.fsencode(mine) if isinstance(of_process, bytes) else mine

    replace(undo, spawn, "get_executable", get_executable)
    replace(undo, spawn, "get_preparation_data", _with_variables(spawn.get_preparation_data))


def _with_variables(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Replace the function for the first message to a child of ``multiprocessing``, to put the biz's variables in.

    The fork server, one for all bizs, has the variables of the base.
    """

    @standing_for(original)
    def get_preparation_data(*args: Any, **kwargs: Any) -> dict[str, Any]:
        data = original(*args, **kwargs)
        return data if current() is None else {**data, "environment": _Variables(dict(os.environ))}

    return get_preparation_data


class _Variables:
    """Variables set by the process that unpickles this object, without any code of ours."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, (f"import os; os.environ.clear(); os.environ.update({self._variables!r})",)


def _put_into_sysconfig(undo: contextlib.ExitStack, sysconfig: Any) -> None:
    for name in ("get_path", "get_paths"):
        replace(undo, sysconfig, name, _paths(getattr(sysconfig, name)))


_SCRIPTS: Final = "scripts"


def _paths(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a function of ``sysconfig``: asked without a scheme or variables, the scripts' directory is the biz's."""

    @standing_for(original)
    def paths(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        here = interpreter()
        if here is None or len(args) > (original.__name__ == "get_path") or {"scheme", "vars"} & kwargs.keys():
            return found
        if isinstance(found, dict):
            return {**found, _SCRIPTS: here.scripts} if here.is_there() else found
        name = kwargs.get("name", args[0] if args else None)
        return here.scripts if name == _SCRIPTS and here.is_there() else found

    return paths

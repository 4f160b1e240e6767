"""A command run as a biz of this process: the child of ``arkctl run``.

``python -P -m koupleless.suite.command PORTRAIT [WORD]...``, where PORTRAIT is the file of a `Portrait`, read and
removed at once, because it may hold secrets. The process is a base for this one biz, which finds the code, libraries,
variables, configuration and data directory that it finds in its own base. The command runs on the main thread.

The words are, as for a module that runs alone: ``script.py ...``, ``python script.py ...``, ``python -m module ...``,
``-m module ...``, ``python`` or nothing for a shell, the name of a console script of a library, or any other program,
which becomes a child process of the biz.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.adapters.door import ADAPTERS
from koupleless.biz import BizId
from koupleless.container.starting.facets import equip
from koupleless.container.starting.portrait import Portrait
from koupleless.container.starting.prepare import words
from koupleless.context import Scope, call_as
from koupleless.isolation.libraries.distributions import base_index, index_of
from koupleless.isolation.libraries.holding import Speakers, Wishes
from koupleless.isolation.policy import Policy
from koupleless.suite import inside
from koupleless.view.config import Configuration
from koupleless.view.data import VARIABLE, DataDirectory
from koupleless.view.environ import Environment
from koupleless.view.logging.logs import LogSpace
from koupleless.view.paths import PATHS
from koupleless.view.working import WorkingDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from koupleless.isolation.libraries.installed.index import Index

_SHELL: Final = "code"
"""The Python module of the standard library that is a shell."""
NOT_FOUND: Final = 127
"""The exit status for a program that is not there, as in a shell."""


def run(portrait: Portrait, command: Sequence[str]) -> int:
    """Run the command as the biz of the portrait; returns the exit status. The last act of a process."""
    scope = inside.begin(BizId.of(portrait.name, portrait.version), ADAPTERS, PATHS)
    _equip(scope, portrait)
    program, arguments = _program_of(command, portrait.paths)
    if not program:
        return call_as(scope, _spawn, command)
    call_as(scope, sys.argv.__setitem__, slice(None), [_shown(program, command), *arguments])
    return inside.finish(scope, program)


def _equip(scope: Scope, portrait: Portrait) -> None:
    made = {}
    if portrait.data_dir:
        directory = DataDirectory(Path(portrait.data_dir), Path(portrait.paths[0]))
        made[VARIABLE] = directory.variable
        scope.attach(directory)
        if portrait.directory:  # of a base; a project in place is run where the user is
            working = WorkingDirectory(directory, Path(portrait.paths[0]), has_process=True)
            scope.attach(working)
            with contextlib.suppress(OSError):  # as in the base, what cannot be made is told when it is used
                working.change(working.path)
    configuration = Configuration.load(
        portrait.name,
        profile=portrait.profile,
        directories=[Path(place) for place in portrait.config_dirs],
        own=[Path(portrait.paths[0], "config"), Path(portrait.paths[0])],
        envs=portrait.variables,
    )
    scope.attach(configuration)
    equip(
        scope,
        Environment(scope, envs=portrait.variables, has_process=True, made=made),
        portrait.paths,
        Policy(declared=frozenset(portrait.declared), deny=portrait.deny, requirements=portrait.requirements),
        speakers=Speakers(
            module=Wishes.of(portrait.own, portrait.shared),
            base=Wishes.of(portrait.own_in_base, portrait.shared_in_base),
            words=words(),
        ),
        prefix=Path(portrait.scratch, f"command-{os.getpid()}"),
        logs=lambda: LogSpace(scope, has_process=True),
    )


def _program_of(command: Sequence[str], paths: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The program for `inside.finish`, and its arguments; an empty program for one that is no Python."""
    if command and command[0] in ("python", "python3"):
        command = command[1:]
        if command and command[0].startswith("-") and command[0] != "-m":
            return "", ()
    if not command:
        return _SHELL, ()
    first, *rest = command
    if first == "-m" and rest:
        return rest[0], rest[1:]
    if first.endswith(".py"):
        return _script(first, paths[0]), rest
    return next(
        (place for index in (index_of(paths), base_index()) for name, place in _scripts(index) if name == first), ""
    ), rest


def _scripts(index: Index) -> Iterator[tuple[str, str]]:
    """Console scripts of installed libraries: the name, and the place of the function."""
    return ((name, place.replace(" ", "")) for name, place in index.console_scripts(index.versions))


def _script(name: str, code: str) -> str:
    """The path of a script: in the code of the module, else from the working directory."""
    inside_code = os.path.join(code, name)  # noqa: PTH118 - a text, for `sys.argv`
    return inside_code if os.path.isfile(inside_code) else name  # noqa: PTH113


def _shown(program: str, command: Sequence[str]) -> str:
    """The name of the program for itself."""
    return command[0] if ":" in program else program


def _spawn(command: Sequence[str]) -> int:
    """Run a program that is no Python as a child process of the biz."""
    words = [sys.executable, *command[1:]] if command[0] in ("python", "python3") else list(command)
    try:
        return subprocess.call(words)  # noqa: S603 - the command of the user
    except OSError as error:
        print(f"{words[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return NOT_FOUND
    except KeyboardInterrupt:
        return 128 + 2


def main(arguments: Sequence[str]) -> int:
    """Read and remove the portrait, and run the command."""
    path = Path(arguments[0])
    portrait = Portrait.read(path)
    path.unlink()
    return run(portrait, arguments[1:])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.excepthook = lambda *_: None  # the traceback was shown
        raise

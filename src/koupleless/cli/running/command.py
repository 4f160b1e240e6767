"""``arkctl run``: a command as a module, of a running base or without a base."""

# ruff: noqa: PLC0415 - a command pays only for the modules it uses

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from koupleless.cli.environment import given_variables
from koupleless.cli.session import Session, complete_names, naming_installed, opens_session
from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from koupleless.container.starting.portrait import Portrait

_OF_TERMINAL: Final = ("TERM", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR", "EDITOR", "VISUAL", "PAGER")
"""Variables that say where the command is typed, not where the base runs."""
_CHILD: Final = ("-P", "-m", "koupleless.suite.command")


class RunImpossible(KouplelessError):
    """The command cannot be run as the module; the text says why, and what to do."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("target", metavar="NAME[:VERSION]|PATH", shell_complete=complete_names)
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--env", "envs", multiple=True, metavar="K=V", help="An environment variable for the command; repeatable."
)
@opens_session
def run(session: Session, target: str, *, command: tuple[str, ...], envs: tuple[str, ...]) -> int:
    """Run a command as a module.

    COMMAND finds the code, the versions of libraries, the variables, the configuration and the data directory of the
    module: a script (manage.py migrate), -m MODULE, a console script of a library (flask db upgrade), any other
    program, or python for a shell. It is a process of its own: the running module is left alone.

    NAME is an active module of a base on this machine; the command runs in the working directory of the base. PATH is a
    project or a .py file; no base is needed, and the settings of a base in the working directory count.
    """
    given = given_variables(envs)
    words = list(command)
    if _is_path(target):
        with _portrait_of_project(target, given) as portrait:
            return _run(portrait, words)
    portrait = _portrait_of_base(session, target)
    portrait = dataclasses.replace(portrait, variables={**portrait.variables, **given})
    return _become(portrait, _with_script(words, portrait))


def _is_path(target: str) -> bool:
    return os.sep in target or target.endswith(".py") or target in (".", "..")


# --- of a base -----------------------------------------------------------------------------------------------------


def _portrait_of_base(session: Session, target: str) -> Portrait:
    """The portrait written by the base; the file is removed. Raises ``RunImpossible`` if the file is not to be used."""
    from koupleless.client import Refused
    from koupleless.container.starting.portrait import Portrait
    from koupleless.wire.replies import CommandData, decode_data

    name, _, version = target.partition(":")
    with naming_installed(session, target):
        envelope = session.client.call("commandBiz", {"bizName": name, "bizVersion": version or None})
        if not envelope.is_success:
            raise Refused("commandBiz", envelope)
    path = Path(decode_data(envelope.data, CommandData).path)
    try:
        status = path.lstat()
    except OSError:
        raise RunImpossible(
            f"the base has written {path}, which is not there: run the command on the machine of the base, as its user"
        ) from None
    if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise RunImpossible(f"{path} belongs to another user: run the command as the user of the base")
    try:
        return Portrait.read(path)
    except (OSError, ValueError) as error:
        raise RunImpossible(f"{path} cannot be read: {error}") from None
    finally:
        path.unlink(missing_ok=True)


def _with_script(words: Sequence[str], portrait: Portrait) -> list[str]:
    """The words, with a script of the working directory here by the whole path, unless the module has such a script."""
    at = 1 if words and words[0] in ("python", "python3") else 0
    made = list(words)
    if len(made) > at and made[at].endswith(".py") and not Path(portrait.paths[0], made[at]).is_file():
        here = Path(made[at]).absolute()
        made[at] = str(here) if here.is_file() else made[at]
    return made


def _become(portrait: Portrait, words: Sequence[str]) -> NoReturn:
    """Replace this process by the command. Raises ``RunImpossible`` if the interpreter of the base is gone."""
    environment = {**portrait.process, **{name: os.environ[name] for name in _OF_TERMINAL if name in os.environ}}
    try:
        written = portrait.write()
    except OSError as error:
        raise RunImpossible(f"cannot write to {portrait.scratch}: {error.strerror}; has the base ended?") from None
    sys.stdout.flush()
    try:
        os.chdir(portrait.directory)
        os.execve(portrait.python, [portrait.python, *_CHILD, str(written), *words], environment)  # noqa: S606 - no shell
    except OSError as error:
        written.unlink(missing_ok=True)
        raise RunImpossible(f"cannot run {portrait.python} in {portrait.directory}: {error.strerror}") from None


# --- without a base ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _portrait_of_project(text: str, given: Mapping[str, str]) -> Iterator[Portrait]:
    """Build the project for its libraries; the code of the project itself is used in place."""
    from koupleless.artifact.building.project_files import source_directory
    from koupleless.artifact.source import source_for
    from koupleless.artifact.store import Store
    from koupleless.cli.deploying.scratch import scratch
    from koupleless.cli.deploying.target import DeployTarget, prepare_artefact
    from koupleless.container.starting.environment import Variables
    from koupleless.container.starting.portrait import Portrait
    from koupleless.settings.base import load_base
    from koupleless.state.environments import Environments

    settings, target = load_base(), DeployTarget.of(text)
    with scratch() as directory:
        artefact = prepare_artefact(target, scratch=directory)
        if artefact.path is None:
            raise RunImpossible(f"{text} is an address: name a project, a file or a module of the base")
        with Store(directory / "store") as store, store.unpack(source_for(artefact.path)) as unpacked:
            manifest = unpacked.manifest
            own, *libraries = unpacked.class_path
            if not target.is_built:
                own = source_directory(target.path) if target.path.is_dir() else target.path.parent
            variables = Variables(given, artefact.project_envs()).folded(
                manifest, unpacked.path, environments=Environments(), directories=settings.config_dirs
            )
            yield Portrait(
                name=manifest.id.name,
                version=manifest.id.version,
                paths=tuple(map(str, (own, *libraries))),
                scratch=str(directory),
                data_dir=variables.get("KOUPLELESS_DATA_DIR") or str((settings.data_dir / manifest.id.name).absolute()),
                config_dirs=tuple(str(place.absolute()) for place in settings.config_dirs),
                profile=settings.profile or "",
                declared=manifest.declared_libraries,
                deny=manifest.deny_imports,
                requirements=manifest.requirements,
                own=manifest.own,
                shared=manifest.shared,
                own_in_base=settings.own,
                shared_in_base=settings.shared,
                variables=variables,
            )


def _run(portrait: Portrait, words: Sequence[str]) -> int:
    """Run the command as a child process, and wait; the child answers Ctrl-C."""
    process = subprocess.Popen([sys.executable, *_CHILD, str(portrait.write()), *words])  # noqa: S603 - no shell
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code

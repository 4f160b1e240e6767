"""``arkctl env``, and the flags for variables of ``arkctl deploy``. Values are sent to the base and never printed."""

# ruff: noqa: PLC0415 - a command pays only for the modules it uses

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from koupleless.cli.session import Session, complete_names, opens_session, say
from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koupleless.wire.replies import EnvData


def given_variables(pairs: Sequence[str], files: Sequence[Path] = (), *, flag: str = "--env") -> dict[str, str]:
    """Variables of ``KEY=VALUE`` texts and, weaker, of files, of which later ones are stronger.

    Raises ``click.UsageError`` for a text without ``=``, ``SettingsError`` for an unreadable file.
    """
    found: dict[str, str] = {}
    if files:
        from koupleless.envfiles import read_env_file

        for file in files:
            try:
                found |= read_env_file(file)
            except FileNotFoundError:
                raise SettingsError(f"there is no {file}") from None
    for number, text in enumerate(pairs, 1):
        key, equals, value = text.partition("=")
        if not (key and equals):  # the text is not shown: a value without a name may be a secret
            raise click.UsageError(f"{flag}: KEY=VALUE is expected, number {number} is something else")
        found[key] = value
    return found


@click.command()
@click.argument("name", shell_complete=complete_names)
@click.argument("action", type=click.Choice(["list", "set", "unset"]), default="list")
@click.argument("items", metavar="[KEY=VALUE | KEY]...", nargs=-1)
@click.option("--env-file", "env_files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="With set: a file of environment variables; repeatable.")  # fmt: skip
@click.option(
    "--restart", "restarts", is_flag=True, help="With set and unset: start the module again, to use the change."
)
@opens_session
def env(
    session: Session, name: str, *, action: str, items: tuple[str, ...], env_files: tuple[Path, ...], restarts: bool
) -> None:
    """List, set or unset the variables kept for a module.

    They are kept over redeployments until changed, and count from the next start of the module. Values are never
    shown: list prints names, those of deployments and of this command, and those of the env-file of the project.
    """
    if action != "set" and env_files:
        raise click.UsageError("--env-file is for set")
    if action == "list" and (items or restarts):
        raise click.UsageError("list takes no names, and starts nothing")
    if action != "list" and not items and not env_files:
        raise click.UsageError(f"{action}: which variables?")
    given = given_variables(items, env_files, flag="set") if action == "set" else {}
    unset = items if action == "unset" else ()
    found = session.client.env(name, given=given, unset=unset)
    session.show(
        {
            "bizName": found.biz_name,
            "names": found.names,
            "projectNames": found.project_names,
            "running": found.running,
        },
        "\n".join(_lines(found, is_to_start=action != "list" and not restarts)),
    )
    for identity in found.running if restarts else ():
        _start_again(session, identity)


def _start_again(session: Session, identity: str) -> None:
    from koupleless.client import Refused

    name, _, version = identity.partition(":")
    envelope = session.client.call("restartBiz", {"bizName": name, "bizVersion": version})
    if not envelope.is_success:
        raise Refused("restartBiz", envelope)
    say(f"{identity} started again")


def _lines(found: EnvData, *, is_to_start: bool) -> list[str]:
    lines = [f"{name} has no kept value" for name in found.unknown]
    lines += [f"{name}  kept" for name in found.names]
    lines += [f"{name}  from the env-file of the project" for name in found.project_names if name not in found.names]
    if not (found.names or found.project_names):
        lines.append(f"no variables are kept for {found.biz_name}")
    if is_to_start and found.running:
        running = ", ".join(found.running)
        lines.append(
            f"{running} runs with the values from its start; to use the change: arkctl restart {found.biz_name}"
        )
    return lines

"""``arkctl restart``, ``rollback``, ``export``, ``import`` and ``stop``."""

# ruff: noqa: PLC0415 - a command pays only for the modules it uses

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click

from koupleless.cli.session import Session, complete_names, opens_session, say, versions_of
from koupleless.errors import BaseUnreachable, KouplelessError

_POLL_S: Final = 0.1


@click.command()
@click.argument("identity", metavar="[NAME[:VERSION]]", required=False, shell_complete=complete_names)
@opens_session
def restart(session: Session, identity: str | None) -> None:
    """Start a module again from its artefact.

    No request is lost: the new life takes over, and the old one drains and leaves. All versions of NAME are started
    again, one after the other; without NAME all modules are.
    """
    from koupleless.cli.keeping.lockfile import ask
    from koupleless.wire.replies import InstallData

    found = session.client.query() if identity is None else versions_of(session, identity)
    for biz in found:
        body = {"bizName": biz.biz_name, "bizVersion": biz.biz_version}
        done = ask(session.client, "restartBiz", InstallData, body)
        left = "".join(f"; {report.left}" for report in done.replaced or () if not report.clean or report.changed)
        session.show({**body, "replaced": done.replaced}, f"{biz.identity} started again{left}")


@click.command()
@click.argument("name", shell_complete=complete_names)
@opens_session
def rollback(session: Session, name: str) -> None:
    """Go back to the version of a module before.

    The artefact is still in the store of the base. A second rollback leads forward again.
    """
    from koupleless.cli.keeping.lockfile import ask
    from koupleless.wire.replies import InstallData

    done = ask(session.client, "rollbackBiz", InstallData, {"bizName": name})
    biz = next(iter(done.biz_infos or []))
    session.show({"bizName": biz.biz_name, "bizVersion": biz.biz_version}, f"{biz.identity} answers again")


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@opens_session
def export(session: Session, file: Path | None) -> None:
    """Write the modules of a base to a lock file.

    FILE gets names, versions, active versions, digests, sources, arguments, and names of variables, in the order of the
    installs; without FILE they are printed. Static modules belong to the settings of the base, and are left out.
    """
    from koupleless.cli.keeping.lockfile import ask, write
    from koupleless.wire.replies import ExportData

    text = write(ask(session.client, "exportBizs", ExportData))
    if file is None:
        click.echo(text, nl=False)
    else:
        file.write_text(text, encoding="utf-8")
        say(f"wrote {file}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@opens_session
def import_file(session: Session, file: Path) -> None:
    """Install the modules of a lock file that a base lacks.

    An artefact is taken from the store of the base, else from its source, and refused if its digest differs.
    """
    from koupleless.cli.keeping.lockfile import install, read

    locked = read(file)
    installed = install(session.client, locked, say=say)
    there = len(locked.modules) - len(installed)
    lines = [f"{identity} installed" for identity in installed]
    session.show({"installed": installed}, "\n".join([*lines, f"{there} of {len(locked.modules)} were there already"]))


@click.command()
@opens_session
def stop(session: Session) -> None:
    """End a base in order, as SIGTERM does, and wait for its end.

    Its modules start again with the base, if it has a state directory.
    """
    from koupleless.cli.keeping.lockfile import ask
    from koupleless.wire.replies import BizReply

    ask(session.client, "stopBase", BizReply)
    ends = time.monotonic() + session.settings.timeout_s
    while True:
        try:
            session.client.help()
        except BaseUnreachable:
            break
        except KouplelessError:  # it shuts down, and says so
            pass
        if time.monotonic() > ends:
            raise BaseUnreachable(session.client.address, "the base had not ended in time")
        time.sleep(_POLL_S)
    session.show({"stopped": session.client.address}, f"the base at {session.client.address} has ended")

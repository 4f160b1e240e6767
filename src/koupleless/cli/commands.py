"""The commands of ``arkctl``: flags in, one call, text out, an exit status.

Nothing is decided here. A command imports its modules when the command runs: `status` must not pay for the base.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from koupleless.cli.controlling import controller
from koupleless.cli.environment import env, given_variables
from koupleless.cli.keeping.commands import export, import_file, restart, rollback, stop
from koupleless.cli.keeping.push import push
from koupleless.cli.kube.commands import kube
from koupleless.cli.logs import logs
from koupleless.cli.running.command import run
from koupleless.cli.running.serving import serve
from koupleless.cli.session import (
    F,
    Session,
    complete_identities,
    complete_names,
    naming_installed,
    not_there,
    opens_session,
    say,
    versions_of,
    zombies_of,
)
from koupleless.errors import BizNotFound, InvalidIdentity, KouplelessError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koupleless.biz import BizId

INTERRUPTED: Final = 130


class _How:
    """Facts about the command that `main` needs to report a failure."""

    def __init__(self) -> None:
        self.is_verbose = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. ``arguments`` are by default those of the command line."""
    how = _How()
    try:
        result = arkctl.main(args=arguments, prog_name="arkctl", standalone_mode=False, obj=how)
    except click.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader of the output has left. Python would complain once more in the flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KouplelessError as error:
        from koupleless.cli.showing.suggestions import exit_status, report

        for line in report(error, is_verbose=how.is_verbose):
            click.echo(line, err=True)
        return exit_status(error)
    return result if isinstance(result, int) else 0


def _print_version(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked and not context.resilient_parsing:
        from koupleless.cli.versions import own_version, version_text

        click.echo(version_text(own_version()))
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
              help="Show the version of arkctl and exit.")  # fmt: skip
def arkctl() -> None:
    """Build modules, and install, switch and remove them in a running base."""


# --- arguments -----------------------------------------------------------------------------------------------------


def _identity(text: str) -> BizId:
    from koupleless.biz import BizId

    try:
        return BizId.parse(text)
    except InvalidIdentity as error:
        raise click.UsageError(str(error)) from None


# --- projects and artefacts ----------------------------------------------------------------------------------------


@arkctl.command()
@click.argument("kind", type=click.Choice(["module", "base"]))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--name", help="The name of the project.  [default: the name of the directory]")
def new(kind: str, directory: Path, *, name: str | None) -> None:
    """Create a project that runs at once.

    The project is a module, or a base for modules.
    """
    from koupleless.cli.projects.new import create

    for line in create(kind, directory, name=name):
        say(line)
    click.echo(directory)


@arkctl.command()
@click.argument(
    "directory", metavar="[DIR]", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--entry", metavar="E", help="package.module:app, instead of the application that is found.")
@click.option("--name", metavar="N", help="The name of the module.  [default: that of the project, or the directory]")
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
def init(directory: Path, *, entry: str | None, name: str | None, yes: bool) -> int:
    """Make a module of an existing project.

    Finds the application (app, create_app, wsgi.py, asgi.py, Django's settings) without importing any code, shows the
    change to pyproject.toml, or the new file, and asks before it is written.
    """
    from koupleless.cli.projects.init import plan

    change = plan(directory, entry=entry, name=name)
    for note in change.notes:
        say(note)
    click.echo(change.diff)
    if not yes and not click.confirm(f"write {change.path}?", err=True):
        say("nothing was written")
        return 1
    change.make()
    say(f"{change.path} written; go on with: arkctl deploy {directory}")
    return 0


def _build_options(command: F) -> F:
    for option in (
        click.option("--version-override", "version", metavar="V", help="The version, instead of the project's own."),
        click.option("--web-context-path", metavar="P", help="The URL prefix, instead of the project's own."),
        click.option("--entry", metavar="E", help="package.module:app, instead of the project's own."),
        click.option("--name", metavar="N", help="The name, instead of the project's own."),
        click.option(
            "--pack-env-file/--no-pack-env-file",
            default=None,
            help="Put the env-file of the project into the artefact, or leave it out, whatever the project says.",
        ),
        click.option("--sub", metavar="DIR", help="The directory of one member of a workspace."),
        click.option(
            "--refresh", is_flag=True, help="Resolve the requirements anew; else the answer of a day is kept."
        ),
    ):
        command = option(command)
    return command


@arkctl.command()
@click.argument("path", required=False, type=click.Path())
@click.option("--requirement", "requirements", multiple=True, metavar="X",
              help="A further dependency of PATH; without PATH, the application itself.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Target directory.  [default: PATH/dist]")
@click.option("--standalone", is_flag=True, help="Pack all dependencies, provided by a base or not.")
@click.option("-o", "--output", type=click.Choice(["table", "wide", "json"]),
              help="The form of output.  [default: table]")  # fmt: skip
@_build_options
def build(path: str | None, *, sub: str | None, output: str | None, **flags: Any) -> None:
    """Make an artefact of a project or .py file.

    PATH is the current directory by default; with --requirement and --entry alone, the artefact is made of an
    application from the package index. Lists all libraries, how the module holds each, and why; prints the path of
    the artefact.
    """
    from koupleless.artifact.building.options import Options
    from koupleless.cli.deploying.target import DeployTarget, build_target
    from koupleless.cli.showing.held import libraries_of
    from koupleless.cli.showing.progress import Progress
    from koupleless.cli.showing.render import json_text, libraries_table, mebibytes
    from koupleless.settings.client import load_client

    output = load_client({"output": output}).output
    progress = Progress(is_silent=output == "json")
    options = Options(**flags, tell=progress.begin)
    target = DeployTarget.of(path or ".", sub=sub) if path or not options.requirements else None
    with progress:
        result = build_target(target, options)
    libraries = libraries_of(result)
    if libraries and output != "json":
        say(libraries_table(libraries))
    for note in result.notes:
        say(note)
    say(f"built {result.manifest.id}, {mebibytes(result.size)}, {len(result.report.packed)} distributions packed")
    if output == "json":
        distributions = [
            {
                "name": each.name,
                "version": each.version,
                "packed": each.is_packed,
                "reason": each.reason,
                "held": how.held,
            }
            for each, how in zip(result.report.decisions, libraries, strict=True)
        ]
        identity = {"bizName": result.manifest.id.name, "bizVersion": result.manifest.id.version}
        where = {"path": str(result.path), "size": result.size}
        click.echo(json_text({**identity, **where, "distributions": distributions}))
    else:
        click.echo(result.path)


@arkctl.command()
@click.argument("target", default=".", type=click.Path())
@click.option("--strategy", type=click.Choice(["replace", "replace-all", "install-only"]), default="replace",
              show_default=True, help="How to treat the installed versions of the module.")  # fmt: skip
@click.option("--arg", "args", multiple=True, metavar="A", help="An argument for the module; repeatable.")
@click.option("--env", "envs", multiple=True, metavar="K=V",
              help="An environment variable, kept until changed; repeatable.")  # fmt: skip
@click.option("--env-file", "env_files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="A file of environment variables, kept until changed; repeatable.")  # fmt: skip
@click.option("--no-build", is_flag=True, help="Deploy the artefact built into dist before.")
@click.option("--wait", is_flag=True, help="Wait until the module is started or broken.")
@click.option("--dry-run", is_flag=True, help="Build, and print the calls instead of sending them.")
@click.option("--watch", is_flag=True, help="Deploy again whenever a file is saved.")
@click.option("--live", is_flag=True, help="With --watch: pages in the browser reload by themselves; for development.")
@_build_options
@opens_session
def deploy(
    session: Session, target: str, *, sub: str | None, strategy: str, args: tuple[str, ...], envs: tuple[str, ...],
    env_files: tuple[Path, ...], no_build: bool, watch: bool, live: bool, wait: bool, dry_run: bool, **flags: Any,
) -> None:  # fmt: skip
    """Install or replace a module in a base.

    TARGET is a project (by default the current directory), a .py file, an artefact, a wheel or a URL. With --strategy:

    \b
    replace       the new one takes over without a gap, and the others leave;
                  in a Java base the same version leaves first
    replace-all   the base removes every version of the name, then installs
    install-only  nothing is removed, and another version goes on answering
    """  # noqa: D301 - the escape keeps click from wrapping the list
    from koupleless.artifact.building.options import Options
    from koupleless.cli.deploying.deploy import Deployment, DeployOptions
    from koupleless.cli.deploying.target import DeployTarget
    from koupleless.cli.showing.progress import Progress

    if live and not watch:
        raise click.UsageError("--live reloads pages after each deployment of --watch: give both")
    given = given_variables(envs, env_files)
    options = DeployOptions(build=Options(**flags), no_build=no_build, strategy=strategy, args=args, envs=given)
    found = DeployTarget.of(target, sub=sub)
    deployment = Deployment(
        session.client, session.settings, found, options, say=say, carrier=session.carrier,
        progress=lambda: Progress(is_silent=session.is_json),
    )  # fmt: skip
    if dry_run:
        click.echo("\n".join(deployment.rehearse()))
        return
    if watch:
        from koupleless.cli.deploying.watch import watch as deploy_again

        show = lambda done: session.show(done.as_json(), done.as_text())  # noqa: E731
        deploy_again(deployment, found, show=show, say=say, live=session.settings if live else None)
    done = deployment.run(wait_s=session.settings.timeout_s if wait else None)
    session.show(done.as_json(), done.as_text())
    if done.has_survivors:
        from koupleless.cli.showing.suggestions import DOES_NOT_LEAVE, more

        say(more(DOES_NOT_LEAVE))


@arkctl.command("test")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("arguments", metavar="[-- ARGUMENT...]", nargs=-1)
@click.option("--requirement", "requirements", multiple=True, metavar="X", help="A further dependency of the tests.")
@click.option("--program", default="pytest", show_default=True, metavar="X", help="A Python module, or script of DIR.")
@click.option("--compare", is_flag=True, help="Run the tests without a base too, and print the differences.")
def test_inside(
    directory: Path, arguments: tuple[str, ...], *, requirements: tuple[str, ...], program: str, compare: bool
) -> int:
    """Run a project's tests inside a module.

    DIR is installed with its dependencies, apart from the base, and is the working directory. The base has loaded its
    own copies of the libraries that both have. Arguments after -- go to the program; output and exit status are the
    program's. With --compare the status is 0 if no test differs, else 1.
    """
    from koupleless.suite.run import Suite, compare_runs, run_inside

    suite = Suite(tree=directory, requirements=requirements, program=program, arguments=arguments)
    if not compare:
        return run_inside(suite)
    found = compare_runs(suite, say=say)
    for difference in found.differences:
        click.echo(difference.as_text())
    click.echo(f"alone: {found.alone.as_text()}")
    click.echo(f"inside: {found.inside.as_text()}")
    click.echo(f"{len(found.differences)} of {len(found.alone.tests)} tests differ")
    return 1 if found.differences else 0


# --- the modules of a base -----------------------------------------------------------------------------------------


@arkctl.command()
@click.argument("identity", metavar="NAME[:VERSION]", required=False, shell_complete=complete_names)
@click.option("--all-versions", is_flag=True, help="Every installed version of the name.")
@click.option("--ignore-not-found", is_flag=True, help="Succeed if the module is not installed.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before several versions are removed.")
@opens_session
def undeploy(session: Session, identity: str | None, *, all_versions: bool, ignore_not_found: bool, yes: bool) -> None:
    """Remove a module, and report its remains."""
    if identity is None:
        identity = _choose(session)
    try:
        chosen = [_identity(identity)] if ":" in identity else _all_of(session, identity, all_versions=all_versions)
        if len(chosen) > 1 and not yes and sys.stdin.isatty():
            click.confirm(f"remove {', '.join(map(str, chosen))}?", abort=True, err=True)
        for biz in chosen:
            with naming_installed(session, str(biz)):
                _remove(session, biz)
    except BizNotFound:
        if not ignore_not_found:
            raise
        say(f"{identity} is not installed")


def _remove(session: Session, biz: BizId) -> None:
    from koupleless.cli.showing.render import left_behind

    purge = session.client.uninstall(biz).purge_report
    said = {"bizName": biz.name, "bizVersion": biz.version, "purgeReport": purge}
    notes = () if purge is None else purge.notes
    session.show(said, "\n".join([f"{biz} undeployed{left_behind(purge)}", *(f"warning: {note}" for note in notes)]))
    if purge is not None and not purge.clean:
        from koupleless.cli.showing.suggestions import DOES_NOT_LEAVE, more

        say(more(DOES_NOT_LEAVE))


def _all_of(session: Session, name: str, *, all_versions: bool) -> list[BizId]:
    found = [_identity(biz.identity) for biz in versions_of(session, name)]
    if len(found) > 1 and not all_versions:
        raise click.UsageError(
            f"{name} has the versions {', '.join(b.version for b in found)}: name one, or --all-versions"
        )
    return found


def _choose(session: Session) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("which module? NAME:VERSION is needed where nobody can be asked")
    found = session.client.query()
    if not found:
        _stop_with_nothing()
    for number, biz in enumerate(found, 1):
        say(f"{number:>3}  {biz.identity}  {biz.biz_state.value}")
    number = click.prompt("which one", type=click.IntRange(1, len(found)), err=True)
    return str(found[number - 1].identity)


def _stop_with_nothing() -> NoReturn:
    raise click.UsageError("no module is installed")


@arkctl.command()
@click.argument("identity", metavar="NAME:VERSION", shell_complete=complete_identities)
@opens_session
def switch(session: Session, identity: str) -> None:
    """Let this version of a module answer requests."""
    if ":" not in identity:
        raise click.UsageError(_which_version(session, identity))
    biz = _identity(identity)
    with naming_installed(session, identity):
        session.client.switch(biz)
    session.show({"bizName": biz.name, "bizVersion": biz.version}, f"{biz} answers now")


def _which_version(session: Session, name: str) -> str:
    """The error text for a switch without a version, with the installed versions."""
    from koupleless.biz import BizState

    try:
        found = versions_of(session, name)
    except BizNotFound as error:
        return str(error)
    except KouplelessError:
        return f"which version of {name}? NAME:VERSION is expected"
    there = ", ".join(f"{biz.identity} ({biz.biz_state.value})" for biz in found)
    other = next((biz.identity for biz in found if biz.biz_state is not BizState.ACTIVATED), None)
    return f"which version of {name}? There is {there}" + (f"; try: arkctl switch {other}" if other else "")


@arkctl.command()
@click.argument("name", shell_complete=complete_names)
@opens_session
def cancel(session: Session, name: str) -> None:
    """Cancel an install of a module that has not ended.

    The start is undone, and the base is as before; a version that answers goes on answering.
    """
    from koupleless.client import Refused

    envelope = session.client.call("cancelBiz", {"bizName": name})
    if not envelope.is_success:
        raise Refused("cancelBiz", envelope)
    session.show({"bizName": name}, f"the install of {name} is being cancelled")


@arkctl.command()
@click.option("--watch", type=click.FloatRange(min=0, min_open=True), metavar="SEC", help="Print every SEC seconds.")
@opens_session
def status(session: Session, *, watch: float | None) -> None:
    """List the modules of a base."""
    from koupleless.cli.showing.render import bizs_json, bizs_table

    while True:
        bizs = session.client.query()
        if session.is_json:
            text = bizs_json(bizs)
        else:
            text = bizs_table(bizs, is_wide=session.is_wide, is_coloured=session.is_coloured)
            text = text if bizs else f"no modules; install one with: arkctl deploy PATH{session.way}"
        if watch and sys.stdout.isatty() and not session.is_json:
            click.clear()
        click.echo(text)
        if watch is None:
            return
        import time

        sys.stdout.flush()
        time.sleep(watch)


@arkctl.command()
@click.argument("identity", metavar="[NAME[:VERSION]]", required=False, shell_complete=complete_names)
@opens_session
def show(session: Session, identity: str | None) -> None:
    """Show all facts about a module, or about the base."""
    from koupleless.cli.showing.render import base_details, biz_details, bizs_json, json_text, zombies_table

    if identity is None:
        of_base = session.client.health()
        click.echo(json_text(of_base) if session.is_json else base_details(of_base))
        return
    zombies = zombies_of(session, identity)
    try:
        found = versions_of(session, identity, has_libraries=True)
    except BizNotFound:
        if not zombies:
            raise
        found = []
    if session.is_json:
        click.echo(bizs_json(found, zombies))
        return
    parts = [biz_details(biz, is_coloured=session.is_coloured) for biz in found]
    click.echo("\n\n".join([*parts, zombies_table(zombies)] if zombies else parts))


@arkctl.command()
@click.argument("identity", metavar="[NAME[:VERSION]]", required=False, shell_complete=complete_names)
@click.option("--type", "kind", type=click.Choice(["system", "biz", "plugin"]), help="Show one part only.")
@click.option("--metrics", multiple=True, metavar="ID", help="Show these system indicators only: cpu, jvm.")
@opens_session
def health(session: Session, identity: str | None, *, kind: str | None, metrics: tuple[str, ...]) -> None:
    """Show the health of a base, or of one module."""
    from koupleless.cli.showing.render import health_text, json_text

    name, _, version = (identity or "").partition(":")
    kind = kind or ("biz" if name else "system" if metrics else None)
    try:
        found = session.client.health(type=kind, metrics=metrics, name=name or None, version=version or None)
    except KouplelessError as error:
        if identity is None or not str(error).startswith("can not find biz"):
            raise
        raise not_there(identity, session.client.query()) from None
    click.echo(json_text(found) if session.is_json else health_text(found, is_wide=session.is_wide))


for _command in (controller, kube, env, logs, serve, run, restart, rollback, export, import_file, stop, push):
    arkctl.add_command(_command)

# --- about this program --------------------------------------------------------------------------------------------


@arkctl.command()
@opens_session
def version(session: Session) -> None:
    """Print the versions of arkctl and of the base."""
    from koupleless.cli.versions import version_text, versions

    client, base = versions(session.client)
    session.show({"client": client, "base": base}, version_text(client, base))


@arkctl.command()
@opens_session
def doctor(session: Session) -> int:
    """Check the installation, and the connection to a base.

    Looks at the interpreter, the packages, the base, and the process that owns the port.
    """
    from koupleless.cli.doctor import examine

    findings = examine(session.client, session.settings)
    lines = [f"{finding.verdict:<4}  {finding.subject}: {finding.text}" for finding in findings]
    session.show({"findings": findings}, "\n".join(lines))
    return max(finding.status for finding in findings)


@arkctl.group()
def store() -> None:
    """Look after a store of unpacked artefacts."""


@store.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
def verify(directory: Path | None) -> int:
    """Compare all unpacked files with their artefacts.

    DIRECTORY is the store, by default that of the project's base. A damaged artefact is unpacked again at the
    next install; files added or changed by modules belong to the modules, and stay.
    """
    from koupleless.cli.stored import verify_store

    return verify_store(directory)


@store.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Unused artefacts to keep.  [default: 20]")
@click.option("--days", type=click.FloatRange(min=0), metavar="N", help="Remove those not used for so many days.")
@click.option("--size", "megabytes", type=click.IntRange(min=0), metavar="MB", help="The size of the store to keep to.")
def clean(directory: Path | None, *, keep: int | None, days: float | None, megabytes: int | None) -> None:
    """Remove unpacked artefacts that no base uses or keeps.

    DIRECTORY is the store, by default that of the project's base. The artefacts used last stay, by default within the
    limits of the project's base (store-keep, store-age, store-size). A base cleans its store in the same way when it
    starts. Modules that a base is to start again stay, and versions for a rollback, also while the base does not run.
    """
    from koupleless.cli.stored import clean_store

    clean_store(directory, keep=keep, days=days, megabytes=megabytes)


@arkctl.group()
def cache() -> None:
    """Look after the results of earlier builds."""


@cache.command("clean")
@click.option("--all", "is_all", is_flag=True, help="Remove everything; the next builds are as slow as the first.")
def clean_cache(*, is_all: bool) -> None:
    """Remove results of builds that were not used for 30 days, and the oldest beyond 2 GiB.

    A build does the same whenever it adds libraries. The cache lies below $XDG_CACHE_HOME, or ~/.cache, in
    koupleless/builds.
    """
    from koupleless.cli.stored import clean_cache

    clean_cache(is_all=is_all)


@arkctl.command()
@click.option("--copies", type=click.IntRange(1, 1000), default=50, show_default=True, help="Number of module copies.")
def demo(*, copies: int) -> int:
    """Show a base at work, with measured figures."""
    from koupleless.cli.demonstration.demo import run

    return run(copies=copies)

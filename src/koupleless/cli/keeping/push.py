"""``arkctl push``: an artefact into an OCI registry, from where bases take it."""

# ruff: noqa: PLC0415 - a command pays only for the modules it uses

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from koupleless.cli.session import say

if TYPE_CHECKING:
    from koupleless.artifact.fetching.credentials import Credentials


@click.command()
@click.argument("target", type=click.Path())
@click.argument("place", metavar="OCI-URL")
@click.option("--secrets", "path", type=click.Path(path_type=Path), metavar="FILE",
              help="The secrets of registries.  [default: those of `docker login`]")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "wide", "json"]), help="How to print the result.")
def push(target: str, place: str, *, path: Path | None, output: str | None) -> None:
    """Push an artefact to an OCI registry.

    TARGET is a project, a .py file or an artefact; OCI-URL is oci://host/repository[:tag], by default with the version
    as the tag. Prints the URL with the digest, for `arkctl deploy` and for settings: a base takes exactly this content.
    """
    from koupleless.artifact import push as pushing
    from koupleless.cli.deploying.scratch import scratch
    from koupleless.cli.deploying.target import DeployTarget, prepare_artefact
    from koupleless.cli.showing.render import json_text
    from koupleless.errors import ArtifactError
    from koupleless.settings.client import load_client

    output = load_client({"output": output}).output
    with scratch() as directory:
        artefact = prepare_artefact(DeployTarget.of(target), scratch=directory)
        if artefact.path is None or artefact.identity is None or artefact.path.is_dir():
            raise ArtifactError(f"{target} is no archive: build it with `arkctl build`")
        name, version = artefact.identity.name, artefact.identity.version
        reference = pushing.push(artefact.path, place, version=version, credentials=_credentials(path))
    if output == "json":
        click.echo(json_text({"bizName": name, "bizVersion": version, "bizUrl": str(reference)}))
    else:
        say(f"pushed {name}:{version}")
        click.echo(reference)


def _credentials(path: Path | None) -> Credentials:
    """The credentials in a file, by default the one of docker if there is one."""
    from koupleless.artifact.fetching.credentials import Credentials

    if path is None:
        found = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
        path = found if found.is_file() else None
    return Credentials(path)

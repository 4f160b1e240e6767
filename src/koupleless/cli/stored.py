"""``arkctl store verify``: compare the unpacked files of a store with their artefacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from koupleless.artifact.keeping.inventory import in_words
from koupleless.artifact.store import Store
from koupleless.errors import SettingsError
from koupleless.settings import load_base

if TYPE_CHECKING:
    from pathlib import Path


def run(directory: Path | None) -> int:
    """Verify the store; returns the exit status, 1 if an entry is damaged.

    Raises ``SettingsError`` if no store is named or configured, ``ArtifactError`` for an unreadable store.
    """
    directory = directory or load_base().store_dir
    if directory is None:
        raise SettingsError("there is no store-dir: such a base has a store of its own while it runs; name a directory")
    if not directory.is_dir():
        raise SettingsError(f"{directory} is no directory, so no store either")
    with Store(directory) as store:
        entries = store.verify()
    is_damaged = False
    for entry in entries:
        said = "as it was"
        if entry.damaged:
            is_damaged = True
            said = f"damaged, unpacked again at its next use: {in_words(entry.damaged)}"
        if entry.written:
            said += f"; written since: {in_words(entry.written)}"
        click.echo(f"{entry.digest[:12]}  {entry.identity or '?'}  {said}")
    if not entries:
        click.echo(f"{directory} holds nothing")
    return int(is_damaged)

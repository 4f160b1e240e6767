"""``arkctl store`` and ``arkctl cache``: verify unpacked files, and remove unused entries and results of builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from koupleless.artifact.cached.cache import Cache
from koupleless.artifact.keeping.inventory import in_words
from koupleless.artifact.store import Store
from koupleless.cli.showing.render import mebibytes
from koupleless.errors import SettingsError
from koupleless.settings.base import load_base

if TYPE_CHECKING:
    from pathlib import Path


def verify_store(directory: Path | None) -> int:
    """Verify the store; returns the exit status, 1 if an entry is damaged.

    Raises ``SettingsError`` if no store is named or configured, ``ArtifactError`` for an unreadable store.
    """
    directory = _directory(directory)
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
        click.echo(_line(entry.digest, entry.identity, said))
    if not entries:
        click.echo(f"{directory} holds nothing")
    return int(is_damaged)


def clean_store(directory: Path | None, *, keep: int | None) -> None:
    """Remove the entries used by no base except the ``keep`` used last; ``None``: the number of the settings.

    Raises ``SettingsError`` if no store is named or configured, ``ArtifactError`` if the disk refuses.
    """
    keep = load_base().store_keep if keep is None else keep
    with Store(_directory(directory)) as store:
        removed = store.remove_unused(keep_newest=keep)
        left = store.size_bytes()
    for digest, identity in zip(removed.digests, removed.identities, strict=True):
        click.echo(_line(digest, identity, "removed"))
    click.echo(f"{mebibytes(removed.size_bytes)} freed, {mebibytes(left)} left")


def clean_cache(*, is_all: bool) -> None:
    """Remove results of earlier builds that were not used for long, or are too many together; or all."""
    cache = Cache.of_user()
    cleaned = cache.clean(max_bytes=0) if is_all else cache.clean()
    click.echo(f"{mebibytes(cleaned.freed_bytes)} freed, {mebibytes(cleaned.left_bytes)} left in {cache.root}")


def _directory(named: Path | None) -> Path:
    directory = named or load_base().store_dir
    if directory is None:
        raise SettingsError("there is no store-dir: such a base has a store of its own while it runs; name a directory")
    if not directory.is_dir():
        raise SettingsError(f"{directory} is no directory, so no store either")
    return directory


def _line(digest: str, identity: str, said: str) -> str:
    return f"{digest[:12]}  {identity or '?'}  {said}"

"""``arkctl store`` and ``arkctl cache``: verify unpacked files, and remove unused entries and results of builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from koupleless.artifact.cached.cache import Cache
from koupleless.artifact.keeping.cleaning import Retention
from koupleless.artifact.keeping.inventory import in_words
from koupleless.artifact.store import Store
from koupleless.cli.showing.render import mebibytes
from koupleless.errors import SettingsError
from koupleless.settings.base import UNNAMED, load_base
from koupleless.state.book import digests_in
from koupleless.state.directory import default_directory

if TYPE_CHECKING:
    from pathlib import Path

    from koupleless.settings.base import BaseSettings


_DAY_S: Final = 86_400.0


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


def clean_store(directory: Path | None, *, keep: int | None, days: float | None, megabytes: int | None) -> None:
    """Remove the entries needed by no base except the ``keep`` used last; ``None``: the limits of the settings.

    Entries that are in the journal of a base stay, whether the base runs or not. Raises ``SettingsError`` if no store
    is named or configured, ``ArtifactError`` if the disk refuses.
    """
    settings = load_base()
    limits = Retention(
        settings.store_keep if keep is None else keep,
        settings.store_age_s if days is None else days * _DAY_S,
        settings.store_bytes if megabytes is None else megabytes * 1_000_000,
    )
    with Store(_directory(directory)) as store:
        removed = store.remove_unused(limits, keep=set().union(*map(digests_in, store.books())))
        left = store.size_bytes()
    for digest, identity in zip(removed.digests, removed.identities, strict=True):
        click.echo(_line(digest, identity, "removed"))
    click.echo(f"{mebibytes(removed.size_bytes)} freed, {mebibytes(left)} left")


def clean_cache(*, is_all: bool) -> None:
    """Remove results of earlier builds that were not used for long, or are too many together; or all."""
    cache = Cache.of_user()
    cleaned = cache.clean(max_bytes=0, in_use_s=0) if is_all else cache.clean()
    click.echo(f"{mebibytes(cleaned.freed_bytes)} freed, {mebibytes(cleaned.left_bytes)} left in {cache.root}")


def _directory(named: Path | None) -> Path:
    directory = named or _directory_of(load_base())
    if not directory.is_dir():
        raise SettingsError(f"{directory} is no directory, so no store either")
    return directory


def _directory_of(settings: BaseSettings) -> Path:
    """The store of the base that `arkctl serve` would start here."""
    if settings.store_dir is not None:
        return settings.store_dir
    if settings.ephemeral:
        raise SettingsError("such a base has a store of its own while it runs; name a directory")
    try:
        default = default_directory(settings.name, is_named=settings.name != UNNAMED)
    except RuntimeError as error:
        raise SettingsError(f"there is no state directory: {error}; name a directory") from None
    return (settings.state_dir or default) / "store"


def _line(digest: str, identity: str, said: str) -> str:
    return f"{digest[:12]}  {identity or '?'}  {said}"

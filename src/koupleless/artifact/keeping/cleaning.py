"""The decision which unused entries of a store go, by number, age and size; and the books that need entries."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koupleless.artifact.keeping.entry import Entry
from koupleless.artifact.keeping.libraries import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable


@dataclass(frozen=True, slots=True)
class Retention:
    """Retention for the unused entries of a store."""

    newest: int = 0
    """The number of entries that stay, those used last."""
    age_s: float | None = None
    """Seconds since the last use after which an entry goes."""
    size_bytes: int | None = None
    """The size of the whole store beyond which the entries used longest ago go."""


def needed(entries: Iterable[Path], digests: Collection[str]) -> set[Path]:
    """Choose the entries with these digests, and those of their libraries."""
    entries = list(entries)
    found = {entry for entry in entries if entry.name in digests}
    return found | _libraries_of(found)


def removable(unused: Collection[Path], limits: Retention, *, used_bytes: Callable[[], int]) -> list[Path]:
    """Choose the unused entries that go, those used last first; the libraries of an entry that stays stay.

    ``used_bytes`` is the size of all other entries, asked only for a limit of size.
    """
    by_age = sorted(unused, key=lambda entry: entry.stat().st_mtime, reverse=True)
    stays = by_age[: limits.newest]
    if limits.age_s is not None:
        oldest = time.time() - limits.age_s
        stays = [entry for entry in stays if entry.stat().st_mtime >= oldest]
    if limits.size_bytes is not None:
        left = limits.size_bytes - used_bytes()
        fitting = []
        for entry in stays:
            left -= size_of(entry)
            if left < 0:
                break
            fitting.append(entry)
        stays = fitting
    kept = {*stays} | _libraries_of(stays)
    return [entry for entry in by_age if entry not in kept]


def _libraries_of(entries: Iterable[Path]) -> set[Path]:
    """The entries of the libraries of artefacts."""
    return {entry.parent / f"{LIBRARIES}-{digest}" for entry in entries if (digest := Entry(entry).libraries())}


def size_of(directory: Path) -> int:
    """Add up the sizes of all files below a directory, in bytes."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - a text path, as os.walk gives it
        for parent, _, names in os.walk(directory)
        for name in names
    )


# --- books ---------------------------------------------------------------------------------------------------------


def add_book(directory: Path, book: Path) -> None:
    """Note in ``directory`` that the file ``book`` names entries that are needed. Raises ``OSError``."""
    directory.mkdir(exist_ok=True)
    place = directory / hashlib.sha256(os.fsencode(book)).hexdigest()[:16]
    if not place.exists():
        place.write_bytes(os.fsencode(book))


def books(directory: Path) -> list[Path]:
    """List the noted books that are still there; the others are forgotten."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for place in directory.iterdir():
            book = Path(os.fsdecode(place.read_bytes()))
            if book.exists():
                found.append(book)
            else:
                place.unlink(missing_ok=True)
    return found

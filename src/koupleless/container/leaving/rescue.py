"""Copies files written by a biz below the code to a directory where the next version finds the files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from koupleless.view.data import copy_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from koupleless.artifact.store import Unpacked

RESCUED: Final = "rescued"
_NAMED: Final = 3


def rescue(unpacked: Unpacked, directory: Path) -> str | None:
    """Copy files written below the code into ``rescued/`` of the data directory. Returns a note, or ``None``.

    Called when the biz has ended. If the place has another file of the same name, the copy gets a number in the name.
    Returns ``None`` if there were no files. Raises ``OSError``; files copied before the error stay.
    """
    written = sorted(unpacked.written())
    if not written:
        return None
    place = directory / RESCUED / unpacked.path.name
    for name in written:
        _carry(unpacked.path / name, place / name)
    some = ", ".join(map(str, written[:_NAMED]))
    more = f" and {len(written) - _NAMED} more" if len(written) > _NAMED else ""
    return (
        f"{unpacked.manifest.id} has written below its code, where no other version finds it: {some}{more}; copied to "
        f"{place}. Write to koupleless.data_dir() instead, which stays: {directory}"
    )


def _carry(source: Path, target: Path) -> None:
    status = source.lstat()
    for place in _places(target):
        if not place.exists():
            copy_once(source, place)
            return
        there = place.stat()
        if (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
            return


def _places(target: Path) -> Iterator[Path]:
    yield target
    number = 1
    while True:
        number += 1
        yield target.with_name(f"{target.stem}-{number}{target.suffix}")

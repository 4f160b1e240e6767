"""Files that a biz has written below its code, carried to where the next version can find them."""

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
    """Copy what was written below the code into the data directory's ``rescued/``; say so, ``None`` if nothing was.

    Called when the biz has ended. A place that has another file of that name gets a new one beside it, numbered.
    Raises ``OSError``; what was copied by then stays.
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

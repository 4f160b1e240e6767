"""Each tutorial, done as a reader does it: its files, its commands, and the outputs that it shows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.pages import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.timeout(300),
    # A minute of processor time, for what is said of no version of Python: once in a run over several is enough.
    pytest.mark.skipif(sys.version_info < (3, 12), reason="runs with the newer versions"),
]

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    directory = tmp_path / "work"
    directory.mkdir()
    reader = Reader(directory)
    yield reader
    reader.close()


@pytest.mark.parametrize("page", sorted(path.stem for path in TUTORIALS.glob("*.md")))
def test_a_tutorial_does_what_it_shows(reader: Reader, page: str) -> None:
    reader.follow((TUTORIALS / f"{page}.md").read_text("utf-8"))

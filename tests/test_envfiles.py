"""Files of variables: read as other tools read them, and refused by line, never with a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from koupleless.envfiles import MAX_BYTES, read_env_file
from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_comments_quotes_exports_and_references_are_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_PROCESS", "outside")
    file.write_text(
        "\ufeff# a comment\nexport A=1 # more\nB='two words'\n\nC=\"x\\ny\"\n"
        "D=${A}-${OF_PROCESS}-${NONE:-z}\nNAME\nE=\n"
    )
    assert read_env_file(file) == {"A": "1", "B": "two words", "C": "x\ny", "D": "1-outside-z", "E": ""}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"A=1\n\n\n  s3cret b c\n", "line 4 is not NAME=value"),
        (b"A='s3cret\n", "line 1 is not NAME=value"),
        (b"A=s3cret\0\n", "the value of 'A' has a NUL"),
        (b"A=\xff\xfes3cret\n", "is no UTF-8 text"),
        (b"A=" + b"s3cret" * (MAX_BYTES // 6 + 1), f"at most {MAX_BYTES} bytes"),
        ("\n".join(["K0=s3cret", *(f"K{i}=${{K{i - 1}}}${{K{i - 1}}}" for i in range(1, 40))]).encode(), "more than"),
    ],
    ids=["no name", "an open quote", "nul", "no text", "large", "growing"],
)
def test_hostile_content_is_refused_without_a_value(file: Path, content: bytes, words: str) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_env_file(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_file_and_a_directory_are_told_apart(file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_env_file(file)
    file.mkdir()
    with pytest.raises(SettingsError, match="cannot read"):
        read_env_file(file)

"""Reading texts of strangers with parsers written for friends: crashes and endless work become sentences."""

from __future__ import annotations

import re
import reprlib
import tomllib
from typing import Any, Final

from packaging.requirements import Requirement

MAX_REQUIREMENT: Final = 4096
"""The longest PEP 508 text that is read, in characters."""
_DEEPEST_KEY: Final = 100
_KEY_PART: Final = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
# The time tomllib takes for a dotted key grows with the square of the key's length.
_TOO_DEEP: Final = re.compile(rf"(?<![\w-])(?:{_KEY_PART}\.[ \t]*+){{{_DEEPEST_KEY}}}")


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # more digits than Python converts
            return f"<a number of {x.bit_length()} bits>"


def shown(value: object) -> str:
    """The `repr` of a value of any size and depth, shortened."""
    short = _Short()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 3, 200, 200, 200
    return short.repr(value)


def read_toml(text: str) -> dict[str, Any]:
    """Read a TOML document. Raises ``ValueError`` with a sentence for any text that is no document."""
    if _TOO_DEEP.search(text):
        raise ValueError(f"a key has more than {_DEEPEST_KEY} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("tables or lists are nested too deeply") from None


def read_requirement(text: str) -> str:
    """A PEP 508 text in normal spelling. Raises ``ValueError`` with a sentence for any other text."""
    reason = f"the text is longer than {MAX_REQUIREMENT} characters"
    if len(text) <= MAX_REQUIREMENT:
        try:
            return str(Requirement(text))
        except RecursionError:
            reason = "parentheses are nested too deeply"
        except ValueError as error:
            reason = (str(error).splitlines() or ["the text cannot be read"])[0]
    raise ValueError(f"{shown(text)} is no requirement: {reason}")

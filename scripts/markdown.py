"""Check the layout of Markdown files: lines of at most 140 columns, no trailing blanks, one empty line at a time.

``python scripts/markdown.py [--fix] [FILE ...]``; without files, all that Git tracks. Tables and code may be wider.
With ``--fix`` blanks are cut, and a paragraph that has a line which is too long is wrapped anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

COLUMNS = 140

_ITEM = re.compile(r" *(?:[-*+] |\d+\. |> )")
_WORD = re.compile(r"(?:`[^`]*`|[^\s`])+")
"""A code span stays on one line."""
_MARK = re.compile(r"[-*+>#|]|\d+[.)]$|```")
"""At the beginning of a line these words would be marks."""


def mistakes(text: str) -> list[tuple[int, str]]:
    """The number of each line that is not as it should be, and the reason."""
    found = []
    is_code = was_empty = False
    for number, line in enumerate(text.split("\n")[:-1], 1):
        is_fence = line.lstrip().startswith("```")
        if line != line.rstrip():
            found.append((number, "blanks at its end"))
        if not is_code and not is_fence and len(line) > COLUMNS and not line.startswith("|"):
            found.append((number, f"{len(line)} columns"))
        if not line.strip() and was_empty and not is_code:
            found.append((number, "a second empty line"))
        was_empty = not line.strip()
        is_code ^= is_fence
    if not text.endswith("\n"):
        found.append((text.count("\n") + 1, "no end of line"))
    return found


def mended(text: str) -> str:
    """The text without those mistakes. A line stays too long where it has nothing to be divided at."""
    lines: list[str] = []
    paragraph: list[str] = []
    is_code = False
    for line in [*map(str.rstrip, text.rstrip().split("\n")), ""]:
        is_fence = line.lstrip().startswith("```")
        is_prose = bool(line) and not is_code and not is_fence and not line.startswith(("|", "#"))
        if not is_prose or _ITEM.match(line):
            lines += _wrapped(paragraph)
            paragraph = []
        if is_prose:
            paragraph.append(line)
        elif line or is_code or (lines and lines[-1]):
            lines.append(line)
        is_code ^= is_fence
    return "\n".join(lines)


def _wrapped(paragraph: list[str]) -> list[str]:
    if all(len(line) <= COLUMNS for line in paragraph):
        return paragraph
    item = _ITEM.match(paragraph[0])
    first = item[0] if item is not None else paragraph[0][: -len(paragraph[0].lstrip())]
    lines, line = [], first
    words: list[str] = _WORD.findall(" ".join(paragraph)[len(first) :])
    for word in words:
        if line.strip() and line != first and len(line) + len(word) >= COLUMNS and not _MARK.match(word):
            lines.append(line.rstrip())
            line = " " * len(first)
        line += f"{word} "
    return [*lines, line.rstrip()]


def main(arguments: list[str]) -> int:
    """Print a line for each mistake, or mend them; return 1 if one is left."""
    names = [argument for argument in arguments if argument != "--fix"]
    if not names:
        listed = subprocess.run(["git", "ls-files", "*.md"], capture_output=True, text=True, check=True)  # noqa: S607
        names = listed.stdout.split("\n")[:-1]
    status = 0
    for path in map(Path, names):
        text = path.read_text(encoding="utf-8")
        if "--fix" in arguments and mistakes(text):
            text = mended(text)
            path.write_text(text, encoding="utf-8")
        for number, reason in mistakes(text):
            print(f"{path}:{number}: {reason}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

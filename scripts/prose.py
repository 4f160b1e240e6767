"""Count the words that stand for a noun, in docstrings and comments and in Markdown; fail where there are too many.

``python scripts/prose.py [ROOM | FILE ...]``; without an argument, the whole package is counted, room by room, and
each Markdown file that Git tracks, templates of such files included. Of a Python file docstrings and comments are
counted; a docstring is any text that is a statement of its own, below a variable too. Of a Markdown file everything
is counted but code, HTML and the targets of links. Where a comment says that a script has written the page, tables are
results, and are not counted either. CONTRIBUTING.md has the rule.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "koupleless"


@dataclass(frozen=True)
class Kind:
    """Words that are counted together."""

    name: str
    words: tuple[str, ...]
    limit: int
    """The number allowed in 1,000 words."""


KINDS = (
    Kind("what/whose", ("what", "whose", "whom", "whoever"), 3),
    Kind("pronouns", ("it", "its", "that", "those", "them"), 30),
)

_CODE = re.compile(r"``.*?``|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"(?<=\])\([^)\s]*\)|https?://\S+")
_HTML = re.compile(r"<!--.*?-->|</?\w[^<>]*>", re.DOTALL)
_WRITTEN = "<!-- written by "
_ITEM = re.compile(r"\s*(?:[-*+]|\d+\.) ")
_NO_PROSE = ("# noqa", "# type:", "# pragma", "#!")
_WORST = 5


def prose_of(source: str) -> str:
    """Docstrings and comments of one Python file, without the code in backquotes."""
    texts = [
        node.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    texts += [
        token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith(_NO_PROSE)
    ]
    return _CODE.sub(" ", "\n".join(texts))


def prose_of_page(text: str) -> str:
    """The text of one Markdown file, without code, HTML and the targets of links."""
    is_written = _WRITTEN in text
    lines: list[str] = []
    is_code = is_list = was_empty = False
    for line in text.splitlines():
        is_fence = line.lstrip().startswith("```")
        is_code ^= is_fence
        if line.strip() and not is_code and not is_fence:
            is_list = _ITEM.match(line) is not None or (is_list and line.startswith(" "))
            is_indented = line.startswith("    ") and not is_list and (was_empty or not lines[-1])
            is_result = is_written and line.startswith("|")
            lines.append("" if is_indented or is_result else line)
        was_empty = not line.strip()
    return _LINK.sub(" ", _HTML.sub(" ", _CODE.sub(" ", "\n".join(lines))))


def words_of(path: Path) -> Counter[str]:
    """The words of one file, in lower case."""
    text = path.read_text(encoding="utf-8")
    prose = prose_of(text) if path.suffix == ".py" else prose_of_page(text)
    return Counter(re.findall(r"[a-z]+", prose.lower()))


def places(arguments: list[str]) -> dict[str, list[Path]]:
    """Files by the name of the room that is counted as one; the package's own name means the files in no room."""
    if not arguments:
        rooms = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py")))
        return {PACKAGE.name: sorted(PACKAGE.glob("*.py")), **places(rooms), **pages()}
    found = {}
    for name in arguments:
        if name == PACKAGE.name:
            found[name] = sorted(PACKAGE.glob("*.py"))
        elif (PACKAGE / name).is_dir():
            found[name] = sorted((PACKAGE / name).rglob("*.py"))
        else:
            found[name] = [Path(name)]
    return found


def pages() -> dict[str, list[Path]]:
    """Markdown files that Git tracks, each by its name from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.md.tmpl"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: [ROOT / name] for name in listed.stdout.splitlines()}


def main(arguments: list[str]) -> int:
    """Print a line for each room, and the worst files of a room that is above a limit; return 1 if there is one."""
    status = 0
    for room, files in places(arguments).items():
        of_files = {path: words_of(path) for path in files}
        total = sum((words.total() for words in of_files.values()), 0)
        line = f"{room:32} {total:6} words"
        worst = []
        for kind in KINDS:
            counts = {path: sum(words[word] for word in kind.words) for path, words in of_files.items()}
            rate = 1000 * sum(counts.values()) / max(total, 1)
            line += f"  {kind.name} {rate:5.1f}"
            if rate > kind.limit:
                status = 1
                most = sorted(counts, key=lambda path: -counts[path])[:_WORST]
                named = ", ".join(f"{path.name} {counts[path]}" for path in most)
                worst.append(f"    more than {kind.limit} {kind.name} in 1,000 words; most in {named}")
        print(line, *worst, sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

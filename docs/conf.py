"""How Sphinx makes the site of these pages: `scripts/check docs` builds it, and fails where a link leads nowhere.

The pages are read on the site and in the repository. A link to a file that has no page leads to the file in the
repository; `start`, `changelog`, `contributing` and `security` are pages of files that lie beside this directory.
"""

from __future__ import annotations

import ast
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_DOCS = Path(__file__).parent
_ROOT = _DOCS.parent
_TABLES = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
_PROJECT = _TABLES["project"]
_PAGES = {
    "README.md": "start",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
}
_LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?(?=\))")

project = "Koupleless for Python"
author = copyright = _PROJECT["authors"][0]["name"]  # noqa: A001 - the name that Sphinx reads
version = release = _PROJECT["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns: list[str] = []
# Whatever a docstring names in single backquotes has to have an entry on the site. Types in signatures need none.
nitpicky = True
default_role = "py:obj"
nitpick_ignore_regex = [("py:class", ".*")]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False
html_copy_source = False


def _led(text: str, file: Path, page: Path) -> str:
    """The text of a file, as it is for a page at another place: each link leads to a page of the site, or elsewhere."""

    def target(link: re.Match[str]) -> str:
        path, anchor = Path(os.path.normpath(file.parent / link[1])), link[2] or ""
        if not path.is_relative_to(_ROOT) or not path.exists():
            return link[0]  # for Sphinx to complain of
        inside = path.relative_to(_ROOT).as_posix()
        if inside in _PAGES:
            path = _DOCS / f"{_PAGES[inside]}.md"
        elif not path.is_relative_to(_DOCS) or path.is_dir():
            return f"{_PROJECT['urls']['Source']}/blob/main/{inside}{anchor}"
        return os.path.relpath(path, page.parent) + anchor

    return _LINK.sub(target, text)


def _read(app: Sphinx, name: str, content: list[str]) -> None:
    page = Path(app.env.doc2path(name))
    content[0] = _led(content[0], page, page)
    if name == "rooms":
        content[0] += _charters()


def _include(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    content[0] = _led(content[0], _DOCS / path, Path(app.env.doc2path(parent)))


def _charters() -> str:
    """The charter of each room, and of rooms within, from the highest floor down. Markdown reads their marks, too."""
    (layers,) = (c["layers"] for c in _TABLES["tool"]["importlinter"]["contracts"] if c["name"] == "Layers")
    parts = []
    for name in [name.strip() for layer in layers for name in layer.split("|")]:
        place = _ROOT / "src/koupleless" / name
        rooms = [place, *sorted(path.parent for path in place.glob("*/__init__.py"))] if place.is_dir() else [place]
        for room in rooms:
            file = room / "__init__.py" if room.is_dir() else room.with_suffix(".py")
            charter = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").replace("::\n", ":\n")
            mark = "##" if room == place else "###"
            parts.append(f"\n{mark} `{'.'.join(room.relative_to(_ROOT / 'src').parts)}`\n\n{charter}\n")
    return "".join(parts)


def _sign(app: Sphinx, what: str, name: str, *seen: object) -> tuple[str, None] | None:  # noqa: ARG001
    """No signature for a class, or an error, with instances that users are given and do not make."""
    _, _, signature, _ = seen
    is_given = what == "class" or (what == "exception" and signature)
    return ("", None) if is_given and name != "koupleless.base.Base" else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("include-read", _include)
    app.connect("autodoc-process-signature", _sign)

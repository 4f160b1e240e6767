"""Facts in the text of a single-file biz: the ``# /// script`` block, the version, and the entry."""

from __future__ import annotations

import ast
import re
import tomllib
from typing import TYPE_CHECKING, Final

from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT_BLOCK: Final = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_APPLICATIONS: Final = ("app", "application", "asgi", "wsgi")
_FACTORIES: Final = ("create_app", "make_app")


def read_script_block(path: Path, text: str) -> dict[str, object]:
    """The TOML document in the ``# /// script`` block of ``text``; empty without a block. Raises ``BuildFailed``."""
    blocks = list(_SCRIPT_BLOCK.finditer(text))
    if len(blocks) > 1:
        raise BuildFailed(str(path), "the file has more than one '# /// script' block")
    if not blocks:
        return {}
    lines = [line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines()]
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        raise BuildFailed(str(path), f"the '# /// script' block is no TOML: {error}") from None


def find_version(tree: ast.Module) -> str | None:
    """The text assigned to ``__version__``; ``None`` without such an assignment."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if "__version__" in names and isinstance(node.value.value, str):
                return node.value.value
    return None


def find_entry(module: str, tree: ast.Module) -> str:
    """The entry: an application by its usual name, else a factory, else ``main``, else the Python module itself."""
    names = _top_level_names(tree)
    callables = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    for name in _APPLICATIONS:
        if name in names:
            return f"{module}:{name}"
    for name in _FACTORIES:
        if name in callables:
            return f"{module}:{name}()"
    return f"{module}:main" if "main" in callables else module


def _top_level_names(tree: ast.Module) -> set[str]:
    """Names bound by the Python module, as far as visible without running the code."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.With, ast.If, ast.Try)):
            names.update(
                inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
            )
    return names

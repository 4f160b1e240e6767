"""Find the application of a project by reading the code, without importing any of it."""

from __future__ import annotations

import ast
import fnmatch
import os
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.artifact.building.project_files import is_left_out

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAMEWORKS: Final = frozenset(
    (
        *("APIFlask", "App", "Application", "Bottle", "BlackSheep", "Dash", "Falcon", "FastAPI", "Flask", "Litestar"),
        *("Quart", "Sanic", "Starlette", "get_asgi_application", "get_wsgi_application"),
    )
)
"""Classes and functions of which an application is usually made."""
_OTHERS: Final = ("api", "server")
"""Names of applications that are names of other objects as often."""
_APPLICATIONS: Final = ("app", "application", "api", "asgi", "wsgi", "asgi_app", "wsgi_app", "server")
_FACTORIES: Final = ("create_app", "make_app", "get_app", "build_app", "create_application", "app_factory")
_FILES: Final = ("asgi", "wsgi", "app", "main", "application", "server", "api", "__init__")
"""Names of files that usually have the application; the first are the likeliest."""
_TESTS: Final = ("test", "tests", "testing", "test_*", "*_test", "conftest", "setup", "noxfile", "docs", "examples")
_MANAGE: Final = "manage.py"
_SETTINGS: Final = re.compile(r"""DJANGO_SETTINGS_MODULE["']\s*,\s*["']([\w.]+)["']""")
_DEPTH: Final = 5
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """An application that a project may be started by."""

    entry: str
    """``package.module:app``, or ``package.module:create_app()``."""
    why: str
    """A clause for people."""
    rank: tuple[int, ...]
    """The smaller, the likelier."""


def find_applications(root: Path) -> list[Candidate]:
    """Return the applications in the project at ``root``, the likeliest first. Files that are no Python are left out.

    An assignment of a call to a usual name (``app = FastAPI()``) is likelier than a factory, a framework's class
    likelier than any other call, and a file called ``asgi.py`` or ``app.py`` likelier than others. A ``server`` or
    ``api`` of another class comes last. In a Django project the application is that of the settings in ``manage.py``.
    """
    source = root / "src" if (root / "src").is_dir() else root
    django = _settings_package(root) if (root / _MANAGE).is_file() else None
    found = [one for path in _files(source) for one in _candidates(path, source, django)]
    return sorted(found, key=lambda one: one.rank)


def _settings_package(root: Path) -> str | None:
    try:
        named = _SETTINGS.search((root / _MANAGE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return None if named is None else named[1].partition(".settings")[0].rpartition(":")[2]


def _files(source: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(source):
        depth = len(Path(parent).relative_to(source).parts)
        directories[:] = sorted(
            name
            for name in directories
            if depth < _DEPTH and name.isidentifier() and not _is_test(name) and not is_left_out(Path(parent, name))
        )
        for name in sorted(names):
            stem = name.removesuffix(".py")
            if name.endswith(".py") and stem.isidentifier() and not _is_test(stem) and name != _MANAGE:
                yield Path(parent, name)


def _is_test(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _TESTS)


def _candidates(path: Path, source: Path, django: str | None) -> Iterator[Candidate]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            return
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    parts = path.relative_to(source).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    place = path.relative_to(source).as_posix()
    of_file = _FILES.index(path.stem) if path.stem in _FILES else len(_FILES)
    is_django = django is not None and module in {f"{django}.asgi", f"{django}.wsgi"}
    for name, made_by in _assigned(tree):
        if name not in _APPLICATIONS and made_by not in _FRAMEWORKS:
            continue
        kind = (0 if is_django else 1) if made_by in _FRAMEWORKS else 4 if name in _OTHERS else 2
        order = _APPLICATIONS.index(name) if name in _APPLICATIONS else len(_APPLICATIONS)
        yield Candidate(
            f"{module}:{name}",
            f"{name} = {made_by}(...) in {place}",
            # Of Django's two, the one for WSGI: that for ASGI runs the same views on threads anyhow.
            (kind, -of_file if is_django else len(parts), of_file, order),
        )
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in _FACTORIES and not _needs_arguments(node):
            order = _FACTORIES.index(node.name)
            yield Candidate(f"{module}:{node.name}()", f"{node.name}() in {place}", (3, len(parts), of_file, order))


def _assigned(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Pairs of each name to which the outermost level assigns a call, and the last name of the function called."""
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Call):
            function = value.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            yield from ((target.id, called) for target in targets if isinstance(target, ast.Name))


def _needs_arguments(node: ast.FunctionDef) -> bool:
    taken = node.args
    return len(taken.posonlyargs) + len(taken.args) > len(taken.defaults) or None in taken.kw_defaults

"""Finding calls in a project's own code that no base will let a module make, before anything is run.

Found is what is certain to be called when the entry is imported: statements at the outermost level of the entry's
module and its packages, and of the project's modules that those import at the outermost level. What stands in a
function, under an ``if`` or in a ``try`` may never be called; a base refuses it if it is.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from koupleless.patching import explain, is_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def find_refused_calls(files: Mapping[str, bytes], entry: str) -> list[str]:
    """In words, every such call in ``files`` (place -> content) that importing ``entry`` makes."""
    found: list[str] = []
    todo = list(_with_parents(entry.partition(":")[0]))
    known = set(todo)
    while todo:
        module = todo.pop(0)
        place = next((place for place in _places(module) if place in files), None)
        if place is None:
            continue
        try:
            tree = ast.parse(files[place])
        except (SyntaxError, ValueError):
            continue  # told where it is compiled, or imported
        package = module if place.endswith("__init__.py") else module.rpartition(".")[0]
        names = dict(_bound(tree, package))
        for statement in _certain(tree.body):
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                more = [name for one in _imported(statement, package) for name in _with_parents(one)]
                todo += [name for name in dict.fromkeys(more) if name not in known]
                known.update(more)
            elif isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign)) and isinstance(statement.value, ast.Call):
                holder, _, name = _dotted(statement.value.func, names).rpartition(".")
                if is_one(holder, name):
                    found.append(f"{place}, line {statement.lineno}, calls {holder}.{name}(): {explain(holder)}")
    return found


def _with_parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))


def _places(module: str) -> tuple[str, str]:
    path = module.replace(".", "/")
    return f"{path}/__init__.py", f"{path}.py"


def _certain(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that are run whatever happens."""
    for statement in body:
        if isinstance(statement, ast.With):
            yield from _certain(statement.body)
        else:
            yield statement


def _imported(statement: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """The modules that a statement imports, and those that it may."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    origin = _origin(statement, package)
    return [origin, *(f"{origin}.{alias.name}" for alias in statement.names)]


def _origin(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - statement.level + 1], *filter(None, [statement.module])])


def _bound(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """Every name that an import binds -> what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (name, name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{_origin(node, package)}.{alias.name}"


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    """What an expression of names and dots stands for; empty for any other."""
    if isinstance(node, ast.Attribute):
        outer = _dotted(node.value, names)
        return f"{outer}.{node.attr}" if outer else ""
    return names.get(node.id, "") if isinstance(node, ast.Name) else ""

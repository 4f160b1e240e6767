"""Finding, before any code is run, calls in a project's own code that every base refuses to a biz.

A call is found if the import of the entry is certain to make the call: in a statement at the outermost level of the
entry's Python module, of the packages around this module, or of a Python module of the project imported at the
outermost level. A call in a function, under an ``if`` or in a ``try`` may never be made; a base refuses the call then.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from koupleless.patching import explain, is_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def find_refused_calls(files: Mapping[str, bytes], entry: str) -> list[str]:
    """Refused calls in ``files`` (place -> content) made by the import of ``entry``, one sentence for each call."""
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
            continue  # reported by the compiler or by the import
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
    """The statements that are run unconditionally."""
    for statement in body:
        if isinstance(statement, ast.With):
            yield from _certain(statement.body)
        else:
            yield statement


def _imported(statement: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """The Python modules imported by a statement, names that may be attributes included."""
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
    """Pairs of each name bound by an import, and the full name of the imported object."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (name, name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{_origin(node, package)}.{alias.name}"


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    """The full name behind an expression of names and dots; empty for any other expression."""
    if isinstance(node, ast.Attribute):
        outer = _dotted(node.value, names)
        return f"{outer}.{node.attr}" if outer else ""
    return names.get(node.id, "") if isinstance(node, ast.Name) else ""

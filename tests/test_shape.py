"""The shape of the source: short files, small rooms, classes of one concern. CONTRIBUTING.md has the limits.

Places beyond a limit are known by name. A place that is mended leaves the list, and no place joins it.
"""

from __future__ import annotations

import ast
import functools
import statistics
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "koupleless"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if not {"templates", "demo_modules"} & {*path.parts})
ROOMS = sorted({path.parent for path in FILES} - {PACKAGE, PACKAGE / "adapters"})
"""But for the room that has a file for each library that it knows."""

LINES = 600
LINES_OF_NINE_IN_TEN = 400
FILES_OF_A_ROOM = 9
METHODS = 12
FIELDS = 8

KNOWN: dict[str, set[str]] = {
    "files": set(),
    "rooms": set(),
    "methods": set(),
    "fields": set(),
}
"""The places beyond each limit that there were when the limits came."""

MUTABLE = {
    *("list", "dict", "set", "bytearray", "deque", "OrderedDict", "Counter", "defaultdict"),
    *("WeakSet", "WeakKeyDictionary", "WeakValueDictionary"),
}
"""Calls that make an object to be changed later."""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    return {
        f"{name_of(path)}: {node.name}": node
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


def methods_of(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]


def public_methods(node: ast.ClassDef) -> set[str]:
    """Properties count as well; a getter with its setter, and a method with its overloads, count once."""
    return {method.name for method in methods_of(node) if not method.name.startswith("_")}


def is_made_to_be_changed(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        called = value.func
        return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in MUTABLE
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def stored_in(method: ast.FunctionDef | ast.AsyncFunctionDef) -> list[tuple[str, ast.expr | None]]:
    """The attributes of ``self`` that a method stores or deletes, with the value where there is one for each."""
    me = method.args.args[0].arg if method.args.args else ""
    values: dict[int, ast.expr | None] = {}
    for node in ast.walk(method):
        if isinstance(node, ast.Assign):
            values |= {id(target): node.value for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            values[id(node.target)] = node.value
    return [
        (node.attr, values.get(id(node)))
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and not isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id == me
    ]


def fields_of_an_open_dataclass(node: ast.ClassDef) -> set[str]:
    """Anyone may store into the fields of a dataclass that is not frozen."""
    for decorator in node.decorator_list:
        name, _, options = ast.unparse(decorator).partition("(")
        if name.endswith("dataclass") and "frozen=True" not in options:
            return {ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign)}
    return set()


def mutable_fields(node: ast.ClassDef) -> set[str]:
    """Fields that are stored anew after the object was made, or hold from the start an object made to be changed."""
    found = fields_of_an_open_dataclass(node)
    for method in methods_of(node):
        is_made = method.name in ("__init__", "__new__", "__post_init__")
        found |= {name for name, value in stored_in(method) if not is_made or is_made_to_be_changed(value)}
    return found


def sizes(kind: str) -> dict[str, int]:
    match kind:
        case "files":
            return {name_of(path): lines_of(path) for path in FILES}
        case "rooms":
            return {name_of(room): len([*room.glob("*.py")]) - (room / "__init__.py").exists() for room in ROOMS}
        case "methods":
            return {name: len(public_methods(node)) for name, node in classes().items()}
        case _:
            return {name: len(mutable_fields(node)) for name, node in classes().items()}


@pytest.mark.parametrize(
    ("kind", "limit"), [("files", LINES), ("rooms", FILES_OF_A_ROOM), ("methods", METHODS), ("fields", FIELDS)]
)
def test_the_places_beyond_a_limit_are_those_that_are_known(kind, limit):
    beyond = {name: size for name, size in sizes(kind).items() if size > limit}
    known = KNOWN[kind]

    assert {name: size for name, size in beyond.items() if name not in known} == {}, f"more than {limit}: divide these"
    assert known - beyond.keys() == set(), "mended: take these from the list"


def test_nine_files_in_ten_are_short():
    assert statistics.quantiles(map(lines_of, FILES), n=10)[-1] < LINES_OF_NINE_IN_TEN


def parsed(source: str) -> list[ast.ClassDef]:
    return [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]


def test_methods_and_fields_are_counted_as_the_limits_mean_them():
    (node,) = parsed("""
class Sample:
    def __init__(self, given):
        self.given = given
        self.table: dict[str, int] = {}
        self.queue = collections.deque()
        self.state = None

    @property
    def size(self): ...

    @size.setter
    def size(self, value): self.state = value

    def _hidden(self): self.count += 1

    def close(self):
        other.given = None
        del self.late
""")
    (open_one, frozen) = parsed("""
@dataclass(slots=True)
class Open:
    one: int
    two: int = 2

@dataclass(frozen=True)
class Frozen:
    one: int
""")

    assert public_methods(node) == {"size", "close"}
    assert mutable_fields(node) == {"table", "queue", "state", "count", "late"}
    assert mutable_fields(open_one) == {"one", "two"}
    assert mutable_fields(frozen) == set()

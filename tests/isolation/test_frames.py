"""Code that walks frames while modules are imported: it sees files of the biz and of importlib, none of ours."""

from __future__ import annotations

import ast
import inspect
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from koupleless.context import entered
from koupleless.isolation.linking import linker

AGED = {
    "aged/__init__.py": """
        import warnings

        def __getattr__(name):
            if name == "old":
                warnings.warn("old is old", DeprecationWarning, stacklevel=2)
                return 1
            raise AttributeError(name)
    """,
    "aged/early.py": "import warnings; warnings.warn('at import', DeprecationWarning, stacklevel=2)",
    "aged/parent/__init__.py": "import warnings; warnings.warn('a parent', DeprecationWarning, stacklevel=2)",
    "aged/parent/child.py": "",
    "aged/relative.py": "from . import early",
    "aged/fine.py": "",
    "flat.py": "import warnings; warnings.warn('at import', DeprecationWarning, stacklevel=2)",
}
STATEMENTS = (
    "from aged import old",
    "import aged; aged.old",
    "import aged.early",
    "from aged import early",
    "from aged.early import warnings",
    "import aged.parent.child",
    "from aged.parent import child",
    "import aged.relative",
    "import flat",
    "__import__('flat')",
    "import importlib; importlib.import_module('flat')",
    "import importlib; importlib.import_module('.early', 'aged')",
    "import importlib, aged.fine; importlib.reload(aged.fine)",
)

FRAMES = """
import sys

def files():
    frame, found = sys._getframe(1), []
    while frame is not None:
        found.append(frame.f_code.co_filename)
        if frame.f_code.co_name == "outermost":
            return found
        frame = frame.f_back
"""


def of_function(text: str) -> str:
    return f"def outermost():\n    {text}\n"


def places(seen: list[warnings.WarningMessage]) -> list[tuple[str, int]]:
    return [(Path(each.filename).name, each.lineno) for each in seen]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_warning_at_import_names_the_line_of_the_statement(biz, base, statement):
    """The same line as without a base, for whichever way the module is imported."""
    base(AGED)
    alone: dict[str, Any] = {}
    exec(compile(of_function(statement), "web.py", "exec"), alone)
    with warnings.catch_warnings(record=True) as expected:
        warnings.simplefilter("always")
        alone["outermost"]()
    for name in [name for name in sys.modules if name.partition(".")[0] in {"aged", "flat"}]:
        del sys.modules[name]
    inside = biz({**AGED, "web.py": of_function(statement)}).import_module("web")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        inside.outermost()
    assert places(seen) == places(expected)
    assert expected or "fine" in statement


@pytest.mark.parametrize(
    "statement",
    [
        "import watched",
        "from package import watched",
        "import package.inner.watched",
        "__import__('watched')",
        "import importlib; importlib.import_module('package.watched')",
        "import watched; import importlib; importlib.reload(watched)",
        "from package import lazy as watched",
    ],
)
def test_between_a_module_and_who_imports_it_stands_importlib(biz, statement):
    watched = "from frames import files\nseen = files()"
    namespace = biz(
        {
            "frames.py": FRAMES,
            "watched.py": watched,
            "package/__init__.py": """
                def __getattr__(name):
                    from frames import files
                    if name != "lazy":
                        raise AttributeError(name)
                    import types
                    return types.SimpleNamespace(seen=files())
            """,
            "package/watched.py": watched,
            "package/inner/__init__.py": "",
            "package/inner/watched.py": watched,
            "web.py": f"""
                def outermost():
                    {statement}
                    import sys
                    found = [module for name, module in sys.modules.items() if name.endswith("watched")]
                    return (found or [watched])[-1].seen
            """,
        }
    )
    seen = namespace.import_module("web").outermost()
    between = [name for name in seen if Path(name).name not in {"watched.py", "web.py", "__init__.py"}]
    assert [name for name in between if not name.startswith("<frozen importlib._bootstrap")] == []
    assert Path(seen[-1]).name == "web.py"


COUNTED = """
import sys

def seen():
    frame, found = sys._getframe(1), []
    while frame is not None:
        code, name = frame.f_code, frame.f_globals.get("__name__")
        found.append((code.co_name, code.co_filename.rpartition("/")[2], name))
        if code.co_name == "outermost":
            return found
        frame = frame.f_back
"""
WATCHED = "from counted import seen\nseen = seen()"
ALL_WATCHED = {
    "counted.py": COUNTED,
    "watched.py": WATCHED,
    "parent/__init__.py": WATCHED,
    "parent/child/__init__.py": WATCHED,
    "parent/child/grandchild.py": WATCHED,
    "parent/relative.py": "from .child import grandchild\n" + WATCHED,
    "parent/named.py": "from counted import seen\n__all__ = ['child']\nseen = seen()",
    "lazy/__init__.py": """
        answers = []

        def __getattr__(name):
            from counted import seen
            answers.append((name, seen()))
            if name != "absent":
                raise AttributeError(name)
            return 1
    """,
    "lazy/child.py": WATCHED,
    "loaded.py": """
        import importlib.abc, importlib.machinery

        class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                if name == "made":
                    from counted import seen
                    self.found = seen()
                    return importlib.machinery.ModuleSpec(name, self)

            def exec_module(self, module):
                exec(compile("from counted import seen\\nseen = seen()", "made.py", "exec"), module.__dict__)

        finder = Finder()
    """,
}


@pytest.mark.parametrize(
    "statement",
    [
        "import watched",
        "import watched as other",
        "from watched import seen",
        "__import__('watched')",
        "__import__('watched', globals(), locals(), ['seen'], 0)",
        "import importlib; importlib.import_module('watched')",
        "import importlib; importlib.import_module('.child', 'parent')",
        "import importlib; importlib.import_module('parent.child.grandchild')",
        "import parent.child.grandchild",
        "import parent.child.grandchild as other",
        "from parent import child",
        "from parent.child import grandchild",
        "from parent.child.grandchild import seen",
        "import parent.relative",
        "from lazy import absent, child",
        "import loaded, sys; sys.meta_path.insert(0, loaded.finder); import made; sys.meta_path.remove(loaded.finder)",
        "import watched, importlib; importlib.reload(watched)",
    ],
)
def test_as_many_frames_stand_at_import_as_in_a_program(biz, base, statement):
    """The same number, and the same names, counted to the statement.

    But for one name: a package that is asked for a submodule is asked by ``_handle_fromlist`` in a program.
    """
    base(ALL_WATCHED)
    alone: dict[str, Any] = {"__name__": "web"}
    exec(compile(of_function(statement), "web.py", "exec"), alone)
    alone["outermost"]()
    expected = counted(sys.modules)
    for name in [name for name in sys.modules if name.partition(".")[0] in TOPS]:
        del sys.modules[name]
    namespace = biz({**ALL_WATCHED, "web.py": of_function(statement)})
    with entered(namespace.scope):
        namespace.import_module("web").outermost()
    assert counted(namespace.table) == expected
    assert expected


TOPS = {name.partition("/")[0].removesuffix(".py") for name in ALL_WATCHED} | {"made"}


def counted(table: Any) -> dict[str, list[tuple[str, str, str]]]:
    """The frames that each module has seen on the way to the statement."""
    found = {name: table[name] for name in list(table) if name.partition(".")[0] in TOPS - {"counted"}}
    seen = {name: module.seen for name, module in found.items() if hasattr(module, "seen")}
    if "lazy" in found:
        seen["lazy"] = found["lazy"].answers
    if "loaded" in found:
        seen["loaded"] = found["loaded"].finder.found
    return ast.literal_eval(repr(seen).replace("_handle_fromlist", "_find_and_load"))  # type: ignore[no-any-return]


def test_between_a_shared_library_and_who_imports_it_stands_importlib(biz, base):
    """Some frames more than alone: seven where a biz has the base import it, two where the library imports its own."""
    base(
        {
            "based_counted.py": COUNTED,
            "based_watched/__init__.py": "from based_counted import seen\nseen = seen()\nfrom . import inner",
            "based_watched/inner.py": "from based_counted import seen\nseen = seen()",
        }
    )
    namespace = biz({"web.py": of_function("import based_watched\n    return based_watched")})
    watched = namespace.import_module("web").outermost()
    first = [(name, file) for name, file, _ in watched.seen]
    assert first[0] == ("<module>", "__init__.py")
    assert first[-1] == ("outermost", "web.py")
    assert {file.rpartition(".")[0] for _, file in first[1:-1]} == {"<frozen importlib"}
    assert len(first) <= 2 + 5 + 7
    inner = [(name, file) for name, file, _ in watched.inner.seen]
    between = inner[1 : inner.index(("<module>", "__init__.py"))]
    assert {file.rpartition(".")[0] for _, file in between} == {"<frozen importlib"}
    assert len(between) <= 7 + 2


def test_a_module_of_the_base_that_a_biz_imports_warns_of_the_biz(biz, base):
    base({"based_old.py": "import warnings; warnings.warn('old', DeprecationWarning, stacklevel=2)"})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        biz({"web.py": "\n\nimport based_old"}).import_module("web")
    assert places(seen) == [("web.py", 3)]


def test_a_base_s_own_statement_is_blamed_while_a_biz_runs(biz, base):
    """A function of the base that imports late, called by a biz."""
    base(
        {
            "based_late.py": "def load():\n    import based_old",
            "based_old.py": "import warnings; warnings.warn('old', DeprecationWarning, stacklevel=2)",
        }
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        biz({"web.py": "import based_late\nbased_late.load()"}).import_module("web")
    assert places(seen) == [("based_late.py", 2)]


def test_stacks_can_be_inspected_at_import(biz):
    """The lines of what stands in between are those of no file, as those of importlib."""
    namespace = biz(
        {
            "watched.py": """
                import inspect, traceback
                stack = [(info.filename, info.code_context) for info in inspect.stack()]
                text = "".join(traceback.format_stack())
            """,
            "web.py": "import watched",
        }
    )
    namespace.import_module("web")
    watched = namespace.table["watched"]
    inner = watched.stack[: [Path(name).name for name, _ in watched.stack].index("web.py") + 1]
    assert [name for name, _ in inner if Path(name).name not in {"watched.py", "web.py"}]
    assert "linker" not in watched.text.partition("web.py")[2]
    assert inner[-1][1] == ["import watched\n"]


def test_a_failure_of_a_nested_import_shows_the_biz_s_files_alone(biz):
    namespace = biz(
        {
            "one.py": "import two",
            "two.py": "from package import three",
            "package/__init__.py": "",
            "package/three.py": "import importlib; importlib.import_module('four')",
            "four.py": "1 / 0",
        }
    )
    with pytest.raises(ZeroDivisionError) as raised, entered(namespace.scope):
        namespace.import_module("one")
    files = [Path(str(entry.path)).name for entry in raised.traceback[1:]]
    assert files == ["one.py", "two.py", "three.py", "__init__.py", "four.py"]


def test_what_fails_in_the_machinery_itself_is_shown(biz, monkeypatch):
    """A fault of ours is not cut out of its own traceback."""
    namespace = biz({"web.py": "import other", "other.py": ""})
    monkeypatch.setattr(linker, "_PLAIN_LOADERS", None)
    with pytest.raises(TypeError) as raised:
        namespace.import_module("web")
    assert raised.traceback[-1].name == "_execution"


def test_imports_nest_as_deep_as_a_program_s_do(biz):
    """There are hardly more frames between two modules than importlib has there: a hundred fit."""
    depth = 105
    files = {f"nested{at}.py": f"import nested{at + 1}" for at in range(depth)}
    namespace = biz({**files, f"nested{depth}.py": "reached = True"})
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000 + len(inspect.stack()))
    try:
        namespace.import_module("nested0")
    finally:
        sys.setrecursionlimit(limit)
    assert namespace.table[f"nested{depth}"].reached

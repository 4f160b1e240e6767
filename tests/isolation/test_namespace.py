"""One life of one biz: what its code can do, and that nothing of it is left."""

from __future__ import annotations

import gc
import importlib.resources
import linecache
import pickle  # noqa: F401 - the base has the Python module before bizs ask for it
import pkgutil
import sys
import traceback
import typing
import weakref
from typing import Any

import pytest
from tests.isolation.conftest import dead_references

from koupleless.biz import BizId
from koupleless.context import Scope, current, entered
from koupleless.errors import BizGone
from koupleless.isolation.interpreter import REAL, when_loaded
from koupleless.isolation.linking.linker import Linker
from koupleless.isolation.namespace import Namespace

if typing.TYPE_CHECKING:
    from types import ModuleType


def test_postponed_annotations_and_friends(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/models.py": """
                from __future__ import annotations
                import abc, enum, typing
                from collections import namedtuple
                from dataclasses import KW_ONLY, dataclass, field, fields
                from typing import ClassVar, Generic, NamedTuple, TypedDict, TypeVar
                T = TypeVar("T")
                @dataclass(slots=True)
                class Node(Generic[T]):
                    limit: ClassVar[int] = 3
                    name: str
                    _: KW_ONLY
                    children: list[Node] = field(default_factory=list)
                class Colour(enum.Enum):
                    RED = enum.auto()
                class Flags(enum.IntFlag):
                    A = 1
                    B = 2
                Point = namedtuple("Point", "x y")
                class Pair(NamedTuple):
                    left: Node
                class Options(TypedDict):
                    node: Node
                class Base(abc.ABC):
                    @abc.abstractmethod
                    def f(self): ...
                hints = typing.get_type_hints(Node)
                names = [f.name for f in fields(Node)]
            """,
        }
    )
    models = namespace.import_module("app.models")
    assert models.hints["children"].__args__ == (models.Node,)
    assert models.names == ["name", "children"]
    with entered(namespace.scope):
        assert typing.get_type_hints(models.Pair) == {"left": models.Node}
        assert typing.get_type_hints(models.Options) == {"node": models.Node}
    assert {models.Node.__module__, models.Colour.__module__, models.Point.__module__} == {"app.models"}


def test_resolve_reads_a_reference(biz):
    namespace = biz(
        {
            "app.py": """
                from koupleless.context import current_biz
                class Holder:
                    def make(self):
                        return "made by " + str(current_biz())
                holder = Holder()
                def factory():
                    raise ValueError("mine")
            """
        },
        identity="hello:1.0",
    )
    app = namespace.import_module("app")
    assert namespace.resolve("app") is app
    assert namespace.resolve("app:holder") is app.holder
    assert namespace.resolve(" app : holder.make() ") == "made by hello:1.0"
    assert current() is None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        namespace.resolve("app:nothing")
    with pytest.raises(ModuleNotFoundError):
        namespace.resolve("app.nothing:x")
    with pytest.raises(ValueError, match="mine") as caught:
        namespace.resolve("app:factory()")
    frames = [frame.filename.rpartition("/")[2] for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_namespace.py", "app.py"]


def test_code_runs_as_the_biz_while_it_is_imported(biz):
    namespace = biz({"app.py": "from koupleless.context import current\nscope = current()"})
    assert namespace.import_module("app").scope is namespace.scope
    assert namespace.scope.facet(Namespace) is namespace
    assert namespace.scope.facet(Linker).table.modules["app"] is namespace.table["app"]


def test_resources_of_the_bizs_packages(biz):
    namespace = biz(
        {
            "app/__init__.py": """
                import importlib.resources, pkgutil
                text = importlib.resources.files(__name__).joinpath("data/a.txt").read_text()
                again = importlib.resources.files("app").joinpath("top.txt").read_text()
                blob = pkgutil.get_data(__name__, "top.txt")
            """,
            "app/data/a.txt": "inner",
            "app/top.txt": "top",
            "spaced/inner/b.txt": "spaced",
            "spaced/mod.py": "",
        }
    )
    app = namespace.import_module("app")
    assert (app.text, app.again, app.blob) == ("inner", "top", b"top")
    spaced = namespace.import_module("spaced")
    with entered(namespace.scope):
        assert importlib.resources.files("app").joinpath("top.txt").read_text() == "top"
        assert importlib.resources.files(spaced).joinpath("inner/b.txt").read_text() == "spaced"
        assert importlib.resources.files("spaced").joinpath("inner/b.txt").is_file()
        assert pkgutil.get_data("app", "data/a.txt") == b"inner"


def test_a_biz_in_an_archive(biz, tmp_path):
    import zipfile

    archive = tmp_path / "lib.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped/__init__.py", "from . import inner")
        file.writestr("zipped/inner.py", "value = 1")
    namespace = biz({"app.py": "from zipped.inner import value"}, archive)
    assert namespace.import_module("app").value == 1
    namespace.drop()
    assert not any("lib.zip" in path for path in sys.path_importer_cache)


def test_dropping_leaves_nothing(biz):
    namespace = biz({"app/__init__.py": "", "app/models.py": "def fail():\n  raise ValueError"})
    models = namespace.import_module("app.models")
    try:
        models.fail()
    except ValueError:
        traceback.format_exc()
    root = namespace.paths[0]
    with entered(namespace.scope):
        list(pkgutil.iter_modules(namespace.paths))
        assert any(root in path for path in sys.path_importer_cache)
    pkgutil.get_importer(root)
    assert any(root in path for path in linecache.cache)
    assert any(root in path for path in sys.path_importer_cache)
    del models
    dead = dead_references(namespace)
    assert {"app", "app.models", "builtins"} <= {name for name, _ in dead}
    scope, reference = namespace.scope, weakref.ref(namespace.scope.facet(Linker))
    namespace.drop()
    namespace.drop()
    scope.close()
    assert namespace.table == {}
    assert dead_references(namespace) == []
    assert not any(root in path for path in linecache.cache)
    assert not any(root in path for path in sys.path_importer_cache)
    gc.collect()
    assert [name for name, module in dead if module() is not None] == []
    assert reference() is not None  # the test's own fixture still holds the namespace
    with pytest.raises(BizGone):
        namespace.import_module("app")


def test_fifty_lives_leave_no_module(write):
    root = str(
        write(
            {
                "app/__init__.py": "from . import models, late",
                "app/models.py": """
                    from __future__ import annotations
                    import importlib, pickle, sys, typing
                    from dataclasses import dataclass
                    @dataclass
                    class User:
                        name: str
                        friend: User | None = None
                    assert pickle.loads(pickle.dumps(User("a"))) == User("a")
                    hints = typing.get_type_hints(User)
                    importlib.import_module("app.late")
                """,
                "app/late.py": "def f():\n import app.models as m, json\n return m, json\nf()",
            }
        )
    )
    references: list[weakref.ref[Any]] = []
    real = set(REAL)
    for number in range(50):
        scope = Scope(BizId.parse(f"biz:{number}"))
        namespace = Namespace(scope, [root])
        namespace.import_module("app")
        references += [reference for _, reference in dead_references(namespace)]
        references.append(weakref.ref(namespace))
        references.append(weakref.ref(scope.facet(Linker)))
        namespace.drop()
        scope.close()
    del scope, namespace
    gc.collect()
    assert len(references) == 50 * 8
    assert [reference for reference in references if reference() is not None] == []
    assert set(REAL) == real


def test_a_leaked_function_pins_its_module_and_no_other(biz):
    namespace = biz(
        {"app/__init__.py": "", "app/a.py": "def leaked(): pass\nclass A: pass", "app/b.py": "class B: pass"}
    )
    leaked = namespace.import_module("app.a").leaked
    other = weakref.ref(namespace.import_module("app.b").B)
    namespace.drop()
    gc.collect()
    assert other() is None
    assert leaked.__globals__["__name__"] == "app.a"


def test_an_import_that_ends_after_the_drop_adds_nothing(biz, shared):
    namespace = biz({"app.py": "import shared_by_the_test\nshared_by_the_test.drop()\n"})
    shared.drop = namespace.drop
    with pytest.raises(BizGone):
        namespace.import_module("app")
    assert namespace.table == {}


def test_descriptions_name_the_biz(biz):
    namespace = biz({"app.py": ""}, identity="hello:1.0")
    assert "hello:1.0" in repr(namespace)
    linker = namespace.scope.facet(Linker)
    assert "hello:1.0" in repr(linker)
    namespace.drop()
    assert "gone" in repr(linker)


def test_who_waits_for_a_module_is_told_for_each_biz_that_executes_its_own(biz):
    told: list[Any] = []
    end = when_loaded("app.part", lambda scope, module: told.append((scope, module.value)))
    try:
        one = biz({"app/__init__.py": "", "app/part.py": "value = 1"})
        two = biz({"app/__init__.py": "from app.part import value", "app/part.py": "value = 2"})
        one.import_module("app")
        assert not told
        one.import_module("app.part")
        two.import_module("app")
        assert told == [(one.scope, 1), (two.scope, 2)]
    finally:
        end()
    biz({"app/__init__.py": "", "app/part.py": "value = 3"}).import_module("app.part")
    assert len(told) == 2


def test_what_whoever_waits_raises_makes_the_import_fail(biz):
    def refuse(scope: Scope, module: ModuleType) -> None:
        raise ImportError(f"{module.__name__} is refused")

    end = when_loaded("app", refuse)
    namespace = biz({"app.py": ""})
    try:
        with pytest.raises(ImportError, match="app is refused"):
            namespace.import_module("app")
        assert "app" not in namespace.table
    finally:
        end()
    assert namespace.import_module("app").__name__ == "app"


def test_a_finder_leaves_without_a_collection(biz):
    """A purge reaches everything from the code of the biz, and nothing refers from there to the finder."""
    code = "import json, sys, importlib.util\nfound = importlib.util.find_spec('json')\nsys.modules.get('os')\n"
    namespace = biz({"app.py": code})
    namespace.import_module("app")
    finder = weakref.ref(namespace._finder)
    gc.disable()
    try:
        namespace.drop()
        namespace.scope.close()
        del namespace._finder
        assert finder() is None
    finally:
        gc.enable()

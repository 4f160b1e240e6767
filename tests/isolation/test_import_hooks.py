"""Import hooks that a biz installs see the names that they would see alone, and change what that biz gets only."""

from __future__ import annotations

import colorsys
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import sys
import warnings
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.isolation.interpreter import REAL
from koupleless.isolation.linking.linker import Linker
from koupleless.isolation.namespace import Namespace
from koupleless.isolation.reloading import SharedModuleWarning

RECORDER = """
    import sys
    class Recorder:
        def __init__(self): self.seen = []
        def find_spec(self, name, path=None, target=None):
            self.seen.append(name)
    recorder = Recorder()
    sys.meta_path.insert(0, recorder)
"""

POST_IMPORT = """
    import importlib.util, sys
    hooks, told, busy = {}, [], set()

    class Chained:
        def __init__(self, loader):
            self.loader = loader
        def create_module(self, spec):
            return self.loader.create_module(spec)
        def exec_module(self, module):
            self.loader.exec_module(module)
            hooks[module.__name__](module)

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name not in hooks or name in busy:
                return None
            busy.add(name)
            try:
                spec = importlib.util.find_spec(name)
                spec.loader = Chained(spec.loader)
                return spec
            finally:
                busy.discard(name)

    sys.meta_path.insert(0, Finder())
"""

TRANSFORM = """
    import sys
    from importlib.machinery import SourceFileLoader
    from inspect import isclass

    class Loader(SourceFileLoader):
        def source_to_code(self, data, path, *, _optimize=-1):
            return compile(data + b"\\nTRANSFORMED = True\\n", path, "exec")
        def get_code(self, name):
            return self.source_to_code(self.get_data(self.path), self.path)

    class Finder:
        def __init__(self, names, original):
            self.names, self.original = names, original
        def find_spec(self, name, path=None, target=None):
            if name in self.names:
                spec = self.original.find_spec(name, path, target)
                if spec is not None and isinstance(spec.loader, SourceFileLoader):
                    spec.loader = Loader(spec.loader.name, spec.loader.path)
                    return spec

    def install(*names):
        for finder in sys.meta_path:
            if isclass(finder) and finder.__name__ == "PathFinder" and hasattr(finder, "find_spec"):
                sys.meta_path.insert(0, Finder(names, finder))
                return
        raise RuntimeError("Cannot find a PathFinder in sys.meta_path")
"""


def test_hooks_see_names_of_the_standard_library_of_shared_libraries_and_of_the_biz(biz, base):
    base({"based_seen/__init__.py": "", "based_seen/part.py": ""})
    importlib.import_module("based_seen.part")
    namespace = biz(
        {
            "own.py": "",
            "app.py": RECORDER
            + """
    import json, colorsys, xml.etree.ElementTree, based_seen.part, own, sys as again, os.path
    import json as twice, based_seen
    """,
        }
    )
    app = namespace.import_module("app")
    assert app.recorder.seen == [
        *("json", "colorsys", "xml", "xml.etree", "xml.etree.ElementTree", "based_seen", "based_seen.part", "own")
    ]
    assert app.json is json
    assert REAL["based_seen.part"] is app.based_seen.part


def test_hooks_do_not_see_what_was_imported_before_them(biz):
    app = biz(
        {"app.py": "import json, xml.etree" + RECORDER.replace("\n    ", "\n") + "import json, xml.etree, colorsys"}
    )
    assert app.import_module("app").recorder.seen == ["colorsys"]


def test_what_a_hook_is_asked_for_is_not_in_sys_modules(biz):
    namespace = biz(
        {
            "app.py": """
                import sys
                class Hook:
                    def find_spec(self, name, path=None, target=None):
                        import colorsys  # asked for itself: it is not asked again
                        seen.append((name, name in sys.modules))
                seen = []
                sys.meta_path.insert(0, Hook())
                import json
                """
        }
    )
    assert namespace.import_module("app").seen == [("colorsys", False), ("json", False)]


@pytest.mark.parametrize("name", ["colorsys", "xml.etree.ElementTree", "html.parser", "logging.config", "based_post"])
def test_a_post_import_hook_gets_the_module_that_all_share(biz, base, name):
    base({"based_post.py": "value = 1"})
    shared: Any = importlib.import_module(name)
    spec, loader = shared.__spec__, shared.__spec__.loader
    namespace = biz(
        {
            "app.py": POST_IMPORT
            + """
    import importlib
    def load(name):
        hooks[name] = told.append
        first = importlib.import_module(name)
        assert importlib.import_module(name) is first is sys.modules[name]
        assert importlib.reload(first) is first
        return first
    """
        }
    )
    app = namespace.import_module("app")
    with entered(namespace.scope):
        assert app.load(name) is shared
    assert app.told == [shared, shared]
    assert (shared.__spec__, shared.__spec__.loader, shared.__loader__) == (spec, loader, loader)
    assert name not in namespace.table


def test_a_hook_that_transforms_yields_a_module_for_the_biz_alone(biz, base):
    base({"based_typed/__init__.py": "", "based_typed/part.py": "value = 1"})
    shared = importlib.import_module("based_typed.part")
    text = (
        TRANSFORM
        + """
    install("colorsys", "own", "based_typed.part", "threading", "_heapq")
    import colorsys, own, based_typed.part as part, threading, _heapq
    from based_typed import part as same
    """
    )
    first = biz({"own.py": "", "app.py": text})
    second = biz({"own.py": "", "app.py": "import colorsys, own\nfrom based_typed import part"})
    app, other = first.import_module("app"), second.import_module("app")
    assert app.own.TRANSFORMED
    assert app.colorsys.TRANSFORMED
    assert app.colorsys.rgb_to_hls(0, 0, 0) == (0, 0, 0)
    assert app.part.TRANSFORMED
    assert app.same is app.part
    assert app.threading is REAL["threading"]
    assert app._heapq is REAL["_heapq"]
    for module in (shared, colorsys, other.own, other.part, other.colorsys):
        assert not hasattr(module, "TRANSFORMED")
    assert other.colorsys is colorsys
    assert other.part is shared


def test_finders_of_a_biz_are_those_that_code_looks_for(biz):
    real = list(sys.meta_path)
    namespace = biz({"app.py": ""})
    with entered(namespace.scope):
        found: Any = sys.meta_path
        builtin, frozen, on_path = found
        assert (builtin, frozen) == (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)
        assert on_path == importlib.machinery.PathFinder
        assert found.index(importlib.machinery.PathFinder) == 2
        assert issubclass(on_path, importlib.machinery.PathFinder)
        assert on_path.find_spec("app").origin == f"{namespace.paths[0]}/app.py"
        spec: Any = importlib.machinery.PathFinder.find_spec("app")
        assert spec.origin == f"{namespace.paths[0]}/app.py"
        spec = importlib.util.find_spec("html.parser")  # of a module that somebody else may have imported, or not
        module = importlib.import_module("html.parser")
        assert (spec.name, spec.origin) == ("html.parser", module.__file__)
        assert importlib.util.find_spec("html.parser") == module.__spec__
    assert list(sys.meta_path) == real


def test_path_hooks_of_a_biz_see_its_files_and_nobody_else_s(biz):
    hooks, cache = list(sys.path_hooks), dict(sys.path_importer_cache)
    namespace = biz(
        {
            "own.py": "",
            "app.py": TRANSFORM
            + """
    from importlib.machinery import FileFinder, SOURCE_SUFFIXES
    sys.path_hooks.insert(0, FileFinder.path_hook((Loader, SOURCE_SUFFIXES)))
    sys.path_importer_cache.clear()
    import own, colorsys
    """,
        }
    )
    other = biz({"own.py": "", "app.py": "import own"})
    app = namespace.import_module("app")
    assert app.own.TRANSFORMED
    assert app.colorsys is colorsys
    assert sys.path_hooks == hooks
    assert cache.items() <= sys.path_importer_cache.items()
    assert not hasattr(other.import_module("app").own, "TRANSFORMED")


def test_the_recipe_for_lazy_imports_leaves_the_shared_module_as_it_is(biz):
    before = dict(vars(colorsys)), colorsys.__spec__, vars(colorsys.__spec__).copy()
    namespace = biz(
        {
            "app.py": """
                import importlib.util, sys
                def lazy_import(name):
                    spec = importlib.util.find_spec(name)
                    spec.loader = loader = importlib.util.LazyLoader(spec.loader)
                    module = importlib.util.module_from_spec(spec)
                    sys.modules[name] = module
                    loader.exec_module(module)
                    return module
                class Lazily:
                    def find_spec(self, name, path=None, target=None):
                        if name in ("html.entities", "threading"):
                            spec = sys.meta_path[-1].find_spec(name, path)
                            spec.loader = importlib.util.LazyLoader(spec.loader)
                            return spec
                def use():
                    lazy = lazy_import("colorsys")
                    import colorsys
                    assert colorsys is lazy
                    sys.meta_path.insert(0, Lazily())
                    import html.entities as entities, threading
                    return lazy.rgb_to_hls, entities, threading
                """
        }
    )
    entities = importlib.import_module("html.entities")
    app = namespace.import_module("app")
    with entered(namespace.scope):
        function, lazy, threading = app.use()
        assert lazy.html5["gt;"] == ">"
    assert function is not colorsys.rgb_to_hls
    assert function(0, 0, 0) == (0, 0, 0)
    assert lazy is not entities
    assert type(entities) is type(colorsys) is ModuleType
    assert threading is REAL["threading"]
    assert (dict(vars(colorsys)), colorsys.__spec__, vars(colorsys.__spec__)) == before


def test_a_loader_whose_function_is_replaced_runs_the_replacement(biz):
    namespace = biz(
        {
            "own.py": "value = 1",
            "app.py": """
                import importlib.util, sys
                class Hook:
                    def find_spec(self, name, path=None, target=None):
                        if name not in ("own", "colorsys"):
                            return None
                        spec = sys.meta_path[-1].find_spec(name, path)
                        execute = spec.loader.exec_module
                        def exec_module(module):
                            execute(module)
                            told.append(module)
                        spec.loader.exec_module = exec_module
                        return spec
                told = []
                sys.meta_path.insert(0, Hook())
                import own, colorsys
                """,
        }
    )
    app = namespace.import_module("app")
    assert app.told == [app.own, app.colorsys]
    assert app.colorsys is colorsys
    assert "exec_module" not in vars(colorsys.__loader__)


def test_what_a_hook_sets_to_say_where_a_shared_module_came_from_is_taken_back(biz):
    before = colorsys.__loader__, colorsys.__spec__, type(colorsys), colorsys.__spec__.loader
    namespace = biz(
        {
            "app.py": POST_IMPORT
            + """
    import types
    class Kind(types.ModuleType):
        pass
    def claim(module):
        module.__loader__ = module.__spec__ = Chained(None)
        module.__class__ = Kind
    hooks["colorsys"] = claim
    import colorsys
    """
        }
    )
    app = namespace.import_module("app")
    assert app.colorsys is colorsys
    assert (colorsys.__loader__, colorsys.__spec__, type(colorsys), colorsys.__spec__.loader) == before


def test_a_spec_that_somebody_keeps_holds_nothing_of_the_biz(write):
    scope = Scope(BizId.parse("passing:1"))
    namespace = Namespace(scope, [str(write({"app.py": ""}))])
    with entered(scope):
        found: Any = sys.meta_path[-1].find_spec("tabnanny", None)
    linker = weakref.ref(scope.facet(Linker))
    namespace.drop()
    scope.close()
    del namespace, scope
    gc.collect()
    assert linker() is None
    assert found.loader.create_module(found) is None
    assert found.loader.path.endswith("tabnanny.py")


def test_a_hook_sees_what_is_executed_anew(biz):
    namespace = biz({"app.py": RECORDER + "    del sys.modules['json']\n    import json\n    import json.decoder\n"})
    app = namespace.import_module("app")
    assert app.recorder.seen[0] == "json"
    assert app.json is not json


@pytest.mark.parametrize("removal", ["del sys.modules[name]", "sys.modules.pop(name)", "sys.modules.clear()"])
def test_a_hook_sees_what_is_imported_again_after_it_was_removed(biz, removal):
    text = f"""
    def again(name):
        __import__(name)
        del recorder.seen[:]
        saved = dict(sys.modules)
        {removal}
        __import__(name)
        sys.modules.update(saved)
        return recorder.seen
    """
    namespace = biz({"own.py": "", "app.py": RECORDER + text})
    app = namespace.import_module("app")
    for name in ("own", "colorsys", "keyword"):
        assert app.again(name)[:1] == [name]


@pytest.mark.parametrize("name", ["own", "colorsys", "nowhere"])
def test_a_hook_sees_again_what_could_not_be_imported(biz, name):
    text = f"""
    def failing(name):
        try:
            __import__(name)
        except ImportError:
            return list(recorder.seen)
        finally:
            del recorder.seen[:]
    def refuse(module):
        raise ImportError
    hooks[{name!r}] = refuse
    if {name!r} == "nowhere":
        del hooks[{name!r}]
    seen = [failing({name!r}) for _ in range(2)]
    """
    app = biz({"own.py": "", "app.py": POST_IMPORT + RECORDER + text}).import_module("app")
    assert [each[:1] for each in app.seen] == [[name], [name]]


def test_a_shared_module_is_not_run_again_by_reload(biz, base):
    """The biz is told, on the line that asks, and what it can do about it."""
    base({"based_state.py": "values = []"})
    state = importlib.import_module("based_state")
    state.values.append(1)
    namespace = biz(
        {
            "app.py": """
                import importlib, based_state, sys, types
                assert importlib.reload(based_state).values == [1]
                for name in ("os", "sys", "threading"):
                    assert importlib.reload(sys.modules[name]) is sys.modules[name]
                try:
                    importlib.reload(types.ModuleType("colorsys"))
                except ImportError as error:
                    message = str(error)
                """
        }
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        app = namespace.import_module("app")
    assert "not in sys.modules" in app.message
    assert [(Path(each.filename).name, each.lineno) for each in seen] == [("app.py", 3), *[("app.py", 5)] * 3]
    assert {each.category for each in seen} == {SharedModuleWarning}
    assert "biz biz1:1.0 reloaded based_state" in str(seen[0].message)
    assert 'own = ["based_state"]' in str(seen[0].message)
    assert "os, which was not executed again: the standard library" in str(seen[1].message)
    assert importlib.reload(state).values == []
    gc.collect()


def test_shared_code_that_reloads_for_a_biz_reloads_the_bizs(biz, base):
    base({"based_reloader.py": "import importlib\nfrom importlib import reload"})
    namespace = biz({"app.py": "import based_reloader\nloads = globals().get('loads', 0) + 1"})
    app = namespace.import_module("app")
    assert app.based_reloader.importlib.reload is importlib.reload
    with entered(namespace.scope):
        assert importlib.reload(app) is app
    assert app.loads == 2


def test_two_bizs_reload_modules_of_one_name_at_once(biz, shared):
    """Each its own: alone, a module that is being reloaded already is handed out as it is."""
    config = "import shared_by_the_test\nloads = globals().get('loads', 0) + 1\nshared_by_the_test.loaded(loads)"
    app = "import importlib, config\ndef reload():\n    return importlib.reload(config)"
    one, other = (biz({"app.py": app, "config.py": config}) for _ in range(2))
    shared.loaded = [].append
    apps = [namespace.import_module("app") for namespace in (one, other)]
    inner: list[int] = []

    def reload_the_other(loads: int) -> None:
        shared.loaded = [].append
        inner.append(apps[1].reload().loads)

    shared.loaded = reload_the_other
    assert apps[0].reload() is one.table["config"]
    assert inner == [2]
    assert other.table["config"].loads == 2


def test_what_is_no_package_and_has_modules_in_it_is_not_asked_for_by_hooks(biz, base, monkeypatch):
    base({"based_flat.py": ""})
    importlib.import_module("based_flat")
    inner = ModuleType("based_flat.inner")  # as compiled code enters its own, which knows nothing of a biz
    monkeypatch.setitem(REAL, "based_flat.inner", inner)
    app = f"""{RECORDER}
    import based_flat
    from based_flat import inner as _
    import based_flat.inner
    def missing():
        import based_flat.nothing
    """
    monkeypatch.setattr(sys.modules["based_flat"], "inner", inner, raising=False)
    namespace = biz({"app.py": app})
    module = namespace.import_module("app")
    assert "based_flat.inner" not in module.recorder.seen
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'based_flat\.nothing'"):
        module.missing()

"""Shared code that names modules by call works for the running biz; its statements stay the base's."""

from __future__ import annotations

import builtins
import copy
import importlib
import importlib.util
import io
import logging.config
import pickle
import pkgutil
import runpy
import sys
import threading
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, as_base, entered
from koupleless.errors import BizGone
from koupleless.isolation.imports import HOOKS
from koupleless.isolation.interpreter import REAL, bootstrap, keep_apart
from koupleless.isolation.namespace import Namespace
from koupleless.isolation.reloading import SharedModuleWarning
from koupleless.view.logging.logs import LOGS

MODELS = """
    import copy, pickle
    from dataclasses import dataclass
    from enum import Enum
    class Colour(Enum):
        RED = 1
    @dataclass
    class User:
        name: str
        colour: Colour = Colour.RED
    def trip(value):
        return pickle.loads(pickle.dumps(value))
    def python_trip(value):
        return pickle._loads(pickle._dumps(value))
    def function():
        return 1
"""


def hooked() -> tuple[object, ...]:
    return (
        sys.modules,
        sys.path,
        sys.meta_path,
        builtins.__import__,
        bootstrap._find_and_load,
        bootstrap._init_module_attrs,
    )


def test_hooks_come_with_the_first_biz_and_go_with_the_last(biz):
    before = hooked()
    first = biz({})
    during = hooked()
    second = biz({})
    assert all(new is not old for new, old in zip(during, before, strict=True))
    assert all(new is old for new, old in zip(hooked(), during, strict=True))
    first.drop()
    first.drop()
    assert hooked()[3] is during[3]
    second.drop()
    assert all(new is old for new, old in zip(hooked(), before, strict=True))


def test_installers_are_counted():
    before = hooked()
    HOOKS.acquire()
    HOOKS.acquire()
    HOOKS.release()
    assert hooked()[0] is not before[0]
    HOOKS.release()
    assert all(new is old for new, old in zip(hooked(), before, strict=True))
    with pytest.raises(RuntimeError, match="no hooks of imports are installed"):
        HOOKS.release()


def test_an_import_of_the_base_that_ends_after_the_hooks_are_gone_leaves_its_module_where_it_is(base):
    base(
        {"slowly/__init__.py": "", "slowly/part.py": "import slowly\nslowly.begun.set()\nassert slowly.go_on.wait(60)"}
    )
    package: Any = importlib.import_module("slowly")
    package.begun, package.go_on = threading.Event(), threading.Event()
    HOOKS.acquire()
    keep_apart({"slowly"})
    thread = threading.Thread(target=importlib.import_module, args=["slowly.part"])
    thread.start()
    assert package.begun.wait(60)
    HOOKS.release()
    package.go_on.set()
    thread.join(60)
    assert "slowly.part" in sys.modules
    assert sys.modules["slowly"] is package


def test_a_logging_configuration_names_the_biz_s_own_modules_where_the_base_has_the_same(biz, base):
    base({"formats/__init__.py": "", "formats/short.py": "class Formatter: of = 'base'"})
    importlib.import_module("formats")
    namespace = biz({"formats/__init__.py": "", "formats/short.py": "class Formatter: of = 'biz'"})
    LOGS.acquire()
    try:
        configurator = logging.config.BaseConfigurator({})
        with entered(namespace.scope):
            assert configurator.resolve("formats.short.Formatter").of == "biz"
        assert configurator.resolve("formats.short.Formatter").of == "base"
    finally:
        LOGS.release()


def test_hooks_that_cannot_be_put_in_leave_everything_as_it_was(monkeypatch):
    before = hooked()
    monkeypatch.setattr(sys, "__class__", type("Other", (ModuleType,), {}))
    with pytest.raises(TypeError, match="'sys' is an instance of"):
        HOOKS.acquire()
    assert all(new is old for new, old in zip(hooked(), before, strict=True))


def test_a_hook_that_somebody_put_on_top_is_left_in_place():
    original = builtins.__import__
    HOOKS.acquire()
    ours = builtins.__import__

    def theirs(*args, **kwargs):
        return ours(*args, **kwargs)

    builtins.__import__ = theirs
    try:
        HOOKS.release()
        assert builtins.__import__ is theirs
        HOOKS.acquire()
        import json

        assert json is REAL["json"]
        HOOKS.release()
        assert builtins.__import__ is theirs
    finally:
        builtins.__import__ = original


def test_import_module_of_the_base_answers_by_context(biz):
    namespace = biz({"app/__init__.py": "", "app/models.py": MODELS})
    with entered(namespace.scope):
        models = importlib.import_module("app.models")
        assert importlib.import_module(".models", "app") is models
        assert pkgutil.resolve_name("app.models:User") is models.User
        assert __import__("app.models").models is models
        assert __import__("app.models", fromlist=["User"]) is models
        assert __import__("app.models", globals(), locals(), ["User"]) is models
        with as_base(), pytest.raises(ModuleNotFoundError):
            importlib.import_module("app.models")
    assert models is namespace.import_module("app.models")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("app.models")


def test_a_statement_of_base_code_means_the_base_whoever_is_running(biz, base):
    base({"based_twice.py": "of = 'base'", "based_user.py": "def f():\n import based_twice\n return based_twice.of\n"})
    namespace = biz({"based_twice.py": "of = 'biz'"})
    based_user = importlib.import_module("based_user")
    with entered(namespace.scope):
        assert based_user.f() == "base"
        assert importlib.import_module("based_twice").of == "biz"
        assert based_user.f() == "base"


def test_a_module_that_base_code_loads_while_a_biz_runs_is_the_bases(biz, base):
    base(
        {
            "based_lazy.py": "from koupleless.context import current\nwho = current()\nimport based_dep\n",
            "based_dep.py": "of = 'base'",
            "based_loader.py": "def f():\n import based_lazy\n return based_lazy\n",
        }
    )
    based_loader = importlib.import_module("based_loader")
    namespace = biz({"based_dep.py": "of = 'biz'"})
    with entered(namespace.scope):
        lazy = based_loader.f()
    assert lazy.who is None
    assert lazy.based_dep.of == "base"


@pytest.mark.parametrize("name", ["app.models", "based_models"])
@pytest.mark.parametrize("also_in_base", [False, True])
def test_pickle_finds_the_bizs_classes(biz, base, name, also_in_base):
    files = {"app/__init__.py": "", "app/models.py": MODELS, "based_models.py": MODELS}
    if also_in_base:
        base(files)
        importlib.import_module(name)
    before = {key: REAL[key] for key in REAL if key.startswith(("app", "based"))}
    namespace = biz(files)
    models = namespace.import_module(name)
    user = models.User("ann")
    in_python: Any = pickle
    assert models.trip(user) == user  # code of the biz, without context
    with entered(namespace.scope):
        assert models.trip(user) == user
        assert models.python_trip(user) == user
        for dump, load in ((pickle.dumps, pickle.loads), (in_python._dumps, in_python._loads)):
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                again = load(dump(user, protocol))
                assert type(again) is models.User
                assert again == user
        assert load(dump(models.function)) is models.function
        assert copy.deepcopy(user) == user
        buffer = io.BytesIO()
        ForkingPickler(buffer).dump(user)
        assert pickle.loads(buffer.getbuffer()) == user
    if not also_in_base:
        with pytest.raises(ModuleNotFoundError):
            pickle.loads(b"c" + name.encode() + b"\nUser\n.")
    after = {key: REAL[key] for key in REAL if key.startswith(("app", "based"))}
    for key in ("app", "app.models", "based_models"):
        sys.modules.pop(key, None)
    assert after == before


def test_the_real_table_is_clean_after_a_look_up_that_fails(biz):
    namespace = biz({"app.py": "x = 1"})
    with entered(namespace.scope), pytest.raises(AttributeError):
        pickle.loads(b"capp\nmissing\n.")
    assert "app" not in REAL


def test_a_patch_by_dotted_name_hits_the_bizs_module(biz):
    namespace = biz({"app/__init__.py": "", "app/mod.py": "name = 1\ndef get():\n return name, len('abc')\n"})
    mod = namespace.import_module("app.mod")
    with entered(namespace.scope), mock.patch("app.mod.name", 2):
        assert mod.get() == (2, 3)
    with entered(namespace.scope), mock.patch("builtins.len", return_value=0):
        assert mod.get() == (1, 0)
        assert len("abc") == 3
    with entered(namespace.scope), mock.patch("importlib.import_module", return_value="patched"):
        assert importlib.import_module("json") is REAL["json"]
    assert mod.get() == (1, 3)


def test_the_bizs_importlib_works_without_context(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/x.py": "loads = []\nloads.append(1)",
            "main.py": """
                import importlib
                import importlib.util
                import importlib.metadata as metadata
                from importlib import import_module, reload, machinery
                def use():
                    x = import_module("app.x")
                    assert importlib.import_module(".x", package="app") is x
                    assert importlib.__import__("app.x").x is x
                    importlib.invalidate_caches()
                    x.kept = True
                    assert reload(x) is x and x.kept
                    return x
            """,
        }
    )
    main = namespace.import_module("main")
    x = main.use()
    assert x is namespace.import_module("app.x")
    assert x.__builtins__ is namespace.builtins
    assert main.importlib.util is importlib.util
    assert main.machinery is importlib.machinery
    assert "import_module" in dir(main.importlib)
    with pytest.raises(TypeError, match="'package' argument is required"):
        main.import_module(".x")
    with pytest.raises(AttributeError):
        main.importlib.nothing_of_the_kind  # noqa: B018


def test_reload_in_context_runs_the_bizs_code_again(biz, write):
    root = write({"app.py": "import sys\nvalue = 1\n"})
    namespace = biz({}, root)
    app = namespace.import_module("app")
    (root / "app.py").write_text("import sys\nvalue = 'two'\ndef late():\n import app\n return app\n")
    with entered(namespace.scope):
        assert importlib.reload(app) is app
    assert app.value == "two"
    assert app.late() is app
    assert "app" not in REAL
    import json

    with entered(namespace.scope), pytest.warns(SharedModuleWarning, match="standard library"):
        assert namespace.import_module("importlib").reload(json) is json


def test_what_goes_into_builtins_is_the_bizs_alone(biz, monkeypatch):
    monkeypatch.delattr(builtins, "_", raising=False)  # where sys.displayhook leaves what it has shown
    text = """
        import builtins, gettext
        def install():
            gettext.NullTranslations().install(names=["ngettext"])
            builtins.mine = 5
        def use():
            return _("x"), ngettext("a", "b", 2), mine
    """
    first, second = biz({"app.py": text}), biz({"app.py": text})
    app = first.import_module("app")
    with entered(first.scope):
        app.install()
    assert app.use() == ("x", "b", 5)
    with pytest.raises(NameError):
        second.import_module("app").use()
    assert not {"_", "ngettext", "mine"} & set(vars(builtins))
    with entered(first.scope):
        seen: Any = importlib.import_module("builtins")
        assert seen.mine == 5
    assert app.builtins.__dict__ is first.builtins


def test_a_file_that_shared_code_loads_for_a_biz_is_the_bizs(biz, write):
    plugin = write({"plugin.py": "import app\nvalue = app.value"}) / "plugin.py"
    namespace = biz({"app.py": "value = 3"})
    spec: Any = importlib.util.spec_from_file_location("plugin", plugin)
    scope: dict[str, Any] = {}
    with entered(namespace.scope):
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        exec("import app", scope)
        ran = runpy.run_path(str(plugin))
    assert module.value == scope["app"].value == ran["value"] == 3
    assert module.__builtins__ is namespace.builtins


def test_run_module_runs_a_module_of_the_biz(biz):
    namespace = biz({"app/__init__.py": "value = 3", "app/__main__.py": "import app\nvalue = app.value"})
    with entered(namespace.scope):
        assert runpy.run_module("app")["value"] == 3
        assert runpy.run_module("app", run_name="__main__", alter_sys=True)["value"] == 3


def test_import_hooks_of_a_biz_work_for_it_alone(biz):
    text = """
        import importlib.abc, importlib.util, sys
        class Virtual(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                return importlib.util.spec_from_loader(name, self) if name == "virtual" else None
            def create_module(self, spec):
                return None
            def exec_module(self, module):
                exec("import app\\nvalue = app.__name__", module.__dict__)
        def install():
            sys.meta_path.insert(0, Virtual())
        def use():
            import virtual
            return virtual
    """
    first, second = biz({"app.py": text}), biz({"app.py": text})
    before = list(sys.meta_path)
    with entered(first.scope):
        first.import_module("app").install()
        finders: list[Any] = sys.meta_path[1:]
        assert finders == [BuiltinImporter, FrozenImporter, PathFinder]
    assert first.import_module("app").use().value == "app"
    assert list(sys.meta_path) == before
    with pytest.raises(ModuleNotFoundError):
        second.import_module("app").use()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("virtual")


def test_find_spec_and_pkgutil_answer_by_context(biz, base):
    base({"based_found.py": "", "based_ns/one.py": ""})
    namespace = biz({"app/__init__.py": "", "app/sub/__init__.py": "", "app/data.txt": "data", "based_ns/two.py": ""})
    find: Any = importlib.util.find_spec
    with entered(namespace.scope):
        assert find("app.sub").origin.endswith("app/sub/__init__.py")
        assert find("app").loader is not None
        assert find("app.nothing") is None
        assert find("nothing_at_all") is None
        assert find("json").origin == importlib.import_module("json").__file__
        assert find("based_found") is not None
        assert find("based_ns.one") is not None
        assert find("based_ns.two") is not None
        assert pkgutil.get_data("app", "data.txt") == b"data"
        assert [info.name for info in pkgutil.iter_modules(namespace.import_module("app").__path__)] == ["sub"]
        assert "app" in {info.name for info in pkgutil.iter_modules()}
    assert find("app") is None


def test_two_bizs_import_in_parallel_and_the_base_meanwhile(biz, shared):
    text = """
        import koupleless.context, shared_by_the_test
        name = koupleless.context.current_biz().name
        shared_by_the_test.gates[name + " entered"].set()
        assert shared_by_the_test.gates[name].wait(20)
        done = True
    """
    gates = shared.gates = {name: threading.Event() for name in ("one", "two", "one entered", "two entered")}
    first, second = biz({"app.py": text}, identity="one:1"), biz({"app.py": text}, identity="two:1")
    threads = [threading.Thread(target=each.import_module, args=("app",)) for each in (first, second)]
    for thread in threads:
        thread.start()
    assert gates["one entered"].wait(20)
    gates["two"].set()
    threads[1].join(20)
    assert second.table["app"].done
    assert not hasattr(first.table["app"], "done")
    assert importlib.import_module("wave").__name__ == "wave"
    gates["one"].set()
    threads[0].join(20)
    assert first.table["app"].done


def test_a_second_thread_waits_for_a_module_to_be_complete(biz, shared):
    text = """
        import shared_by_the_test
        shared_by_the_test.entered.set()
        assert shared_by_the_test.go.wait(20)
        value = 1
    """
    namespace = biz({"slow.py": text})
    shared.entered, shared.go = threading.Event(), threading.Event()
    seen: list[int] = []
    first = threading.Thread(target=namespace.import_module, args=("slow",))
    first.start()
    assert shared.entered.wait(20)
    second = threading.Thread(target=lambda: seen.append(namespace.import_module("slow").value))
    second.start()
    second.join(0.05)
    assert seen == []
    shared.go.set()
    first.join(20)
    second.join(20)
    assert seen == [1]


def test_a_thread_started_at_import_time_may_import_other_modules(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/main.py": """
                import threading
                def work():
                    import app.other
                    from app import main
                thread = threading.Thread(target=work)
                thread.start()
                # It waits for this module, and this module does not wait for ever.
                thread.join(0.2)
                from app import other
            """,
            "app/other.py": "",
        }
    )
    main = namespace.import_module("app.main")
    main.thread.join(20)
    assert not main.thread.is_alive()


def test_two_threads_that_import_a_package_and_its_child_do_not_deadlock(biz, shared):
    package = """
        import shared_by_the_test
        shared_by_the_test.entered.set()
        shared_by_the_test.go.wait(0.3)
        import pkg.child
    """
    namespace = biz({"pkg/__init__.py": package, "pkg/child.py": "import pkg"})
    shared.entered, shared.go = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def run(name):
        try:
            namespace.import_module(name)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    first = threading.Thread(target=run, args=("pkg",))
    first.start()
    assert shared.entered.wait(20)
    second = threading.Thread(target=run, args=("pkg.child",))
    second.start()
    first.join(20)
    second.join(20)
    assert not first.is_alive()
    assert not second.is_alive()
    assert errors == []


def test_a_scope_without_modules_is_as_the_base():
    HOOKS.acquire()
    try:
        with entered(Scope(BizId.parse("bare:1"))):
            import json

            assert importlib.import_module("json") is json
            assert sys.modules["json"] is json
            assert __import__("json") is json
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module("nothing_at_all")
    finally:
        HOOKS.release()


def test_a_dropped_namespace_is_refused_at_the_hooks_too(biz):
    keeper = biz({})
    namespace = biz({"app.py": ""})
    namespace.import_module("app")
    namespace.drop()
    with entered(namespace.scope), pytest.raises(BizGone, match="uninstalled"):
        importlib.import_module("app")
    assert isinstance(keeper, Namespace)


def test_c_code_that_reads_the_interpreters_table_finds_a_module_while_its_code_runs(biz, shared):
    """As msgspec does for a class whose annotations are texts; nobody else sees it there."""
    seen: list[object] = []

    def look() -> None:
        seen.extend(["spoken" in sys.modules, sys.modules.get("spoken"), "spoken" in list(sys.modules)])
        for look_for in (lambda: importlib.import_module("spoken"), lambda: exec("import spoken", {"__name__": "x"})):
            with pytest.raises(ModuleNotFoundError, match="spoken"):
                look_for()
        seen.append(sys.modules.setdefault("spoken", shared))
        seen.append(sys.modules.pop("spoken"))

    def elsewhere() -> None:
        thread = threading.Thread(target=look)
        with as_base():
            thread.start()
        thread.join(20)

    shared.elsewhere = elsewhere
    text = """
        import ctypes, shared_by_the_test, sys
        get = ctypes.pythonapi.PyImport_GetModule
        get.argtypes, get.restype = [ctypes.py_object], ctypes.py_object
        assert get("spoken") is sys.modules["spoken"]
        shared_by_the_test.elsewhere()
        import spoken.part
    """
    part = "import sys, spoken\nassert spoken.get(__name__) is sys.modules[__name__]"
    namespace = biz({"spoken/__init__.py": text, "spoken/part.py": part})
    namespace.import_module("spoken")
    assert seen == [False, None, False, shared, shared]
    assert "spoken" not in REAL
    assert "spoken.part" not in REAL

"""``sys.modules``, ``sys.path`` and ``sys.meta_path`` show each biz its own, however they are read or written."""

from __future__ import annotations

import argparse
import copy
import copyreg
import importlib
import io
import json
import pickle
import sys
import threading
import traceback
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

import pytest

from koupleless.context import entered
from koupleless.isolation.interpreter import REAL, exposed
from koupleless.isolation.system import base_path


@pytest.fixture
def namespace(biz):
    made = biz({"app/__init__.py": "", "app/models.py": ""})
    made.import_module("app.models")
    return made


def test_reading_as_a_biz(namespace):
    app = namespace.import_module("app")
    with entered(namespace.scope):
        modules = sys.modules
        assert isinstance(modules, dict)
        assert modules["app"] is app
        assert modules["json"] is json
        assert modules.get("app") is app
        assert modules.get("nothing") is None
        assert modules.get("nothing", 5) == 5
        assert "app" in modules
        assert "nothing" not in modules
        assert not modules.__contains__(3)
        assert not modules.__contains__(None)
        with pytest.raises(KeyError):
            modules["nothing"]
        for seen in (
            dict(modules),
            {**modules},
            modules.copy(),
            copy.copy(modules),
            modules | {},
            {} | modules,
            dict(modules.items()),
            dict(zip(modules.keys(), modules.values(), strict=True)),
            {name: modules[name] for name in modules},
            {name: modules[name] for name in reversed(modules)},
        ):
            assert type(seen) is dict
            assert seen["app"] is app
            assert seen["json"] is json
            assert len(seen) == len(modules)
        assert modules == modules.copy()
        assert modules != {}
        assert bool(modules)
        assert "'app'" in repr(modules)


def test_reading_as_the_base(namespace):
    modules = sys.modules
    assert modules is not REAL
    assert "app" not in modules
    assert modules.get("app", 5) == 5
    with pytest.raises(KeyError):
        modules["app"]
    assert dict(modules) == REAL
    assert list(modules) == list(REAL)
    assert len(modules) == len(REAL)
    assert modules["builtins"] is REAL["builtins"]
    assert namespace.scope is not None


def test_writing_as_a_biz(namespace):
    app, made, other = namespace.import_module("app"), ModuleType("made"), ModuleType("other")
    with entered(namespace.scope):
        modules = sys.modules
        modules["made"] = made
        assert modules["made"] is made
        assert modules.setdefault("made", other) is made
        assert modules.setdefault("set_by_default", other) is other
        modules.update({"updated": made}, by_keyword=made)
        modules |= {"merged": made}
        assert {"made", "updated", "by_keyword", "merged"} <= set(modules)
        assert modules.pop("made") is made
        assert modules.pop("made", 5) == 5
        with pytest.raises(KeyError):
            modules.pop("made")
        del modules["merged"]
        with pytest.raises(KeyError):
            del modules["merged"]
        name, _ = modules.popitem()
        assert name not in modules
        assert modules.pop("app") is app
    assert not {"made", "updated", "by_keyword", "merged", "set_by_default"} & set(REAL)
    assert not {"made", "updated", "by_keyword", "merged"} & set(sys.modules)


def test_writing_as_the_base(namespace):
    made, other = ModuleType("made"), ModuleType("other")
    sys.modules["made"] = made
    assert REAL["made"] is made
    with entered(namespace.scope):
        assert sys.modules["made"] is made
    assert sys.modules.setdefault("made", other) is made
    assert sys.modules.pop("made") is made
    assert "made" not in REAL
    sys.modules.update(made=made)
    name, module = sys.modules.popitem()
    assert (name, module) == ("made", made)
    with pytest.raises(KeyError):
        sys.modules.pop("made")
    sys.modules["made"] = made
    del sys.modules["made"]
    assert "made" not in REAL


def test_what_a_biz_evicts_is_out_of_its_own_sight_only(namespace, biz):
    other = biz({})
    with entered(namespace.scope):
        assert sys.modules.pop("json") is json
        with pytest.raises(KeyError):
            del sys.modules["json"]
        assert "json" not in sys.modules
        assert "json" not in list(sys.modules)
        with entered(other.scope):
            assert sys.modules["json"] is json
        sys.modules["json"] = json
        with mock.patch.dict(sys.modules, {"json": None, "made_up": ModuleType("made_up")}):
            assert dict[str, object](sys.modules)["json"] is None
            with pytest.raises(ModuleNotFoundError, match="halted"):
                namespace.import_module("json")
            assert namespace.import_module("made_up").__name__ == "made_up"
        assert sys.modules["json"] is json
        assert "made_up" not in sys.modules
        assert namespace.import_module("app.models").__name__ == "app.models"
    assert REAL["json"] is json


def test_an_alias_that_shared_code_makes_is_the_bizs(namespace, biz):
    with entered(namespace.scope):
        sys.modules["MySQLdb_alias"] = json
    assert namespace.import_module("MySQLdb_alias") is json
    assert "MySQLdb_alias" not in namespace.table
    assert "MySQLdb_alias" not in REAL
    with entered(biz({}).scope):
        assert "MySQLdb_alias" not in sys.modules


def test_code_of_a_biz_sees_its_modules_without_context(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/models.py": """
                import sys
                def look():
                    return (
                        sys.modules[__name__], sys.modules.get(__name__), __name__ in sys.modules,
                        dict(sys.modules)[__name__], len(sys.modules) == len(list(sys.modules)),
                    )
            """,
        }
    )
    models = namespace.import_module("app.models")
    assert models.look() == (models, models, True, models, True)


def test_what_the_base_replaces_is_seen_by_statements_that_ran_before(biz, base):
    base({"based_swap.py": "value = 1"})
    namespace = biz({"app.py": "def f():\n import based_swap\n return based_swap.value"})
    app = namespace.import_module("app")
    assert [app.f(), app.f()] == [1, 1]
    other: Any = ModuleType("based_swap")
    other.value = 2
    sys.modules["based_swap"] = other
    assert app.f() == 2
    del sys.modules["based_swap"]
    assert app.f() == 1


def test_a_biz_extends_its_own_search_path_only(biz, write):
    extra = write({"added_later.py": "value = 1"})
    namespace = biz(
        {
            "app.py": """
                import sys
                def f():
                    import added_later
                    return added_later.value
                def own():
                    return sys.path[0]
            """
        }
    )
    app = namespace.import_module("app")
    before = list(sys.path)
    with entered(namespace.scope):
        assert app.own() == namespace.paths[0]
        assert set(before) <= set(sys.path)
        sys.path.insert(0, str(extra))
        assert sys.path[0] == str(extra)
    assert list(sys.path) == before
    assert app.f() == 1
    assert "added_later" not in REAL
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("added_later")


def test_a_biz_that_assigns_another_search_path_changes_its_own_only(biz, write, monkeypatch):
    first, second = (write({"added_later.py": f"value = {number}"}) for number in (1, 2))
    other = biz({})
    namespace = biz({"app.py": "import sys\ndef load():\n    import added_later\n    return added_later.value"})
    app = namespace.import_module("app")

    def of_others():
        with entered(None):
            of_base = list(sys.path)
        with entered(other.scope):
            return of_base, list(sys.path)

    before = of_others()
    with entered(namespace.scope):
        whole = sys.path
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [str(first)])
            assert sys.path == [str(first)]
            assert app.load() == 1
            assert of_others() == before
            sys.path = other_list = [str(second), *whole]
            del sys.modules["added_later"]
            assert app.load() == 2
            assert sys.path is other_list
            assert sys.path != whole
        assert sys.path is whole
        del sys.modules["added_later"]
        with pytest.raises(ModuleNotFoundError):
            app.load()
    assert of_others() == before


def test_a_biz_that_assigns_other_import_hooks_changes_its_own_only(biz):
    class Refusing:
        def find_spec(self, name, path=None, target=None):
            raise ImportError(f"no {name} today")

    namespace = biz({"app.py": "def load():\n    import soon", "soon.py": ""})
    app, before = namespace.import_module("app"), list(sys.meta_path)
    with entered(namespace.scope):
        kept = sys.meta_path
        sys.meta_path = [Refusing()]
        with pytest.raises(ImportError, match="no soon today"):
            app.load()
        sys.meta_path = kept
        app.load()
    assert list(sys.meta_path) == before


def test_a_biz_that_assigns_other_arguments_changes_its_own_only(biz, monkeypatch):
    namespace, other, before = biz({}), biz({}), list(sys.argv)
    with entered(namespace.scope):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["prog", "--flag"])
            assert argparse.ArgumentParser(add_help=False).parse_known_args()[1] == ["--flag"]
            for scope in (None, other.scope):
                with entered(scope):
                    assert sys.argv == before
        assert sys.argv == before


def test_a_biz_that_cuts_tracebacks_short_cuts_its_own_only(biz):
    namespace, other = biz({}), biz({})

    def shown():
        try:
            json.loads("(")
        except ValueError:
            return traceback.format_exc()

    before = shown()
    with entered(namespace.scope):
        sys.tracebacklimit = 0
        assert len(shown()) < len(before)
    with entered(other.scope):
        assert shown() == before
    assert shown() == before
    assert not hasattr(sys, "tracebacklimit")


def test_a_variable_that_is_patched_twice_is_what_it_was_after_each(biz):
    namespace = biz({})
    with entered(namespace.scope):
        before = sys.argv
        with mock.patch.object(sys, "argv", ["outer"]):
            with mock.patch("sys.argv", ["inner"]):
                assert sys.argv == ["inner"]
            assert sys.argv == ["outer"]
            assert vars(sys)["argv"] == ["outer"]
        assert sys.argv is before


def test_a_list_that_the_base_assigns_is_the_base_s(biz, monkeypatch):
    namespace = biz({"app.py": ""})
    monkeypatch.setattr(sys, "path", [*sys.path, "/of/the/base"])
    with entered(namespace.scope):
        assert namespace.paths[0] in sys.path
        sys.path.insert(0, "/of/the/biz")
    assert "/of/the/biz" not in sys.path
    assert "/of/the/base" in base_path()


def test_modules_with_variables_by_context_are_pickled_as_others_are(namespace):
    class ByClass(pickle._Pickler):
        """As picklers do that know modules by their class."""

        dispatch: ClassVar[dict[Any, Any]] = {
            **pickle._Pickler.dispatch,
            ModuleType: lambda self, module: self.save_reduce(importlib.import_module, (module.__name__,), obj=module),
        }

    assert namespace.scope is not None
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        for module in (sys, json):
            with pytest.raises(TypeError, match="cannot pickle 'module' object"):
                attempt(module)
    written = io.BytesIO()
    ByClass(written).dump([sys, json])
    assert pickle.loads(written.getvalue()) == [sys, json]
    copyreg.pickle(ModuleType, lambda module: (str, (module.__name__,)))  # type: ignore[arg-type, return-value]
    try:
        assert pickle.loads(pickle.dumps([sys, json])) == ["sys", "json"]
    finally:
        del copyreg.dispatch_table[ModuleType]


def test_what_a_biz_puts_into_sys_modules_needs_no_name(biz):
    namespace = biz(
        {"app.py": "import sys, types\nsys.modules['odd'] = odd = types.ModuleType('odd')\ndel odd.__name__"}
    )
    app = namespace.import_module("app")
    assert namespace.table["odd"] is app.odd


def test_the_names_are_those_of_one_moment(namespace):
    seen = iter(sys.modules)
    next(seen)
    sys.modules["one.more"] = ModuleType("one.more")
    assert len(list(seen)) > 10
    del sys.modules["one.more"]


def test_what_code_of_a_biz_that_is_gone_assigns_nobody_sees(biz):
    _other, namespace = biz({}), biz({})
    before = list(sys.path)
    namespace.drop()
    namespace.scope.close()
    with entered(namespace.scope):
        sys.path.append("late")
        sys.path = []
    assert list(sys.path) == before


@pytest.mark.parametrize("of_biz", [True, False])
def test_lists_behave_as_lists(namespace, of_biz):
    path = sys.path
    with entered(namespace.scope if of_biz else None):
        kept = list(path)
        assert isinstance(path, list)
        assert path == kept
        assert kept == path
        assert path != []
        assert path[:] == kept
        assert len(path) == len(kept)
        assert list(reversed(path)) == kept[::-1]
        assert path + ["x"] == [*kept, "x"]  # noqa: RUF005
        assert ["x"] + path == ["x", *kept]  # noqa: RUF005
        assert path * 2 == 2 * path == kept * 2
        assert path.copy() == copy.copy(path) == copy.deepcopy(path) == kept
        assert type(copy.copy(path)) is list
        assert tuple(path) == tuple(kept)
        assert not path < kept
        assert path <= kept
        assert not path > kept
        assert path >= kept
        assert repr(path) == repr(kept)
        try:
            path.append("z1")
            path.extend(["z2", "z2"])
            path += ["z3"]
            path.insert(0, "z0")
            assert path.count("z2") == 2
            assert path.index("z0") == 0
            path.remove("z2")
            assert path.pop() == "z3"
            path[-1] = "z4"
            assert "z4" in path
            path.reverse()
            assert path[0] == "z4"
            path.sort(key=str)
            del path[0]
        finally:
            path.clear()
            path[:] = kept
        assert path == kept


STRUCT = """
    from __future__ import annotations
    from typing import ClassVar
    import msgspec

    class Order(msgspec.Struct):
        names: ClassVar[dict[str, str]] = {"a": "b"}
        amount: int = 1
    """


def test_c_code_that_takes_sys_modules_for_a_dictionary_finds_a_module_that_is_being_loaded(biz):
    made = biz({"app/__init__.py": "", "app/orders.py": STRUCT})

    assert made.import_module("app.orders").Order().amount == 1
    assert dict.get(sys.modules, "app.orders") is None


def test_code_that_asks_the_interpreter_finds_a_module_that_is_being_loaded(biz, monkeypatch):
    asking: Any = ModuleType("asking")
    asking.found = {}
    asking.ask = lambda name: asking.found.update({name: REAL.get(name)})  # as ``PyImport_GetModule``
    monkeypatch.setitem(sys.modules, "asking", asking)
    source = "import asking; asking.ask(__name__)"
    made = biz({"app/__init__.py": source, "app/part.py": source})
    part = made.import_module("app.part")
    assert asking.found == {"app": made.import_module("app"), "app.part": part}
    assert not asking.found.keys() & REAL.keys()
    assert exposed == {}
    asking.found.clear()


def test_the_base_loads_its_own_module_of_a_name_while_a_biz_is_loading_one(namespace, write, monkeypatch, biz):
    monkeypatch.syspath_prepend(str(write({"slow/__init__.py": "whose = 'base'", "slow/part.py": "whose = 'base'"})))
    source = "import waits\nwhose = 'biz'\nwaits.until_told()"
    made = biz({"slow/__init__.py": "whose = 'biz'", "slow/part.py": source})
    is_loading, is_told = threading.Event(), threading.Event()
    waits: Any = ModuleType("waits")

    def until_told() -> None:
        is_loading.set()
        is_told.wait(10)

    waits.until_told = until_told
    monkeypatch.setitem(sys.modules, "waits", waits)
    thread = threading.Thread(target=made.import_module, args=("slow.part",))
    thread.start()
    assert is_loading.wait(10)
    try:
        assert "slow.part" not in sys.modules
        assert sys.modules.get("slow.part") is None
        assert "slow.part" not in dict(sys.modules)
        imported: dict[str, Any] = {}
        exec("from slow import part\nimport slow", imported)
        slow, part = imported["slow"], imported["part"]
        assert [slow.whose, part.whose, sys.modules["slow.part"]] == ["base", "base", part]
    finally:
        is_told.set()
        thread.join()
    assert [made.import_module("slow.part").whose, sys.modules["slow.part"], REAL["slow.part"]] == ["biz", part, part]
    assert exposed == {}
    del sys.modules["slow"], sys.modules["slow.part"]


def test_such_c_code_finds_the_modules_of_the_base_too(namespace, write, monkeypatch):
    monkeypatch.syspath_prepend(str(write({"based_orders.py": STRUCT})))

    module = importlib.import_module("based_orders")

    assert module.Order().amount == 1
    assert dict.get(sys.modules, "based_orders") is module
    del sys.modules["based_orders"]
    assert dict.get(sys.modules, "based_orders") is None


def test_a_module_the_biz_brings_and_has_not_imported_yet_is_not_the_bases(biz, base, write):
    base({"based_lib.py": "who = 'base'", "based_open/part.py": "", "based_only.py": ""})
    for name in ("based_lib", "based_open.part", "based_only"):
        importlib.import_module(name)
    namespace = biz({"based_lib.py": "who = 'biz'", "based_open/other.py": ""})
    with entered(namespace.scope):
        assert "based_lib" not in sys.modules
        assert "based_lib" not in dict(sys.modules)
        assert "based_only" in sys.modules
        assert "based_open.part" in sys.modules, "a portion of a namespace package hides no other"
        assert importlib.import_module("based_lib").who == "biz"
        assert sys.modules["based_lib"].who == "biz"
        sys.path.insert(0, str(write({"based_only.py": "who = 'biz'"})))
        assert "based_only" not in sys.modules
        assert importlib.import_module("based_only").who == "biz"
    assert sys.modules["based_lib"].who == "base"


def test_what_the_running_biz_takes_away_from_sys_is_not_missed(biz, monkeypatch):
    namespace = biz({"app.py": "import sys\ndef has(name): return name in sys.modules, sys.modules.get(name)\n"})
    app = namespace.import_module("app")
    with entered(namespace.scope), monkeypatch.context() as patched:
        patched.delattr(sys, "_getframe")
        found = app.has("colorsys_nowhere")
    assert found == (False, None)

"""What a biz takes out of its ``sys.modules`` it gets anew, for itself alone; what it puts there it gets."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import textwrap
import xml.etree
import xml.etree.ElementTree as ET
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from tests.isolation.conftest import dead_references

from koupleless.context import entered
from koupleless.isolation.interpreter import REAL

colorsys: Any = importlib.import_module("colorsys")

PURE = """
    import importlib
    import pickle
    import sys
    import xml.etree.ElementTree as usual

    def pure():
        fast = sys.modules.pop("xml.etree.ElementTree", None)
        accelerator = sys.modules.pop("_elementtree", None)
        sys.modules["_elementtree"] = None
        try:
            return importlib.import_module("xml.etree.ElementTree")
        finally:
            sys.modules.pop("_elementtree")
            if accelerator is not None:
                sys.modules["_elementtree"] = accelerator
            if fast is not None:
                sys.modules["xml.etree.ElementTree"] = fast

    ours = pure()
"""


def test_the_pure_half_of_a_module_beside_the_accelerated_one(biz):
    app = biz({"app.py": PURE}).import_module("app")
    assert app.usual is ET
    assert app.ours is not app.usual
    assert hasattr(app.ours.XMLParser(), "parser")
    assert not hasattr(app.usual.XMLParser(), "parser")
    assert REAL["xml.etree.ElementTree"] is xml.etree.ElementTree is ET
    assert app.sys.modules["xml.etree.ElementTree"] is app.usual


def test_a_module_below_a_shared_package_is_seen_through_that_package(biz):
    namespace = biz(
        {
            "app.py": """
                import sys, importlib, pickle
                def replace():
                    del sys.modules["xml.etree.ElementTree"]
                    import xml.etree.ElementTree as first
                    import xml.etree.ElementTree
                    from xml.etree import ElementTree as second
                    from xml.etree.ElementTree import Element
                    assert first is second is xml.etree.ElementTree is sys.modules["xml.etree.ElementTree"]
                    assert importlib.import_module("xml.etree.ElementTree") is first
                    assert Element is first.Element
                    assert pickle.loads(pickle.dumps(first.indent)) is first.indent
                    assert importlib.reload(first) is first
                    return first
                def restore(module):
                    sys.modules["xml.etree.ElementTree"] = module
                    sys.modules["xml.etree"].ElementTree = module
                    import xml.etree.ElementTree as first
                    return first
                """
        }
    )
    other = biz({"app.py": "def seen():\n from xml.etree import ElementTree\n return ElementTree"})
    app = namespace.import_module("app")
    usual: Any = ET
    fresh = app.replace()
    assert fresh is not usual
    assert xml.etree.ElementTree is usual
    assert other.import_module("app").seen() is usual
    with entered(namespace.scope):
        assert xml.etree.ElementTree is fresh
        with mock.patch("xml.etree.ElementTree.indent", 5):
            assert fresh.indent == 5
        assert "ElementTree" in dir(xml.etree)
    assert callable(usual.indent)
    assert app.restore(usual) is usual
    with entered(namespace.scope):
        assert xml.etree.ElementTree is usual


def test_the_base_s_package_is_as_it_was_when_the_biz_has_left(biz):
    namespace = biz({"app.py": 'import sys\ndel sys.modules["xml.etree.ElementTree"]\nimport xml.etree.ElementTree'})
    namespace.import_module("app")
    assert type(xml.etree) is not ModuleType
    namespace.drop()
    assert type(xml.etree) is ModuleType
    assert xml.etree.ElementTree is REAL["xml.etree.ElementTree"]


def test_removed_is_executed_anew_for_the_biz_alone(biz):
    text = """
        import sys
        def fresh():
            import colorsys
            colorsys.MARK = 1
            sys.modules.pop("colorsys")
            assert "colorsys" not in sys.modules and "colorsys" not in list(sys.modules)
            import colorsys as again
            return again
        def seen():
            import colorsys
            return colorsys, sys.modules["colorsys"]
    """
    first, second = biz({"app.py": text}), biz({"app.py": text})
    app = first.import_module("app")
    fresh = app.fresh()
    assert not hasattr(fresh, "MARK")
    assert app.seen() == (fresh, fresh)
    assert second.import_module("app").seen() == (colorsys, colorsys)
    assert importlib.import_module("colorsys") is colorsys is REAL["colorsys"]
    assert fresh.__file__ == colorsys.__file__
    again = app.fresh()
    assert again is not fresh
    assert again is not colorsys
    del colorsys.MARK


def test_none_blocks_and_restoring_ends_it(biz):
    namespace = biz(
        {
            "app.py": """
                import sys
                def load():
                    import colorsys
                    return colorsys
                def blocked():
                    sys.modules["colorsys"] = None
                    try:
                        load()
                    except ImportError as error:
                        return str(error)
                def put(module):
                    sys.modules["colorsys"] = module
                    return load()
                """
        }
    )
    app = namespace.import_module("app")
    assert app.load() is colorsys
    assert "None in sys.modules" in app.blocked()
    assert importlib.import_module("colorsys") is colorsys
    fake = ModuleType("colorsys")
    assert app.put(fake) is fake
    assert app.put(colorsys) is colorsys
    assert "colorsys" not in namespace.table


def test_a_saved_table_is_restored(biz):
    namespace = biz(
        {
            "app.py": """
                import sys
                from unittest import mock
                def trip():
                    saved = sys.modules.copy()
                    count = len(sys.modules)
                    sys.modules.clear()
                    assert "json" not in sys.modules and __name__ not in sys.modules and not list(sys.modules)
                    sys.modules.update(saved)
                    assert len(sys.modules) == count
                    return sys.modules["json"], sys.modules[__name__], sys.modules["builtins"]
                def patched():
                    import json
                    with mock.patch.dict(sys.modules, {"json": None, "colorsys": mock.sentinel.fake}):
                        try:
                            import json.decoder
                        except ImportError:
                            import colorsys
                    import json as after, colorsys as real
                    return colorsys, after is json, real
                """
        }
    )
    app = namespace.import_module("app")
    assert app.trip() == (json, app, namespace.import_module("builtins"))
    with entered(namespace.scope):
        fake, is_same, real = app.patched()
    assert fake is mock.sentinel.fake
    assert is_same
    assert real is colorsys
    assert REAL["json"] is json


def test_a_package_that_is_removed_with_its_modules(biz):
    namespace = biz(
        {
            "app.py": """
                import sys
                def fresh():
                    for name in [name for name in sys.modules if name.partition(".")[0] == "json"]:
                        del sys.modules[name]
                    import json, json.decoder, json.tool
                    assert json.decoder is sys.modules["json.decoder"]
                    assert json.decoder.JSONDecoder is json.JSONDecoder
                    assert json.tool.json is json
                    return json
                """
        }
    )
    fresh = namespace.import_module("app").fresh()
    assert fresh is not json
    assert fresh.JSONDecoder is not json.JSONDecoder
    assert fresh.loads("[1]") == [1]
    assert fresh.decoder.scanner is not json.decoder.scanner  # type: ignore[attr-defined]


def test_a_module_of_such_a_package_that_nobody_has_imported(biz):
    sys.modules.pop("json.tool", None)
    namespace = biz(
        {"app.py": 'import sys\ndel sys.modules["json"]\nimport json\nfrom json import tool\nimport json.tool as same'}
    )
    app = namespace.import_module("app")
    assert app.tool is app.same is app.json.tool
    assert app.tool.json is app.json is not json
    assert "json.tool" not in REAL


def test_the_helper_of_the_standard_library_s_own_tests(biz):
    pytest.importorskip("test.support.import_helper")
    namespace = biz(
        {
            "app.py": """
                from test.support.import_helper import import_fresh_module
                import heapq as usual
                pure = import_fresh_module("heapq", blocked=["_heapq"])
                fast = import_fresh_module("heapq", fresh=["_heapq"])
                import heapq as after
                """
        }
    )
    app = namespace.import_module("app")
    heapq = REAL["heapq"]
    assert app.usual is app.after is heapq
    assert app.pure.heappush.__module__ == "heapq"
    assert hasattr(app.pure.heappush, "__code__")
    assert not hasattr(app.fast.heappush, "__code__")
    assert app.pure is not heapq


def test_compiled_modules_and_those_that_hold_the_process_together_stay_the_same(biz):
    namespace = biz(
        {
            "app.py": """
                import importlib, sys
                def again(name):
                    before = importlib.import_module(name)
                    del sys.modules[name]
                    assert name not in sys.modules
                    return importlib.import_module(name) is before is sys.modules[name]
                """
        }
    )
    app = namespace.import_module("app")
    for name in ("_heapq", "time", "sys", "builtins", "os", "threading", "logging.handlers", "importlib", "asyncio"):
        assert app.again(name), name


def test_a_shared_library_is_executed_anew_too_and_what_the_biz_owns_as_before(biz, base):
    base({"based_again/__init__.py": "state = []", "based_again/part.py": "from . import state"})
    shared = importlib.import_module("based_again.part")
    namespace = biz(
        {
            "own.py": "state = []",
            "app.py": """
                import sys, own, based_again.part as old
                del sys.modules["based_again.part"], sys.modules["own"]
                import based_again.part as new, own as new_own
                """,
        }
    )
    app = namespace.import_module("app")
    assert app.old is shared
    assert app.new is not shared
    assert app.new.state is shared.state
    assert app.new_own is not app.own
    assert importlib.import_module("based_again.part") is shared


def test_statements_of_shared_code_go_on_meaning_the_base_s(biz, base):
    base({"based_user.py": "def load():\n import colorsys\n return colorsys"})
    user = importlib.import_module("based_user")
    namespace = biz(
        {
            "app.py": """
                import sys, based_user, importlib, pydoc
                sys.modules["colorsys"] = None
                by_statement = based_user.load()
                """
        }
    )
    assert namespace.import_module("app").by_statement is colorsys
    with entered(namespace.scope):
        assert user.load() is colorsys
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("colorsys")


def test_an_import_that_fails_is_tried_anew(biz):
    namespace = biz(
        {
            "app.py": """
                import sys
                def load():
                    import json
                    return json
                def fail():
                    del sys.modules["json"], sys.modules["json.decoder"]
                    sys.modules["json.scanner"] = None
                    try:
                        load()
                    except ImportError:
                        assert "json" not in sys.modules
                    del sys.modules["json.scanner"]
                    return load()
                """
        }
    )
    fresh = namespace.import_module("app").fail()
    assert fresh is not json
    assert fresh.loads("{}") == {}


def test_what_was_executed_anew_leaves_with_the_biz(biz):
    namespace = biz({"app.py": textwrap.dedent(PURE)})
    app = namespace.import_module("app")
    with entered(namespace.scope):
        del sys.modules["colorsys"]
        fresh = namespace.import_module("colorsys")
    references = dead_references(namespace)
    assert {"app", "colorsys"} <= {name for name, _ in references}
    assert fresh is not colorsys
    namespace.drop()
    del fresh, app
    importlib.import_module("gc").collect()
    assert not [name for name, reference in references if reference() is not None]
    assert pickle.loads(pickle.dumps(colorsys.rgb_to_hls)) is colorsys.rgb_to_hls

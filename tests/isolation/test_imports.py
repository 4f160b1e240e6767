"""Import statements of a biz's code mean what they mean when the module runs alone."""

from __future__ import annotations

import importlib
import pickle
import sys
import textwrap
import threading
import traceback
from typing import Any

import pytest

from koupleless.context import current, entered
from koupleless.errors import BizGone, ModuleRefused
from koupleless.isolation.interpreter import REAL
from koupleless.isolation.libraries.holding import Speakers
from koupleless.isolation.libraries.known import Share
from koupleless.isolation.libraries.resident import arrivals
from koupleless.isolation.linking.linker import advice_on
from koupleless.isolation.namespace import Namespace
from koupleless.isolation.policy import Policy


def test_modules_keep_their_plain_names(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/models.py": "class User: pass\nimport logging\nname = logging.getLogger(__name__).name\n",
        }
    )
    models = namespace.import_module("app.models")
    assert models.__name__ == "app.models"
    assert models.User.__module__ == "app.models"
    assert models.name == "app.models"
    assert models.__spec__.name == "app.models"
    assert models.__file__ == models.__spec__.origin
    assert models.__file__.endswith("app/models.py")


def test_two_bizs_with_one_package_name_do_not_meet(biz):
    files = {"app/__init__.py": "from . import state", "app/state.py": "value = []"}
    first, second = biz(files), biz(files)
    first.import_module("app").state.value.append(1)
    assert second.import_module("app").state.value == []
    assert first.import_module("app") is not second.import_module("app")
    assert "app" not in sys.modules
    assert "app" not in REAL


def test_a_private_library_is_used_instead_of_the_bases(biz, base):
    base({"based_lib/__init__.py": "version = 1", "based_lib/extra.py": "version = 1"})
    based_lib: Any = importlib.import_module("based_lib")
    importlib.import_module("based_lib.extra")
    namespace = biz(
        {
            "based_lib/__init__.py": "version = 2",
            "app.py": """
                import based_lib
                from based_lib import version
                def late():
                    import based_lib
                    return based_lib
            """,
        }
    )
    app = namespace.import_module("app")
    assert app.version == 2
    assert app.late() is not based_lib
    assert based_lib.version == 1
    assert based_lib.extra.version == 1
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'based_lib\.extra'"):
        namespace.import_module("based_lib.extra")


def test_a_library_of_the_base_is_the_bases_own_object(biz, base):
    base({"based_shared.py": "import koupleless.context as c\nloaded_as = c.current()"})
    namespace = biz({"app.py": "import based_shared"})
    shared = namespace.import_module("app").based_shared
    assert shared.loaded_as is None
    assert sys.modules["based_shared"] is shared
    assert namespace.import_module("based_shared") is shared


def test_the_base_never_finds_modules_of_a_biz(biz):
    biz({"lonely_app.py": ""}).import_module("lonely_app")
    with pytest.raises(ModuleNotFoundError):
        import lonely_app  # type: ignore[import-not-found]  # noqa: F401
    with pytest.raises(ModuleNotFoundError):
        __import__("lonely_app")


def test_the_standard_library_is_always_the_processs(biz):
    import json

    namespace = biz({"json.py": "mine = True", "app.py": "import json, os.path\nfrom json import dumps"})
    app = namespace.import_module("app")
    assert app.json is json
    assert app.os is sys.modules["os"]
    assert app.dumps is json.dumps


def test_our_own_package_is_always_the_processs(biz):
    import koupleless

    namespace = biz({"koupleless/__init__.py": "fake = True", "app.py": "import koupleless, koupleless.context as c"})
    app = namespace.import_module("app")
    assert app.koupleless is koupleless
    assert app.c.current is current


def test_a_late_import_works_in_a_thread_without_context(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/late.py": "value = 7",
            "app/main.py": """
                def work():
                    from koupleless.context import current
                    from app.late import value
                    import app.late as late
                    import importlib
                    assert current() is None
                    assert importlib.import_module(".late", "app") is late
                    return value
            """,
        }
    )
    work = namespace.import_module("app.main").work
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join(30)
    assert results == [7]


def test_every_form_of_the_statement(biz):
    namespace = biz(
        {
            "app/__init__.py": "top = 1\n__all__ = ['listed', 'top']",
            "app/listed.py": "",
            "app/a/__init__.py": "",
            "app/a/b.py": """
                import app, app.a, app.a.c as c1
                from app.a import c as c2
                from . import c as c3
                from .c import value
                from .. import top
                from ..a.c import value as v2
                from ...app import top as impossible
            """,
            "app/a/c.py": "value = 3",
            "app/a/d.py": """
                import app, app.a, app.a.c as c1
                from app.a import c as c2
                from . import c as c3
                from .c import value
                from .. import top, listed
                from ..a.c import value as v2
            """,
            "star.py": "from app import *",
        }
    )
    d = namespace.import_module("app.a.d")
    assert d.c1 is d.c2 is d.c3
    assert (d.value, d.v2, d.top) == (3, 3, 1)
    assert d.app.a.c is d.c1
    star = namespace.import_module("star")
    assert star.listed is d.listed
    assert star.top == 1
    with pytest.raises(ImportError, match="attempted relative import beyond top-level package"):
        namespace.import_module("app.a.b")


def test_repeated_statements_see_what_changed(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/x.py": "",
            "main.py": """
                def get():
                    import app.x
                    return app
                def pick(name):
                    scope = {}
                    exec(f"from app.x import {name}", scope)
                    return scope[name]
            """,
        }
    )
    main = namespace.import_module("main")
    first = main.get()
    assert main.get() is first
    first.x.late = 1
    assert main.pick("late") == 1
    with pytest.raises(ImportError, match="cannot import name 'never'"):
        main.pick("never")
    with entered(namespace.scope):
        del sys.modules["app"]
        del sys.modules["app.x"]
    assert main.get() is not first


def test_relative_imports_in_functions_are_remembered_and_checked(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/m.py": "def __getattr__(name):\n  if name == 'lazy': return 5\n  raise AttributeError(name)\n",
            "app/n.py": """
                def f():
                    from .m import lazy
                    from . import m
                    return lazy, m
                def g():
                    from .m import missing
            """,
        }
    )
    n = namespace.import_module("app.n")
    for _ in range(3):
        assert n.f() == (5, namespace.import_module("app.m"))
    for _ in range(2):
        with pytest.raises(ImportError, match=r"cannot import name 'missing' from 'app.m'"):
            n.g()


def test_an_import_cycle_works_and_a_broken_one_says_so(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/a.py": "from app import b\nimport app.b as b2\nx = 1",
            "app/b.py": "import app.a as a1\nfrom app import a as a2\nfrom . import a as a3\nassert a1 is a2 is a3",
            "app/c.py": "from app.d import y\nx = 1",
            "app/d.py": "from app.c import x\ny = 1",
        }
    )
    a = namespace.import_module("app.a")
    assert a.b is a.b2
    message = (
        r"cannot import name 'x' from partially initialized module 'app.c' \(most likely due to a circular import\)"
    )
    with pytest.raises(ImportError, match=message):
        namespace.import_module("app.c")


def test_a_failing_import_is_undone(biz, write):
    root = write({"app/__init__.py": "", "app/bad.py": "import app.good\n1 / 0", "app/good.py": ""})
    namespace = biz({}, root)
    with pytest.raises(ZeroDivisionError):
        namespace.import_module("app.bad")
    assert "app.bad" not in namespace.table
    assert "app.good" in namespace.table
    assert not hasattr(namespace.import_module("app"), "bad")
    (root / "app/bad.py").write_text("fine = True  # longer, so that the time stamp alone does not decide\n")
    assert namespace.import_module("app.bad").fine
    assert namespace.import_module("app").bad.fine


def test_a_module_may_put_something_else_in_its_place(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/lazy.py": "import sys\nclass L: value = 4\nsys.modules[__name__] = L()",
            "main.py": "from app import lazy\nimport app.lazy as other\nfrom app.lazy import value",
        }
    )
    main = namespace.import_module("main")
    assert main.lazy is main.other
    assert main.value == 4


def test_none_in_the_table_blocks_a_name(biz):
    namespace = biz({"app.py": "", "main.py": "def f():\n import app"})
    main = namespace.import_module("main")
    main.f()
    with entered(namespace.scope):
        sys.modules["app"] = None  # type: ignore[assignment]
    with pytest.raises(ModuleNotFoundError, match=r"import of app halted; None in sys\.modules"):
        main.f()
    with entered(namespace.scope):
        del sys.modules["app"]
    main.f()


def test_a_namespace_package_is_shared_by_portions(biz, base):
    base({"based_ns/one.py": "of = 'base'", "based_ns/both.py": "of = 'base'"})
    based_ns: Any = importlib.import_module("based_ns")
    importlib.import_module("based_ns.one")
    importlib.import_module("based_ns.both")
    namespace = biz(
        {
            "based_ns/two.py": "of = 'biz'",
            "based_ns/both.py": "of = 'biz'",
            "app.py": "import based_ns.one, based_ns.two, based_ns.both\nfrom based_ns import one, two, both",
        }
    )
    app = namespace.import_module("app")
    assert (app.one.of, app.two.of, app.both.of) == ("base", "biz", "biz")
    assert app.one is based_ns.one
    assert app.based_ns is not based_ns
    assert app.based_ns.one is based_ns.one
    assert not hasattr(based_ns, "two")
    assert based_ns.both.of == "base"


def test_an_old_style_namespace_package_does_not_swallow_the_bases_portions(biz, base):
    line = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)"
    base({"based_old/__init__.py": line, "based_old/one.py": "of = 'base'"})
    one = importlib.import_module("based_old.one")
    namespace = biz(
        {
            "based_old/__init__.py": line,
            "based_old/two.py": "of = 'biz'",
            "app.py": "from based_old import one, two",
        }
    )
    app = namespace.import_module("app")
    assert app.one is one
    assert app.two.of == "biz"


def test_a_name_that_only_the_base_has_below_an_own_package_is_not_leaked(biz, base):
    base({"based_app/__init__.py": "", "based_app/secret.py": ""})
    importlib.import_module("based_app.secret")
    namespace = biz({"based_app/__init__.py": "", "main.py": "def f():\n from based_app import secret"})
    main = namespace.import_module("main")
    with pytest.raises(ImportError, match="cannot import name 'secret' from 'based_app'"):
        main.f()
    with entered(namespace.scope):
        assert "based_app.secret" not in sys.modules


def test_a_missing_module_raises_what_python_raises(biz):
    text = """
        import pickle, traceback
        try:
            import nowhere_to_be_found.below
        except ImportError as error:
            caught, last_line, sent = error, traceback.format_exc().splitlines()[-1], pickle.dumps(error)
    """
    app = biz({"app.py": text}).import_module("app")
    with pytest.raises(ModuleNotFoundError) as alone:
        exec(textwrap.dedent(text).replace("except ImportError", "except ZeroDivisionError"), {})
    assert (type(app.caught), vars(app.caught)) == (ModuleNotFoundError, {})
    assert app.caught.__cause__ is app.caught.__context__ is None
    assert (str(app.caught), app.caught.name) == (str(alone.value), "nowhere_to_be_found")
    assert app.last_line == "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    assert app.sent == pickle.dumps(alone.value)


def test_what_to_do_about_a_missing_module_is_told_by_who_missed_it(biz, base):
    base({"based_lib/__init__.py": "", "based_lib/other.py": ""})
    files = {"based_lib/__init__.py": "", "app.py": "def ask(name):\n return __import__(name)\n"}
    namespace = biz(files, identity="hello:1.0")
    app = namespace.import_module("app")

    def advice(name: str) -> str:
        with pytest.raises(ModuleNotFoundError) as caught:
            app.ask(name)
        return advice_on(caught.value, namespace.scope)

    assert advice("nowhere") == (
        "neither biz hello:1.0 nor the base has this Python module; add its distribution to the dependencies of the "
        "biz and build the biz again, or install the distribution in the base"
    )
    assert (
        advice("based_lib.other")
        == "biz hello:1.0 owns 'based_lib', and no file of the package holds this Python module"
    )
    assert advice_on(ModuleNotFoundError("says nothing"), namespace.scope) == ""
    assert advice_on(ModuleNotFoundError("of others", name="app"), namespace.scope) == ""
    assert advice_on(ValueError("nowhere"), namespace.scope) == ""
    with pytest.raises(ModuleNotFoundError) as caught:
        app.ask("nowhere")
    namespace.drop()
    assert advice_on(caught.value, namespace.scope) == ""


def test_an_error_inside_a_library_of_the_base_is_not_mistaken_for_a_missing_module(biz, base):
    base({"based_broken.py": "import not_there_either"})
    namespace = biz({"app.py": "import based_broken"})
    with pytest.raises(ModuleNotFoundError) as caught:
        namespace.import_module("app")
    assert caught.value.name == "not_there_either"
    assert "based_broken.py" in "".join(traceback.format_exception(caught.value))


def test_optional_imports_fall_back(biz):
    namespace = biz(
        {"app.py": "try:\n import ujson_nowhere as j\nexcept ImportError:\n import json as j\nname = j.__name__"}
    )
    assert namespace.import_module("app").name == "json"


def test_a_submodule_of_a_module_that_is_no_package(biz):
    namespace = biz({"app.py": ""})
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'app.x'; 'app' is not a package"):
        namespace.import_module("app.x")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'json.nope'"):
        namespace.import_module("json.nope")


def test_tracebacks_show_the_users_code_only(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/a.py": "from app import b",
            "app/b.py": "def fail():\n  raise ValueError('mine')\nfail()",
            "app/s.py": "import app.syntax",
            "app/syntax.py": "def (:",
        }
    )
    with pytest.raises(ValueError, match="mine") as caught:
        namespace.import_module("app.a")
    frames = [frame.filename.rpartition("/")[2] for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_imports.py", "a.py", "b.py", "b.py"]
    with pytest.raises(SyntaxError) as broken:
        namespace.import_module("app.s")
    frames = [frame.filename.rpartition("/")[2] for frame in traceback.extract_tb(broken.value.__traceback__)]
    assert frames == ["test_imports.py", "s.py"]
    assert str(broken.value.filename).endswith("app/syntax.py")


def test_tracebacks_that_the_bizs_own_code_looks_at_are_clean_too(biz):
    look = """
        import importlib, traceback
        def frames(error):
            return [f.filename.rpartition("/")[2] for f in traceback.extract_tb(error.__traceback__)]
        seen = []
        calls = ("importlib.import_module('app.b')", "__import__('app.b')")
        for statement in ("import app.b", "from app import b", *calls):
            try:
                exec(statement)
            except ValueError as error:
                seen.append(frames(error))
        try:
            import nowhere_to_be_found
        except ImportError as error:
            seen.append(frames(error))
    """
    namespace = biz(
        {"app/__init__.py": "", "app/b.py": "import app.c", "app/c.py": "raise ValueError", "look.py": look}
    )
    *of_value, of_import = namespace.import_module("look").seen
    by_statement = ["look.py", "<string>", "b.py", "c.py"]
    by_import_module = ["look.py", "<string>", "__init__.py", "b.py", "c.py"]  # importlib's own function, as alone
    assert of_value == [by_statement, by_statement, by_import_module, by_statement]
    assert of_import == ["look.py"]
    with entered(namespace.scope):
        try:
            importlib.import_module("app.b")
        except ValueError as error:
            names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    assert not [name for name in names if "koupleless/isolation" in name]


def test_bytecode_is_written_and_used(biz):
    namespace = biz({"app.py": "x = 1"})
    app = namespace.import_module("app")
    assert app.__spec__.cached.endswith(f"app.{sys.implementation.cache_tag}.pyc")
    assert app.__spec__.loader.get_code("app").co_filename == app.__file__


def test_text_that_is_executed_in_a_biz_belongs_to_it(biz):
    namespace = biz(
        {
            "app.py": "x = 1",
            "main.py": """
                from collections import namedtuple
                def run():
                    scope = {}
                    exec("import app\\ndef late():\\n import app as a\\n return a", scope)
                    return scope
                Point = namedtuple("Point", "x y")
            """,
        }
    )
    scope = namespace.import_module("main").run()
    assert scope["late"]() is scope["app"]
    assert scope["app"] is namespace.import_module("app")
    assert namespace.import_module("main").Point.__module__ == "main"


def test_the_code_of_a_dropped_biz_can_import_nothing(biz):
    namespace = biz({"app.py": "def f():\n import json\n return json\n", "other.py": ""}, identity="gone:2.0")
    late = namespace.import_module("app").f
    late()
    namespace.drop()
    with pytest.raises(BizGone, match=r"gone:2\.0 was uninstalled"):
        late()
    with pytest.raises(BizGone):
        namespace.import_module("other")


@pytest.mark.parametrize("look", ["importlib.import_module('jobs')", "pickle.loads(b'cjobs\\nrun\\n.')"])
def test_what_outlives_its_biz_does_not_take_its_modules_for_missing_ones(biz, shared, look):
    """As a scheduler does that deletes jobs which it cannot import: one of its own, or of a library of the base."""
    scheduler = f"""
        import importlib, pickle
        def find():
            try:
                return {look}
            except ImportError:
                return "it is not there, so it is deleted"
    """
    exec(textwrap.dedent(scheduler), vars(shared))
    keeper = biz({})  # a base without modules has Python's own import system again
    namespace = biz({"app.py": scheduler, "jobs.py": "def run():\n pass\n"}, identity="gone:2.0")
    find = namespace.import_module("app").find
    with entered(namespace.scope):
        assert find() is not None
        assert shared.find() is not None
    namespace.drop()
    namespace.scope.close()
    with entered(namespace.scope):
        for each in (find, shared.find):
            with pytest.raises(BizGone, match=r"gone:2\.0 was uninstalled"):
                each()
    assert shared.find() == "it is not there, so it is deleted"  # to the base it is missing
    assert isinstance(keeper, Namespace)


def test_the_program_of_the_base_is_never_delegated(biz):
    namespace = biz({"app.py": "import __main__, sys\nsame = sys.modules['__main__'] is __main__"})
    app = namespace.import_module("app")
    assert app.same
    assert app.__main__ is not REAL["__main__"]
    with pytest.raises(ModuleRefused):
        namespace.import_module("__mp_main__")


def test_arguments_that_make_no_sense_are_refused_as_by_python(biz):
    namespace = biz({"app.py": "do = __import__"})
    do = namespace.import_module("app").do
    with pytest.raises(ValueError, match="Empty module name"):
        do("")
    with pytest.raises(TypeError):
        do(3)
    with pytest.raises(TypeError, match="must be str"):
        do("json", fromlist=[3])
    assert do("os.path") is sys.modules["os"]
    assert do("os.path", fromlist=["join"]) is sys.modules["os.path"]


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="CPython 3.15 knows no loaders without exec_module")
def test_a_loader_of_the_old_kind_still_loads(biz):
    text = """
        import sys, types
        class Old:
            def find_spec(self, name, path, target=None):
                from importlib.machinery import ModuleSpec
                return ModuleSpec(name, self) if name == "app.old" else None
            def load_module(self, name):
                module = sys.modules[name] = types.ModuleType(name)
                module.value = 4
                return module
        sys.meta_path.append(Old())
    """
    namespace = biz({"app/__init__.py": text, "main.py": "from app import old\nimport app.old as again"})
    main = namespace.import_module("main")
    assert main.old.value == 4
    assert main.again is main.old
    assert "app.old" not in REAL


def test_a_parent_that_takes_no_attributes_is_only_warned_about(biz):
    text = """
        import sys
        class Sealed:
            __slots__ = ("__dict__",)
            def __setattr__(self, name, value):
                raise AttributeError(name)
        sealed = Sealed()
        sealed.__dict__.update(globals(), child="taken")
        sys.modules[__name__] = sealed
    """
    namespace = biz({"app/__init__.py": text, "app/child.py": ""})
    with pytest.warns(ImportWarning, match="Cannot set an attribute on 'app' for child module 'child'"):
        assert namespace.import_module("app.child").__name__ == "app.child"


def test_a_spec_without_loader_is_no_module(biz):
    text = """
        import sys
        from importlib.machinery import ModuleSpec
        class Empty:
            def find_spec(self, name, path, target=None):
                return ModuleSpec(name, None) if name == "empty" else None
        sys.meta_path.insert(0, Empty())
        sys.meta_path.insert(0, object())
    """
    namespace = biz({"app.py": text})
    namespace.import_module("app")
    with pytest.raises(ImportError, match="missing loader"):
        namespace.import_module("empty")
    assert "empty" not in namespace.table


def test_a_child_that_is_loaded_is_found_below_a_package_that_was_imported_again(biz):
    namespace = biz(
        {
            "app/__init__.py": "",
            "app/sub/__init__.py": "",
            "app/sub/deep.py": "",
            "user.py": """
                import sys
                import app.sub.deep as first
                before = sys.modules.pop("app.sub")
                import app.sub
                assert app.sub is not before
                import app.sub.deep as again
                assert again is first
            """,
        }
    )
    namespace.import_module("user")


@pytest.mark.parametrize("name", ["json", "os", "own", "own.part", "based_ns", "based_ns.own", "based_ns.part"])
def test_a_spec_is_found_for_the_very_module_that_an_import_gets(biz, base, name):
    """One of the names is a package of one piece in the base, and a mere directory among the files of the biz."""
    base({"based_ns/part/__init__.py": "value = 1"})
    code = "import importlib, importlib.util\ndef both(name):\n    spec = importlib.util.find_spec(name)\n"
    code += "    return spec.origin, importlib.import_module(name).__spec__.origin\n"
    files = {"own/__init__.py": "", "own/part.py": "", "based_ns/own.py": "", "based_ns/part/data.txt": ""}
    namespace = biz({"app.py": code, **files})
    with entered(namespace.scope):
        found, imported = namespace.import_module("app").both(name)
    assert found == imported


@pytest.mark.parametrize("speakers", [Speakers(), Speakers(words={"based-reg": Share.ALWAYS}.get)])
def test_a_directory_that_is_no_package_hides_none_of_the_base(biz, base, speakers):
    files = {"based_reg/__init__.py": "value = 1", "based_reg/sub.py": "value = 2"}
    record = "".join(f"{name},,\n" for name in files)
    base(
        {
            **files,
            "based_reg-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: based-reg\nVersion: 1\n",
            "based_reg-1.dist-info/RECORD": record,
        }
    )
    namespace = biz(
        {
            "based_reg/versions.txt": "",
            "based_reg/mine.py": "",
            "app.py": """
                import importlib.util
                spec = importlib.util.find_spec("based_reg")
                import based_reg
                from based_reg import sub, value
                import based_reg.sub as same
                """,
        },
        speakers=speakers,
    )
    app = namespace.import_module("app")
    assert app.value == 1
    assert app.sub is app.same
    assert app.spec.origin == app.based_reg.__file__
    with pytest.raises(ModuleNotFoundError):
        namespace.import_module("based_reg.mine")
    refusing = biz({"based_reg/mine.py": ""}, policy=Policy(declared=frozenset({"x"})), speakers=speakers)
    assert refusing.import_module("based_reg.mine").__name__ == "based_reg.mine"


@pytest.mark.parametrize(
    "statement", ["from .state import value", "from ..state import value", "from ... import state"]
)
def test_code_of_the_base_does_not_load_again_for_a_biz(biz, base, monkeypatch, statement):
    """A relative import in a function of a shared library, which runs for a biz, costs a look at the table alone."""
    depth = statement.partition(" import")[0].count(".")
    package = "based_lib" + ".deep" * (depth - 1)
    files = {f"{'based_lib/' + 'deep/' * level}__init__.py": "" for level in range(depth)}
    functions = f"def value_of():\n    {statement}\n    return True\n"
    base(files | {"based_lib/state.py": "value = 1", f"{package.replace('.', '/')}/functions.py": functions})
    library: Any = importlib.import_module(f"{package}.functions")
    importlib.import_module("based_lib.state")
    namespace = biz({})
    with entered(namespace.scope):
        library.value_of()
        monkeypatch.setattr(arrivals, "written_down", None)  # the way of an import that may load
        assert library.value_of()


def test_a_relative_import_above_the_library_is_refused_for_a_biz_as_for_the_base(biz, base):
    base({"based_lib/__init__.py": "", "based_lib/functions.py": "def above():\n    from ...beyond import value\n"})
    library: Any = importlib.import_module("based_lib.functions")
    namespace = biz({})
    with entered(namespace.scope), pytest.raises(ImportError, match="beyond top-level package"):
        library.above()

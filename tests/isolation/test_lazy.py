"""Lazy imports of 3.15 stay lazy, and lead to the modules of the code they stand in, whoever resolves them."""

from __future__ import annotations

import contextvars
import gc
import subprocess
import sys
import threading
import traceback
import weakref
from typing import Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.isolation.namespace import Namespace

pytestmark = pytest.mark.skipif(sys.version_info < (3, 15), reason="lazy imports begin with CPython 3.15")

system: Any = sys

SAYING = "import shared_by_the_test as s\ns.ran = getattr(s, 'ran', []) + [__name__]\n"
"""Modules that tell that they were executed."""


def ran(shared: Any) -> list[str]:
    told: list[str] = vars(shared).pop("ran", [])
    return told


def test_each_form_stays_lazy_and_resolves_for_the_biz(biz, base, shared):
    base({"based_lazy.py": SAYING + "whose = 'base'"})
    files = {
        "based_lazy.py": SAYING + "whose = 'biz'",
        "pkg/__init__.py": SAYING + "lazy from . import near\nlazy from .near import deep as below\n"
        "def read():\n    return near, below",
        "pkg/near.py": SAYING + "deep = 'deep'",
        "pkg/far/__init__.py": SAYING,
        "pkg/far/end.py": SAYING + "value = 'end'",
        "main.py": """
            lazy import based_lazy
            lazy from based_lazy import whose
            lazy import pkg.far.end
            lazy import pkg.far.end as end
            lazy from pkg import near as n, far
            def name(): return based_lazy.whose, whose
            def dotted(): return pkg.far.end.value
            def alias(): return end.value
            def members(): return n.deep, far.__name__
        """,
    }
    main = biz(files).import_module("main")
    assert ran(shared) == []
    assert main.name() == ("biz", "biz")
    assert ran(shared) == ["based_lazy"]
    assert main.dotted() == "end"
    assert ran(shared) == ["pkg", "pkg.far", "pkg.far.end"]
    assert main.alias() == "end"
    assert main.members() == ("deep", "pkg.far")
    assert ran(shared) == ["pkg.near"]
    assert main.pkg.read() == (main.n, "deep")
    __import__("based_lazy")
    assert sys.modules["based_lazy"].whose == "base"


def test_two_bizs_and_the_base_have_their_own(biz, base, shared):
    base({"based_lazy.py": "whose = 'base'", "based_user.py": "lazy import based_lazy\ndef read(): return based_lazy"})
    user = __import__("based_user")
    mains = [
        biz({"based_lazy.py": f"whose = {name!r}", "main.py": "lazy import based_lazy\ndef read(): return based_lazy"})
        for name in ("one", "two")
    ]
    got = [namespace.import_module("main").read().whose for namespace in mains]
    assert got == ["one", "two"]
    assert user.read().whose == "base"


@pytest.mark.parametrize("where", ["no context", "another context", "another thread", "another biz", "its own"])
def test_it_does_not_matter_who_resolves_it(biz, base, where):
    base({"based_lazy.py": "whose = 'base'"})
    namespace = biz({"based_lazy.py": "whose = 'biz'", "main.py": "lazy from based_lazy import whose"})
    other = biz({"based_lazy.py": "whose = 'other'"})
    main = namespace.import_module("main")
    got: list[str] = []

    def read() -> None:
        got.append(main.whose)

    def read_as(scope: Any) -> None:
        with entered(scope):
            read()

    if where == "no context":
        read()
    elif where == "another context":
        contextvars.Context().run(read)
    elif where == "another thread":
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    else:
        read_as(other.scope if where == "another biz" else namespace.scope)
    assert got == ["biz"]
    assert vars(main)["whose"] == "biz"


@pytest.mark.parametrize("before", [True, False], ids=["made before the first biz", "made later"])
@pytest.mark.parametrize("how", ["by code of the base", "by code of the biz", "by an import of the biz"])
def test_one_of_the_base_resolves_for_the_base_while_a_biz_runs(biz, base, before, how):
    base(
        {
            "based_lazy.py": "whose = 'base'",
            "based_user.py": "lazy import based_lazy\ndef read(): return based_lazy",
        }
    )
    user = __import__("based_user") if before else None
    namespace = biz(
        {
            "based_lazy.py": "whose = 'biz'",
            "main.py": """
                def read(user): return user.based_lazy
                def take(): from based_user import based_lazy; return based_lazy
            """,
        }
    )
    main = namespace.import_module("main")
    user = user or __import__("based_user")
    with entered(namespace.scope):
        if how == "by code of the base":
            module = user.read()
        else:
            module = main.read(user) if how == "by code of the biz" else main.take()
    assert module.whose == "base"
    assert module is sys.modules["based_lazy"]
    assert user.read() is module


def test_globals_show_the_lazy_import_and_it_resolves(biz):
    namespace = biz(
        {
            "lib.py": "value = 1",
            "main.py": """
                lazy import lib
                def kind(): return type(globals()["lib"]).__name__
                def resolved(): return globals()["lib"].resolve()
            """,
        }
    )
    main = namespace.import_module("main")
    assert main.kind() == "lazy_import"
    assert main.resolved().value == 1


def test_lazy_modules_of_a_module_make_its_imports_lazy(biz, shared):
    main = biz(
        {
            "lib.py": SAYING + "value = 1",
            "main.py": "__lazy_modules__ = ['lib']\nimport lib\ndef read(): return lib.value",
        }
    ).import_module("main")
    assert ran(shared) == []
    assert main.read() == 1
    assert ran(shared) == ["lib"]


def test_a_filter_is_its_bizs(biz, base, shared):
    base({"based_lazy.py": SAYING, "based_user.py": "lazy import based_lazy"})
    text = """
        import sys
        asked = []
        def only(importing, name, fromlist):
            asked.append((importing, name, fromlist))
            return name != "eager"
        assert sys.get_lazy_imports_filter() is None
        sys.set_lazy_imports_filter(only)
        assert sys.get_lazy_imports_filter() is only
        lazy import eager
        lazy import late
        lazy from eager import whose
    """
    files = {"eager.py": SAYING + "whose = 'biz'", "late.py": SAYING}
    filtered = biz({**files, "main.py": text}).import_module("main")
    assert ran(shared) == ["eager"]
    assert filtered.asked == [("main", "eager", None), ("main", "late", None), ("main", "eager", ("whose",))]
    free = biz({**files, "main.py": "lazy import eager"})
    free.import_module("main")
    __import__("based_user")
    assert ran(shared) == []
    assert system.get_lazy_imports_filter() is None


def test_a_filter_of_the_base_is_the_bases(biz, base, shared):
    base({"based_lazy.py": SAYING, "based_user.py": "lazy import based_lazy"})
    asked = []

    def none(_importing: str, name: str, _fromlist: object) -> bool:
        asked.append(name)
        return False

    system.set_lazy_imports_filter(none)
    try:
        namespace = biz({"lib.py": SAYING, "main.py": "lazy import lib"})
        namespace.import_module("main")
        assert ran(shared) == []
        __import__("based_user")
        assert ran(shared) == ["based_lazy"]
        assert asked == ["based_lazy"]
        assert system.get_lazy_imports_filter() is none
        namespace.drop()
        assert system.get_lazy_imports_filter() is none
    finally:
        system.set_lazy_imports_filter(None)


def test_a_package_gives_submodules_that_were_named(biz, base):
    """``lazy import a.b`` in one file lets another that has ``a`` ask it for ``b``, as alone; no other owner's."""
    base({"based_pkg/__init__.py": "", "based_pkg/sub.py": "whose = 'base'"})
    files = {"based_pkg/__init__.py": "", "based_pkg/sub.py": "whose = 'biz'", "naming.py": "lazy import based_pkg.sub"}
    namespace = biz({**files, "main.py": "import naming, based_pkg\ndef read(): return based_pkg.sub.whose"})
    assert namespace.import_module("main").read() == "biz"
    package: Any = __import__("based_pkg")
    exec("lazy from based_pkg import missing", {})
    assert not hasattr(package, "missing")
    with entered(namespace.scope):
        assert getattr(package, "sub", None) is None or package.sub.whose == "base"


def test_what_fails_says_where_the_lazy_import_stands(biz):
    main = biz(
        {"main.py": "\nlazy import nowhere.at.all\ndef read():\n    return nowhere", "lib.py": ""}
    ).import_module("main")
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'") as caught:
        main.read()
    cause: Any = caught.value.__cause__
    statement, use = traceback.extract_tb(cause.__traceback__), traceback.extract_tb(caught.value.__traceback__)
    assert [(frame.filename, frame.lineno) for frame in statement] == [(main.__file__, 2)]
    assert [(frame.filename, frame.name) for frame in use[1:]] == [(main.__file__, "read")]


def test_what_was_never_resolved_keeps_nothing_alive(write):
    files = {"pkg/__init__.py": "", "pkg/sub.py": "", "main.py": "lazy import pkg.sub\nlazy from pkg import sub"}
    before = set(system.lazy_modules)
    namespace = Namespace(Scope(BizId.parse("short:1.0")), [str(write(files))])
    main = weakref.ref(namespace.import_module("main"))
    import_ = weakref.ref(namespace.builtins["__import__"])
    assert "pkg.sub" in system.lazy_modules
    namespace.drop()
    namespace.scope.close()
    assert system.lazy_modules == before
    del namespace
    gc.collect()
    assert main() is None
    assert import_() is None


def test_a_base_that_imports_everything_lazily(write, base):
    """``-X lazy_imports=all`` is for everything that is imported, by whomever."""
    root = write(
        {
            "app/lib.py": "told.append('lib')\nvalue = 1",
            "app/main.py": "import lib\nimport pkg.sub\ndef read(): return lib.value, pkg.sub.value",
            "app/pkg/__init__.py": "",
            "app/pkg/sub.py": "value = 2",
            "program.py": """
                import builtins, sys
                from koupleless.biz import BizId
                from koupleless.context import Scope
                from koupleless.isolation.namespace import Namespace
                told = builtins.told = []
                namespace = Namespace(Scope(BizId.parse("app:1")), [sys.argv[1]])
                main = namespace.import_module("main")
                assert not told
                assert main.read() == (1, 2), main.read()
                assert "lib" not in sys.modules
                namespace.drop()
                print("done")
            """,
        }
    )
    command = [sys.executable, "-X", "lazy_imports=all", str(root / "program.py"), str(root / "app")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "done\n"

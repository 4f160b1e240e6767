"""Own copies: modules of a biz executed from files of the base, from code objects that the process loads once."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
import weakref

import pytest

from koupleless.context import entered
from koupleless.errors import ModuleRefused
from koupleless.isolation import codes, places
from koupleless.isolation.interpreter import REAL
from koupleless.isolation.libraries.holding import Speakers, Wishes
from koupleless.isolation.policy import Policy

from .test_distributions import wheel

STATE = wheel("based-state", "1.0", {"based_state/__init__.py": "value = 'base'\ndef read(): return value\n",
                                     "based_state/deep.py": "import based_state\ntop = based_state\n"})  # fmt: skip
USER = wheel("based-user", "1.0", {"based_user.py": "import based_state\n"}, requires=("based-state",))
APP = {"app.py": "import based_state\nfrom based_state import deep\n"}


def test_each_biz_and_the_base_have_a_copy_of_their_own(base, biz):
    base({**STATE, "based_app.py": ""})
    of_base = importlib.import_module("based_state")
    first, second = biz(APP).import_module("app"), biz(APP).import_module("app")
    first.based_state.value = "first"
    assert [first.based_state.read(), second.based_state.read(), of_base.read()] == ["first", "base", "base"]
    assert first.deep.top is first.based_state is not second.based_state
    assert first.based_state.__file__ == of_base.__file__
    assert "based_state.deep" not in REAL


def test_a_library_that_the_base_has_merely_installed_does_not_come_into_it(base, biz):
    base(STATE)
    biz(APP).import_module("app")
    assert "based_state" not in REAL


def test_code_objects_are_loaded_once_and_go_with_the_last_user(base, biz):
    base(STATE)
    namespaces = [biz(APP), biz(APP)]
    first, second = (namespace.import_module("app").based_state.read for namespace in namespaces)
    assert first is not second
    assert first.__code__ is second.__code__
    code = weakref.ref(first.__code__)
    del first, second
    for namespace in namespaces:
        assert code() is not None
        namespace.drop()
        namespace.scope.close()
        gc.collect()
    assert code() is None


def test_private_libraries_of_equal_text_share_their_code_wherever_they_lie(biz, write):
    libs = [write({"private_lib.py": "def f(): return 1\n"}) for _ in range(2)]
    first, second = (biz({"app.py": "import private_lib"}, lib).import_module("app").private_lib for lib in libs)
    assert first.__file__ != second.__file__
    assert first.f.__code__ is second.f.__code__


def test_a_private_file_whose_text_is_known_is_not_read(biz, write, monkeypatch):
    libs = [write({"private_lib.py": "def f(): return 1\n"}) for _ in range(3)]
    known = {}
    for lib in libs:
        status = (lib / "private_lib.py").stat()
        known[str(lib / "private_lib.py")] = status.st_size, status.st_mtime_ns
    changed = libs[2] / "private_lib.py"
    changed.write_text("def f(): return 2\n")
    os.utime(changed, ns=(0, 1))

    def texts(path, size, changed_ns):
        return b"text" if known.get(path) == (size, changed_ns) else None

    read, digest = [], codes._digest

    def counted(path):
        read.append(path)
        return digest(path)

    monkeypatch.setattr(codes, "_digest", counted)
    app = {"app.py": "import private_lib"}
    first, second, third = (biz(app, lib, texts=texts).import_module("app").private_lib for lib in libs)
    assert first.f.__code__ is second.f.__code__
    assert (second.f(), third.f()) == (1, 2)
    assert read == [str(changed)]


def test_a_file_that_has_changed_is_read_again(base, biz):
    root = base(STATE)
    assert biz(APP).import_module("app").based_state.read() == "base"
    (root / "based_state/__init__.py").write_text("def read(): return 'changed, and longer'\n")
    importlib.invalidate_caches()
    assert biz(APP).import_module("app").based_state.read() == "changed, and longer"


def settled(directory):
    """A directory, and those below, as if they had not changed for long."""
    for place in (directory, *directory.glob("*/")):
        os.utime(place, ns=(0, 0))
    return directory


def test_where_the_files_are_is_found_out_once(base, biz, monkeypatch):
    root = settled(base(STATE))
    listed, scandir = [], os.scandir

    def counted(path="."):
        if str(path).startswith(str(root)):
            listed.append(str(path))
        return scandir(path)

    monkeypatch.setattr(places, "_scandir", counted)
    apps = [biz(APP).import_module("app") for _ in range(2)]
    assert listed.count(str(root / "based_state")) == 1
    specs = [app.deep.__spec__ for app in apps]
    assert specs[0] == specs[1]
    assert specs[0] is not specs[1]
    assert specs[0].cached == specs[1].cached == importlib.util.cache_from_source(apps[0].deep.__file__)
    first, second = (app.based_state.__path__ for app in apps)
    assert first == second
    assert first is not second


def test_where_the_files_are_is_forgotten_when_a_biz_leaves(base, biz):
    root = settled(base(STATE))
    namespace = biz(APP)
    namespace.import_module("app")
    assert str(root / "based_state") in places._directories
    namespace.drop()
    assert not places._directories


def test_a_directory_that_has_changed_is_looked_at_again(base, biz):
    root = base(STATE)

    def deep():
        importlib.invalidate_caches()
        return biz(APP).import_module("app").deep

    assert deep().top.__name__ == "based_state"
    (root / "based_state/deep.py").unlink()
    (root / "based_state/deep").mkdir()
    (root / "based_state/deep/__init__.py").write_text("top = 'package'\n")
    assert [deep().top for _ in range(2)] == ["package", "package"]
    (root / "based_state/deep/__init__.py").unlink()
    assert (deep().__file__, hasattr(deep(), "top")) == (None, False)


def test_a_copy_draws_along_what_requires_it(base, biz):
    base({**STATE, **USER})
    shared = Speakers(base=Wishes.of(shared=["based-state", "based-user"]))
    app = {"app.py": "import based_state, based_user"}
    together = biz(app, speakers=shared).import_module("app")
    assert together.based_state is together.based_user.based_state is REAL["based_state"]
    own = Speakers(base=Wishes.of(shared=["based-user"]), module=Wishes.of(own=["based-state", "based-user"]))
    apart = biz(app, speakers=own).import_module("app")
    assert apart.based_state is apart.based_user.based_state is not together.based_state


def test_an_own_version_is_what_copies_of_the_base_s_libraries_get(base, biz, write):
    base({**STATE, **USER})
    lib = write(wheel("based-state", "2.0", {"based_state/__init__.py": "value = 'private'\n"}))
    app = biz({"app.py": "import based_user"}, lib).import_module("app")
    assert app.based_user.based_state.value == "private"


def test_what_can_use_a_library_that_the_module_brings_is_a_copy_which_finds_it(base, biz, write):
    text = "def check():\n    global based_mail\n    import based_mail\n    return based_mail.value\n"
    extra = ('based-mail ; extra == "mail"',)
    base(wheel("based-models", "1.0", {"based_models.py": text}, requires=extra))
    shared = Speakers(base=Wishes.of(shared=["based-models"]))
    plain = biz({"app.py": "import based_models"}, speakers=shared).import_module("app")
    assert plain.based_models is importlib.import_module("based_models")
    for value in ("first", "second"):
        lib = write(wheel("based-mail", "1.0", {"based_mail.py": f"value = {value!r}\n"}))
        app = biz({"app.py": "import based_models"}, lib, speakers=shared).import_module("app")
        assert app.based_models.check() == value
    with pytest.raises(ModuleNotFoundError):
        plain.based_models.check()
    assert not hasattr(plain.based_models, "based_mail")


def test_portions_of_a_namespace_package_are_held_each_in_its_way(base, biz):
    base({**wheel("based-one", "1", {"based_ns/one.py": ""}), **wheel("based-two", "1", {"based_ns/two.py": ""})})
    speakers = Speakers(module=Wishes.of(shared=["based-two"]))
    app = biz({"app.py": "from based_ns import one, two\nimport based_ns.one"}, speakers=speakers).import_module("app")
    of_base = [importlib.import_module("based_ns.one"), importlib.import_module("based_ns.two")]
    assert [app.one is of_base[0], app.two is of_base[1]] == [False, True]
    assert app.based_ns.one is app.one


def test_a_copy_hides_the_base_s_from_sys_modules_and_is_found_by_every_way_in(base, biz):
    base(STATE)
    of_base = importlib.import_module("based_state")
    namespace = biz({"app.py": "import sys, importlib\ndef seen(): return sys.modules.get('based_state')\n"})
    app = namespace.import_module("app")
    assert app.seen() is None
    with entered(namespace.scope):
        spec = importlib.util.find_spec("based_state")
    assert spec is not None
    assert spec.origin == of_base.__file__
    own = app.importlib.import_module("based_state")
    assert app.seen() is own is not of_base
    assert sys.modules["based_state"] is of_base
    with entered(namespace.scope):
        assert importlib.import_module("based_state") is own


def test_a_spec_found_before_the_import_equals_the_module_s_and_one_found_after(base, biz, write):
    text = """
        import importlib.util, sys
        def specs():
            before = importlib.util.find_spec("based_state")
            import based_state
            of_module = sys.modules.pop("based_state").__spec__
            return before, of_module, importlib.util.find_spec("based_state")
    """
    base(STATE)
    for lib in ((), (write({"based_state/__init__.py": ""}),)):
        namespace = biz({"app.py": text}, *lib)
        app = namespace.import_module("app")
        with entered(namespace.scope):
            before, of_module, after = app.specs()
        assert before is not of_module is not after
        assert before == of_module == after


def test_a_copy_finds_the_plug_ins_that_its_own_distribution_names(base, biz):
    points = "[based.plugins]\nown = based_plugged\n"
    base(
        {
            **wheel("based-plugged", "1", {"based_plugged.py": ""}, entry=points),
            **wheel("based-other", "1", {"based_other.py": ""}, entry="[based.plugins]\nother = based_other\n"),
        }
    )
    text = "import based_plugged\nfrom importlib import metadata\n"
    text += "names = [point.name for point in metadata.entry_points(group='based.plugins')]\n"
    app = biz({"app.py": text}).import_module("app")
    assert app.names == ["own"]


def test_declared_mode_refuses_a_copy_as_it_refuses_the_base_s(base, biz):
    base(STATE)
    with pytest.raises(ModuleRefused, match="No module named 'based_state'"):
        biz(APP, policy=Policy(declared=frozenset({"else"}))).import_module("app")


def test_a_submodule_that_is_not_there_is_not_found(base, biz):
    base(STATE)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'based_state\.absent'"):
        biz({"app.py": "import based_state.absent"}).import_module("app")


def test_what_a_biz_holds_is_told_with_the_reason(base, biz, write):
    base({**STATE, **USER, **wheel("based-always", "3", {"based_always.py": ""})})
    lib = write(wheel("mine", "2.0", {"mine.py": ""}))
    speakers = Speakers(base=Wishes.of(shared=["based-always"]))
    namespace = biz({"app.py": "import based_state, based_always, mine"}, lib, speakers=speakers)
    namespace.import_module("app")
    assert [(one.name, one.version, one.held) for one in namespace.libraries()] == [
        ("based-always", "3", "shared"),
        ("based-state", "1.0", "own copy"),
        ("mine", "2.0", "own version"),
    ]


def test_a_version_that_a_biz_brings_is_told_before_its_first_import_too(base, biz, write):
    base(wheel("based-lib", "1.0", {"based_lib.py": ""}))
    lib = write(wheel("based-lib", "2.0", {"based_lib.py": ""}))
    speakers = Speakers(brought=frozenset({"based-lib"}))
    policy = Policy(requirements=("based-lib>=2",))
    namespace = biz({"app.py": ""}, lib, policy=policy, speakers=speakers)
    namespace.import_module("app")
    assert [(one.name, one.version, one.held) for one in namespace.libraries()] == [("based-lib", "2.0", "own version")]


def test_a_second_execution_that_the_base_entered_under_another_name_is_out_of_sight(base, biz):
    """As those that eventlet makes of dnspython: a biz with a copy of its own finds none, and makes its own."""
    base({**STATE, "based_twice.py": "", "based_plain.py": ""})
    for name in ("", ".deep"):
        sys.modules[f"based_again_state{name}"] = importlib.import_module(f"based_state{name}")
        del sys.modules[f"based_state{name}"]
    sys.modules["based_alias"] = plain = importlib.import_module("based_plain")
    namespace = biz(APP)
    with entered(namespace.scope):
        for name in ("based_again_state", "based_again_state.deep"):
            assert name not in sys.modules
            assert sys.modules.get(name) is None
            assert name not in list(sys.modules)
        assert sys.modules["based_alias"] is plain
        of_biz = sys.modules["based_again_state"] = namespace.import_module("based_state")
        assert sys.modules["based_again_state"] is of_biz
    assert sys.modules["based_again_state"] is REAL["based_again_state"] is not of_biz

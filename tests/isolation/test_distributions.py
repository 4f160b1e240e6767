"""Distributions: who owns a module of the base, and what ``importlib.metadata`` tells a biz."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
import zipfile
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import Any

import pytest

from koupleless.context import entered
from koupleless.errors import ModuleRefused
from koupleless.isolation.interpreter import REAL
from koupleless.isolation.libraries import distributions
from koupleless.isolation.libraries.holding import Speakers
from koupleless.isolation.libraries.installed.index import Index
from koupleless.isolation.libraries.installed.mentions import imported_for_sure
from koupleless.isolation.libraries.known import Share
from koupleless.isolation.linking.linker import Linker
from koupleless.isolation.policy import Policy


def wheel(
    name: str, version: str, files: dict[str, str], *, requires: tuple[str, ...] = (), entry: str = ""
) -> dict[str, str]:
    """The files of an installed distribution."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    meta += "".join(f"Requires-Dist: {text}\n" for text in requires)
    installed = {**files, f"{info}/METADATA": meta}
    if entry:
        installed[f"{info}/entry_points.txt"] = entry
    record = "".join(f"{path},sha256={len(text)}-{version},{len(text)}\n" for path, text in installed.items())
    return {**installed, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}


LIB = wheel("Based.Lib", "1.0", {"based_lib/__init__.py": "version = '1.0'"}, entry="[based.group]\nlib = based_lib\n")
OTHER = wheel("based-other", "2.0", {"based_other.py": ""}, entry="[based.group]\nother = based_other\n")


def test_a_compiled_module_need_not_be_an_identifier(write):
    compiled = f"650f__mypyc{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    index = Index([str(write(wheel("fast", "1", {"fast/__init__.py": "", compiled: "", "not-one.py": ""})))])
    assert index.owners("650f__mypyc") == ("fast",)
    assert index.owners("not-one") == ()


def test_an_index_has_no_use_for_bytecode(write):
    info = "based_bytes-1.0.dist-info"
    record = f"based_bytes.py,,\n__pycache__/based_bytes.cpython-313.pyc,,\n../../bin/based,,\n{info}/RECORD,,\n"
    index = Index([str(write({"based_bytes.py": "", f"{info}/METADATA": "", f"{info}/RECORD": record}))])
    assert index.owners("based_bytes") == ("based-bytes",)
    assert index.parts("based-bytes") == {"based_bytes.py", info}
    assert index._records["based-bytes"].lines == ["based_bytes.py,,", f"{info}/RECORD,,"]


def test_an_index_is_made_again_for_distributions_alone(write):
    place = write(LIB)
    path = [str(place)]
    index = distributions.index_of(path)
    (place / "application.log").write_text("a base writes into a directory of its path")
    os.utime(place, ns=(0, 1))
    assert distributions.index_of(path) is index
    for name, text in OTHER.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    os.utime(place, ns=(0, 2))
    assert distributions.index_of(path).versions == {"based-lib": "1.0", "based-other": "2.0"}
    replaced = distributions.index_of(path)
    os.utime(place / "based_other-2.0.dist-info", ns=(0, 3))  # the same version once more
    os.utime(place, ns=(0, 3))
    assert distributions.index_of(path) is not replaced


def mypyc(version: str, *, is_whole: bool = True) -> dict[str, str]:
    """What mypyc leaves in a wheel: extension modules beside their sources, and one library that they refer to."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    sources = {
        "quick/__init__.py": f"from quick.part import late\nversion = '{version}'",
        "quick/part.py": "def late():\n    from . import table\n    return table.values",
        "quick/table.py": f"values = '{version}'",
    }
    stems = [name.removesuffix(".py") for name in sources] + ["650f__mypyc"]
    extensions = {f"{stem}{suffix}": "no library" for stem in stems}
    if not is_whole:
        del sources["quick/table.py"]
    return wheel("quick", version, {**sources, **extensions})


def test_what_mypyc_has_compiled_is_executed_from_its_source(biz, write):
    """Each biz has its own, in any version: its compiled functions would ask nobody whose modules they import."""
    versions = ("1.0", "2.0")
    namespaces = [biz({"app.py": "import quick"}, write(mypyc(version))) for version in versions]
    for namespace, version in zip(namespaces, versions, strict=True):
        quick = namespace.import_module("app").quick
        assert (quick.version, quick.late()) == (version, version)
        assert Path(quick.__file__).parts[-2:] == ("quick", "__init__.py")
        assert quick.__path__ == [str(Path(quick.__file__).parent)]
        with entered(namespace.scope):
            spec = importlib.util.find_spec("quick.part")
        assert spec is not None
        assert str(spec.origin).endswith("part.py")


def test_what_mypyc_has_compiled_is_compiled_where_a_source_is_missing(write):
    index = Index([str(write(mypyc("1.0")))])
    assert index.extended == {"quick"}
    assert index.compiled == set()
    assert index.is_sourced("quick.part")
    index = Index([str(write(mypyc("1.0", is_whole=False)))])
    assert index.compiled == {"quick"}
    assert not index.is_sourced("quick.part")


def test_ownership_comes_from_the_records(write):
    root = write(
        {
            **LIB,
            **wheel("ns-one", "1", {"ns/one/__init__.py": "", "bin/tool": "", "data_only.txt": ""}),
            **wheel("ns-two", "1", {"ns/two.py": "", "ns/two_more.py": ""}),
            "plain.py": "",
        }
    )
    index = Index([str(root)])
    assert index.versions == {"based-lib": "1.0", "ns-one": "1", "ns-two": "1"}
    assert index.owners("based_lib") == index.owners("based_lib.sub") == ("based-lib",)
    assert set(index.owners("ns")) == {"ns-one", "ns-two"}
    assert index.owners("ns.one") == index.owners("ns.one.deep") == ("ns-one",)
    assert index.owners("ns.two") == ("ns-two",)
    assert index.owners("ns.tw") == ()
    assert index.owners("plain") == index.owners("data_only") == ()
    assert index.top_level("ns-one") == {"ns", "bin"}
    assert index.place("ns-one") == str(root)


def test_contents_tell_equal_from_different(write):
    first = Index(
        [str(write({**LIB, **wheel("user", "1", {"user.py": ""}, requires=("Based.Lib>=1", "absent; extra == 'x'"))}))]
    )
    same = Index(
        [str(write({**LIB, **wheel("user", "1", {"user.py": ""}, requires=("Based.Lib>=1", "absent; extra == 'x'"))}))]
    )
    changed = {**LIB, **wheel("Based.Lib", "1.0", {"based_lib/__init__.py": "version = '1.0'  # patched"})}
    other = Index([str(write({**changed, **wheel("user", "1", {"user.py": ""}, requires=("Based.Lib>=1",))}))])
    assert first.relations.closure("user") == {"user", "based-lib"}
    assert first.contents.of("user") == same.contents.of("user") != other.contents.of("user")
    assert first.has_same("based-lib", same)
    assert not first.has_same("based-lib", other)
    assert not first.has_same("based-lib", Index([]))
    assert first.shared == frozenset()


def test_a_record_without_digests_goes_by_the_files(write):
    def made(text):
        files = wheel("bare", "1", {"bare.py": text})
        files["bare-1.dist-info/RECORD"] = "bare.py,,\nbare-1.dist-info/METADATA,,\ngone.py,,\n"
        return Index([str(write(files))])

    assert made("a").contents.of("bare") == made("a").contents.of("bare") != made("b").contents.of("bare")


def test_compiled_distributions_are_shared_with_what_they_require(write):
    from importlib.machinery import EXTENSION_SUFFIXES

    suffix = EXTENSION_SUFFIXES[0]
    root = write(
        {
            **wheel("fast", "1", {f"fast/core{suffix}": ""}, requires=("helper", "missing")),
            **wheel("helper", "1", {"helper.py": ""}),
            **wheel("pure", "1", {"pure.py": ""}, requires=("fast",)),
            **wheel("driver", "1", {"driver/__init__.py": ""}, requires=("driver-binary; extra == 'binary'",)),
            **wheel("driver-binary", "1", {f"driver_binary/x{suffix}": ""}),
        }
    )
    index = Index([str(root)])
    assert index.shared == {"fast", "helper", "driver", "driver-binary"}


def test_what_a_distribution_can_use_belongs_to_it_but_not_what_its_authors_use(write):
    """A shared library looks in its own surroundings for what makes it faster, or speaks to a database."""
    extras = "Provides-Extra: fast\nRequires-Dist: greenlet; extra == 'fast'\n"
    extras += "Provides-Extra: test_all\nRequires-Dist: pytest; extra == 'test_all'\n"
    root = write(
        {
            "lib-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: lib\nVersion: 1\n" + extras,
            "lib-1.dist-info/RECORD": f"lib/__init__.py,,\nlib/native{EXTENSION_SUFFIXES[0]},,\n",
            "greenlet-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: greenlet\nVersion: 1\n",
            "greenlet-1.dist-info/RECORD": "greenlet/__init__.py,,\n",
            "pytest-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: pytest\nVersion: 1\n",
            "pytest-1.dist-info/RECORD": "pytest/__init__.py,,\n",
        }
    )
    index = Index([str(root)])
    assert index.relations.closure("lib") == {"lib", "greenlet"}
    assert index.shared == {"lib", "greenlet"}


def test_what_extension_modules_are_seen_to_import_is_around_them(write):
    """They keep it in static data: ``pyarrow`` does so with ``pandas``, which its metadata does not name."""
    suffix = EXTENSION_SUFFIXES[0]
    files = wheel("arrows", "1", {f"arrows/lib{suffix}": "", "arrows/shim.pxi": "cdef f():\n    import frames as x\n"})
    files |= wheel("cnumbers", "1", {f"cnumbers/lib{suffix}": ""}, requires=("helper",)) | wheel("helper", "1", {})
    files |= wheel("plain", "1", {"plain.py": ""})
    frames = {f"frames/lib{suffix}": "", "frames/fast.pyx": "cimport cnumbers\n"}
    index = Index([str(write(files | wheel("frames", "1", frames)))])
    assert index.relations.closure("arrows") == {"arrows"}
    assert index.relations.surroundings("arrows") == {"arrows", "frames", "cnumbers", "helper"}
    assert index.relations.surroundings("cnumbers") == {"cnumbers", "helper"}
    other = Index([str(write(files | wheel("frames", "2", frames)))])
    assert index.contents.of("arrows") != other.contents.of("arrows")
    assert index.contents.of("cnumbers") == other.contents.of("cnumbers")


def test_what_a_module_cannot_do_without():
    text = '''"""A module.

import this_is_text
"""
import a, b.c as d  # and more
from . import sibling, other as another
from .. import (
    upper,  # with a word
)
from ...far.away import thing; import never_mind
from whole import *
try:
    import optional
except ImportError:
    from fallback import optional
def later():
    import lazily
'''
    found = imported_for_sure(text, "one.two")
    own = {"one.two", "one.two.sibling", "one.two.other", "one", "one.upper"}
    assert found == {"a", "b.c", "whole"} | own
    assert "far.away.thing" not in imported_for_sure("from ....far.away import thing", "one.two")


def test_metadata_of_another_kind_is_read(write):
    root = write(
        {
            "Old_Style-0.5.egg-info/PKG-INFO": "Metadata-Version: 1.0\nName: Old-Style\nVersion: 0.5\n",
            "Old_Style-0.5.egg-info/installed-files.txt": "old_style.py\n../other.py\n",
            "old_style.py": "",
            "nameless-1.dist-info/RECORD": "",
            **wheel("edited", "1", {}),
            "edited-1.dist-info/direct_url.json": '{"url": "file:///somewhere/edited", "dir_info": {"editable": true}}',
            **wheel("broken", "1", {}),
            "broken-1.dist-info/direct_url.json": "{",
        }
    )
    index = Index([str(root)])
    assert index.versions["old-style"] == "0.5"
    assert index.owner_of_file("/somewhere/edited/src/x.py") == "edited"
    assert index.owner_of_file("/somewhere/else.py") is None


def test_where_modules_of_the_base_come_from(base):
    root = base({**LIB, "based_app/__init__.py": ""})
    find: Any = distributions.provenance
    assert find("based_lib").owners == (("based-lib", "1.0"),)
    own = find("based_app")
    assert own.owners == ()
    assert own.in_directory
    assert own.location == str(root / "based_app/__init__.py")
    assert find("nothing_at_all") is None
    assert ("koupleless" in dict(find("koupleless").owners)) is True
    assert dict(find("pytest").owners) == {"pytest": pytest.__version__}


def test_an_archive_of_the_base_is_allowed_in_declared_mode(biz, tmp_path):
    archive = tmp_path / "based.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("based_zipped.py", "")
    sys.path.append(str(archive))
    try:
        namespace = biz({"app.py": "import based_zipped"}, policy=Policy(declared=frozenset({"x"})))
        assert namespace.import_module("app").based_zipped is REAL["based_zipped"]
    finally:
        sys.path.remove(str(archive))
        sys.path_importer_cache.pop(str(archive), None)
        sys.modules.pop("based_zipped", None)


def test_declared_mode(biz, base):
    base({**LIB, **OTHER, "based_app.py": ""})
    files = {"app.py": "import json, based_lib\ndef other():\n import based_other\ndef own():\n import based_app\n"}
    namespace = biz(files, policy=Policy(declared=frozenset({"based_lib"})), identity="shop:1.0")
    app = namespace.import_module("app")
    with pytest.raises(ModuleRefused) as other:
        app.other()
    assert str(other.value) == "No module named 'based_other'"
    assert other.value.advice == (
        "biz shop:1.0 may not take this Python module from the base: the base has the Python module from the "
        "distribution 'based-other', which this biz does not declare; add 'based-other' to its declared libraries, "
        "or bring it along as a dependency"
    )
    with pytest.raises(ModuleRefused, match="base's own code"):
        app.own()
    with pytest.raises(ModuleNotFoundError) as missing:
        namespace.import_module("nothing_at_all")
    assert type(missing.value) is ModuleNotFoundError
    with entered(namespace.scope):
        assert importlib.util.find_spec("based_lib") is not None
        assert importlib.util.find_spec("based_other") is None
    free = biz(files)
    free.import_module("app").other()
    free.import_module("app").own()


def test_the_standard_library_is_there_in_declared_mode_under_every_name(biz, write, monkeypatch):
    careless = write(wheel("careless", "1", {"careless.py": "", "test/__init__.py": "", "test/test_careless.py": ""}))
    monkeypatch.setattr(sys, "path", [*sys.path, str(careless)])
    namespace = biz(
        {
            "app.py": """
                import importlib.util, sysconfig, encodings.punycode
                import __hello__, __phello__.spam
                import test.support
                from test.support import import_helper
                def config():
                    sysconfig._CONFIG_VARS_INITIALIZED = False
                    return sysconfig.get_config_var("prefix")
                def load(name):
                    return importlib.import_module(name), importlib.util.find_spec(name)
                """
        },
        policy=Policy(declared=frozenset({"x"})),
    )
    app = namespace.import_module("app")
    build_time = sysconfig._get_sysconfigdata_name()  # type: ignore[attr-defined]
    present = [name for name in ("_testcapi", "idlelib") if importlib.util.find_spec(name)]  # Debian has them apart
    with entered(namespace.scope):
        assert app.config() == sysconfig.get_config_var("prefix")
        for name in (build_time, "__phello__", *present):
            module, spec = app.load(name)
            assert module is REAL[name]
            assert spec is not None
    assert app.test is REAL["test"]
    own = biz({"test/__init__.py": "mine = True", "app.py": "import test"}, policy=Policy(declared=frozenset({"x"})))
    assert own.import_module("app").test.mine


def test_what_the_biz_brings_needs_no_declaration(biz, base):
    base({**LIB})
    namespace = biz({"based_lib.py": "version = 'own'"}, policy=Policy(declared=frozenset({"x"})))
    assert namespace.import_module("based_lib").version == "own"


def test_the_base_must_satisfy_the_requirements(biz, base):
    base({**LIB})
    files = {"app.py": "import based_lib"}
    assert biz(files, policy=Policy(requirements=("based-lib>=1",))).import_module("app").based_lib.version == "1.0"
    namespace = biz(files, policy=Policy(requirements=("based-lib>=2",)), identity="shop:1.0")
    with pytest.raises(ModuleRefused, match=r"the base has based-lib 1\.0, which does not satisfy based-lib>=2"):
        namespace.import_module("app")


def test_plugin_exports_come_first_unless_denied(biz):
    import types

    exported = types.ModuleType("shared_api")
    files = {"shared_api/__init__.py": "own = True", "app.py": "import shared_api"}
    policy = Policy(exports={"shared_api.*": lambda _: exported})
    assert biz(files, policy=policy).import_module("app").shared_api is exported
    denied = Policy(exports=policy.exports, deny=("shared_api.*",))
    assert biz(files, policy=denied).import_module("app").shared_api.own


def names(found):
    return {distribution.metadata["Name"] for distribution in found}


def test_metadata_answers_for_the_biz(biz, base):
    base({**LIB, **OTHER})
    newer = wheel("Based.Lib", "3.0", {"based_lib.py": ""}, entry="[based.group]\nlib = based_lib:newer\n")
    ask = """
        import importlib.metadata as m
        def ask(name): return m.version(name)
    """
    namespace = biz({**newer, "app.py": ask})
    app = namespace.import_module("app")
    with entered(namespace.scope):
        assert app.ask("based-lib") == metadata.version("Based_Lib") == "3.0"
        assert app.ask("based-other") == "2.0"
        assert names(metadata.distributions()) == {"Based.Lib"}
        assert [point.value for point in metadata.entry_points(group="based.group")] == ["based_lib:newer"]
        assert metadata.packages_distributions() == {"based_lib": ["Based.Lib"]}
        with pytest.raises(metadata.PackageNotFoundError):
            metadata.version("nothing-at-all")
        assert names(metadata.distributions(path=[str(Path(pytest.__file__).parent.parent)])) >= {"pytest"}
    assert metadata.version("based-lib") == "1.0"
    assert {"Based.Lib", "based-other"} <= names(metadata.distributions())


def test_metadata_in_declared_mode_adds_what_is_declared(biz, base):
    base({**LIB, **OTHER, **wheel("based-third", "1", {})})
    newer = wheel("Based.Lib", "3.0", {"based_lib.py": ""}, entry="[based.group]\nlib = based_lib:newer\n")
    namespace = biz(newer, policy=Policy(declared=frozenset({"based-lib", "based-other"})))
    with entered(namespace.scope):
        assert names(metadata.distributions()) == {"Based.Lib", "based-other"}
        points = {point.value for point in metadata.entry_points(group="based.group")}
        assert points == {"based_lib:newer", "based_other"}
        assert metadata.version("based-lib") == "3.0"
        assert metadata.version("based-other") == "2.0"
        with pytest.raises(metadata.PackageNotFoundError):
            metadata.version("based-third")
        assert metadata.version("koupleless")


def test_what_is_deleted_from_the_path_finder_is_gone_as_alone(biz, base):
    base(LIB)
    text = """
        import sys
        from importlib import metadata
        from importlib.machinery import PathFinder

        finder = next(one for one in sys.meta_path if one == PathFinder)
        before = metadata.version("based-lib")
        own = finder.find_distributions
        del finder.find_distributions, finder._path_hooks
        is_there = hasattr(finder, "find_distributions") or hasattr(finder, "_path_hooks")
        found = [*metadata.distributions(name="based-lib")]
        import late
        errors = []
        for name in ("find_distributions", "never_there"):
            try:
                delattr(finder, name)
            except AttributeError as error:
                errors.append(str(error))
        finder.find_distributions = own
        again = metadata.version("based-lib")
    """
    app = biz({"app.py": text, "late.py": ""}).import_module("app")
    assert (app.before, app.is_there, app.found, app.again) == ("1.0", False, [], "1.0")
    assert app.errors == [
        f"type object 'PathFinder' has no attribute {name!r}" for name in ("find_distributions", "never_there")
    ]
    assert "find_distributions" in vars(PathFinder)
    assert "_path_hooks" in vars(PathFinder)


def test_files_that_appear_are_seen_after_the_caches_are_told(biz, base):
    root = base({})
    namespace = biz({"app.py": "import importlib\ndef tell(): importlib.invalidate_caches()"})
    app = namespace.import_module("app")
    with pytest.raises(ModuleNotFoundError):
        namespace.import_module("based_new")
    (root / "based_new.py").write_text("of = 'base'")
    importlib.invalidate_caches()
    assert namespace.import_module("based_new").of == "base"
    Path(namespace.paths[0], "own_new.py").write_text("of = 'biz'")
    app.tell()
    assert namespace.import_module("own_new").of == "biz"
    with entered(namespace.scope):
        importlib.invalidate_caches()


SIGHT = """
    import importlib.util, sys
    def seen(name):
        modules = sys.modules
        ways = {
            name in modules, modules.get(name) is not None, name in list(modules), name in modules.copy(),
            name in dict(modules), name in modules.keys(), name in modules | {}, name in {**modules},
            any(other == name for other, _ in modules.items()),
        }
        assert len(ways) == 1, (name, ways)
        return ways.pop()
"""


def test_sys_modules_shows_of_the_base_s_libraries_those_in_use(biz, base):
    using = wheel(
        "based-using",
        "1",
        {"based_using.py": "import sys\ndef look(name): return name in sys.modules"},
        requires=("Based.Lib",),
    )
    base({**LIB, **OTHER, **using, "based_app.py": ""})
    for name in ("based_lib", "based_other", "based_using", "based_app"):
        importlib.import_module(name)
    words = dict.fromkeys(("based-lib", "based-other", "based-using"), Share.ALWAYS).get
    namespace = biz({"app.py": SIGHT}, speakers=Speakers(words=words))
    app = namespace.import_module("app")
    with entered(namespace.scope):
        assert [app.seen(name) for name in ("json", "html", "based_app")] == [True, "html" in REAL, True]
        assert [app.seen(name) for name in ("based_lib", "based_other", "based_using")] == [False] * 3
        assert importlib.util.find_spec("based_other").name == "based_other"  # type: ignore[union-attr]
        shared = namespace.import_module("based_using")
        assert [app.seen(name) for name in ("based_lib", "based_other", "based_using")] == [True, False, True]
        assert shared.look("based_other")  # a shared library finds all that it might have imported
        assert "based_other" in sys.modules
        with pytest.raises(KeyError):
            app.sys.modules.pop("no such module")
        assert namespace.import_module("based_other") is REAL["based_other"]
        assert app.seen("based_other")


def test_what_a_shared_library_of_the_biz_has_taken_is_in_sight_too(biz, base):
    base({**OTHER})
    importlib.import_module("based_other")
    speakers = Speakers(words={"based-other": Share.ALWAYS}.get)
    namespace, lent = biz({"app.py": SIGHT}, speakers=speakers), biz({}, speakers=speakers)
    app = namespace.import_module("app")
    namespace.scope.facet(Linker).table.lenders.append(lent.scope.facet(Linker).table)
    assert not app.seen("based_other")
    lent.import_module("based_other")
    assert app.seen("based_other")


def test_what_is_out_of_sight_is_not_removed_by_code_that_restores_the_table(biz, base):
    base({**OTHER})
    importlib.import_module("based_other")
    namespace = biz(
        {
            "app.py": SIGHT
            + """
    def trip():
        saved = dict(sys.modules)
        sys.modules["based_other"] = None
        del sys.modules["based_other"]
        try:
            del sys.modules["based_other"]
        except KeyError:
            pass
        sys.modules.clear()
        sys.modules.update(saved)
        assert not seen("based_other")
        import based_other
        assert seen("based_other")
        return based_other
    """
        },
        speakers=Speakers(words={"based-other": Share.ALWAYS}.get),
    )
    assert namespace.import_module("app").trip() is REAL["based_other"]


def test_declared_mode_is_the_same_by_every_way_in(biz, base):
    ways = """
        import importlib, importlib.metadata, importlib.resources, importlib.util, pickle, pkgutil, runpy, sys
        from unittest import mock
        import pytest
        def ways(name):
            yield lambda: __import__(name)
            yield lambda: __import__(name, fromlist=["part"])
            yield lambda: importlib.import_module(name)
            yield lambda: importlib.import_module(name + ".part")
            yield lambda: importlib.util.find_spec(name).name
            yield lambda: importlib.util.find_spec(name + ".part").name
            yield lambda: pytest.importorskip(name, exc_type=ImportError)
            yield lambda: pkgutil.resolve_name(name)
            yield lambda: pkgutil.resolve_name(name + ".part:value")
            yield lambda: pkgutil.get_data(name, "part.py").decode
            yield lambda: runpy.run_module(name + ".program")["value"]
            yield lambda: sys.modules[name]
            yield lambda: sys.modules[name + ".part"]
            yield lambda: {**sys.modules}[name]
            yield lambda: importlib.resources.files(name).name
            yield lambda: importlib.metadata.version(name.replace("_", "-"))
            yield lambda: importlib.metadata.packages_distributions()[name]
            yield lambda: pickle.loads(b"c" + name.encode() + b".part\\nvalue\\n.")
            yield lambda: mock.patch(name + ".part.value", 5).start()
            yield lambda: exec(f"from {name} import part")
            yield lambda: exec(f"import {name}.part")
        def refused(name):
            for number, way in enumerate(ways(name)):
                try:
                    way()
                except (ImportError, AttributeError, KeyError, pytest.skip.Exception):
                    yield number
        """
    for name in ("based_whole", "based_fine"):
        base(
            wheel(
                name.replace("_", "-"),
                "1",
                {f"{name}/{file}.py": "value = 1" for file in ("__init__", "part", "program")},
            )
        )
        importlib.import_module(f"{name}.part")
    words = {"based-whole": Share.ALWAYS, "based-fine": Share.ALWAYS, "pytest": Share.ALWAYS}.get
    policy = Policy(declared=frozenset({"based-fine", "pytest"}))
    namespace = biz({"app.py": ways}, policy=policy, speakers=Speakers(words=words))
    app = namespace.import_module("app")
    with entered(namespace.scope):
        total = len(list(app.ways("x")))
        assert list(app.refused("based_whole")) == list(range(total))
        assert list(app.refused("based_fine")) == []
        app.mock.patch.stopall()

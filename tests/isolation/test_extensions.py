"""Compiled modules: initialised once for each content, shared where that is the only way, never in the real table."""

from __future__ import annotations

import builtins
import colorsys
import ctypes  # noqa: F401 - the first compiled file of a biz has it imported, and tests compare all that is
import gc
import importlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import weakref
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.isolation.conftest import dead_references

from koupleless.biz import BizId
from koupleless.context import Scope, as_base, current, entered
from koupleless.errors import ModuleRefused
from koupleless.isolation import imports
from koupleless.isolation.finding.unit_finder import UnitFinder
from koupleless.isolation.imports import HOOKS
from koupleless.isolation.interpreter import REAL, initialising, withheld, withholding
from koupleless.isolation.libraries import extensions
from koupleless.isolation.libraries.distributions import base_index, index_of
from koupleless.isolation.libraries.extensions import is_compiled, shelf
from koupleless.isolation.linking.linker import Linker
from koupleless.isolation.namespace import Namespace
from koupleless.isolation.policy import Policy

from .test_distributions import wheel

SUFFIX = EXTENSION_SUFFIXES[0]

# Counts in the file's static data how often it was initialised, as numpy does; imports as Cython does, past __import__.
SOURCE = """
#include <Python.h>
#include <string.h>
static int times = 0;
static PyObject *held = NULL;
static PyObject *bound(PyObject *self, PyObject *none) { return Py_NewRef(held ? held : Py_None); }
static PyObject *count(PyObject *self, PyObject *none) { return PyLong_FromLong(times); }
static PyObject *fetch(PyObject *self, PyObject *name) {
    PyObject *from = Py_BuildValue("(s)", "value");
    PyObject *module = PyImport_ImportModuleLevelObject(name, NULL, NULL, from, 0);
    Py_DECREF(from);
    return module;
}
static PyMethodDef methods[] = {{"count", count, METH_NOARGS, ""}, {"fetch", fetch, METH_O, ""},
    {"bound", bound, METH_NOARGS, ""}, {NULL}};
static int run(PyObject *module) {
    const char *sibling = SIBLING;
    if (++times > 1) { PyErr_SetString(PyExc_ImportError, "cannot load module more than once"); return -1; }
    if (PyModule_AddStringConstant(module, "flavour", FLAVOUR)) return -1;
    PyObject *all = PyImport_GetModuleDict(), *own = PyObject_GetAttrString(module, "__name__");
    PyObject *full = PyUnicode_FromFormat("%U.inner", own), *inner = PyImport_AddModuleObject(full);  /* pybind11 */
    Py_DECREF(full);
    if (!inner || PyObject_HasAttrString(inner, "flavour")) {
        PyErr_SetString(PyExc_ImportError, "an object with that name is already defined");
        return -1;
    }
    if (PyModule_AddStringConstant(inner, "flavour", FLAVOUR)) return -1;
    if (PyObject_SetAttrString(module, "inner", inner)) return -1;
    PyObject *file = MULTI ? PyObject_GetAttrString(module, "__file__") : NULL;
    if (file && PyObject_SetAttrString(inner, "__file__", file)) return -1;
    Py_XDECREF(file);
    if (!strncmp(FLAVOUR, "registering", 11)) {  /* as pybind11 and nanobind do with types that are no module's own */
        PyObject *types = PyInterpreterState_GetDict(PyInterpreterState_Get());
        if (PyDict_GetItemString(types, "__pybind11_of_tests")) {
            PyErr_SetString(PyExc_ImportError, "type is already registered");
            return -1;
        }
        if (PyDict_SetItemString(types, "__pybind11_of_tests", module)) return -1;
    }
    if (*sibling) {
        int through_import = *sibling == '!', is_hidden = *sibling == '?';
        PyObject *name = PyUnicode_FromString(sibling + (through_import || is_hidden));
        PyObject *other = through_import || is_hidden ? PyImport_Import(name) : fetch(NULL, name);
        Py_DECREF(name);
        if (!other || (!is_hidden && PyObject_SetAttrString(module, "sibling", other))) return -1;
        if (is_hidden) held = Py_NewRef(other);  /* as import_array() does: static data alone tell whose it is */
        Py_DECREF(other);
        PyObject *found = PyDict_GetItemString(PyImport_GetModuleDict(), sibling);  /* where what mypyc makes looks */
        PyModule_AddIntConstant(module, "is_in_table", found == other);
    }
    if (!PyDict_GetItem(all, own)) PyDict_SetItem(all, own, module);  /* what Cython does */
    Py_DECREF(own);
    return 0;
}
static PyModuleDef_Slot slots[] = {{Py_mod_exec, run}, {0, NULL}};
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "native", "", MULTI ? 0 : -1, methods, MULTI ? slots : NULL};
PyMODINIT_FUNC PyInit_native(void) {
    if (MULTI) return PyModuleDef_Init(&def);
    PyObject *module = PyModule_Create(&def);
    if (module && run(module)) Py_CLEAR(module);
    return module;
}
"""


@pytest.fixture(scope="session")
def compile_native(tmp_path_factory):
    """``compile_native(flavour="a", multi=True)`` is the path of a compiled module ``native``."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no C compiler, or no headers of Python")
    out = tmp_path_factory.mktemp("native")

    def build(*, flavour: str, multi: bool = True, sibling: str = "", name: str = "native") -> Path:
        target: Path = out / f"{flavour}-{multi}-{sibling}-{name}{SUFFIX}"
        source = target.with_suffix(".c")
        if not target.exists():
            source.write_text(SOURCE.replace("PyInit_native", f"PyInit_{name}"))
            defines = [f'-DFLAVOUR="{flavour}"', f"-DMULTI={int(multi)}", f'-DSIBLING="{sibling}"']
            include = f"-I{sysconfig.get_path('include')}"
            subprocess.run([compiler, "-shared", "-fPIC", "-w", *defines, include, source, "-o", target], check=True)
        return target

    return build


@pytest.fixture
def put(write):
    """``put(compiled, {"pkg/__init__.py": ""}, at="pkg/native", dist=("pkg", "1"))`` is a directory with all that."""

    def place(compiled, files, *, at, dist=None, requires=()):
        root = write(files)
        target = root / f"{at}{SUFFIX}"
        shutil.copy(compiled, target)
        if dist is not None:
            name, version = dist
            info = root / f"{name}-{version}.dist-info"
            info.mkdir()
            meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            info.joinpath("METADATA").write_text(meta + "".join(f"Requires-Dist: {each}\n" for each in requires))
            paths = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
            own = [
                path for path in paths if not str(path.parts[0]).endswith(".dist-info") or path.parts[0] == info.name
            ]
            info.joinpath("RECORD").write_text("".join(f"{path},,\n" for path in own))
        return root

    return place


@pytest.mark.parametrize("multi", [True, False])
def test_a_compiled_module_of_the_bizs_own_code_lives_once(compile_native, put, multi):
    compiled = compile_native(flavour=f"own{multi}", multi=multi)
    files = {"app/__init__.py": "", "app/main.py": "from app import native\nimport app.native as n\nassert n is native"}
    seen = []
    for _ in range(3):
        scope = Scope(BizId.parse("own:1"))
        namespace = Namespace(scope, [str(put(compiled, files, at="app/native"))])
        native = namespace.import_module("app.main").native
        assert native.count() == 1
        assert native.flavour == f"own{multi}"
        assert "app.native" not in REAL
        assert is_compiled(native)
        assert "app.native" not in namespace.table
        with entered(namespace.scope):
            assert sys.modules["app.native"] is native
            assert importlib.reload(native) is native
        dead = dead_references(namespace)
        linker = weakref.ref(namespace.scope.facet(Linker))
        namespace.drop()
        namespace.scope.close()
        seen.append(native)
        del namespace, scope
        gc.collect()
        assert [name for name, module in dead if module() is not None] == []
        assert linker() is None
    assert seen[0] is seen[1] is seen[2]


def test_a_compiled_module_that_refers_to_its_package_is_made_anew_for_each_life(compile_native, put, biz):
    compiled = compile_native(flavour="referring", sibling="app.part")
    files = {"app/__init__.py": "", "app/part.py": "value = []", "app/main.py": "from app import native, part"}
    root = put(compiled, files, at="app/native")
    before = sorted(path.name for path in root.rglob("*") if path.suffix != ".pyc")
    lives = []
    for _ in range(3):
        namespace = biz({}, root)
        main = namespace.import_module("app.main")
        assert main.native.sibling is main.part
        assert main.native.count() == 1
        assert main.native.__file__ == main.native.__spec__.origin == str(root / f"app/native{SUFFIX}")
        lives.append(main.native)
        dead = dead_references(namespace)
        namespace.drop()
        del namespace, main
        gc.collect()
        assert [name for name, module in dead if module() is not None] == []
    assert len({id(native) for native in lives}) == 3
    assert sorted(path.name for path in root.rglob("*") if path.suffix not in {".pyc", ""}) == [
        name for name in before if "." in name
    ]
    assert "app.native" not in REAL


@pytest.mark.parametrize("multi", [True, False])
@pytest.mark.parametrize("in_base", [{}, {"based_app/__init__.py": "", "based_app/part.py": "value = 'base'"}])
def test_compiled_code_finds_what_it_imports_in_the_interpreters_table_while_it_is_initialised(  # noqa: PLR0917
    compile_native, put, biz, base, multi, in_base
):
    base({"based_unrelated.py": "", **in_base})
    for name in in_base:
        importlib.import_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    compiled = compile_native(flavour=f"looking{len(in_base)}", sibling="based_app.part", multi=multi)
    files = {"based_app/__init__.py": "", "based_app/part.py": "value = 'own'"}
    namespace = biz({}, put(compiled, files, at="based_app/native"))
    before = dict(REAL)
    native = namespace.import_module("based_app.native")
    assert native.sibling is namespace.import_module("based_app.part")
    assert native.sibling.value == "own"
    assert native.is_in_table
    assert {**withheld_modules(), **REAL} == before


def withheld_modules():
    return {name: module for name, (module, _) in withheld.items()}


def test_an_import_by_the_base_means_the_bases_module_while_another_is_in_the_table(base):
    base({"based_pair/__init__.py": "", "based_pair/part.py": "who = 'base'"})
    of_base = importlib.import_module("based_pair.part")
    other = ModuleType("based_pair"), ModuleType("based_pair.part")
    HOOKS.acquire()
    try:
        with initialising(object(), {"based_pair": other[0], "based_pair.part": other[1]}, {"based_pair"}):
            assert REAL["based_pair.part"] is other[1]
            statement: dict[str, Any] = {"__name__": "based_user", "__builtins__": builtins}
            exec("import based_pair.part as part\nfrom based_pair import part as again", statement)
            assert statement["part"] is statement["again"] is of_base
            assert sys.modules["based_pair.part"] is of_base
            assert importlib.import_module("based_pair.part") is of_base
        assert REAL["based_pair.part"] is of_base
    finally:
        HOOKS.release()


def test_parts_of_a_compiled_module_are_not_taken_for_those_of_another_that_it_imports(compile_native, put, biz):
    """As of boost_histogram, which imports numpy after it has made its submodules: both lie in one directory."""
    user = {"user/__init__.py": "from user import native"}
    root = put(compile_native(flavour="making parts", sibling="?used"), user, at="user/native")
    library = dist("used", "30", {f"used/native{SUFFIX}": "", "used/__init__.py": "from used import native"})
    library |= dist("user", "30", {f"user/native{SUFFIX}": "", "user/__init__.py": ""})
    for name, text in library.items():
        if name.endswith(("METADATA", "RECORD", "used/__init__.py")):
            root.joinpath(name).parent.mkdir(exist_ok=True)
            root.joinpath(name).write_text(text + "Requires-Dist: used\n" * name.endswith("user-30.dist-info/METADATA"))
    shutil.copy(compile_native(flavour="used for parts"), root / f"used/native{SUFFIX}")
    app = biz({"app.py": "import user.native.inner, user, used"}, root).import_module("app")
    assert app.user.native.bound() is app.used
    assert (app.user.native.inner.flavour, app.used.native.inner.flavour) == ("making parts", "used for parts")


@pytest.mark.parametrize("has_base", [False, True])
def test_one_file_is_bound_anew_to_each_version_of_what_it_uses(compile_native, put, biz, has_base):
    """As scipy is to numpy: what its compiled code has got from one version is no good for another."""
    using = compile_native(flavour=f"using{has_base}", sibling="?used")

    def of_version(version):
        library = {"used/__init__.py": f"from used import native\nversion = {version!r}"}
        used = put(compile_native(flavour="used"), library, at="used/native", dist=("used", version))
        user = {"user/__init__.py": "import used\nfrom user import native"}
        return used, put(using, user, at="user/native", dist=("user", "1.0"), requires=["used"])

    own = put(using, {"app/__init__.py": "", "app/main.py": "import used\nfrom app import native"}, at="app/native")
    for_base = [str(path) for path in of_version("0")]
    sys.path[:0] = for_base if has_base else []
    try:
        if has_base:
            assert importlib.import_module("user").native.bound() is importlib.import_module("used")
        found: dict[str, Any] = {}
        owned: dict[str, Any] = {}
        for version in ("1", "2", "1"):
            directories = of_version(version)
            app = biz({"app.py": "import used, user"}, *directories).import_module("app")
            assert (app.used.version, app.user.native.bound(), app.user.native.count()) == (version, app.used, 1)
            assert app.user.native is found.setdefault(version, app.user.native)
            main = biz({}, own, directories[0]).import_module("app.main")
            assert (main.native.bound(), main.native.count()) == (main.used, 1)
            assert main.native is owned.setdefault(version, main.native)
        assert found["1"] is not found["2"]
        assert owned["1"] is not owned["2"]
        if has_base:
            assert importlib.import_module("user").native.bound() is importlib.import_module("used")
    finally:
        for path in for_base if has_base else ():
            sys.path.remove(path)
            sys.path_importer_cache.pop(path, None)
        for name in [name for name in sys.modules if name.partition(".")[0] in {"used", "user"}]:
            del sys.modules[name]


@pytest.mark.parametrize("has_base", [False, True])
def test_one_file_is_bound_anew_to_each_version_of_another_of_its_own_distribution(compile_native, put, biz, has_base):
    """As parts of numpy are to its core: releases differ in some files only."""
    same = compile_native(flavour=f"same{has_base}", sibling="?pair.kind")

    def of_version(version):
        files = {"pair/__init__.py": f"from pair import kind, native\nversion = {version!r}"}
        root = put(same, files, at="pair/native")
        compiled = compile_native(flavour=f"kind{has_base}{version}", name="kind")
        shutil.copy(compiled, root / f"pair/kind{SUFFIX}")
        names = ["pair/__init__.py", f"pair/kind{SUFFIX}", f"pair/native{SUFFIX}"]
        root.joinpath(f"pair-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: pair\nVersion: {version}\n"
        root.joinpath(f"pair-{version}.dist-info/METADATA").write_text(metadata)
        root.joinpath(f"pair-{version}.dist-info/RECORD").write_text("".join(f"{name},,\n" for name in names))
        return root

    for_base = [str(of_version("0"))] if has_base else []
    sys.path[:0] = for_base
    try:
        if has_base:
            importlib.import_module("pair")
        found: dict[str, Any] = {}
        for version in ("1", "2", "1"):
            pair = biz({"app.py": "import pair"}, of_version(version)).import_module("app").pair
            assert (pair.version, pair.native.bound(), pair.native.count()) == (version, pair.kind, 1)
            assert pair.native is found.setdefault(version, pair.native)
    finally:
        for path in for_base:
            sys.path.remove(path)
            sys.path_importer_cache.pop(path, None)
        for name in [name for name in sys.modules if name.partition(".")[0] == "pair"]:
            del sys.modules[name]


def test_each_version_has_a_table_of_types_of_its_own(compile_native, put, biz):
    """One for all is in the interpreter's dictionary; the base has its own there, and finds it again."""
    files = {"based_types/__init__.py": "from based_types import native"}
    of_base = put(compile_native(flavour="registering base"), files, at="based_types/native")
    sys.path.insert(0, str(of_base))
    try:
        for version in ("1", "2"):
            library = {"types_of/__init__.py": "from types_of import native"}
            compiled = compile_native(flavour=f"registering {version}")
            root = put(compiled, library, at="types_of/native", dist=("types_of", version))
            assert biz({}, root).import_module("types_of").native.flavour == f"registering {version}"
        assert importlib.import_module("based_types").native.flavour == "registering base"
        own = compile_native(flavour="registering own", sibling="app.part")
        root = put(own, {"app/__init__.py": "", "app/part.py": ""}, at="app/native")
        for _ in range(2):
            assert biz({}, root).import_module("app.native").count() == 1
        again = compile_native(flavour="registering again")
        sys.path.insert(0, str(put(again, {"based_again/__init__.py": ""}, at="based_again/native")))
        with pytest.raises(ImportError, match="already registered"):
            importlib.import_module("based_again.native")
    finally:
        for path in [path for path in sys.path if path.startswith(str(of_base.parent))]:
            sys.path.remove(path)
            sys.path_importer_cache.pop(path, None)
        for name in [name for name in sys.modules if name.partition(".")[0] in {"based_types", "based_again"}]:
            del sys.modules[name]


def test_different_contents_live_side_by_side(compile_native, put, biz):
    made = {}
    for flavour in ("left", "right"):
        root = put(compile_native(flavour=flavour), {"app/__init__.py": ""}, at="app/native")
        made[flavour] = biz({}, root).import_module("app.native")
    assert made["left"] is not made["right"]
    assert {flavour: module.flavour for flavour, module in made.items()} == {"left": "left", "right": "right"}


def test_what_the_base_has_loaded_is_handed_to_the_biz(compile_native, put, biz):
    compiled = compile_native(flavour="base first")
    root = put(compiled, {"based_ext/__init__.py": ""}, at="based_ext/native")
    sys.path.insert(0, str(root))
    try:
        of_base = importlib.import_module("based_ext.native")
        namespace = biz({}, put(compiled, {"app/__init__.py": ""}, at="app/native"))
        assert namespace.import_module("app.native") is of_base
        assert REAL["based_ext.native"] is of_base
        assert of_base.count() == 1
        spec: Any = of_base.__spec__
        namespace.drop()
        assert of_base.flavour == "base first"
        assert of_base.__spec__ is spec
        assert str(spec).count("based_ext.native")
    finally:
        sys.path.remove(str(root))
        for name in ("based_ext", "based_ext.native"):
            sys.modules.pop(name, None)
        sys.path_importer_cache.pop(str(root), None)


def test_a_failed_initialisation_is_not_kept(compile_native, put, biz):
    compiled = compile_native(flavour="failing", sibling="nothing_of_the_kind")
    namespace = biz({}, put(compiled, {"app/__init__.py": ""}, at="app/native"))
    with pytest.raises(ModuleNotFoundError, match="nothing_of_the_kind"):
        namespace.import_module("app.native")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_the_kind"):
        namespace.import_module("app.native")
    assert "app.native" not in REAL


LIBRARY = {
    "fastlib/__init__.py": """
        from koupleless.context import current
        loaded_as = current()
        from fastlib import native, wrapped
        import importlib
        def lazy():
            from . import late
            return late, importlib.import_module("fastlib.late")
    """,
    "fastlib/wrapped.py": "class Thing: pass",
    "fastlib/late.py": "import fastlib",
}
USER = {
    "app.py": """
        import fastlib, fastlib.native, pickle
        from fastlib.wrapped import Thing
        def use():
            import sys, fastlib.late
            assert sys.modules["fastlib.late"] is fastlib.late
            assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
            return fastlib.native.count(), fastlib.lazy()
    """
}


def test_a_compiled_distribution_survives_its_bizs_and_belongs_to_none(compile_native, put, biz):
    compiled = compile_native(flavour="library")
    packages = []
    for number in range(3):
        root = put(compiled, LIBRARY, at="fastlib/native", dist=("fastlib", "1.0"))
        namespace = biz(USER, root, identity=f"user{number}:1")
        app = namespace.import_module("app")
        with entered(namespace.scope):
            assert app.use()[0] == 1
            assert importlib.import_module("fastlib") is app.fastlib
            assert "fastlib.wrapped" in list(sys.modules)
            found: Any = importlib.util.find_spec("fastlib.wrapped")
            assert found.origin.endswith("wrapped.py")
        count, (late, again) = app.use()
        assert count == 1
        assert late is again
        assert app.fastlib.loaded_as is not namespace.scope
        assert app.fastlib.loaded_as.biz.name == "fastlib"
        assert set(namespace.table) == {"app", "builtins", "importlib", "__main__"}
        packages.append(app.fastlib)
        dead = dead_references(namespace)
        namespace.drop()
        namespace.scope.close()
        del namespace, app
        gc.collect()
        assert [name for name, module in dead if module() is not None] == []
        shutil.rmtree(root)
    assert packages[0] is packages[1] is packages[2]
    assert not any(name.startswith("fastlib") for name in REAL)


def test_two_contents_of_a_distribution_serve_two_bizs(compile_native, put, biz):
    found = {}
    for version in ("1.0", "2.0"):
        root = put(compile_native(flavour=f"v{version}"), LIBRARY, at="fastlib/native", dist=("fastlib", version))
        found[version] = biz(USER, root).import_module("app")
    assert found["1.0"].fastlib is not found["2.0"].fastlib
    assert found["1.0"].Thing is not found["2.0"].Thing
    assert [found[version].fastlib.native.flavour for version in ("1.0", "2.0")] == ["v1.0", "v2.0"]
    assert [found[version].use()[0] for version in ("1.0", "2.0")] == [1, 1]


def test_what_works_with_a_library_that_a_biz_has_put_another_in_front_of_is_its_own(compile_native, put, write, biz):
    """As soupsieve does with the bs4 of a source tree; both are what lxml can use."""
    files = {
        **wheel("soup", "1.0", {"soup/__init__.py": "import sieve\nof = 'library'"}, requires=("sieve", "plain")),
        **wheel("sieve", "1.0", {"sieve/__init__.py": "from . import match", "sieve/match.py": "import soup"}),
        **wheel("around", "1.0", {"around.py": "import sieve"}, requires=("sieve",)),
        **wheel("plain", "1.0", {"plain.py": "try:\n import soup\nexcept ImportError:\n pass"}),
    }
    dist, requires = ("fastlib", "9.0"), ("soup", "around")
    root = put(compile_native(flavour="front"), LIBRARY, at="fastlib/native", dist=dist, requires=requires)
    beside = write(files)
    imports = "import soup, sieve, around, plain, fastlib\n"
    front = f"import os, sys\nsys.path.insert(0, os.path.dirname(__file__) + '/tree')\n{imports}"
    tree = {"tree/soup/__init__.py": "import sieve\nof = 'tree'", "app.py": front}
    app, one, other = (
        biz(files, root, beside).import_module("app") for files in (tree, {"app.py": imports}, {"app.py": imports})
    )
    assert (app.soup.of, one.soup.of) == ("tree", "library")
    assert app.sieve.match.soup is app.soup
    assert app.around.sieve is app.sieve
    assert one.sieve.match.soup is one.soup is other.soup
    assert one.sieve is other.sieve is one.around.sieve
    assert app.fastlib is one.fastlib
    assert app.plain is one.plain


def test_files_that_moved_are_still_found(compile_native, put, biz):
    compiled = compile_native(flavour="moved")
    first = put(compiled, LIBRARY, at="fastlib/native", dist=("fastlib", "3.0"))
    namespace = biz(USER, first)
    namespace.import_module("app")
    namespace.drop()
    shutil.rmtree(first)
    second = put(compiled, LIBRARY, at="fastlib/native", dist=("fastlib", "3.0"))
    app = biz(USER, second).import_module("app")
    late, _ = app.use()[1]
    assert late.__file__ == str(second / "fastlib/late.py")


def test_a_biz_that_declares_what_it_takes_is_lent_what_it_brings_and_the_base_has_too(compile_native, put, biz, base):
    compiled = compile_native(flavour="same")
    library = put(compiled, LIBRARY, at="fastlib/native", dist=("fastlib", "3.1"))
    sys.path.insert(0, str(library))
    try:
        of_base = importlib.import_module("fastlib")
        private = put(compiled, LIBRARY, at="fastlib/native", dist=("fastlib", "3.1"))
        namespace = biz(USER, private, policy=Policy(declared=frozenset({"something-else"})))
        namespace.import_module("app").use()
        assert namespace.import_module("fastlib") is of_base
    finally:
        sys.path.remove(str(library))
        for name in [name for name in sys.modules if name.partition(".")[0] == "fastlib"]:
            del sys.modules[name]


def test_what_a_compiled_distribution_requires_is_shared_with_it(compile_native, put, biz):
    compiled = compile_native(flavour="needy", sibling="helper")
    library = {"fastlib/__init__.py": "from fastlib import native", "helper.py": "value = 'own'\nclass H: pass"}
    helper = "Metadata-Version: 2.1\nName: helper\nVersion: 1\n"
    library |= {"helper-1.dist-info/METADATA": helper, "helper-1.dist-info/RECORD": "helper.py,,\n"}
    user = {"app.py": "import helper, fastlib\nassert fastlib.native.sibling is helper\nassert helper.value == 'own'"}
    lives = []
    for _ in range(2):
        root = put(compiled, library, at="fastlib/native", dist=("fastlib", "4.0"), requires=("helper",))
        record = root / "fastlib-4.0.dist-info/RECORD"
        record.write_text(
            "".join(line for line in record.read_text().splitlines(keepends=True) if "helper" not in line)
        )
        namespace = biz(user, root)
        lives.append(namespace.import_module("app").helper)
        namespace.drop()
    assert lives[0] is lives[1]


def test_what_the_base_lends_to_a_library_is_seen_by_a_biz_that_brings_it_too(compile_native, put, biz, base, write):
    """As pycparser is, which cffi requires, and which looks itself up in sys.modules; the biz has not imported it."""
    helper = dist("based-helper", "1", {"based_helper.py": "import sys\ndef me(): return sys.modules[__name__]"})
    base(helper)
    of_base = importlib.import_module("based_helper")
    library = {"fastlib/__init__.py": "from fastlib import native\nimport based_helper"}
    compiled = compile_native(flavour="lending")
    root = put(compiled, library, at="fastlib/native", dist=("fastlib", "15"), requires=["based-helper"])
    app = biz({"app.py": "import fastlib\ndef use(): return fastlib.based_helper.me()"}, root, write(helper))
    assert app.import_module("app").fastlib.based_helper is of_base
    with entered(app.scope):
        assert app.import_module("app").use() is of_base
    assert app.import_module("based_helper") is of_base


def test_what_the_program_brings_itself_is_its_alone_whatever_requires_it(compile_native, put, biz, write):
    root = put(compile_native(flavour="circle"), LIBRARY, at="fastlib/native", dist=("fastlib", "5"), requires=["app"])
    program = write(USER)
    info = program / "app-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: app\nVersion: 1.0\nRequires-Dist: fastlib\n")
    (info / "RECORD").write_text("app.py,,\n")
    for private in ((), (str(program),)):
        namespace = biz({}, program, root, policy=Policy(private=private))
        app = namespace.import_module("app")
        assert app.use()[0] == 1
        assert ("app" in namespace.table) == bool(private)
        namespace.drop()


def test_compiled_code_gets_its_own_modules_where_the_base_has_the_same_names(compile_native, put, biz, base):
    base({"helper.py": "value = 'base'", "fastlib/__init__.py": "", "fastlib/part.py": "value = 'base'"})
    of_base = {name: importlib.import_module(name) for name in ("helper", "fastlib", "fastlib.part")}
    try:
        compiled = compile_native(flavour="contested", sibling="fastlib.part")
        library = {"fastlib/__init__.py": "from fastlib import native", "fastlib/part.py": "value = 'own'"}
        root = put(compiled, library, at="fastlib/native", dist=("fastlib", "5.0"))
        fastlib = biz({}, root).import_module("fastlib")
        assert fastlib.native.sibling.value == "own"
        assert fastlib.native.sibling is not of_base["fastlib.part"]
        assert {name: sys.modules[name] for name in of_base} == of_base
        assert "fastlib.native" not in REAL
    finally:
        for name in of_base:
            sys.modules.pop(name, None)


def test_other_threads_of_the_base_do_not_notice_names_that_are_withheld(biz, base):
    import pickle

    base({"based_kept/__init__.py": "", "based_kept/part.py": "class P: pass\ndef f():\n import based_kept.part\n"})
    part = importlib.import_module("based_kept.part")
    blob = pickle.dumps(part.P())
    namespace = biz({"based_kept/__init__.py": "", "based_kept/part.py": "class P: pass"})
    own = namespace.import_module("based_kept.part")
    results = []

    def elsewhere():
        scope: dict[str, Any] = {}
        exec("import based_kept.part as seen", scope)
        part.f()
        results.append(scope["seen"] is part)
        results.append(importlib.import_module("based_kept.part") is part)
        results.append(sys.modules["based_kept.part"] is part)
        results.append(sys.modules.get("based_kept.part") is part)
        results.append(type(pickle.loads(blob)) is part.P)
        results.append("based_kept.part" in sys.modules and dict(sys.modules)["based_kept.part"] is part)
        results.append("based_kept.part" not in REAL)

    with withholding({"based_kept"}), withholding({"based_kept"}):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(20)
        with entered(namespace.scope):
            assert importlib.import_module("based_kept.part") is own
            assert type(pickle.loads(blob)) is own.P
    assert results == [True] * 7
    assert REAL["based_kept.part"] is part
    assert not withheld


def test_the_bases_very_same_content_is_lent(biz):
    """markupsafe is compiled, and the base (these tests) has it: a biz that brings the same gets the base's."""
    import markupsafe

    site = Path(markupsafe.__file__).parent.parent
    units = len(shelf)
    namespace = biz({"app.py": "import markupsafe\nfrom markupsafe import _speedups"}, _copy_of(site, "markupsafe"))
    assert namespace.import_module("app").markupsafe is markupsafe
    assert len(shelf) == units


def _copy_of(site, name):
    root = Path(tempfile.mkdtemp(prefix="lent-"))
    for path in [site / name, *site.glob(f"{name}-*.dist-info"), *site.glob(f"{name}.libs")]:
        shutil.copytree(path, root / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def _altered(root, name):
    """Another content of the same library: bytes after the end of a shared library change nothing it does."""
    for path in root.rglob(f"*{SUFFIX}"):
        path.write_bytes(path.read_bytes() + b"another build")
    record = next(root.glob(f"{name}-*.dist-info")) / "RECORD"
    record.write_text(record.read_text().replace(f"{SUFFIX},sha256=", f"{SUFFIX},sha256=altered"))
    return root


def test_a_private_numpy_is_removed_and_comes_back(biz):
    """It refuses to be initialised twice, and C code of it imports by name; the base's own stays apart."""
    numpy = pytest.importorskip("numpy")
    site = Path(numpy.__file__).parent.parent
    root = _altered(_copy_of(site, "numpy"), "numpy")
    text = """
        import numpy, pickle
        def use():
            import numpy.linalg, numpy.random
            array = pickle.loads(pickle.dumps(numpy.arange(6.0).reshape(2, 3)))
            return float(numpy.linalg.norm(array)), type(array), int(numpy.random.default_rng(1).integers(10))
    """
    arrays = []
    try:
        for _ in range(2):
            namespace = biz({"app.py": text}, root)
            app = namespace.import_module("app")
            with entered(namespace.scope):
                norm, kind, _ = app.use()
            assert app.use()[0] == norm == pytest.approx(7.416198487)
            assert kind is not numpy.ndarray
            arrays.append(kind)
            dead = dead_references(namespace)
            namespace.drop()
            namespace.scope.close()
            del namespace, app
            gc.collect()
            assert [name for name, module in dead if module() is not None] == []
        assert arrays[0] is arrays[1]
        assert sys.modules["numpy"] is numpy
        assert str(sys.modules["numpy._core._multiarray_umath"].__file__).startswith(str(site))
        with as_base():
            assert current() is None
            assert numpy.linalg.norm(numpy.arange(3.0)) == pytest.approx(2.2360679)
    finally:
        shutil.rmtree(root)


def test_a_copy_is_made_elsewhere_where_the_directory_is_read_only(compile_native, put, biz, monkeypatch):
    compiled = compile_native(flavour="sealed", sibling="app.part")
    root = put(compiled, {"app/__init__.py": "", "app/part.py": ""}, at="app/native")
    biz({}, root).import_module("app.native")
    copyfile, tried = shutil.copyfile, []

    def refuse(source, target):
        tried.append(Path(target).parent)
        if Path(target).parent == root / "app":
            raise PermissionError(target)
        return copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", refuse)
    native = biz({}, root).import_module("app.native")
    assert native.count() == 1
    assert native.__file__ == str(root / f"app/native{SUFFIX}")
    assert len(tried) == 2
    assert not tried[1].exists()


SEEKING = {
    "fastlib/__init__.py": """
        from fastlib import native
        try:
            import option
        except ImportError:
            option = None
        def driver():
            import driver
            import driver.part as part
            from driver import part as again
            assert part is again is driver.part
            return driver
        def of_base_too():
            import based_driver
            return based_driver
        def plugins():
            from importlib.metadata import entry_points
            return [found.load() for found in entry_points(group="fastlib.plugins")]
        def tie():
            from . import tied
            return tied
    """,
    "fastlib/tied.py": """
        from fastlib.between import (
            driver,  # what the biz has
            native,
        )
    """,
    "fastlib/between.py": "import sys, driver\nfrom . import native",
    "fastlib/plain.py": "try:\n    import driver\nexcept ImportError:\n    driver = None\n",
}


def dist(name, version, files):
    """The files of a pure distribution."""
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    return files | {f"{info}/METADATA": meta, f"{info}/RECORD": "".join(f"{file},,\n" for file in files)}


def test_functions_of_a_shared_library_find_what_each_biz_has(compile_native, put, biz, base):
    """By a statement, by a call, from C and by entry point; in a thread, too."""
    base({"based_driver/__init__.py": "who = 'base'"})
    compiled = compile_native(flavour="seeking")
    apps = []
    for who in ("first", "second", "none"):
        root = put(compiled, SEEKING, at="fastlib/native", dist=("fastlib", "10.0"))
        files = {
            "driver/__init__.py": f"who = {who!r}",
            "driver/part.py": "",
            "based_driver/__init__.py": f"who = {who!r}",
            "plug-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: plug\nVersion: 1\n",
            "plug-1.dist-info/entry_points.txt": "[fastlib.plugins]\none = driver:who\n",
        }
        app = {"app.py": "import fastlib"} | (files if who != "none" else {})
        apps.append((who, biz(app, root, identity=f"{who}:1")))
    fastlib = [namespace.import_module("app").fastlib for _, namespace in apps]
    assert fastlib[0] is fastlib[1] is fastlib[2]
    seen = []

    def use(who, namespace):
        with entered(namespace.scope):
            if who == "none":
                for look in (fastlib[0].driver, lambda: fastlib[0].native.fetch("driver")):
                    with pytest.raises(ModuleNotFoundError, match="driver"):
                        look()
                assert fastlib[0].of_base_too().who == "base"
                assert fastlib[0].plugins() == []
            else:
                found = fastlib[0].driver(), fastlib[0].native.fetch("driver")
                assert {module.who for module in found} == {who}
                assert fastlib[0].of_base_too().who == who
                assert fastlib[0].plugins() == [who]
            seen.append(who)

    for _ in range(2):
        for who, namespace in apps:
            use(who, namespace)
            thread = threading.Thread(target=use, args=(who, namespace))
            thread.start()
            thread.join(20)
    assert len(seen) == 12
    dead = [reference for _, namespace in apps for reference in dead_references(namespace)]
    for _, namespace in apps:
        namespace.drop()
        namespace.scope.close()
    del app, namespace
    apps.clear()
    gc.collect()
    assert [name for name, module in dead if module() is not None] == []


def test_a_shared_library_that_finds_another_is_one_for_those_who_have_the_same(compile_native, put, biz, write):
    """It keeps what it has found when it was executed; the other one is compiled, so it is shared as well."""
    compiled = compile_native(flavour="finding")
    apps = {}
    for who, version in (("without", None), ("one", "1.0"), ("other", "2.0"), ("again", "1.0"), ("lacking", None)):
        roots = [put(compiled, SEEKING, at="fastlib/native", dist=("fastlib", "11.0"))]
        if version:
            option = {"option/__init__.py": f"from option import native\nversion = {version!r}"}
            roots.append(put(compile_native(flavour="option"), option, at="option/native", dist=("option", version)))
        text = "import fastlib" if version is None else "import option, fastlib"
        apps[who] = biz({"app.py": text}, *roots).import_module("app")
    assert apps["without"].fastlib.option is None
    assert apps["lacking"].fastlib is apps["without"].fastlib
    for who in ("one", "other", "again"):
        assert apps[who].fastlib.option is apps[who].option
        assert apps[who].fastlib.native.count() == 1
    assert apps["again"].fastlib is apps["one"].fastlib
    assert len({id(apps[who].fastlib) for who in ("without", "one", "other")}) == 3


def test_what_ties_a_shared_library_to_something_of_a_biz_is_executed_by_that_biz(compile_native, put, biz):
    compiled = compile_native(flavour="tied")
    files = {
        "app.py": """
            import fastlib.plain
            import fastlib.tied as tied
            from fastlib import between, tied as again, native
            import importlib, sys
            assert tied is again is fastlib.tied is sys.modules["fastlib.tied"]
            assert tied.native is native
            assert fastlib.plain.driver is None
            def use():
                assert importlib.import_module("fastlib.tied") is fastlib.tie() is tied is fastlib.tied
                return tied.driver.who
        """
    }
    namespaces = {}
    for who in ("first", "none", "second"):
        root = put(compiled, SEEKING, at="fastlib/native", dist=("fastlib", "12.0"))
        driver = {"driver.py": f"who = {who!r}"} if who != "none" else {}
        namespaces[who] = namespace = biz(files | driver, root, identity=f"{who}:1")
        if who == "none":
            with pytest.raises(ModuleNotFoundError, match="driver"):
                namespace.import_module("app")
        else:
            namespace.import_module("app")
    for who in ("first", "second", "first"):
        with entered(namespaces[who].scope):
            assert namespaces[who].import_module("app").use() == who
        assert namespaces[who].table.keys() >= {"fastlib.tied", "fastlib.between"}
        assert "fastlib.plain" not in namespaces[who].table
    fastlib = namespaces["first"].import_module("fastlib")
    assert fastlib is namespaces["none"].import_module("fastlib")
    dead = dead_references(namespaces["second"])
    namespaces["second"].drop()
    namespaces["second"].scope.close()
    del namespace, namespaces["second"]
    gc.collect()
    assert [name for name, module in dead if module() is not None] == []
    with pytest.raises(AttributeError, match="module 'fastlib' has no attribute 'unknown'"):
        fastlib.unknown  # noqa: B018 - what reading it raises


def test_plug_ins_are_not_looked_for_while_a_shared_library_is_executed(compile_native, put, biz):
    """What only one biz has would be everybody's."""
    text = "from importlib import metadata\nfound = sorted(each.name for each in metadata.distributions())"
    library = {"fastlib/__init__.py": text}
    found = []
    extras: list[dict[str, str]] = [{}, dist("plug", "1.0", {"plug.py": ""})]
    for extra in extras:
        root = put(compile_native(flavour="listing"), library, at="fastlib/native", dist=("fastlib", "13.0"))
        found.append(biz({"app.py": "import fastlib"} | extra, root).import_module("app").fastlib)
    assert found[0] is found[1]
    assert found[0].found == ["fastlib"]


LATE = {
    "fastlib/__init__.py": """
        from fastlib import native
        def late(name="fastlib.part"):
            return native.fetch(name)
        def given(name):
            import importlib
            return importlib.import_module(name), __import__(name, globals(), {}, ["value"]), __import__(name)
    """,
    "fastlib/part.py": "value = 'own'",
    "fastlib/other.py": "value = 'own'",
}


@pytest.fixture
def fastlib_of_base(compile_native, put):
    """A compiled distribution of the base, which is imported; a biz's own version of it may stand beside it."""
    files = {name: text.replace("own", "base") for name, text in LATE.items()}
    root = put(
        compile_native(flavour="of base", sibling="!fastlib.part"), files, at="fastlib/native", dist=("fastlib", "1.0")
    )
    sys.path.insert(0, str(root))
    yield importlib.import_module("fastlib")
    sys.path.remove(str(root))
    sys.path_importer_cache.pop(str(root), None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "fastlib"]:
        del sys.modules[name]


def test_functions_of_compiled_code_import_from_their_own_version(compile_native, put, biz, fastlib_of_base):
    """As those that Cython makes: their imports look into the interpreter's table, past every hook of ours."""
    part = importlib.import_module("fastlib.part")
    root = put(compile_native(flavour="late"), LATE, at="fastlib/native", dist=("fastlib", "2.0"))
    user = {"app.py": "import fastlib\ndef use(): return fastlib.late()\ndef call(f): return f()"}
    namespace = biz(user, root)
    app = namespace.import_module("app")
    results: list[tuple[Any, ...]] = []

    def everybody():
        results.append((app.use().value, app.fastlib.late().value, app.fastlib.native.fetch("fastlib.part").value))
        results.append((fastlib_of_base.late() is part, app.call(fastlib_of_base.late) is part))

    thread = threading.Thread(target=everybody)
    thread.start()
    thread.join(20)
    everybody()
    with entered(namespace.scope):
        results.append((app.use().value, app.fastlib.late("fastlib.other").value))
        results.append((app.call(fastlib_of_base.late) is part, fastlib_of_base.late("fastlib.other").value == "base"))
    # Without a context and with no Python code of either in between, the base is who asks.
    without = ("own", "own", "base")
    assert results == [without, (True, True), without, (True, True), ("own", "own"), (True, True)]
    assert importlib.import_module("fastlib.other").value == "base"
    assert app.fastlib.late("fastlib.other").value == "own"
    assert sys.modules["fastlib"] is fastlib_of_base
    assert fastlib_of_base.native.inner.flavour == "of base"
    assert app.fastlib.native.inner.flavour == "late"
    namespace.drop()
    assert REAL["fastlib"] is fastlib_of_base
    assert REAL["fastlib.part"] is part


def test_compiled_code_of_the_base_gets_the_bases_modules_while_it_works_for_a_biz(
    compile_native, put, biz, base, fastlib_of_base
):
    """As that of a shared pandas does, which goes with the numpy of the base; a library of neither asks for the biz."""
    part = importlib.import_module("fastlib.part")
    text = """
        import ctypes, fastlib
        by_name = ctypes.pythonapi.PyImport_ImportModule
        by_name.argtypes, by_name.restype = [ctypes.c_char_p], ctypes.py_object
        def use():
            return fastlib.native.fetch("fastlib.part"), by_name(b"fastlib.part")
    """
    for name, requires in (("based_frames", "fastlib"), ("based_pickles", "unknown")):
        library = dist(name, "1", {f"{name}.py": text, f"{name}_c{SUFFIX}": ""})  # compiled, so it is shared
        library[f"{name}-1.dist-info/METADATA"] += f"Requires-Dist: {requires}\n"
        base(library)
    root = put(compile_native(flavour="for frames"), LATE, at="fastlib/native", dist=("fastlib", "14.0"))
    namespace = biz({"app.py": "import fastlib.part, based_frames, based_pickles"}, root)
    app = namespace.import_module("app")
    with entered(namespace.scope):
        assert app.based_frames.use() == (part, part)
        assert app.based_pickles.use() == (app.fastlib.part, app.fastlib.part)
    assert app.based_frames.use() == app.based_pickles.use() == (part, part)


def test_what_compiled_code_imports_while_it_is_initialised_does_not_go_with_our_own_requirements(monkeypatch):
    """It has no frame, so whoever asks seems to be ours, and what we require may be what a biz has a version of."""
    required = sorted(base_index().relations.closure("koupleless") - {"koupleless"})
    top = next(name for name in ("click", "msgspec", "uvicorn") if name in required)
    monkeypatch.setattr(imports, "apart", {top})
    assert imports._goes_with_base(vars(importlib.import_module("uvicorn.main")), "click") is (top == "click")
    assert not imports._goes_with_base(vars(extensions), top)


def test_a_version_that_the_base_loads_second_is_kept_apart_too(compile_native, put, biz, request):
    root = put(compile_native(flavour="first"), LATE, at="fastlib/native", dist=("fastlib", "3.0"))
    app = biz({"app.py": "import fastlib"}, root).import_module("app")
    assert app.fastlib.late().value == "own"
    of_base = request.getfixturevalue("fastlib_of_base")
    assert importlib.import_module("fastlib.part").value == of_base.late().value == "base"
    assert of_base.native.sibling.value == "base"
    assert app.fastlib.late().value == "own"
    assert importlib.reload(sys.modules["fastlib.part"]).value == "base"
    replaced: Any = type(sys)("fastlib.part")
    sys.modules["fastlib.part"] = replaced
    assert of_base.late() is importlib.import_module("fastlib.part") is replaced
    del sys.modules["fastlib.part"]
    assert importlib.import_module("fastlib.part") is not replaced
    assert app.fastlib.late().value == "own"


def test_three_versions_and_a_second_user_of_one(compile_native, put, biz, fastlib_of_base):
    apps = []
    for version in ("7.0", "8.0", "7.0"):
        root = put(compile_native(flavour=f"of {version}"), LATE, at="fastlib/native", dist=("fastlib", version))
        apps.append(biz({"app.py": "import fastlib"}, root).import_module("app"))
    assert [app.fastlib.native.flavour for app in apps] == ["of 7.0", "of 8.0", "of 7.0"]
    assert apps[0].fastlib is apps[2].fastlib
    assert [app.fastlib.native.count() for app in apps] == [1, 1, 1]
    assert fastlib_of_base.native.flavour == "of base"
    assert fastlib_of_base.late().value == "base"


def test_the_first_import_may_be_of_a_part(compile_native, put, biz, fastlib_of_base):
    root = put(compile_native(flavour="part first"), LATE, at="fastlib/native", dist=("fastlib", "4.1"))
    files = {
        "app.py": "from fastlib.part import value\nfrom importlib import import_module as i\nother = i('fastlib.other')"
    }
    app = biz(files, root).import_module("app")
    assert (app.value, app.other.value) == ("own", "own")


def test_a_shared_library_imports_what_its_user_names_for_that_user(compile_native, put, biz):
    root = put(compile_native(flavour="asked"), LATE, at="fastlib/native", dist=("fastlib", "4.2"))
    for number in range(2):
        files = {"app.py": "import fastlib\ndef use(): return fastlib.given('parts.mine')"}
        files |= {"parts/__init__.py": "", "parts/mine.py": f"value = {number}"}
        namespace = biz(files, root)
        app = namespace.import_module("app")
        with entered(namespace.scope):
            module, same, top = app.use()
        assert module is same is top.mine
        assert module.value == number


def test_a_shared_library_imports_what_its_user_has_put_into_sys_modules(compile_native, put, biz):
    library = {
        "fastlib/__init__.py": """
            from fastlib import native
            def given(name):
                import importlib
                return importlib.import_module(name)
            def by_statement():
                import colorsys
                return colorsys
            """
    }
    root = put(compile_native(flavour="put"), library, at="fastlib/native", dist=("fastlib", "4.3"))
    put_in = """
        import fastlib, sys, types
        def use():
            sys.modules["nowhere.part"] = part = types.ModuleType("nowhere.part")
            assert fastlib.given("nowhere.part") is part
            shared = sys.modules.pop("colorsys")
            found = fastlib.given("colorsys")
            import colorsys
            assert fastlib.by_statement() is found is colorsys is sys.modules["colorsys"] is not shared
            sys.modules["colorsys"] = None
            for blocked in fastlib.by_statement, lambda: fastlib.given("colorsys"):
                try:
                    blocked()
                except ModuleNotFoundError:
                    continue
                return "found"
            return "blocked"
        """
    namespaces = [
        biz({"app.py": "import fastlib\ndef use(): return fastlib.by_statement(), fastlib.given('colorsys')"}, root),
        biz({"app.py": put_in}, root),
    ]
    for number, answer in (0, (colorsys, colorsys)), (1, "blocked"), (0, (colorsys, colorsys)):
        app = namespaces[number].import_module("app")
        with entered(namespaces[number].scope):
            assert app.use() == answer


def test_a_shared_library_finds_what_its_user_has_put_in_the_place_of_what_it_requires(compile_native, put, biz):
    library = {
        "fastlib/__init__.py": """
            from fastlib import native
            def used():
                try:
                    import fastlib_helper
                except ImportError:
                    return "blocked"
                return fastlib_helper.value
            """,
        "fastlib_helper.py": "value = 'required'",
        "fastlib_helper-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: fastlib-helper\nVersion: 1\n",
        "fastlib_helper-1.dist-info/RECORD": "fastlib_helper.py,,\n",
    }
    root = put(
        compile_native(flavour="in its place"),
        library,
        at="fastlib/native",
        dist=("fastlib", "4.4"),
        requires=("fastlib-helper",),
    )
    record = root / "fastlib-4.4.dist-info/RECORD"
    record.write_text("".join(f"{line}\n" for line in record.read_text().splitlines() if "helper" not in line))
    put_in = """
        import fastlib, sys, types
        def use():
            found = []
            for module in None, types.SimpleNamespace(value="other"):
                sys.modules["fastlib_helper"] = module
                found.append(fastlib.used())
                del sys.modules["fastlib_helper"]
                found.append(fastlib.used())
            return found
        """
    others = biz({"app.py": "import fastlib\ndef use(): return fastlib.used()"}, root)
    users = [biz({"app.py": put_in}, root), others, biz({"app.py": put_in}, root)]
    found = []
    for user in users:
        app = user.import_module("app")
        with entered(user.scope):
            found.append(app.use())
    assert found == [["blocked", "required", "other", "required"], "required", *found[:1]]


def test_a_library_that_fails_half_way_is_not_initialised_again(compile_native, put, biz):
    files = LATE | {
        "fastlib/__init__.py": "from fastlib import native\nimport app\napp.check()\nvalue = native.count()"
    }
    root = put(compile_native(flavour="half"), files, at="fastlib/native", dist=("fastlib", "4.3"))
    record = root / "fastlib-4.3.dist-info/RECORD"
    record.write_text(record.read_text() + "app.py,,\n")
    root.joinpath("app.py").write_text("def check(): raise RuntimeError('half way')")
    for number in range(2):
        namespace = biz({"main.py": "import fastlib"}, root, identity=f"half{number}:1")
        with pytest.raises(RuntimeError, match="half way"):
            namespace.import_module("main")
        namespace.drop()
    for _ in range(2):
        unit = shelf.borrow("fastlib", index_of([str(root)]), UnitFinder)
        vars(unit.linker.table.modules["app"])["check"] = lambda: None
        assert biz({"main.py": "import fastlib"}, root).import_module("main").fastlib.value == 1


def test_a_library_that_cannot_stand_beside_another_version_is_refused_by_name(compile_native, put, biz, monkeypatch):
    monkeypatch.setitem(extensions.ALONE, "loner", "it keeps one thing for all")
    files = {"loner/__init__.py": "from loner import native"}
    roots = {
        version: put(compile_native(flavour=f"loner {version}"), files, at="loner/native", dist=("loner", version))
        for version in ("1.0", "2.0")
    }
    indexes = {version: index_of([str(root)]) for version, root in roots.items()}
    nothing = index_of([])
    words = 'loner 2.0 cannot be loaded .*it keeps one thing for all.*has {}1.0.*isolation = "process"'
    (said,) = shelf.conflicts(indexes["2.0"], indexes["1.0"])
    assert re.search(words.format(""), said)
    assert shelf.conflicts(indexes["2.0"], indexes["2.0"]) == ()
    assert shelf.conflicts(indexes["2.0"], nothing) == ()
    second = biz({"app.py": "import loner"}, roots["2.0"])  # is installed, and imports only after the other one has
    biz({"app.py": "import loner"}, roots["1.0"]).import_module("app")
    assert shelf.conflicts(indexes["1.0"], nothing) == ()
    (said,) = shelf.conflicts(indexes["2.0"], nothing)
    assert re.search(words.format("loaded "), said)
    with pytest.raises(ModuleRefused, match=words.format("loaded ")):
        second.import_module("app")


def test_one_that_cannot_live_beside_another_version_is_shared_whatever_its_users_have_beside_it(
    biz, put, compile_native, monkeypatch
):
    """What it names in an extra, and one of two modules brings, makes no other version of it."""
    monkeypatch.setitem(extensions.ALONE, "single", "it keeps one thing for all")
    files = {"single/__init__.py": "from single import native"}
    told = {
        "at": "single/native",
        "dist": ("single", "1.0"),
        "requires": ['soup; extra == "soup"\nProvides-Extra: soup'],
    }
    plain, more = (put(compile_native(flavour="single 1.0"), files, **told) for _ in range(2))
    for name, text in wheel("soup", "1", {"soup.py": ""}).items():
        (more / name).parent.mkdir(exist_ok=True)
        (more / name).write_text(text)
    first = biz({"app.py": "import single"}, plain).import_module("app")
    assert shelf.conflicts(index_of([str(more)]), index_of([])) == ()
    second = biz({"app.py": "import single"}, more).import_module("app")
    assert second.single is first.single


def test_a_loader_may_answer_with_a_module_of_the_standard_library(biz):
    """As that of six.moves does: the module stays the process's, and does not come to hold the biz."""
    import http.client
    import itertools

    text = """
        import sys, importlib.util
        class Moves:
            def find_spec(self, name, path, target=None):
                if name.startswith("moved."):
                    return importlib.util.spec_from_loader(name, self)
            def create_module(self, spec):
                return importlib.import_module({"client": "http.client", "tools": "itertools"}[spec.name[6:]])
            def exec_module(self, module): pass
        import moved
        sys.meta_path.append(Moves())
        import importlib
        from moved import client, tools
    """
    specs = http.client.__spec__, itertools.__spec__
    try:
        app = biz({"app.py": text, "moved/__init__.py": ""}).import_module("app")
        assert app.client is http.client
        assert app.tools is itertools
        assert vars(http.client)["__builtins__"] is vars(builtins)
        assert "__builtins__" not in vars(itertools)
        assert (http.client.__spec__, itertools.__spec__) == specs
    finally:
        http.client.__spec__, itertools.__spec__ = specs

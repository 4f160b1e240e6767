"""Modules that patch what they share with others: each has its own, nobody else sees it, nothing of it stays."""

from __future__ import annotations

import importlib
import itertools
import linecache
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import starlette.responses

from koupleless.artifact.build import Options, build_project
from koupleless.biz import BizId
from koupleless.changes.changes import SharedStateWarning, changes
from koupleless.container.terms import Strategy
from koupleless.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::koupleless.changes.changes.SharedStateWarning")

PATCH = """
import starlette.responses
from starlette.applications import Starlette
from starlette.routing import Route

render = starlette.responses.JSONResponse.render
starlette.responses.JSONResponse.render = lambda self, content: b'"NAME"' + render(self, content)
starlette.responses.HTMLResponse.media_type = "text/NAME"


def page(request):
    response = starlette.responses.JSONResponse({"media": starlette.responses.HTMLResponse.media_type})
    return response


app = Starlette(routes=[Route("/", page)])
"""
PLAIN = "\n".join(line for line in PATCH.splitlines() if not line.startswith(("render", "starlette.")))
PLAIN_PAGE = '{"media":"text/html"}'


@pytest.fixture
def install(world: Any, tmp_path: Path) -> Callable[..., Any]:
    numbers = itertools.count(1)

    def install(name: str, source: str, *, strategy: Strategy = Strategy.REPLACE) -> Any:
        number = next(numbers)
        project = tmp_path / f"{name}-{number}"
        project.mkdir()
        (project / f"{name}.py").write_text(source)
        head = f"[project]\nname = {name!r}\nversion = '{number}.0'\n[tool.koupleless.module]\nentry = '{name}:app'\n"
        (project / "pyproject.toml").write_text(head)
        built = build_project(project, Options(out=tmp_path)).path
        return world.container.install(world.container.prepare(str(built)), strategy=strategy)

    return install


def in_the_base() -> str:
    body = starlette.responses.JSONResponse({"media": starlette.responses.HTMLResponse.media_type}).body
    return bytes(body).decode()


def standing() -> tuple[Any, ...]:
    return starlette.responses.JSONResponse.render, vars(starlette.responses.HTMLResponse)["media_type"]


def test_each_module_has_its_own_patch_through_new_versions_and_leaving(world: Any, install: Any) -> None:
    before = standing()
    installed = install("one", PATCH.replace("NAME", "one"))
    assert [words.split("`")[1] for words in installed.warnings] == ["starlette.responses.HTMLResponse.media_type"]
    install("two", PATCH.replace("NAME", "two"))
    assert install("plain", PLAIN).warnings == ()
    for version in ("one", "new", "newer"):
        install("one", PATCH.replace("NAME", version))
        assert world.get("/one/").text == f'"{version}"{{"media":"text/{version}"}}'
        assert world.get("/two/").text == '"two"{"media":"text/two"}'
        assert world.get("/plain/").text == PLAIN_PAGE
        assert in_the_base() == PLAIN_PAGE
    reports = [world.container.uninstall(info.id) for info in world.container.bizs()]
    assert [(report.clean, report.changed) for report in reports] == [(True, ())] * 3
    assert [report.undone.get("patch") for report in reports] == [1, 1, None] or reports[0].undone["patch"] == 1
    assert standing() == before
    assert changes._places == {}
    assert changes._baseline is None


def test_a_start_that_fails_leaves_nothing_changed(world: Any, install: Any) -> None:
    before = standing()
    with pytest.raises(StartFailed, match="no"):
        install("broken", PATCH.replace("NAME", "broken") + "raise RuntimeError('no')\n")
    assert standing() == before
    assert world.get("/broken/").status_code == 404


def test_what_a_first_request_patches_is_found_when_it_has_ended(world: Any, install: Any) -> None:
    before = standing()
    late = PATCH.replace("NAME", "late").replace(
        "starlette.responses.JSONResponse.render = ", "def patch(): starlette.responses.JSONResponse.render = "
    )
    install("late", late.replace("    response =", "    patch()\n    response ="))
    assert world.get("/late/").status_code == 200
    for thread in threading.enumerate():
        if thread.name.startswith("compare late"):
            thread.join()
    assert in_the_base() == PLAIN_PAGE
    assert world.get("/late/").text.startswith('"late"')
    assert world.container.uninstall(BizId.parse("late:1.0")).clean
    assert standing() == before


def test_nothing_is_compared_for_a_module_that_changes_nothing(
    world: Any, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(*_: object) -> None:
        raise AssertionError("compared")

    monkeypatch.setattr("koupleless.changes.baseline.Baseline.extend", compare)
    world.install("hello-1.0")
    install("plain", PLAIN)
    assert world.get("/plain/").text == PLAIN_PAGE
    report = world.container.uninstall(BizId.parse("hello:1.0"))
    assert (report.clean, report.is_compared, report.changed) == (True, True, ())


def test_a_library_that_comes_with_the_module_that_patches_it(
    world: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fresh_library.py").write_text("def greet():\n    return 'hello'\n")
    monkeypatch.syspath_prepend(tmp_path)
    source = "import fresh_library\nfresh_library.greet = lambda: 'patched'\ndef app(): pass\n"
    install("patcher", source)
    library = sys.modules["fresh_library"]
    assert library.greet() == "hello"
    scope = world.container.scope_of(BizId.parse("patcher:1.0"))
    assert scope is not None
    world.container.uninstall(BizId.parse("patcher:1.0"))
    assert library.greet.__code__.co_filename.endswith("fresh_library.py")
    del sys.modules["fresh_library"]


ANSWER = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(SEEN).encode()})
"""


def test_a_library_that_comes_later_and_imports_a_patched_one(
    world: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "early_library.py").write_text("def greet():\n    return 'hello'\n")
    (tmp_path / "later_library.py").write_text("import early_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    patches = "early_library.greet = lambda: 'patched'\nearly_library.module = sys.modules[__name__]\n"
    seen = ANSWER.replace("SEEN", "(early_library.greet(), early_library.module.__name__)")
    installed = install("patcher", f"import sys\nimport early_library\n{patches}import later_library\n{seen}")
    library = sys.modules["early_library"]
    assert (library.greet(), hasattr(library, "module")) == ("hello", False)
    assert world.get("/patcher/").text == "('patched', 'patcher')"
    report = world.container.uninstall(installed.info.id)
    assert report.clean
    assert report.undone["patch"] == 2
    assert (library.greet.__code__.co_filename, hasattr(library, "module")) == (library.__file__, False)
    del sys.modules["early_library"], sys.modules["later_library"]


def test_a_library_that_comes_later_is_made_of_nothing_that_a_module_has_put_into_another(
    world: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = "class Thing: pass\ndef greet():\n    return 'hello'\ndef wave():\n    return 'hi'\n"
    later = "from early_library import Thing, added as ADDED, greet, wave\nclass Child(Thing): pass\n"
    (tmp_path / "early_library.py").write_text(early)
    (tmp_path / "later_library.py").write_text(later)
    monkeypatch.syspath_prepend(tmp_path)
    source = """
import early_library
class Thing:
    def do(self): pass
def greet(): return "patched"
wave = early_library.wave
early_library.Thing, early_library.greet, early_library.wave, early_library.added = Thing, greet, greet, 1
import later_library
early_library.wave = wave
"""
    seen = ANSWER.replace("SEEN", "(later_library.greet(), early_library.wave(), early_library.Thing is Thing)")
    installed = install("patcher", source + seen)
    early_library, later_library = sys.modules["early_library"], sys.modules["later_library"]
    assert (later_library.Child.__bases__, later_library.ADDED) == ((early_library.Thing,), 1)
    assert (later_library.greet(), later_library.wave(), early_library.wave()) == ("hello", "hi", "hi")
    assert world.get("/patcher/").text == "('patched', 'hi', True)"
    assert world.container.uninstall(installed.info.id).clean
    for name in ("greet", "wave"):
        assert getattr(early_library, name).__code__.co_filename == early_library.__file__
    del sys.modules["early_library"], sys.modules["later_library"]


@pytest.mark.parametrize("comes", ["", "import shared_package.sub\n"])
def test_a_submodule_that_a_module_replaces_is_there_for_all_others(
    world: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    (tmp_path / "shared_package").mkdir()
    (tmp_path / "shared_package" / "__init__.py").touch()
    (tmp_path / "shared_package" / "sub.py").touch()
    (tmp_path / "other_library.py").write_text("import shared_package.sub\n")
    monkeypatch.syspath_prepend(tmp_path)
    replaces = "import shared_package\nshared_package.sub = sys.modules[__name__]\n"
    seen = ANSWER.replace("SEEN", "shared_package.sub.__name__")
    installed = install("patcher", f"import sys\n{comes}{replaces}{seen}")
    assert world.get("/patcher/").text == "'patcher'"
    other = importlib.import_module("other_library")
    sub = sys.modules["shared_package.sub"]
    assert sys.modules["shared_package"].sub is other.shared_package.sub is sub
    assert world.get("/patcher/").text == "'patcher'"
    assert world.container.uninstall(installed.info.id).clean
    assert sys.modules["shared_package"].sub is sub
    for name in ("shared_package.sub", "shared_package", "other_library"):
        del sys.modules[name]


def test_a_module_that_the_base_has_under_another_name_alone(
    world: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As eventlet keeps what it has patched."""
    (tmp_path / "plain_library.py").write_text("def greet():\n    return 'hello'\n")
    monkeypatch.syspath_prepend(tmp_path)
    library = importlib.import_module("plain_library")
    monkeypatch.setitem(sys.modules, "patched_library", library)
    del sys.modules["plain_library"]
    seen = ANSWER.replace("SEEN", "patched_library.greet()")
    installed = install("patcher", f"import patched_library\npatched_library.greet = lambda: 'patched'\n{seen}")
    assert world.get("/patcher/").text == "'patched'"
    assert library.greet() == "hello"
    report = world.container.uninstall(installed.info.id)
    assert (report.clean, report.undone["patch"]) == (True, 1)
    assert library.greet.__code__.co_filename == library.__file__


def test_a_change_that_stays_is_named_and_the_report_does_not_say_that_nothing_is_left(
    world: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "listing_library.py").write_text("NAMES = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    source = "import listing_library\nlisting_library.NAMES.append('mine')\ndef app(): pass\n"
    with pytest.warns(SharedStateWarning, match=r"changed `listing_library.NAMES` \(1 more\)"):
        (told,) = install("adder", source).warnings
    assert 'own = ["listing_library"]' in told
    report = world.container.uninstall(BizId.parse("adder:1.0"))
    assert (report.clean, report.changed) == (True, ("listing_library.NAMES",))
    assert report.summary() == "still changed for every module: listing_library.NAMES"
    del sys.modules["listing_library"]


@pytest.mark.filterwarnings("ignore::koupleless.changes.changes.SharedStateWarning")
def test_a_cache_of_pythons_own_is_not_taken_for_one_of_a_library_that_has_its_name(
    world: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "caching_library.py").write_text("class Client:\n    _cache = {}\n")
    monkeypatch.syspath_prepend(tmp_path)
    source = "import re\nfrom caching_library import Client\nClient._cache['a'] = 1\ndef app(): pass\n"
    compiling = "re.purge()\n" + "".join(f"re.compile('caching {number}')\n" for number in range(9))
    told = install("caching", source + compiling).warnings
    assert [words.split("`")[1] for words in told] == ["caching_library.Client._cache"]
    report = world.container.uninstall(BizId.parse("caching:1.0"))
    assert report.changed == ("caching_library.Client._cache",)
    del sys.modules["caching_library"]


GENERATING_LIBRARY = """
import linecache

def make(name):
    source = f"def made():\\n    return {name!r}\\n"
    file = f"<generated for {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    table = {}
    exec(compile(source, file, "exec"), table)
    return table["made"]
"""
GENERATED = """
import collections, dataclasses
import attr, generating_library, jinja2
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

class Store:
    cache = {}

Store.cache["a"] = 1
Named = collections.namedtuple("Named", "a b")

@attr.define
class Point:
    x: int = 0

@dataclasses.dataclass
class Data:
    y: int = 0

early = generating_library.make("NAME, early")
template = jinja2.Environment().from_string("{{ x }}")

def page(request):
    @attr.define
    class Late:
        x: int = 0
    late = generating_library.make("NAME, late")
    return PlainTextResponse(template.render(x=f"{early()} {late()} {Late().x} {Named(1, 2).a} {Data().y}"))

app = Starlette(routes=[Route("/", page)])
"""


def test_lines_of_what_shared_libraries_generate_are_no_change_and_leave_with_their_modules(
    world: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "generating_library.py").write_text(GENERATING_LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("attr")

    def generated() -> list[str]:
        return [name for name in linecache.cache if name.startswith("<") and name not in before]

    before = set(linecache.cache)
    for name in ("one", "two"):
        assert install(name, GENERATED.replace("NAME", name)).warnings == ()
    for name in ("one", "two") * 2:
        assert world.get(f"/{name}/").text == f"{name}, early {name}, late 0 1 0"
    first, second = world.container.bizs()
    assert world.container.uninstall(first.id).summary() == "clean"
    left = "two" if first.id.name == "one" else "one"
    assert {name for name in generated() if "early" in name or "late" in name} == {
        f"<generated for {left}, early>",
        f"<generated for {left}, late>",
    }
    report = world.container.uninstall(second.id)
    assert (report.summary(), report.changed) == ("clean", ())
    assert generated() == []
    del sys.modules["generating_library"]


def test_a_hundred_new_versions_leave_no_trace(world: Any, install: Any) -> None:
    before = standing()
    install("one", PATCH.replace("NAME", "zero"))
    for number in range(100):
        (report,) = install("one", PATCH.replace("NAME", f"v{number}")).replaced
        assert report.clean, report.summary()
    assert world.get("/one/").text == '"v99"{"media":"text/v99"}'
    assert sum(len(place.changes) for places in changes._places.values() for place in places) == 2
    world.container.uninstall(world.container.bizs()[0].id)
    assert standing() == before

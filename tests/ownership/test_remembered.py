"""Caches of the standard library in which shared code enters something on a biz's behalf."""

from __future__ import annotations

import copy
import gettext
import inspect
import linecache
import pickle
import sys
import threading
from typing import TYPE_CHECKING, Any

import attr
import pytest

from koupleless.context import entered
from koupleless.recorders.door import RECORDING
from koupleless.recorders.registries.remembered import ENTERED, Cache

if TYPE_CHECKING:
    import types
    from collections.abc import Callable
    from pathlib import Path

    from tests.ownership.conftest import MakeBiz, MakeModule, TinyBiz

GENERATOR = """
import linecache

def enter(name, source):
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)

def make(name, source):
    known = linecache.cache.setdefault(name, (len(source), None, source.splitlines(True), name))
    table = {}
    exec(compile(source, name, "exec"), table)
    return table["made"], known
"""
SOURCE = "def made():\n    return 1 / 0\n"


@pytest.fixture
def generator(base_module: MakeModule) -> types.ModuleType:
    return base_module("generator", GENERATOR)


@pytest.fixture(autouse=True)
def before() -> set[str]:
    return set(linecache.cache)


def entries(before: set[str]) -> set[str]:
    """What is there that was not there before, but for files: tests read some themselves."""
    return {name for name in set(linecache.cache) - before if name.startswith("<")}


def test_lines_that_shared_code_generates_for_a_biz_leave_with_it(
    biz: TinyBiz, generator: Any, before: set[str]
) -> None:
    biz.run("made, _ = generator.make('<made 1>', SOURCE)\n", generator=generator, SOURCE=SOURCE)
    generator.make("<made by the base>", SOURCE)
    assert linecache.getline("<made 1>", 2) == "    return 1 / 0\n"
    report = biz.leave()
    assert report.clean, report.summary()
    assert report.undone == {}
    assert entries(before) == {"<made by the base>"}
    del linecache.cache["<made by the base>"]


def test_those_of_a_late_request_leave_too(biz: TinyBiz, generator: Any, before: set[str]) -> None:
    module = biz.run("def request(): generator.enter('<late>', SOURCE)\n", generator=generator, SOURCE=SOURCE)
    biz.undo()

    def late(request: Callable[[], None]) -> None:
        with entered(biz.scope):
            request()

    thread = threading.Thread(target=late, args=(module.request,))
    thread.start()
    thread.join()
    assert entries(before) == {"<late>"}
    del module
    assert biz.leave().clean
    assert entries(before) == set()


def test_classes_of_attrs(make_biz: MakeBiz, before: set[str]) -> None:
    source = "import attr\n@attr.define\nclass Point:\n    x: int = 0\n    y: int = 0\nassert Point(1) == Point(1)"
    bizs = [make_biz("one"), make_biz("two")]
    for biz in bizs:
        biz.run(source, name="points")
    assert any("points.Point" in name for name in entries(before))
    for biz in bizs:
        assert any("points.Point" in name for name in entries(before)), "which both have asked for"
        assert biz.leave().clean
    assert entries(before) == set()
    assert attr.make_class("Of", ["x"])(1).x == 1


@pytest.mark.parametrize("first", ["base", "biz"])
def test_an_entry_that_the_base_asked_for_too_is_the_base_s(
    biz: TinyBiz, generator: Any, before: set[str], first: str
) -> None:
    if first == "base":
        generator.make("<both>", SOURCE)
    biz.run("generator.make('<both>', SOURCE)", generator=generator, SOURCE=SOURCE)
    if first == "biz":
        generator.make("<both>", SOURCE)
    biz.leave()
    assert entries(before) == {"<both>"}
    del linecache.cache["<both>"]


def test_what_another_one_has_entered_in_its_place_is_not_taken_out(
    make_biz: MakeBiz, generator: Any, before: set[str]
) -> None:
    one, two = make_biz("one"), make_biz("two")
    for biz, source in ((one, SOURCE), (two, SOURCE + "# two\n")):
        biz.run("generator.enter('<same name>', text)", generator=generator, text=source)
    one.leave()
    assert linecache.getline("<same name>", 3) == "# two\n"
    generator.enter("<same name>", "# base\n")
    two.leave()
    assert linecache.getline("<same name>", 1) == "# base\n"
    del linecache.cache["<same name>"]


def test_what_another_one_had_entered_before_is_there_again(
    make_biz: MakeBiz, generator: Any, before: set[str]
) -> None:
    one, two = make_biz("one"), make_biz("two")
    for biz, text in ((one, "# one\n"), (two, "# two\n")):
        biz.run("generator.enter('<same name>', text)", generator=generator, text=text)
    two.leave()
    assert linecache.getline("<same name>", 1) == "# one\n"
    one.leave()
    assert entries(before) == set()


def test_what_the_base_had_entered_before_is_there_again(biz: TinyBiz, generator: Any, before: set[str]) -> None:
    generator.enter("<same name>", "# base\n")
    for text in ("# first\n", "# second\n"):
        biz.run("generator.enter('<same name>', text)", generator=generator, text=text)
    assert linecache.getline("<same name>", 1) == "# second\n"
    biz.leave()
    assert linecache.getline("<same name>", 1) == "# base\n"
    del linecache.cache["<same name>"]
    assert entries(before) == set()


@pytest.mark.parametrize(
    "remove",
    [
        "del linecache.cache['<gone>']",
        "linecache.cache.pop('<gone>')",
        "linecache.cache.popitem()",
        "linecache.clearcache()",
    ],
)
@pytest.mark.parametrize("is_by_base", [True, False])
def test_what_was_removed_is_kept_nowhere(biz: TinyBiz, generator: Any, remove: str, *, is_by_base: bool) -> None:
    module = biz.run("generator.enter('<gone>', SOURCE)\nimport linecache\n", generator=generator, SOURCE=SOURCE)
    known = list(ENTERED.of(biz.scope).values())
    assert known == [{"<gone>": linecache.cache["<gone>"]}]
    if is_by_base:
        exec(remove, {"linecache": linecache})
    else:
        del module
        biz.run(f"import linecache\n{remove}")
    assert known == [{}]
    generator.enter("<gone>", SOURCE)
    biz.leave()
    del linecache.cache["<gone>"]


def test_many_threads_of_two_bizs_and_the_base_lose_nothing(
    make_biz: MakeBiz, generator: Any, before: set[str]
) -> None:
    bizs = [make_biz(name) for name in ("one", "two")]
    source = "def work(names):\n    for name in names:\n        generator.make(name, SOURCE)\n"
    works = [biz.run(source, generator=generator, SOURCE=SOURCE).work for biz in bizs]

    def run(number: int) -> None:
        scope = None if number == 2 else bizs[number].scope
        mine, shared = [f"<{number} {each}>" for each in range(300)], [f"<any {each}>" for each in range(300)]
        with entered(scope):
            if scope is None:
                for name in mine:
                    generator.make(name, SOURCE)
            else:
                works[number]([*mine, *shared])

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1, 2) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    works.clear()
    assert bizs[0].leave().clean
    assert {name.split()[0] for name in entries(before)} == {"<1", "<2", "<any"}
    assert bizs[1].leave().clean
    assert entries(before) == {f"<2 {each}>" for each in range(300)}
    for name in entries(before):
        del linecache.cache[name]


def test_what_inspect_remembers_of_the_places_of_modules(biz: TinyBiz, tmp_path: Path) -> None:
    file = tmp_path / "placed.py"
    file.write_text("def f(): pass\n")
    biz.run(
        """
        import inspect, sys, types
        placed = sys.modules["placed"] = types.ModuleType("placed")
        placed.__file__ = file
        exec(compile("def f(): pass", file, "exec"), vars(placed))
        assert inspect.getmodule(placed.f.__code__) is placed
        del sys.modules["placed"]
        """,
        file=str(file),
    )
    assert inspect.modulesbyfile[str(file)] == "placed"
    assert biz.leave().clean
    assert str(file) not in inspect.modulesbyfile
    assert "placed" not in inspect._filesbymodname  # type: ignore[attr-defined]


def test_catalogues_of_gettext_by_a_class_of_the_biz(biz: TinyBiz, tmp_path: Path) -> None:
    folder = tmp_path / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "tiny.mo").write_bytes(b"\xde\x12\x04\x95" + b"\0" * 24)
    biz.run(
        """
        import gettext
        class Mine(gettext.GNUTranslations):
            def reach(self): return K
        gettext.translation("tiny", folder, ["de"], class_=Mine)
        """,
        folder=str(tmp_path),
    )
    report = biz.leave()
    assert report.clean, report.summary()
    assert not [key for key in gettext._translations if str(tmp_path) in key[1]]  # type: ignore[attr-defined]


def test_the_dictionary_that_stood_there_is_back_with_what_the_base_has_entered(generator: Any) -> None:
    ours = linecache.cache
    assert type(ours) is Cache
    generator.enter("<kept>", SOURCE)
    RECORDING.release()
    try:
        assert type(linecache.cache) is dict
        known: Any = linecache.cache.pop("<kept>")
        assert known[2] == SOURCE.splitlines(True)
    finally:
        RECORDING.acquire()
    assert sys.modules["linecache"].cache is not ours


def test_it_is_as_any_other_dictionary() -> None:
    cache = Cache({"a": 1})
    cache.update({"b": 2}, c=3)
    cache |= {"d": 4}
    cache["f"] = cache["g"] = 6
    del cache["f"]
    with pytest.raises(KeyError):
        del cache["f"]
    assert (cache.pop("g"), cache.pop("g", 7)) == (6, 7)
    assert cache == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert type(cache) is Cache
    assert (cache.setdefault("a"), cache.setdefault("e")) == (1, None)
    for made in (cache.copy(), copy.copy(cache), copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert (type(made), made) == (dict, cache)

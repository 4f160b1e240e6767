"""What authors of libraries get: a module is installed, used and removed, and the test fails if it is not gone."""

from __future__ import annotations

import builtins
import importlib
import queue
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import pytest

from koupleless.errors import StartFailed
from koupleless.testing import assert_unloads, loaded

BIZS = Path(__file__).parent / "bizs"


@pytest.fixture
def library(monkeypatch):
    """A library of the base that keeps what it is given, until it is told to forget."""
    module = types.ModuleType("keeping_library")
    kept: list[object] = []
    vars(module).update(kept=kept, keep=kept.append, forget=kept.clear, gate=threading.Event())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


KEEPING = """
    import keeping_library

    def thing():
        return thing

    def use():
        keeping_library.keep(thing)
"""


def test_a_module_that_leaves_nothing_passes():
    assert_unloads("import json\n\ndef main():\n    json.dumps({})\n")


def test_a_module_that_the_library_keeps_fails_with_the_holder_in_words(library):
    with pytest.raises(AssertionError) as caught:
        assert_unloads(KEEPING, drive=lambda module: module.call("use"))

    said = str(caught.value)
    assert said.startswith("sample:1.0.0 left something behind\n")
    assert "still alive: sample" in said
    assert "held by global keeping_library.kept in the base -> a list -> function sample.thing" in said


def test_a_library_that_forgets_in_time_passes(library):
    def drive(module):
        module.call("use")
        library.forget()

    assert_unloads(KEEPING, drive=drive)


def test_what_was_not_undone_fails_too(library, monkeypatch):
    source = """
        import threading
        import keeping_library

        def main():
            threading.Thread(target=lambda: [keeping_library.line.get()], name="waiting").start()
    """
    library.line = queue.SimpleQueue()  # a wait in it cannot be interrupted
    monkeypatch.setattr("koupleless.testing._LEAVE_S", 0.2)

    with pytest.raises(AssertionError, match=r"not undone: .*waiting"):
        assert_unloads(source)

    library.line.put("an end")
    for thread in threading.enumerate():
        if thread.name == "waiting":
            thread.join(30)


def test_functions_are_called_as_the_module_and_coroutines_awaited_on_its_loop():
    source = """
        import asyncio
        import koupleless

        def who(word, *, more):
            return f"{koupleless.current_biz()} {word} {more}"

        async def later():
            await asyncio.sleep(0)
            return str(koupleless.current_biz())
    """
    with loaded(source, name="asked") as module:
        assert str(module.biz) == "asked:1.0.0"
        assert module.call("who", "a", more="b") == "asked:1.0.0 a b"
        assert module.call("later") == "asked:1.0.0"
        assert module.call("json:dumps", [1]) == "[1]"


def test_an_application_is_asked_below_its_own_path():
    with loaded(BIZS / "hello-1.0") as module:
        assert module.get("/?name=you").text.startswith('{"hello":"you"')
        made = module.request("POST", "/items", body=b'{"name": "x"}', headers=[("Content-Type", "application/json")])
        assert (made.status, made.text) == (200, '{"name":"x","price":1.0}')
        assert ("content-type", "application/json") in made.headers
        assert module.get("/nowhere").status == 404


def test_an_application_that_raises_answers_500_and_holds_nothing():
    source = """
        async def app(scope, receive, send):
            if scope["type"] == "http":
                raise LookupError("no such thing")
            raise RuntimeError
    """
    with loaded(source) as module:
        reply = module.get()
        assert reply.status == 500
        assert reply.text.endswith("LookupError: no such thing\n")


def test_a_project_an_artefact_and_a_file_are_taken_by_their_path(tmp_path, artefact):
    file = tmp_path / "single.py"
    file.write_text("x = 1\n")

    assert_unloads(BIZS / "plain-1.0")
    assert_unloads(artefact("plain-1.0"))
    assert_unloads(file)


def test_a_module_that_does_not_start_is_told_with_its_own_words():
    with pytest.raises(StartFailed, match="no database"):
        assert_unloads("raise OSError('no database')")


def test_what_the_body_raises_is_what_the_test_fails_with(library):
    def drive(module):
        module.call("use")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        assert_unloads(KEEPING, drive=drive)


def test_nothing_of_the_process_is_changed_afterwards():
    before = (builtins.__import__, type(sys.modules), threading.Thread.start)

    assert_unloads("x = 1")

    assert (builtins.__import__, type(sys.modules), threading.Thread.start) == before


def test_it_needs_nothing_but_the_package(tmp_path):
    code = """
        from koupleless.testing import assert_unloads
        assert_unloads("import logging\\nlogging.getLogger('x').addHandler(logging.NullHandler())\\n")
        print("gone")
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.returncode) == ("gone\n", 0), done.stderr


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """An installed distribution of one pure-Python module that keeps what it is given."""
    place = tmp_path / "site"
    info = place / "pure_keeper-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pure-keeper\nVersion: 1.0\n")
    (info / "RECORD").write_text("pure_keeper.py,,\n")
    (place / "pure_keeper.py").write_text("kept = []\n")
    monkeypatch.syspath_prepend(str(place))
    yield "pure-keeper"
    sys.modules.pop("pure_keeper", None)


USING = "import pure_keeper\n\ndef thing(): ...\n\npure_keeper.kept.append(thing)\n"


def test_a_library_is_a_copy_unless_the_test_says_that_it_is_shared(distribution):
    assert_unloads(USING)
    assert "pure_keeper" not in sys.modules
    with pytest.raises(AssertionError, match=r"held by global pure_keeper\.kept in the base"):
        assert_unloads(USING, shared=["Pure_Keeper"])
    sys.modules["pure_keeper"].kept.clear()


def test_a_library_is_a_copy_where_the_test_says_so(distribution):
    with loaded("import starlette\ndef same(other): return starlette is other\n", own=["starlette"]) as module:
        assert module.call("same", importlib.import_module("starlette")) is False
    with loaded("import starlette\ndef same(other): return starlette is other\n") as module:
        assert module.call("same", importlib.import_module("starlette")) is True


def test_what_cannot_be_held_so_is_refused():
    with pytest.raises(ValueError, match="the base does not have absent-library"):
        assert_unloads("", own=["absent-library"])
    with pytest.raises(ValueError, match="was not tested as a copy"):
        assert_unloads("", own=["pydantic-core"])

"""What authors of libraries get: a module is installed, used and removed, and the test fails if it is not gone."""

from __future__ import annotations

import builtins
import importlib
import queue
import shutil
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import pytest

from koupleless import service
from koupleless.errors import StartFailed
from koupleless.testing import assert_unloads, loaded, local_base

EXAMPLES = Path(__file__).parent.parent / "examples"
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
        assert module.get("/?name=you").json()["hello"] == "you"
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
        with pytest.raises(ValueError, match=r"status 500: b'Traceback"):
            reply.json()


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


class TestLocalBase:
    def test_several_modules_use_each_other_and_the_base(self, tmp_path):
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"base"})

        prices = "from koupleless import service\ndef main():\n    service.offer({'tea': 4}, name='prices')\n"
        orders = """
            import os
            from koupleless import data_dir, service
            prices = service.use("prices", biz="prices")
            def app(environ, start_response):
                (data_dir() / "seen").write_text("x")
                start_response("200 OK", [("X-Color", os.environ["COLOR"])])
                return [f"{prices['tea'] * 2} {environ['PATH_INFO']} {environ['HTTP_HOST']}".encode()]
        """
        with local_base(tmp_path / "a place", app=app) as base:
            base.install(prices, name="prices")
            module = base.install(orders, name="orders", env={"COLOR": "red"})
            assert module.get("/x").text == "8 /x base"
            with base.client() as http:
                assert http.get("/").text == "base"
                answer = http.get("/orders/a%20b?c=d")
                assert (answer.text, answer.headers["x-color"]) == ("8 /a b base", "red")
            assert service.use("prices", biz="prices")["tea"] == 4, "code of the test is code of the base"
            assert (tmp_path / "a place" / "data" / "orders" / "seen").exists()
            replaced = base.install(orders.replace("* 2", "* 3"), name="orders", env={"COLOR": "blue"})
            assert replaced.get("/").text.startswith("12 ")
            base.uninstall(replaced)
            assert base.get("/orders/").text == "base"

    def test_configuration_is_found_below_its_directory(self, tmp_path):
        (tmp_path / "config" / "sample").mkdir(parents=True)
        (tmp_path / "config" / "sample" / ".env").write_text("COLOR=green\n")
        with local_base(tmp_path) as base:
            module = base.install("import os\ndef color():\n    return os.environ['COLOR']\n")
            assert module.call("color") == "green"

    def test_all_modules_that_stay_are_told(self, library):
        with pytest.raises(AssertionError) as caught, local_base() as base:  # noqa: PT012 - the end raises
            for name in ("one", "two"):
                base.install(KEEPING, name=name).call("use")
        assert "one:1.0.0 left something behind" in str(caught.value)
        assert "two:1.0.0 left something behind" in str(caught.value)

    def test_a_replaced_module_that_stays_is_told_at_once(self, library):
        with local_base() as base:
            base.install(KEEPING).call("use")
            with pytest.raises(AssertionError, match="left something behind"):
                base.install(KEEPING + "\n    AGAIN = True\n")

    def test_an_application_that_is_none_is_refused(self):
        with pytest.raises(TypeError, match="neither an ASGI nor a WSGI application"), local_base(app=3):
            pass


class TestPlugin:
    """In a pytest of its own, which finds the plugin as any other does."""

    def run(self, directory, text, *options, stdin=""):
        (directory / "test_it.py").write_text(textwrap.dedent(text))
        command = [sys.executable, "-P", "-m", "pytest", "-p", "no:randomly", "-p", "no:dash", "-q", *options]
        return subprocess.run(
            command, cwd=directory, input=stdin, capture_output=True, text=True, check=False, timeout=100
        )

    def test_a_base_for_each_test_and_nothing_left_behind(self, tmp_path):
        done = self.run(
            tmp_path,
            """
            import sys, types, pytest

            SOURCE = "import os\\ndef app(environ, start):\\n    start('200 OK', [])\\n    return [b'hello']\\n"
            KEEPING = "import keeping\\ndef thing(): ...\\ndef use():\\n    keeping.kept.append(thing)\\n"
            sys.modules["keeping"] = types.ModuleType("keeping")
            sys.modules["keeping"].kept = []

            @pytest.fixture
            def koupleless_app():
                async def app(scope, receive, send):
                    await send({"type": "http.response.start", "status": 204, "headers": []})
                    await send({"type": "http.response.body"})
                return app

            def test_fine(koupleless_base, tmp_path):
                assert koupleless_base.install(SOURCE).get().text == "hello"
                assert koupleless_base.get("/").status == 204
                assert koupleless_base.directory.is_relative_to(tmp_path)

            def test_failed(koupleless_base):
                module = koupleless_base.install(SOURCE)
                assert module.get().text == "bye"

            def test_left(koupleless_base):
                koupleless_base.install(KEEPING, name="keeper").call("use")
            """,
        )
        assert "2 passed, 1 failed" not in done.stdout
        assert "1 failed, 2 passed, 1 error" in done.stdout, done.stdout + done.stderr
        assert "assert 'hello' == 'bye'" in done.stdout, "the test's own assertion is shown"
        assert "ERROR at teardown of test_left" in done.stdout
        assert "keeper:1.0.0 left something behind" in done.stdout

    def test_the_examples_are_tested_with_it(self, tmp_path):
        for name in ("base", "orders", "prices"):
            shutil.copytree(EXAMPLES / name, tmp_path / name)
        text = (EXAMPLES / "test_shop.py").read_text()
        assert "2 passed" in self.run(tmp_path, text).stdout

    def test_nothing_is_imported_for_a_test_without_a_base(self, tmp_path):
        done = self.run(
            tmp_path,
            """
            import sys
            def test_without():
                ours = {name for name in sys.modules if name.startswith("koupleless.")}
                assert ours <= {f"koupleless.{name}" for name in ("fixtures", "biz", "context", "errors")}, ours
            """,
        )
        assert "1 passed" in done.stdout, done.stdout

    def test_a_breakpoint_in_a_module_stops_there(self, tmp_path):
        done = self.run(
            tmp_path,
            """
            SOURCE = '''
            def app(environ, start):
                answer = "stopped here"
                breakpoint()
                start("200 OK", [])
                return [answer.encode()]
            '''

            def test_stop(koupleless_base):
                assert koupleless_base.install(SOURCE).get().text == "changed"
            """,
            stdin="p answer\nanswer = 'changed'\nc\n",
        )
        assert "'stopped here'" in done.stdout, done.stdout + done.stderr
        assert "1 passed" in done.stdout, done.stdout

"""What an uninstall leaves behind: nothing, and it says so."""

from __future__ import annotations

import builtins
import importlib
import logging
import os
import sys
import threading

from koupleless.artifact.build import Options, build_file
from koupleless.biz import BizId


def test_a_fastapi_module_is_collected_every_time(world):
    for _ in range(20):
        world.install("hello-1.0")
        assert world.get("/hello/").status_code == 200
        assert world.request("POST", "/hello/items", json={"name": "x"}).status_code == 200
        report = world.container.uninstall(BizId.parse("hello:1.0"))
        assert report.clean, report.summary()


def test_a_flask_module_is_collected_every_time(world):
    for _ in range(5):
        world.install("flasky-1.0")
        assert world.get("/flasky/user/7").json() == {"user": 7, "script": "/flasky"}
        report = world.container.uninstall(BizId.parse("flasky:1.0"))
        assert report.clean, report.summary()


def test_what_a_module_leaves_in_the_process_is_undone(world):
    world.install("leaky-1.0")  # the base's own libraries are imported now, and register what is theirs
    world.get("/leaky/")
    world.container.uninstall(BizId.parse("leaky:1.0"))
    before_threads = set(threading.enumerate())
    before_handlers = [*logging.getLogger().handlers, *logging.getLogger("uvicorn.error").handlers]

    world.install("leaky-1.0")
    assert world.get("/leaky/").text == "leaky"
    report = world.container.uninstall(BizId.parse("leaky:1.0"))

    assert report.clean, report.summary()
    assert report.failures == ()
    assert {thread.name for thread in set(threading.enumerate()) - before_threads} == set()
    assert [*logging.getLogger().handlers, *logging.getLogger("uvicorn.error").handlers] == before_handlers
    assert "leaky" not in sys.modules


def test_two_modules_with_the_same_top_level_package_do_not_meet(world):
    world.install("shadow-one")
    world.install("shadow-two")

    one, two = world.get("/shadow-one/").json(), world.get("/shadow-two/").json()

    assert one == {"who": "one", "again": "one", "module": "app.main", "same": True}
    assert two == {"who": "two", "again": "two", "module": "app.main", "same": True}
    assert "app" not in sys.modules


def test_closing_the_container_leaves_the_interpreter_as_it_was(make_world):
    before = what_hooks_replace()
    world = make_world()
    world.install("hello-1.0")
    assert what_hooks_replace() != before
    world.container.close()

    assert all(one is other for one, other in zip(before, what_hooks_replace(), strict=True))


def what_hooks_replace() -> list[object]:
    find_and_load = vars(importlib._bootstrap)["_find_and_load"]
    return [sys.modules, builtins.__import__, find_and_load, type(os.environ), threading.Thread.start]


def test_the_import_system_is_python_s_own_again_while_no_module_is_there(world):
    def import_system():
        return builtins.__import__, sys.modules, sys.path, sys.meta_path, type(sys)

    before = import_system()
    for _ in range(2):
        world.install("hello-1.0")
        seen = sys.modules
        world.install("plain-1.0")
        world.container.uninstall(BizId.parse("hello:1.0"))
        assert sys.modules is seen
        assert sys.modules is not before[1]
        world.container.uninstall(BizId.parse("plain:1.0"))
        assert all(now is then for now, then in zip(import_system(), before, strict=True))
    assert seen["sys"] is sys, "code that keeps the view finds the base's modules in it"


def test_thread_locals_of_the_import_are_found_on_the_loop(world, tmp_path):
    """Alone, one thread imports the module and runs the loop."""
    text = (
        "import threading\n"
        "from starlette.applications import Starlette\n"
        "from starlette.responses import PlainTextResponse\n"
        "from starlette.routing import Route\n"
        "LOCAL = threading.local()\n"
        "LOCAL.value = 'at import'\n"
        "class Session(threading.local):\n"
        "    def __init__(self, *names):\n        self.value, self.names = None, [*names]\n"
        "SESSION = Session('made')\n"
        "SESSION.value = 'for the session'\n"
        "from koupleless.adapters.own import call_on_loop\n"
        "call_on_loop(lambda: setattr(LOCAL, 'called', 'called'))\n"
        "async def show(request):\n"
        "    return PlainTextResponse(f'{LOCAL.value}, {LOCAL.called}, {SESSION.value}, {SESSION.names}')\n"
        "app = Starlette(routes=[Route('/', show)])\n"
    )
    path = tmp_path / "localised.py"
    path.write_text(text)
    built = build_file(path, Options(out=tmp_path / "out"))
    world.container.install(world.container.prepare(str(built.path)))
    assert world.get("/localised/").text == "at import, called, for the session, ['made']"
    report = world.container.uninstall(built.manifest.id)
    assert report.clean, report.summary()

"""What goes wrong in the middle: a failure after each step, operations that meet, code that hangs or exits."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import logging
import re
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.conftest import until

from koupleless.artifact.build import Options, build_file, build_project
from koupleless.biz import BizId, BizState
from koupleless.container import life
from koupleless.container.container import Container
from koupleless.container.leaving import departure
from koupleless.container.leaving.departure import LEAVING
from koupleless.container.life import STARTING, Life
from koupleless.container.process import ProcessHooks
from koupleless.container.starting import entry
from koupleless.container.terms import Rules, Strategy
from koupleless.context import Scope
from koupleless.errors import (
    BizBusy,
    BizRepeated,
    ContainerClosed,
    ManifestInvalid,
    MasterBizProtected,
    PathTaken,
    StartFailed,
)
from koupleless.isolation.imports import HOOKS
from koupleless.isolation.namespace import Namespace
from koupleless.router.gate import Gate
from koupleless.router.lifespan import Lifespan
from koupleless.router.table import RouteTable
from koupleless.view.config import Configuration
from koupleless.view.logging.logspace import LogSpace

if TYPE_CHECKING:
    from collections.abc import Callable

ONE, TWO = BizId.parse("hello:1.0"), BizId.parse("hello:1.1")

APP = "async def app(scope, receive, send):\n    if scope['type'] == 'lifespan':\n        raise RuntimeError\n"


@pytest.fixture
def single(tmp_path):
    """``single(world, source, ...)`` is the URL of a module of one file."""

    def build(source, *, name="single", **options):
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return str(build_file(path, Options(out=tmp_path / "out", **options)).path)

    return build


@pytest.fixture
def install(world, single):
    def run(source, *, strategy=Strategy.INSTALL_ONLY, **options):
        return world.container.install(world.container.prepare(single(source, **options)), strategy=strategy)

    return run


def picture(world):
    """The process, as far as an install could change it."""
    gc.collect()
    container = world.container
    return {
        "routes": world.front.table.routes,
        "threads": {t.name for t in threading.enumerate()},
        "modules": {name for name in list(sys.modules) if name.partition(".")[0] in ("hello", "plain")},
        "handlers": [*logging.getLogger().handlers],
        "hooks of imports": HOOKS._users,
        "users": dict(world.store._users),
        "services": dict(world.services._offers),
        "tables": (
            list(container._roster.bizs),
            dict(container._roster._incoming),
            list(container._roster._outgoing),
            dict(container._busy),
        ),
    }


def after(call):
    """Do it, then fail."""

    def failing(*args, **kwargs):
        call(*args, **kwargs)
        raise OSError("injected")

    async def failing_later(*args, **kwargs):
        await call(*args, **kwargs)
        raise OSError("injected")

    return failing_later if inspect.iscoroutinefunction(call) else failing


def stepping(patch, module, table, name, take):
    """Have ``take`` done in place of a step; the tables of steps are ``STARTING`` and ``LEAVING``."""
    steps = getattr(module, table)
    assert name in [step.name for step in steps]
    patch.setattr(module, table, tuple(step._replace(take=take) if step.name == name else step for step in steps))


class Place(NamedTuple):
    """A place of an install where a failure is injected, and the module that comes there."""

    fail: Callable[[pytest.MonkeyPatch], None]
    module: str
    routes: bool = False


def after_step(step):
    fail = functools.partial(stepping, module=life, table="STARTING", name=step.name, take=after(step.take))
    return pytest.param(Place(fail, "hello-1.1"), id=f"step {step.name}")


def after_call(owner, name, module="hello-1.1"):
    def fail(patch):
        patch.setattr(owner, name, after(getattr(owner, name)))

    place = Place(fail, module, routes=owner is RouteTable)
    return pytest.param(place, id=f"{owner.__name__.rpartition('.')[2]}.{name}")


PLACES = [
    *(after_step(step) for step in STARTING),
    after_call(ProcessHooks, "install"),
    after_call(Configuration, "load"),
    after_call(LogSpace, "from_configuration"),
    after_call(Namespace, "__init__"),
    after_call(entry, "face_of"),
    after_call(life, "refuse_application", "plain-1.0"),
    after_call(Lifespan, "__init__"),
    after_call(Gate, "__init__"),
    after_call(Lifespan, "startup"),
    after_call(Life, "start"),
    after_call(RouteTable, "with_route"),
    after_call(RouteTable, "with_forwards"),
]


@pytest.mark.parametrize("strategy", [Strategy.INSTALL_ONLY, Strategy.REPLACE])
@pytest.mark.parametrize("place", PLACES)
def test_a_failure_after_each_step_leaves_the_process_as_it_was(world, monkeypatch, place, strategy):
    fail, module, routes = place
    if strategy is Strategy.INSTALL_ONLY and routes:
        module = "flasky-1.0"  # a second version of hello gets no route
    world.install("hello-1.0")
    before = picture(world)

    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises((StartFailed, OSError), match="injected"):
            world.install(module, strategy=strategy)

    assert picture(world) == before
    assert world.states() == {"hello:1.0": "ACTIVATED"}
    assert world.get("/hello/").json()["version"] == "1.0"
    world.install(module, strategy=strategy)


def test_a_failure_after_each_facet_leaves_the_process_as_it_was(world, monkeypatch):
    attached = []
    attach = Scope.attach

    def attaching(self, facet, **options):
        attach(self, facet, **options)
        attached.append(type(facet).__name__)
        if attached[-1] == last:
            raise OSError("injected")

    world.install("hello-1.0")
    monkeypatch.setattr(Scope, "attach", attaching)
    last = None
    world.install("hello-1.1")
    world.container.uninstall(TWO)
    facets, before = [*attached], picture(world)
    assert {"Ledger", "Environment", "Namespace", "LogSpace", "Watch"} <= set(facets)

    for last in facets:
        with pytest.raises(StartFailed, match="injected"):
            world.install("hello-1.1")
        assert picture(world) == before, last

    last = None
    world.install("hello-1.1")


@pytest.mark.parametrize("name", [step.name for step in LEAVING])
def test_a_step_of_leaving_that_fails_is_told_and_keeps_no_other_from_being_taken(world, monkeypatch, name):
    (step,) = (step for step in LEAVING if step.name == name)
    world.install("hello-1.0")
    world.container.uninstall(ONE)
    before = picture(world)
    world.install("hello-1.0")

    with monkeypatch.context() as patch:
        stepping(patch, departure, "LEAVING", name, after(step.take))
        report = world.container.uninstall(ONE)

    assert report.failures == (f"{name}: OSError: injected",)
    assert report.held == ()
    assert picture(world) == before
    assert world.states() == {}


def test_an_uninstall_gives_its_place_in_the_store_back(world):
    world.install("hello-1.0")
    assert len(world.store._users) == 1

    world.container.uninstall(ONE)

    assert world.store._users == {}


def test_forward_rules_are_those_of_the_active_version_through_every_change(world):
    rules = {"KOUPLELESS_WEB_GATEWAY_FORWARDS_0_CONTEXTPATH": "hello", "koupleless.web.gateway.forwards[0].hosts": "a"}

    def forwarded():
        return list(world.front.table.forwards.by_identity)

    world.install("hello-1.0", envs=rules)
    assert forwarded() == ["hello:1.0"]
    world.install("hello-1.0", envs=rules, strategy=Strategy.REPLACE)  # the first life leaves after the second has come
    assert forwarded() == ["hello:1.0"]
    assert world.get("/", headers={"Host": "a"}).json()["version"] == "1.0"
    world.install("hello-1.1", envs=rules)
    assert forwarded() == ["hello:1.0"]
    world.container.switch(TWO)
    assert forwarded() == ["hello:1.1"]
    world.container.uninstall(ONE)
    assert forwarded() == ["hello:1.1"]
    world.container.uninstall(TWO)
    assert world.front.table.is_plain


def test_a_replacement_that_finishes_late_does_not_stop_what_was_switched_to_since(world, monkeypatch):
    world.install("hello-1.0")
    committed, go_on = threading.Event(), threading.Event()
    retire = Container._retire

    def waiting(self, *args):
        committed.set()
        go_on.wait(10)
        return retire(self, *args)

    monkeypatch.setattr(Container, "_retire", waiting)
    first = threading.Thread(
        target=lambda: world.install("hello-1.1", strategy=Strategy.REPLACE), name="first", daemon=True
    )
    first.start()
    committed.wait(10)
    world.container.switch(ONE)
    go_on.set()
    first.join()

    assert world.states()["hello:1.0"] == "ACTIVATED"
    assert world.get("/hello/").json()["version"] == "1.0"


def test_many_concurrent_replacements_leave_one_that_answers(world):
    world.artefact("hello-1.0"), world.artefact("hello-1.1")
    problems = []

    def work(directory):
        for _ in range(8):
            try:
                world.install(directory, strategy=Strategy.REPLACE)
            except BizBusy:
                pass
            except Exception as error:  # noqa: BLE001 - asserted below
                problems.append(error)

    threads = [threading.Thread(target=work, args=(d,)) for d in ("hello-1.0", "hello-1.1") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not problems, "\n".join(map(str, problems))
    assert list(world.states().values()) == ["ACTIVATED"]  # no loser is left behind
    assert world.get("/hello/").status_code == 200
    assert world.container._roster._outgoing == []


@contextlib.contextmanager
def held_back(biz):
    """The draining of a biz has to wait: events for that it came there, and for that it may go on."""
    holding, go_on = threading.Event(), threading.Event()

    def draining(leaving):
        if leaving.scope.biz == biz:
            holding.set()
            assert go_on.wait(60)

    with pytest.MonkeyPatch.context() as patch:
        stepping(patch, departure, "LEAVING", "drain", draining)
        yield holding, go_on


def test_a_version_that_is_replaced_while_it_still_replaces_another_leaves_when_it_is_done(world, install):
    world.install("hello-1.0")

    with held_back(ONE) as (holding, go_on):
        slow = threading.Thread(target=world.install, args=["hello-1.1"], kwargs={"strategy": Strategy.REPLACE})
        slow.start()
        assert holding.wait(60)  # 1.1 serves, and waits for the last requests of 1.0
        latest = install(APP, name="hello", version="3", web_context_path="/hello", strategy=Strategy.REPLACE)
        assert world.states() == {"hello:1.0": "DEACTIVATED", "hello:1.1": "DEACTIVATED", "hello:3": "ACTIVATED"}
        go_on.set()
        slow.join()

    assert latest.info.state is BizState.ACTIVATED
    assert world.states() == {"hello:3": "ACTIVATED"}


def test_an_identity_is_free_again_whatever_goes_wrong_while_its_superseded_life_is_stopped(world, monkeypatch):
    world.install("hello-1.0")
    world.install("hello-1.1")
    stop = Container._stop

    def failing(self, entry):
        stop(self, entry)
        raise OSError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(Container, "_stop", failing)
        operation = world.container.reserve(TWO, "switchBiz")
        operation.__enter__()
        world.container._roster.bizs[TWO].is_superseded = True
        with pytest.raises(OSError, match="injected"):
            operation.__exit__(None, None, None)

    assert world.container._busy == {}
    world.install("hello-1.1")


def test_a_version_that_is_switched_to_after_it_was_replaced_stays(world, install):
    world.install("hello-1.0")
    install(APP, name="hello", version="3", web_context_path="/hello")

    with held_back(ONE) as (holding, go_on):
        replacing = threading.Thread(target=world.install, args=["hello-1.1"], kwargs={"strategy": Strategy.REPLACE})
        replacing.start()
        assert holding.wait(60)
        world.container.switch(BizId.parse("hello:3"))
        go_on.set()
        replacing.join()

    assert world.states() == {"hello:1.1": "DEACTIVATED", "hello:3": "ACTIVATED"}


def test_a_replacement_of_itself_that_fails_removes_what_was_superseded_meanwhile(world, single, monkeypatch):
    container = world.container
    starting, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("builtins.review_gate", (starting, go_on), raising=False)
    world.install("hello-1.1")
    source = "import builtins\nbuiltins.review_gate[0].set()\nbuiltins.review_gate[1].wait(60)\nraise OSError('no')\n"
    again = container.prepare(single(source, name="hello", version="1.1", web_context_path="/hello", entry="hello"))
    outcome = []

    def replace_itself():
        try:
            container.install(again, strategy=Strategy.REPLACE)
        except StartFailed as error:
            outcome.append(error)

    failing = threading.Thread(target=replace_itself)
    failing.start()
    assert starting.wait(60)
    world.install("hello-1.0", strategy=Strategy.REPLACE)
    assert world.states()["hello:1.1"] == "DEACTIVATED"
    go_on.set()
    failing.join()

    assert len(outcome) == 1
    assert world.states() == {"hello:1.0": "ACTIVATED"}


def test_uninstall_then_install_whose_start_fails_removes_the_old_one_and_says_so(world, install):
    install(APP, version="1")

    with pytest.raises(StartFailed):
        install("raise OSError('no')", version="2", strategy=Strategy.UNINSTALL_THEN_INSTALL)

    assert world.states() == {}
    kinds = [event.kind.value for event in world.container.events.after(2)]
    assert kinds == ["stopping", "stopped", "installing", "start failed"]


def test_uninstall_then_install_takes_the_same_identity_again(world):
    world.install("hello-1.0")

    installed = world.install("hello-1.0", strategy=Strategy.UNINSTALL_THEN_INSTALL)

    assert len(installed.replaced) == 1
    assert world.states() == {"hello:1.0": "ACTIVATED"}
    assert world.container._roster._incoming == {}


def test_uninstall_then_install_holds_its_path_while_it_clears_the_way(world, install, single, monkeypatch):
    install(APP, version="1", web_context_path="/old")
    rival = world.container.prepare(single(APP, name="rival", web_context_path="/new"))
    refused = []
    stop = Container._stop

    def stopping(self, entry):
        with pytest.raises(Exception, match="wants the path /new") as caught:
            self.install(rival)
        refused.append(caught.type)
        return stop(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Container, "_stop", stopping)
        install(APP, version="2", web_context_path="/new", strategy=Strategy.UNINSTALL_THEN_INSTALL)

    assert len(refused) == 1
    assert world.states() == {"single:2": "ACTIVATED"}


def test_uninstall_then_install_beside_a_busy_version_changes_nothing(world):
    world.install("hello-1.0")
    with world.container.reserve(ONE, "switchBiz"), pytest.raises(BizBusy):
        world.install("hello-1.1", strategy=Strategy.UNINSTALL_THEN_INSTALL)

    assert world.states() == {"hello:1.0": "ACTIVATED"}


def test_a_version_on_another_path_moves_the_route_with_the_switch(world, install):
    install(APP, version="1", web_context_path="/one")
    second = install(APP, version="2", web_context_path="/two")
    assert [route.path for route in world.front.table.routes] == ["/one"]

    world.container.switch(second.info.id)

    assert [route.path for route in world.front.table.routes] == ["/two"]


def test_several_versions_are_active_if_each_has_a_path_of_its_own(make_world, single):
    world = make_world(rules=Rules(activate_many=True))
    for version in ("1", "2"):
        url = single(APP, version=version, web_context_path=f"/v{version}")
        world.container.install(world.container.prepare(url))

    assert world.states() == {"single:1": "ACTIVATED", "single:2": "ACTIVATED"}
    assert [route.path for route in world.front.table.routes] == ["/v1", "/v2"]
    assert world.container._services.directory.locate("single").biz == BizId.parse("single:1")

    world.container.uninstall(BizId.parse("single:1"))

    assert world.container._services.directory.locate("single").biz == BizId.parse("single:2")


@pytest.mark.parametrize("keep_broken", [False, True])
def test_a_module_that_is_refused_for_a_taken_path_stays_listed_where_broken_ones_do(make_world, single, keep_broken):
    world = make_world(rules=Rules(keep_broken=keep_broken))
    world.install("hello-1.0")
    url = single(APP, name="rival", web_context_path="/hello")

    with pytest.raises(PathTaken) as refused:
        world.container.install(world.container.prepare(url))

    rival = {"rival:1.0.0": "BROKEN"} if keep_broken else {}
    assert world.states() == {"hello:1.0": "ACTIVATED", **rival}
    assert world.get("/hello/").status_code == 200
    if keep_broken:
        broken = BizId.parse("rival:1.0.0")
        assert world.container.find(broken).records[-1].message == str(refused.value)
        with pytest.raises(BizRepeated):
            world.container.install(world.container.prepare(url))
        assert world.container.uninstall(broken).clean


@pytest.mark.parametrize(
    ("strips", "paths"),
    [
        (False, ["/chat/socket.io/", "/chat/a b/%C3%A9", "/chat/"]),
        (True, ["/socket.io/", "/a b/%C3%A9", "/"]),
    ],
)
def test_a_module_may_want_paths_without_its_context_path(world, tmp_path, strips, paths):
    source = """
from urllib.parse import quote, unquote_to_bytes
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError
    assert unquote_to_bytes(scope["raw_path"]) == scope["path"].encode(), scope
    body = repr((scope["root_path"], quote(scope["path"], safe="/ "))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
    (tmp_path / "chat.py").write_text(source)
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'chat'\nversion = '1'\n"
        f"[tool.koupleless.module]\nentry = 'chat:app'\nstrip-path = {str(strips).lower()}\n"
    )
    built = build_project(tmp_path, Options(out=tmp_path / "out")).path
    world.container.install(world.container.prepare(str(built)))

    asked = ["/chat/socket.io/", "/chat/a%20b/%C3%A9", "/chat"]
    assert [world.get(path).text for path in asked] == [repr(("/chat", path)) for path in paths]


def test_a_function_that_returns_an_application_was_meant_as_a_factory(world, install):
    source = f"{APP}\ndef create_app():\n    return app\n"

    with pytest.raises(StartFailed, match=r"to serve that, write 'single:create_app\(\)'"):
        install(source, entry="single:create_app")
    with pytest.raises(StartFailed, match=r"to serve that, write 'single:create\(\)'"):
        install(f"{APP}\nasync def create():\n    return app\n", entry="single:create")

    assert install(source, entry="single:create_app()").info.state is BizState.ACTIVATED


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("single:nope", r"has no 'nope' in single, which its entry 'single:nope' names; correct entry.*offers app"),
        ("singel:app", r"has no module 'singel', which its entry 'singel:app' names"),
        ("single.more:app", r"has no module 'single.more'"),
        ("single:NAME", r"which is str: neither an application nor a function.*offers app"),
        ("single:nothing()", r"which returned NoneType, no application"),
    ],
)
def test_an_entry_that_is_wrong_says_what_to_change(world, install, entry, said):
    with pytest.raises(StartFailed, match=said) as caught:
        install(f"{APP}\nNAME = 'x'\ndef nothing(): ...\n", entry=entry)

    assert "Traceback" not in str(caught.value)
    assert world.states() == {}


def test_an_attribute_error_of_the_modules_own_is_told_as_it_is(world, install):
    with pytest.raises(StartFailed, match="AttributeError: 'int' object has no attribute 'nope'"):
        install("def app():\n    return (1).nope\n", entry="single:app()")


def test_process_isolation_is_refused_before_any_code_runs_or_anything_is_removed(world, tmp_path):
    from koupleless.artifact.build import build_project

    project = tmp_path / "hello"
    project.mkdir()
    marker = tmp_path / "ran"
    (project / "hello.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (project / "pyproject.toml").write_text(
        "[project]\nname = 'hello'\nversion = '2'\n[tool.koupleless.module]\nentry = 'hello'\nisolation = 'process'\n"
    )
    url = str(build_project(project, Options(out=tmp_path)).path)
    world.install("hello-1.0")

    with pytest.raises(ManifestInvalid, match='isolation = "process" is not available yet'):
        world.container.prepare(url)

    assert not marker.exists()
    assert len(world.store._users) == 1


def test_a_module_cannot_take_the_name_of_the_base(world, install):
    with pytest.raises(MasterBizProtected):
        install(APP, name="base")

    assert world.states() == {}


def hooked(code):
    return f"{APP}\nimport builtins, koupleless\nimport koupleless.service\n{code}\n"


@pytest.fixture
def let_go(monkeypatch):
    """What waits for ``builtins.review_gate`` goes on, and ends, when the test is over."""
    gate, before = threading.Event(), set(threading.enumerate())
    monkeypatch.setattr("builtins.review_gate", gate, raising=False)
    yield
    gate.set()
    until(lambda: not [thread for thread in set(threading.enumerate()) - before if "single:1.0.0" in thread.name])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("koupleless.on_stop(lambda: builtins.review_gate.wait(60))", "not finished within"),
        ("@koupleless.on_stop\ndef end(): raise SystemExit(3)", "SystemExit: 3"),
        ("@koupleless.on_stop\nasync def end(): raise SystemExit(3)", r"called sys.exit\(3\)"),
        (
            "koupleless.service.offer(object(), name='x', on_close=lambda: builtins.review_gate.wait(60))",
            "not finished within",
        ),
        ("for _ in range(5): koupleless.on_stop(lambda: builtins.review_gate.wait(60))", "not finished within"),
    ],
    ids=["hangs", "exits", "exits on the loop", "service hangs", "many hang"],
)
def test_stop_code_that_hangs_or_exits_is_bounded_and_told(make_world, single, let_go, code, said):
    world = make_world(stop_s=0.5)
    installed = world.container.install(world.container.prepare(single(hooked(code))))

    begin = time.monotonic()
    report = world.container.uninstall(installed.info.id)

    assert time.monotonic() - begin < 15  # each of them would take much longer
    assert any(re.search(said, failure) for failure in report.failures), report.failures
    assert world.states() == {}
    failed = [event for event in world.container.events.after(0) if event.kind.value == "stop failed"]
    assert [event.info.state for event in failed] == [BizState.BROKEN]
    assert world.install("hello-1.0").info.state is BizState.ACTIVATED


def test_operations_on_the_thread_of_the_loop_are_refused_and_change_nothing(world, single):
    world.install("hello-1.0")
    prepared = world.container.prepare(single(APP))

    async def on_loop(operation):
        operation()

    for operation in (
        lambda: world.container.install(prepared),
        lambda: world.container.uninstall(ONE),
        world.container.close,
    ):
        with pytest.raises(RuntimeError, match="make the call on a thread"):
            world.stage.call(lambda op=operation: on_loop(op), timeout_s=5)
    assert world.states() == {"hello:1.0": "ACTIVATED"}
    assert world.get("/hello/").status_code == 200


HANGING = """
import asyncio, builtins

async def app(scope, receive, send):
    await receive()
    builtins.review_gate.set()
    await asyncio.Event().wait()
"""


def test_installs_that_are_interrupted_by_the_end_keep_nothing_of_their_modules(world, single, monkeypatch):
    starting_up = threading.Event()
    monkeypatch.setattr("builtins.review_gate", starting_up, raising=False)
    hanging = world.container.prepare(single(HANGING))
    made = []

    def watching(life, opening):
        made.append(weakref.ref(opening.face.asgi))
        life.start_application(opening)

    stepping(monkeypatch, life, "STARTING", "start application", watching)
    errors = []

    def work():
        with pytest.raises(StartFailed) as caught:
            world.container.install(hanging)
        errors.append(str(caught.value))

    thread = threading.Thread(target=work)
    thread.start()
    assert starting_up.wait(30)
    world.container.close()
    thread.join()
    gc.collect()

    assert "the base is shutting down" in errors[0]
    assert made[0]() is None
    with pytest.raises(ContainerClosed):
        world.install("hello-1.0")


def test_a_switch_that_changes_nothing_is_no_event(world):
    world.install("hello-1.0")
    world.container.switch(ONE)

    assert [event.kind.value for event in world.container.events.after(0)] == ["installing", "started"]


def test_the_own_loop_of_a_stage_can_be_called_at_once():
    from koupleless.container.stage import Stage

    async def nothing():
        return 1

    for _ in range(200):
        stage = Stage()
        assert stage.call(nothing, timeout_s=5) == 1
        stage.close()


def test_what_one_biz_raises_at_the_end_does_not_keep_the_others(world, monkeypatch):
    world.install("hello-1.0")
    world.install("plain-1.0")
    stop = Container._stop

    def failing(self, entry):
        stop(self, entry)
        if entry.id.name == "plain":
            raise OSError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(Container, "_stop", failing)
        with pytest.raises(OSError, match="injected"):
            world.container.close()

    assert world.states() == {}
    assert "ModuleView" not in type(sys.modules).__name__


REFUSING = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "not today"})
"""


@pytest.mark.parametrize(
    ("source", "entry"),
    [(REFUSING, "single:app"), (f"{APP}\ndef create_app():\n    return app\n", "single:create_app")],
    ids=["lifespan", "factory"],
)
def test_an_application_that_is_not_started_is_gone_when_that_is_told(world, install, source, entry):
    """The error that is on its way holds nothing of it, so nobody has to look for who does."""
    with pytest.raises(StartFailed):
        install(source, entry=entry)

    (failed,) = [event for event in world.container.events.after(0) if event.kind.value == "start failed"]
    assert "left behind" not in failed.detail
    assert world.container.zombies() == ()


def test_a_module_that_fails_after_a_library_of_the_base_cached_something_of_it_leaves_nothing_behind(install, caplog):
    """The import system has forgotten a module that failed by then, so its name says nothing of whose that is."""
    with caplog.at_level(logging.WARNING), pytest.raises(StartFailed, match="too late"):
        install(
            "from fastapi import FastAPI\n"
            "app = FastAPI()\n"
            "@app.get('/')\n"
            "async def hello() -> dict[str, str]:\n"
            "    return {}\n"
            "raise ValueError('too late')\n",
            name="late",
            version="1",
            web_context_path="/late",
        )
    assert "failed to start" in caplog.text
    assert "alive" not in caplog.text

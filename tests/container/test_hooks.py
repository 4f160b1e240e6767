"""Hooks of the interpreter and of threads: each biz has its own, for what happens while it runs."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from unittest import mock

import pytest

from koupleless.biz import BizId
from koupleless.changes.changes import changes
from koupleless.container.process import ProcessHooks
from koupleless.context import Scope, entered
from koupleless.isolation.interpreter import loaded, loading
from koupleless.isolation.namespace import Namespace
from koupleless.view.own import Own
from koupleless.view.shared.process import GUARDS

MakeBiz = Callable[..., Scope]


@pytest.fixture
def make_biz() -> Iterator[MakeBiz]:
    """``make_biz(name)`` is the scope of a biz without files; closing it is what happens when it leaves."""
    scopes: list[Scope] = []

    def make(name: str = "hello") -> Scope:
        scope = Scope(BizId.of(name, "1.0"))
        scope.attach(Own())
        Namespace(scope, [])
        scopes.append(scope)
        return scope

    GUARDS.acquire()
    yield make
    for scope in scopes:
        leave(scope)
    GUARDS.release()


def test_two_containers_follow_loading_once() -> None:
    def followers() -> int:
        return loading.count(changes.modules_needed) + loaded.count(changes.module_loaded)

    before = followers()
    one, other = ProcessHooks(), ProcessHooks()
    with asyncio.Runner() as runner:
        one.install(runner.get_loop())
        other.install(runner.get_loop())
        assert followers() == 2
        one.remove()
        assert followers() == 2
        other.remove()
    assert followers() == before == 0


def leave(scope: Scope) -> None:
    namespace = scope.find_facet(Namespace)
    if namespace is not None:
        namespace.drop()
    scope.close()


HOOKS = [(sys, "excepthook"), (sys, "unraisablehook"), (sys, "displayhook"), (threading, "excepthook")]
each_hook = pytest.mark.parametrize(("module", "name"), HOOKS, ids=[f"{m.__name__}.{n}" for m, n in HOOKS])


class Failing(threading.Thread):
    """A thread that raises an error as a biz."""

    def __init__(self, biz: Scope | None, error: type[Exception]) -> None:
        super().__init__()
        self._biz = biz
        self._error = error

    def _bootstrap_inner(self) -> None:
        with entered(self._biz):  # in which the hook is called, too, after `run`
            super()._bootstrap_inner()  # type: ignore[misc]

    def run(self) -> None:
        raise self._error


@each_hook
def test_a_biz_finds_the_hook_of_the_base_or_its_own(make_biz: MakeBiz, module: ModuleType, name: str) -> None:
    one, two = make_biz("one"), make_biz("two")
    of_base = getattr(module, name)
    for biz in (one, two):
        with entered(biz):
            assert getattr(module, name) is of_base

            def own(*_: object) -> None:
                pass

            setattr(module, name, own)
            assert getattr(module, name) is own
        assert getattr(module, name) is of_base
    with entered(one):
        setattr(module, name, of_base)
        assert getattr(module, name) is of_base
    with entered(two):
        assert getattr(module, name) is own
        delattr(module, name)
        assert getattr(module, name) is of_base


@each_hook
def test_what_the_interpreter_finds_there_calls_the_one_of_who_runs(
    make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    called: list[str] = []
    monkeypatch.setattr(module, name, lambda *_: called.append("base"))
    biz = make_biz()
    standing = vars(module)[name]
    with entered(biz):
        before = getattr(module, name)

        def own(*args: object) -> None:
            called.append("biz")
            before(*args)

        setattr(module, name, own)
        standing(1)
    assert called == ["biz", "base"]
    standing(1)
    assert called == ["biz", "base", "base"]
    leave(biz)
    with entered(biz):
        standing(1)
        setattr(module, name, lambda *_: called.append("late"))
        standing(1)
    assert called == ["biz", *["base"] * 4]


def test_an_error_on_a_thread_is_told_to_the_hook_of_its_biz(
    make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(("base", args.exc_type.__name__)))

    def fail(biz: Scope | None, error: type[Exception]) -> None:
        thread = Failing(biz, error)
        thread.start()
        thread.join()

    one, two = make_biz("one"), make_biz("two")
    with entered(one):
        threading.excepthook = lambda args: told.append(("one", args.exc_type.__name__))
    fail(one, KeyError)
    fail(two, IndexError)
    fail(None, ValueError)
    assert told == [("one", "KeyError"), ("base", "IndexError"), ("base", "ValueError")]


def test_an_error_of_a_hook_is_told_to_the_hook_for_all_errors(make_biz: MakeBiz) -> None:
    told: list[str] = []
    biz = make_biz()

    def fail(_: object) -> None:
        raise LookupError

    with entered(biz):
        threading.excepthook = fail
        sys.excepthook = lambda kind, *_: told.append(kind.__name__)
    thread = Failing(biz, KeyError)
    thread.start()
    thread.join()
    assert told == ["LookupError"]


class Undone:
    def __del__(self) -> None:
        raise KeyError


def test_an_error_that_nobody_can_catch_is_told_to_the_hook_of_who_runs(make_biz: MakeBiz) -> None:
    told: list[str] = []
    biz = make_biz()
    with mock.patch.object(sys, "unraisablehook", lambda args: told.append(f"base {args.exc_type.__name__}")):
        with entered(biz):
            sys.unraisablehook = lambda args: told.append(f"biz {args.exc_type.__name__}")
            Undone()
        Undone()
    assert told == ["biz KeyError", "base KeyError"]


@each_hook
def test_a_mock_puts_back_what_was_there(make_biz: MakeBiz, module: ModuleType, name: str) -> None:
    biz = make_biz()
    before = getattr(module, name)
    for scope in (biz, None):
        with entered(scope):
            with mock.patch.object(module, name) as mocked:
                assert getattr(module, name) is mocked
                vars(module)[name](1)
                mocked.assert_called_once_with(1)
            assert getattr(module, name) is before
    assert getattr(module, name) is before


@each_hook
def test_what_the_base_sets_meanwhile_stays(
    make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    biz = make_biz()
    of_base, before = (lambda *_: None), getattr(module, name)
    monkeypatch.setattr(module, name, of_base)
    assert vars(module)[name] is not of_base
    leave(biz)
    GUARDS.release()
    try:
        assert vars(module)[name] is of_base
        monkeypatch.undo()
        assert vars(module)[name] is before
    finally:
        GUARDS.acquire()

from __future__ import annotations

import atexit
import codecs
import copyreg
import gc
import linecache
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.ownership.conftest import MakeBiz, MakeModule, TinyBiz


def test_exit_functions_run_as_the_biz_in_reverse_and_are_unregistered(biz: TinyBiz) -> None:
    said: list[Any] = []
    biz.run(
        "atexit.register(said.append, 1)\natexit.register(lambda: said.append(K.__name__))", atexit=atexit, said=said
    )
    report = biz.leave()
    assert report.clean, report
    assert said == ["K", 1]
    assert report.undone == {"atexit": 2}


def test_an_exit_function_the_biz_unregisters_is_not_run(biz: TinyBiz) -> None:
    said: list[Any] = []
    biz.run(
        "atexit.register(reach)\natexit.unregister(reach)\natexit.register(said.append, 1)", atexit=atexit, said=said
    )
    assert len(biz.ledger) == 1
    biz.leave()
    assert said == [1]


def test_the_base_s_registration_of_the_same_function_stays() -> None:
    code = """
import atexit
from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.ownership.ledger import Ledger
from koupleless.recorders.door import RECORDING

RECORDING.acquire()
scopes = [Scope(BizId.of("tiny", "1.0")), Scope(BizId.of("stays", "1.0"))]
atexit.register(print, "base")
for scope in scopes:
    scope.attach(Ledger(scope))
    with entered(scope):
        atexit.register(print, scope.biz)
scopes[0].facet(Ledger).undo_all(5)
print("left")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["tiny:1.0", "left", "stays:1.0", "base"]


def test_an_exit_function_that_fails_or_hangs_is_reported_and_the_others_run(biz: TinyBiz) -> None:
    said: list[Any] = []
    release = threading.Event()
    biz.run(
        """
        def fail():
            raise OSError("disk gone")
        def hang():
            release.wait(10)
        atexit.register(said.append, "first")
        atexit.register(hang)
        atexit.register(fail)
        """,
        atexit=atexit,
        said=said,
        release=release,
    )
    started = time.monotonic()
    failures = [str(failure) for failure in biz.undo(0.2)]
    release.set()
    assert time.monotonic() - started < 2
    assert said == ["first"]
    assert failures == ["atexit fail: OSError: disk gone", "atexit hang: TimeoutError: did not return in time"]


def test_a_codec_is_unregistered_and_the_base_s_stays(biz: TinyBiz) -> None:
    def own(name: Any) -> Any:
        return codecs.lookup("utf-8") if name == "own_codec" else None

    codecs.register(own)
    try:
        biz.run(
            "def search(name): return codecs.lookup('ascii') if name == 'biz_codec' else None\ncodecs.register(search)",
            codecs=codecs,
        )
        assert codecs.lookup("biz_codec")
        report = biz.leave()
        assert report.clean, report
        with pytest.raises(LookupError):
            codecs.lookup("biz_codec")
        assert codecs.lookup("own_codec")
    finally:
        codecs.unregister(own)


def test_a_codec_the_biz_unregisters_itself_is_forgotten(biz: TinyBiz) -> None:
    biz.run("codecs.register(K.reach)\ncodecs.unregister(K.reach)", codecs=codecs)
    assert len(biz.ledger) == 0


def test_an_error_handler_becomes_an_empty_trampoline_or_the_one_before(biz: TinyBiz) -> None:
    codecs.register_error("both", lambda error: ("base", 1))
    biz.run(
        """
        def handle(error):
            reach()
            return "biz", error.end
        codecs.register_error("both", handle)
        codecs.register_error("only-biz", handle)
        """,
        codecs=codecs,
    )
    assert b"\xff".decode("ascii", "both") == "biz"
    assert b"\xff".decode("ascii", "only-biz") == "biz"
    report = biz.leave()
    assert report.clean, report
    assert b"\xff".decode("ascii", "both") == "base"
    with pytest.raises(LookupError, match="unknown error handler name 'only-biz'"):
        b"\xff".decode("ascii", "only-biz")


def test_pickling_of_a_class_is_unregistered_and_the_one_before_comes_back(biz: TinyBiz) -> None:
    class Own:
        pass

    def reduce_own(own: Any) -> Any:
        return Own, ()

    copyreg.pickle(Own, reduce_own)
    try:
        biz.run("copyreg.pickle(K, reach)\ncopyreg.pickle(Own, reach)", copyreg=copyreg, Own=Own)
        report = biz.leave()
        assert report.clean, report
        assert copyreg.dispatch_table[Own] is reduce_own
    finally:
        del copyreg.dispatch_table[Own]


def test_an_entry_written_straight_into_the_dispatch_table_is_swept(biz: TinyBiz) -> None:
    before = dict(copyreg.dispatch_table)
    biz.run("copyreg.dispatch_table[K] = reach", copyreg=copyreg)
    report = biz.leave()
    assert report.clean, report
    assert copyreg.dispatch_table == before


def test_a_warning_of_the_biz_that_was_shown_for_a_place_in_the_base_is_forgotten(
    biz: TinyBiz, base_module: MakeModule
) -> None:
    module = base_module("shop_calls", "def call(function):\n    return function()\n")
    biz.run(
        """
        class Own(UserWarning):
            reach = reach

        def handle():
            warnings.warn("of the biz", Own, stacklevel=2)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = lambda *_: None
            call(handle)
        """,
        warnings=warnings,
        call=module.call,
    )
    others = {("of the base", UserWarning, 1): True}
    registry = module.__dict__["__warningregistry__"]
    assert "Own" in str(registry)
    registry.update(others)
    report = biz.leave()
    assert report.clean, report
    assert report.undone["shown warning"] == 1
    assert {key: value for key, value in registry.items() if key != "version"} == others


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring begins with CPython 3.12")
def test_a_tool_that_monitors_is_ended_with_its_biz(biz: TinyBiz) -> None:
    seen: list[Any] = []
    system: Any = sys
    monitoring: Any = system.monitoring

    def start() -> None:
        pass

    biz.run(
        """
        monitoring.use_tool_id(3, "freed")
        monitoring.free_tool_id(3)
        monitoring.use_tool_id(4, "kept")
        monitoring.register_callback(4, monitoring.events.PY_START, lambda *_: seen.append(K.__name__))
        monitoring.set_events(4, monitoring.events.PY_START)
        """,
        monitoring=monitoring,
        seen=seen,
    )
    start()
    assert "K" in seen
    report = biz.leave()
    assert report.clean, report
    assert report.undone == {"monitoring tool": 1}
    seen.clear()
    start()
    assert seen == []
    assert monitoring.get_tool(4) is None
    assert monitoring.register_callback(4, monitoring.events.PY_START, None) is None


def test_audit_hooks_are_emptied_and_leave_one_trampoline(biz: TinyBiz, make_biz: MakeBiz) -> None:
    seen: list[Any] = []
    biz.run(
        "sys.addaudithook(lambda event, args: event == 'tests.ping' and seen.append(K.__name__))", sys=sys, seen=seen
    )
    other = make_biz("other")
    other.run("sys.addaudithook(lambda event, args: event == 'tests.ping' and seen.append(2))", sys=sys, seen=seen)
    sys.audit("tests.ping")
    assert seen == ["K", 2]
    assert biz.leave().clean
    sys.audit("tests.ping")
    assert seen == ["K", 2, 2]
    report = other.leave()
    assert report.clean, report
    sys.audit("tests.ping")
    assert seen == ["K", 2, 2]


def test_an_audit_hook_forbids_nothing_to_others(biz: TinyBiz, caplog: pytest.LogCaptureFixture) -> None:
    biz.run(
        """
        def hook(event, args):
            if event == "tests.forbidden":
                raise LookupError("no")
        sys.addaudithook(hook)
        with pytest.raises(LookupError, match="no"):
            sys.audit("tests.forbidden")
        """,
        sys=sys,
        pytest=pytest,
    )
    for _ in range(2):
        sys.audit("tests.forbidden")
    said = f"an audit hook of biz {biz.scope.biz} is called no more: LookupError: no, at 'tests.forbidden' of others"
    assert [record.getMessage() for record in caplog.records] == [said]
    assert biz.leave().clean


def test_fork_hooks_are_emptied(biz: TinyBiz) -> None:
    seen: list[Any] = []
    biz.run("os.register_at_fork(before=lambda: seen.append(K.__name__))", os=os, seen=seen)
    report = biz.leave()
    assert report.clean, report
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert seen == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (sys, "excepthook"),
        (sys, "unraisablehook"),
        (sys, "displayhook"),
        (sys, "stdout"),
        (threading, "excepthook"),
    ],
)
def test_a_hook_of_the_interpreter_is_put_back(biz: TinyBiz, module: Any, name: Any) -> None:
    before = getattr(module, name)
    value = "K()" if name == "stdout" else "reach"
    try:
        biz.run(f"module.{name} = {value}", module=module)
        assert getattr(module, name) is not before
        report = biz.leave()
        assert report.clean, report
        assert report.undone == {"hook": 1}
        assert getattr(module, name) is not None
    finally:
        setattr(module, name, before)


def test_a_hook_of_the_base_stays(biz: TinyBiz, monkeypatch: pytest.MonkeyPatch) -> None:
    def own(*args: Any) -> Any:
        pass

    monkeypatch.setattr(sys, "excepthook", own)
    biz.run("pass")
    biz.leave()
    assert sys.excepthook is own


@pytest.mark.parametrize(
    ("names", "value"),
    [("gc.callbacks", "reach"), ("sys.path_hooks", "K"), ("sys.meta_path", "K()")],
)
def test_what_a_biz_appends_to_a_list_of_the_interpreter_is_taken_out(biz: TinyBiz, names: Any, value: Any) -> None:
    module, name = names.split(".")
    listed = getattr({"gc": gc, "sys": sys}[module], name)
    before = list(listed)
    try:
        biz.run(f"{names}.insert(0, {value})", gc=gc, sys=sys)
        report = biz.leave()
        assert report.clean, report
        assert listed == before
    finally:
        listed[:] = before


def test_a_stored_exception_of_the_biz_is_forgotten(biz: TinyBiz) -> None:
    biz.run(
        """
        try:
            K().reach().nothing
        except AttributeError as error:
            sys.last_value = error
            sys.last_traceback = error.__traceback__
            sys.last_type = type(error)
        """,
        sys=sys,
    )
    report = biz.leave()
    assert report.clean, report
    assert not hasattr(sys, "last_value")
    assert not hasattr(sys, "last_traceback")


def test_a_stored_exception_of_the_base_stays(biz: TinyBiz, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError()
    monkeypatch.setattr(sys, "last_value", error, raising=False)
    biz.run("pass")
    biz.leave()
    assert sys.last_value is error


class Shared:
    pass


def test_a_finaliser_on_a_shared_object_is_run_once_and_detached(biz: TinyBiz) -> None:
    said: list[Any] = []
    own: list[Any] = []
    shared = Shared()
    weakref.finalize(shared, own.append, 1)
    biz.run(
        "weakref.finalize(shared, lambda: said.append(K.__name__))\n"
        "quiet = weakref.finalize(shared, reach)\nquiet.atexit = False",
        weakref=weakref,
        shared=shared,
        said=said,
    )
    report = biz.leave()
    assert report.clean, report
    assert said == ["K"]
    assert report.undone == {"finalizer": 2}
    del shared
    assert said == ["K"]
    assert own == [1]


def test_a_finaliser_that_raises_is_not_fatal(biz: TinyBiz, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_type))
    shared = Shared()
    biz.run("weakref.finalize(shared, lambda: 1 / len(K.__name__[:0]))", weakref=weakref, shared=shared)
    report = biz.leave()
    assert report.clean, report
    assert seen == [ZeroDivisionError]


def test_source_lines_of_the_biz_leave_the_line_cache(biz: TinyBiz) -> None:
    module = biz.run("pass", name="lines")
    module.__file__ = "/biz/lines.py"
    linecache.cache["/biz/lines.py"] = (4, None, ["pass\n"], "/biz/lines.py")
    del module
    biz.leave()
    assert "/biz/lines.py" not in linecache.cache

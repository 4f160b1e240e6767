"""What becomes of a biz's logging when it leaves, and of the module when the views do."""

import gc
import io
import logging
import logging.config
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from koupleless.context import Scope, entered
from koupleless.view.logging.logs import LOGS, LogSpace

MakeBiz = Callable[..., Scope]

pytestmark = pytest.mark.usefixtures("with_logs")


def test_closing_closes_what_the_biz_opened_newest_first_and_nothing_else(
    keeping: Any, make_biz: MakeBiz, of_base: Any
) -> None:
    scope = make_biz()
    closed = []

    class Noting(keeping):  # type: ignore[misc]
        def close(self) -> None:
            closed.append(self)
            super().close()

    with entered(scope):
        first, second = Noting(), Noting()
        first.set_name("console")
        logging.getLogger().addHandler(first)
        logging.getLogger("app").addHandler(second)
    of_base.set_name("console")
    assert scope.facet(LogSpace).close() == ()
    assert closed == [second, first]
    assert not of_base.is_closed
    assert vars(logging)["_handlers"]["console"] is of_base
    assert scope.facet(LogSpace).close() == ()
    assert closed == [second, first]


def test_handlers_that_fail_to_close_are_reported_and_keep_no_other_from_closing(
    keeping: Any, make_biz: MakeBiz
) -> None:
    class Failing(logging.Handler):
        def flush(self) -> None:
            raise OSError("disk full")

    scope = make_biz()
    with entered(scope):
        kept, failing = keeping(), Failing()
        logging.getLogger().addHandler(kept)
        logging.getLogger().addHandler(failing)
    assert scope.facet(LogSpace).close() == ("log handler Failing failed to close: OSError: disk full",)
    assert kept.is_closed


def test_a_handler_that_a_thread_is_writing_to_is_reported_and_not_waited_for_for_ever(
    keeping: Any, make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koupleless.view.logging.logspace._BUSY_S", 0.01)
    scope, entered_lock, leave = make_biz(), threading.Event(), threading.Event()
    with entered(scope):
        kept = keeping()

    def write() -> None:
        with kept.lock:
            entered_lock.set()
            leave.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    assert entered_lock.wait(10)
    failures = scope.facet(LogSpace).close()
    leave.set()
    thread.join(10)
    assert failures == ("log handler Kept was not closed: a thread is writing to it",)


def test_a_logger_that_outlives_its_biz_writes_through_the_base(keeping: Any, make_biz: MakeBiz, of_base: Any) -> None:
    scope = make_biz()
    with entered(scope):
        logger = logging.getLogger("app")
        logging.getLogger().addHandler(keeping())
    scope.facet(LogSpace).close()
    scope.close()
    logger.warning("late")
    assert of_base.messages == ["late"]
    assert of_base.records[0].biz == "hello:1.0"


def test_nothing_in_the_process_holds_handlers_loggers_or_classes_of_a_biz_that_left(
    make_biz: MakeBiz, library: logging.Logger
) -> None:
    class Own(logging.Logger):
        pass

    class OwnHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            pass

    scope = make_biz()
    with entered(scope):
        logging.setLoggerClass(Own)
        logging.addLevelName(15, "NOTICE")
        logging.setLogRecordFactory(type("OwnRecord", (logging.LogRecord,), {}))
        handler = OwnHandler()
        handler.set_name("own")
        logging.getLogger("app").addHandler(handler)
        library.addHandler(handler)
        logging.getLogger("app").warning("x")
        watched: list[weakref.ref[Any]] = [
            weakref.ref(thing) for thing in (handler, logging.getLogger("app"), scope.facet(LogSpace))
        ]
        watched += [weakref.ref(Own), weakref.ref(OwnHandler), weakref.ref(logging.getLogRecordFactory())]
    assert scope.facet(LogSpace).close() == ()
    scope.close()
    del handler, Own, OwnHandler
    gc.collect()
    assert [ref() for ref in watched] == [None] * len(watched)


def test_a_handler_of_the_base_that_is_collected_while_a_biz_runs_leaves_no_reference_behind(
    keeping: Any, make_biz: MakeBiz
) -> None:
    gc.collect()
    before = len(vars(logging)["_handlerList"])
    handler = keeping()
    with entered(make_biz()):
        del handler
        gc.collect()
    assert len(vars(logging)["_handlerList"]) == before


# --- installing ---------------------------------------------------------------------------------------------------


def snapshot() -> Any:
    return {
        **{f"logging.{name}": value for name, value in vars(logging).items()},
        **{f"Logger.{name}": value for name, value in vars(logging.Logger).items()},
        "root": type(logging.root),
        "manager": type(logging.Logger.manager),
        "showwarning": warnings.showwarning,
    }


def test_the_last_removal_restores_the_logging_module_exactly(make_biz: MakeBiz, with_warnings: None) -> None:
    LOGS.release()
    before = snapshot()
    LOGS.acquire()
    LOGS.acquire()
    with entered(make_biz()):
        logging.addLevelName(15, "NOTICE")
        logging.setLogRecordFactory(type("Other", (logging.LogRecord,), {}))
        logging.captureWarnings(True)
        logging.basicConfig(stream=io.StringIO())
        logging.getLogger("app").warning("x")
    LOGS.release()
    with entered(make_biz()):
        assert logging.getLogger("of.a.biz") is not None
    assert "of.a.biz" not in logging.root.manager.loggerDict
    LOGS.release()
    after = snapshot()
    LOGS.acquire()
    assert [name for name in before if before[name] is not after.get(name)] == []
    assert before.keys() == after.keys()


def test_the_base_can_be_configured_as_ever_while_bizs_are_there(make_biz: MakeBiz) -> None:
    make_biz()
    stream, handlers, level = io.StringIO(), list(logging.root.handlers), logging.root.level
    logging.root.handlers = []
    try:
        logging.basicConfig(stream=stream, level=logging.DEBUG, format="%(message)s")
        logging.debug("root")  # noqa: LOG015 - what is tested
        logging.getLogger("app").debug("named")
        assert logging.root.isEnabledFor(logging.DEBUG)
        assert logging.root.hasHandlers()
    finally:
        logging.root.handlers = handlers
        logging.root.setLevel(level)
    assert stream.getvalue() == "root\nnamed\n"


def test_many_threads_log_each_to_its_own_biz(keeping: Any, make_biz: MakeBiz) -> None:
    kept = {}

    def run(name: Any) -> None:
        scope = make_biz(name)
        handler = kept[name] = keeping()
        with entered(scope):
            logging.getLogger().addHandler(handler)
            for number in range(100):
                logging.getLogger(f"app.{number % 7}").warning("%s", name)
                library.warning("%s", name)

    library = logging.getLogger("test_logs_library.part")
    threads = [threading.Thread(target=run, args=(f"biz{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {name: set(handler.messages) for name, handler in kept.items()} == {name: {name} for name in kept}
    assert {len(handler.messages) for handler in kept.values()} == {200}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="these functions came with 3.12")
def test_handlers_are_found_by_name_in_the_biz_that_named_them(keeping: Any, make_biz: MakeBiz) -> None:
    with entered(make_biz("one")):
        handler = keeping()
        handler.name = "own"
        assert vars(logging)["getHandlerByName"]("own") is handler
        assert vars(logging)["getHandlerNames"]() == {"own"}
    assert vars(logging)["getHandlerByName"]("own") is None

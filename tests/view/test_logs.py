"""Whose loggers, and where records go, with several bizs and the base in one process."""

import io
import logging
import logging.config
import logging.handlers
import pickle
import queue
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.view.logging.logs import LogSpace

MakeBiz = Callable[..., Scope]

pytestmark = pytest.mark.usefixtures("with_logs")


def test_same_names_are_different_loggers_in_each_biz_and_in_the_base(make_biz: MakeBiz) -> None:
    loggers = [logging.getLogger("app")]
    for name in ("one", "two"):
        with entered(make_biz(name)):
            assert logging.getLogger("app") is logging.getLogger("app")
            loggers.append(logging.getLogger("app"))
    assert len(set(map(id, loggers))) == 3
    assert {logger.name for logger in loggers} == {"app"}


def test_names_of_a_biz_are_not_in_the_table_of_the_base(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        logging.getLogger("only.in.a.biz")
        assert "only.in.a.biz" in logging.root.manager.loggerDict
    assert not [name for name in logging.root.manager.loggerDict if name.startswith("only")]


def test_without_configuration_records_of_a_biz_go_to_the_base_and_name_the_biz(
    make_biz: MakeBiz, of_base: Any
) -> None:
    with entered(make_biz("hello", "1.0")):
        logging.getLogger("app").info("from the biz")
        logging.getLogger().warning("from its root")
    assert of_base.messages == ["from the biz", "from its root"]
    assert [record.biz for record in of_base.records] == ["hello:1.0", "hello:1.0"]
    assert [record.name for record in of_base.records] == ["app", "root"]


def test_a_program_that_is_alone_in_its_process_gets_a_handler_as_without_a_base(capsys: Any) -> None:
    scope = Scope(BizId.of("program", "0"))
    space = LogSpace(scope, has_process=True)
    scope.attach(space)
    with entered(scope):
        logging.getLogger().setLevel(logging.DEBUG)
        logging.debug("seen")  # noqa: LOG015 - the function that makes one
        assert len(logging.getLogger().handlers) == 1
    space.close()
    scope.close()
    assert capsys.readouterr().err == "DEBUG:root:seen\n"


def test_handlers_of_the_base_run_as_the_base(make_biz: MakeBiz, of_base: Any) -> None:
    with entered(make_biz()):
        logging.getLogger("app").info("x")
    assert of_base.runners == [None]


def test_records_of_the_base_do_not_name_a_biz(make_biz: MakeBiz, of_base: Any) -> None:
    make_biz()
    logging.getLogger("app").info("x")
    assert not hasattr(of_base.records[0], "biz")


def test_records_have_for_the_code_of_a_biz_what_they_have_alone(
    keeping: Any, make_biz: MakeBiz, of_base: Any, library: logging.Logger
) -> None:
    """Formatters of JSON write every attribute that is not logging's own."""
    kept = keeping()
    seen: list[logging.LogRecord] = []

    def keep(record: logging.LogRecord) -> bool:
        seen.append(record)
        return True

    with entered(make_biz()):
        logger = logging.getLogger("app")
        logger.addFilter(keep)
        logger.info("passed on", extra={"mine": 1})
        logging.getLogger().addHandler(kept)
        logger.error("kept")
        library.error("of a shared library")
    alone = set(vars(logging.makeLogRecord({})))
    assert [record.getMessage() for record in seen] == ["passed on", "kept"]
    assert kept.messages == ["kept", "of a shared library"]
    for record in (*seen, *kept.records):
        assert vars(record).keys() - alone <= {"mine", "message"}
    assert vars(of_base.records[0]).keys() - alone == {"mine", "message", "biz"}


@pytest.mark.parametrize(
    ("style", "text"), [("%", "%(biz)s %(message)s"), ("{", "{biz} {message}"), ("$", "$biz $message")]
)
def test_formatters_of_the_base_name_the_biz_also_behind_a_queue_or_a_socket(
    make_biz: MakeBiz, of_base: Any, style: Any, text: str
) -> None:
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handlers = [logging.handlers.QueueHandler(waiting), Sent()]
    for handler in handlers:
        logging.root.addHandler(handler)
    try:
        with entered(make_biz()):
            logging.getLogger("app").info("x %s", 1)
    finally:
        for handler in handlers:
            logging.root.removeHandler(handler)
    formatter = logging.Formatter(text, style=style)
    queued = pickle.loads(pickle.dumps(waiting.get_nowait()))
    sent = logging.makeLogRecord(pickle.loads(handlers[1].sent[4:]))  # type: ignore[attr-defined]
    assert [formatter.format(record) for record in (of_base.records[0], queued, sent)] == ["hello:1.0 x 1"] * 3


class Sent(logging.handlers.SocketHandler):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__("localhost", 9)

    def send(self, s: Any) -> None:
        self.sent = s


def test_without_configuration_the_levels_of_the_base_count_also_when_they_change(
    make_biz: MakeBiz, of_base: Any
) -> None:
    with entered(make_biz()):
        logger = logging.getLogger("app")
        logger.debug("too low")
        assert not logger.isEnabledFor(logging.DEBUG)
    logging.root.setLevel(logging.DEBUG)
    with entered(make_biz()):
        logger.debug("now")
    assert of_base.messages == ["now"]


def test_a_level_the_base_set_for_a_name_counts_for_that_name_in_a_biz(
    make_biz: MakeBiz, of_base: Any, library: logging.Logger
) -> None:
    library.setLevel(logging.ERROR)
    with entered(make_biz()):
        logging.getLogger(library.name).warning("below")
        logging.getLogger(library.name + ".child").warning("below, too")
        logging.getLogger(library.name).error("above")
    assert of_base.messages == ["above"]


def test_logging_disabled_in_the_base_is_disabled_for_what_bizs_pass_on(make_biz: MakeBiz, of_base: Any) -> None:
    logging.disable(logging.CRITICAL)
    try:
        with entered(make_biz()):
            logging.getLogger("app").error("x")
    finally:
        logging.disable(logging.NOTSET)
    assert of_base.messages == []


def test_basic_config_in_a_biz_configures_that_biz_alone(make_biz: MakeBiz, of_base: Any) -> None:
    stream = io.StringIO()
    handlers = list(logging.root.handlers)
    one, two = make_biz("one"), make_biz("two")
    with entered(one):
        logging.basicConfig(stream=stream, level=logging.DEBUG, format="mine %(name)s %(message)s")
        logging.getLogger("app").debug("own")
        logging.info("root")  # noqa: LOG015 - what is tested
        assert len(logging.root.handlers) == 1
        assert logging.getLogger().level == logging.DEBUG
    with entered(two):
        logging.getLogger("app").info("other")
    logging.getLogger("app").info("base")
    assert stream.getvalue() == "mine app own\nmine root root\n"
    assert of_base.messages == ["other", "base"]
    assert logging.root.handlers == handlers
    assert logging.root.level == logging.INFO


def test_a_biz_that_adds_a_handler_has_the_level_of_a_fresh_process(
    keeping: Any, make_biz: MakeBiz, of_base: Any
) -> None:
    kept = keeping()
    with entered(make_biz()):
        logger = logging.getLogger("app")
        assert logger.isEnabledFor(logging.INFO)
        logging.getLogger().addHandler(kept)
        assert logger.getEffectiveLevel() == logging.WARNING
        logger.info("x")
        logging.getLogger().setLevel(logging.INFO)
        logger.info("y")
    assert kept.messages == ["y"]
    assert of_base.messages == []


def test_the_configuration_that_logging_makes_up_by_itself_is_none(
    make_biz: MakeBiz, of_base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with entered(make_biz()):
        logging.warning("x")  # noqa: LOG015 - what is tested
        assert logging.root.handlers == []
        logging.basicConfig()
        assert len(logging.root.handlers) == 1
    assert of_base.messages == ["x"]


def test_a_handler_on_a_named_logger_keeps_only_its_records_from_the_base(
    keeping: Any, make_biz: MakeBiz, of_base: Any
) -> None:
    kept = keeping()
    with entered(make_biz()):
        logging.getLogger("app").addHandler(kept)
        logging.getLogger("app.part").warning("kept")
        logging.getLogger("else").warning("passed on")
    assert (kept.messages, of_base.messages) == (["kept"], ["passed on"])


def test_a_logger_of_a_biz_delivers_to_the_biz_from_any_context(keeping: Any, make_biz: MakeBiz, of_base: Any) -> None:
    kept = keeping()
    with entered(make_biz("one")):
        logger = logging.getLogger("app")
        logging.getLogger().addHandler(kept)
    logger.warning("as the base")
    with entered(make_biz("two")):
        logger.warning("as another biz")
    thread = threading.Thread(target=logger.warning, args=("on a thread",))
    thread.start()
    thread.join(10)
    assert kept.messages == ["as the base", "as another biz", "on a thread"]
    assert of_base.messages == []


def test_filters_and_propagation_work_in_a_biz(keeping: Any, make_biz: MakeBiz, of_base: Any) -> None:
    kept = keeping(level=logging.WARNING)
    with entered(make_biz()):
        logger = logging.getLogger("app.part")
        logging.getLogger().addHandler(kept)
        logging.getLogger().setLevel(logging.DEBUG)
        logger.addFilter(lambda record: "secret" not in record.getMessage())
        logger.warning("seen")
        logger.warning("secret")
        logger.info("below the handler's level")
        logger.disabled = True
        logger.warning("disabled")
        logger.disabled = False
        logging.getLogger("app").propagate = False
        logger.warning("nowhere to go but the base")
    assert kept.messages == ["seen"]
    assert of_base.messages == ["nowhere to go but the base"]


def test_a_patch_of_the_delivery_sees_the_records_of_a_module_and_they_arrive(
    keeping: Any, make_biz: MakeBiz, of_base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Sentry's for its breadcrumbs."""
    seen: list[str] = []
    before = logging.Logger.callHandlers

    def patched(self: logging.Logger, record: logging.LogRecord) -> None:
        seen.append(record.getMessage())
        before(self, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", patched)
    with entered(make_biz()):
        logging.getLogger("app").warning("of the base's handlers")
        logging.getLogger("app").addHandler(keeping())
        logging.getLogger("app").warning("of its own")
    assert seen == ["of the base's handlers", "of the base's handlers", "of its own"]  # the first by both loggers
    assert of_base.messages == ["of the base's handlers"]


def test_a_logger_class_of_a_module_may_deliver_by_itself(make_biz: MakeBiz, of_base: Any) -> None:
    class Counting(logging.Logger):
        count = 0

        def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
            Counting.count += 1
            super().callHandlers(record)

    with entered(make_biz()):
        logging.setLoggerClass(Counting)
        logging.getLogger("app").warning("x")
    assert (Counting.count, of_base.messages) == (1, ["x"])


# --- loggers of shared libraries ----------------------------------------------------------------------------------


def test_a_shared_library_writes_to_the_biz_it_works_for(
    keeping: Any, make_biz: MakeBiz, of_base: Any, library: logging.Logger
) -> None:
    kept = keeping()
    with entered(make_biz()):
        logging.getLogger().addHandler(kept)
        library.warning("for the biz")
    library.warning("for the base")
    assert (kept.messages, of_base.messages) == (["for the biz"], ["for the base"])
    assert kept.records[0].name == library.name


def test_a_shared_library_is_as_talkative_as_the_biz_it_works_for_wants(
    keeping: Any, make_biz: MakeBiz, of_base: Any, library: logging.Logger
) -> None:
    kept = keeping()
    with entered(make_biz()):
        logging.getLogger().addHandler(kept)
        logging.getLogger(library.name).setLevel(logging.DEBUG)
        assert library.isEnabledFor(logging.DEBUG)
        assert library.getEffectiveLevel() == logging.DEBUG
        library.debug("details")
    assert not library.isEnabledFor(logging.DEBUG)
    library.debug("not in the base")
    assert (kept.messages, of_base.messages) == (["details"], [])


def test_a_level_that_a_shared_library_has_set_at_its_import_holds_in_a_biz(
    keeping: Any, make_biz: MakeBiz, library: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SQLAlchemy does, whose statements are logged at INFO; the logger above the setting one is asked, too."""
    kept = keeping()
    package = library.name.partition(".")[0]
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    of_package = logging.getLogger(package)
    of_package.setLevel(logging.WARNING)
    try:
        with entered(make_biz()):
            logging.getLogger().addHandler(kept)
            logging.getLogger().setLevel(logging.DEBUG)
            library.info("a statement")
            logging.getLogger(f"{package}.other").info("of a logger that only the biz has")
            logging.getLogger("app").debug("of the biz")
            assert library.getEffectiveLevel() == logging.WARNING
            library.setLevel(logging.INFO)
            library.info("asked for")
    finally:
        of_package.setLevel(logging.NOTSET)
    assert kept.messages == ["of the biz", "asked for"]


def test_a_level_that_the_base_has_set_for_a_name_of_its_own_code_does_not_hold_in_a_biz(
    keeping: Any, make_biz: MakeBiz, library: logging.Logger
) -> None:
    kept = keeping()
    library.setLevel(logging.ERROR)
    with entered(make_biz()):
        logging.getLogger().addHandler(kept)
        logging.getLogger(library.name).warning("x")
    assert kept.messages == ["x"]


def test_what_a_biz_does_to_the_logger_of_a_shared_library_stays_with_the_biz(
    keeping: Any, make_biz: MakeBiz, of_base: Any, library: logging.Logger
) -> None:
    kept = keeping()

    def deny(record: logging.LogRecord) -> Any:
        return False

    with entered(make_biz()):
        library.addHandler(kept)
        library.setLevel(logging.ERROR)
        library.error("kept")
        library.addFilter(deny)
        library.error("denied")
        library.removeFilter(deny)
        library.removeHandler(kept)
        library.error("passed on")
    assert library.handlers == []
    assert library.filters == []
    assert library.level == logging.NOTSET
    assert (kept.messages, of_base.messages) == (["kept"], ["passed on"])


def test_the_root_logger_that_somebody_kept_is_the_root_of_whoever_runs(
    keeping: Any, make_biz: MakeBiz, of_base: Any
) -> None:
    kept, root = keeping(), logging.getLogger()
    with entered(make_biz()):
        assert logging.getLogger() is root
        root.addHandler(kept)
        root.warning("x")
        assert root.handlers == [kept]
        root.handlers = []
        root.warning("y")
    assert (kept.messages, of_base.messages) == (["x"], ["y"])


def test_a_logger_that_is_in_no_table_is_left_alone(keeping: Any, make_biz: MakeBiz, of_base: Any) -> None:
    kept = keeping()
    private = logging.Logger("private")  # noqa: LOG001 - what is tested
    private.addHandler(kept)
    with entered(make_biz()):
        private.warning("x")
        private.addFilter(lambda record: False)
        private.warning("y")
    private.warning("z")
    assert (kept.messages, of_base.messages) == (["x"], [])

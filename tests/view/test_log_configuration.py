"""A biz configures its logging, and neither the base nor another biz notices."""

import io
import logging
import logging.config
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koupleless.context import Scope, entered
from koupleless.view.logging.logbook import Logbook
from koupleless.view.logging.logs import LogSpace

MakeBiz = Callable[..., Scope]

pytestmark = pytest.mark.usefixtures("with_logs")


def dict_config(stream: io.StringIO, **more: Any) -> Any:
    return {
        "version": 1,
        "formatters": {"short": {"format": "%(name)s %(message)s"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "stream": stream, "formatter": "short"}},
        "root": {"level": "INFO", "handlers": ["out"]},
        **more,
    }


def test_dict_config_in_a_biz_leaves_handlers_and_loggers_of_others_as_they_are(
    keeping: Any, make_biz: MakeBiz, of_base: Any, library: logging.Logger
) -> None:
    stream, other_handler = io.StringIO(), keeping()
    of_base.set_name("out")
    other = make_biz("other")
    with entered(other):
        logging.getLogger().addHandler(other_handler)
        logger_of_other = logging.getLogger("app")
    with entered(make_biz("one")):
        early = logging.getLogger("early")
        logging.config.dictConfig(dict_config(stream, disable_existing_loggers=True))
        logging.getLogger("app").info("configured")
        assert early.disabled
        early.error("disabled")
        library.info("library")
    assert not library.disabled
    assert not logger_of_other.disabled
    assert not of_base.is_closed
    assert not other_handler.is_closed
    library.info("base")
    logger_of_other.warning("other")
    assert stream.getvalue() == "app configured\n" + f"{library.name} library\n"
    assert (of_base.messages, other_handler.messages) == (["base"], ["other"])


def test_dict_config_in_the_base_leaves_bizs_as_they_are(keeping: Any, make_biz: MakeBiz, of_base: Any) -> None:
    kept, handlers, level = keeping(), list(logging.root.handlers), logging.root.level
    with entered(make_biz()):
        logger = logging.getLogger("app")
        logging.getLogger().addHandler(kept)
    try:
        logging.config.dictConfig({"version": 1, "incremental": True, "root": {"level": "DEBUG"}})
        assert logging.root.level == logging.DEBUG
        logger.warning("x")
        assert not logger.disabled
        assert not kept.is_closed
    finally:
        logging.root.handlers = handlers
        logging.root.setLevel(level)
    assert kept.messages == ["x"]


def test_a_handler_is_found_by_name_for_incremental_configuration_in_its_own_biz(make_biz: MakeBiz) -> None:
    stream = io.StringIO()
    with entered(make_biz("one")):
        logging.config.dictConfig(dict_config(stream))
        logging.config.dictConfig({"version": 1, "incremental": True, "handlers": {"out": {"level": "ERROR"}}})
        assert logging.root.handlers[0].level == logging.ERROR
    with entered(make_biz("two")), pytest.raises(ValueError, match="out"):
        logging.config.dictConfig({"version": 1, "incremental": True, "handlers": {"out": {"level": "ERROR"}}})


def test_file_config_in_a_biz_configures_that_biz_alone(make_biz: MakeBiz, of_base: Any, tmp_path: Path) -> None:
    file = tmp_path / "logging.ini"
    file.write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=out\n[formatters]\nkeys=\n"
        "[logger_root]\nlevel=INFO\nhandlers=out\n"
        f"[handler_out]\nclass=FileHandler\nargs=({str(tmp_path / 'out.log')!r},)\n"
    )
    with entered(make_biz()):
        logging.config.fileConfig(file)
        logging.getLogger("app").info("to the file")
    logging.getLogger("app").info("base")
    assert (tmp_path / "out.log").read_text() == "to the file\n"
    assert of_base.messages == ["base"]
    assert not of_base.is_closed


def test_shutdown_in_a_biz_closes_its_own_handlers_only(keeping: Any, make_biz: MakeBiz, of_base: Any) -> None:
    with entered(make_biz()):
        kept = keeping()
        logging.getLogger().addHandler(kept)
        logging.shutdown()
    assert kept.is_closed
    assert not of_base.is_closed


def test_disable_in_a_biz_silences_that_biz_alone(make_biz: MakeBiz, of_base: Any) -> None:
    with entered(make_biz("one")):
        logging.disable(logging.ERROR)
        logging.getLogger("app").error("silent")
    with entered(make_biz("two")):
        logging.getLogger("app").error("other")
    logging.getLogger("app").error("base")
    assert of_base.messages == ["other", "base"]


def test_a_logger_class_of_a_biz_is_that_of_its_loggers_only(make_biz: MakeBiz, of_base: Any) -> None:
    class Polite(logging.Logger):
        def thank(self) -> None:
            self.info("thank you")

    with entered(make_biz("one")):
        logging.setLoggerClass(Polite)
        assert logging.getLoggerClass() is Polite
        logging.getLogger("app").thank()  # type: ignore[attr-defined]
    with entered(make_biz("two")):
        assert logging.getLoggerClass() is logging.Logger
        assert type(logging.getLogger("app")) is logging.Logger
    assert logging.getLoggerClass() is logging.Logger
    assert of_base.messages == ["thank you"]


def test_level_names_of_a_biz_are_its_own(make_biz: MakeBiz, of_base: Any) -> None:
    with entered(make_biz("one")):
        logging.addLevelName(15, "NOTICE")
        assert logging.getLevelName(15) == "NOTICE"
        assert logging.getLevelNamesMapping()["NOTICE"] == 15
        logging.getLogger("app").setLevel("NOTICE")
        assert logging.getLogger("app").level == 15
    with entered(make_biz("two")):
        logging.addLevelName(15, "OTHER")
        assert logging.getLevelName(15) == "OTHER"
    with entered(make_biz("three")):
        assert logging.getLevelName(15) == "Level 15"
        with pytest.raises(ValueError, match="NOTICE"):
            logging.getLogger("app").setLevel("NOTICE")
    assert logging.getLevelName(15) == "Level 15"
    assert logging.getLevelName("INFO") == logging.INFO


def test_a_record_factory_of_a_biz_makes_its_records_only(make_biz: MakeBiz, of_base: Any) -> None:
    class Marked(logging.LogRecord):
        pass

    original = logging.getLogRecordFactory()
    with entered(make_biz("one")):
        logging.setLogRecordFactory(Marked)
        assert logging.getLogRecordFactory() is Marked
        logging.getLogger("app").info("x")
    with entered(make_biz("two")):
        logging.getLogger("app").info("y")
    assert logging.getLogRecordFactory() is original
    logging.getLogger("app").info("z")
    assert [type(record) is Marked for record in of_base.records] == [True, False, False]


def test_the_base_changes_its_record_factory_while_a_biz_has_one(make_biz: MakeBiz, of_base: Any) -> None:
    class Marked(logging.LogRecord):
        pass

    original = logging.getLogRecordFactory()
    with entered(make_biz("one")):
        logging.setLogRecordFactory(type("Other", (logging.LogRecord,), {}))
    logging.setLogRecordFactory(Marked)
    try:
        logging.getLogger("app").info("x")
        assert type(of_base.records[0]) is Marked
    finally:
        logging.setLogRecordFactory(original)


def test_captured_warnings_of_a_biz_go_to_its_logging_and_those_of_others_do_not(
    keeping: Any, make_biz: MakeBiz, with_warnings: None
) -> None:
    kept, shown = keeping(), []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest: shown.append(str(message))
        with entered(make_biz("one")):
            logging.getLogger().addHandler(kept)
            logging.captureWarnings(True)
            warnings.warn("of one", stacklevel=1)
        with entered(make_biz("two")):
            warnings.warn("of two", stacklevel=1)
        warnings.warn("of the base", stacklevel=1)
    assert [record.name for record in kept.records] == ["py.warnings"]
    assert "of one" in kept.messages[0]
    assert shown == ["of two", "of the base"]


# --- the biz's own file -------------------------------------------------------------------------------------------


def test_with_a_file_the_records_of_a_biz_go_there_and_not_to_the_base(
    make_biz: MakeBiz, of_base: Any, library: logging.Logger, tmp_path: Path
) -> None:
    file = tmp_path / "hello" / "hello.log"
    with entered(make_biz("hello", "1.0", file=file, level="INFO")):
        logging.getLogger("app").info("own")
        library.info("library")
        logging.getLogger("app").debug("below")
    lines = file.read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO hello:1.0 app: own",
        f"INFO hello:1.0 {library.name}: library",
    ]
    assert of_base.messages == []


def test_the_file_gets_what_the_handlers_of_the_biz_get_and_outlives_its_reconfiguration(
    make_biz: MakeBiz, tmp_path: Path
) -> None:
    file, stream = tmp_path / "hello.log", io.StringIO()
    with entered(make_biz(file=file)):
        logging.config.dictConfig(dict_config(stream))
        logging.getLogger("app").info("both")
        logging.config.dictConfig(dict_config(stream, disable_existing_loggers=False))
        logging.getLogger("app").info("again")
    assert stream.getvalue() == "app both\napp again\n"
    assert [line.split(": ")[1] for line in file.read_text().splitlines()] == ["both", "again"]


def test_a_configuration_gives_levels_and_the_file(make_biz: MakeBiz, tmp_path: Path) -> None:
    scope = make_biz("hello")
    values = {"logging.level.root": "warning", "logging.level.app.db": 10, "logging.file.name": "own.log"}
    space = LogSpace.from_configuration(scope, values, logbook=Logbook(directory=tmp_path))
    scope.attach(space)
    with entered(scope):
        logging.getLogger("app.db").debug("db")
        logging.getLogger("app").info("below")
    assert [line.split(": ")[1] for line in (tmp_path / "hello" / "own.log").read_text().splitlines()] == ["db"]
    space.close()


def test_without_a_directory_there_is_no_file_unless_its_name_is_absolute(make_biz: MakeBiz, tmp_path: Path) -> None:
    scope = make_biz("hello")
    LogSpace.from_configuration(scope, {"logging.file.name": "own.log"}).close()
    space = LogSpace.from_configuration(scope, {"logging.file.name": str(tmp_path / "own.log")})
    scope.attach(space)
    with entered(scope):
        logging.getLogger("app").warning("x")
    assert "app: x" in (tmp_path / "own.log").read_text()
    space.close()


def test_a_level_that_does_not_exist_is_refused(make_biz: MakeBiz) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        LogSpace.from_configuration(make_biz(), {"logging.level.root": "loud"})

"""Configurations of the logging of a base, from files and for programs."""

import io
import json
import logging
import logging.config
from pathlib import Path

import pytest

from koupleless.errors import SettingsError
from koupleless.view.logging.configured import json_configuration, read_configuration


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.json", '{"root": {"level": "INFO"}}'),
        ("log.toml", '[root]\nlevel = "INFO"\n'),
        ("log.yaml", "root:\n  level: INFO\n"),
        ("log.yml", "{root: {level: INFO}}"),
    ],
)
def test_a_file_is_read_and_leaves_loggers_enabled(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_configuration(path) == {"version": 1, "disable_existing_loggers": False, "root": {"level": "INFO"}}


def test_the_file_may_say_otherwise_and_the_ini_form_stands_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{"disable_existing_loggers": true}')
    assert read_configuration(path) == {"version": 1, "disable_existing_loggers": True}
    path = tmp_path / "log.ini"
    path.write_text("[loggers]\n")
    assert read_configuration(path) == str(path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("log.json", "{", "cannot be read"),
        ("log.toml", "=", "cannot be read"),
        ("log.yaml", "a: [", "cannot be read"),
        ("log.json", "[]", "has to hold a table"),
        ("none.json", None, "there is no file"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_configuration(tmp_path / name)


def test_programs_get_the_lines_of_the_server_as_objects() -> None:
    stream = io.StringIO()
    configuration = json_configuration("INFO")
    configuration["handlers"]["stderr"]["stream"] = stream
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.access")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    try:
        logging.config.dictConfig(configuration)
        logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', "1.2.3.4:5", "GET", "/x", "1.1", 200)
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
    found = json.loads(stream.getvalue())
    assert (found["logger"], found["message"]) == ("uvicorn.access", '1.2.3.4:5 - "GET /x HTTP/1.1" 200')
    assert "biz" not in found

"""Configurations of the logging of a base, in the form of `logging.config.dictConfig`, for its server."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from koupleless.errors import SettingsError
from koupleless.view.logging.lines import JsonLines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def json_configuration(level: str) -> dict[str, Any]:
    """Make a configuration by which uvicorn writes a JSON object a line to stderr."""
    plain = {"handlers": ["stderr"], "level": level, "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "koupleless.view.logging.lines.LinesFormatter", "lines": JsonLines()}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "loggers": {"uvicorn": plain, "uvicorn.access": plain},
    }


def read_configuration(path: Path) -> dict[str, Any] | str:
    """Read a configuration file; the path of a file in the INI form stands for itself.

    Loggers that exist already stay enabled unless the file says otherwise: those of the base exist by then. Raises
    ``SettingsError``.
    """
    if not path.is_file():
        raise SettingsError(f"log-config: there is no file {path}")
    readers: dict[str, Callable[[str], Any]] = {
        ".json": json.loads,
        ".toml": tomllib.loads,
        ".yaml": _read_yaml,
        ".yml": _read_yaml,
    }
    read = readers.get(path.suffix)
    if read is None:
        return str(path)
    try:
        found = read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"log-config: {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"log-config: {path} has to hold a table, as for logging.config.dictConfig")
    return {"version": 1, "disable_existing_loggers": False, **found}


def _read_yaml(text: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - not on every base
    except ImportError:
        raise ValueError("PyYAML is not installed; a JSON or TOML file needs nothing") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error

"""Fold arguments, environment and files of a biz into one mapping, its configuration, when the biz is installed.

Files are TOML, YAML, JSON or Java properties; name and place decide which file counts, before any is read. Nothing is
looked at again later: a change of a file takes a redeploy.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current
from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PROFILE_KEYS: Final = ("koupleless.profiles.active", "spring.profiles.active")
"""Keys in a module, its arguments or its environment for the active profiles, separated by commas."""

SHARED_KEYS: Final = "ark.common.env.share.keys"
"""The key of the base that lists, separated by commas, the keys inherited by every biz."""


class Configuration(Mapping[str, Any]):
    """The values of a biz's configuration: a facet of its scope. Immutable.

    Keys are dotted, ``database.pool.size``; a key with keys below is a mapping of these, so
    ``config["database"]["pool"]["size"]`` is the same value. Case does not count, and ``-``, ``_`` and ``.`` count
    alike, so that ``DATABASE_POOL_SIZE`` in the environment and ``database.pool-size`` in a file are one key. Iteration
    shows every key in full, as the strongest source spells it. Values have the types of the file's format; arguments,
    environment and properties hold text.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values: dict[str, Any] = dict(flatten(values or {}))
        self._spellings = {canonical(key): key for key in self._values}

    @classmethod
    def load(
        cls,
        name: str,
        *,
        profile: str = "",
        directories: Sequence[Path] = (),
        own: Sequence[Path] = (),
        shared: Mapping[str, Any] | None = None,
        args: Sequence[str] = (),
        envs: Mapping[str, str] | None = None,
    ) -> Configuration:
        """Fold the sources of biz ``name``.

        Strongest first: ``args`` (``--key=value``, or ``--flag`` for ``"true"``); ``envs``; in ``directories``
        ``<name>/application-<profile>.*`` and then ``<name>/application.*``; in the biz's ``own`` directories
        ``application-<profile>.*`` and then ``application.*``; ``shared`` values of the base. Within a place, earlier
        directories and profiles named later win; of one name in several formats, ``.toml``, ``.yaml``, ``.yml``,
        ``.json``, ``.properties`` in this order.

        ``profile`` names the active profiles, separated by commas; without it the sources name the profiles
        (`PROFILE_KEYS`). Raises ``SettingsError``, naming the file, for an unreadable file.
        """
        given = [_from_arguments(args), dict(envs or {})]
        central = [directory / name for directory in directories]
        central_plain, own_plain = list(_read_all(central, "application")), list(_read_all(own, "application"))
        profiles = _split(profile) or _split(_first(PROFILE_KEYS, cls._fold([*given, *central_plain, *own_plain])))
        stems = [f"application-{each}" for each in reversed(profiles)]
        return cls._fold(
            [
                *given,
                *(values for stem in stems for values in _read_all(central, stem)),
                *central_plain,
                *(values for stem in stems for values in _read_all(own, stem)),
                *own_plain,
                shared or {},
            ]
        )

    @classmethod
    def _fold(cls, strongest_first: Iterable[Mapping[str, Any]]) -> Configuration:
        folded = cls()
        for source in reversed(list(strongest_first)):
            for key, value in flatten(source):
                index = canonical(key)
                folded._values.pop(folded._spellings.pop(index, key), None)
                folded._values[key] = value
                folded._spellings[index] = key
        return folded

    def __getitem__(self, key: str) -> Any:
        index = canonical(key)
        spelling = self._spellings.get(index)
        if spelling is not None:
            return self._values[spelling]
        below = {
            other[len(index) + 1 :]: self._values[spelling]
            for other, spelling in self._spellings.items()
            if other.startswith(f"{index}.")
        }
        if not below:
            raise KeyError(key)
        return Configuration(below)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Configuration of {len(self)} keys>"  # the values may be secrets

    def shared(self) -> dict[str, Any]:
        """Return the values that a base with this configuration passes on to its bizs, by the keys in `SHARED_KEYS`."""
        listed = self.get(SHARED_KEYS, "")
        keys = _split(listed) if isinstance(listed, str) else [str(key) for key in listed]
        return {key: self[key] for key in keys if key in self}


def current_config() -> Mapping[str, Any]:
    """Return the configuration of the running biz, by keys; all spellings of a key are one key.

    The configuration of a biz is read at the start of the biz, and stays until the end. In the base, and when a module
    runs alone, the configuration is read once, from the command line, the environment and the files ``application*`` in
    ``config/`` and in the working directory. Raises ``SettingsError`` for an unreadable file. From any thread.
    """
    scope = current()
    configuration = None if scope is None else scope.find_facet(Configuration)
    if configuration is not None:
        return configuration
    return Configuration() if scope is not None else _of_process()


@functools.cache
def _of_process() -> Configuration:
    own = [Path("config"), Path()]
    return Configuration.load("", own=own, args=sys.argv[1:], envs=dict(os.environ))


def canonical(key: str) -> str:
    """Return the form in which all spellings of a key are the same."""
    return key.lower().replace("_", ".").replace("-", ".")


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, by dotted key. Lists are leaves."""
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{dotted}.")
        else:
            yield dotted, value


def _first(keys: Iterable[str], configuration: Configuration) -> str:
    return next((str(configuration[key]) for key in keys if key in configuration), "")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _from_arguments(args: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for argument in args:
        if argument == "--":
            break
        if argument.startswith("--"):
            key, _, value = argument[2:].partition("=")
            values[key] = value if "=" in argument else "true"
    return values


# --- files ------------------------------------------------------------------------------------------------------------


def _read_all(directories: Iterable[Path], stem: str) -> Iterator[Mapping[str, Any]]:
    for directory in directories:
        try:
            names = os.listdir(directory)  # noqa: PTH208 - one look for all formats, at every install
        except (FileNotFoundError, NotADirectoryError):
            continue
        for suffix, parse in _PARSERS.items():
            name = f"{stem}{suffix}"
            if name in names and (directory / name).is_file():
                yield _read(directory / name, parse)


def _read(path: Path, parse: Callable[[str], object]) -> Mapping[str, Any]:
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{path} needs the package {error.name}, which is not installed; "
            "install PyYAML, or write the configuration as TOML"
        ) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
    if not isinstance(values, Mapping):
        raise SettingsError(f"cannot read {path}: the file holds a {type(values).__name__}, not keys and values")
    return values


def _parse_yaml(text: str) -> object:
    with as_base():
        yaml = importlib.import_module("yaml")  # only needed where a YAML file exists
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


_SEPARATOR: Final = re.compile(r"(?<!\\)(?:\\\\)*(?:\s*[=:]\s*|\s+)")
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_ESCAPED: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _parse_properties(text: str) -> dict[str, str]:
    """Parse as ``java.util.Properties`` does, in UTF-8."""
    values: dict[str, str] = {}
    parts: list[str] = []
    for raw in [*text.splitlines(), ""]:
        line = raw.lstrip()
        if not parts and (not line or line[0] in "#!"):
            continue
        if _is_continued(line):
            parts.append(line[:-1])
            continue
        key, value = _key_and_value("".join([*parts, line]))
        values[_unescape(key)] = _unescape(value)
        parts.clear()
    return values


def _is_continued(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _key_and_value(line: str) -> tuple[str, str]:
    found = _SEPARATOR.search(line)
    if found is None:
        return line, ""
    # An even number of backslashes before the separator belongs to the key.
    backslashes = len(found.group()) - len(found.group().lstrip("\\"))
    return line[: found.start() + backslashes], line[found.end() :]


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        code = found.group(1)
        return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPED.get(code, code)

    return _ESCAPE.sub(character, text)


_PARSERS: Final[dict[str, Callable[[str], object]]] = {
    ".toml": tomllib.loads,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": json.loads,
    ".properties": _parse_properties,
}

"""Reading one group of settings: flags, environment and tables of files, the strongest first."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.errors import SettingsError
from koupleless.settings.values import Port, convert, without_none

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from dataclasses import Field
    from pathlib import Path

FIRST_ARKLET_PORT: Final = 1238
"""The default port of an arklet, for the arklet and for the command line."""


# Kubernetes announces a service "koupleless-arklet" as KOUPLELESS_ARKLET_PORT=tcp://10.0.0.7:1238 to every pod of its
# namespace. Such a value is not meant for us.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")


class Origin(NamedTuple):
    """The place of a written value, in words, and the directory for relative paths."""

    label: str
    directory: Path


def setting(
    default: object,
    *,
    properties: Mapping[str, object] | None = None,
    variables: tuple[str, ...] = (),
    is_secret: bool = False,
) -> Any:
    """A field; its annotation is a type of `values`, or such a type and ``None``.

    ``properties``: names of the original -> another type, or ``None`` for the field's. ``variables``: further names in
    the environment.
    """
    metadata = {"properties": properties or {}, "variables": variables, "is_secret": is_secret}
    return field(default=default, metadata=metadata, repr=not is_secret)


def read_token(token: str | None, file: Path | None, key: str) -> str | None:
    """The token, or the first line of the token file. Raises ``SettingsError``, which names ``key``, for a bad file."""
    if token is not None or file is None:
        return token
    try:
        token = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{key}: {file} cannot be read: {error}") from error
    if not token:
        raise SettingsError(f"{key}: the first line of {file} is empty, a token was expected")
    return token


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The places of values for one group, and the prefixes of names in these places."""

    flags: Mapping[str, object]
    environ: Mapping[str, str]
    prefix: str
    """The prefix of the group's environment variables."""
    tables: tuple[tuple[Mapping[str, object], Origin], ...]
    """Flattened, strongest first."""
    directory: Path
    """The directory for relative paths in flags and variables."""
    under: str = ""
    """The prefix of the group's keys in a table."""

    def read(self, group: type[Any]) -> dict[str, Any]:
        """The strongest value of each field of ``group``; fields without a value are left out."""
        known = [each for each in fields(group) if each.metadata]
        unknown = self.flags.keys() - {each.name for each in known}
        if unknown:
            raise SettingsError(f"there is no setting {', '.join(sorted(unknown))}")
        values: dict[str, Any] = {}
        for each in known:
            for raw, key, origin, kind in self._written(each):
                values[each.name] = _checked(raw, key, origin, kind)
                break
        return values

    def _written(self, each: Field[Any]) -> Iterator[tuple[object, str, Origin, object]]:
        """The written values of one field, the strongest first, each with key, origin and type."""
        own, kind = _own_key(each), without_none(each.type)
        properties = {name: other or kind for name, other in each.metadata["properties"].items()}
        if each.name in self.flags:
            yield self.flags[each.name], f"--{own}", Origin("", self.directory), kind
        variables = {f"{self.prefix}{_variable(own)}": kind, **dict.fromkeys(each.metadata["variables"], kind)}
        variables |= {_variable(name): other for name, other in properties.items()}
        for variable, other in variables.items():
            raw = self.environ.get(variable)
            if raw and not (kind == Port and _SERVICE_LINK.match(raw)):
                yield raw, variable, Origin("the environment", self.directory), other
        for table, origin in self.tables:
            for key, other in {f"{self.under}{own}": kind, **properties}.items():
                if key in table and not each.metadata["is_secret"]:
                    yield table[key], key, origin, other
                elif key in table:
                    raise SettingsError(
                        f"{key} in {origin.label} is a secret in a file that others read; "
                        f"set the environment variable {next(iter(variables))}, or {key}-file"
                    )

    def refuse_unknown(self, known: Mapping[str, str]) -> None:
        """Raise ``SettingsError`` for an unknown key. ``known``: possible key -> key to recommend."""
        for table, origin in self.tables:
            for key in table:
                if key not in known:
                    import difflib  # noqa: PLC0415 - only on the way to an error

                    close = difflib.get_close_matches(key, list(known), n=1)
                    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted({*known.values()}))}"
                    raise SettingsError(f"{key} in {origin.label} is no setting; {hint}")


def _checked(raw: object, key: str, origin: Origin, kind: object) -> object:
    try:
        return convert(raw, kind, origin.directory)
    except ValueError as error:
        source = f" in {origin.label}" if origin.label else ""
        raise SettingsError(f"{key}{source} {error}, not {raw!r}") from None


def _own_key(each: Field[Any]) -> str:
    return each.name.removesuffix("_s").replace("_", "-")


def _variable(name: str) -> str:
    return name.upper().replace(".", "_").replace("-", "_")


def keys_of(group: type[Any], under: str = "") -> dict[str, str]:
    """The possible keys of ``group`` in a table -> the key to recommend."""
    keys: dict[str, str] = {}
    for each in fields(group):
        if each.metadata:
            own = f"{under}{_own_key(each)}"
            keys |= dict.fromkeys((own, *each.metadata["properties"]), own)
    return keys


# --- files ---------------------------------------------------------------------------------------------------------


def find_table(directory: Path, file: Path | None, name: str) -> tuple[Mapping[str, object], Origin]:
    """The table ``name`` from the file that has such a table, and the origin; an empty table if no file has."""
    candidates = [file] if file else [directory / "koupleless.toml", directory / "pyproject.toml"]
    found: list[tuple[Mapping[str, object], Origin]] = []
    for path in candidates:
        if file is None and not (path.is_file() and _may_have_table(path)):
            continue
        document = read_toml(path)
        table = _table_of(document, path, "tool", "koupleless", name)
        label = f"[tool.koupleless.{name}] of {path}"
        if table is None and path.name != "pyproject.toml":
            table, label = _table_of(document, path, name), f"[{name}] of {path}"
        if table is not None:
            found.append((table, Origin(label, path.parent)))
    if len(found) > 1:
        raise SettingsError(f"settings stand both in {found[0][1].label} and in {found[1][1].label}; keep one of them")
    return found[0] if found else ({}, Origin("defaults", directory))


def _may_have_table(path: Path) -> bool:
    """Whether a file has to be parsed: a `pyproject.toml` without the name of this project has no table for us."""
    try:
        return path.name != "pyproject.toml" or b"koupleless" in path.read_bytes()
    except OSError:
        return True  # the reader says why


def _table_of(document: Mapping[str, object], path: Path, *keys: str) -> Mapping[str, object] | None:
    table: object = document
    for key in keys:
        if not isinstance(table, dict):
            raise SettingsError(f"{'.'.join(keys)} in {path} must be a table")
        table = table.get(key)
        if table is None:
            return None
    if not isinstance(table, dict):
        raise SettingsError(f"{'.'.join(keys)} in {path} must be a table")
    return table


def read_toml(path: Path) -> Mapping[str, object]:
    """The document in a file. Raises ``SettingsError``."""
    import tomllib  # noqa: PLC0415 - most calls of the command line find no file to read

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"settings file {path} is no valid TOML: {error}") from error


def flatten(table: Mapping[str, object], under: str = "") -> Iterator[tuple[str, object]]:
    """``a.b.c`` names for nested tables: the original's properties may be written with or without quotes."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{under}{key}.")
        else:
            yield f"{under}{key}", value

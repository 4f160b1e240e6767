"""What an operator may set: frozen groups of values, read once, where a process is put together.

A value comes from the first of these that has it: a flag, the environment, a table in a file, the default. Only
``base`` and ``cli`` read this module; everything below them takes plain values.

Each field names its own key: ``log_dir`` is ``log-dir`` in a table and ``KOUPLELESS_BASE_LOG_DIR`` in the environment.
Where the field has a counterpart in the Java original, that property name is read as well: as a table key as it is,
from the environment in upper case with ``_``.
"""

# ruff: noqa: RUF009 - `_setting` returns a dataclass field, which ruff cannot see

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from koupleless.biz import parse_name
from koupleless.errors import InvalidIdentity, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from dataclasses import Field

FIRST_ARKLET_PORT: Final = 1238
"""Where an arklet listens, and the CLI looks for one, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written, and the directory its relative paths start from."""

    label: str
    directory: Path


# --- how single values are read ------------------------------------------------------------------------------------
#
# A reader takes what was written (a string, or what TOML made of it) and returns the value, or raises ValueError with
# words that complete the sentence "<setting> ...".

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
# Kubernetes announces a service "koupleless-arklet" as KOUPLELESS_ARKLET_PORT=tcp://10.0.0.7:1238 to every pod of its
# namespace. That is not ours to read.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")


def _text(raw: object, _: Origin) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("must be a text that is not blank")
    return raw.strip()


def _flag(raw: object, _: Origin) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("must be true or false")


def _inverted_flag(raw: object, origin: Origin) -> bool:
    return not _flag(raw, origin)


def _seconds(raw: object, _: Origin) -> float:
    try:
        seconds = float(cast("Any", raw)) if not isinstance(raw, bool) else -1.0
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ValueError("must be a number of seconds above 0")
    return seconds


def _number(raw: object, _: Origin) -> int:
    word = str(raw).strip() if not isinstance(raw, bool) else ""
    if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) > 0):  # noqa: PLR2004 - digits
        raise ValueError("must be a whole number above 0")
    return int(word)


def _port(raw: object, _: Origin) -> int:
    word = str(raw).strip() if not isinstance(raw, bool) else ""
    if not (word.isascii() and word.isdigit() and int(word) <= 65535):  # noqa: PLR2004 - the highest port there is
        raise ValueError("must be a port number from 0 to 65535")
    return int(word)


def _name(raw: object, origin: Origin) -> str:
    try:
        return parse_name(_text(raw, origin))
    except InvalidIdentity as error:
        raise ValueError(f"cannot be used: {error}") from None


def _path(raw: object, origin: Origin) -> Path:
    written = str(raw) if isinstance(raw, os.PathLike) else _text(raw, origin)
    try:
        return origin.directory / Path(written).expanduser()
    except RuntimeError:
        raise ValueError(f"cannot be used: there is no home directory {written.partition('/')[0]}") from None


def _list(raw: object, _: Origin) -> tuple[str, ...]:
    items = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, (str, os.PathLike)) for item in items):
        raise ValueError("must be a list of texts")
    return tuple(item for item in (str(item).strip() for item in items) if item)


def _paths(raw: object, origin: Origin) -> tuple[Path, ...]:
    return tuple(_path(item, origin) for item in _list(raw, origin))


def _locations(raw: object, origin: Origin) -> tuple[str, ...]:
    return tuple(item if "://" in item else str(_path(item, origin)) for item in _list(raw, origin))


def _tables(raw: object, _: Origin) -> tuple[Mapping[str, object], ...]:
    if isinstance(raw, str):
        import json  # noqa: PLC0415 - a list of tables is seldom written into a variable

        try:
            raw = json.loads(raw)
        except ValueError:
            raise ValueError("must be a list of tables, in a variable written as JSON") from None
    if not isinstance(raw, (list, tuple)) or not all(isinstance(item, dict) for item in raw):
        raise ValueError("must be a list of tables")
    return tuple(raw)


def _output(raw: object, origin: Origin) -> str:
    word = _text(raw, origin)
    if word not in ("table", "wide", "json"):
        raise ValueError("must be table, wide or json")
    return word


def _setting(
    reader: Callable[[Any, Origin], object],
    default: object,
    *,
    properties: Mapping[str, Callable[[Any, Origin], object] | None] | None = None,
    variables: tuple[str, ...] = (),
    is_secret: bool = False,
) -> Any:
    """A field with its reader; ``properties`` are names of the original, with their own reader where it differs."""
    metadata = {"reader": reader, "properties": properties or {}, "variables": variables, "is_secret": is_secret}
    return field(default=default, metadata=metadata, repr=not is_secret)


# --- the groups ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ArkletSettings:
    """The ops API of a base. Table ``arklet`` under the base's table; environment ``KOUPLELESS_ARKLET_...``."""

    host: str = _setting(_text, "127.0.0.1")
    """The address to listen on; any but loopback demands a token, or ``insecure``."""
    port: int | None = _setting(_port, None, properties={"koupleless.arklet.http.port": None})
    """The port; ``None`` takes the first free one from 1238 to 1337, ``0`` any free one."""
    token: str | None = _setting(_text, None, is_secret=True)
    """What callers must present as ``Authorization: Bearer``. Never read from a table: those are committed."""
    token_file: Path | None = _setting(_path, None)
    """A file whose first line is the token."""
    insecure: bool = _setting(_flag, default=False)
    """Let strangers in on an address that is not loopback; the original controller needs it."""
    allowed_hosts: tuple[str, ...] = _setting(_list, ())
    """Further names by which callers may address the arklet in ``Host``, next to its own addresses."""
    header_timeout_s: float = _setting(_seconds, 10.0)
    """How long a connection may be open without the headers of a request."""
    max_connections: int = _setting(_number, 64)
    """How many connections there may be at once; of those without a request the oldest gives way to a new one."""
    identity: str | None = _setting(_text, None)
    """What the base calls itself to a controller; ``None`` means its address."""
    cluster: str = _setting(_text, "default")
    """The cluster the base belongs to."""
    environment: str = _setting(_text, "default")
    """The environment, which has to be the controller's."""

    def read_token(self) -> str | None:
        """The token, from whichever of the two settings has it. Raises ``SettingsError`` for an unusable file."""
        return _read_token(self.token, self.token_file, "arklet token-file")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSettings:
    """A base. Table ``[tool.koupleless.base]``; environment ``KOUPLELESS_BASE_...``."""

    name: str = _setting(
        _name,
        "base",
        properties={
            "com.alipay.sofa.ark.master.biz": None,
            "koupleless.arklet.metadata.name": None,
            "spring.application.name": None,
        },
    )
    """The name of the base, which is that of the master biz."""
    host: str = _setting(_text, "127.0.0.1")
    """The address the application is served on."""
    port: int = _setting(_port, 8080)
    """The port the application is served on; ``0`` takes any free one."""
    modules: tuple[str, ...] = _setting(_locations, ())
    """Static modules: projects, artefacts or URLs that are installed before the base serves, in this order."""
    own: tuple[str, ...] = _setting(_list, ())
    """Libraries of which modules get copies of their own, unless they say otherwise."""
    shared: tuple[str, ...] = _setting(_list, ())
    """Libraries that modules share with the base, unless they say otherwise."""
    modules_dir: Path | None = _setting(_path, None, properties={"com.alipay.sofa.ark.static.biz.dir": None})
    """A directory whose artefacts are static modules too."""
    config_dirs: tuple[Path, ...] = _setting(_paths, (Path("config"),))
    """Where the configuration of modules lies, strongest first: ``<dir>/<bizName>/application.toml`` and the like."""
    log_dir: Path | None = _setting(_path, None, properties={"logging.file.path": None, "logging.path": None})
    """Where modules without a log configuration of their own write their logs; ``None`` leaves them on stderr."""
    data_dir: Path = _setting(_path, Path("data"))
    """Where modules have their data directories, by name: what they write there stays over their versions."""
    store_dir: Path | None = _setting(_path, None, properties={"com.alipay.sofa.ark.biz.dir": None})
    """Where artefacts are unpacked, by content; ``None`` means a temporary directory that leaves with the base."""
    store_keep: int = _setting(_number, 20)
    """The number of unpacked artefacts that no base uses and that stay in ``store-dir`` when the base starts."""
    shared_keys: tuple[str, ...] = _setting(_list, (), properties={"ark.common.env.share.keys": None})
    """Keys of the base's configuration that its modules see as well, as the weakest source."""
    profile: str | None = _setting(_text, None, properties={"spring.profiles.active": None})
    """The active configuration profile."""
    start_timeout_s: float = _setting(_seconds, 60.0)
    """How long a module may take to start."""
    drain_timeout_s: float = _setting(_seconds, 30.0)
    """How long a leaving module may take to finish the requests, and the calls of its services, in flight."""
    stop_timeout_s: float = _setting(_seconds, 10.0)
    """How long a leaving module may take for its own shutdown."""
    end_threads: bool = _setting(_flag, default=True)
    """Threads of a leaving module that ignore their stop are interrupted; else they are left running and named."""
    activate_new: bool = _setting(_flag, default=False, properties={"activate.new.module": None})
    """A newly installed version takes over at once instead of waiting for a switch."""
    activate_many: bool = _setting(
        _flag, default=False, properties={"sofa.ark.activate.multi.biz.version.enable": None}
    )
    """Several versions of one name may be active, each on a path of its own; one that comes on the path of another
    takes it over, and gives it back when it is uninstalled."""
    activate_next: bool = _setting(_flag, default=False)
    """When the active version is uninstalled, the one that came last of those left takes over."""
    keep_broken: bool = _setting(
        _flag, default=False, properties={"sofa.ark.auto.uninstall.when.failed.enable": _inverted_flag}
    )
    """A module that failed to start stays listed as broken; the original's property says the opposite."""
    fetch_timeout_s: float = _setting(_seconds, 60.0)
    """How long an artefact may take to arrive from its URL."""
    allowed_sources: tuple[str, ...] = _setting(_list, ())
    """URL prefixes that artefacts may come from; empty allows every location."""
    header_timeout_s: float = _setting(_seconds, 10.0)
    """How long a connection to the application may be open without the headers of a request."""
    max_connections: int | None = _setting(_number, None)
    """How many there may be at once; ``None`` means half as many as the process may have file descriptors."""
    forwards: tuple[Mapping[str, object], ...] = _setting(
        _tables, (), properties={"koupleless.web.gateway.forwards": None}
    )
    """The gateway's forward rules: tables of ``contextPath``, ``hosts`` and ``paths`` of ``from`` and ``to``."""
    arklet: ArkletSettings = field(default_factory=ArkletSettings)
    """The ops API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How ``arkctl`` reaches a base. Table ``[tool.koupleless.arkctl]``; environment ``ARKCTL_...``."""

    host: str = _setting(_text, "127.0.0.1")
    """Where the arklet is."""
    port: int = _setting(_port, FIRST_ARKLET_PORT)
    """Its port."""
    timeout_s: float = _setting(_seconds, 120.0)
    """How long one command may take altogether, in seconds; the key is ``timeout``."""
    output: str = _setting(_output, "table")
    """``table``, ``wide`` or ``json``."""
    token: str | None = _setting(_text, None, variables=("KOUPLELESS_ARKLET_TOKEN",), is_secret=True)
    """What to present to an arklet that demands a token."""
    token_file: Path | None = _setting(_path, None, variables=("KOUPLELESS_ARKLET_TOKEN_FILE",))
    """A file whose first line is that token."""

    def read_token(self) -> str | None:
        """The token, from whichever of the two settings has it. Raises ``SettingsError`` for an unusable file."""
        return _read_token(self.token, self.token_file, "token-file")


def _read_token(token: str | None, file: Path | None, setting: str) -> str | None:
    if token is not None or file is None:
        return token
    try:
        token = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{setting}: {file} cannot be read: {error}") from error
    if not token:
        raise SettingsError(f"{setting}: the first line of {file} is empty, a token was expected")
    return token


# --- putting a group together --------------------------------------------------------------------------------------


def load_base(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    file: Path | None = None,
) -> BaseSettings:
    """Put the settings together from everything that has a say. Raises ``SettingsError``.

    ``flags`` are by field name, those of the arklet with ``arklet_`` in front; ``None`` means not given. ``file``
    is read instead of the ``koupleless.toml`` or ``pyproject.toml`` in ``directory`` (the current one).
    """
    directory = directory or Path.cwd()
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    table, origin = _find_table(directory, file, "base")
    sources = _Sources(
        flags={key: value for key, value in given.items() if not key.startswith("arklet_")},
        environ=os.environ if environ is None else environ,
        prefix="KOUPLELESS_BASE_",
        tables=((dict(_flatten(table)), origin),),
        directory=directory,
    )
    of_arklet = replace(
        sources,
        flags={key.removeprefix("arklet_"): value for key, value in given.items() if key.startswith("arklet_")},
        prefix="KOUPLELESS_ARKLET_",
        under="arklet.",
    )
    sources.refuse_unknown({**_keys(BaseSettings), **_keys(ArkletSettings, "arklet.")})
    return BaseSettings(**sources.read(BaseSettings), arklet=ArkletSettings(**of_arklet.read(ArkletSettings)))


def load_client(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> ClientSettings:
    """Put the settings together from everything that has a say; ``flags`` by field name, ``None`` is not given.

    The files are those of the project in ``directory`` (the current one), then ``~/.config/arkctl/config.toml``.
    Raises ``SettingsError``.
    """
    environ = os.environ if environ is None else environ
    directory = directory or Path.cwd()
    project, project_origin = _find_table(directory, None, "arkctl")
    user_file = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "arkctl" / "config.toml"
    user = _read_toml(user_file) if user_file.is_file() else {}
    sources = _Sources(
        flags={key: value for key, value in (flags or {}).items() if value is not None},
        environ=environ,
        prefix="ARKCTL_",
        tables=(
            (dict(_flatten(project)), project_origin),
            (dict(_flatten(user)), Origin(str(user_file), user_file.parent)),
        ),
        directory=directory,
    )
    sources.refuse_unknown(_keys(ClientSettings))
    return ClientSettings(**sources.read(ClientSettings))


_Reader: TypeAlias = "Callable[[Any, Origin], object]"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    """Everything that was written for one group, and the names it was written under."""

    flags: Mapping[str, object]
    environ: Mapping[str, str]
    prefix: str
    """What the group's own variables begin with."""
    tables: tuple[tuple[Mapping[str, object], Origin], ...]
    """Flattened, strongest first."""
    directory: Path
    """Where relative paths of flags and variables start."""
    under: str = ""
    """What the group's own keys begin with in a table."""

    def read(self, group: type[Any]) -> dict[str, Any]:
        """The strongest value that anybody gave for each field of ``group``; fields nobody mentions are left out."""
        known = [each for each in fields(group) if each.metadata]
        unknown = self.flags.keys() - {each.name for each in known}
        if unknown:
            raise SettingsError(f"there is no setting {', '.join(sorted(unknown))}")
        values: dict[str, Any] = {}
        for each in known:
            for raw, key, origin, reader in self._written(each):
                values[each.name] = _convert(raw, key, origin, reader)
                break
        return values

    def _written(self, each: Field[Any]) -> Iterator[tuple[object, str, Origin, _Reader]]:
        """What was written for one field, strongest first, with the key it was written under and how to read it."""
        own, reader = _own_key(each), each.metadata["reader"]
        properties = {name: other or reader for name, other in each.metadata["properties"].items()}
        if each.name in self.flags:
            yield self.flags[each.name], f"--{own}", Origin("", self.directory), reader
        variables = {f"{self.prefix}{_variable(own)}": reader, **dict.fromkeys(each.metadata["variables"], reader)}
        variables |= {_variable(name): other for name, other in properties.items()}
        for variable, other in variables.items():
            raw = self.environ.get(variable)
            if raw and not (reader is _port and _SERVICE_LINK.match(raw)):
                yield raw, variable, Origin("the environment", self.directory), other
        for table, origin in self.tables:
            for key, other in {f"{self.under}{own}": reader, **properties}.items():
                if key in table and not each.metadata["is_secret"]:
                    yield table[key], key, origin, other
                elif key in table:
                    raise SettingsError(
                        f"{key} in {origin.label} is a secret in a file that others read; "
                        f"set the environment variable {next(iter(variables))}, or {key}-file"
                    )

    def refuse_unknown(self, known: Mapping[str, str]) -> None:
        """Raise ``SettingsError`` for a key that means nothing; ``known`` maps keys to those to recommend."""
        for table, origin in self.tables:
            for key in table:
                if key not in known:
                    import difflib  # noqa: PLC0415 - only on the way to an error

                    close = difflib.get_close_matches(key, list(known), n=1)
                    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted({*known.values()}))}"
                    raise SettingsError(f"{key} in {origin.label} is no setting; {hint}")


def _convert(raw: object, key: str, origin: Origin, reader: _Reader) -> object:
    try:
        return reader(raw, origin)
    except ValueError as error:
        source = f" in {origin.label}" if origin.label else ""
        raise SettingsError(f"{key}{source} {error}, not {raw!r}") from None


def _own_key(each: Field[Any]) -> str:
    return each.name.removesuffix("_s").replace("_", "-")


def _variable(name: str) -> str:
    return name.upper().replace(".", "_").replace("-", "_")


def _keys(group: type[Any], under: str = "") -> dict[str, str]:
    """Every key that a table may have for ``group``, and the one to recommend for it."""
    keys: dict[str, str] = {}
    for each in fields(group):
        if each.metadata:
            own = f"{under}{_own_key(each)}"
            keys |= dict.fromkeys((own, *each.metadata["properties"]), own)
    return keys


# --- files ---------------------------------------------------------------------------------------------------------


def _find_table(directory: Path, file: Path | None, name: str) -> tuple[Mapping[str, object], Origin]:
    """The table ``name`` of the file that has it, and where that is; an empty table if no file has."""
    candidates = [file] if file else [directory / "koupleless.toml", directory / "pyproject.toml"]
    found: list[tuple[Mapping[str, object], Origin]] = []
    for path in candidates:
        if file is None and not path.is_file():
            continue
        document = _read_toml(path)
        table = _table_of(document, path, "tool", "koupleless", name)
        label = f"[tool.koupleless.{name}] of {path}"
        if table is None and path.name != "pyproject.toml":
            table, label = _table_of(document, path, name), f"[{name}] of {path}"
        if table is not None:
            found.append((table, Origin(label, path.parent)))
    if len(found) > 1:
        raise SettingsError(f"settings stand both in {found[0][1].label} and in {found[1][1].label}; keep one of them")
    return found[0] if found else ({}, Origin("defaults", directory))


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


def _read_toml(path: Path) -> Mapping[str, object]:
    import tomllib  # noqa: PLC0415 - most calls of the command line find no file to read

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"settings file {path} is no valid TOML: {error}") from error


def _flatten(table: Mapping[str, object], under: str = "") -> Iterator[tuple[str, object]]:
    """``a.b.c`` names for nested tables: the original's properties may be written with or without quotes."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{under}{key}.")
        else:
            yield f"{under}{key}", value

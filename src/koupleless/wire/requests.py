"""Requests: the input of each command, read as leniently as the clients of the Java original expect.

Keys match in any case, with or without ``_`` and ``-``; unknown keys are ignored; numbers and booleans are accepted
for texts. A value of the wrong kind raises ``InputInvalid``, which names the member.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

import msgspec

from koupleless.wire.envelope import InputInvalid, without_nulls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

R = TypeVar("R", bound="Request")

INSTALL_ONLY: Final = "installOnly"

_RENAMED: Final = {"is_async": "async"}


def _spell(field: str) -> str:
    head, *tail = _RENAMED.get(field, field).split("_")
    return head + "".join(part.capitalize() for part in tail)


class Request(msgspec.Struct, frozen=True, kw_only=True, rename=_spell):
    """The input of a command. ``aliases`` maps further spellings to members, both in lower case, letters alone."""

    aliases: ClassVar[dict[str, str]] = {}
    nullable: ClassVar[frozenset[str]] = frozenset()
    """Members set to ``None`` by an explicit ``null``. Any other member keeps its default on ``null``."""

    def describe(self) -> dict[str, Any]:
        """All members with a value, spelled as on the wire."""
        return cast("dict[str, Any]", without_nulls(msgspec.to_builtins(self)))


class BizRequest(Request, frozen=True, kw_only=True):
    """The members common to all commands that change bizs."""

    biz_name: str | None = None
    biz_version: str | None = None
    is_async: bool = False
    request_id: str | None = None

    @property
    def identity(self) -> str:
        """The key of the lock: name and version as sent, ``null`` in place of a missing one."""
        return f"{_or_null(self.biz_name)}:{_or_null(self.biz_version)}"


class UninstallBiz(BizRequest, frozen=True, kw_only=True):
    """Remove one biz."""

    drain_seconds: float | None = None
    """The time for requests in flight, if shorter than the base's own; a member of ours."""


class SwitchBiz(BizRequest, frozen=True, kw_only=True):
    """Make one version the active one."""


class InstallBiz(BizRequest, frozen=True, kw_only=True):
    """Install one biz."""

    aliases: ClassVar[dict[str, str]] = {"env": "envs"}
    nullable: ClassVar[frozenset[str]] = frozenset({"install_strategy"})

    biz_url: str | None = None
    args: list[str] | None = None
    envs: dict[str, str] | None = None
    project_envs: dict[str, str] | None = None
    """Variables of the env-file of the project, which is on the machine of the client; a member of ours."""
    biz_digest: str | None = None
    """The digest of the artefact, which is then taken from the store, else from `biz_url`; a member of ours."""
    install_strategy: str | None = INSTALL_ONLY


class BatchInstallBiz(BizRequest, frozen=True, kw_only=True):
    """Install several bizs, grouped by priority."""

    biz_list: list[InstallBiz] | None = None


class RestartBiz(BizRequest, frozen=True, kw_only=True):
    """Start a biz again from the same artefact; a command of ours."""


class RollbackBiz(BizRequest, frozen=True, kw_only=True):
    """Let the version before answer; a command of ours."""


class BizEnv(Request, frozen=True, kw_only=True):
    """List, set and remove kept values of a module's environment; a command of ours."""

    biz_name: str | None = None
    set: dict[str, str] | None = None
    unset: list[str] | None = None


class BizsQuery(Request, frozen=True, kw_only=True):
    """Ask for all bizs."""

    libraries: bool = False
    """Whether the libraries of each biz are wanted; a member of ours."""


class HealthQuery(Request, frozen=True, kw_only=True):
    """Ask for health."""

    aliases: ClassVar[dict[str, str]] = {"modulename": "bizname", "moduleversion": "bizversion"}

    type: str | None = None
    metrics: list[str] | None = None
    biz_name: str | None = None
    biz_version: str | None = None


class OpsQuery(Request, frozen=True, kw_only=True):
    """Ask for the record of a background run."""

    request_id: str | None = None


class LibrariesQuery(Request, frozen=True, kw_only=True):
    """Ask which private libraries are in the store of the base; a command of ours."""

    digests: list[str] | None = None


class LiveBiz(Request, frozen=True, kw_only=True):
    """Let pages of a module reload by themselves. Understood only by this project."""

    biz_name: str | None = None
    seconds: float = 10.0
    """The time from now, after which nobody asks for this any more; 0 ends it at once."""


class ConsoleBiz(Request, frozen=True, kw_only=True):
    """Run Python code inside a module, in a console. Understood only by this project."""

    biz_name: str | None = None
    biz_version: str | None = None
    session: str | None = None
    """The console of an earlier answer; ``None`` opens one."""
    code: str | None = None
    """A line, or a whole script; ``None`` asks for output."""
    script: bool = False
    """Whether `code` is a script: the console ends with the script."""
    interrupt: bool = False
    """Whether the running code is interrupted, as by Ctrl-C."""
    close: bool = False
    """Whether the console ends."""
    caller: str = ""
    """The caller in words, for the log."""


class LogsQuery(Request, frozen=True, kw_only=True):
    """Ask for entries of the logs of modules. Understood only by this project."""

    biz_name: str | None = None
    """``None`` means the logs of all modules."""
    biz_version: str | None = None
    """``None`` means all versions."""
    life: str | None = None
    """``current`` or ``previous``: a life of this version, from start to end; ``None`` means all lives."""
    lines: float = 100
    """The number of entries, the newest; without meaning if `places` are given."""
    level: str | None = None
    """The lowest level, by name."""
    since: float = 0.0
    """The earliest time, in seconds."""
    places: dict[str, str] | None = None
    """The places of an earlier answer: then the entries after these places are meant."""


def is_blank(text: str | None) -> bool:
    """Whether ``text`` is missing or only white space."""
    return text is None or not text.strip()


def read(kind: type[R], body: Mapping[str, object] | None) -> R:
    """Read the input object of a command; ``None`` reads as an empty one. Raises ``InputInvalid``."""
    given = body or {}
    squeezed = {_squeeze(key): value for key, value in given.items()}
    for alias, name in kind.aliases.items():
        if alias in squeezed:
            squeezed.setdefault(name, squeezed[alias])
    values: dict[str, Any] = {}
    for field in _fields(kind):
        spelled = field.encode_name
        key = _squeeze(spelled)
        if spelled in given:
            value = given[spelled]
        elif key in squeezed:
            value = squeezed[key]
        elif field.type is bool and "is" + key in squeezed:
            value = squeezed["is" + key]
        else:
            continue
        if value is not None:
            values[field.name] = _converter(field.type)(spelled, value)
        elif field.name in kind.nullable:
            values[field.name] = None
    return kind(**values)


_fields = functools.cache(msgspec.structs.fields)
"""The members of a request; their types are texts, which msgspec would evaluate each time."""


def _squeeze(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()


def _or_null(text: str | None) -> str:
    return "null" if text is None else text


def _converter(annotation: Any) -> Callable[[str, object], Any]:
    return _CONVERTERS[annotation]


def _text(name: str, value: object) -> str:  # noqa: ARG001 - one signature for all converters
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


_TRUE: Final = frozenset({"true", "1", "y", "t"})
_FALSE: Final = frozenset({"false", "0", "n", "f", "", "null"})


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool | int | float):
        return value == 1
    if isinstance(value, str):
        lowered = value.lower()
        if lowered in _TRUE:
            return True
        if lowered in _FALSE:
            return False
    raise InputInvalid(f"{name} must be true or false")


def _number(name: str, value: object) -> float:
    try:
        found = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InputInvalid(f"{name} must be a number")
    return found


def _texts(name: str, value: object) -> list[str] | None:
    if isinstance(value, list):
        return [_text(name, item) for item in value if item is not None]
    # A bare text counts as nothing given, as in the original, unless the text looks like an argument.
    if isinstance(value, str) and not value.lstrip()[:1].isdigit() and not value.lstrip().startswith(("-", "+")):
        return None
    raise InputInvalid(f"{name} must be an array of texts")


def _text_map(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InputInvalid(f"{name} must be an object of texts")
    return {key: _text(name, item) for key, item in value.items() if item is not None}


def _installs(name: str, value: object) -> list[InstallBiz] | None:
    if isinstance(value, str):
        return None
    if not isinstance(value, list):
        raise InputInvalid(f"{name} must be an array of objects")
    installs = []
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise InputInvalid(f"{name}[{index}] must be an object")
        installs.append(read(InstallBiz, item))
    return installs


_CONVERTERS: Final[dict[Any, Callable[[str, object], Any]]] = {
    str | None: _text,
    bool: _flag,
    str: _text,
    float: _number,
    float | None: _number,
    list[str] | None: _texts,
    dict[str, str] | None: _text_map,
    list[InstallBiz] | None: _installs,
}

"""The envelope of every reply, its codes, and bytes to values and back."""

from __future__ import annotations

import codecs
import enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BODY_BYTES: Final = 1024 * 1024
"""The largest request body a base reads."""

CONTENT_TYPE: Final = "application/json; charset=utf-8"


class Code(enum.Enum):
    """Outcome of a command, as the envelope names the outcome."""

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CMD_NOT_FOUND = "CMD_NOT_FOUND"
    INTERNAL_ERROR = "CMD_PROCESS_INTERNAL_ERROR"


class ResponseCode(enum.Enum):
    """Outcome of an operation on a biz, as the ``data`` of the reply names the outcome."""

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    REPEAT_BIZ = "REPEAT_BIZ"
    NOT_FOUND_BIZ = "NOT_FOUND_BIZ"
    ILLEGAL_STATE_BIZ = "ILLEGAL_STATE_BIZ"


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The reply to any command. A member without a value is left out, never ``null``."""

    code: Code
    data: Any = None
    message: str | None = None
    error_stack_trace: str | None = None
    """Only with ``INTERNAL_ERROR``: the traceback of the user's own code where there is one."""
    error_type: str | None = None
    """The code of the error: source and type, as ``Container.BizBusy``. Sent only by this project."""
    base_identity: str | None = None
    """The identity of the base; absent with ``CMD_NOT_FOUND`` and ``INTERNAL_ERROR``."""

    @property
    def is_success(self) -> bool:
        """Whether the command succeeded."""
        return self.code is Code.SUCCESS


class InputInvalid(KouplelessError, ValueError):
    """A request with a body that cannot be read, or without a member the command needs; the caller gets the text."""

    source: ClassVar[str] = "Request"


class ReplyInvalid(KouplelessError, ValueError):
    """A reply in a form no arklet sends."""


def decode_body(raw: bytes) -> dict[str, object] | None:
    """The input object of a request: strict JSON, with or without a byte order mark.

    Returns ``None`` for an empty body and for ``null``: both mean no input. Raises ``InputInvalid`` for any other body
    except an object.
    """
    text = raw.removeprefix(codecs.BOM_UTF8)
    if not text:
        return None
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputInvalid(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InputInvalid("the body is nested too deeply") from None
    if body is None or isinstance(body, dict):
        return body
    raise InputInvalid("the body must be a JSON object")


def encode(value: object) -> bytes:
    """Compact JSON. Text with invalid Unicode (a file name, say) is written with escapes instead of failing."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_printable(msgspec.to_builtins(value)))


def decode_envelope(raw: bytes) -> Envelope:
    """Read a reply of any arklet, the original's too. Raises ``ReplyInvalid``."""
    try:
        return msgspec.json.decode(raw, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReplyInvalid(f"the reply is no arklet envelope: {error}") from None


def without_nulls(value: Any) -> Any:
    """A copy of plain data in which no member of an object is ``None``."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


_VARIABLES: Final = frozenset({"envs", "projectEnvs", "set"})
_HIDDEN: Final = "***"


def without_values(body: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the input of a command, to be shown: values of variables, which may be secrets, are hidden."""
    shown: dict[str, Any] = {}
    for key, value in body.items():
        if key in _VARIABLES and isinstance(value, dict):
            shown[key] = dict.fromkeys(value, _HIDDEN)
        elif key == "bizList" and isinstance(value, list):
            shown[key] = [without_values(each) for each in value]
        else:
            shown[key] = value
    return shown


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return value

"""Frames of ours as seen by code that walks frames: functions between the code of a biz and foreign code.

Alone there is a frame of importlib, of the logging module, or none at all, where inside a base there is one of ours.
Code that looks for its caller (loggers for the place of a call, ``warnings.warn`` with a ``stacklevel``, test runners
and printers of tracebacks) passes over frames by the file of their code. So each function of ours that may be on the
stack while other people's code runs has a file name which is passed over: the file of importlib, which ``warnings`` and
``logging`` leave out when they count, or the file of the very function in the place of which ours stands.
"""

from __future__ import annotations

import builtins
import dis
import functools
import importlib
import inspect
import sys
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

F = TypeVar("F", bound="Callable[..., Any]")

_IMPORTLIB: Final = "<frozen importlib."
_importing: Final[set[CodeType]] = set()
"""The code of functions taken for importlib's; made when this package is imported, and no more later."""

PASSED_OVER: Final[str] = importlib._bootstrap._call_with_frames_removed.__code__.co_filename  # type: ignore[attr-defined]  # noqa: SLF001
"""The file name of importlib's own code."""


def passed_over(function: F) -> F:
    """Let code which counts frames pass over a function, and those made in it: their file is importlib's. A decorator.

    For functions where alone there is importlib, or no frame. The lines and the name stay those of the function; to
    tell such a frame from importlib's, look at the globals of the frame.
    """
    _put_code(function, _in_file(_code_of(function), PASSED_OVER))
    return function


def standing_for(original: Any) -> Callable[[F], F]:
    """Make a decorator, as ``functools.wraps`` and `passed_over`, for a function with a call of ``original``."""

    def wrap(function: F) -> F:
        functools.update_wrapper(passed_over(function), original)
        return function

    return wrap


def handing_on(function: F) -> F:
    """Let a function, and functions made in the body, hand ``**kwargs`` on without a copy: a decorator.

    Python copies the mapping behind ``**``, which may be any mapping and anybody's. The keywords of a called function
    are a dictionary of the function's own already. For functions which do nothing with the keywords but to hand them
    on. Where an interpreter compiles such a call to something else, the function stays unchanged.
    """
    _put_code(function, _without_copies(_code_of(function)))
    return function


def _without_copies(code: CodeType) -> CodeType:
    """Copy code without the two instructions to make an empty dictionary and to update it by the keywords."""
    inner = tuple(_without_copies(each) if type(each) is CodeType else each for each in code.co_consts)
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        return code.replace(co_consts=inner)
    is_variadic = bool(code.co_flags & inspect.CO_VARARGS)
    keywords = code.co_varnames[code.co_argcount + code.co_kwonlyargcount + is_variadic]
    instructions, made = list(dis.get_instructions(code)), bytearray(code.co_code)
    for make, load, update, call in zip(*(instructions[at:] for at in range(4)), strict=False):
        is_copied = (make.opname, make.arg, update.opname, update.arg) == ("BUILD_MAP", 0, "DICT_MERGE", 1)
        is_loaded = load.opname in _LOADS and load.argval == keywords
        if is_copied and is_loaded and call.opname == "CALL_FUNCTION_EX":
            for one in (make, update):
                made[one.offset : one.offset + 2] = _NOTHING
    return code.replace(co_code=bytes(made), co_consts=inner)


_LOADS: Final = frozenset({"LOAD_FAST", "LOAD_FAST_BORROW"})
_NOTHING: Final = bytes((dis.opmap["NOP"], 0))


def seen_as(original: Any) -> Callable[[F], F]:
    """Let a function in the place of ``original``, without a call of ``original``, be taken for it: a decorator.

    Code that walks frames finds the function in the original's file and Python module, under the original's name, on
    the line of its ``def``. The function keeps the present values of its globals. Nothing changes where the original
    has no code in Python.
    """

    def disguise(function: F) -> F:
        place = getattr(original, "__code__", None)
        if type(place) is not CodeType:
            return function
        return cast("F", _moved(function, _at(_code_of(function), place), original))

    return disguise


def making_seen_as(original: Any) -> Callable[[F], F]:
    """Let the functions made by a function be taken for ``original``: a decorator."""

    def disguise(function: F) -> F:
        code, place = _code_of(function), original.__code__
        made = tuple(_at(each, place) if type(each) is CodeType else each for each in code.co_consts)
        return cast("F", _moved(function, code.replace(co_consts=made), original))

    return disguise


def _moved(function: Any, code: CodeType, original: Any) -> Any:
    """Copy a function with other code, among globals which claim to be of the original's Python module."""
    own = _globals_of(function)
    known = {name: value for name, value in original.__globals__.items() if name[:2] == name[-2:] == "__"}
    known |= {name: _value(own, name) for name in _globals_in(code) if not hasattr(builtins, name)}
    made: Any = FunctionType(code, known, None, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(made, function)
    vars(made).pop("__wrapped__")
    vars(made).update(vars(function))
    return made


def _value(own: dict[str, Any], name: str) -> Any:
    """Return a global variable; a lazy import is made now."""
    module = sys.modules.get(own["__name__"])
    return getattr(module, name) if module is not None and vars(module) is own else own[name]


def _code_of(function: Any) -> CodeType:
    assert type(function) is FunctionType
    return function.__code__


def _globals_of(function: Any) -> dict[str, Any]:
    return function.__globals__  # type: ignore[no-any-return]


def _globals_in(code: CodeType) -> Iterator[str]:
    """Yield the names of the globals read by code, and by functions made in the code."""
    for one in dis.get_instructions(code):
        if one.opname == "LOAD_GLOBAL":
            yield one.argval
    for each in code.co_consts:
        if type(each) is CodeType:
            yield from _globals_in(each)


def _put_code(function: Any, code: CodeType) -> None:
    function.__code__ = code


def _in_file(code: CodeType, name: str) -> CodeType:
    """Copy code, with the code of all functions and comprehensions made there, into another file."""
    inner = tuple(_in_file(each, name) if type(each) is CodeType else each for each in code.co_consts)
    return code.replace(co_filename=name, co_consts=inner)


def _at(code: CodeType, place: CodeType) -> CodeType:
    """Copy code under the name of other code, and on the first line of the other.

    Lines are told by a table of entries for at most eight units of two bytes. Kind 13 has a line and no column; the one
    number of an entry counts lines from the entry before.
    """
    units = len(code.co_code) // 2
    lines = b"".join(bytes((0x80 | 13 << 3 | min(8, units - at) - 1, 0)) for at in range(0, units, 8))
    made = code.replace(
        co_filename=place.co_filename,
        co_name=place.co_name,
        co_qualname=place.co_qualname,
        co_firstlineno=place.co_firstlineno,
        co_linetable=lines,
    )
    if place.co_filename.startswith(_IMPORTLIB):
        _importing.add(made)
    return made


def is_ours(frame: FrameType) -> bool:
    """Whether a frame is of a function of this package, whatever the file name of the frame.

    A function taken for one of the standard library is not ours, except in the place of importlib.
    """
    name = frame.f_globals.get("__name__")
    if not isinstance(name, str):
        return False
    return name.startswith(_PACKAGE) or (name.startswith("importlib._bootstrap") and frame.f_code in _importing)


_PACKAGE: Final = f"{__package__}."

"""How functions that must stand between a module's code and somebody else's look to code that walks frames.

Alone there is a frame of importlib, of the logging module, or none at all, where inside a base there is one of ours.
Code that looks for its caller (loggers for the place of a call, ``warnings.warn`` with a ``stacklevel``, test runners
and printers of tracebacks) passes over frames by the file of their code. So each of ours that may be on the stack while
other people's code runs has a file name that is passed over: that of importlib, which ``warnings`` and ``logging``
leave out when they count, or that of the very function in whose place it stands.
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
"""The code of what is taken for functions of importlib; made when this package is imported, and no more later."""

PASSED_OVER: Final[str] = importlib._bootstrap._call_with_frames_removed.__code__.co_filename  # type: ignore[attr-defined]  # noqa: SLF001
"""The file name of importlib's own code."""


def passed_over(function: F) -> F:
    """Let code that counts frames pass over a function, and those made in it: their file is importlib's. A decorator.

    For what stands where alone there is importlib, or nothing. The lines stay those of the function, and so does its
    name; to tell such a frame from importlib's, look at its globals.
    """
    _put_code(function, _in_file(_code_of(function), PASSED_OVER))
    return function


def standing_for(original: Any) -> Callable[[F], F]:
    """``functools.wraps`` and `passed_over`, for a function that calls ``original``: a decorator."""

    def wrap(function: F) -> F:
        functools.update_wrapper(passed_over(function), original)
        return function

    return wrap


def handing_on(function: F) -> F:
    """Let a function, and those made in it, hand its ``**kwargs`` on as they are, and no copy of them: a decorator.

    Python copies what stands behind ``**``, which may be any mapping and anybody's. The keywords that a function was
    called with are a dictionary of its own already. For those that do nothing with them but to hand them on. Where an
    interpreter compiles such a call to something else, the function stays as it is.
    """
    _put_code(function, _without_copies(_code_of(function)))
    return function


def _without_copies(code: CodeType) -> CodeType:
    """The same code without the two instructions that make an empty dictionary and update it by the keywords."""
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
    """Let a function that does the work of ``original``, and does not call it, be taken for it: a decorator.

    To code that walks frames it is in the original's file and module, has its name, and is on the line of its ``def``.
    What the function finds among its globals it keeps as it is now. Nothing changes where the original has no code in
    Python.
    """

    def disguise(function: F) -> F:
        place = getattr(original, "__code__", None)
        if type(place) is not CodeType:
            return function
        return cast("F", _moved(function, _at(_code_of(function), place), original))

    return disguise


def making_seen_as(original: Any) -> Callable[[F], F]:
    """The same for the functions that a function makes: a decorator."""

    def disguise(function: F) -> F:
        code, place = _code_of(function), original.__code__
        made = tuple(_at(each, place) if type(each) is CodeType else each for each in code.co_consts)
        return cast("F", _moved(function, code.replace(co_consts=made), original))

    return disguise


def _moved(function: Any, code: CodeType, original: Any) -> Any:
    """The function with other code, among globals that say they are those of the original's module."""
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
    """A global variable; one that is imported lazily is imported now."""
    module = sys.modules.get(own["__name__"])
    return getattr(module, name) if module is not None and vars(module) is own else own[name]


def _code_of(function: Any) -> CodeType:
    assert type(function) is FunctionType
    return function.__code__


def _globals_of(function: Any) -> dict[str, Any]:
    return function.__globals__  # type: ignore[no-any-return]


def _globals_in(code: CodeType) -> Iterator[str]:
    """The names of the globals that code reads, and what it makes."""
    for one in dis.get_instructions(code):
        if one.opname == "LOAD_GLOBAL":
            yield one.argval
    for each in code.co_consts:
        if type(each) is CodeType:
            yield from _globals_in(each)


def _put_code(function: Any, code: CodeType) -> None:
    function.__code__ = code


def _in_file(code: CodeType, name: str) -> CodeType:
    """The same code in another file, with all functions and comprehensions that it makes."""
    inner = tuple(_in_file(each, name) if type(each) is CodeType else each for each in code.co_consts)
    return code.replace(co_filename=name, co_consts=inner)


def _at(code: CodeType, place: CodeType) -> CodeType:
    """The same code, named as another and on its first line.

    Lines are told by a table of entries for at most eight units of two bytes. Kind 13 has a line and no column; its
    one number is how many lines further than the entry before.
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


def leave(error: BaseException) -> None:
    """Take the frames of ours that an error came through last out of its traceback; a bare ``raise`` is to follow.

    That adds no entry for the function that says it, so the traceback goes on as if nothing of ours had been there. An
    error that shows no other frame keeps ours: it may be our own fault.
    """
    trace = error.__traceback__
    while trace is not None and is_ours(trace.tb_frame):
        trace = trace.tb_next
    if trace is not None:
        error.__traceback__ = trace


def is_ours(frame: FrameType) -> bool:
    """Whether a frame is of a function of this package, whatever file it seems to be in.

    Those that are taken for functions of the standard library are not ours, but for what stands for importlib.
    """
    name = frame.f_globals.get("__name__")
    if not isinstance(name, str):
        return False
    return name.startswith(_PACKAGE) or (name.startswith("importlib._bootstrap") and frame.f_code in _importing)


_PACKAGE: Final = f"{__package__}."

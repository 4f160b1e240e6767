"""How functions that must stand between a module's code and somebody else's look to code that walks frames.

Alone there is a frame of importlib, of the logging module, or none at all, where inside a base there is one of ours.
Code that looks for its caller (loggers for the place of a call, ``warnings.warn`` with a ``stacklevel``, test runners
and printers of tracebacks) passes over frames by the file of their code. So each of ours that may be on the stack while
other people's code runs has the file name that stands there alone.
"""

from __future__ import annotations

import functools
import importlib
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_OF_IMPORTLIB: Final[CodeType] = importlib._bootstrap._call_with_frames_removed.__code__  # type: ignore[attr-defined]  # noqa: SLF001


def of_importlib(function: F) -> F:
    """Give a function that runs while a module is imported the file name of importlib's code. A decorator.

    ``warnings`` skips such frames when it counts levels, tracebacks of failed imports are cut by it, and every printer
    of stacks knows it. The lines stay those of the function, and so does its name.
    """
    _put_code(function, _in_file(_code_of(function), _OF_IMPORTLIB.co_filename))
    return function


def standing_for(original: Any) -> Callable[[F], F]:
    """``functools.wraps``, for a function that takes the place of ``original`` and calls it: a decorator.

    To code that walks frames it is the original's: its file, its name, and the line of its ``def``. Nothing of that is
    done for an original without code in Python, which leaves no frame.
    """

    def wrap(function: F) -> F:
        code = getattr(original, "__code__", None)
        if type(code) is CodeType:
            _put_code(function, _at(_code_of(function), code))
        functools.update_wrapper(function, original)
        return function

    return wrap


def _code_of(function: Any) -> CodeType:
    assert type(function) is FunctionType
    return function.__code__


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
    return code.replace(
        co_filename=place.co_filename,
        co_name=place.co_name,
        co_qualname=place.co_qualname,
        co_firstlineno=place.co_firstlineno,
        co_linetable=lines,
    )

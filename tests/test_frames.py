"""What functions look like to code that walks frames."""

from __future__ import annotations

import dis
import functools
import sys
import textwrap
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from koupleless import frames
from koupleless.contextual import ContextCallable
from koupleless.frames import handing_on, passed_over, seen_as, standing_for
from koupleless.tracebacks import leave

if TYPE_CHECKING:
    from collections.abc import Callable


def original(argument: Any) -> Any:
    return argument()


def test_what_a_function_makes_is_passed_over_with_it() -> None:
    @passed_over
    def make() -> Callable[[], object]:
        free = 1

        def made() -> object:
            warnings.warn(f"{free}", stacklevel=2)
            return sys._getframe().f_code.co_filename

        return made

    made = make()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        file = made()
    assert file == "<frozen importlib._bootstrap>"
    assert [each.filename for each in seen] == [__file__]


def test_a_wrapper_is_passed_over_when_the_original_warns() -> None:
    def old() -> None:
        warnings.warn("old", DeprecationWarning, stacklevel=2)

    @standing_for(old)
    def wrapper() -> None:
        old()

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        wrapper()
    assert [each.filename for each in seen] == [__file__]
    assert wrapper.__name__ == "old"
    assert vars(wrapper)["__wrapped__"] is old


def test_a_replacement_is_seen_on_the_first_line_of_the_original() -> None:
    """Also one that is long: each of its instructions has that line. Its module is the original's."""

    @seen_as(functools.reduce)  # has no code in Python: nothing to be seen as
    def untouched() -> str:
        return sys._getframe().f_code.co_filename

    @seen_as(textwrap.dedent)
    def elsewhere() -> str:
        return str(sys._getframe().f_globals["__name__"])

    @seen_as(original)
    def replacement(argument: Any) -> Any:
        numbers = [argument] * 3
        for number in numbers:
            if number is None:
                numbers.append(argument)
            elif len(numbers) > 100:
                numbers.clear()
        try:
            return argument()
        finally:
            numbers.clear()

    found: list[traceback.FrameSummary] = []
    replacement(lambda: found.extend(traceback.extract_stack()))
    (entry,) = [entry for entry in found if entry.name == "original"]
    assert (entry.filename, entry.lineno) == (__file__, original.__code__.co_firstlineno)
    assert {line for *_, line in replacement.__code__.co_lines()} == {original.__code__.co_firstlineno}
    assert untouched() == __file__
    assert elsewhere() == "textwrap"


def test_frames_of_ours_are_left_out_of_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the error has come through them last, and unless it shows no others."""
    monkeypatch.setattr(frames, "_PACKAGE", "ours")
    ours = {"__name__": "ours", "leave": leave}
    exec(
        "def through(function):\n try:\n  return inner(function)\n"
        " except BaseException as error:\n  leave(error)\n  raise\n"
        "def inner(function):\n return function()\n",
        ours,
    )
    through: Any = ours["through"]

    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError) as raised:
        through(lambda: through(fail))
    names = [entry.name for entry in traceback.extract_tb(raised.value.__traceback__)]
    assert names[1:] == ["<lambda>", "fail"]
    with pytest.raises(TypeError) as raised_by_us:
        through(None)
    assert [entry.name for entry in traceback.extract_tb(raised_by_us.value.__traceback__)][1:] == ["through", "inner"]


def test_what_is_called_by_context_leaves_no_frame() -> None:
    def walk(first: int, *, second: int) -> list[str]:
        frame: Any = sys._getframe()
        return [frame.f_code.co_name, frame.f_back.f_code.co_name, str(first + second)]

    by_context = ContextCallable(lambda: walk)
    assert callable(by_context)
    name = test_what_is_called_by_context_leaves_no_frame.__name__
    assert by_context(1, second=2) == ["walk", name, "3"]


def through(function: Callable[..., Any]) -> Callable[..., Any]:
    """Calls a function, as a decorator does that takes whatever parameters there are."""

    @handing_on
    def make() -> Callable[..., Any]:
        def made(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return made

    return make()


def test_keywords_are_handed_on_and_not_copied() -> None:
    assert "DICT_MERGE" not in [one.opname for one in dis.get_instructions(through(original))]


class Called:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.found = args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    @classmethod
    def of(cls, first: Any, /, *, x: Any = None, **kwargs: Any) -> Any:
        return first, x, kwargs


KEYWORDS: dict[str, Callable[..., Any]] = {
    "a function": lambda *args, **kwargs: (args, kwargs),
    "named parameters": lambda first, second=None, *, x=None, y=None: (first, second, x, y),
    "a class": lambda *args, **kwargs: Called(*args, **kwargs).found,
    "an instance": Called(),
    "a class method": Called.of,
    "built in": lambda first, **kwargs: dict([first], **kwargs),
    "a partial function": functools.partial(Called.of, x=5),
}


@pytest.mark.parametrize("called", KEYWORDS.values(), ids=list(KEYWORDS))
def test_who_is_called_gets_the_keywords_that_were_given(called: Callable[..., Any]) -> None:
    handed_on = through(called)
    for _ in range(3):
        assert handed_on(("a", 1)) == called(("a", 1))
        assert handed_on(("a", 1), x=1) == called(("a", 1), x=1)
        assert handed_on(("a", 1), y=2, x=1) == called(("a", 1), y=2, x=1)


def test_what_is_built_in_gets_them_too() -> None:
    assert through(dict)(a=1) == {"a": 1}
    assert through(len)("abc") == 3
    assert through(functools.partial)(dict, a=1)(b=2) == {"a": 1, "b": 2}
    kept = through(functools.partial)(dict, a=1)
    assert kept.keywords == {"a": 1}


def test_who_is_called_changes_keywords_of_his_own() -> None:
    def change(**kwargs: Any) -> None:
        kwargs.clear()

    @handing_on
    def twice(**kwargs: Any) -> Any:
        change(**kwargs)
        return Called()(**kwargs)

    assert twice(a=1) == ((), {"a": 1})


def test_other_mappings_are_copied_as_always() -> None:
    class Mapping:
        def keys(self) -> list[str]:
            return ["a"]

        def __getitem__(self, name: str) -> str:
            return name

    @handing_on
    def call(*args: Any, **kwargs: Any) -> Any:
        other: Any = Mapping()
        return Called()(*args, **other), Called()(**kwargs, b=1), {**kwargs}

    assert call(1, c=2) == (((1,), {"a": "a"}), ((), {"c": 2, "b": 1}), {"c": 2})

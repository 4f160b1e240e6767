"""What is told of an error of a biz: its own words, and what to do about a module that is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.container.starting.failure import in_words
from koupleless.context import Scope
from koupleless.isolation.namespace import Namespace
from koupleless.isolation.policy import Policy

if TYPE_CHECKING:
    from pathlib import Path

MISSING = "neither biz hello:1.0 nor the base has this Python module; add its distribution to the dependencies"
CODE = """
def direct():
    import nowhere_at_all

def caused():
    try:
        import nowhere_at_all
    except ImportError as error:
        raise RuntimeError("no driver") from error

def named():
    try:
        import nowhere_at_all
    except ImportError as error:
        raise RuntimeError(f"no driver: {error}") from error

def handled():
    try:
        import nowhere_at_all
    except ImportError:
        raise RuntimeError("something else")

def refused():
    import fastapi

def in_a_circle():
    error = RuntimeError("round")
    error.__cause__ = error
    raise error
"""


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("direct", f"ModuleNotFoundError: No module named 'nowhere_at_all': {MISSING}"),
        ("caused", f"RuntimeError: no driver (No module named 'nowhere_at_all'): {MISSING}"),
        ("named", f"RuntimeError: no driver: No module named 'nowhere_at_all': {MISSING}"),
        ("handled", "RuntimeError: something else"),
        (
            "refused",
            (
                "koupleless.errors.ModuleRefused: No module named 'fastapi': biz hello:1.0 may not take "
                "this Python module from the base: "
            ),
        ),
        ("in_a_circle", "RuntimeError: round"),
    ],
)
def test_what_to_do_stands_behind_the_words_of_an_error(tmp_path: Path, what: str, words: str) -> None:
    (tmp_path / "app.py").write_text(CODE, encoding="utf-8")
    scope = Scope(BizId.parse("hello:1.0"))
    namespace = Namespace(scope, [str(tmp_path)], Policy(declared=frozenset({"else"})))
    app: Any = namespace.import_module("app")
    try:
        with pytest.raises((ImportError, RuntimeError)) as caught:
            getattr(app, what)()
        told = in_words(caught.value, scope)
    finally:
        namespace.drop()
        scope.close()
    assert told.startswith(words)
    assert "\n" not in told
    assert told.count("nor the base has this") + told.count("may not take this") <= 1

"""One place cuts tracebacks: frames of this package and of the import system are taken out, all others stay."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from koupleless.cli import serve
from koupleless.errors import BaseStartFailed
from koupleless.tracebacks import clean, own_traceback, trimmed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a Python module that fails when imported, by way of another one, and has a cause for it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    tmp_path.joinpath("traced_outer.py").write_text("import traced_inner\n")
    cause = "try:\n    {}['absent']\nexcept KeyError as error:\n    raise RuntimeError('no') from error\n"
    tmp_path.joinpath("traced_inner.py").write_text(cause)
    return "traced_outer"


def raised_by(name: str) -> BaseException:
    try:
        importlib.import_module(name)
    except RuntimeError as error:
        return error
    finally:
        sys.modules.pop(name, None)
    raise AssertionError("nothing was raised")


def test_a_text_for_people_has_the_causes_and_no_frame_of_an_import(failing):
    text = own_traceback(raised_by(failing))
    assert not any(place in text for place in ("importlib/", "<frozen"))
    assert text.index("KeyError: 'absent'") < text.index("direct cause") < text.index("RuntimeError: no")
    assert text.index("traced_outer.py") < text.rindex("traced_inner.py")


def test_an_application_that_cannot_be_imported_is_told_with_its_own_frames_and_causes(failing):
    with pytest.raises(BaseStartFailed, match="traced_outer cannot be imported") as raised:
        serve.load_app(f"{failing}:app")
    text = str(raised.value)
    assert "importlib" not in text
    assert "/koupleless/" not in text
    assert "KeyError: 'absent'" in text
    assert "traced_inner.py" in text


def test_an_error_on_its_way_loses_the_frames_of_imports_alone(failing):
    error = raised_by(failing)
    clean(error)
    files, trace = [], error.__traceback__
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename.rpartition("/")[2])
        trace = trace.tb_next
    assert files == ["test_tracebacks.py", "__init__.py", "traced_outer.py", "traced_inner.py"]
    assert trimmed(None) is None

"""Environment variables as compiled code reads them."""

from __future__ import annotations

import ctypes
import os
import threading

import pytest

from koupleless.adapters import c_environment
from koupleless.adapters.c_environment import shown_as_it_is, shown_to_c
from koupleless.biz import BizId
from koupleless.context import Scope, current, entered

_C = ctypes.CDLL(None)
_C.getenv.restype = ctypes.c_char_p


def seen(name: str) -> str | None:
    value: bytes | None = _C.getenv(name.encode())
    return None if value is None else value.decode()


@pytest.fixture(params=["by the pointer", "by setting them"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWN", "of the process")
    if request.param == "by setting them":
        monkeypatch.setattr(c_environment, "_pointer", lambda: None)


def test_c_code_sees_the_variables_for_as_long_as_it_lasts() -> None:
    with shown_to_c({"SHOWN": "other", "FURTHER": "é", "PATH": None}):
        assert [seen("SHOWN"), seen("FURTHER"), seen("PATH")] == ["other", "é", None]
        assert os.environ["SHOWN"] == "of the process"
        with shown_to_c({"SHOWN": "of the process"}):
            pass
    assert [seen("SHOWN"), seen("FURTHER"), seen("PATH")] == ["of the process", None, os.environ["PATH"]]
    with pytest.raises(KeyError), shown_to_c({"SHOWN": None}):
        raise KeyError(seen("SHOWN"))
    assert seen("SHOWN") == "of the process"


def test_the_caller_goes_on_as_who_it_is() -> None:
    scope = Scope(BizId.of("one", "1.0"))
    with entered(scope), shown_to_c({"SHOWN": "other"}):
        assert [current(), seen("SHOWN")] == [scope, "other"]


def test_what_others_set_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with shown_to_c({"SHOWN": "other", "FURTHER": "1"}):
        monkeypatch.setenv("MEANWHILE", "set")
    assert [seen("SHOWN"), seen("FURTHER"), seen("MEANWHILE")] == ["of the process", None, "set"]


def test_one_is_shown_at_a_time() -> None:
    wrong: list[str | None] = []

    def show(value: str) -> None:
        for _ in range(200):
            with shown_to_c({"SHOWN": value}):
                wrong.extend(each for each in (seen("SHOWN"),) if each != value)
            with shown_as_it_is():
                wrong.extend(each for each in (seen("SHOWN"),) if each != "of the process")

    threads = [threading.Thread(target=show, args=(value,)) for value in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []

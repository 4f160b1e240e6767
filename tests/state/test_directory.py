"""The directory of a base's state: where it lies by default, and one process at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from koupleless.errors import StateHeld
from koupleless.state import directory
from koupleless.state.directory import StateDirectory, default_directory

HOLD = """
import os, sys, time
from pathlib import Path
from koupleless.state.directory import StateDirectory
held = StateDirectory.take(Path(sys.argv[1]))
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print(flush=True)
time.sleep(600)
"""


def test_a_second_base_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    held = StateDirectory.take(tmp_path / "a" / "state")

    with pytest.raises(StateHeld, match=rf"held by the base of process {os.getpid()}; give this base another --name"):
        StateDirectory.take(tmp_path / "a" / ".." / "a" / "state")

    held.release()
    held.release()
    StateDirectory.take(tmp_path / "a" / "state").release()


def test_the_lock_ends_with_the_process_even_if_children_of_it_live_on(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StateHeld, match=f"of process {other.pid};"):
            StateDirectory.take(tmp_path)
        with pytest.raises(StateHeld):  # the look at the lock has not ended the lock
            StateDirectory.take(tmp_path)

        other.kill()
        other.wait()

        StateDirectory.take(tmp_path).release()


def test_the_default_is_below_the_state_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_directory("shop", is_named=True) == Path("/home/me/.local/state/koupleless/shop")
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert default_directory("shop", is_named=True) == Path("/elsewhere/koupleless/shop")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(directory, "_SYSTEM", tmp_path)
    assert default_directory("shop", is_named=True) == tmp_path / "koupleless" / "shop"


def test_bases_without_a_name_are_told_apart_by_the_directory_of_their_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    for place in (tmp_path / "one", tmp_path / "two", tmp_path / "one"):
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(place)
        found.append(default_directory("base", is_named=False))

    assert found[0] == found[2] != found[1]
    assert found[0].name.startswith("base-")

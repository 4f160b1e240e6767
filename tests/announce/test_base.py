"""What a base does for its controller, from the start to the end, and what it does without one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from koupleless.base import Base
from koupleless.errors import SettingsError
from koupleless.settings.base import load_base

if TYPE_CHECKING:
    from pathlib import Path


def test_a_base_without_a_controller_loads_nothing_for_one() -> None:
    code = "import sys; from koupleless.base import Base; Base(); print([n for n in sys.modules if '.announce' in n])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_names_of_no_use_are_refused_where_there_is_a_controller(tmp_path: Path) -> None:
    environ = {"KOUPLELESS_BASE_EPHEMERAL": "1", "KOUPLELESS_BASE_VERSION": "1.0+build"}
    Base(settings=load_base(environ=environ, directory=tmp_path))
    with pytest.raises(SettingsError, match=r"version = .1\.0\+build. becomes a label"):
        Base(settings=load_base({"arklet_controller_url": "mc"}, environ=environ, directory=tmp_path))

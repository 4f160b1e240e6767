"""What several rooms' tests share: real little modules in several versions, built once into artefacts."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from koupleless.artifact.build import Options, build_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIZS = Path(__file__).parent / "bizs"

collect_ignore = ["bizs"]
"""Applications, some with tests of their own, which are run in bizs."""


def unmeasured() -> dict[str, str]:
    """The environment for a child that is not to be measured, nor to find the data of ``scripts/coverage``.

    One that measures coverage itself would end that measurement, and take its data for its own.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@pytest.fixture(scope="session", autouse=True)
def signals_reach_children() -> Iterator[None]:
    """What is ignored, as a hangup under ``nohup`` or an interrupt in the background, children ignore, too.

    What has a handler here is theirs by default.
    """
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``artefact("hello-1.0")`` is the path of that module's built artefact."""
    out = tmp_path_factory.mktemp("artefacts")
    built: dict[str, Path] = {}

    def get(directory: str) -> Path:
        if directory not in built:
            built[directory] = build_project(BIZS / directory, Options(out=out)).path
        return built[directory]

    return get

"""What several rooms' tests share: real little modules in several versions, built once into artefacts."""

from __future__ import annotations

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


@pytest.fixture(scope="session", autouse=True)
def hangups_reach_children() -> Iterator[None]:
    """Under ``nohup`` a hangup is ignored, and children inherit that; what has a handler is theirs by default again."""
    before = signal.getsignal(signal.SIGHUP)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


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

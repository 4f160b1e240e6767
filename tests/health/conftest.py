"""Modules of one file, in a container without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from koupleless.artifact.build import Options, build_file
from koupleless.container.host import Host
from koupleless.container.surroundings import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from koupleless.biz import BizId


@pytest.fixture
def deadlines() -> Deadlines:
    return Deadlines(stop_s=2.0)


@pytest.fixture
def plain(tmp_path: Path, deadlines: Deadlines) -> Iterator[Host]:
    host = Host.make(tmp_path / "plain-store", deadlines=deadlines)
    yield host
    host.container.close()


@pytest.fixture
def put(plain: Host, tmp_path: Path) -> Callable[..., BizId]:
    """``put(source)`` installs a module of this source and returns its identity."""

    def run(source: str, name: str = "shop") -> BizId:
        path = tmp_path / f"{name}.py"
        path.write_text(f"{source}\nasync def app(scope, receive, send):\n    raise RuntimeError\n")
        built = build_file(path, Options(out=tmp_path / "built", version="1")).path
        return plain.container.install(plain.container.prepare(str(built))).info.id

    return run

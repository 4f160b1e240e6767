"""Bases without a server, one after the other over the same state directory."""

from __future__ import annotations

import functools
import hashlib
import zipfile
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from koupleless.artifact.manifest import BIZ_TOML, MARK, Manifest, render_biz_toml
from koupleless.biz import BizId
from koupleless.container.host import Host
from koupleless.container.surroundings import Deadlines
from koupleless.container.terms import Rules
from koupleless.replay import replay
from koupleless.state.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Lasting:
    """A container with a book on disk, and a store beside the book."""

    def __init__(self, directory: Path, *, rules: Rules | None = None) -> None:
        self.directory = directory
        self.rules = rules or Rules()
        directory.mkdir(exist_ok=True)
        host = Host.make(
            directory / "store",
            rules=self.rules,
            deadlines=Deadlines(start_s=20.0, drain_s=5.0, stop_s=2.0),
            data_dir=directory / "data",
        )
        self.container, self.front, self.stage, self.store = host.container, host.front, host.stage, host.store
        self.notice = self.container.book.load(Journal(directory / "journal"))

    def replay(self) -> Lasting:
        replay(self.container, has_successors=self.rules.activate_next or self.rules.activate_many)
        return self

    def install(self, artefact: Path, **options: Any) -> Any:
        return self.container.install(self.container.prepare(str(artefact)), **options)

    def get(self, path: str) -> str:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.front), base_url="http://base") as client:
                return await client.get(path)

        return self.stage.call(ask, timeout_s=30).text

    def states(self) -> list[tuple[str, str]]:
        return [(str(info.id), info.state.value) for info in self.container.bizs()]

    def end(self) -> None:
        """End in order; an end without order is a matter of whole bases."""
        self.container.close()
        self.container.book.close()
        self.store.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Lasting]]:
    """``start()`` opens the state directory of the test once more, after the base before has ended."""
    running: list[Lasting] = []

    def make(**options: Any) -> Lasting:
        if running:
            running.pop().end()
        running.append(Lasting(tmp_path / "state", **options))
        return running[-1]

    yield make
    for each in running:
        each.end()


APP = """
TEXT = {text!r}

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [TEXT.encode()]
"""


def make_module(directory: Path, identity: str, code: str | None = None, **members: Any) -> Path:
    """Make the artefact of a WSGI application, by default one that answers its identity."""
    biz = BizId.parse(identity)
    files = {"app.py": (APP.format(text=identity) if code is None else code).encode(), MARK: b""}
    manifest = Manifest(
        id=biz,
        entry="app:app",
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        **{"web_context_path": f"/{biz.name}", **members},
    )
    path = directory / f"{biz.name}-{biz.version}-ark-biz.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for place, data in {BIZ_TOML: render_biz_toml(manifest).encode(), **files}.items():
            archive.writestr(place, data)
    return path


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., Path]:
    """``module("shop:1.0")`` is the path of an artefact, as `make_module` makes it."""
    return functools.partial(make_module, tmp_path)

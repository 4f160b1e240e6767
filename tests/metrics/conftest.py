"""A container whose modules are made from source text, and a scrape of it, read back as samples."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from koupleless.artifact.build import Options, build_project
from koupleless.container.host import Host
from koupleless.container.surroundings import Deadlines
from koupleless.metrics.exposition import expose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from koupleless.biz import BizId

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"].endswith("/raise"):
        raise ValueError("on purpose")
    status = int(scope["path"].rpartition("/")[2] or 200)
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
"""


class Scraped:
    """The samples of one scrape."""

    def __init__(self, *, accept: str = "") -> None:
        text, self.content_type = expose(accept)
        self.text = text.decode()
        parse = parse_open if accept else parse_plain
        self.families = {family.name: family for family in parse(self.text)}

    def value(self, name: str, **labels: str) -> float | None:
        """The value of the one sample of this name with exactly these labels."""
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(found) <= 1, found
        return found[0] if found else None

    def series(self, **labels: str) -> list[str]:
        """The names of samples with these labels, and perhaps others."""
        return [
            sample.name
            for family in self.families.values()
            for sample in family.samples
            if labels.items() <= sample.labels.items()
        ]


class Small:
    """A container, its modules, and requests to them."""

    def __init__(self, directory: Path, **around: Any) -> None:
        self._directory = directory
        self.host = Host.make(
            directory / "store",
            deadlines=Deadlines(start_s=20.0, drain_s=2.0, stop_s=2.0),
            data_dir=directory / "data",
            **around,
        )
        self.container = self.host.container

    def install(
        self,
        source: str = APP,
        *,
        name: str = "one",
        version: str = "1",
        entry: str = "app:app",
        extra: str = "",
        **options: Any,
    ) -> BizId:
        project = self._directory / f"{name}-{version}-{len(list(self._directory.iterdir()))}"
        project.mkdir()
        (project / "app.py").write_text(textwrap.dedent(source), encoding="utf-8")
        (project / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\nversion = "{version}"\n'
            f'[tool.koupleless.module]\nentry = "{entry}"\n{extra}\n',
            encoding="utf-8",
        )
        path = build_project(project, Options(out=self._directory / "out")).path
        return self.container.install(self.container.prepare(str(path)), **options).info.id

    def ask(self, path: str, method: str = "GET") -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.host.front, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://base") as client:
                return await client.request(method, path)

        return self.host.stage.call(call, timeout_s=30)

    def leave(self, biz: BizId) -> None:
        report = self.container.uninstall(biz)
        assert report.clean, report.summary()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    made = Small(tmp_path)
    yield made
    made.container.close()

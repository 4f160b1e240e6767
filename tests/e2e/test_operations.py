"""The page for operators, done as a reader does it: on the real control plane, with a controller and real bases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.pages import Reader
from tests.kube.fixtures import programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from tests.kube.plane import Access

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]

DOCS = Path(__file__).parents[2] / "docs"
PORTS = ("7777", "8090", "1248", "8100", "1258", "8110", "1268")


@pytest.fixture
def reader(tmp_path: Path, control_plane: Access, kube: httpx.Client, namespace: str) -> Iterator[Reader]:
    """A reader with a ``kubectl`` for the namespace of the test."""
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(control_plane.kubeconfig_of("admin", namespace=namespace)), encoding="utf-8")
    directory = tmp_path / "work"
    directory.mkdir()
    reader = Reader(directory, ports=PORTS, environment={"KUBECONFIG": str(config)}, path=programs())
    yield reader
    reader.close()


def test_the_page_for_operators_does_what_it_shows(reader: Reader) -> None:
    reader.follow((DOCS / "kubernetes-operations.md").read_text("utf-8"))

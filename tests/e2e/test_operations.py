"""The page for operators, done as a reader does it: on the real control plane, with a controller and real bases."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.e2e.pages import Reader
from tests.kube.fixtures import programs

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_the_first_commands_lead_to_a_running_module_and_are_five(reader: Reader) -> None:
    page = (DOCS / "module-controller.md").read_text("utf-8")
    install, *commands = page.partition("```shell\n")[2].partition("```")[0].splitlines()
    assert install.startswith("pip install")
    assert len(commands) == 4
    reader.run("arkctl new base shop && arkctl new module orders")
    says = ("... Uvicorn running on http://127.0.0.1:7777 (Press CTRL+C to quit)", "... knows this base as ...")
    # The page has the default env, which other tests of this control plane have, too.
    env = f"quick-{secrets.token_hex(4)}"
    written = "\n".join(commands).replace("~/.kube/config", f"$KUBECONFIG --env {env}")
    written = written.replace("--base shop", f"--base shop --env {env}")
    for command in written.splitlines():
        served, ampersand, _ = command.partition(" &")
        if ampersand:
            line = says[0] if "controller --" in served else says[1]
            reader.follow(f"```console stays\n$ {served}\n{line}\n```")
        else:
            reader.follow(f"```console\n$ {command}\n```")
    reader.run("kubectl rollout status deployment/orders --timeout=60s")
    answer = httpx.get(f"http://127.0.0.1:{reader.ports['8080']}/orders/", trust_env=False)
    assert answer.json()["hello"] == "orders"


def test_the_page_for_operators_does_what_it_shows(reader: Reader) -> None:
    reader.follow((DOCS / "kubernetes-operations.md").read_text("utf-8"))

"""``arkctl push``: from a project to a registry, and from there into a base."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.registry import LOGIN, registry_on
from tests.state.conftest import Lasting, make_module

from koupleless.artifact.fetching.credentials import Credentials
from koupleless.cli.commands import main
from koupleless.container.starting.prepare import Preparation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.registry import FakeRegistry


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with registry_on("token") as running:
        yield running


@pytest.fixture
def secrets(registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as ``docker login`` leaves one."""
    file = tmp_path / "docker" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"auths": {registry.host: {"auth": LOGIN}}}))
    file.chmod(0o600)
    monkeypatch.setenv("DOCKER_CONFIG", str(file.parent))
    return file


def test_a_pushed_module_is_installed_by_its_digest(
    registry: FakeRegistry, secrets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artefact = make_module(tmp_path, "shop:1.0")
    assert main(["push", str(artefact), f"oci://{registry.host}/team/shop"]) == 0
    said = capsys.readouterr()
    url = said.out.strip()
    assert said.err == "pushed shop:1.0\n"
    assert url.startswith(f"oci://{registry.host}/team/shop:1.0@sha256:")
    artefact.unlink()

    base = Lasting(tmp_path / "state")
    base.replay()
    preparation = Preparation(base.store, credentials=Credentials(secrets))
    with preparation.prepare(url) as prepared:
        base.container.install(prepared)
    assert base.get("/shop/") == "shop:1.0"
    base.end()


def test_a_project_is_built_and_the_result_is_json_on_request(
    registry: FakeRegistry, secrets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.py").write_text("async def app(scope, receive, send): ...\n")
    assert main(["push", str(tmp_path / "one.py"), f"oci://{registry.host}/one:stable", "-o", "json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["bizName"] == "one"
    assert told["bizUrl"].startswith(f"oci://{registry.host}/one:stable@sha256:")


def test_a_push_without_a_login_says_where_logins_are_looked_for(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    artefact = make_module(tmp_path, "shop:1.0")

    assert main(["push", str(artefact), f"oci://{registry.host}/team/shop"]) != 0
    assert "--secrets" in capsys.readouterr().err

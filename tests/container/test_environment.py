"""The variables of a module: where they come from, which is stronger, and how long they stay."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.artifact.build import Options, build_project
from koupleless.biz import BizId
from koupleless.container.terms import Strategy
from koupleless.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.container.conftest import World

SHOWING = """
import json, os

NAMES = ("GIVEN", "KEPT", "CENTRAL", "PROJECT", "TABLE", "PROCESS")

async def app(scope, receive, send):
    body = json.dumps({name: os.environ[name] for name in NAMES if name in os.environ}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
NAMES = ("GIVEN", "KEPT", "CENTRAL", "PROJECT", "TABLE", "PROCESS")
ENV_FILE = 'env-file = ".env"\n'


def values(source: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, source)


def lines(source: str, *names: str) -> str:
    return "".join(f"{name}={source}\n" for name in names)


@pytest.fixture
def install(world: World, tmp_path: Path) -> Callable[..., Any]:
    world.container._around = dataclasses.replace(world.container._around, config_dirs=(tmp_path / "config",))
    (tmp_path / "config" / "shop").mkdir(parents=True)

    def put_in(keys: str = "", *, source: str = SHOWING, name: str = "shop", **options: Any) -> Any:
        project = tmp_path / f"project-{name}"
        project.mkdir(exist_ok=True)
        (project / f"{name}.py").write_text(source)
        head = f"[project]\nname = '{name}'\nversion = '1'\n[tool.koupleless.module]\nentry = '{name}:app'\n"
        (project / "pyproject.toml").write_text(head + keys)
        built = build_project(project, Options(out=tmp_path / "out", compile=False)).path
        return world.container.install(world.container.prepare(str(built)), strategy=Strategy.REPLACE, **options)

    return put_in


@pytest.fixture
def said(world: World) -> Callable[..., dict[str, str]]:
    def ask(name: str = "shop") -> dict[str, str]:
        found: dict[str, str] = json.loads(world.get(f"/{name}/").text)
        return found

    return ask


TABLE = "env = { GIVEN = 't', KEPT = 't', CENTRAL = 't', PROJECT = 't', TABLE = 't' }\n"


@pytest.mark.parametrize("is_packed", [False, True], ids=["of the project", "packed"])
def test_each_source_is_stronger_than_those_below(
    install: Callable[..., Any],
    said: Callable[..., Mapping[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_packed: bool,
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "of the process")
    project = tmp_path / "project-shop"
    project.mkdir()
    (project / ".env").write_text(lines("env-file", *NAMES[:4]))
    (tmp_path / "config" / "shop" / ".env").write_text(lines("central", *NAMES[:3]))
    keys = f"{ENV_FILE}pack-env-file = {str(is_packed).lower()}\n{TABLE}"
    of_project = {} if is_packed else {"project_envs": values("env-file", *NAMES[:4])}
    install(keys, envs=values("kept", *NAMES[:2]), **of_project)
    install(keys, envs=values("given", "GIVEN"))
    assert said() == {
        "GIVEN": "given",
        "KEPT": "kept",
        "CENTRAL": "central",
        "PROJECT": "env-file",
        "TABLE": "t",
        "PROCESS": "of the process",
    }


def test_values_stay_over_versions_and_other_modules_have_others(
    world: World, install: Callable[..., Any], said: Callable[..., Mapping[str, str]]
) -> None:
    install(envs=values("1", "GIVEN", "KEPT"), project_envs=values("p", "PROJECT"))
    install(ENV_FILE, name="other")
    install(ENV_FILE)
    assert said() == {"GIVEN": "1", "KEPT": "1", "PROJECT": "p"}
    assert said("other") == {}
    world.container.uninstall(BizId.of("shop", "1"))
    install(ENV_FILE, project_envs={})
    assert said() == {"GIVEN": "1", "KEPT": "1"}


def test_a_start_that_fails_keeps_nothing_and_says_no_value(
    install: Callable[..., Any], said: Callable[..., Mapping[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    install(envs=values("good", "GIVEN"))
    for source in ("raise ValueError", "import os\nos.environ['NONE']", "import json\njson.loads('{')"):
        with pytest.raises(StartFailed) as caught:
            install(source=source, envs=values("s3cret", "GIVEN", "KEPT"))
        assert "s3cret" not in f"{caught.value} {caught.value.traceback} {caught.value!r}"
    assert said() == {"GIVEN": "good"}
    install()
    assert said() == {"GIVEN": "good"}
    assert "s3cret" not in caplog.text


def test_a_file_at_the_base_that_cannot_be_read_is_named(install: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "config" / "shop" / ".env").write_text("A=1\ns3 cret\n")
    with pytest.raises(StartFailed) as caught:
        install()
    assert f"{tmp_path / 'config' / 'shop' / '.env'}: line 2 is not NAME=value" in str(caught.value)
    assert "cret" not in str(caught.value)

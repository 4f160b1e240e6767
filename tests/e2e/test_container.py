"""The recipes for containers: the image, as far as it runs without an engine, and what runs the image."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from tests.conftest import free_port, lacks, program, until
from tests.e2e.image import ROOT, Image, Running
from tests.state.conftest import make_module

from koupleless.settings.base import ArkletSettings, BaseSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.deployment

EXAMPLES: Final = ROOT / "examples"
COMPOSE: Final[Any] = yaml.safe_load((EXAMPLES / "container" / "compose.yaml").read_text())
KUBERNETES: Final[dict[str, Any]] = {
    found["kind"]: found for found in yaml.safe_load_all((EXAMPLES / "kubernetes" / "base.yaml").read_text())
}
POD: Final[Any] = KUBERNETES["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]

WAITING: Final = """
import pathlib, time
HERE = pathlib.Path("/var/lib/koupleless")
def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        (HERE / "entered").touch()
        while not (HERE / "gate").exists():
            time.sleep(0.01)
    start_response("200 OK", [])
    return [b"answered"]
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    bwrap = program(tmp_path_factory, "bwrap")
    tried = subprocess.run([bwrap, "--ro-bind", "/", "/", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        lacks(f"bubblewrap does not run here: {tried.stderr}")
    directory = tmp_path_factory.mktemp("image")
    directory.chmod(0o755)
    return Image(bwrap, directory)


@pytest.fixture
def run(image: Image, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """``run(volume, environment)`` starts the image and waits until it is ready."""
    started: list[Running] = []

    def begin(volume: Path, environment: dict[str, str], **readable: Path) -> Running:
        running = image.start(volume, environment=environment, readable=readable, log=tmp_path / "log")
        started.append(running)
        url = f"http://127.0.0.1:{environment['KOUPLELESS_BASE_PORT']}/readyz"
        until(
            lambda: is_up(url) or running.popen.poll() is not None,
            60,
            otherwise=f"not ready: {running.log.read_text()}",
        )
        assert running.popen.poll() is None, running.log.read_text()
        return running

    yield begin
    for running in started:
        running.kill()


def is_up(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def ports() -> dict[str, str]:
    return {"KOUPLELESS_BASE_PORT": str(free_port()), "KOUPLELESS_ARKLET_PORT": str(free_port())}


def test_the_image_writes_only_where_it_says_and_ends_in_order(
    image: Image, run: Callable[..., Running], tmp_path: Path
) -> None:
    environment = ports()
    url, arklet = (f"http://127.0.0.1:{port}" for port in environment.values())
    (tmp_path / "artefacts").mkdir()
    artefact = make_module(tmp_path / "artefacts", "waiting:1", WAITING)
    volume = image.new_volume("alone")

    running = run(volume, environment, **{"/artefacts": artefact.parent})
    status = running.status()
    assert status["NSpid"].split()[-1] == "1"
    assert running.writable() == {"/tmp", image.volume}
    assert image.is_healthy(volume, environment)
    assert httpx.get(f"{url}/prices/tea").json() == {"tea": 400}
    assert httpx.post(f"{url}/orders/tea", params={"amount": 3}).json()["cents"] == 1200
    installed = httpx.post(f"{arklet}/installBiz", json={"bizUrl": f"file:///artefacts/{artefact.name}"}, timeout=60)
    assert installed.json()["code"] == "SUCCESS", installed.text

    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(httpx.get(f"{url}/waiting/wait", timeout=60)))
    waiting.start()
    until((volume / "entered").exists, otherwise="the request does not arrive")
    os.kill(running.pid, signal.SIGTERM)
    until(lambda: not is_up(f"{url}/readyz"), otherwise="the base does not end")
    (volume / "gate").touch()
    waiting.join(60)
    assert running.popen.wait(60) == 0, running.log.read_text()
    assert [answer.text for answer in answers] == ["answered"]
    assert not image.is_healthy(volume, environment)

    run(volume, environment)
    assert httpx.get(f"{url}/waiting/").text == "answered"  # from the store: the artefact is not seen any more
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    assert {line["level"] for line in lines} == {"INFO"}, lines


def test_a_base_is_what_the_manifests_for_kubernetes_say(
    image: Image, run: Callable[..., Running], tmp_path: Path
) -> None:
    given = {each["name"]: each["value"] for each in CONTAINER["env"]}
    numbers = {each["name"]: str(each["containerPort"]) for each in CONTAINER["ports"]}
    assert numbers["http"] == image.recipe.environment["KOUPLELESS_BASE_PORT"]
    assert numbers["arklet"] == given["KOUPLELESS_ARKLET_PORT"]
    environment = {**given, **ports(), "KOUPLELESS_ARKLET_HOST": "127.0.0.1"}  # beyond it, the tests do not listen
    here = {"http": environment["KOUPLELESS_BASE_PORT"], "arklet": environment["KOUPLELESS_ARKLET_PORT"]}
    tokens = tmp_path / "tokens"
    tokens.mkdir(mode=0o755)
    (mounted,) = (each for each in CONTAINER["volumeMounts"] if each["name"] == "tokens")
    for variable in ("KOUPLELESS_ARKLET_TOKEN_FILE", "KOUPLELESS_ARKLET_METRICS_TOKEN_FILE"):
        path = Path(given[variable])
        assert str(path.parent) == mounted["mountPath"]
        (tokens / path.name).write_text(f"{path.name}-secret\n")
    volume = image.new_volume("kubernetes")
    running = run(volume, environment, **{mounted["mountPath"]: tokens})

    assert running.writable() == {each["mountPath"] for each in CONTAINER["volumeMounts"] if not each.get("readOnly")}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = CONTAINER[probe]["httpGet"]
        assert is_up(f"http://127.0.0.1:{here[get['port']]}{get['path']}"), probe
    arklet = f"http://127.0.0.1:{here['arklet']}"
    scraped = httpx.get(f"{arklet}/metrics", headers={"Authorization": "Bearer metrics-token-secret"})
    assert "koupleless_bizs{" in scraped.text
    assert httpx.post(f"{arklet}/queryAllBiz", json={}).status_code == 401
    running.kill()


def test_pods_of_the_manifests_are_those_of_the_image(image: Image) -> None:
    spec = POD["spec"]
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (image.user, image.group)
    assert {"/tmp", image.volume} <= {each["mountPath"] for each in CONTAINER["volumeMounts"]}
    assert {each["name"] for each in CONTAINER["volumeMounts"]} == {each["name"] for each in spec["volumes"]}
    labels = POD["metadata"]["labels"]
    selectors = [KUBERNETES[kind]["spec"]["selector"] for kind in ("Deployment", "PodDisruptionBudget")]
    selectors += [
        KUBERNETES["NetworkPolicy"]["spec"]["podSelector"],
        {"matchLabels": KUBERNETES["Service"]["spec"]["selector"]},
    ]
    assert all(selector == {"matchLabels": labels} for selector in selectors)
    pause = float(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > pause + seconds_to_end()
    assert image.recipe.words["STOPSIGNAL"] == "SIGTERM"


def test_the_compose_file_starts_the_image_as_it_is_meant(image: Image) -> None:
    base = COMPOSE["services"]["base"]
    assert base["read_only"] is base["init"] is True
    assert base["tmpfs"] == ["/tmp"]
    assert [volume.partition(":")[2] for volume in base["volumes"]] == [image.volume]
    assert float(base["stop_grace_period"].removesuffix("s")) > seconds_to_end()
    assert (EXAMPLES / "container" / base["build"]["context"]).resolve() == ROOT
    assert (ROOT / base["build"]["dockerfile"]).is_file()
    secrets = {Path(value).name for value in base["environment"].values() if value.startswith("/run/secrets/")}
    assert secrets == set(base["secrets"]) == set(COMPOSE["secrets"])
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (EXAMPLES / "container" / source).is_file()
    scrape = yaml.safe_load((EXAMPLES / "container" / "prometheus.yml").read_text())["scrape_configs"][0]
    host, _, port = scrape["static_configs"][0]["targets"][0].partition(":")
    assert (host, port) == (
        base["environment"]["KOUPLELESS_ARKLET_ALLOWED_HOSTS"],
        base["environment"]["KOUPLELESS_ARKLET_PORT"],
    )
    assert scrape["authorization"]["credentials_file"] == base["environment"]["KOUPLELESS_ARKLET_METRICS_TOKEN_FILE"]
    used = set(re.findall(r"\{\$(\w+):", (EXAMPLES / "caddy" / "Caddyfile").read_text()))
    assert used == set(COMPOSE["services"]["caddy"]["environment"])


def test_variables_of_the_recipes_are_settings(image: Image) -> None:
    known = {f"KOUPLELESS_BASE_{each.name.removesuffix('_s').upper()}" for each in fields(BaseSettings)}
    known |= {f"KOUPLELESS_ARKLET_{each.name.removesuffix('_s').upper()}" for each in fields(ArkletSettings)}
    named = {*image.recipe.environment, *COMPOSE["services"]["base"]["environment"]}
    named |= {each["name"] for each in CONTAINER["env"]}
    assert {name for name in named if name.startswith("KOUPLELESS_")} <= known


def seconds_to_end() -> float:
    """The longest time for a base to end in order."""
    settings = BaseSettings()
    return settings.drain_timeout_s + settings.stop_timeout_s

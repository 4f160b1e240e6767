"""The checklist of `tests.e2e.interoperation` with our controller, set up by the variables of the original."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.conftest import free_port
from tests.e2e.interoperation import Place, Way, check, serve_base

if TYPE_CHECKING:
    from pathlib import Path

    import httpx
    from tests.kube.plane import Access
    from tests.mqtt.broker import Broker


@pytest.fixture(params=["http", "mqtt"])
def way(request: pytest.FixtureRequest) -> Way:
    if request.param == "http":
        return Way(free_port())
    broker: Broker = request.getfixturevalue("broker")
    return Way(free_port(), f"{broker.host}:{broker.port}")


@pytest.mark.kube
def test_a_base_under_our_controller_goes_through_the_checklist(
    kube: httpx.Client, control_plane: Access, namespace: str, way: Way, tmp_path: Path
) -> None:
    env = f"i{time.monotonic_ns()}"
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(control_plane.kubeconfig_of("admin")), encoding="utf-8")
    variables = {
        **way.of_controller(env),
        "KUBECONFIG": str(config),
        "KOUPLELESS_CONTROLLER_PROBES_PORT": str(free_port()),  # fixed in the original
        "KOUPLELESS_CONTROLLER_LIST_EVERY": "0.5",
    }
    command = [sys.executable, "-P", "-m", "koupleless", "controller"]
    log = tmp_path / "controller.log"
    with log.open("wb") as file:
        controller = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **variables}, cwd=tmp_path)
    base = None
    try:
        base = serve_base(way, env, tmp_path)
        steps = [step.name for step in check(Place(kube, namespace), base, env, tmp_path)]
        assert len(steps) == 8
    finally:
        if base is not None:
            base.end()
        controller.terminate()
        assert controller.wait(30) == 0, log.read_text()

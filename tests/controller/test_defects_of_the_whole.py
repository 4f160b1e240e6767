"""Defects of the original controller as a process among others, each with its section of the description."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.certificates import Authority
from tests.controller.behind import Ear, JavaBehindBroker, soon, tunnel_on
from tests.controller.documents import container
from tests.controller.floor import floor_in_memory, play
from tests.kube.memory.faults import Fault

from koupleless.controller.bases.steward import Habits
from koupleless.controller.cluster.api import ApiError
from koupleless.controller.controller import Choices, Controller
from koupleless.controller.peers.deployment import Deployment
from koupleless.controller.peers.replicas import Replicas
from koupleless.controller.running import Door, run
from koupleless.controller.tunnels.http import HttpTunnel
from koupleless.controller.tunnels.mqtt import tunnel
from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState, Way

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controller.floor import Floor
    from tests.mqtt.broker import Broker

CLUSTER = "base.koupleless.io/cluster-name"
ENV = "virtual-kubelet.koupleless.io/env"
STRATEGY = "virtual-kubelet.koupleless.io/strategy"


def peers(env: str, *, cluster: str = "default") -> dict[str, Any]:
    """A Deployment that follows the bases of a cluster."""
    template = {
        "metadata": {"labels": {"module": "orders", "virtual-kubelet.koupleless.io/component": "module"}},
        "spec": {"nodeSelector": {CLUSTER: cluster}, "containers": [container("orders", "1")]},
    }
    return {
        "metadata": {"name": f"of-{env}", "labels": {ENV: env, STRATEGY: "peer"}},
        "spec": {"replicas": 9, "selector": {"matchLabels": {"module": "orders"}}, "template": template},
    }


async def deploy(floor: Floor, document: dict[str, Any]) -> str:
    path = f"/apis/apps/v1/namespaces/{floor.namespace}/deployments"
    await floor.create(path, document)
    return f"{path}/{document['metadata']['name']}"


async def replicas(floor: Floor, path: str) -> int:
    found = await floor.get(path)
    assert found is not None
    return int(found["spec"]["replicas"])


def controller_of(floor: Floor, tunnel: Any, **choices: Any) -> Controller:
    return Controller(floor.config, tunnel, Choices("one", Habits(env=floor.env), **choices))


# --- 3: the broker ---------------------------------------------------------------------------------------------------


def test_3_2_all_topics_of_a_base_are_unsubscribed_once_nobody_asks_the_base(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "_HOUSEKEEPING_S", 0.02)
    base = AnnouncedBase("10.0.0.7", "shop", "1", "default", "", "b", 0, BaseState.ACTIVATED, way=Way.MQTT)

    def topics(end: str) -> set[str]:
        found = re.findall(rf"\t\S+/10\.0\.0\.7/base/(\w+){end}$", broker.log(), re.MULTILINE)
        return set(found) - {"baseline"}  # which the base hears

    async def act() -> None:
        java = JavaBehindBroker()
        async with tunnel_on(broker, Ear()) as hearing, java.connected(broker):
            await hearing.health(base)
            subscribed = topics(r" \(QoS 1\)")
            assert {"health", "batchInstallBizResponse"} <= subscribed
            monkeypatch.setattr(tunnel, "_IDLE_S", 0)
            await soon(lambda: topics("") == subscribed)

    play(act)


# --- 6: Deployments of peers -----------------------------------------------------------------------------------------


def test_6_4_bases_of_another_env_are_not_counted_and_deployments_of_another_env_are_left_alone() -> None:
    with floor_in_memory(bases=2) as (floor, _):

        async def act() -> None:
            foreign = {
                "metadata": {
                    "name": "vnode.foreign.other",
                    "labels": {ENV: "other", CLUSTER: "default", "virtual-kubelet.koupleless.io/component": "vnode"},
                },
                "spec": {},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            }
            await floor.create("/api/v1/nodes", foreign)
            ours, theirs = await deploy(floor, peers(floor.env)), await deploy(floor, peers("other"))
            async with floor.controlled(syncs_replicas=True):

                async def counted() -> bool:
                    return await replicas(floor, ours) == 2

                await floor.soon(counted)
                assert await replicas(floor, theirs) == 9

        play(act)


def test_11_1_12_many_bases_at_once_are_one_patch_and_a_conflict_is_no_error() -> None:
    with floor_in_memory(bases=20) as (floor, server):

        async def act() -> None:
            path = await deploy(floor, peers(floor.env))
            conflict = server.faults.add(Fault("patch", "deployments", times=1, status=409))
            begun = time.monotonic()
            async with floor.controlled(syncs_replicas=True):

                async def counted() -> bool:
                    return await replicas(floor, path) == 20

                await floor.soon(counted)
            assert conflict.times == 0
            patches = [seen for seen in server.seen if (seen.verb, seen.plural) == ("patch", "deployments")]
            # One for no base at all, one that lost, and one a second while bases come, not one for each base.
            assert len(patches) <= 3 + (time.monotonic() - begun)

        play(act)


def test_11_1_12_a_count_is_written_for_the_version_that_was_read_and_a_conflict_is_left_to_the_next_news() -> None:
    document = peers("dev")
    document["metadata"] |= {"namespace": "shop", "resourceVersion": "7"}
    deployment = Deployment.of(document)
    patches: list[Any] = []

    class Changed:
        async def patch(self, path: str, change: Any) -> None:
            patches.append(change)
            raise ApiError(409, "Conflict", "the object has been modified")

    api, found, nodes = cast("Any", Changed()), cast("Any", {deployment.key: deployment}), cast("Any", {})
    asyncio.run(Replicas(api, found, nodes, cast("Any", None), is_on=True).reconcile(deployment.key))
    assert patches == [{"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 0}}]


# --- 11: the whole ---------------------------------------------------------------------------------------------------


def test_11_1_7_a_mistake_in_a_part_of_the_controller_ends_the_process() -> None:
    with floor_in_memory(bases=0) as (floor, _):

        async def act() -> None:
            controller = controller_of(floor, None)

            async def watch() -> None:
                raise ZeroDivisionError("a mistake")

            controller.fleet.watch = watch  # type: ignore[method-assign]
            with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError, match="a mistake")):
                await run(controller, Door("127.0.0.1", 0, 0))

        play(act)


def test_11_1_8_an_address_that_is_taken_ends_the_process_and_is_named(tmp_path: Path) -> None:
    with floor_in_memory(bases=0) as (floor, _):
        config = tmp_path / "kubeconfig"
        config.write_text(_kubeconfig(str(floor.client.base_url)), encoding="utf-8")
        port = str(floor.client.base_url.port)  # of the API server
        command = [sys.executable, "-P", "-m", "koupleless", "controller", "--kubeconfig", str(config)]
        done = subprocess.run(
            [*command, "--port", port, "--probes-port", "0"], capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode != 0
    assert f"('127.0.0.1', {port})" in done.stderr


def test_11_1_8_lists_that_fail_at_the_start_are_told_and_waited_for() -> None:
    with floor_in_memory(bases=1) as (floor, server):

        async def act() -> None:
            (identity,) = floor.bases
            await floor.create_pod("a", identity, container("orders", "1"))
            fault = server.faults.add(Fault("list", "pods", times=2, status=503))
            controller = controller_of(floor, None)
            assert "Pods" in controller.trouble()
            async with floor.controlled() as controller:
                await floor.soon(lambda: floor.is_pod_ready("a"))
                assert fault.times == 0
                assert controller.trouble() == ""

        play(act)


def test_11_1_10_payloads_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    secret = {"name": "PASSWORD", "value": "payload-of-a-pod"}
    with floor_in_memory(bases=1) as (floor, _):

        async def act() -> None:
            (identity,) = floor.bases
            async with floor.controlled() as controller:
                await floor.create_pod("a", identity, container("orders", "1", env=[secret]))
                await floor.soon(lambda: floor.is_pod_ready("a"))
                caplog.clear()
                for _ in range(100):
                    controller.hear(floor.announced[identity])
                    await asyncio.sleep(0)
                await floor.create_pod("b", identity, container("prices", "1", env=[secret]))
                await floor.soon(lambda: floor.is_pod_ready("b"))

        play(act)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("koupleless")]
    assert len(ours) <= 5, ours
    assert "payload-of-a-pod" not in caplog.text


def test_11_1_11_an_arklet_with_a_certificate_of_somebody_else_gets_no_word(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for directory in (theirs, ours):
        directory.mkdir()
    served = Authority(theirs).issue("base", addresses="IP:127.0.0.1")
    trusted = ssl.create_default_context(cafile=Authority(ours).certificate)
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    async def act() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(served.certificate, served.key)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        base = AnnouncedBase("b", "shop", "1", "default", "127.0.0.1", "", port, BaseState.ACTIVATED)
        async with server, HttpTunnel(tls=trusted) as tunnel:
            with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
                await tunnel.modules(base)

    asyncio.run(act())
    assert heard in ([], [b""])


def test_11_1_13_all_is_asked_of_the_api_server_by_labels() -> None:
    with floor_in_memory(bases=1) as (floor, server):

        async def act() -> None:
            async with floor.controlled(syncs_replicas=True):
                (identity,) = floor.bases
                await floor.create_pod("a", identity, container("orders", "1"))
                await floor.soon(lambda: floor.is_pod_ready("a"))

        play(act)
        followed = {(seen.plural, seen.query.get("labelSelector", "")) for seen in server.seen if seen.verb == "watch"}
    assert {plural for plural, _ in followed} >= {"nodes", "pods", "leases", "deployments"}
    assert [plural for plural, labels in followed if not labels] == []


def test_1_1_an_empty_port_or_a_wrong_number_is_refused_and_named(tmp_path: Path) -> None:
    from koupleless.errors import SettingsError
    from koupleless.settings.control import load_control

    for variable, value in (("HTTP_TUNNEL_LISTEN_PORT", "many"), ("VNODE_WORKER_NUM", "-1")):
        with pytest.raises(SettingsError, match=variable):
            load_control(environ={variable: value}, directory=tmp_path)


def _kubeconfig(url: str) -> str:
    import json

    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "t",
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "u"}}],
            "clusters": [{"name": "t", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
    )

"""Nodes of bases: heartbeats in all spellings, labels, conditions, and the time without a sign of life."""

from __future__ import annotations

from typing import Any

import pytest

from koupleless.controller.names import BASE_IDENTITY, BASE_IP, BASE_TUNNEL, BASE_VERSION
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState, Senseless
from koupleless.controller.vnodes.liveness import Life, Liveness
from koupleless.controller.vnodes.node import Capacity, differences, is_told, node_of, node_status

HEARTBEAT: dict[str, Any] = {
    "baseMetadata": {"identity": "10.0.0.7", "name": "shop-base", "version": "1.0.0", "clusterName": "default"},
    "localIP": "10.0.0.7",
    "localHostName": "base-0",
    "port": 1238,
    "state": "ACTIVATED",
}
BASE = AnnouncedBase.of(HEARTBEAT)


def test_a_heartbeat_is_read() -> None:
    assert BASE.name == "shop-base"
    assert BASE.port == 1238
    assert BASE.state is BaseState.ACTIVATED


@pytest.mark.parametrize(
    ("change", "state"),
    [({"state": "activated"}, "ACTIVATED"), ({"state": "stopping"}, "DEACTIVATED"), ({"state": None}, "DEACTIVATED")],
)
def test_any_other_word_than_activated_is_an_end(change: dict[str, Any], state: str) -> None:
    assert AnnouncedBase.of({**HEARTBEAT, **change}).state.value == state


def test_members_are_matched_in_any_case() -> None:
    read = AnnouncedBase.of({name.upper(): value for name, value in HEARTBEAT.items()})
    assert read == BASE


def test_java_bases_over_a_broker_have_no_port_and_may_not_know_their_address() -> None:
    read = AnnouncedBase.of({**HEARTBEAT, "port": 0, "localIP": "unknown", "localHostName": None})
    assert (read.port, read.ip, read.host) == (0, "", "")


@pytest.mark.parametrize(
    "body", [[], {}, {**HEARTBEAT, "port": "1238"}, {**HEARTBEAT, "port": 70_000}, {**HEARTBEAT, "baseMetadata": {}},
             {**HEARTBEAT, "localIP": 7}, {**HEARTBEAT, "port": True}, {**HEARTBEAT, "servicePort": "80"}]
)  # fmt: skip
def test_senseless_heartbeats_are_refused(body: object) -> None:
    with pytest.raises(Senseless):
        AnnouncedBase.of(body)


def test_a_node_has_the_labels_and_taints_of_the_original() -> None:
    node = node_of(BASE, "dev")
    assert node["metadata"]["name"] == "vnode.10.0.0.7.dev"
    assert node["metadata"]["labels"] == {
        "type": "virtual-kubelet",
        "kubernetes.io/role": "agent",
        "kubernetes.io/hostname": "base-0",
        "virtual-kubelet.koupleless.io/component": "vnode",
        "virtual-kubelet.koupleless.io/env": "dev",
        "base.koupleless.io/name": "shop-base",
        "base.koupleless.io/version": "1.0.0",
        "base.koupleless.io/cluster-name": "default",
        "base.koupleless.io/host-name": "base-0",
        "base.koupleless.io/identity": "10.0.0.7",
        "base.koupleless.io/tunnel-port": "1238",
    }
    assert [(taint["key"], taint["value"], taint["effect"]) for taint in node["spec"]["taints"]] == [
        ("schedule.koupleless.io/virtual-node", "True", "NoExecute"),
        ("schedule.koupleless.io/node-env", "dev", "NoExecute"),
    ]


def test_a_text_that_is_no_label_stays_in_an_annotation() -> None:
    base = AnnouncedBase.of({**HEARTBEAT, "baseMetadata": {**HEARTBEAT["baseMetadata"], "version": "1.0+build"}})
    metadata = node_of(base, "dev")["metadata"]
    assert metadata["labels"][BASE_VERSION] == "1.0_build"
    assert metadata["annotations"] == {
        BASE_IDENTITY: "10.0.0.7",
        BASE_VERSION: "1.0+build",
        BASE_IP: "10.0.0.7",
        BASE_TUNNEL: "http",
    }


def test_a_base_is_read_from_its_node() -> None:
    base = AnnouncedBase.of(
        {
            **HEARTBEAT,
            "baseMetadata": {**HEARTBEAT["baseMetadata"], "identity": "Base 1", "version": "1+b"},
            "servicePort": 8080,
        }
    )
    node = {**node_of(base, "dev"), "status": node_status(base, Life.ALIVE, Capacity(), {}, now=0)}
    assert AnnouncedBase.of_node(node) == base
    assert AnnouncedBase.of_node({"metadata": {"name": "worker-1"}}) is None


def test_a_status_is_told_once() -> None:
    status = node_status(BASE, Life.ALIVE, Capacity(memory_bytes=10 << 20, memory_left_bytes=4 << 20), {}, now=100)
    assert status["capacity"] == {"pods": "65535", "memory": "10240Ki"}
    assert status["allocatable"] == {"pods": "65535", "memory": "4096Ki"}
    again = node_status(BASE, Life.ALIVE, Capacity(memory_bytes=10 << 20, memory_left_bytes=4 << 20), status, now=200)
    assert is_told(again, status)
    more = node_status(BASE, Life.ALIVE, Capacity(memory_bytes=10 << 20, processors=4), {}, now=100)
    assert more["capacity"] == more["allocatable"] == {"pods": "65535", "memory": "10240Ki", "cpu": "4"}
    assert not is_told(node_status(BASE, Life.SILENT, Capacity(), status, now=200), status)


def test_the_time_of_a_transition_is_that_of_the_change() -> None:
    alive = node_status(BASE, Life.ALIVE, Capacity(), {}, now=100)
    silent = node_status(BASE, Life.SILENT, Capacity(), alive, now=200)
    still = node_status(BASE, Life.SILENT, Capacity(), silent, now=300)
    ready = [next(one for one in status["conditions"] if one["type"] == "Ready") for status in (alive, silent, still)]
    assert [one["status"] for one in ready] == ["True", "Unknown", "Unknown"]
    assert ready[0]["lastTransitionTime"] != ready[1]["lastTransitionTime"] == ready[2]["lastTransitionTime"]


def test_a_node_keeps_what_others_have_added() -> None:
    there = node_of(BASE, "dev")
    there["metadata"]["labels"]["zone"] = "a"
    there["spec"]["taints"].append({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})
    assert differences(node_of(BASE, "dev"), there) == {}
    del there["spec"]["taints"][0]
    there["metadata"]["labels"]["base.koupleless.io/version"] = "0.9"
    patch = differences(node_of(BASE, "dev"), there)
    assert patch["metadata"] == {"labels": {"base.koupleless.io/version": "1.0.0"}}
    assert len(patch["spec"]["taints"]) == 3


def test_silence_is_told_before_death() -> None:
    life = Liveness(seen=100)
    assert [life.judge(now) for now in (100, 125, 125.1, 159.9, 160)] == [
        Life.ALIVE, Life.ALIVE, Life.SILENT, Life.SILENT, Life.DEAD,
    ]  # fmt: skip
    assert [life.next_change(now) for now in (100, 130, 170)] == [125, 160, None]


def test_an_end_is_taken_back_by_a_sign_of_life() -> None:
    life = Liveness(seen=0)
    life.end()
    assert life.judge(0) is Life.DEAD
    life.see(1)
    assert life.judge(1) is Life.ALIVE


def test_a_node_with_the_address_of_the_kubelets_api_keeps_the_address_of_the_base() -> None:
    status = node_status(BASE, Life.ALIVE, Capacity(), {}, now=100, address="10.9.9.9", kubelet_port=10250)
    assert status["addresses"][0] == {"type": "InternalIP", "address": "10.9.9.9"}
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    found = AnnouncedBase.of_node({**node_of(BASE, "dev"), "status": status})
    assert found is not None
    assert found.ip == BASE.ip


def test_a_controller_without_the_kubelets_api_takes_the_address_of_the_former_one_away() -> None:
    before = node_status(BASE, Life.ALIVE, Capacity(), {}, now=100, address="10.9.9.9", kubelet_port=10250)
    after = node_status(BASE, Life.ALIVE, Capacity(), before, now=100)
    assert not is_told(after, before)
    assert after["addresses"][0]["address"] == BASE.ip
    assert after["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}
    assert "daemonEndpoints" not in node_status(BASE, Life.ALIVE, Capacity(), after, now=100)


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        (Capacity(10, 3_200, 1_000), True),
        (Capacity(10, 3_200, 1_100), True),
        (Capacity(10, 3_200, 1_101), False),
        (Capacity(10, 6_400, 1_000), False),
        (Capacity(11, 3_200, 1_000), False),
        (Capacity(10, 3_200, None), False),
    ],
)
def test_a_little_memory_more_or_less_is_not_worth_a_write(other, is_near):
    assert Capacity(10, 3_200, 1_000).is_near(other) is is_near

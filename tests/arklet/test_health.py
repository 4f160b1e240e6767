"""The health of a base: which members an answer has, and of what type."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.arklet.health import BaseMetadata, Health
from koupleless.biz import BizId
from koupleless.container.leaving.remains import Zombie
from koupleless.descriptions import Resident
from koupleless.wire.requests import HealthQuery

if TYPE_CHECKING:
    from koupleless.arklet.operations import Operations

CPU = {"count": int, "type": str, "total used (%)": float, "user used (%)": float, "system used (%)": float,
       "free (%)": float}  # fmt: skip
JVM = {
    **{
        f"{what}{kind} memory(M)": float
        for what in ("init", "used", "committed", "max")
        for kind in (" heap", " non heap")
    },
    "java version": str,
    "java home": str,
    "total memory(M)": float,
    "max memory(M)": float,
    "free memory(M)": float,
    "run time(s)": float,
    "loaded class count": int,
    "unload class count": int,
    "total class count": int,
    "java used metaspace": int,
    "java committed metaspace": int,
    "java max metaspace": int,
}
BASE = {"bizName": "base", "bizState": "ACTIVATED", "bizVersion": "1.0.0", "webContextPath": "/"}
SHOP = {"bizName": "shop", "bizState": "ACTIVATED", "bizVersion": "1", "webContextPath": "/shop"}


@pytest.fixture
def health(wire: Any, container: Any) -> Any:
    """``health(**query)`` is what a base with one biz answers."""
    wire.command("installBiz", {"bizUrl": container.offer("shop:1", path="/shop")})

    def ask(**query: Any) -> Any:
        envelope = wire.command("health", query)
        return envelope["data"]["healthData"] if envelope["code"] == "SUCCESS" else envelope

    return ask


@pytest.mark.parametrize("name", ["shop", "nope"])
def test_with_a_name_and_no_type_a_plugin_of_that_name_is_missed(health: Any, name: str) -> None:
    assert health(bizName=name)["message"] == "can not find plugin"


def test_without_a_type_everything_is_told(health: Any) -> None:
    data = health()

    assert set(data) == {"masterBizInfo", "cpu", "jvm", "bizListInfo", "pluginListInfo"}
    assert data["masterBizInfo"] == BASE
    assert data["bizListInfo"] == [SHOP, BASE]
    assert data["pluginListInfo"] == []
    assert {key: type(value) for key, value in data["cpu"].items()} == CPU
    assert {key: type(value) for key, value in data["jvm"].items()} == JVM
    assert health(type=" ").keys() == data.keys()


def test_the_figures_are_plausible(health: Any) -> None:
    data = health(type="system")
    cpu, jvm = data["cpu"], data["jvm"]

    assert set(data) == {"cpu", "jvm"}
    assert cpu["count"] >= 1
    for key in ("total used (%)", "user used (%)", "system used (%)", "free (%)"):
        assert 0 <= cpu[key] <= 100
    assert cpu["total used (%)"] + cpu["free (%)"] == pytest.approx(100, abs=0.1)
    assert jvm["java version"] == ".".join(map(str, sys.version_info[:3]))
    assert jvm["java home"] == sys.prefix
    assert jvm["java max metaspace"] == -1
    assert jvm["java used metaspace"] >= 0
    assert jvm["total class count"] == jvm["loaded class count"] > 100
    assert 5 < jvm["used heap memory(M)"] < jvm["max memory(M)"]
    assert jvm["run time(s)"] > 0


def test_indicators_can_be_chosen(health: Any) -> None:
    assert set(health(type="system", metrics=["cpu"])) == {"cpu"}
    assert set(health(metrics=["cpu"])) == {"masterBizInfo", "cpu", "bizListInfo", "pluginListInfo"}
    assert set(health(type="system", metrics=[])) == {"cpu", "jvm"}
    assert set(health(type="system", metrics="cpu")) == {"cpu", "jvm"}


@pytest.mark.parametrize(("name", "version"), [("bizName", "bizVersion"), ("moduleName", "moduleVersion")])
def test_bizs_are_found_under_both_spellings_of_the_filter(health: Any, name: str, version: str) -> None:
    assert health(type="biz") == {"bizListInfo": [SHOP, BASE]}
    assert health(type="biz", **{name: "shop"}) == {"bizListInfo": [SHOP]}
    assert health(type="biz", **{name: "shop", version: "1"}) == {"bizInfo": SHOP}
    assert health(type="biz", **{name: "base"}) == {"bizListInfo": [BASE]}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"type": "biz", "bizName": "nope"}, "can not find biz: nope"),
        ({"type": "biz", "bizName": "shop", "bizVersion": "2"}, "can not find biz"),
        ({"type": "biz", "bizVersion": "1"}, "Biz name must not be empty."),
        ({"type": "plugin", "bizName": "nope"}, "can not find plugin"),
        ({"bizName": "shop", "bizVersion": "1"}, "can not find plugin"),
        ({"type": "system", "metrics": ["nope"]}, "indicator not registered"),
        ({"type": "system", "metrics": ["cpu", "nope"]}, "indicator not registered"),
    ],
)
def test_what_is_not_there_is_a_failure_without_data(health: Any, query: dict[str, Any], message: str) -> None:
    refused = {"baseIdentity": "10.1.2.3", "code": "FAILED", "errorType": "Request.HealthRefused"}
    assert health(**query) == {**refused, "message": message}


def test_what_outlived_its_biz_is_named_with_its_holder(health: Any, container: Any) -> None:
    left = {"biz": "shop:0", "name": "shop.db", "since": 7, "holders": ["global base.seen in the base", "list"]}
    container.left = [
        Zombie(BizId.parse("shop:0"), "shop.db", 7, tuple(left["holders"]), None),  # type: ignore[arg-type]
        Zombie(BizId.parse("other:2"), "other", 9, (), 4096),
    ]
    other = {"biz": "other:2", "name": "other", "since": 9, "holders": [], "sizeBytes": 4096}

    assert health()["zombies"] == [left, other]
    assert health(type="biz")["zombies"] == [left, other]
    assert health(type="biz", bizName="shop")["zombies"] == [left]
    assert "zombies" not in health(type="biz", bizName="shop", bizVersion="1")
    assert "zombies" not in health(type="system")


def test_what_bizs_brought_into_the_base_is_named_with_its_size_and_users(health: Any, container: Any) -> None:
    assert "residents" not in health()
    container.brought = [Resident("numpy", "2.3.5", 31_000_000, 89, ("shop:1",)), Resident("six", "1.17", 0, 2)]
    numpy = {"name": "numpy", "version": "2.3.5", "sizeBytes": 31_000_000, "modules": 89, "users": ["shop:1"]}
    six = {"name": "six", "version": "1.17", "sizeBytes": 0, "modules": 2, "users": []}
    assert health()["residents"] == health(type="biz")["residents"] == [numpy, six]
    assert "residents" not in health(type="biz", bizName="shop")
    assert "residents" not in health(type="system")


def test_there_are_no_plugins(health: Any) -> None:
    assert health(type="plugin") == {"pluginListInfo": []}


def test_a_budget_for_modules_is_shown_in_bytes(container: Any) -> None:
    jvm = Health(container, module_memory_bytes=512 * 1024 * 1024).answer(HealthQuery(type="system")).jvm

    assert jvm is not None
    assert jvm["java max metaspace"] == 536870912


def test_an_answer_belongs_to_its_caller_alone(container: Any) -> None:
    health = Health(container)
    first, second = health.answer(HealthQuery()), health.answer(HealthQuery())

    assert first.jvm is not second.jvm
    assert first.biz_list_info is not second.biz_list_info


def test_the_same_biz_twice_is_written_twice(operations: Operations) -> None:
    from koupleless.wire.envelope import encode

    assert b"$ref" not in encode(operations.handle("health", b""))


def test_psutil_is_not_loaded_before_somebody_asks(tmp_path: Any) -> None:
    import subprocess

    code = "import sys, koupleless.arklet.server, koupleless.arklet.operations; print('psutil' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_base_knows_who_it_is_once_and_for_all() -> None:
    metadata = BaseMetadata.of_this_machine(name="shop")

    assert metadata.identity
    assert metadata.identity == metadata.identity.lower()
    assert (metadata.name, metadata.version, metadata.cluster, metadata.environment) == (
        "shop",
        "1.0.0",
        "default",
        "dev",
    )
    assert BaseMetadata.of_this_machine(identity="base-7").identity == "base-7"


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"bound": "127.0.0.1"}, "127.0.0.1"),
        ({"bound": "localhost"}, "127.0.0.1"),
        ({"bound": "10.9.8.7"}, "10.9.8.7"),
        ({"bound": "10.9.8.7", "local_ip": "192.0.2.5"}, "192.0.2.5"),
        ({"bound": "0.0.0.0"}, "10.1.1.1"),
        ({"bound": "::"}, "10.1.1.1"),
        ({"bound": "host.example"}, "10.1.1.1"),
        ({}, "10.1.1.1"),
    ],
)
def test_a_controller_is_told_the_address_on_which_the_arklet_listens(
    options: dict[str, str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koupleless.arklet.health._local_address", lambda: "10.1.1.1")
    assert BaseMetadata.of_this_machine(**options).local_ip == address


def test_a_base_without_a_network_makes_itself_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import re
    import socket

    class NoNetwork(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", NoNetwork)
    metadata = BaseMetadata.of_this_machine()

    assert re.fullmatch(r"unknown-[a-z0-9]{5}", metadata.identity)
    assert metadata.local_ip == "127.0.0.1"


def test_an_unnamed_processor_has_a_type_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    from koupleless.arklet import health

    def refuse(*args: Any, **options: Any) -> str:
        raise FileNotFoundError

    health._processor_model.cache_clear()
    monkeypatch.setattr(Path, "read_text", refuse)
    try:
        assert health._processor_model()
    finally:
        health._processor_model.cache_clear()

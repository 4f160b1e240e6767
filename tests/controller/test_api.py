"""Requests of the controller do alike on the real API server and in memory, and refusals are errors with their data."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import pytest
from tests.controller.conftest import secured, unsecured
from tests.kube.memory.faults import Fault
from tests.kube.memory.serving import served

from koupleless.controller.cluster.api import Api, ApiError, Patch, Unreachable, VersionGone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from lightkube.config.kubeconfig import SingleConfig


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.kube)])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[SingleConfig, str]]:
    """The way to a server, and the path of a namespace there."""
    if request.param == "real":
        namespace = request.getfixturevalue("namespace")
        yield secured(request.getfixturevalue("control_plane"), "admin"), f"/api/v1/namespaces/{namespace}"
    else:
        with served() as (url, _):
            yield unsecured(url), "/api/v1/namespaces/default"


def play(config: SingleConfig, script: Callable[[Api], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), Api(config) as api:
            await script(api)

    asyncio.run(whole())


def test_an_object_is_made_read_changed_and_deleted(place):
    config, namespace = place
    path = f"{namespace}/configmaps"

    async def script(api: Api) -> None:
        assert await api.get(f"{path}/a") is None
        made = await api.create(path, {"metadata": {"name": "a"}, "data": {"a": "1"}})
        found = await api.get(f"{path}/a")
        assert found is not None
        assert found["metadata"]["uid"] == made["metadata"]["uid"]
        merged = await api.patch(f"{path}/a", {"data": {"b": "2"}}, Patch.MERGE)
        assert merged["data"] == {"a": "1", "b": "2"}
        replaced = await api.replace(f"{path}/a", {**merged, "data": {"c": "3"}})
        assert replaced["data"] == {"c": "3"}
        await api.delete(f"{path}/a", uid="another")
        assert await api.get(f"{path}/a") is not None
        for _ in range(2):  # the second time, there is none
            await api.delete(f"{path}/a", uid=made["metadata"]["uid"])
        assert await api.get(f"{path}/a") is None

    play(config, script)


def test_a_change_of_another_version_or_another_object_is_a_conflict(place):
    config, namespace = place
    path = f"{namespace}/configmaps"

    async def script(api: Api) -> None:
        made = await api.create(path, {"metadata": {"name": "a"}})
        with pytest.raises(ApiError, match="AlreadyExists"):
            await api.create(path, {"metadata": {"name": "a"}})
        await api.patch(f"{path}/a", {"data": {"a": "1"}})
        version = made["metadata"]["resourceVersion"]
        for request in (
            api.replace(f"{path}/a", {**made, "data": {"a": "2"}}),
            api.patch(f"{path}/a", {"metadata": {"resourceVersion": version}, "data": {"a": "2"}}),
            api.patch(f"{path}/a", {"metadata": {"uid": "another"}, "data": {"a": "2"}}),
        ):
            with pytest.raises(ApiError) as refused:
                await request
            assert (refused.value.code, refused.value.reason) == (409, "Conflict")
        found = await api.get(f"{path}/a")
        assert found is not None
        assert found["data"] == {"a": "1"}

    play(config, script)


def test_the_conditions_of_a_node_are_joined(place):
    config, _ = place
    path = f"/api/v1/nodes/vnode.{secrets.token_hex(4)}.dev"

    def beat(kind: str) -> dict[str, object]:
        return {"status": {"conditions": [{"type": kind, "status": "True"}]}}

    async def script(api: Api) -> None:
        await api.create("/api/v1/nodes", {"metadata": {"name": path.rpartition("/")[2]}})
        try:
            await api.patch(f"{path}/status", beat("Ready"), Patch.STRATEGIC)
            joined = await api.patch(f"{path}/status", beat("Other"), Patch.STRATEGIC)
            assert {"Ready", "Other"} <= {one["type"] for one in joined["status"]["conditions"]}
        finally:
            await api.delete(path)

    play(config, script)


def test_a_pod_on_a_node_has_the_time_that_the_deletion_gives(place):
    config, namespace = place
    path = f"{namespace}/pods"
    spec = {"nodeName": "nowhere", "containers": [{"name": "a", "image": "i"}]}

    async def script(api: Api) -> None:
        await api.create(path, {"metadata": {"name": "a"}, "spec": spec})
        await api.delete(f"{path}/a", grace_s=20)
        leaving = await api.get(f"{path}/a")
        assert leaving is not None
        assert leaving["metadata"]["deletionGracePeriodSeconds"] == 20
        await api.delete(f"{path}/a", grace_s=0)
        assert await api.get(f"{path}/a") is None

    play(config, script)


def test_the_status_of_a_later_pod_of_the_name_is_not_changed(place):
    config, namespace = place
    path = f"{namespace}/pods"
    spec = {"nodeName": "nowhere", "containers": [{"name": "a", "image": "i"}]}

    async def script(api: Api) -> None:
        made = await api.create(path, {"metadata": {"name": "a"}, "spec": spec})
        change = {"metadata": {"uid": "another"}, "status": {"phase": "Running"}}
        with pytest.raises(ApiError) as refused:
            await api.patch(f"{path}/a/status", change, Patch.STRATEGIC)
        assert (refused.value.code, refused.value.reason) == (409, "Conflict")
        change["metadata"] = {"uid": made["metadata"]["uid"]}
        assert (await api.patch(f"{path}/a/status", change, Patch.STRATEGIC))["status"]["phase"] == "Running"

    play(config, script)


@pytest.mark.kube
def test_rights_that_lack_are_an_error(control_plane):
    async def script(api: Api) -> None:
        with pytest.raises(ApiError) as refused:
            await api.page("/api/v1/nodes", {}, limit=1)
        assert (refused.value.code, refused.value.reason) == (403, "Forbidden")

    play(secured(control_plane, "stranger"), script)


def test_refusals_have_their_data():
    with served() as (url, memory):
        memory.faults.add(Fault("get", "configmaps", status=429, headers={"Retry-After": "7"}))

        async def script(api: Api) -> None:
            with pytest.raises(ApiError, match="429 TooManyRequests") as busy:
                await api.get("/api/v1/namespaces/default/configmaps/a")
            assert busy.value.retry_after_s == 7
            with pytest.raises(ApiError, match="404 NotFound"):
                await api.create("/api/v1/nothing", {})
            with pytest.raises(VersionGone):
                await api.page("/api/v1/configmaps", {}, limit=1, following="unknown")
            with pytest.raises(Unreachable, match="cannot be read"):
                await api.get("/readyz")

        play(unsecured(url), script)


def test_an_answer_that_is_no_status_is_an_error_too():
    async def script(api: Api) -> None:
        with pytest.raises(ApiError, match="405") as refused:
            await api.create("/readyz", {})
        assert refused.value.reason == ""

    with served() as (url, _):
        play(unsecured(url), script)


def test_a_server_that_is_away_is_not_reached():
    async def script(api: Api) -> None:
        with pytest.raises(Unreachable, match="not reached"):
            await api.get("/readyz")

    play(unsecured("http://127.0.0.1:9"), script)

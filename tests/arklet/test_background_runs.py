"""Asynchronous commands: their records, their ends, and how long they are remembered."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import until

from koupleless.arklet import records
from koupleless.arklet.records import RunRepeated, Runs, TooManyRuns, describe_error
from koupleless.biz import BizId
from koupleless.errors import StartFailed
from koupleless.wire.requests import InstallBiz, UninstallBiz

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 10.0


def body(identity: str, request_id: str, url: str | None = None, **more: Any) -> dict[str, Any]:
    name, _, version = identity.partition(":")
    named = {"bizName": name, "bizVersion": version, "async": True, "requestId": request_id}
    return {**named, **({} if url is None else {"bizUrl": url}), **more}


@pytest.fixture
def finished(wire: Any) -> Callable[[str], dict[str, Any]]:
    """``finished(id)`` is the final record of a run."""

    def wait(request_id: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            record: dict[str, Any] = wire.command("queryBizOps", {"requestId": request_id})["data"]
            return record if record["status"] in ("SUCCEEDED", "FAILED") else None

        return until(ended, DEADLINE_S, otherwise=f"{request_id} has not ended")

    return wait


def test_the_life_of_a_run(wire: Any, container: Any, pause: Any, finished: Any) -> None:
    held = pause()
    url = container.offer("shop:1", on_start=held)
    envelope = wire.command("installBiz", body("shop:1", "r-1", url, args=["a"], envs={"k": "v"}))
    held.await_reached()
    running = wire.command("queryBizOps", {"requestId": "r-1"})["data"]
    held.let_go()
    done = finished("r-1")

    meta = {
        "args": ["a"],
        "async": True,
        "bizName": "shop",
        "bizUrl": url,
        "bizVersion": "1",
        "envs": {"k": "***"},
        "installStrategy": "installOnly",
        "requestId": "r-1",
    }
    assert envelope["code"] == "SUCCESS"
    assert envelope["data"]["arkBizMeta"] == meta
    assert envelope["data"]["status"] in ("INITIALIZED", "EXECUTING")
    assert running == {
        "arkBizMeta": meta,
        "elapsedTime": 0,
        "endTimestamp": 0,
        "requestId": "r-1",
        "startTime": running["startTime"],
        "startTimestamp": running["startTime"],
        "status": "EXECUTING",
        "threadName": running["threadName"],
    }
    assert running["threadName"].startswith("ARKLET-ark-biz-ops-0-T")
    assert done["status"] == "SUCCEEDED"
    assert done["endTime"] == done["endTimestamp"] >= done["startTime"]
    assert done["elapsedTime"] == done["endTime"] - done["startTime"]
    assert "message" not in done


def test_a_request_id_is_used_once(wire: Any, container: Any, finished: Any) -> None:
    url = container.offer("shop:1")
    wire.command("installBiz", body("shop:1", "r-1", url))
    finished("r-1")

    for command, again in (
        ("installBiz", body("shop:1", "r-1", url)),
        ("installBiz", {"bizUrl": "file:///nope.jar", "async": True, "requestId": "r-1"}),
        ("uninstallBiz", body("shop:1", "r-1")),
        ("batchInstallBiz", {"bizList": [], "async": True, "requestId": "r-1"}),
    ):
        assert wire.command(command, again) == {
            "baseIdentity": "10.1.2.3",
            "code": "FAILED",
            "errorType": "Request.RunRepeated",
            "message": "The request corresponding to the requestId(r-1) has been executed.",
        }


def test_an_unknown_run_is_not_found(wire: Any) -> None:
    assert wire.command("queryBizOps", {"requestId": "r-0"}) == {
        "baseIdentity": "10.1.2.3",
        "code": "FAILED",
        "message": "Not found the corresponding ops record.",
    }


def test_an_install_without_names_is_recorded_with_what_the_artefact_says(
    wire: Any, container: Any, finished: Any
) -> None:
    url = container.offer("shop:1")
    wire.command("installBiz", {"bizUrl": url, "async": True, "requestId": "r-1"})

    assert finished("r-1")["arkBizMeta"]["bizName"] == "shop"
    assert finished("r-1")["arkBizMeta"]["bizVersion"] == "1"
    assert len(container.prepared) == 1


def test_a_refusal_is_recorded_with_the_code_that_the_original_loses(wire: Any, container: Any, finished: Any) -> None:
    wire.command("installBiz", {"bizUrl": container.offer("shop:1")})
    wire.command("installBiz", body("shop:1", "r-1", "file:///shop-1.jar"))
    wire.command("uninstallBiz", body("nope:1", "r-2"))

    assert (finished("r-1")["status"], finished("r-1")["message"]) == (
        "FAILED",
        "install biz not success! REPEAT_BIZ: Biz: shop:1 has been installed or registered.",
    )
    assert finished("r-2")["message"] == "uninstall biz not success! NOT_FOUND_BIZ: Uninstall biz: nope:1 not found."
    assert "throwable" not in finished("r-2")


def test_an_error_is_recorded_as_data(wire: Any, container: Any, finished: Any) -> None:
    def fail() -> None:
        try:
            int("no")
        except ValueError as error:
            raise StartFailed(BizId.parse("shop:1"), "failed to start: ValueError: no") from error

    wire.command("installBiz", body("shop:1", "r-1", container.offer("shop:1", on_start=fail)))
    record = finished("r-1")

    assert record["status"] == "FAILED"
    assert record["message"] == "biz shop:1 failed to start: ValueError: no"
    thrown = record["throwable"]
    assert thrown["@type"] == "koupleless.errors.StartFailed"
    assert thrown["message"] == thrown["localizedMessage"] == record["message"]
    assert thrown["cause"]["@type"] == "ValueError"
    frame = thrown["cause"]["stackTrace"][0]
    assert frame == {
        "className": "test_background_runs",
        "fileName": __file__,
        "lineNumber": frame["lineNumber"],
        "methodName": "fail",
        "nativeMethod": False,
    }


def test_a_conflict_fails_the_run_and_leaves_the_other_ones_claim_alone(
    wire: Any, container: Any, pause: Any, in_background: Any, finished: Any
) -> None:
    held = pause()
    url = container.offer("shop:1", on_start=held)
    first = in_background(lambda: wire.command("installBiz", {"bizUrl": url}))
    held.await_reached()

    wire.command("uninstallBiz", body("shop:1", "r-1"))
    wire.command("installBiz", {"bizUrl": url, "async": True, "requestId": "r-2"})
    for request_id in ("r-1", "r-2"):
        record = finished(request_id)
        assert record["status"] == "FAILED"
        assert record["message"] == "command conflict, exist unfinished command for this biz"
        assert record["endTime"]
    still = wire.command("uninstallBiz", {"bizName": "shop", "bizVersion": "1"})
    held.let_go()

    assert "conflict, exist unfinished command(installBiz)" in still["message"]
    assert first()["code"] == "SUCCESS"
    assert container.prepared[-1].is_discarded


def test_switch_uninstall_and_batch_run_in_the_background_too(wire: Any, container: Any, finished: Any) -> None:
    url = container.offer("shop:1")
    wire.command("batchInstallBiz", {"bizList": [{"bizUrl": url}], "async": True, "requestId": "r-1"})
    assert finished("r-1")["status"] == "SUCCEEDED"
    assert finished("r-1")["arkBizMeta"] == {
        "async": True,
        "bizList": [{"async": False, "bizUrl": url, "installStrategy": "installOnly"}],
        "requestId": "r-1",
    }
    wire.command("switchBiz", body("shop:1", "r-2"))
    assert finished("r-2")["status"] == "SUCCEEDED"
    wire.command("uninstallBiz", body("shop:1", "r-3"))
    assert finished("r-3")["arkBizMeta"] == {"async": True, "bizName": "shop", "bizVersion": "1", "requestId": "r-3"}
    wire.command("batchInstallBiz", {"bizList": [{"bizUrl": "file:///nope"}], "async": True, "requestId": "r-4"})
    assert finished("r-4")["message"] == (
        "batch install failed; file:///nope: internal exception: cannot fetch file:///nope: there is no such file"
    )


# --- the records themselves --------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def request(request_id: str) -> UninstallBiz:
    return UninstallBiz(biz_name="x", biz_version="1", is_async=True, request_id=request_id)


def test_only_the_latest_finished_runs_are_remembered() -> None:
    runs = Runs(kept=3)
    for number in range(6):
        runs.open(request(f"r-{number}")).succeed()

    assert [number for number in range(6) if runs.find(f"r-{number}")] == [3, 4, 5]


def test_finished_runs_are_forgotten_with_time_and_running_ones_never() -> None:
    clock = Clock()
    runs = Runs(kept_s=60, clock=clock)
    runs.open(request("done")).succeed()
    runs.open(request("running")).begin()
    clock.now += 61
    runs.open(request("new"))

    assert runs.find("done") is None
    assert runs.find("running") is not None


def test_there_is_a_limit_to_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_UNFINISHED_RUNS", 2)
    runs = Runs()
    runs.open(request("1"))
    runs.open(request("2"))

    with pytest.raises(TooManyRuns, match="2 background requests have not finished"):
        runs.open(request("3"))
    with pytest.raises(RunRepeated):
        runs.open(request("1"))


def test_an_error_that_is_its_own_cause_can_be_described() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first

    described = describe_error(first)

    assert described.cause is not None
    assert described.cause.cause is None


def large(request_id: str, size: int) -> InstallBiz:
    return InstallBiz(biz_name="x", biz_version="1", is_async=True, request_id=request_id, args=["a" * size])


def test_finished_runs_are_remembered_as_far_as_they_have_room() -> None:
    runs = Runs(kept_bytes=10_000)
    for number in range(20):
        runs.open(large(f"r-{number}", 1000)).succeed()
    remembered = [run for number in range(20) if (run := runs.find(f"r-{number}"))]

    assert 5 < len(remembered) < 10
    assert sum(run.size for run in remembered[:-1]) <= 10_000
    assert remembered[-1].request_id == "r-19"


def test_what_is_remembered_of_runs_takes_no_more_memory_than_that() -> None:
    runs = Runs(kept_bytes=1 << 20)
    names = {f"k{index}": "" for index in range(2000)}
    tracemalloc.start()
    try:
        for number in range(200):
            runs.open(InstallBiz(is_async=True, request_id=f"r-{number}", envs=names)).fail("x" * 100_000)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size < (1 << 20) * 1.3


def test_the_requests_that_wait_are_limited_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_UNFINISHED_BYTES", 6000)
    runs = Runs()
    for number in range(4):
        runs.open(large(f"r-{number}", 1000))
    with pytest.raises(TooManyRuns, match="background requests of 6000 bytes have not finished"):
        runs.open(large("r-4", 1000))
    run = runs.find("r-0")
    assert run is not None
    run.succeed()
    runs.open(large("r-4", 1000))


def test_what_a_failure_says_has_a_largest_size() -> None:
    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        raise ValueError("x" * 1_000_000)

    error: BaseException = ValueError("first")
    for number in range(1000):
        link = ValueError(f"{number}")
        link.__cause__ = error
        error = link
    try:
        deep(500)
    except ValueError as caught:
        caught.__cause__ = error
        described = describe_error(caught)

    assert len(described.message or "") < 11_000
    assert (described.stack_trace[0].method_name, len(described.stack_trace)) == ("deep", 100)
    causes = 0
    while described.cause is not None:
        described, causes = described.cause, causes + 1
    assert causes == 9


@pytest.mark.parametrize("command", ["installBiz", "uninstallBiz", "switchBiz"])
@pytest.mark.parametrize("identity", ["a/b:1", "..:1", "shop:" + "1" * 1000, "shop:1\0", " shop:1"])
def test_a_name_that_no_biz_can_have_opens_no_run(wire: Any, container: Any, command: str, identity: str) -> None:
    now = wire.command(command, body(identity, "r-1", "file:///x.jar") | {"async": False})
    later = wire.command(command, body(identity, "r-1", "file:///x.jar"))

    assert later == now
    assert later["code"] != "SUCCESS"
    assert wire.command("queryBizOps", {"requestId": "r-1"})["message"] == "Not found the corresponding ops record."
    assert container.prepared == []

"""Each command: what is done to the container, and the exact codes and texts that go back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.biz import BizId, BizState
from koupleless.errors import ArchiveRefused, IllegalMove, ManifestInvalid, PathTaken, StartFailed
from koupleless.health.readiness import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.wire.envelope import Envelope

INTERNAL = "CMD_PROCESS_INTERNAL_ERROR"
REPEATED = {
    "baseIdentity": "10.1.2.3",
    "code": "FAILED",
    "data": {
        "code": "REPEAT_BIZ",
        "elapsedSpace": 0,
        "message": "Biz: shop:1.0 has been installed or registered.",
    },
    "errorType": "Container.BizRepeated",
    "message": "install biz not success!",
}


def raising(error: BaseException) -> Callable[[], None]:
    def hook() -> None:
        raise error

    return hook


def named(identity: str, url: str | None = None, **more: Any) -> dict[str, Any]:
    name, _, version = identity.partition(":")
    return {"bizName": name, "bizVersion": version, **({} if url is None else {"bizUrl": url}), **more}


def test_install_repeat_uninstall_uninstall_say_what_the_original_says(wire: Any, container: Any) -> None:
    url = container.offer("shop:1.0", path="/shop", attributes={"team": "a"})

    installed = wire.command("installBiz", named("shop:1.0", url))
    repeated = wire.command("installBiz", named("shop:1.0", url))
    uninstalled = wire.command("uninstallBiz", named("shop:1.0", "ignored"))
    again = wire.command("uninstallBiz", named("shop:1.0"))

    data = installed["data"]
    assert installed["code"] == data["code"] == "SUCCESS"
    assert "message" not in installed
    assert re.fullmatch(
        r"Install Biz: shop:1\.0 success, cost: \d+ ms, started at: \d\d:\d\d:\d\d,\d{3}", data["message"]
    )
    assert type(data["elapsedSpace"]) is int
    (biz,) = data["bizInfos"]
    assert (biz["bizState"], biz["identity"], biz["webContextPath"]) == ("ACTIVATED", "shop:1.0", "/shop")
    assert biz["attributes"] == {"team": "a"}
    assert repeated == REPEATED
    assert uninstalled["code"] == uninstalled["data"]["code"] == "SUCCESS"
    assert uninstalled["data"]["message"] == "Uninstall biz: shop:1.0 success."
    assert again == {
        "baseIdentity": "10.1.2.3",
        "code": "FAILED",
        "data": {"code": "NOT_FOUND_BIZ", "message": "Uninstall biz: shop:1.0 not found."},
        "errorType": "Container.BizNotFound",
        "message": "uninstall biz not success!",
    }


@pytest.mark.parametrize(
    ("given", "drain_s"), [({}, None), ({"drainSeconds": 7}, 7.0), ({"drain_seconds": "0.5"}, 0.5),
                           ({"drainSeconds": -1}, 0.0), ({"drainSeconds": None}, None)]
)  # fmt: skip
def test_an_uninstall_may_limit_the_time_for_requests_in_flight(
    wire: Any, container: Any, given: dict[str, Any], drain_s: float | None
) -> None:
    wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0")))
    assert wire.command("uninstallBiz", named("shop:1.0", **given))["code"] == "SUCCESS"
    assert container.drains == [drain_s]
    refused = wire.command("uninstallBiz", named("shop:1.0", drainSeconds="long"))
    assert "drainSeconds must be a number" in refused["message"]


def test_uninstall_says_what_is_left_of_the_biz(wire: Any, container: Any) -> None:
    wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0")))

    report = wire.command("uninstallBiz", named("shop:1.0"))["data"]["purgeReport"]

    assert report == {
        "biz": "shop:1.0",
        "clean": False,
        "summary": "1 Python module still alive: demo.app held by functools.lru_cache of shared.cache; "
        "1 not undone: a hook raised; still changed for every module: lib.LIMIT",
        "held": [{"name": "demo.app", "holders": ["functools.lru_cache of shared.cache"], "sizeBytes": 4096}],
        "undone": {"thread": 1},
        "failures": ["a hook raised"],
        "elapsedMs": 1.5,
        "ended": ["thread 'poller' was interrupted"],
        "stays": [{"name": "numpy", "version": "2.3.5", "sizeBytes": 31_000_000, "modules": 89, "users": []}],
        "changed": ["lib.LIMIT"],
        "compared": True,
        "notes": [],
    }


@pytest.mark.parametrize("where", ["named", "unnamed"])
def test_an_artefact_is_at_a_url_not_at_a_path(wire: Any, container: Any, where: str) -> None:
    names = {"bizName": "shop", "bizVersion": "1"} if where == "named" else {}
    envelope = wire.command("installBiz", {"bizUrl": "/modules/shop.zip", **names})

    assert envelope["code"] == "CMD_PROCESS_INTERNAL_ERROR"
    assert (
        "/modules/shop.zip: no protocol: it has to begin with file://, http://, https:// or oci://"
        in envelope["message"]
    )
    assert container.prepared == []


def test_blanks_around_a_url_are_cut(wire: Any, container: Any) -> None:
    installed = wire.command("installBiz", {"bizUrl": f"  {container.offer('shop:1.0')}\n", "args": [None, "--x=1"]})

    assert installed["code"] == "SUCCESS"


def test_switching_to_the_base_succeeds_and_does_nothing(wire: Any) -> None:
    assert wire.command("switchBiz", named("base:1.0.0"))["data"] == {
        "code": "SUCCESS",
        "message": "Switch biz: base:1.0.0 is activated.",
    }
    assert wire.command("switchBiz", named("base:2"))["data"]["code"] == "NOT_FOUND_BIZ"


@pytest.mark.parametrize(
    ("command", "body", "text"),
    [
        ("installBiz", {}, "bizUrl should not be blank"),
        ("installBiz", {"bizUrl": " "}, "bizUrl should not be blank"),
        ("installBiz", {"bizUrl": None}, "bizUrl should not be blank"),
        ("installBiz", {"bizUrl": " ", "async": True}, "requestId should not be blank when async is true"),
        (
            "installBiz",
            {"bizUrl": "file:///x", "bizName": "x"},
            "bizName and bizVersion should be both blank or both not blank.",
        ),
        (
            "installBiz",
            {"bizUrl": "file:///x", "bizVersion": "1"},
            "bizName and bizVersion should be both blank or both not blank.",
        ),
        ("installBiz", {"async": "yes"}, "async must be true or false"),
        ("installBiz", {"bizUrl": "x", "args": {}}, "args must be an array of texts"),
        ("installBiz", {"bizUrl": "x", "args": "--x=1"}, "args must be an array of texts"),
        ("installBiz", {"bizUrl": "x", "args": 1}, "args must be an array of texts"),
        ("installBiz", {"bizUrl": "x", "envs": []}, "envs must be an object of texts"),
        ("installBiz", {"bizUrl": "x", "envs": "a=b"}, "envs must be an object of texts"),
        ("uninstallBiz", {}, "bizName should not be blank"),
        ("uninstallBiz", {"bizName": " ", "bizVersion": "1"}, "bizName should not be blank"),
        ("uninstallBiz", {"bizName": "x"}, "bizVersion should not be blank"),
        ("uninstallBiz", {**named("x:1"), "async": True}, "requestId should not be blank when async is true"),
        ("switchBiz", {}, "bizName should not be blank"),
        ("switchBiz", {"bizName": "x", "bizVersion": ""}, "bizVersion should not be blank"),
        ("switchBiz", {**named("x:1"), "async": 1}, "requestId should not be blank when async is true"),
        ("batchInstallBiz", {}, "bizList is null"),
        ("batchInstallBiz", {"bizList": "x"}, "bizList is null"),
        ("batchInstallBiz", {"bizList": {}}, "bizList must be an array of objects"),
        ("batchInstallBiz", {"bizList": ["x"]}, "bizList[0] must be an object"),
        ("batchInstallBiz", {"bizList": [{}]}, "bizUrl should not be blank"),
        ("batchInstallBiz", {"bizList": [], "async": True}, "requestId should not be blank when async is true"),
        ("queryBizOps", {}, "requestId is blank"),
        ("queryBizOps", {"requestId": " "}, "requestId is blank"),
        ("queryBizOps", b"", "request is null"),
        ("queryBizOps", b"null", "request is null"),
        ("installBiz", b"", "bizUrl should not be blank"),
        ("uninstallBiz", b"", "bizName should not be blank"),
        ("health", {"type": "foo"}, "type: foo can not be found"),
        ("health", {"type": "BIZ"}, "type: BIZ can not be found"),
    ],
)
def test_a_request_that_lacks_something_is_told_what(wire: Any, command: str, body: object, text: str) -> None:
    envelope = wire.command(command, body)

    assert envelope["code"] == INTERNAL
    assert envelope["message"] == f"Internal Error: {text}"
    assert envelope["errorStackTrace"]
    assert envelope["errorType"] == "Request.InputInvalid"
    assert set(envelope) == {"code", "message", "errorType", "errorStackTrace"}


@pytest.mark.parametrize("command", ["envBiz", "commandBiz", "queryLogs", "rollbackBiz"])
def test_a_name_that_is_none_is_refused_in_the_shape_of_a_refusal(wire: Any, command: str) -> None:
    envelope = wire.command(command, named("a b:1"))

    assert envelope["code"] == "FAILED"
    assert envelope["data"] == {"code": "FAILED", "message": envelope["message"]}
    assert "'a b' is no biz name" in envelope["message"]


def test_a_duplicate_is_reported_even_if_its_artefact_cannot_be_had(wire: Any, container: Any) -> None:
    wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0")))

    assert wire.command("installBiz", named("shop:1.0", "file:///nope.jar")) == REPEATED
    assert len(container.prepared) == 1


def test_a_duplicate_is_found_by_what_its_artefact_says(wire: Any, container: Any) -> None:
    url = container.offer("shop:1.0")
    wire.command("installBiz", {"bizUrl": url})

    assert wire.command("installBiz", {"bizUrl": url}) == REPEATED


def test_without_names_the_artefact_is_fetched_once_and_names_the_biz(wire: Any, container: Any) -> None:
    envelope = wire.command("installBiz", {"bizUrl": container.offer("shop:1.0")})

    assert envelope["data"]["bizInfos"][0]["identity"] == "shop:1.0"
    assert len(container.prepared) == 1


def test_an_artefact_that_is_another_biz_is_refused(wire: Any, container: Any) -> None:
    envelope = wire.command("installBiz", named("cart:2.0", container.offer("shop:1.0")))

    assert envelope["code"] == envelope["data"]["code"] == "FAILED"
    assert "is shop:1.0, not cart:2.0" in envelope["message"]
    assert wire.command("queryAllBiz")["data"] == []


def test_names_that_no_biz_can_have_are_refused(wire: Any, container: Any) -> None:
    url = container.offer("shop:1.0")

    assert wire.command("installBiz", named("../etc:1", url))["code"] == "FAILED"
    assert wire.command("uninstallBiz", named("shop:1.0 "))["data"] == {
        "code": "NOT_FOUND_BIZ",
        "message": "Uninstall biz: shop:1.0  not found.",
    }
    assert wire.command("switchBiz", named("a/b:1"))["data"]["code"] == "NOT_FOUND_BIZ"


def test_numbers_do_for_names(wire: Any, container: Any) -> None:
    url = container.offer("5:6")

    assert wire.command("installBiz", {"bizName": 5, "BIZ_VERSION": 6, "biz-url": url})["code"] == "SUCCESS"


@pytest.mark.parametrize(("named_biz"), [True, False], ids=["with names", "without"])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ArchiveRefused("x.jar", "it is no zip archive"), "archive x.jar was refused: it is no zip archive"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
)
def test_an_artefact_that_cannot_be_used_is_an_internal_error_with_the_reason(
    wire: Any, container: Any, error: Exception, text: str, named_biz: bool
) -> None:
    url = container.offer("shop:1.0", on_prepare=raising(error))
    envelope = wire.command("installBiz", named("shop:1.0", url) if named_biz else {"bizUrl": url})

    assert envelope["code"] == INTERNAL
    prefix = "" if named_biz or isinstance(error, OSError) else "refresh biz info from jar failed: "
    assert envelope["message"] == f"Internal Error: {prefix}{text}"


def test_every_mistake_of_a_manifest_is_said(wire: Any, container: Any) -> None:
    error = ManifestInvalid("biz.toml", ["entry is missing", "priority is no number", "name is blank"])
    envelope = wire.command("installBiz", {"bizUrl": container.offer("shop:1.0", on_prepare=raising(error))})

    assert envelope["message"] == (
        "Internal Error: biz.toml has 3 mistakes: entry is missing; priority is no number; name is blank"
    )


def test_a_failed_start_shows_the_cause_and_the_users_own_frames(wire: Any, container: Any) -> None:
    trace = 'Traceback (most recent call last):\n  File "shop/app.py", line 3\nZeroDivisionError: division by zero\n'
    reason = "failed to start: ZeroDivisionError: division by zero"
    error = StartFailed(BizId.parse("shop:1.0"), reason, traceback=trace)
    envelope = wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0", on_start=raising(error))))

    assert envelope == {
        "code": INTERNAL,
        "message": "Internal Error: biz shop:1.0 failed to start: ZeroDivisionError: division by zero",
        "errorType": "Module.StartFailed",
        "errorStackTrace": trace,
    }


def test_an_unforeseen_error_says_its_innermost_cause(wire: Any, container: Any) -> None:
    def fail() -> None:
        try:
            Path("/no/such/store").stat()
        except OSError as error:
            raise RuntimeError from error

    envelope = wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0", on_start=fail)))

    assert envelope["message"] == (
        "Internal Error: FileNotFoundError: [Errno 2] No such file or directory: '/no/such/store'"
    )
    assert "RuntimeError" in envelope["errorStackTrace"]


def test_a_biz_that_exits_does_not_take_the_arklet_along(wire: Any, container: Any) -> None:
    url = container.offer("shop:1.0", on_start=raising(SystemExit(3)))

    assert wire.command("installBiz", named("shop:1.0", url))["message"] == "Internal Error: SystemExit: 3"


def test_a_text_that_is_no_unicode_is_escaped(wire: Any, container: Any) -> None:
    error = OSError("cannot read caf\udce9.zip")
    url = container.offer("shop:1.0", on_start=raising(error))

    assert wire.command("installBiz", named("shop:1.0", url))["message"].endswith("cannot read caf\\udce9.zip")


def test_a_path_that_is_taken_is_an_internal_error_that_names_its_owner(wire: Any, container: Any) -> None:
    error = PathTaken(BizId.parse("shop:1.0"), "/shop", BizId.parse("cart:2.0"))
    envelope = wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0", on_start=raising(error))))

    assert envelope["code"] == INTERNAL
    assert "which cart:2.0 serves" in envelope["message"]


def test_args_and_envs_reach_the_biz_under_both_spellings(wire: Any, container: Any) -> None:
    for key, identity in (("envs", "a:1"), ("env", "b:1")):
        url = container.offer(identity)
        wire.command("installBiz", named(identity, url, args=["--x=1", 2], **{key: {"MODE": "test", "N": 1}}))

    environment = {"MODE": "test", "N": "1"}
    assert container.started == [("a:1", ("--x=1", "2"), environment), ("b:1", ("--x=1", "2"), environment)]


@pytest.mark.parametrize("strategy", ["foo", "UNINSTALLTHENINSTALL", "", None, "installOnly"])
def test_every_strategy_unknown_to_the_original_means_install_only(wire: Any, container: Any, strategy: object) -> None:
    wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0")))
    envelope = wire.command("installBiz", named("shop:2.0", container.offer("shop:2.0"), installStrategy=strategy))

    assert envelope["data"]["bizInfos"][0]["bizState"] == "DEACTIVATED"
    assert len(wire.command("queryAllBiz")["data"]) == 2


@pytest.mark.parametrize("strategy", ["uninstallThenInstall", "replace"])
def test_a_replacing_strategy_removes_the_other_versions_and_says_how_they_left(
    wire: Any, container: Any, strategy: str
) -> None:
    wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0")))
    data = wire.command("installBiz", named("shop:2.0", container.offer("shop:2.0"), installStrategy=strategy))["data"]

    assert [report["biz"] for report in data["replaced"]] == ["shop:1.0"]
    assert [biz["bizVersion"] for biz in wire.command("queryAllBiz")["data"]] == ["2.0"]


def test_nothing_is_removed_for_an_install_that_cannot_succeed(wire: Any, container: Any) -> None:
    wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0")))
    for body in (
        named("shop:2.0", "file:///nope.jar"),
        {"bizUrl": "file:///nope.jar"},
        named("shop:2.0", container.offer("other:2.0")),
    ):
        assert wire.command("installBiz", {**body, "installStrategy": "uninstallThenInstall"})["code"] != "SUCCESS"

    assert [biz["bizState"] for biz in wire.command("queryAllBiz")["data"]] == ["ACTIVATED"]


def test_the_base_is_not_uninstalled_whatever_the_version(wire: Any) -> None:
    for version in ("1.0.0", "9"):
        assert wire.command("uninstallBiz", named(f"base:{version}")) == {
            "baseIdentity": "10.1.2.3",
            "code": "FAILED",
            "data": {"code": "FAILED", "message": "Master biz must not be uninstalled."},
            "errorType": "Container.MasterBizProtected",
            "message": "uninstall biz not success!",
        }


def test_switch_makes_a_version_the_active_one(wire: Any, container: Any) -> None:
    for identity in ("shop:1.0", "shop:2.0"):
        wire.command("installBiz", named(identity, container.offer(identity)))

    for _ in range(2):
        assert wire.command("switchBiz", named("shop:2.0")) == {
            "baseIdentity": "10.1.2.3",
            "code": "SUCCESS",
            "data": {"code": "SUCCESS", "message": "Switch biz: shop:2.0 is activated."},
        }
    states = {biz["bizVersion"]: biz["bizState"] for biz in wire.command("queryAllBiz")["data"]}
    assert states == {"1.0": "DEACTIVATED", "2.0": "ACTIVATED"}


def test_switch_to_what_is_not_there_is_refused(wire: Any) -> None:
    assert wire.command("switchBiz", named("shop:1.0")) == {
        "baseIdentity": "10.1.2.3",
        "code": "FAILED",
        "data": {"code": "NOT_FOUND_BIZ", "message": "Switch biz: shop:1.0 not found."},
        "errorType": "Container.BizNotFound",
        "message": "switch biz not success!",
    }


def test_a_biz_that_is_still_starting_is_neither_switched_to_nor_uninstalled(
    wire: Any, container: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = raising(IllegalMove(BizId.parse("shop:1.0"), BizState.RESOLVED, BizState.STOPPED))
    monkeypatch.setattr(container, "switch", lambda biz: refuse())
    monkeypatch.setattr(container, "uninstall", lambda biz, **_: refuse())

    switched = wire.command("switchBiz", named("shop:1.0"))
    removed = wire.command("uninstallBiz", named("shop:1.0"))

    assert switched["message"] == "switch biz not success!"
    assert switched["data"] == {
        "code": "ILLEGAL_STATE_BIZ",
        "message": "Switch Biz: shop:1.0's state must not be resolved.",
    }
    assert removed["code"] == INTERNAL
    assert removed["message"] == "Internal Error: BizState must be ACTIVATED, DEACTIVATED or BROKEN."


def test_query_leaves_the_base_out_and_orders_by_priority_with_records_in_milliseconds(
    wire: Any, container: Any
) -> None:
    for identity, priority in (("late:1", 200), ("early:1", 5), ("middle:1", 100)):
        wire.command("installBiz", named(identity, container.offer(identity, priority=priority)))

    bizs = wire.command("queryAllBiz", {"HostName": "127.0.0.1", "Port": 1238})["data"]

    assert [biz["bizName"] for biz in bizs] == ["early", "middle", "late"]
    for biz in bizs:
        assert set(biz) == {"bizName", "bizState", "bizStateRecords", "bizVersion", "mainClass", "webContextPath"}
        created, started = biz["bizStateRecords"]
        assert (created["reason"], created["state"], created["message"]) == ("Created", "RESOLVED", "")
        assert (started["reason"], started["state"], started["message"]) == ("Started", "ACTIVATED", "")
        assert created["changeTime"] <= started["changeTime"]
        assert started["changeTime"] > 1_600_000_000_000


# --- one command per biz at a time -------------------------------------------------------------------------------


def test_of_two_operations_on_one_identity_the_second_is_told_who_is_first(
    wire: Any, container: Any, pause: Any, in_background: Any
) -> None:
    held = pause()
    url = container.offer("shop:1.0", on_start=held)
    first = in_background(lambda: wire.command("installBiz", named("shop:1.0", url)))
    held.await_reached()

    for command in ("installBiz", "uninstallBiz", "switchBiz"):
        assert wire.command(command, named("shop:1.0", url)) == {
            "baseIdentity": "10.1.2.3",
            "code": "FAILED",
            "errorType": "Container.BizBusy",
            "message": f"FAILED:shop:1.0 {command} conflict, exist unfinished command(installBiz) for this biz",
        }
    nameless = wire.command("installBiz", {"bizUrl": url})
    held.let_go()

    assert "conflict, exist unfinished command(installBiz)" in nameless["message"]
    assert container.prepared[-1].is_discarded
    assert first()["code"] == "SUCCESS"
    assert wire.command("uninstallBiz", named("shop:1.0"))["code"] == "SUCCESS"


def test_two_versions_of_one_name_do_not_exclude_each_other(
    wire: Any, container: Any, pause: Any, in_background: Any
) -> None:
    held = pause()
    first = in_background(
        lambda: wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0", on_start=held)))
    )
    held.await_reached()

    second = wire.command("installBiz", named("shop:2.0", container.offer("shop:2.0")))
    held.let_go()

    assert second["code"] == first()["code"] == "SUCCESS"


def test_the_containers_own_refusal_reads_like_a_conflict(wire: Any, container: Any) -> None:
    wire.command("installBiz", named("shop:1.0", container.offer("shop:1.0")))
    with container.reserve(BizId.parse("shop:1.0"), "switchBiz"):
        envelope = wire.command("uninstallBiz", named("shop:1.0"))

    assert envelope["message"] == (
        "FAILED:shop:1.0 uninstallBiz conflict, exist unfinished command(switchBiz) for this biz"
    )


def test_of_many_installs_of_one_identity_exactly_one_succeeds(wire: Any, container: Any, in_background: Any) -> None:
    url = container.offer("shop:1.0")
    calls = [in_background(lambda: wire.command("installBiz", named("shop:1.0", url))) for _ in range(16)]
    envelopes = [call() for call in calls]

    assert sorted(envelope["code"] for envelope in envelopes) == ["FAILED"] * 15 + ["SUCCESS"]
    for envelope in envelopes:
        if envelope["code"] == "FAILED":
            assert envelope == REPEATED or "conflict, exist unfinished command" in envelope["message"]
    assert [biz.state for biz in container.bizs()] == [BizState.ACTIVATED]


def test_many_installs_of_different_bizs_all_succeed(wire: Any, container: Any, in_background: Any) -> None:
    urls = {f"biz{number}:1": container.offer(f"biz{number}:1") for number in range(24)}
    calls = [in_background(lambda i=i, u=u: wire.command("installBiz", named(i, u))) for i, u in urls.items()]

    assert {call()["code"] for call in calls} == {"SUCCESS"}
    assert len(wire.command("queryAllBiz")["data"]) == 24


def test_an_operation_that_fails_gives_the_identity_back(wire: Any, container: Any) -> None:
    container.offer("shop:1.0", on_start=raising(StartFailed(BizId.parse("shop:1.0"), "failed")))
    for _ in range(2):
        assert wire.command("installBiz", named("shop:1.0", "file:///shop-1.0.jar"))["code"] == INTERNAL


def test_operations_answer_the_same_without_http(operations: Operations, container: Any) -> None:
    envelope: Envelope = operations.handle("installBiz", b'{"bizUrl":"' + container.offer("shop:1.0").encode() + b'"}')

    assert envelope.is_success
    assert operations.handle("nope", b"").message == "please follow the doc"


@pytest.mark.parametrize("envs", [{"A=B": "x"}, {"": "x"}, {"A\0": "x"}, {"A": "x\0y"}, {"=": ""}])
def test_variables_that_no_process_can_have_are_refused(wire: Any, container: Any, envs: dict[str, str]) -> None:
    url = container.offer("shop:1.0")
    batch = {"bizList": [named("shop:1.0", url, envs=envs)]}
    for command, body in (("installBiz", named("shop:1.0", url, envs=envs)), ("batchInstallBiz", batch)):
        for more in ({}, {"async": True, "requestId": "r-1"}):
            reply = wire.command(command, body | more)
            assert reply["code"] == INTERNAL
            assert "envs" in reply["message"]
    assert container.prepared == []
    assert wire.command("queryBizOps", {"requestId": "r-1"})["code"] == "FAILED"


def test_the_libraries_in_the_store_are_told_of_those_asked_for(container: Any) -> None:
    operations = Operations(container, BaseMetadata(identity="me"), has_libraries="ab".__eq__)
    assert operations.handle("queryLibraries", b'{"digests": ["ab", "cd"]}').data.present == ["ab"]
    assert operations.handle("queryLibraries", b"{}").data.present == []
    assert not operations.handle("queryLibraries", b'{"digests": {}}').is_success


def test_a_list_tells_the_health_of_modules_where_known(container: Any) -> None:
    known = {BizId.parse("shop:1.0"): Status.DOWN}
    operations = Operations(container, BaseMetadata(identity="10.1.2.3"), statuses=lambda: known)
    for identity in ("shop:1.0", "cart:1.0"):
        url = container.offer(identity)
        operations.handle("installBiz", json.dumps(named(identity, url)).encode())
    found = operations.handle("queryAllBiz", b"{}").data
    assert [(biz.biz_name, biz.health) for biz in found] == [("shop", "DOWN"), ("cart", msgspec.UNSET)]
    operations.close()

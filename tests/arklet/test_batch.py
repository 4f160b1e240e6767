"""Batch installs: groups by priority, one entry for each URL, and what fails when."""

from __future__ import annotations

import threading
from typing import Any

from koupleless.biz import BizId
from koupleless.errors import StartFailed


def element(url: str, identity: str | None = None, **more: Any) -> dict[str, Any]:
    name, _, version = (identity or "").partition(":")
    return {"bizUrl": url, **({"bizName": name, "bizVersion": version} if identity else {}), **more}


def test_an_empty_batch_succeeds(wire: Any) -> None:
    envelope = wire.command("batchInstallBiz", {"bizList": []})

    assert envelope["code"] == "SUCCESS"
    assert envelope["data"] == {
        "bizUrlToResponse": {},
        "code": "SUCCESS",
        "elapsedSpace": envelope["data"]["elapsedSpace"],
        "message": "batch install success",
    }
    assert type(envelope["data"]["elapsedSpace"]) is int


def test_every_element_is_installed_with_its_own_arguments(wire: Any, container: Any) -> None:
    first, second = container.offer("a:1"), container.offer("b:1")
    envelope = wire.command(
        "batchInstallBiz",
        {"bizList": [element(first, "a:1", args=["x"], envs={"K": "v"}), {"bizUrl": second, "async": True}]},
    )

    entries = envelope["data"]["bizUrlToResponse"]
    assert envelope["code"] == "SUCCESS"
    assert set(entries) == {first, second}
    for url, identity in ((first, "a:1"), (second, "b:1")):
        assert set(entries[url]) == {"code", "message", "bizInfos"}
        assert entries[url]["bizInfos"][0]["identity"] == identity
        assert entries[url]["message"].startswith(f"Install Biz: {identity} success, cost: ")
    assert ("a:1", ("x",), {"K": "v"}) in container.started


def test_groups_run_by_ascending_priority_and_each_waits_for_the_one_before(wire: Any, container: Any) -> None:
    together = threading.Barrier(2, timeout=10)
    order: list[str] = []
    lock = threading.Lock()

    def hook(name: str, *, meet: bool) -> Any:
        def run() -> None:
            with lock:
                order.append(f"{name} begins")
            if meet:
                together.wait()  # passes only if both of the group run at the same time
            with lock:
                order.append(f"{name} ends")

        return run

    urls = [
        container.offer("late:1", priority=300, on_start=hook("late", meet=False)),
        container.offer("one:1", priority=10, on_start=hook("one", meet=True)),
        container.offer("middle:1", on_start=hook("middle", meet=False)),
        container.offer("two:1", priority=10, on_start=hook("two", meet=True)),
    ]
    envelope = wire.command("batchInstallBiz", {"bizList": [element(url) for url in urls]})

    assert envelope["code"] == "SUCCESS"
    assert sorted(order[:2]) == ["one begins", "two begins"]
    assert sorted(order[2:4]) == ["one ends", "two ends"]
    assert order[4:] == ["middle begins", "middle ends", "late begins", "late ends"]


def test_a_failure_stops_nobody_else_and_every_entry_carries_a_biz(wire: Any, container: Any) -> None:
    def fail() -> None:
        raise StartFailed(BizId.parse("broken:1"), "failed to start: ValueError: no")

    installed = container.offer("there:1", path="/there")
    wire.command("installBiz", element(installed))
    broken = container.offer("broken:1", priority=1, on_start=fail)
    other = container.offer("other:1")
    fine = container.offer("fine:1", priority=500)

    envelope = wire.command(
        "batchInstallBiz",
        {"bizList": [element(installed), element(broken), element(other, "another:1"), element(fine)]},
    )

    data = envelope["data"]
    assert (envelope["code"], envelope["message"]) == ("FAILED", "install biz not success!")
    assert (data["code"], data["message"]) == ("FAILED", "batch install failed")
    entries = data["bizUrlToResponse"]
    assert all(len(entry["bizInfos"]) == 1 for entry in entries.values())
    shown = {
        url: (entry["code"], entry["bizInfos"][0]["bizName"], entry["bizInfos"][0]["bizState"])
        for url, entry in entries.items()
    }
    assert shown == {
        installed: ("REPEAT_BIZ", "there", "ACTIVATED"),
        broken: ("FAILED", "broken", "BROKEN"),
        other: ("FAILED", "another", "BROKEN"),
        fine: ("SUCCESS", "fine", "ACTIVATED"),
    }
    assert entries[installed]["message"] == "Biz: there:1 has been installed or registered."
    assert entries[broken]["message"] == "internal exception: biz broken:1 failed to start: ValueError: no"
    assert "is other:1, not another:1" in entries[other]["message"]


def test_an_artefact_that_cannot_be_had_has_an_entry_and_the_others_are_installed(wire: Any, container: Any) -> None:
    good = container.offer("a:1")
    named = {"bizUrl": " file:///gone.jar ", "bizName": "gone", "bizVersion": "2"}
    envelope = wire.command("batchInstallBiz", {"bizList": [element("file:///nope.jar"), element(good), named]})

    assert (envelope["code"], envelope["message"]) == ("FAILED", "install biz not success!")
    entries = envelope["data"]["bizUrlToResponse"]
    assert {url: entry["code"] for url, entry in entries.items()} == {
        "file:///nope.jar": "FAILED",
        good: "SUCCESS",
        " file:///gone.jar ": "FAILED",
    }
    assert "cannot fetch file:///nope.jar" in entries["file:///nope.jar"]["message"]
    (said,) = entries[" file:///gone.jar "]["bizInfos"]
    assert (said["identity"], said["bizState"]) == ("gone:2", "BROKEN")
    assert [biz["bizName"] for biz in wire.command("queryAllBiz")["data"]] == ["a"]


def test_the_same_url_twice_is_one_entry_that_shows_the_installed_biz(wire: Any, container: Any) -> None:
    url = container.offer("a:1")
    envelope = wire.command("batchInstallBiz", {"bizList": [element(url), element(url)]})

    assert envelope["code"] == "FAILED"
    assert envelope["data"]["bizUrlToResponse"][url]["code"] == "SUCCESS"


def test_batches_exclude_each_other_and_elements_what_runs_alone(
    wire: Any, container: Any, pause: Any, in_background: Any
) -> None:
    held = pause()
    slow, quick = container.offer("slow:1", on_start=held), container.offer("quick:1")
    alone = in_background(lambda: wire.command("installBiz", element(slow)))
    held.await_reached()

    batch = wire.command("batchInstallBiz", {"bizList": [element(slow), element(quick)]})
    entries = batch["data"]["bizUrlToResponse"]
    held.let_go()

    assert alone()["code"] == "SUCCESS"
    assert entries[quick]["code"] == "SUCCESS"
    assert entries[slow]["message"] == (
        "FAILED:slow:1 installBiz conflict, exist unfinished command(installBiz) for this biz"
    )
    assert entries[slow]["bizInfos"][0]["bizState"] == "RESOLVED"

    again = pause()
    third = container.offer("third:1", on_start=again)
    running = in_background(lambda: wire.command("batchInstallBiz", {"bizList": [element(third)]}))
    again.await_reached()
    refused = wire.command("batchInstallBiz", {"bizList": []})
    again.let_go()

    assert running()["code"] == "SUCCESS"
    assert refused["message"] == (
        "FAILED:null:null batchInstallBiz conflict, exist unfinished command(batchInstallBiz) for this biz"
    )


def test_an_impossible_identity_fails_its_own_element_alone(wire: Any, container: Any) -> None:
    bad, good = container.offer("bad:1"), container.offer("good:1")
    entries = wire.command("batchInstallBiz", {"bizList": [element(bad, "../bad:1"), element(good, "good:1")]})["data"][
        "bizUrlToResponse"
    ]

    assert entries[good]["code"] == "SUCCESS"
    assert entries[bad]["code"] == "FAILED"
    assert "'../bad' is no biz name" in entries[bad]["message"]
    (shown,) = entries[bad]["bizInfos"]
    assert (shown["identity"], shown["bizState"]) == ("../bad:1", "BROKEN")
    assert [biz["bizName"] for biz in wire.command("queryAllBiz")["data"]] == ["good"]

"""States, strategies, conflicts and rules, with real modules."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from koupleless.biz import BizId, BizState
from koupleless.container.terms import Located, Rules, Strategy
from koupleless.errors import (
    BizBusy,
    BizNotFound,
    BizRepeated,
    ContainerClosed,
    FetchFailed,
    IdentityMismatch,
    ManifestInvalid,
    MasterBizProtected,
    PathTaken,
    StartFailed,
    StartTimeout,
)

ONE, TWO = BizId.parse("hello:1.0"), BizId.parse("hello:1.1")


def records(world, biz):
    return [(r.state.value, r.reason.value, r.message) for r in world.container.find(biz).records]


def test_an_installed_module_answers_on_its_path_and_is_active(world):
    installed = world.install("hello-1.0")

    assert installed.info.id == ONE
    assert installed.info.state is BizState.ACTIVATED
    assert world.get("/hello/").json() == {
        "hello": "world",
        "version": "1.0",
        "life": ["started"],
        "state": "hello",
    }
    assert records(world, ONE) == [("RESOLVED", "Created", ""), ("ACTIVATED", "Started", "")]
    times = [record.time_ms for record in installed.info.records]
    assert times == sorted(times)


def test_a_second_version_comes_up_deactivated_and_answers_after_a_switch(world):
    world.install("hello-1.0")
    world.install("hello-1.1")

    assert world.states() == {"hello:1.0": "ACTIVATED", "hello:1.1": "DEACTIVATED"}
    assert world.get("/hello/").json()["version"] == "1.0"
    assert records(world, TWO)[-1] == ("DEACTIVATED", "Started", "start but is deactivated")

    world.container.switch(TWO)

    assert world.states() == {"hello:1.0": "DEACTIVATED", "hello:1.1": "ACTIVATED"}
    assert world.get("/hello/").json()["version"] == "1.1"
    assert records(world, ONE)[-1] == ("DEACTIVATED", "Switched", "switch to new version hello:1.1")
    assert records(world, TWO)[-1] == ("ACTIVATED", "Switched", "switch from old version: hello:1.0")


def test_switching_to_the_active_version_changes_nothing(world):
    world.install("hello-1.0")
    before = records(world, ONE)

    world.container.switch(ONE)

    assert records(world, ONE) == before


def test_the_rule_activate_new_lets_a_new_version_take_over_at_once(make_world):
    world = make_world(rules=Rules(activate_new=True))
    world.install("hello-1.0")
    world.install("hello-1.1")

    assert world.states() == {"hello:1.0": "DEACTIVATED", "hello:1.1": "ACTIVATED"}
    assert records(world, TWO)[-1] == ("ACTIVATED", "Started", "switch from old biz: hello:1.0")
    assert records(world, ONE)[-1] == ("DEACTIVATED", "Switched", "switch to new biz hello:1.1")


def answering(world, path="/hello/"):
    """The version that answers, and those that are active."""
    active = [identity.partition(":")[2] for identity, state in world.states().items() if state == "ACTIVATED"]
    return world.get(path).json()["version"], active


def test_under_the_rule_activate_many_a_version_is_active_only_if_requests_reach_it(make_world):
    world = make_world(rules=Rules(activate_many=True))
    world.install("hello-1.0")
    world.install("hello-1.1")
    assert answering(world) == ("1.1", ["1.1"])
    assert records(world, ONE)[-1] == ("DEACTIVATED", "Switched", "switch to new biz hello:1.1")
    assert records(world, TWO)[-1] == ("ACTIVATED", "Started", "switch from old biz: hello:1.0")

    world.container.switch(ONE)
    assert answering(world) == ("1.0", ["1.0"])
    world.container.switch(TWO)
    assert answering(world) == ("1.1", ["1.1"])

    world.container.uninstall(TWO)
    assert answering(world) == ("1.0", ["1.0"])


def test_of_deactivated_versions_the_newest_takes_over_if_a_rule_says_so(make_world):
    world = make_world(rules=Rules(activate_next=True))
    for directory in ("hello-1.0", "hello-1.1"):
        world.install(directory)
    assert answering(world) == ("1.0", ["1.0"])

    world.container.uninstall(ONE)

    assert answering(world) == ("1.1", ["1.1"])
    assert records(world, TWO)[-1] == ("ACTIVATED", "Switched", "switch from old version: hello:1.0")
    world.container.uninstall(TWO)
    assert world.states() == {}


def test_without_the_rule_nobody_takes_over(world):
    world.install("hello-1.0")
    world.install("hello-1.1")

    world.container.uninstall(ONE)

    assert world.states() == {"hello:1.1": "DEACTIVATED"}
    assert world.get("/hello/").status_code == 404


def test_replace_moves_the_traffic_and_removes_the_other_versions(world):
    world.install("hello-1.0")

    installed = world.install("hello-1.1", strategy=Strategy.REPLACE)

    assert world.states() == {"hello:1.1": "ACTIVATED"}
    assert [report.summary() for report in installed.replaced if not report.clean] == []
    assert len(installed.replaced) == 1


def test_replace_takes_the_same_identity_again(world):
    world.install("hello-1.0")

    installed = world.install("hello-1.0", strategy=Strategy.REPLACE)

    assert world.states() == {"hello:1.0": "ACTIVATED"}
    assert len(installed.replaced) == 1
    assert world.get("/hello/").status_code == 200


def test_uninstall_then_install_removes_every_version_first(world):
    world.install("hello-1.0")

    world.install("hello-1.1", strategy=Strategy.UNINSTALL_THEN_INSTALL)

    assert world.states() == {"hello:1.1": "ACTIVATED"}


def test_the_same_identity_twice_is_refused_and_changes_nothing(world):
    world.install("hello-1.0")

    with pytest.raises(BizRepeated, match=r"hello:1\.0 is installed already"):
        world.install("hello-1.0")

    assert world.states() == {"hello:1.0": "ACTIVATED"}
    assert world.get("/hello/").status_code == 200


def test_a_taken_path_is_refused_before_any_code_of_the_module_runs(world, tmp_path):
    from koupleless.artifact.build import Options, build_file

    marker = tmp_path / "ran"
    rival = tmp_path / "rival.py"
    rival.write_text(f"open({str(marker)!r}, 'w').close()\ndef app(environ, start_response): ...\n")
    built = build_file(rival, Options(out=tmp_path / "out", web_context_path="/hello"))
    world.install("hello-1.0")

    with pytest.raises(PathTaken, match=r"/hello, which hello:1\.0 serves"):
        world.container.install(world.container.prepare(str(built.path)))

    assert not marker.exists()
    assert world.states() == {"hello:1.0": "ACTIVATED"}


def test_an_artefact_that_is_somebody_else_is_refused(world):
    with pytest.raises(IdentityMismatch, match=r"is hello:1\.0, not hello:9"):
        world.container.prepare(str(world.artefact("hello-1.0")), expected=BizId.parse("hello:9"))


def test_what_is_not_there_cannot_be_found_switched_or_uninstalled(world):
    for operation in (world.container.find, world.container.switch, world.container.uninstall):
        with pytest.raises(BizNotFound):
            operation(ONE)


def test_the_base_cannot_be_uninstalled(world):
    with pytest.raises(MasterBizProtected):
        world.container.uninstall(BizId.parse("base:1.0.0"))


def test_an_import_that_raises_is_told_with_the_authors_own_frames(world):
    with pytest.raises(StartFailed) as caught:
        world.install("broken-import-1.0")

    assert "RuntimeError: no database at 10.0.0.1" in str(caught.value)
    assert "broken/app.py" in caught.value.traceback
    assert "in configure" in caught.value.traceback
    assert "koupleless" not in caught.value.traceback
    assert "importlib" not in caught.value.traceback
    assert world.states() == {}


def test_a_start_up_that_fails_says_what_the_application_said(world):
    with pytest.raises(StartFailed, match="the cache is not warm"):
        world.install("broken-start-1.0")

    assert world.states() == {}


def test_a_start_that_hangs_ends_at_its_deadline(make_world):
    world = make_world(start_s=2.0)

    with pytest.raises(StartTimeout, match=r"did not start within 2 s"):
        world.install("hanging-1.0")

    assert world.states() == {}
    assert world.install("hello-1.0").info.state is BizState.ACTIVATED


def test_the_rule_keep_broken_lists_a_failed_module_until_it_is_uninstalled(make_world):
    world = make_world(rules=Rules(keep_broken=True))
    with pytest.raises(StartFailed):
        world.install("broken-import-1.0")

    assert world.states() == {"broken-import:1.0": "BROKEN"}
    assert "no database" in world.container.bizs()[0].records[-1].message
    with pytest.raises(BizRepeated):
        world.install("broken-import-1.0")

    assert world.container.uninstall(BizId.parse("broken-import:1.0")).clean
    assert world.states() == {}


def test_a_second_operation_on_an_identity_is_refused_while_the_first_runs(make_world):
    world = make_world(start_s=2.0)

    def install() -> None:
        with pytest.raises(StartTimeout):
            world.install("hanging-1.0")

    thread = threading.Thread(target=install)
    thread.start()
    while "hanging:1.0" not in world.states():
        thread.join(0.01)

    with pytest.raises(BizBusy, match="installBiz has not finished"):
        world.container.uninstall(BizId.parse("hanging:1.0"))
    world.install("hello-1.0")
    world.container.uninstall(ONE)

    thread.join()


def test_a_plain_function_is_called_once_and_its_stop_hook_at_the_end(world):
    installed = world.install("plain-1.0")
    life = world.container._roster.bizs[installed.info.id].life
    from koupleless.isolation.namespace import Namespace

    calls = life.scope.facet(Namespace).table["plain"].calls
    assert calls == ["main of plain:1.0"]

    del life
    report = world.container.uninstall(installed.info.id)

    assert calls == ["main of plain:1.0", "goodbye"]
    assert report.failures == ()


def test_a_closed_container_has_stopped_everything_and_takes_nothing_more(make_world):
    world = make_world()
    world.install("hello-1.0")
    prepared = world.container.prepare(str(world.artefact("hello-1.1")))

    world.container.close()

    assert world.states() == {}
    assert world.front.table.routes == ()
    with pytest.raises(ContainerClosed):
        world.container.install(prepared)


def test_two_containers_live_side_by_side(make_world):
    first, second = make_world(), make_world()
    first.install("hello-1.0")
    second.install("hello-1.1")

    assert first.get("/hello/").json()["version"] == "1.0"
    assert second.get("/hello/").json()["version"] == "1.1"
    first.container.close()
    assert second.get("/hello/").json()["version"] == "1.1"


def test_the_events_tell_what_happened_in_order(world):
    world.install("hello-1.0")
    world.container.uninstall(ONE)

    events = world.container.events.after(0)

    assert [event.kind.value for event in events] == ["installing", "started", "stopping", "stopped"]
    assert [event.number for event in events] == [1, 2, 3, 4]


def test_a_module_slimmed_for_a_richer_base_is_refused_before_its_code_runs(world, tmp_path):
    from koupleless.artifact.build import Options, build_file
    from koupleless.artifact.building.requirements import BaseFacts

    source = tmp_path / "poor.py"
    source.write_text('# /// script\n# dependencies = ["nowhere-to-be-found>=2"]\n# ///\nraise SystemExit\n')
    rich = BaseFacts({"nowhere-to-be-found": "2.1"})
    built = build_file(source, Options(out=tmp_path, base=rich))

    with pytest.raises(ManifestInvalid, match="nowhere-to-be-found"):
        world.container.prepare(str(built.path))


def test_an_identity_is_reserved_before_its_artefact_is_fetched_and_free_again_after_a_failure(world, monkeypatch):
    container, preparation = world.container, world.container._preparation
    prepare = preparation.prepare
    refused = []

    def fetch(url, **options):
        for operation in (container.uninstall, container.switch, lambda biz: container.install(Located(biz, url))):
            with pytest.raises(BizBusy, match="installBiz has not finished") as caught:
                operation(ONE)
            refused.append(caught.value.identity)
        return prepare(url, **options)

    monkeypatch.setattr(preparation, "prepare", fetch)
    with pytest.raises(FetchFailed):
        container.install(Located(ONE, "file:///nowhere.zip"))
    with pytest.raises(IdentityMismatch):
        container.install(Located(ONE, str(world.artefact("hello-1.1"))))
    installed = container.install(Located(ONE, str(world.artefact("hello-1.0"))))

    assert refused == ["hello:1.0"] * 9
    assert installed.info.id == ONE
    assert world.states() == {"hello:1.0": "ACTIVATED"}


def test_a_version_takes_over_also_while_its_replacement_is_fetched(make_world, monkeypatch):
    world = make_world(rules=Rules(activate_next=True))
    world.install("hello-1.0")
    world.install("hello-1.1")

    def fetch(url, **options):
        world.container.uninstall(ONE)
        raise FetchFailed(url, "it is gone")

    with monkeypatch.context() as patch:
        patch.setattr(world.container._preparation, "prepare", fetch)
        with pytest.raises(FetchFailed):
            world.container.install(Located(TWO, "file:///nowhere.zip"), strategy=Strategy.REPLACE)

    assert world.states() == {"hello:1.1": "ACTIVATED"}
    assert world.get("/hello/").json()["version"] == "1.1"


def test_an_install_that_must_be_refused_fetches_nothing(world):
    world.install("hello-1.0")
    nowhere = "file:///nowhere.zip"

    with pytest.raises(BizRepeated):
        world.container.install(Located(ONE, nowhere))
    with pytest.raises(MasterBizProtected):
        world.container.install(Located(world.container.base.id, nowhere))
    with world.container.reserve(TWO, "switchBiz"), pytest.raises(BizBusy, match="switchBiz"):
        world.container.install(Located(TWO, nowhere))
    with pytest.raises(FetchFailed):  # to be replaced by what is there
        world.container.install(Located(ONE, nowhere), strategy=Strategy.REPLACE)


def test_a_module_that_is_refused_gives_its_place_in_the_store_back(world):
    prepared = world.container.prepare(str(world.artefact("hello-1.0")))

    with world.container.reserve(ONE, "switchBiz"), pytest.raises(BizBusy):
        world.container.install(prepared)

    assert world.store._users == {}


def test_nothing_of_the_manifest_of_a_module_that_left_is_kept(world, tmp_path):
    directory = tmp_path / "crafted"
    directory.mkdir()
    note = f"note-{time.time_ns()}-" + "x" * 100_000
    (directory / "biz.toml").write_text(
        f'name = "crafted"\nversion = "1"\nentry = "crafted:app"\n[attributes]\nnote = "{note}"\n'
    )
    (directory / "crafted.py").write_text("async def app(scope, receive, send): ...\n")
    world.container.install(world.container.prepare(directory.as_uri()))
    (info,) = world.container.bizs()
    assert info.attributes == {"note": note}
    del info
    world.container.uninstall(BizId.parse("crafted:1"))
    gc.collect()

    keepers = [thing for thing in gc.get_objects() if type(thing) is dict and thing.get("note") == note]
    assert keepers == []

"""The commands that look at a base and take modules out of it."""

from __future__ import annotations

import importlib.metadata
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

from koupleless.cli.showing import suggestions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import FakeArklet, Outcome

    Arkctl = Callable[..., Outcome]

UNINSTALLED = {"code": "SUCCESS", "data": {"code": "SUCCESS", "message": "Uninstall biz: hello:1 success."}}
ABSENT = {"code": "FAILED", "message": "uninstall biz not success!", "data": {"code": "NOT_FOUND_BIZ"}}


def listed(*identities: str, state: str = "activated") -> dict[str, object]:
    def entry(identity: str) -> dict[str, object]:
        name, version = identity.split(":")
        record = {"changeTime": 1_718_000_000_123, "state": state, "reason": "Started", "message": "one\ntwo"}
        info = {"bizName": name, "bizVersion": version, "bizState": state, "webContextPath": f"/{name}"}
        return {**info, "mainClass": "hello.app:app", "bizStateRecords": [record]}

    return {"code": "SUCCESS", "data": [entry(identity) for identity in identities]}


def test_status_is_a_table_with_one_line_for_each_module(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("queryAllBiz", listed("hello:1.0", "a-longer-name:2"))
    outcome = arkctl("status", "--port", arklet.port)
    assert outcome.status == 0
    assert outcome.err == ""
    heading, first, second = outcome.out.splitlines()
    assert heading.split() == ["NAME", "VERSION", "STATE", "CONTEXT-PATH", "SINCE", "REASON"]
    assert first.split()[:4] == ["hello", "1.0", "ACTIVATED", "/hello"]
    assert first.split()[4].endswith("d")
    assert second.index("2") == first.index("1.0") == heading.index("VERSION")


def test_a_wide_status_also_has_entry_and_message(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("queryAllBiz", listed("hello:1.0"))
    line = arkctl("status", "--port", arklet.port, "--output", "wide").out.splitlines()[1]
    assert "hello.app:app" in line
    assert line.endswith("two")
    assert "2024-06-1" in line


def test_status_as_json_is_json_and_nothing_else(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("queryAllBiz", listed("hello:1.0"))
    outcome = arkctl("status", "--port", arklet.port, "--output", "json")
    assert outcome.err == ""
    said = json.loads(outcome.out)
    assert said["code"] == "SUCCESS"
    assert said["data"][0]["bizName"] == "hello"
    assert '"bizState":"ACTIVATED"' in outcome.out, "scripts of the original search for this text"


def test_status_of_an_empty_base_says_so_and_what_to_type_next(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("queryAllBiz", {"code": "SUCCESS"})
    outcome = arkctl("status", "--port", arklet.port)
    assert outcome.status == 0
    assert outcome.out == f"no modules; install one with: arkctl deploy PATH --port {arklet.port}\n"
    assert json.loads(arkctl("status", "--port", arklet.port, "-o", "json").out) == {"code": "SUCCESS", "data": []}


def test_the_environment_and_the_project_say_where_the_base_is(
    arkctl: Arkctl, arklet: FakeArklet, quiet_surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arklet.says("queryAllBiz", listed("hello:1.0"))
    (quiet_surroundings / "pyproject.toml").write_text(f"[tool.koupleless.arkctl]\nport = {arklet.port}\n")
    assert arkctl("status").status == 0
    monkeypatch.setenv("ARKCTL_PORT", "9")
    assert arkctl("status").status == 4
    monkeypatch.setenv("ARKCTL_OUTPUT", "json")
    assert json.loads(arkctl("status", "--port", arklet.port).out)["code"] == "SUCCESS"


def test_show_prints_every_record_of_every_version(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("queryAllBiz", listed("hello:1.0", "hello:1.1", "other:1"))
    out = arkctl("show", "hello", "--port", arklet.port).out
    assert "hello:1.0\n" in out
    assert "hello:1.1\n" in out
    assert "other" not in out
    assert "\n      one\n      two" in out
    only = json.loads(arkctl("show", "hello:1.1", "--port", arklet.port, "-o", "json").out)["data"]
    assert [entry["bizVersion"] for entry in only] == ["1.1"]
    assert arkctl("show", "nobody", "--port", arklet.port).status == 1


ZOMBIES = [
    {"biz": "hello:1.0", "name": "app", "since": 1, "holders": ["shop.x in the base", "a list"], "sizeBytes": 12_345},
    {"biz": "hello:0.9", "name": "app", "since": 1, "holders": []},
    {"biz": "helloes:1", "name": "app", "since": 1, "holders": []},
]


def test_show_tells_what_outlived_removed_versions(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("queryAllBiz", listed("hello:1.1"))
    arklet.says("health", {"code": "SUCCESS", "data": {"healthData": {"zombies": ZOMBIES}}})
    out = arkctl("show", "hello", "--port", arklet.port).out
    assert out.startswith("hello:1.1\n")
    *_, head, first, second = out.splitlines()
    assert head.split("   ")[0] == "REMOVED"
    assert (first.startswith("hello:1.0   app"), second.startswith("hello:0.9   app")) == (True, True)
    assert "12,345 bytes   shop.x in the base -> a list" in first
    assert "helloes" not in out
    gone = arkctl("show", "hello:1.0", "--port", arklet.port)
    assert gone.status == 0
    assert gone.out.splitlines()[0] == head, "it is not installed any more"
    shown = json.loads(arkctl("show", "hello:1.0", "--port", arklet.port, "-o", "json").out)
    assert (shown["data"], shown["zombies"]) == ([], ZOMBIES[:1])
    assert arkctl("show", "nobody", "--port", arklet.port).status == 1


def test_show_without_a_name_shows_the_base_and_what_modules_brought_into_it(
    arkctl: Arkctl, arklet: FakeArklet
) -> None:
    residents = [
        {"name": "numpy", "version": "2.3.5", "sizeBytes": 31_000_000, "modules": 89, "users": ["a:1", "b:2"]},
        {"name": "six", "version": "1.17", "sizeBytes": 0, "modules": 2, "users": []},
    ]
    base = {"bizName": "shop-base", "bizState": "ACTIVATED", "bizVersion": "2.0", "webContextPath": "/"}
    answer = {"healthData": {"masterBizInfo": base, "residents": residents, "zombies": ZOMBIES}}
    arklet.says("health", {"code": "SUCCESS", "data": answer})
    out = arkctl("show", "--port", arklet.port).out
    assert arklet.calls == [("health", {})]
    assert out.startswith("shop-base:2.0  ACTIVATED\n\nlibraries that modules brought along, 31 MB\n")
    assert "numpy     2.3.5     31 MB    89               a:1, b:2\n" in out
    assert "six       1.17      0.0 MB   2                -\n" in out
    assert "REMOVED" in out
    assert json.loads(arkctl("show", "--port", arklet.port, "-o", "json").out)["residents"] == residents
    arklet.says("health", {"code": "SUCCESS", "data": {"healthData": {"masterBizInfo": base}}})
    assert arkctl("show", "--port", arklet.port).out == "shop-base:2.0  ACTIVATED\n"


def test_switch_sends_the_identity(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("switchBiz", {"code": "SUCCESS", "data": {"code": "SUCCESS", "message": ""}})
    outcome = arkctl("switch", "hello:1.1", "--port", arklet.port)
    assert arklet.calls == [("switchBiz", {"bizName": "hello", "bizVersion": "1.1"})]
    assert outcome.out == "hello:1.1 answers now\n"


def test_a_switch_without_a_version_names_those_there_are(arkctl: Arkctl, arklet: FakeArklet) -> None:
    versions = [*listed("hello:1.0")["data"], *listed("hello:1.1", "other:2", state="deactivated")["data"]]  # type: ignore[misc]
    arklet.says("queryAllBiz", {"code": "SUCCESS", "data": versions})
    outcome = arkctl("switch", "hello", "--port", arklet.port)
    assert outcome.status == 2
    assert "There is hello:1.0 (ACTIVATED), hello:1.1 (DEACTIVATED); try: arkctl switch hello:1.1" in outcome.err
    unknown = arkctl("switch", "nobody", "--port", arklet.port)
    assert unknown.status == 2
    assert "nobody is not installed; installed: hello:1.0, hello:1.1, other:2" in unknown.err


@pytest.mark.parametrize("command", ["switch", "undeploy", "show", "health"])
def test_who_asks_for_what_is_not_there_is_told_what_is(arkctl: Arkctl, arklet: FakeArklet, command: str) -> None:
    def answer(asked: str, *there: str) -> str:
        arklet.says("queryAllBiz", listed(*there))
        outcome = arkctl(command, asked, "--port", arklet.port)
        assert outcome.status == 1
        assert outcome.out == ""
        return outcome.err

    for name in ("switchBiz", "uninstallBiz"):
        arklet.says(name, ABSENT)
    arklet.says("health", {"code": "FAILED", "message": "can not find biz"})
    says = "error: hello:7 is not installed; "
    assert answer("hello:7") == f"{says}no module is installed\n"
    assert answer("hello:7", "a:1", "b:1") == f"{says}installed: a:1, b:1\n"
    assert answer("hello:7", "a:1", "hello:1", "hello:2") == f"{says}installed: hello:1, hello:2\n"
    assert answer("hello:7", *(f"m{number}:1" for number in range(10))).endswith("m6:1, m7:1 and 2 more\n")


def test_health_asks_for_what_was_asked_for(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("health", {"code": "SUCCESS", "data": {"healthData": {"cpu": {"count": 4}}}})
    arkctl("health", "--port", arklet.port)
    arkctl("health", "hello:1", "--port", arklet.port)
    arkctl("health", "--metrics", "cpu", "--port", arklet.port)
    assert [body for _, body in arklet.calls] == [
        {},
        {"type": "biz", "bizName": "hello", "bizVersion": "1"},
        {"type": "system", "metrics": ["cpu"]},
    ]
    assert json.loads(arkctl("health", "--port", arklet.port, "-o", "json").out)["cpu"] == {"count": 4}


BASE = {"bizName": "base", "bizVersion": "1.0.0", "bizState": "activated", "webContextPath": "/"}
MODULE = {"bizName": "hello", "bizVersion": "2", "bizState": "deactivated", "webContextPath": "/hello"}
CPU = {"count": 4, "type": "EPYC", "total used (%)": 12.345, "user used (%)": 10.2, "system used (%)": 2.145}
JVM = {
    "java version": "3.12.1",
    "java home": "/venv",
    "run time(s)": 3 * 86_400 + 2 * 3_600 + 61.5,
    "used heap memory(M)": 85.40625,
    "free memory(M)": 9000.123,
    "max memory(M)": 16384.0,
    "max non heap memory(M)": -9.5e-07,
}


def test_health_is_told_in_words_and_rounded(arkctl: Arkctl, arklet: FakeArklet) -> None:
    data = {"healthData": {"masterBizInfo": BASE, "cpu": CPU, "jvm": JVM, "bizListInfo": [MODULE, BASE]}}
    arklet.says("health", {"code": "SUCCESS", "data": data})
    assert arkctl("health", "--port", arklet.port).out.splitlines() == [
        "base     base:1.0.0  ACTIVATED",
        "runtime  3.12.1 in /venv",
        "uptime   3 d 2 h",
        "memory   85 MB in use, 9,000 of 16,384 MB free",
        "cpu      12 % used (10 % user, 2 % system) of 4 x EPYC",
        "",
        "NAME    VERSION   STATE         CONTEXT-PATH",
        "hello   2         DEACTIVATED   /hello",
    ]
    wide = arkctl("health", "--port", arklet.port, "-o", "wide").out
    assert "  used heap memory(M)     85.4\n" in wide
    said = json.loads(arkctl("health", "--port", arklet.port, "-o", "json").out)
    assert (said["cpu"], said["jvm"]) == (CPU, JVM), "programs get what the base sent"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"jvm": {"run time(s)": 0.2}}, ["uptime   0 s"]),
        ({"jvm": {"run time(s)": 3_725.0}}, ["uptime   1 h 2 min"]),
        ({"jvm": {"used heap memory(M)": 1.0}}, ["memory   1 MB in use"]),
        ({"cpu": {"count": 2}}, ["cpu      2 x processor"]),
        ({"jvm": {"java version": "17", "run time(s)": "a while"}}, ["runtime  17 in ?"]),
        (
            {"bizInfo": MODULE},
            ["NAME    VERSION   STATE         CONTEXT-PATH", "hello   2         DEACTIVATED   /hello"],
        ),
        ({}, [""]),
    ],
    ids=str,
)
def test_health_tells_what_there_is_and_nothing_else(
    arkctl: Arkctl, arklet: FakeArklet, data: dict[str, object], words: list[str]
) -> None:
    arklet.says("health", {"code": "SUCCESS", "data": {"healthData": data}})
    outcome = arkctl("health", "--port", arklet.port)
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines() == words


def test_a_health_that_is_refused_for_another_reason_says_that(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("health", {"code": "FAILED", "message": "indicator not registered"})
    outcome = arkctl("health", "--metrics", "nothing", "--port", arklet.port)
    assert outcome.status == 1
    assert "indicator not registered" in outcome.err


# --- undeploy ------------------------------------------------------------------------------------------------------


def test_undeploy_removes_and_says_what_is_left(arkctl: Arkctl, arklet: FakeArklet) -> None:
    purge = {"biz": "hello:1", "clean": False, "summary": "1 Python module still alive: hello.app held by a thread"}
    arklet.says("uninstallBiz", {"code": "SUCCESS", "data": {"code": "SUCCESS", "message": "", "purgeReport": purge}})
    outcome = arkctl("undeploy", "hello:1", "--port", arklet.port)
    assert arklet.calls == [("uninstallBiz", {"bizName": "hello", "bizVersion": "1"})]
    assert outcome.err == f"more: {suggestions.HELP}#the-module-does-not-leave\n"
    assert outcome.out == "hello:1 undeployed; left behind: 1 Python module still alive: hello.app held by a thread\n"


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({}, "no code of the module is left"),
        ({"compared": True}, "nothing left behind"),
        (
            {"compared": True, "changed": ["lib.LIMIT"]},
            "no code of the module is left; still changed for every module: lib.LIMIT",
        ),
    ],
)
def test_undeploy_claims_no_more_than_was_looked_at(
    arkctl: Arkctl, arklet: FakeArklet, known: dict[str, Any], words: str
) -> None:
    purge = {"biz": "hello:1", "clean": True, "summary": "still changed for every module: lib.LIMIT", **known}
    arklet.says("uninstallBiz", {"code": "SUCCESS", "data": {"code": "SUCCESS", "message": "", "purgeReport": purge}})
    assert arkctl("undeploy", "hello:1", "--port", arklet.port).out == f"hello:1 undeployed; {words}\n"


def test_undeploy_says_what_stays_for_the_next_user(arkctl: Arkctl, arklet: FakeArklet) -> None:
    sizes = {"pandas": 50_400_000, "numpy": 2_100_000, "six": 100_000, "pytz": 300_000}
    stays = [{"name": name, "version": "3.1", "sizeBytes": size, "modules": 1} for name, size in sizes.items()]
    purge = {"biz": "hello:1", "clean": True, "summary": "clean", "compared": True, "stays": stays}
    arklet.says("uninstallBiz", {"code": "SUCCESS", "data": {"code": "SUCCESS", "message": "", "purgeReport": purge}})
    assert arkctl("undeploy", "hello:1", "--port", arklet.port).out == (
        "hello:1 undeployed; nothing left behind; "
        "stays for the next user: pandas 3.1, 50 MB; numpy 3.1, 2.1 MB; 2 smaller, 0.4 MB\n"
    )


def test_undeploy_warns_of_what_the_base_notes(arkctl: Arkctl, arklet: FakeArklet) -> None:
    notes = ["hello:1 has written below its code"]
    purge = {"biz": "hello:1", "clean": True, "summary": "clean", "compared": True, "notes": notes}
    arklet.says("uninstallBiz", {"code": "SUCCESS", "data": {"code": "SUCCESS", "message": "", "purgeReport": purge}})
    assert arkctl("undeploy", "hello:1", "--port", arklet.port).out == (
        "hello:1 undeployed; nothing left behind\nwarning: hello:1 has written below its code\n"
    )


def test_undeploy_needs_nothing_that_the_original_arklet_does_not_send(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("uninstallBiz", UNINSTALLED)
    assert arkctl("undeploy", "hello:1", "--port", arklet.port).out == "hello:1 undeployed\n"


def test_undeploy_of_something_absent_fails_unless_that_is_fine(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("uninstallBiz", ABSENT)
    arklet.says("queryAllBiz", listed())
    assert arkctl("undeploy", "hello:1", "--port", arklet.port).status == 1
    assert arkctl("undeploy", "hello", "--port", arklet.port).status == 1
    assert arkctl("undeploy", "hello:1", "--port", arklet.port, "--ignore-not-found").status == 0
    assert arkctl("undeploy", "hello", "--port", arklet.port, "--ignore-not-found").status == 0


def test_a_name_alone_means_its_only_version_or_all_of_them_on_demand(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("uninstallBiz", UNINSTALLED)
    arklet.says("queryAllBiz", listed("hello:1"))
    assert arkctl("undeploy", "hello", "--port", arklet.port).status == 0
    arklet.says("queryAllBiz", listed("hello:1", "hello:2"))
    refused = arkctl("undeploy", "hello", "--port", arklet.port)
    assert refused.status == 2
    assert "1, 2" in refused.err
    arklet.calls.clear()
    assert arkctl("undeploy", "hello", "--all-versions", "--port", arklet.port).status == 0
    assert [body["bizVersion"] for command, body in arklet.calls if command == "uninstallBiz"] == ["1", "2"]


def test_undeploy_without_argument_and_terminal_fails_at_once(
    arkctl: Arkctl, arklet: FakeArklet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n"))
    outcome = arkctl("undeploy", "--port", arklet.port)
    assert outcome.status == 2
    assert arklet.calls == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_undeploy_without_argument_lets_one_choose_on_a_terminal(
    arkctl: Arkctl, arklet: FakeArklet, monkeypatch: pytest.MonkeyPatch
) -> None:
    arklet.says("queryAllBiz", listed("hello:1", "other:2"))
    arklet.says("uninstallBiz", UNINSTALLED)
    monkeypatch.setattr("sys.stdin", Terminal("2\n"))
    outcome = arkctl("undeploy", "--port", arklet.port)
    assert outcome.status == 0, outcome.err
    assert arklet.calls[-1] == ("uninstallBiz", {"bizName": "other", "bizVersion": "2"})
    assert outcome.out == "other:2 undeployed\n", "questions are no result"


# --- version and doctor --------------------------------------------------------------------------------------------


def test_version_works_without_a_base_and_names_the_one_that_answers(arkctl: Arkctl, arklet: FakeArklet) -> None:
    assert arkctl("version", "--port", 9).out == "arkctl Version: 0.1.0\n"
    assert arkctl("--version").out == "arkctl Version: 0.1.0\n"
    base = {"bizName": "shop", "bizVersion": "1.0.0", "bizState": "activated"}
    arklet.says("health", {"code": "SUCCESS", "data": {"healthData": {"masterBizInfo": base}}})
    said = json.loads(arkctl("version", "--port", arklet.port, "-o", "json").out)
    assert said == {"client": "0.1.0", "base": {"bizName": "shop", "bizVersion": "1.0.0"}}


def test_doctor_ends_with_four_where_no_base_answers_and_zero_where_one_does(
    arkctl: Arkctl, arklet: FakeArklet
) -> None:
    lonely = arkctl("doctor", "--port", 9)
    assert lonely.status == 4
    assert "FAIL  base: no base answers at http://127.0.0.1:9" in lonely.out
    base = {"bizName": "shop", "bizVersion": "1.0.0", "bizState": "activated"}
    arklet.says("health", {"code": "SUCCESS", "data": {"healthData": {"masterBizInfo": base}}})
    arklet.says("queryAllBiz", listed("hello:1"))
    healthy = arkctl("doctor", "--port", arklet.port)
    assert healthy.status == 0, healthy.out
    assert "shop:1.0.0" in healthy.out
    findings = json.loads(arkctl("doctor", "--port", arklet.port, "-o", "json").out)["findings"]
    assert {finding["subject"] for finding in findings} >= {"interpreter", "packages", "base", "port"}


def test_doctor_holds_what_is_installed_to_what_koupleless_requires(
    arkctl: Arkctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = next(line for line in arkctl("doctor", "--port", 9).out.splitlines() if "packages: " in line)
    for requirement in map(Requirement, importlib.metadata.requires("koupleless") or ()):
        of_an_extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        assert of_an_extra or f"{requirement.name} {importlib.metadata.version(requirement.name)}" in packages
    wanted = ["click<1", "no-such-distribution>=1", "unwanted; extra == 'demo'", "msgspec"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: wanted)
    told = arkctl("doctor", "--port", 9)
    assert told.status == 4
    click = importlib.metadata.version("click")
    assert f"FAIL  packages: click {click} is not <1, no-such-distribution is missing; install koupleless" in told.out
    assert "unwanted" not in told.out

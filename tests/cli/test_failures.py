"""Every way to fail has its exit status and its words; results never mix with them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.conftest import failed
from tests.conftest import free_port

from koupleless.biz import BizId
from koupleless.cli.showing import suggestions
from koupleless.cli.showing.suggestions import EndedBroken, UploadFailed, exit_status, suggest
from koupleless.client import NoArklet, Refused
from koupleless.errors import (
    ArchiveRefused,
    ArtifactError,
    BaseStartFailed,
    BaseUnreachable,
    BizNotFound,
    BuildFailed,
    KouplelessError,
    ManifestInvalid,
    SettingsError,
)
from koupleless.wire.envelope import Code, Envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import FakeArklet, Outcome

    Arkctl = Callable[..., Outcome]


def refused(text: str, response_code: str = "FAILED") -> Refused:
    data = {"code": response_code, "message": text}
    return Refused("installBiz", Envelope(code=Code.FAILED, data=data, message="install biz not success!"))


def test_five_ways_to_get_no_answer_have_five_different_messages(arkctl: Arkctl, arklet: FakeArklet) -> None:
    outcomes: dict[str, tuple[int, str]] = {}
    release = threading.Event()
    cases = {
        "a status of 500": (500, b"POST http request only supported by arklet"),
        "no JSON": b"<html>hello</html>",
        "a refusal": {"code": "FAILED", "message": "not today"},
        "slow": lambda _: release.wait(30) and {"code": "SUCCESS", "data": []},
    }
    for name, answer in cases.items():
        arklet.says("queryAllBiz", answer)
        outcome = arkctl("status", "--port", arklet.port, "--timeout", "0.5")
        assert outcome.out == "", name
        outcomes[name] = (outcome.status, outcome.err.splitlines()[0])
    release.set()
    outcome = arkctl("status", "--port", free_port())
    outcomes["refused"] = (outcome.status, outcome.err.splitlines()[0])
    assert len({message for _, message in outcomes.values()}) == 5, outcomes
    assert {name: status for name, (status, _) in outcomes.items()} == {
        "a status of 500": 4,
        "no JSON": 4,
        "a refusal": 1,
        "slow": 4,
        "refused": 4,
    }
    assert "HTTP 500" in outcomes["a status of 500"][1]
    assert "not today" in outcomes["a refusal"][1]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (refused("no"), 1),
        (BizNotFound(BizId.parse("a:1")), 1),
        (BaseStartFailed("no application"), 1),
        (SettingsError("port"), 2),
        (ManifestInvalid("pyproject.toml", ["no entry"]), 2),
        (ArchiveRefused("a.zip", "torn"), 2),
        (BuildFailed("hello", "pip failed"), 3),
        (BaseUnreachable("http://127.0.0.1:1", "Connection refused"), 4),
        (NoArklet("http://127.0.0.1:1", 200, "no JSON"), 4),
        (UploadFailed("not fetched"), 5),
        (EndedBroken("a:1", ""), 6),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, KouplelessError) else "",
)
def test_every_kind_of_failure_has_the_exit_status_of_its_family(error: KouplelessError, status: int) -> None:
    assert exit_status(error) == status


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (BaseUnreachable("http://127.0.0.1:1", "Connection refused"), "arkctl serve"),
        (BaseUnreachable("http://127.0.0.1:1", "no answer in time"), "--timeout"),
        (
            BaseUnreachable("https://127.0.0.1:1", "certificate verify failed: self-signed certificate"),
            "ARKCTL_CA_CERTS",
        ),
        (BaseUnreachable("http://127.0.0.1:1", "the connection was closed without an answer"), "ARKCTL_TLS=true"),
        (UploadFailed("not fetched"), "firewall"),
        (refused("the request lacks the right token (Authorization: Bearer ...)"), "ARKCTL_TOKEN"),
        (NoArklet("http://127.0.0.1:1", 200, "no JSON"), "check --port"),
        (BuildFailed("a", "pip failed", output="No module named pip"), "the build ran with"),
        (ManifestInvalid("pyproject.toml", ["entry is missing; set entry"]), "tool.koupleless.module"),
        (refused("biz a:1 wants the path /a, which b:1 serves; change web-context-path"), "web-context-path"),
        (refused("Biz: a:1 has been installed or registered.", "REPEAT_BIZ"), "--strategy replace"),
        (refused("Uninstall biz: a:1 not found.", "NOT_FOUND_BIZ"), "arkctl status"),
        (refused("a:1 installBiz conflict, exist unfinished command(x)"), "under way"),
        (refused("ImportError: cannot load module more than once per process"), "compiled extension"),
        (refused("ModuleNotFoundError: No module named 'pandas.core'"), "pandas.core is neither"),
        (EndedBroken("a:1", "ModuleNotFoundError: No module named 'pandas'"), "pandas is neither"),
        (refused("TypeError: isinstance() arg 2 must be a type"), "types agree"),
        (refused("MemoryError"), "short of memory"),
        (refused("biz a:1 did not start within 60 s"), "start-timeout"),
        (BuildFailed("a", "pip failed", output="who knows"), "arkctl doctor"),
        (ArtifactError("/here is no project: there is no pyproject.toml"), "arkctl new module"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_a_failure_that_is_known_comes_with_advice(error: KouplelessError, advice: str) -> None:
    found = suggest(error)
    assert found is not None
    assert advice in found


def test_a_failure_that_is_not_known_comes_without_advice() -> None:
    assert suggest(refused("the moon is full")) is None
    assert suggest(BuildFailed("hello.py", "the file is no Python: '(' was never closed")) is None
    assert suggestions.report(refused("the moon is full"))[-1] == "       install biz not success!"


OWN_TRACE = 'Traceback (most recent call last):\n  File "hello/app.py", line 3, in <module>\nKeyError: 1'
JAVA_TRACE = "java.lang.IllegalStateException: 1\n\tat com.example.Hello.main(Hello.java:3)"


def internal_error(trace: str) -> dict[str, str]:
    return {"code": "CMD_PROCESS_INTERNAL_ERROR", "message": "Internal Error: it broke", "errorStackTrace": trace}


# --- a module that is not installed --------------------------------------------------------------------------------


def stored(place: str) -> str:
    return f"/tmp/koupleless-x/cpython-312/{'0af1' * 16}/hello-1.0.0/{place}"


OTHER = {"bizName": "hello", "bizVersion": "0.9", "bizState": "ACTIVATED"}
ERROR = "Internal Error: biz hello:1.0.0 did not start: ValueError: no database"
TRACE = (
    f'Traceback (most recent call last):\n  File "{stored("hello.py")}", line 3, in <module>\nValueError: no database\n'
)


def test_a_module_whose_own_code_fails_is_told_about_to_people(
    arkctl: Arkctl, arklet: FakeArklet, hello_file: Path
) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", {"code": "CMD_PROCESS_INTERNAL_ERROR", "message": ERROR, "errorStackTrace": TRACE})
    arklet.says("queryAllBiz", {"code": "SUCCESS", "data": [OTHER, {**OTHER, "bizName": "bystander"}]})
    outcome = arkctl("deploy", hello_file, "--port", arklet.port)
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err.splitlines() == [
        "error: hello:1.0.0 was not installed: ValueError: no database",
        "Traceback (most recent call last):",
        f'  File "{hello_file}", line 3, in <module>',
        "ValueError: no database",
        "hello:0.9 keeps serving",
    ]
    assert "installBiz: CMD_PROCESS_INTERNAL_ERROR" in arkctl("deploy", hello_file, "--port", arklet.port, "-v").err


@pytest.mark.parametrize("layout", ["src", "."])
def test_the_files_of_a_project_are_named_where_they_are_those_of_libraries_where_they_lie(
    arkctl: Arkctl, arklet: FakeArklet, quiet_surroundings: Path, layout: str
) -> None:
    source = quiet_surroundings / "project" / layout / "hello" / "app.py"
    source.parent.mkdir(parents=True)
    source.write_text("app = lambda environ, start: []\n")
    table = '[project]\nname = "hello"\nversion = "1.0.0"\n[tool.koupleless.module]\nentry = "hello.app:app"\n'
    (quiet_surroundings / "project" / "pyproject.toml").write_text(table)
    frames = "".join(f'  File "{stored(place)}", line 1, in x\n' for place in ("hello/app.py", "lib/other.py"))
    trace = f"Traceback (most recent call last):\n{frames}ImportError: no ({stored('hello/app.py')}): gone\n"
    arklet.server_header = "koupleless"
    reply = {"code": "CMD_PROCESS_INTERNAL_ERROR", "message": ERROR, "errorStackTrace": trace}
    arklet.says("installBiz", reply)
    arklet.says("queryAllBiz", {"code": "SUCCESS"})
    err = arkctl("deploy", "project", "--port", arklet.port).err
    assert f'File "{source.resolve()}", line 1' in err
    assert f'File "{stored("lib/other.py")}", line 1' in err
    assert f"ImportError: no ({source.resolve()}): gone\n" in err
    broken = {**OTHER, "bizVersion": "1.0.0", "bizState": "BROKEN"}
    record = {"changeTime": 1, "state": "BROKEN", "message": trace}
    info = {**broken, "bizStateRecords": [record]}
    arklet.says("installBiz", {"code": "SUCCESS", "data": {"code": "SUCCESS", "bizInfos": [info]}})
    kept = arkctl("deploy", "project", "--port", arklet.port)
    assert kept.status == 6
    assert f'File "{source.resolve()}", line 1' in kept.err


MISSING = "No module named 'x': neither biz hello:1.0.0 nor the base has this Python module; add its distribution"
MESSAGES = {
    f'did not start: File "{stored("x.py")}", line 1\n    def f(:\n          ^\nSyntaxError: invalid syntax': [
        "SyntaxError: invalid syntax",
        f'File "{stored("x.py")}", line 1',
        "    def f(:",
        "          ^",
    ],
    "did not start within 60 s": ["it did not start within 60 s"],
    f"did not start: ModuleNotFoundError: {MISSING}": [f"ModuleNotFoundError: {MISSING}"],
    f"did not start: koupleless.errors.ModuleRefused: {MISSING}": [MISSING],
    "wants the path /, which b:1 serves": ["it wants the path /, which b:1 serves"],
}


@pytest.mark.parametrize("message", MESSAGES, ids=["syntax", "timeout", "import", "refused", "path"])
def test_what_our_base_says_becomes_one_sentence(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path, message: str
) -> None:
    arklet.server_header = "koupleless"
    reply = {"code": "CMD_PROCESS_INTERNAL_ERROR", "message": f"Internal Error: biz hello:1.0.0 {message}"}
    arklet.says("installBiz", reply)
    arklet.says("queryAllBiz", {"code": "FAILED"})
    said = arkctl("deploy", hello_zip, "--port", arklet.port).err.splitlines()
    first, *rest = MESSAGES[message]
    assert said[: 1 + len(rest)] == [f"error: hello:1.0.0 was not installed: {first}", *rest]
    assert not any("No module named" in line for line in said[1:]), "what was said well is not said twice"


def test_a_base_that_gives_no_reason_is_quoted_with_its_code(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path
) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", {"code": "CMD_PROCESS_INTERNAL_ERROR"})
    err = arkctl("deploy", hello_zip, "--port", arklet.port).err
    assert err.startswith("error: hello:1.0.0 was not installed: CMD_PROCESS_INTERNAL_ERROR\n")


def test_the_earlier_life_of_the_same_version_is_told_from_the_one_that_failed(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path
) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", {"code": "CMD_PROCESS_INTERNAL_ERROR", "message": ERROR})
    arklet.says("queryAllBiz", {"code": "SUCCESS", "data": [{**OTHER, "bizVersion": "1.0.0"}]})
    assert arkctl("deploy", hello_zip, "--port", arklet.port).err.endswith("\nthe earlier hello:1.0.0 keeps serving\n")


def test_of_a_url_the_base_says_who_it_is(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", {"code": "CMD_PROCESS_INTERNAL_ERROR", "message": ERROR})
    arklet.says("queryAllBiz", {"code": "SUCCESS", "data": [OTHER]})
    err = arkctl("deploy", "http://repository.example/hello.zip", "--port", arklet.port).err
    assert err == "error: hello:1.0.0 was not installed: ValueError: no database\nhello:0.9 keeps serving\n"
    arklet.says("installBiz", failed("FAILED", "refresh biz info from jar failed: cannot fetch it"))
    err = arkctl("deploy", "http://repository.example/hello.zip", "--port", arklet.port).err
    assert err == "error: http://repository.example/hello.zip was not installed: cannot fetch it\n"


def test_the_codes_of_another_base_stay_beside_its_words(arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path) -> None:
    arklet.says("uninstallBiz", failed("NOT_FOUND_BIZ", "not found"))
    arklet.says("installBiz", failed("FAILED", "nested exception"))
    arklet.says("queryAllBiz", {"code": "SUCCESS"})
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port)
    assert outcome.status == 1
    assert "error: hello:1.0.0 was not installed: nested exception (installBiz: FAILED, FAILED)\n" in outcome.err


def test_the_code_of_the_error_stays_beside_the_words_of_a_base(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("switchBiz", {"code": "FAILED", "message": "busy", "errorType": "Container.BizBusy"})
    err = arkctl("switch", "hello:1", "--port", arklet.port).err
    assert err == "error: the base refused switchBiz (FAILED, Container.BizBusy): busy\n"


# --- other refusals ------------------------------------------------------------------------------------------------


def test_the_traceback_of_the_users_own_code_is_shown(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("switchBiz", internal_error(OWN_TRACE))
    outcome = arkctl("switch", "hello:1", "--port", arklet.port)
    assert outcome.status == 1
    assert "Internal Error: it broke" in outcome.err
    assert 'File "hello/app.py", line 3' in outcome.err


def test_the_trace_of_another_machinery_is_shown_on_demand(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.says("switchBiz", internal_error(JAVA_TRACE))
    assert "Hello.java" not in arkctl("switch", "hello:1", "--port", arklet.port).err
    assert "Hello.java" in arkctl("switch", "hello:1", "--port", arklet.port, "--verbose").err


def test_verbose_shows_each_call_as_a_command_for_the_shell_without_the_token(
    arkctl: Arkctl, arklet: FakeArklet
) -> None:
    arklet.says("queryAllBiz", {"code": "SUCCESS", "data": []})
    outcome = arkctl("status", "--port", arklet.port, "-v", "--token", "s3cret")
    assert arklet.tokens == ["Bearer s3cret"]
    assert outcome.err.startswith("curl -X POST")
    assert "s3cret" not in outcome.err
    assert f"http://127.0.0.1:{arklet.port}/queryAllBiz" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["deploy", "--strategy", "magic"],
        ["switch"],
        ["switch", "no-version"],
        ["serve", "--workers", "2"],
    ],
)
def test_wrong_usage_is_status_two_and_says_what_is_wrong(arkctl: Arkctl, arguments: list[str]) -> None:
    outcome = arkctl(*arguments)
    assert outcome.status == 2
    assert "Error: " in outcome.err


def test_a_setting_that_cannot_be_used_is_named_with_its_origin(
    arkctl: Arkctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARKCTL_PORT", "many")
    outcome = arkctl("status")
    assert outcome.status == 2
    assert "ARKCTL_PORT in the environment" in outcome.err


def test_an_interrupt_is_status_130(arkctl: Arkctl, arklet: FakeArklet, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("koupleless.client.ArkletClient.query", interrupt)
    outcome = arkctl("status", "--port", arklet.port)
    assert outcome.status == 130
    assert outcome.out == ""


def test_five_exit_statuses_can_be_told_apart_in_one_script(
    arkctl: Arkctl, arklet: FakeArklet, quiet_surroundings: object
) -> None:
    arklet.says("queryAllBiz", {"code": "SUCCESS", "data": []})
    arklet.says("switchBiz", {"code": "FAILED", "message": "no"})
    (quiet_surroundings / "broken.py").write_text("def app(:\n")  # type: ignore[operator]
    statuses = [
        arkctl("status", "--port", arklet.port).status,
        arkctl("switch", "a:1", "--port", arklet.port).status,
        arkctl("deploy", "nowhere", "--port", arklet.port).status,
        arkctl("deploy", "broken.py", "--port", arklet.port).status,
        arkctl("status", "--port", "9").status,
    ]
    assert statuses == [0, 1, 2, 3, 4]
    assert json.loads(arkctl("status", "--port", arklet.port, "-o", "json").out) == {"code": "SUCCESS", "data": []}


def test_every_advice_leads_to_a_section_of_our_own_page():
    page = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    titles = {line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")}

    assert {rule.section for rule in suggestions.RULES} <= {title.lower().replace(" ", "-") for title in titles}
    assert suggestions.HELP.endswith("/docs/troubleshooting.md")
    told = suggestions.report(suggestions.NotThere("NOT_FOUND_BIZ", ()))[-1]
    assert told == f"            more: {suggestions.HELP}#the-module-is-refused"

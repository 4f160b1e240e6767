"""What ``arkctl deploy`` sends, to an arklet of ours and to any other, and what it makes of the answers."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.artifact.indexes import FakeIndex, write
from tests.cli.conftest import succeeded
from tests.conftest import free_port

from koupleless.artifact.building.options import Options
from koupleless.artifact.building.requirements import BaseFacts
from koupleless.cli.deploying.deploy import Deployment, DeployOptions
from koupleless.cli.deploying.target import DeployTarget
from koupleless.cli.showing import suggestions
from koupleless.client import ArkletClient
from koupleless.settings.client import ClientSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import FakeArklet, Outcome

    Arkctl = Callable[..., Outcome]

NOT_FOUND = {"code": "FAILED", "message": "uninstall biz not success!", "data": {"code": "NOT_FOUND_BIZ"}}
REMOVED = {"code": "SUCCESS", "data": {"code": "SUCCESS", "message": "Uninstall biz: hello:1.0.0 success."}}


def replied(state: str = "ACTIVATED", version: str = "1.0.0", message: str = "") -> dict[str, object]:
    record = {"changeTime": 1, "state": state, "reason": "Started", "message": message}
    info = {"bizName": "hello", "bizVersion": version, "bizState": state, "webContextPath": "/hello"}
    return {"code": "SUCCESS", "data": {"code": "SUCCESS", "bizInfos": [{**info, "bizStateRecords": [record]}]}}


def the_three_keys(path: Path) -> dict[str, str]:
    return {"bizName": "hello", "bizVersion": "1.0.0", "bizUrl": path.as_uri()}


@pytest.mark.parametrize("first", [REMOVED, NOT_FOUND], ids=["installed before", "new"])
def test_another_arklet_gets_exactly_what_the_original_client_sends(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path, first: dict[str, object]
) -> None:
    arklet.says("uninstallBiz", first)
    arklet.says("installBiz", replied())
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port)
    assert outcome.status == 0, outcome.err
    assert arklet.calls == [("uninstallBiz", the_three_keys(hello_zip)), ("installBiz", the_three_keys(hello_zip))]
    assert outcome.out.startswith("hello:1.0.0 ACTIVATED at /hello (")


def test_any_other_refusal_of_the_uninstall_stops_before_the_install(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path
) -> None:
    busy = {"code": "FAILED", "message": "FAILED:hello:1.0.0 conflict, exist unfinished command for this biz"}
    arklet.says("uninstallBiz", busy)
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port)
    assert outcome.status == 1
    assert arklet.commands == ["uninstallBiz"]
    assert outcome.out == ""
    assert "conflict" in outcome.err


def test_an_arklet_of_ours_swaps_in_one_call(arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", replied())
    assert arkctl("deploy", hello_zip, "--port", arklet.port).status == 0
    assert arklet.calls == [("installBiz", {**the_three_keys(hello_zip), "installStrategy": "replace"})]


def test_where_another_version_is_active_it_is_switched_and_the_others_leave_after_that(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path
) -> None:
    arklet.says("uninstallBiz", NOT_FOUND, REMOVED)
    arklet.says("installBiz", replied("DEACTIVATED"))
    arklet.says("switchBiz", REMOVED)
    others = [{"bizName": "hello", "bizVersion": version, "bizState": "DEACTIVATED"} for version in ("0.9", "1.0.0")]
    stranger = {"bizName": "other", "bizVersion": "0.9", "bizState": "ACTIVATED"}
    arklet.says("queryAllBiz", {"code": "SUCCESS", "data": [*others, stranger]})
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port, "-o", "json")
    assert outcome.status == 0, outcome.err
    assert arklet.commands == ["uninstallBiz", "installBiz", "switchBiz", "queryAllBiz", "uninstallBiz"]
    assert arklet.calls[-1][1] == {"bizName": "hello", "bizVersion": "0.9"}
    said = json.loads(outcome.out)
    assert said["bizState"] == "ACTIVATED"
    assert said["removed"] == ["hello:0.9"]


@pytest.mark.parametrize(
    ("strategy", "more"), [("install-only", {}), ("replace-all", {"installStrategy": "uninstallThenInstall"})]
)
def test_the_other_strategies_are_one_install(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path, strategy: str, more: dict[str, str]
) -> None:
    arklet.says("installBiz", replied("DEACTIVATED"))
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port, "--strategy", strategy)
    assert outcome.status == 0, outcome.err
    assert arklet.calls == [("installBiz", {**the_three_keys(hello_zip), **more})]
    assert "DEACTIVATED" in outcome.out


def test_arguments_and_environment_travel_with_the_install(arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path) -> None:
    arklet.says("installBiz", replied())
    flags = ["--strategy", "install-only", "--arg", "a", "--arg", "b c", "--env", "K=V=W", "--env", "E="]
    assert arkctl("deploy", hello_zip, "--port", arklet.port, *flags).status == 0
    body = arklet.calls[0][1]
    assert body["args"] == ["a", "b c"]
    assert body["envs"] == {"K": "V=W", "E": ""}


def test_an_environment_entry_without_a_value_is_wrong_usage(arkctl: Arkctl, arklet: FakeArklet) -> None:
    assert arkctl("deploy", "x.zip", "--port", arklet.port, "--env", "KEY").status == 2
    assert arklet.calls == []


def test_a_url_is_passed_on_as_it_is(arkctl: Arkctl, arklet: FakeArklet) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", replied())
    url = "https://repository.example/hello-1.0.0-ark-biz.zip#sha256=" + "0" * 64
    assert arkctl("deploy", url, "--port", arklet.port).status == 0
    assert arklet.calls == [("installBiz", {"bizUrl": url, "installStrategy": "replace"})]


def test_a_renamed_artefact_deploys_from_its_manifest(arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path) -> None:
    jar = Path(shutil.copy(hello_zip, hello_zip.parent / "whatever-ark-biz.jar"))
    arklet.says("uninstallBiz", NOT_FOUND)
    arklet.says("installBiz", replied())
    assert arkctl("deploy", jar, "--port", arklet.port).status == 0
    assert arklet.calls[1] == ("installBiz", the_three_keys(jar))


def test_one_file_is_built_and_deployed_under_the_name_and_version_given(
    arkctl: Arkctl, arklet: FakeArklet, hello_file: Path
) -> None:
    arklet.says("uninstallBiz", NOT_FOUND)
    arklet.says("installBiz", replied())
    assert arkctl("deploy", hello_file, "--port", arklet.port, "--name", "n", "--version-override", "2").status == 0
    body = arklet.calls[1][1]
    assert (body["bizName"], body["bizVersion"]) == ("n", "2")
    assert body["bizUrl"].endswith("/n-2-ark-biz.zip")
    assert not Path(urllib.parse.urlsplit(body["bizUrl"]).path).exists(), "the built artefact is not left lying about"


def test_a_dry_run_builds_and_sends_nothing(arkctl: Arkctl, arklet: FakeArklet, hello_file: Path) -> None:
    outcome = arkctl("deploy", hello_file, "--port", arklet.port, "--dry-run")
    assert outcome.status == 0
    assert arklet.calls == []
    assert [line.rpartition("/")[2] for line in outcome.out.splitlines()] == ["uninstallBiz", "installBiz"]


def test_no_build_takes_the_one_artefact_that_is_there(arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path) -> None:
    arklet.says("uninstallBiz", NOT_FOUND)
    arklet.says("installBiz", replied())
    dist = hello_zip.parent.parent / "dist"
    assert arkctl("deploy", ".", "--no-build", "--port", arklet.port).status == 2
    dist.mkdir()
    shutil.copy(hello_zip, dist)
    assert arkctl("deploy", ".", "--no-build", "--port", arklet.port).status == 0
    shutil.copy(hello_zip, dist / "other-1-ark-biz.zip")
    outcome = arkctl("deploy", ".", "--no-build", "--port", arklet.port)
    assert outcome.status == 2
    assert "hello-1.0.0-ark-biz.zip, other-1-ark-biz.zip" in outcome.err


def make_member(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / f"{name}.py").write_text("app = lambda environ, start: []\n")
    table = f'[project]\nname = "{name}"\nversion = "1"\n[tool.koupleless.module]\nentry = "{name}:app"\n'
    (root / name / "pyproject.toml").write_text(table)


def test_a_workspace_needs_to_be_told_which_member_is_meant(
    arkctl: Arkctl, arklet: FakeArklet, quiet_surroundings: Path
) -> None:
    arklet.says("installBiz", replied())
    flags = ["--port", arklet.port, "--strategy", "install-only"]
    make_member(quiet_surroundings, "one")
    assert arkctl("deploy", *flags).status == 0, "the only member is meant"
    make_member(quiet_surroundings, "two")
    refused = arkctl("deploy", *flags)
    assert refused.status == 2
    assert "one, two" in refused.err
    assert arkctl("deploy", "--sub", "two", *flags).status == 0
    assert [body["bizName"] for _, body in arklet.calls] == ["one", "two"]


@pytest.mark.parametrize(
    ("target", "words"),
    [("nowhere", "there is no nowhere"), ("notes.txt", "no artefact"), (".", "no project"), ("torn.zip", "torn.zip")],
)
def test_what_cannot_be_deployed_is_said_before_anything_is_sent(
    arkctl: Arkctl, arklet: FakeArklet, quiet_surroundings: Path, target: str, words: str
) -> None:
    (quiet_surroundings / "notes.txt").write_text("notes")
    (quiet_surroundings / "torn.zip").write_bytes(b"PK\x03\x04 torn")
    outcome = arkctl("deploy", target, "--port", arklet.port)
    assert outcome.status == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert arklet.calls == []


def test_a_module_that_is_accepted_and_broken_is_a_failure_of_its_own(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path
) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", replied("BROKEN", message="NameError: name 'x' is not defined"))
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port)
    assert outcome.status == 6
    assert "NameError: name 'x' is not defined" in outcome.err


def test_wait_asks_until_the_module_is_started(arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", replied("RESOLVED"))
    lists = [{"code": "SUCCESS", "data": replied(state)["data"]["bizInfos"]} for state in ("RESOLVED", "ACTIVATED")]  # type: ignore[index]
    arklet.says("queryAllBiz", *lists)
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port, "--wait")
    assert outcome.status == 0
    assert "ACTIVATED" in outcome.out
    assert arklet.commands == ["installBiz", "queryAllBiz", "queryAllBiz"]


def test_wait_gives_up_at_the_timeout(arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", replied("RESOLVED"))
    arklet.says("queryAllBiz", {"code": "SUCCESS", "data": []})
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port, "--wait", "--timeout", "0.5")
    assert outcome.status == 4
    assert "was not started within 0.5 s" in outcome.err


def test_the_figure_of_the_install_is_the_bases_own_and_the_rest_is_named(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path
) -> None:
    arklet.server_header = "koupleless"
    reply: dict[str, Any] = replied()
    reply["data"]["message"] = "Install Biz: hello:1.0.0 success, cost: 7 ms, started at: 12:00:00,123"
    purge = {"biz": "hello:0.9", "clean": False, "summary": "1 Python module still alive: hello.app held by a thread"}
    reply["data"]["replaced"] = [purge]
    arklet.says("installBiz", reply)
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port)
    out = outcome.out
    assert outcome.err.endswith(f"more: {suggestions.HELP}#the-module-does-not-leave\n")
    left = "left behind: 1 Python module still alive: hello.app held by a thread"
    assert re.fullmatch(
        rf"hello:1.0.0 ACTIVATED at /hello \(install 7 ms, in all \d+ ms\); replaced hello:0.9; {left}\n", out
    )
    told = json.loads(arkctl("deploy", hello_zip, "--port", arklet.port, "-o", "json").out)
    assert (told["startMs"], told["leftBehind"]) == (7, [left])
    assert [report["biz"] for report in told["replaced"]] == ["hello:0.9"]
    purge["clean"] = True
    assert arkctl("deploy", hello_zip, "--port", arklet.port).out.endswith("; replaced hello:0.9\n")


def test_what_it_changed_for_everybody_is_told(arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path) -> None:
    arklet.server_header = "koupleless"
    reply: dict[str, Any] = replied()
    reply["data"]["warnings"] = ["biz hello:1.0.0 changed `lib.LIMIT`", "another one"]
    arklet.says("installBiz", reply)
    lines = arkctl("deploy", hello_zip, "--port", arklet.port).out.splitlines()
    assert lines[1:] == ["warning: biz hello:1.0.0 changed `lib.LIMIT`", "warning: another one"]
    told = json.loads(arkctl("deploy", hello_zip, "--port", arklet.port, "--output", "json").out)
    assert told["warnings"] == reply["data"]["warnings"]


# --- a base elsewhere ----------------------------------------------------------------------------------------------


@pytest.fixture
def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network interface but loopback")
        address: str = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no network interface but loopback")
    return address


def test_a_base_elsewhere_fetches_the_artefact_from_us_while_the_call_lasts(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path, own_address: str
) -> None:
    fetched: list[bytes] = []

    def install(body: dict[str, str]) -> dict[str, object]:
        with urllib.request.urlopen(body["bizUrl"]) as reply:
            fetched.append(reply.read())
        return replied()

    arklet.server_header = "koupleless"
    arklet.says("installBiz", install)
    outcome = arkctl("deploy", hello_zip, "--host", own_address, "--port", arklet.port)
    assert outcome.status == 0, outcome.err
    url = urllib.parse.urlsplit(arklet.calls[0][1]["bizUrl"])
    assert (url.scheme, url.hostname) == ("http", own_address)
    assert url.path.endswith("/hello-1.0.0-ark-biz.zip")
    assert fetched == [hello_zip.read_bytes()]
    assert url.fragment == "sha256=" + hashlib.sha256(fetched[0]).hexdigest()
    assert url.port is not None
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((own_address, url.port), timeout=5)


def test_only_the_one_path_is_served(arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path, own_address: str) -> None:
    statuses: list[int] = []

    def install(body: dict[str, str]) -> dict[str, object]:
        url = urllib.parse.urlsplit(body["bizUrl"])
        assert url.port is not None
        for path in ("/", "/hello-1.0.0-ark-biz.zip", url.path + "/..", url.path):
            connection = http.client.HTTPConnection(own_address, url.port, timeout=5)
            connection.request("GET", path)
            statuses.append(connection.getresponse().status)
            connection.close()
        return replied()

    arklet.server_header = "koupleless"
    arklet.says("installBiz", install)
    assert arkctl("deploy", hello_zip, "--host", own_address, "--port", arklet.port).status == 0
    assert statuses == [404, 404, 404, 200]


def test_a_base_elsewhere_that_never_fetches_is_a_failed_upload(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path, own_address: str
) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", {"code": "CMD_PROCESS_INTERNAL_ERROR", "message": "Internal Error: timed out"})
    outcome = arkctl("deploy", hello_zip, "--host", own_address, "--port", arklet.port)
    assert outcome.status == 5
    assert "did not fetch the artefact" in outcome.err
    assert "firewall" in outcome.err


# --- watching ------------------------------------------------------------------------------------------------------


def test_watch_deploys_again_after_a_save_survives_a_mistake_and_ends_on_ctrl_c(
    arklet: FakeArklet, hello_file: Path
) -> None:
    arklet.server_header = "koupleless"
    arklet.says("installBiz", replied())
    command = [sys.executable, "-P", "-m", "koupleless", "deploy", "hello.py", "--watch", "--port", str(arklet.port)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=hello_file.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert "in all" in process.stdout.readline()
            good = hello_file.read_text()
            # The first save may fall into the moment before the watch begins: save until it is seen.
            for attempt in range(100):
                hello_file.write_text(good + f"# {attempt}\n")
                if arklet.wait_for(lambda: len(arklet.calls) >= 2, timeout_s=0.5):
                    break
            assert " ms)" in process.stdout.readline()
            hello_file.write_text("def app(:\n")
            while "the file is no Python" not in process.stderr.readline():
                assert process.poll() is None
            while "the next save tries again" not in process.stderr.readline():
                assert process.poll() is None
            seen = len(arklet.calls)
            hello_file.write_text(good)
            assert arklet.wait_for(lambda: len(arklet.calls) > seen)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()


def test_watch_without_a_base_says_that_the_next_save_tries_again(arklet: FakeArklet, hello_file: Path) -> None:
    nobody = str(free_port())
    command = [sys.executable, "-P", "-m", "koupleless", "deploy", "hello.py", "--watch", "--port", nobody]
    with subprocess.Popen(command, cwd=hello_file.parent, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = [process.stderr.readline() for _ in range(5)]
            assert process.poll() is None
        finally:
            process.kill()
    assert said[0].endswith("every save deploys again; interrupt to stop\n")
    assert f"no base answers at http://127.0.0.1:{nobody}" in said[1]
    assert "arkctl serve" in said[2]
    assert said[4] == "not deployed; the next save tries again\n"


@pytest.fixture
def env_project(quiet_surroundings: Path) -> Path:
    """A project with an env-file."""
    project = quiet_surroundings / "shop"
    project.mkdir()
    (project / "shop.py").write_text("app = lambda *_: None\n")
    (project / "pyproject.toml").write_text(
        "[project]\nname = 'shop'\nversion = '1'\n[tool.koupleless.module]\nentry = 'shop:app'\nenv-file = '.env'\n"
    )
    (project / ".env").write_text("TOKEN=s3cret\n")
    return project


def test_a_file_of_variables_is_sent_to_a_base_on_this_machine_and_is_not_packed(
    arkctl: Arkctl, arklet: FakeArklet, env_project: Path
) -> None:
    arklet.says("installBiz", replied())
    arguments = ["--port", arklet.port, "--strategy", "install-only"]
    assert arkctl("deploy", env_project, *arguments).status == 0
    (env_project / ".env").unlink()
    assert arkctl("deploy", env_project, *arguments).status == 0
    (env_project / ".env").write_text("TOKEN=s3cret\n")
    assert arkctl("deploy", env_project, *arguments, "--pack-env-file").status == 0
    assert [body.get("projectEnvs") for _, body in arklet.calls] == [{"TOKEN": "s3cret"}, {}, None]


def test_a_build_tells_which_variables_it_takes_and_which_files_it_leaves(arkctl: Arkctl, env_project: Path) -> None:
    (env_project / "config").mkdir()
    (env_project / "config" / ".env.local").write_text("A=s3cret\n")
    left = arkctl("build", env_project)
    assert "not in the artefact, because values may be secrets: .env, config/.env.local; .env is read when" in left.err
    packed = arkctl("build", env_project, "--pack-env-file")
    assert "the artefact has .env, with values for TOKEN: who has the artefact reads them" in packed.err
    assert "secrets: config/.env.local; " in packed.err
    assert "s3cret" not in left.err + left.out + packed.err + packed.out


def test_variables_of_flags_and_files_are_sent_and_never_printed(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path
) -> None:
    arklet.says("installBiz", replied())
    (hello_zip.parent / "a.env").write_text("A=s3cret\nB=s3cret\n")
    (hello_zip.parent / "b.env").write_text("B=later\nC=s3cret\n")
    flags = ["--env-file", hello_zip.parent / "a.env", "--env-file", hello_zip.parent / "b.env", "--env", "C=s3cret3"]
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port, "--strategy", "install-only", "-v", *flags)
    rehearsed = arkctl("deploy", hello_zip, "--port", arklet.port, "--dry-run", *flags)
    assert arklet.calls[0][1]["envs"] == {"A": "s3cret", "B": "later", "C": "s3cret3"}
    assert '"envs":{"A":"***","B":"***","C":"***"}' in rehearsed.out
    assert "s3cret" not in outcome.out + outcome.err + rehearsed.out + rehearsed.err


@pytest.mark.parametrize("flags", [["--env", "s3cret"], ["--env-file", "nowhere"]])
def test_variables_that_cannot_be_read_stop_before_the_first_call(
    arkctl: Arkctl, arklet: FakeArklet, hello_zip: Path, flags: list[str]
) -> None:
    outcome = arkctl("deploy", hello_zip, "--port", arklet.port, *flags)
    assert outcome.status != 0
    assert "s3cret" not in outcome.err
    assert arklet.calls == []


def test_libraries_that_the_base_has_are_left_at_home(
    arklet: FakeArklet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index, project = FakeIndex(tmp_path), tmp_path / "project"
    project.mkdir()
    write(project, "dep")
    seen: list[list[str]] = []

    def install(body: Any) -> object:
        with zipfile.ZipFile(urllib.parse.urlsplit(body["bizUrl"]).path) as archive:
            seen.append(archive.namelist())
        return replied()

    arklet.server_header = "koupleless"
    arklet.says("installBiz", install)
    arklet.says(
        "queryLibraries",
        {"code": "CMD_NOT_FOUND"},
        succeeded({"present": []}),
        lambda body: succeeded({"present": body["digests"]}),
    )
    options = DeployOptions(build=Options(python=str(index.python), base=BaseFacts({})))
    settings = ClientSettings(port=arklet.port)
    deployment = Deployment(
        ArkletClient("127.0.0.1", arklet.port), settings, DeployTarget.of(str(project)), options, say=print
    )
    for _ in range(3):
        deployment.run()
    assert ["lib/dep.py" in names for names in seen] == [True, True, False]
    assert arklet.commands.count("queryLibraries") == 3

"""Bases that end, also by SIGKILL, and start again with the same modules."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import httpx
from tests.conftest import free_port
from tests.state.conftest import make_module

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pytest
    from tests.e2e.conftest import BaseProcess

    Serve = Callable[..., BaseProcess]

TOLD = "import os\ndef app(_, start): start('200 OK', []); return [os.environ['KEY'].encode()]\n"
BROKEN = "raise RuntimeError('the database is away')"


def kill(base: BaseProcess) -> None:
    base.popen.kill()
    base.popen.wait()


def versions(base: BaseProcess) -> dict[str, str]:
    return {f"{biz['bizName']}:{biz['bizVersion']}": biz["bizState"] for biz in base.ask("queryAllBiz")}


def test_a_killed_base_serves_its_modules_again_before_it_says_that_it_is_ready(serve: Serve, tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    base = serve(*state, cwd=tmp_path)
    for identity in ("shop:1", "shop:2", "other:1", "gone:1"):
        artefact = make_module(tmp_path, identity)
        base.deploy(artefact, "--strategy", "install-only")
        artefact.unlink()
    base.say("switch", "shop:2")
    base.undeploy("gone")
    base.deploy(make_module(tmp_path, "told:1", TOLD), "--env", "KEY=secret")
    before = versions(base)

    kill(base)
    again = serve(*state, cwd=tmp_path)

    assert again.get("/shop/").text == "shop:2"
    assert again.get("/told/").text == "secret"
    assert b"secret" not in (tmp_path / "state" / "journal").read_bytes()
    assert versions(again) == before
    assert before == dict.fromkeys(("shop:2", "other:1", "told:1"), "ACTIVATED") | {"shop:1": "DEACTIVATED"}
    assert "4 of 4 modules serve again after" in again.log.read_text()
    assert again.end(signal.SIGTERM) == 0
    assert versions(serve(*state, cwd=tmp_path)) == before


def test_a_second_base_over_a_named_state_directory_is_refused(serve: Serve, tmp_path: Path) -> None:
    base = serve("--state-dir", str(tmp_path), cwd=tmp_path)

    command = [sys.executable, "-m", "koupleless", "serve", "--state-dir", str(tmp_path), "--port", str(free_port())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode != 0
    assert f"the state directory {tmp_path} is held by the base of process {base.popen.pid}; " in done.stderr


def test_a_second_base_over_the_default_directory_serves_and_says_that_nothing_is_kept(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    monkeypatch.setenv("KOUPLELESS_BASE_EPHEMERAL", "false")
    first, second = (serve("--name", "shop", cwd=tmp_path) for _ in range(2))

    assert f"is held by the base of process {first.popen.pid}; give this base another --name" in second.log.read_text()
    assert "nothing is kept over a restart of this base" in second.log.read_text()
    second.deploy(make_module(tmp_path, "second:1"))
    first.deploy(make_module(tmp_path, "first:1"))
    kill(first)
    kill(second)
    assert [path.name for path in (tmp_path / "states" / "koupleless").iterdir()] == ["shop"]
    assert list(versions(serve("--name", "shop", cwd=tmp_path))) == ["first:1"]


def test_a_state_directory_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "state"
    command = [sys.executable, "-m", "koupleless", "serve", "--state-dir", str(place), "--port", str(free_port())]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode != 0
    assert f"{place}" in done.stderr
    assert "Not a directory" in done.stderr


def test_a_base_serves_on_without_broken_static_modules_if_it_is_told_to(serve: Serve, tmp_path: Path) -> None:
    bad = make_module(tmp_path, "bad:1", BROKEN)
    missing = tmp_path / "missing.zip"
    modules = [f"--module={path}" for path in (bad, missing, make_module(tmp_path, "good:1"))]

    base = serve("--on-broken", "continue", *modules, cwd=tmp_path)

    assert versions(base) == {"bad:1": "BROKEN", "good:1": "ACTIVATED"}
    said = base.log.read_text()
    assert f"static module {bad} was not installed, and the base serves without it" in said
    assert f"static module {missing} cannot be built, and the base serves without it" in said

    refused = [sys.executable, "-m", "koupleless", "serve", modules[0], "--port", str(free_port())]
    done = subprocess.run(refused, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert f"static module {bad} was not installed: biz bad:1" in done.stderr


def test_a_base_killed_amid_installs_has_all_that_was_answered(serve: Serve, tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    artefacts = {name: {each: make_module(tmp_path, f"{name}:{each}") for each in range(3)} for name in "abc"}
    chance = random.Random(11)
    running: dict[str, set[int | None]] = {name: {None} for name in "abc"}
    """For each name the versions that may run: one after an answer, two while none has come."""
    for _ in range(3):
        base = serve(*state, cwd=tmp_path)
        found = dict.fromkeys("abc") | {
            biz["bizName"]: int(biz["bizVersion"]) for biz in base.ask("queryAllBiz") if biz["bizState"] == "ACTIVATED"
        }
        assert len(base.ask("queryAllBiz")) == sum(version is not None for version in found.values())
        assert all(found[name] in running[name] for name in "abc"), (found, running)
        running = {name: {version} for name, version in found.items()}
        answered = threading.Semaphore(0)
        url = f"http://127.0.0.1:{base.arklet_port}"
        threads = [
            threading.Thread(target=change, args=(url, artefacts[name], running[name], answered, chance.random()))
            for name in "abc"
        ]
        for thread in threads:
            thread.start()
        for _ in range(chance.randrange(5, 40)):
            answered.acquire(timeout=30)
        kill(base)
        for thread in threads:
            thread.join()


def change(
    url: str, artefacts: Mapping[int, Path], running: set[int | None], answered: threading.Semaphore, seed: float
) -> None:
    """Replace and remove a module until the base is gone, and note in ``running`` what may be there."""
    chance = random.Random(seed)
    name = artefacts[0].name.partition("-")[0]
    with httpx.Client(verify=False, timeout=30) as client:
        while True:
            (now,) = running
            version = chance.choice([each for each in (0, 1, 2, None) if each is not None or now is not None])
            running.add(version)
            try:
                if version is not None:
                    body = {"bizUrl": artefacts[version].as_uri(), "installStrategy": "replace"}
                    reply = client.post(f"{url}/installBiz", json=body)
                else:
                    reply = client.post(f"{url}/uninstallBiz", json={"bizName": name, "bizVersion": str(now)})
            except httpx.HTTPError:
                return
            assert reply.json()["code"] == "SUCCESS", reply.text
            running -= {now} - {version}
            answered.release()


def test_the_commands_of_a_kept_base(serve: Serve, tmp_path: Path) -> None:
    base = serve("--name", "mall", "--state-dir", str(tmp_path / "state"), cwd=tmp_path)
    for identity in ("shop:1", "shop:2"):
        base.deploy(make_module(tmp_path, identity), "--arg", "--quick", "--env", "KEY=secret")
    base.deploy(make_module(tmp_path, "other:1"))
    lock = tmp_path / "mall.lock"

    assert base.say("restart").splitlines() == ["shop:2 started again", "other:1 started again"]
    assert base.say("rollback", "shop") == "shop:1 answers again\n"
    base.say("export", lock)
    assert "no version of other answered before the present one" in base.say("rollback", "other", fails=True)
    assert '"args": [\n        "--quick"' in lock.read_text()
    assert '"KEY"' in lock.read_text()
    assert "secret" not in lock.read_text()
    assert base.say("import", lock) == "2 of 2 were there already\n"

    other = serve("--ephemeral", cwd=tmp_path)
    said = other.say("import", lock)
    assert (
        "warning: shop:1 was deployed with values for KEY, which a lock file does not have: arkctl env shop set" in said
    )
    assert "other:1 installed\nshop:1 installed\n0 of 2 were there already\n" in said
    assert other.get("/shop/").text == "shop:1"
    other.undeploy("other")
    make_module(tmp_path, "other:1", "# something else\ndef app(*_): ...\n")
    assert "other:1 installed" in other.say("import", lock)  # the source is not needed
    digest = re.search(r'"other",\s+"bizVersion": "1",\s+"digest": "(\w+)"', lock.read_text())
    assert digest is not None
    lock.write_text(lock.read_text().replace(digest[1], "0" * 64))
    assert "undeploy it first, or give the artefact another version" in other.say("import", lock, fails=True)
    other.undeploy("other")
    assert f"but {'0' * 64} was promised" in other.say("import", lock, fails=True)

    assert "has ended" in base.say("stop")
    assert base.popen.wait(30) == 0
    assert versions(serve("--state-dir", str(tmp_path / "state"), cwd=tmp_path)) == {
        "shop:1": "ACTIVATED",
        "other:1": "ACTIVATED",
    }

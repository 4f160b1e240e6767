"""``arkctl`` against real bases: new projects, static modules, and many deployments of one changing module."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.conftest import until

from koupleless.cli.commands import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import BaseProcess

SOURCE = """
ANSWER = "{answer}"


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [ANSWER.encode()]
"""


@pytest.fixture(scope="module")
def base(serve: Callable[..., BaseProcess]) -> BaseProcess:
    """An empty base, for all tests here."""
    return serve("--name", "empty")


def test_a_hundred_deployments_of_one_module_each_serve_the_new_answer(
    base: BaseProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "changing.py"
    with httpx.Client(base_url=base.url, timeout=30) as client:
        for number in range(100):
            module.write_text(SOURCE.format(answer=number))
            assert main(["deploy", str(module), "--port", str(base.arklet_port)]) == 0, capsys.readouterr().err
            assert client.get("/changing/").text == str(number)
    listed = json.loads(base.arkctl("status", "--output", "json"))["data"]
    assert [entry["bizVersion"] for entry in listed if entry["bizName"] == "changing"] == ["1.0.0"]
    base.arkctl("undeploy", "changing")


def test_deploying_the_same_version_again_loses_no_request(base: BaseProcess, tmp_path: Path) -> None:
    module = tmp_path / "steady.py"
    module.write_text(SOURCE.format(answer="first"))
    base.arkctl("deploy", str(module))
    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=base.url, timeout=30) as client:
            while not stop.is_set():
                reply = client.get("/steady/")
                answers.append((reply.status_code, reply.text))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for answer in ("second", "third", "last"):
            module.write_text(SOURCE.format(answer=answer))
            base.arkctl("deploy", str(module))
    finally:
        stop.set()
        thread.join()
    assert {status for status, _ in answers} == {200}
    assert base.get("/steady/").text == "last"
    base.arkctl("undeploy", "steady")


def test_a_version_that_does_not_start_leaves_the_running_one_alone(base: BaseProcess, tmp_path: Path) -> None:
    module = tmp_path / "precious.py"
    module.write_text(SOURCE.format(answer="kept"))
    base.arkctl("deploy", str(module))
    module.write_text("import no_such_module_anywhere\n" + SOURCE.format(answer="new"))
    base.arkctl("deploy", str(module), status=1)
    assert base.get("/precious/").text == "kept"
    base.arkctl("undeploy", "precious")


def test_a_new_module_and_a_new_base_work_together_as_their_readme_says(
    serve: Callable[..., BaseProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "base", "my-shop"]) == 0
    assert main(["new", "module", "my-module"]) == 0
    base = serve("my_shop.main:app", cwd=tmp_path / "my-shop")
    assert base.get("/").json() == {"base": "my-shop"}
    base.arkctl("deploy", str(tmp_path / "my-module"))
    assert base.get("/my-module/").json() == {"hello": "my-module", "served below": "/my-module"}
    assert "my-shop" in base.arkctl("version")
    assert "nothing left behind" in base.arkctl("undeploy", "my-module")
    assert base.get("/my-module/").status_code == 404


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_base_starts_with_its_static_modules_and_ends_without_a_word_or_a_file(
    serve: Callable[..., BaseProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    module = tmp_path / "static.py"
    module.write_text(SOURCE.format(answer="from the start"))
    base = serve("--module", str(module))
    assert base.get("/static/").text == "from the start"
    assert base.end(number) == 0
    assert "Traceback" not in base.log.read_text()
    assert list(scratch.iterdir()) == []


BUSY = """
import pathlib, time

async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/busy/long":
            pathlib.Path({began!r}).touch()
            ends = time.monotonic() + 1
            while time.monotonic() < ends:
                pass
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"done"}})
"""


def test_a_signal_ends_the_base_also_in_the_midst_of_code_of_a_module(
    serve: Callable[..., BaseProcess], tmp_path: Path
) -> None:
    began, module = tmp_path / "began", tmp_path / "busy.py"
    module.write_text(BUSY.format(began=str(began)))
    base = serve("--module", str(module))
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(base.get("/busy/long").text))
    asking.start()
    until(began.exists)
    assert base.end(signal.SIGHUP) == 0
    asking.join()
    assert "Traceback" not in base.log.read_text()
    assert answers == ["done"]


def test_a_command_runs_as_a_module_of_the_base(base: BaseProcess, tmp_path: Path) -> None:
    module = tmp_path / "worker.py"
    module.write_text(
        SOURCE.format(answer="serving") + "\nif __name__ == '__main__':\n    import os, koupleless\n"
        "    print(koupleless.current_biz(), os.environ['SECRET'], os.environ.get('MORE'), koupleless.data_dir())\n"
    )
    base.arkctl("deploy", str(module), "--env", "SECRET=s3cret")
    told = base.arkctl("run", "worker", "--", "worker.py").split()
    assert told[:3] == ["worker:1.0.0", "s3cret", "None"]
    assert told[3].endswith("/data/worker")
    assert base.arkctl("run", "worker:1.0.0", "--env", "MORE=1", "--", "-m", "worker").split()[2] == "1"
    assert base.get("/worker/").text == "serving"
    base.arkctl("run", "nobody", "--", "worker.py", status=1)
    base.arkctl("undeploy", "worker")


def test_an_interrupted_deployment_is_cancelled_in_the_base(base: BaseProcess, tmp_path: Path) -> None:
    module, begun = tmp_path / "endless.py", tmp_path / "begun"
    module.write_text(
        f"import pathlib, threading\npathlib.Path({str(begun)!r}).touch()\nthreading.Event().wait()\n"
        + SOURCE.format(answer="never")
    )
    command = [sys.executable, "-P", "-m", "koupleless", "deploy", str(module), "--port", str(base.arklet_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(begun.exists, 60, otherwise="the module is not imported")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the install of endless was cancelled: the base undoes the start" in said
    until(lambda: "endless" not in base.arkctl("status"), 30, otherwise="the module stays")
    base.arkctl("cancel", "endless", status=1)

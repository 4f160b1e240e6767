"""The logs of the modules of a base: one file for each, stderr, and nothing twice."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import free_port, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TALKING = """
import logging, sys, warnings
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

NAME = {name!r}
{more}

async def talk(request):
    logging.getLogger("app").info("a record of %s", NAME)
    print("output of", NAME)
    warnings.warn("a warning of " + NAME)
    return PlainTextResponse(NAME)

async def fail(request):
    raise LookupError("the fault of " + NAME)

app = Starlette(routes=[Route("/talk", talk), Route("/fail", fail)])
"""


def write(directory: Path, name: str, more: str = "") -> Path:
    path = directory / f"{name}.py"
    path.write_text(TALKING.format(name=name, more=more))
    return path


def said(base: Any, name: str) -> str:
    path: Path = base.cwd / "logs" / name / f"{name}.log"
    return path.read_text()


def test_everything_that_a_module_says_is_in_its_own_log(serve: Callable[..., Any], tmp_path: Path) -> None:
    base = serve(cwd=tmp_path)
    assert not (tmp_path / "logs").exists()
    own = "logging.basicConfig(level=logging.INFO, format='own %(message)s')"
    for name, more in (("shop", ""), ("till", own)):
        base.deploy(write(tmp_path, name, more))
        assert base.get(f"/{name}/talk?q=1").text == name
        assert base.get(f"/{name}/fail").status_code == 500
    base.undeploy("shop")

    assert "a record of till" in base.say("logs", "till")
    assert re.search(r"shop:\S+ koupleless: uninstalled", base.say("logs", "-n", "1"))
    for name, other in (("shop", "till"), ("till", "shop")):
        text = said(base, name)
        head = r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
        assert re.search(rf"{head}INFO {name}:\S+ koupleless: installed in \d+ ms$", text)
        assert re.search(rf"{head}INFO {name}:\S+ app: a record of {name}$", text)
        assert re.search(rf"{head}INFO {name}:\S+ stdout: output of {name}$", text)
        assert re.search(rf"{head}WARNING {name}:\S+ stderr: .*UserWarning: a warning of {name}$", text)
        assert re.search(
            rf'{head}INFO {name}:\S+ access: [0-9.:]+ "GET /{name}/talk\?q=1 HTTP/1.1" 200 [0-9.]+ ms$', text
        )
        assert re.search(rf"{head}ERROR {name}:\S+ requests: GET /{name}/fail failed\nTraceback", text)
        assert f"LookupError: the fault of {name}\n" in text
        assert re.search(rf"{head}INFO {name}:\S+ access: .* 500 [0-9.]+ ms$", text)
        assert text.count(f"a record of {name}") == 1
        assert other not in text
    assert re.search(r"INFO shop:\S+ koupleless: uninstalled in \d+ ms \(clean\)", said(base, "shop"))
    shown = base.log.read_text()
    assert shown.count("a record of") == 2
    assert re.search(r"(?m)^INFO:     shop:\S+ app: a record of shop$", shown)
    assert re.search(r"(?m)^own a record of till$", shown)
    assert shown.count("output of shop\n") == 1
    assert shown.count("LookupError: the fault of shop") == 1


def test_programs_get_json_and_whoever_wants_no_access_log_none(serve: Callable[..., Any], tmp_path: Path) -> None:
    base = serve("--log-format", "json", "--no-access-log", "--log-level", "warning", cwd=tmp_path)
    base.deploy(write(tmp_path, "shop"))
    base.get("/shop/talk")
    base.get("/shop/fail")
    until(lambda: "GET /shop/fail failed" in said(base, "shop"), 10)  # noted behind the answer of Starlette
    entries = [json.loads(line) for line in said(base, "shop").splitlines()]
    assert {entry["biz"] for entry in entries} == {"shop"}
    messages = [(entry["level"], entry["logger"], entry["message"].splitlines()[0]) for entry in entries]
    assert ("INFO", "stdout", "output of shop") in messages
    assert ("ERROR", "requests", "GET /shop/fail failed") in messages
    assert not [entry for entry in entries if entry["logger"] in {"access", "app"}]
    until(lambda: re.search("Exception in ASGI.*\\n", base.log.read_text()), 10)
    shown = [json.loads(line) for line in base.log.read_text().splitlines() if line.startswith("{")]
    assert "Exception in ASGI application" in shown[-1]["message"]
    assert "GET /shop" not in base.log.read_text().replace("GET /shop/fail failed", "")


def test_a_configuration_of_the_base_gets_the_records_without_a_handler(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "log.toml").write_text(
        """
        [formatters.named]
        format = "mine %(name)s %(message)s"
        [handlers.stderr]
        class = "logging.StreamHandler"
        formatter = "named"
        [root]
        level = "INFO"
        handlers = ["stderr"]
        """
    )
    base = serve("--log-config", "log.toml", "--log-dir", "-", cwd=tmp_path)
    base.deploy(write(tmp_path, "shop"))
    base.get("/shop/talk")
    shown = base.log.read_text()
    assert re.search(r"(?m)^mine app a record of shop$", shown)
    assert re.search(r"(?m)^mine koupleless biz shop:\S+ installed in \d+ ms$", shown)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("server", "address"), [("uvicorn", "--port={}"), ("hypercorn", "--bind=127.0.0.1:{}")])
def test_the_life_of_modules_is_told_under_another_server(
    run_alone: Callable[..., Any], tmp_path: Path, monkeypatch: Any, server: str, address: str
) -> None:
    arklet = free_port()
    monkeypatch.setenv("KOUPLELESS_ARKLET_PORT", str(arklet))
    monkeypatch.setenv("KOUPLELESS_BASE_MODULES", str(write_artefact(tmp_path)))
    (tmp_path / "embedded.py").write_text("from koupleless.base import Base\napp = Base()\n")
    command = [sys.executable, "-m", server, "embedded:app"]
    process = run_alone(lambda port: [*command, address.format(port)], tmp_path)
    until(lambda: "installed in" in process.log.read_text(), 30)
    assert re.search(r"(?m)^INFO:     koupleless: biz shop:1.0 installed in \d+ ms$", process.log.read_text())
    process.end()
    assert re.search(r"(?m)^INFO:     koupleless: biz shop:1.0 uninstalled in \d+ ms", process.log.read_text())
    assert not (tmp_path / "logs").exists()


def write_artefact(directory: Path) -> Path:
    from koupleless.artifact.build import Options, build_project

    project = directory / "project"
    project.mkdir()
    (project / "app.py").write_text(TALKING.format(name="shop", more=""))
    (project / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1.0"\n[tool.koupleless.module]\nentry = "app:app"\n'
    )
    return build_project(project, Options(out=directory / "dist")).path


LIBRARIES = """
import logging, sys
sys.modules["eventlet.patcher"] = None  # Sentry asks for it, which takes seconds
import loguru, sentry_sdk, structlog
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

NAME = {name!r}
events = []

class Kept(Transport):
    def capture_envelope(self, envelope):
        events.append(envelope.get_event())

sentry_sdk.init(dsn="http://k@127.0.0.1:9/1", transport=Kept, default_integrations=False,
                integrations=[LoggingIntegration()])
structlog.configure(
    processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
loguru.logger.configure(extra={{"who": NAME}})
printing = structlog.wrap_logger(structlog.PrintLogger(), processors=[structlog.processors.JSONRenderer()])

async def talk(request):
    structlog.get_logger("app").warning("of structlog", who=NAME)
    printing.info("printed by structlog", who=NAME)
    loguru.logger.info("of loguru in {{}}", NAME)
    logging.getLogger("app").warning("a crumb of %s", NAME)
    sentry_sdk.capture_message("told")
    return JSONResponse([[crumb["message"] for crumb in event["breadcrumbs"]["values"]] for event in events])

app = Starlette(routes=[Route("/talk", talk)])
"""


def test_structlog_loguru_and_sentry_of_two_modules_keep_apart(serve: Callable[..., Any], tmp_path: Path) -> None:
    base = serve("--no-access-log", cwd=tmp_path)
    for name in ("shop", "till"):
        (tmp_path / f"{name}.py").write_text(LIBRARIES.format(name=name))
        base.deploy(tmp_path / f"{name}.py")
    for name in ("shop", "till"):
        (crumbs,) = base.get(f"/{name}/talk").json()
        assert [crumb for crumb in crumbs if "shop" in crumb or "till" in crumb] == [
            f"event='of structlog' who='{name}'",
            f"a crumb of {name}",
        ]
    for name, other in (("shop", "till"), ("till", "shop")):
        base.undeploy(name)
        text = said(base, name)
        assert re.search(rf"WARNING {name}:\S+ app: event='of structlog' who='{name}'$", text, re.MULTILINE)
        assert re.search(rf'INFO {name}:\S+ stdout: .*"event": "printed by structlog"', text)
        assert re.search(rf"WARNING {name}:\S+ stderr: .*of loguru in {name}$", text, re.MULTILINE)
        assert re.search(rf"{name}:\S+ koupleless: uninstalled in \d+ ms \(clean\)", text)
        assert text.count("of structlog'") == text.count("of loguru") == 1
        assert other not in text

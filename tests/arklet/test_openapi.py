"""The OpenAPI document of an arklet has the commands and pages there are, and the answers are as it says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import hypothesis
import schemathesis
from schemathesis.core.result import Ok
from tests import interface
from tests.arklet.conftest import get, put

from koupleless.arklet.api import METRICS
from koupleless.arklet.operations import COMMANDS
from koupleless.arklet.pages import openapi
from koupleless.arklet.pages.pages import ROUTES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.arklet.conftest import Reply, Running

EXAMPLES: Final = 10
NAMES: Final = {"type": "biz", "name": "shop", "version": "1"}


def mistakes(method: str, path: str, reply: Reply) -> list[str]:
    return interface.mistakes(method, path, reply.status, reply.headers.get("content-type", ""), reply.body)


def test_the_document_has_every_command_and_every_page() -> None:
    paths = interface.document()["paths"]
    commands = {f"/{command.id}" for command in COMMANDS}
    pages = {route.path for route in ROUTES}

    assert {path for path, known in paths.items() if "post" in known} == commands
    assert {path for path, known in paths.items() if "get" in known} == pages
    assert METRICS in pages


def test_the_document_is_read_by_the_rules_of_the_other_pages(running: Running) -> None:
    wire = running.start(token="secret")

    assert get(wire, openapi.PATH).status == 401
    assert get(wire, openapi.PATH, Authorization="Bearer secret").json == interface.document()


def test_every_page_is_there_and_answers_as_documented(running: Running) -> None:
    wire = running.start(expose=lambda _: (b"# EOF\n", "text/plain; version=0.0.4; charset=utf-8"))
    for route in ROUTES:
        reply = get(wire, re.sub(r"\{(\w+)\}", lambda found: NAMES[found[1]], route.path))
        assert (reply.status, mistakes("GET", route.path, reply)) == (200, []), route.path


def test_refusals_are_as_documented(running: Running) -> None:
    wire = running.start(token="secret")
    for reply, path in ((get(wire, "/actuator/info"), "/actuator/info"), (get(wire, METRICS), METRICS)):
        assert (reply.status, mistakes("GET", path, reply)) == (401, [])
    for reply in (wire.post("help"), wire.post("help", headers={"Origin": "http://evil.example"})):
        assert reply.status in (401, 403)
        assert mistakes("POST", "/help", reply) == []


def test_every_command_answers_as_documented(running: Running, tmp_path: Path) -> None:
    """Exchanges recorded from the original are checked in `tests/contract`; here are the commands of ours, too."""
    wire = running.start()
    put(running.host, tmp_path, "till", "async def app(scope, receive, send):\n    pass\n")
    shop = {"bizName": "shop", "bizVersion": "1"}
    said: dict[str, str] = {}
    for command, body in (
        ("help", {}),
        ("queryAllBiz", {"libraries": True}),
        ("health", {}),
        ("envBiz", {"bizName": "shop", "set": {"A": "1"}, "unset": ["B"]}),
        ("queryLogs", {"bizName": "shop"}),
        ("queryLogs", {}),
        ("queryLibraries", {"digests": ["sha256:0"]}),
        ("cancelBiz", {"bizName": "shop"}),
        ("liveBiz", {"bizName": "shop", "seconds": 0}),
        ("commandBiz", {"bizName": "shop"}),
        ("consoleBiz", {"bizName": "shop"}),
        ("cancelBiz", {"bizName": "shop"}),
        ("exportBizs", {}),
        ("restartBiz", shop),
        ("restartBiz", {**shop, "async": True, "requestId": "r-1"}),
        ("queryBizOps", {"requestId": "r-1"}),
        ("rollbackBiz", {"bizName": "shop"}),
        ("switchBiz", shop),
        ("installBiz", {"bizUrl": (tmp_path / "nothing.zip").as_uri()}),
        ("batchInstallBiz", {"bizList": [{"bizUrl": (tmp_path / "nothing.zip").as_uri()}]}),
        ("uninstallBiz", {"bizName": "till", "bizVersion": "1"}),
        ("stopBase", {}),
    ):
        reply = wire.post(command, body)
        assert mistakes("POST", f"/{command}", reply) == [], reply.body
        said[command] = reply.json["code"]

    assert said.keys() == {command.id for command in COMMANDS}
    assert {command for command, code in said.items() if code == "SUCCESS"} >= {"queryAllBiz", "envBiz", "exportBizs"}


def test_generated_requests_are_answered_as_documented(running: Running) -> None:
    """Requests made from the schemas get no answer without documentation, and no failure of the server."""
    port = running.start(expose=lambda _: (b"# EOF\n", "text/plain; version=0.0.4")).port
    described = schemathesis.openapi.from_dict(interface.document())
    described.config.update(base_url=f"http://127.0.0.1:{port}")
    tried: dict[str, int] = {}
    for found in described.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(operation.as_strategy())
        def tried_once(case: Any) -> None:
            tried[case.operation.label] = tried.get(case.operation.label, 0) + 1
            response = case.call()
            case.validate_response(response)

        tried_once()

    assert len(tried) == len(COMMANDS) + len(ROUTES)

"""The HTTP tunnel: what is sent to bases, how their replies are judged, and the server that hears them."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from koupleless.controller.doors.porter import Porter
from koupleless.controller.doors.tokens import ReadToken
from koupleless.controller.tunnels.answers import Answer, Outcome, answer_to_install, answer_to_uninstall, reason_of
from koupleless.controller.tunnels.discovery import Discovery
from koupleless.controller.tunnels.http import HttpTunnel
from koupleless.controller.tunnels.tunnel import Health, Limits, NoAnswer, read_health
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState, Foreign
from koupleless.controller.vnodes.node import Capacity
from koupleless.controller.vpods.hooks import Visit
from koupleless.controller.vpods.module import Module, ModuleKey
from koupleless.wire.envelope import Envelope, decode_envelope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BASE = AnnouncedBase("10.0.0.7", "shop-base", "1.0.0", "default", "127.0.0.1", "base-0", 1238, BaseState.ACTIVATED)
ORDERS = ModuleKey("orders", "1.0.0")
MODULE = Module("orders", ORDERS, "https://repo.example/orders.zip", ("--fast",), {"TOKEN": "t0ken"}, "mark")


def reply(**members: Any) -> Envelope:
    return decode_envelope(json.dumps(members).encode())


def ask(
    act: Callable[[HttpTunnel], Awaitable[Any]], answer: Callable[[httpx.Request], httpx.Response], **settings: Any
) -> Any:
    """Let a tunnel speak to a base that answers by a function."""

    async def run() -> Any:
        async with HttpTunnel(transport=httpx.MockTransport(answer), **settings) as tunnel:
            return await act(tunnel)

    return asyncio.run(run())


class Known:
    """A token for each base."""

    async def tokens(self, base: AnnouncedBase, *, is_fresh: bool = False) -> list[str | None]:
        return [f"token of {base.identity}"]


def test_an_install_is_sent_as_the_original_does_with_arguments_and_variables() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"code": "SUCCESS", "data": {"code": "SUCCESS", "message": "installed"}})

    found = ask(lambda tunnel: tunnel.install(BASE, MODULE), answer, credentials=Known())
    assert found == Answer(Outcome.DONE, "Installed", "installed")
    (request,) = seen
    assert str(request.url) == "http://127.0.0.1:1238/installBiz"
    assert request.headers["authorization"] == "Bearer token of 10.0.0.7"
    assert json.loads(request.content) == {
        "bizName": "orders",
        "bizVersion": "1.0.0",
        "bizUrl": "https://repo.example/orders.zip",
        "args": ["--fast"],
        "envs": {"TOKEN": "t0ken"},
    }


@pytest.mark.parametrize(
    ("members", "outcome", "reason", "message"),
    [
        ({"code": "SUCCESS", "data": {"message": "ok"}}, Outcome.DONE, "Installed", "ok"),
        ({"code": "FAILED", "data": {"code": "REPEAT_BIZ", "message": "it is"}}, Outcome.UNCERTAIN, "AlreadyInstalled",
         "it is"),
        ({"code": "FAILED", "message": "command conflict, exist unfinished command for this biz"}, Outcome.BUSY, "Busy",
         "command conflict, exist unfinished command for this biz"),
        ({"code": "FAILED", "errorType": "Container.BizBusy", "message": "busy"}, Outcome.BUSY, "Busy", "busy"),
        ({"code": "FAILED", "errorType": "Biz.StartFailed", "data": {"message": "no table"}, "message": "not success!"},
         Outcome.REFUSED, "StartFailed", "no table"),
        ({"code": "CMD_PROCESS_INTERNAL_ERROR", "data": None}, Outcome.REFUSED, "InstallFailed",
         "CMD_PROCESS_INTERNAL_ERROR"),
    ],
)  # fmt: skip
def test_replies_to_an_install(members: dict[str, Any], outcome: Outcome, reason: str, message: str) -> None:
    assert answer_to_install(reply(**members)) == Answer(outcome, reason, message)


def test_a_module_that_is_not_there_is_uninstalled() -> None:
    found = answer_to_uninstall(reply(code="FAILED", data={"code": "NOT_FOUND_BIZ", "message": "no such biz"}))
    assert found.outcome is Outcome.DONE
    assert answer_to_uninstall(reply(code="FAILED", data={"message": "no"})).outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("code", "word"), [("Biz.StartFailed", "StartFailed"), ("Odd", "Odd"), (None, ""), ("a b.c d", "cd")]
)
def test_a_reason_is_one_word(code: str | None, word: str) -> None:
    assert reason_of(code) == word


def test_the_list_of_a_base() -> None:
    one = {"bizName": "orders", "bizVersion": "1", "bizState": "activated"}
    answers = iter(
        [{"code": "SUCCESS", "data": [one]}, {"code": "SUCCESS", "data": None}, {"code": "FAILED", "message": "no"}]
    )
    found = lambda: ask(lambda tunnel: tunnel.modules(BASE), lambda _: httpx.Response(200, json=next(answers)))  # noqa: E731
    assert found() == (one,)
    assert found() == ()
    with pytest.raises(NoAnswer, match=r"base 10\.0\.0\.7 at 127\.0\.0\.1:1238 gives no list of modules: no"):
        found()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(502), "answers queryAllBiz with HTTP 502"),
        (httpx.Response(200, text="<html>"), "with nonsense"),
        (httpx.Response(200, json=[]), "with nonsense"),
    ],
)
def test_other_answers_are_none(answer: httpx.Response, words: str) -> None:
    with pytest.raises(NoAnswer, match=words):
        ask(lambda tunnel: tunnel.modules(BASE), lambda _: answer)


def test_a_base_that_closes_the_door_is_unreachable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(NoAnswer, match="gives no answer to health: connection refused"):
        ask(lambda tunnel: tunnel.health(BASE), refuse)


def test_health_of_the_original() -> None:
    data = {
        "healthData": {
            "jvm": {"java max metaspace": 268435456, "java committed metaspace": 67108864},
            "masterBizInfo": {"bizState": "activated"},
        }
    }
    assert read_health(data) == Health(True, Capacity(None, 268435456, 201326592))
    assert read_health({"healthData": {"jvm": {"java max metaspace": -1}}}) == Health(None)
    assert read_health({"healthData": {"masterBizInfo": {"bizState": "BROKEN"}}}) == Health(False)
    machine = {"jvm": {"java max metaspace": -1, "max memory(M)": 1024.5}, "cpu": {"count": 4}}
    assert read_health({"healthData": machine}) == Health(None, Capacity(None, 1_074_266_112, None, 4))
    for odd in (-1.0, 0, True, "1", 1e300, float("nan")):
        assert read_health({"healthData": {"jvm": {"max memory(M)": odd}, "cpu": {"count": -1}}}) == Health(None)
    assert read_health(None) == Health(None)
    assert read_health({"healthData": [1]}) == Health(None)


def test_a_java_base_sends_neither_length_nor_type_and_closes() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{"code":"SUCCESS",')
        await writer.drain()
        writer.write(b'"data":[]}')
        await writer.drain()
        writer.close()

    async def run() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        base = AnnouncedBase("j", "java", "1", "default", "127.0.0.1", "", port, BaseState.ACTIVATED)
        async with server, HttpTunnel() as tunnel:
            return await tunnel.modules(base)

    assert asyncio.run(run()) == ()


def test_a_base_that_never_answers_holds_nobody_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client gives up
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        base = AnnouncedBase("h", "hangs", "1", "default", "127.0.0.1", "", port, BaseState.ACTIVATED)
        async with server, HttpTunnel(limits=Limits(health_s=0.05)) as tunnel:
            with pytest.raises(NoAnswer, match="gives no answer to health"):
                await tunnel.health(base)

    asyncio.run(run())


# --- the server -------------------------------------------------------------------------------------------------------


class Ear:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[AnnouncedBase] = []
        self.belongs = ""
        """Words about the owner of every base, if another."""

    def hear(self, base: AnnouncedBase) -> None:
        if self.belongs:
            raise Foreign(self.belongs)
        self.heard.append(base)

    def baseline(self, cluster: str) -> list[dict[str, Any]]:
        return [{"bizName": "orders", "bizVersion": "1", "bizUrl": "https://x/"}] if cluster == "default" else []


HEARTBEAT = {
    "baseMetadata": {"identity": "10.0.0.7", "name": "shop-base", "version": "1.0.0", "clusterName": "default"},
    "localIP": "127.0.0.1",
    "localHostName": "base-0",
    "port": 1238,
    "state": "ACTIVATED",
}


def post(ear: Ear, path: str, *, porter: Porter | None = None, method: str = "POST", **members: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        application = Discovery(ear, porter).application()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(application), base_url="http://controller"
        ) as client:
            return await client.request(method, path, **members)

    return asyncio.run(run())


def test_a_heartbeat_is_heard() -> None:
    ear = Ear()
    response = post(ear, "/heartbeat", json=HEARTBEAT)
    assert (response.status_code, response.text) == (200, "SUCCESS")
    assert ear.heard == [BASE]


def test_a_base_asks_for_its_baseline() -> None:
    response = post(Ear(), "/queryBaseline", json=HEARTBEAT["baseMetadata"])
    assert response.json() == [{"bizName": "orders", "bizVersion": "1", "bizUrl": "https://x/"}]
    assert response.headers["content-type"] == "application/json"
    assert post(Ear(), "/queryBaseline", json={"clusterName": "other"}).json() == []


@pytest.mark.parametrize("path", ["/heartbeat", "/queryBaseline"])
def test_senseless_bodies_are_refused(path: str) -> None:
    for content in (
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"baseMetadata": {"identity": 7}}' if path == "/heartbeat" else b"7",
    ):
        assert post(Ear(), path, content=content).status_code in {400, 413}
    assert post(Ear(), path, content=b"x" * (1 << 17)).status_code == 413
    assert post(Ear(), path, method="GET").status_code == 405


@pytest.mark.parametrize(
    ("shown", "status"), [("Bearer s3cret", 200), ("bearer s3cret", 200), ("Bearer other", 401), ("", 401)]
)
def test_a_token_keeps_strangers_out(shown: str, status: int) -> None:
    ear = Ear()
    response = post(
        ear, "/heartbeat", porter=Porter(ReadToken(lambda: "s3cret")), json=HEARTBEAT, headers={"Authorization": shown}
    )
    assert response.status_code == status
    assert bool(ear.heard) is (status == 200)


def test_a_visit_goes_to_the_module_without_the_token_of_the_arklet() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302)

    visit = Visit("orders/leave", 8080, headers=(("X-Hook", "preStop"),))
    ask(lambda tunnel: tunnel.visit(replace(BASE, ip="fd00::7"), visit), answer, credentials=Known())
    (request,) = seen
    assert (request.method, str(request.url)) == ("GET", "http://[fd00::7]:8080/orders/leave")
    assert request.headers["x-hook"] == "preStop"
    assert "authorization" not in request.headers


def test_a_visit_that_is_refused_or_cannot_be_made_has_no_answer() -> None:
    with pytest.raises(NoAnswer, match="HTTP 503"):
        ask(lambda tunnel: tunnel.visit(BASE, Visit("/", 8080)), lambda _: httpx.Response(503))

    def hang_up(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(NoAnswer, match="no answer: refused"):
        ask(lambda tunnel: tunnel.visit(BASE, Visit("/", 8080)), hang_up)


def test_an_uninstall_has_its_drain_time_in_a_member_of_ours_and_waits_longer_for_the_answer() -> None:
    sent, waited = [], []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        waited.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, json={"code": "SUCCESS"})

    key = ModuleKey("orders", "1")
    for drain_s in (None, 0.0, 300.0):
        ask(functools.partial(_uninstall, key, drain_s), answer)
    named = {"bizName": "orders", "bizVersion": "1"}
    assert sent == [named, {**named, "drainSeconds": 0}, {**named, "drainSeconds": 300}]
    assert waited == [120, 120, 420]


async def _uninstall(key: ModuleKey, drain_s: float | None, tunnel: HttpTunnel) -> Answer:
    return await tunnel.uninstall(BASE, key, drain_s=drain_s)


def test_a_restart_is_an_install_that_replaces() -> None:
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"code": "SUCCESS"})

    for replaces in (False, True):
        ask(functools.partial(_install, replaces=replaces), answer)
    assert [body.get("installStrategy") for body in sent] == [None, "replace"]
    assert sent[1]["envs"] == {"TOKEN": "t0ken"}  # the values of now


async def _install(tunnel: HttpTunnel, *, replaces: bool) -> Answer:
    return await tunnel.install(BASE, MODULE, replaces=replaces)

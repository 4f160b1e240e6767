"""The kubelet's API over TLS, with Pods, bases and the API server in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.certificates import Authority
from tests.controller.documents import NODE, container, pod
from tests.controller.kubelet.spdy import Client, closed
from tests.controller.world import BASE, NoSources

from koupleless.certificates import ServerCertificate
from koupleless.controller.cluster.api import Unreachable
from koupleless.controller.cluster.reviews import TokenReviews
from koupleless.controller.kubelet.callers import Callers
from koupleless.controller.kubelet.kubelet import Kubelet
from koupleless.controller.kubelet.transport.server import Server
from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vpods.module import Module, Refused, modules_of
from koupleless.controller.vpods.pod import VPod
from koupleless.controller.vpods.variables import Surroundings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from koupleless.controller.vnodes.base import AnnouncedBase

METRICS = """# TYPE koupleless_biz_cpu_seconds_total counter
koupleless_biz_cpu_seconds_total{biz="orders",version="1.0.0"} 1.25
koupleless_biz_cpu_seconds_total{biz="stock",version="1.0.0"} 0.5
koupleless_biz_start_memory_bytes{biz="orders",version="1.0.0"} 2.097152e+06
process_cpu_seconds_total 7.5
process_resident_memory_bytes 1e+08
other{biz="orders",version="1.0.0"} 9
"""


class World:
    """Pods and bases, and the API server with its users and rights."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {"one": pod("one", container("orders"))}
        self.known = BASE
        self.logs: list[dict[str, Any]] = []
        self.asked: list[Mapping[str, Any]] = []
        self.metrics = METRICS
        self.users = {"good": ("alice", ["staff"]), "weak": ("bob", [])}
        self.rights = {("alice", "get"), ("alice", "create"), ("apiserver", "get"), ("apiserver", "create")}
        self.reviews: list[dict[str, Any]] = []
        self.is_reachable = True
        self.bases_answer = True

    # --- places ---

    def pod(self, namespace: str, name: str) -> VPod | None:
        found = self.pods.get(name)
        return VPod.of(found) if found is not None and namespace == "shop" else None

    def base(self, node: str) -> AnnouncedBase | None:
        return self.known if node == NODE else None

    def led(self) -> Iterator[tuple[str, AnnouncedBase]]:
        yield NODE, self.known

    def pods_on(self, node: str) -> Sequence[VPod]:
        return [VPod.of(document) for document in self.pods.values()]

    async def modules(self, pod: VPod) -> Sequence[Module | Refused]:
        return modules_of(pod, NoSources(), Surroundings(NODE, ""))

    # --- bases ---

    async def ask(self, base: AnnouncedBase, command: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(body)
        await asyncio.sleep(0)
        if not self.bases_answer:
            raise NoAnswer("base base-1 gives no answer")
        begin = int(body.get("places", {}).get("log", 0))
        return {"entries": self.logs[begin:], "places": {"log": str(len(self.logs))}}

    async def scrape(self, base: AnnouncedBase) -> str:
        if not self.bases_answer:
            raise NoAnswer("base base-1 gives no answer")
        return self.metrics

    # --- the API server ---

    async def create(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        self.reviews.append(dict(document))
        if not self.is_reachable:
            raise Unreachable("not there")
        spec = document["spec"]
        if path.endswith("tokenreviews"):
            user = self.users.get(spec["token"])
            if user is None:
                return {"status": {"authenticated": False}}
            return {"status": {"authenticated": True, "user": {"username": user[0], "groups": user[1]}}}
        return {"status": {"allowed": (spec["user"], spec["resourceAttributes"]["verb"]) in self.rights}}


@dataclass
class Doors:
    """The certificates of a run."""

    directory: Path
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.authority = Authority(self.directory)
        self.server = self.authority.issue("server")
        self.apiserver = self.authority.issue("apiserver", organization="system:masters")


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    return Doors(tmp_path_factory.mktemp("doors"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    """Another authority, of whom nobody here knows."""
    return Doors(tmp_path_factory.mktemp("stranger"))


class Served:
    """A server with the API, and clients of it."""

    def __init__(self, world: World, doors: Doors, port: int, kubelet: Kubelet) -> None:
        self.world = world
        self.doors = doors
        self.port = port
        self.kubelet = kubelet

    def client(self, *, doors: Doors | None = None, token: str | None = None) -> httpx.AsyncClient:
        trusted = ssl.create_default_context(cafile=self.doors.authority.certificate)
        if doors is not None:
            trusted.load_cert_chain(doors.apiserver.certificate, doors.apiserver.key)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"https://127.0.0.1:{self.port}"
        return httpx.AsyncClient(base_url=url, headers=headers, verify=trusted, trust_env=False, timeout=20)

    async def get(self, path: str, *, token: str | None = "good", **query: str) -> httpx.Response:
        async with self.client(token=token) as client:
            return await client.get(path, params=query)

    async def upgrade(self, path: str, *, token: str = "good", **headers: str) -> tuple[str, Client]:
        trusted = ssl.create_default_context(cafile=self.doors.authority.certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=trusted)
        fields = {"Host": "kubelet", "Connection": "Upgrade", "Upgrade": "SPDY/3.1", "Content-Length": "0"}
        fields |= {"Authorization": f"Bearer {token}", **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if not head.startswith("HTTP/1.1 101"):
            body = (await reader.read()).decode()
            await closed(writer)
            return head + body, Client.__new__(Client)
        return head, Client(reader, writer)


@contextlib.asynccontextmanager
async def served(world: World, doors: Doors, *, most: int = 2000) -> AsyncIterator[Served]:
    kubelet = Kubelet(world, world, Callers(world, TokenReviews(world)))  # type: ignore[arg-type]
    kubelet._logs._poll_s = 0.02
    server = Server(kubelet.handle, most=most)
    pair = doors.server
    tls = ServerCertificate(
        pair.certificate, key=pair.key, issuers=doors.authority.certificate, is_optional=True
    ).context
    port = await server.start("127.0.0.1", 0, tls)
    try:
        yield Served(world, doors, port, kubelet)
    finally:
        await server.close()


def play(doors: Doors, act: Callable[[Served], Awaitable[None]], **options: int) -> World:
    world = World()

    async def run() -> None:
        async with asyncio.timeout(60), served(world, doors, **options) as found:
            await act(found)

    asyncio.run(run())
    return world


def entry(text: str, *, time: float = 1_700_000_000.5) -> dict[str, Any]:
    return {"time": time, "bizName": "orders", "text": text}


# --- callers ---------------------------------------------------------------------------------------------------------


def test_a_caller_needs_a_name_and_a_right(doors: Doors) -> None:
    async def act(served: Served) -> None:
        for path in ("/healthz", "/pods", "/containerLogs/shop/one/orders", "/nowhere", "/exec/shop/one/orders"):
            assert (await served.get(path, token=None)).status_code == 401
            assert (await served.get(path, token="wrong")).status_code == 401
            refused = await served.get(path, token="weak")
            assert refused.status_code == 403
            assert refused.text.startswith("bob may not ")
        assert (await served.get("/healthz")).text == "ok"
        async with served.client(doors=doors) as client:
            assert (await client.get("/healthz")).text == "ok"

    world = play(doors, act)
    last = world.reviews[-1]["spec"]
    assert (last["user"], last["groups"]) == ("apiserver", ["system:masters", "system:authenticated"])
    assert last["resourceAttributes"] == {
        "verb": "get",
        "version": "v1",
        "resource": "nodes",
        "subresource": "healthz",
        "name": "",
    }


def test_a_certificate_of_strangers_ends_the_handshake(doors: Doors, stranger: Doors) -> None:
    async def act(served: Served) -> None:
        async with served.client(doors=stranger) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")
        assert (await served.get("/healthz")).text == "ok"

    play(doors, act)


def test_nobody_is_let_in_while_the_api_server_cannot_be_asked(doors: Doors) -> None:
    async def act(served: Served) -> None:
        served.world.is_reachable = False
        assert (await served.get("/pods")).status_code == 500
        served.world.is_reachable = True
        assert (await served.get("/pods")).status_code == 200

    play(doors, act)


def test_a_right_is_that_to_the_node_of_the_pod_and_is_remembered_for_a_moment(doors: Doors) -> None:
    async def act(served: Served) -> None:
        for _ in range(5):
            await served.get("/containerLogs/shop/one/orders")
        _, client = await served.upgrade("/portForward/shop/one")
        await client.close()
        await served.upgrade("/attach/shop/one/orders")

    world = play(doors, act)
    rights = [one["spec"]["resourceAttributes"] for one in world.reviews if "resourceAttributes" in one["spec"]]
    assert [(one["verb"], one["subresource"], one["name"]) for one in rights] == [
        ("get", "proxy", NODE),
        ("create", "proxy", NODE),
    ]


def test_reading_rights_do_not_open_consoles_and_ports(doors: Doors) -> None:
    async def act(served: Served) -> None:
        served.world.rights = {("alice", "get")}
        for path in ("/portForward/shop/one", "/attach/shop/one/orders"):
            for method in ("GET", "POST"):
                async with served.client(token="good") as client:
                    assert (await client.request(method, path)).status_code == 403

    play(doors, act)


def test_strangers_do_not_learn_which_pods_there_are(doors: Doors) -> None:
    async def act(served: Served) -> None:
        known = await served.get("/containerLogs/shop/one/orders", token="weak")
        unknown = await served.get("/containerLogs/shop/two/orders", token="weak")
        assert known.status_code == unknown.status_code == 403

    play(doors, act)


# --- logs ------------------------------------------------------------------------------------------------------------


def test_a_log_has_the_lines_that_were_asked_for(doors: Doors) -> None:
    async def act(served: Served) -> None:
        path = "/containerLogs/shop/one/orders"
        served.world.logs = [entry("a"), entry("b\nb2"), entry("c", time=1_700_000_001.9999)]
        assert (await served.get(path)).text == "a\nb\nb2\nc\n"
        assert (await served.get(path, tailLines="2")).text == "b2\nc\n"
        assert (await served.get(path, tailLines="0")).text == ""
        assert (await served.get(path, limitBytes="3")).text == "a\nb"
        assert (await served.get(path, sinceTime="2023-11-14T22:13:21Z")).text == "c\n"
        assert (await served.get(path, sinceSeconds="5")).text == ""
        stamped = (await served.get(path, timestamps="true")).text.splitlines()
        assert stamped[1:] == [
            "2023-11-14T22:13:20.500000000Z b",
            "2023-11-14T22:13:20.500000000Z b2",
            "2023-11-14T22:13:21.999000000Z c",
        ]
        assert (await served.get(path, previous="true")).text == "a\nb\nb2\nc\n"
        served.world.logs = []
        missing = await served.get(path, previous="true")
        assert (missing.status_code, missing.text) == (
            400,
            "previous terminated container 'orders' in Pod shop/one not found",
        )

    world = play(doors, act)
    assert world.asked[0] == {
        "bizName": "orders",
        "bizVersion": "1.0.0",
        "life": "current",
        "lines": 10_000_000,
        "since": 0.0,
    }
    assert world.asked[1]["lines"] == 2
    assert world.asked[-1]["life"] == "previous"


@pytest.mark.parametrize(
    "query",
    [
        {"tailLines": "-1"},
        {"tailLines": "many"},
        {"tailLines": "9" * 40},
        {"limitBytes": "0"},
        {"sinceSeconds": "0"},
        {"sinceTime": "yesterday"},
        {"sinceTime": "2026-01-01T00:00:00"},
        {"sinceTime": "2026-01-01T00:00:00Z", "sinceSeconds": "1"},
    ],
)
def test_a_wish_without_sense_is_refused(doors: Doors, query: dict[str, str]) -> None:
    async def act(served: Served) -> None:
        answer = await served.get("/containerLogs/shop/one/orders", **query)
        assert answer.status_code == 400
        assert "ime" in answer.text or "has to be a number" in answer.text

    assert play(doors, act).asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/containerLogs/shop/two/orders",
        "/containerLogs/other/one/orders",
        "/containerLogs/shop/one/stock",
        "/containerLogs/shop/one/..%2Fstock",
        "/containerLogs/shop/..%2F..%2Fone/orders",
        "/containerLogs/shop/one",
        "/containerLogs/shop/one/orders/more",
        "/containerLogs",
        "/logs/orders.log",
        "/metrics",
        "/metrics/../pods",
        "/stats",
        "/run/shop/one/orders",
        "//pods/x",
        "/",
    ],
)
def test_other_paths_lead_nowhere(doors: Doors, path: str) -> None:
    async def act(served: Served) -> None:
        trusted = ssl.create_default_context(cafile=doors.authority.certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=trusted)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        await closed(writer)
        assert answer.split()[1] in {"400", "404"}, answer

    assert play(doors, act).asked == []


def test_a_base_without_an_answer_is_told(doors: Doors) -> None:
    async def act(served: Served) -> None:
        served.world.bases_answer = False
        answer = await served.get("/containerLogs/shop/one/orders")
        assert (answer.status_code, answer.text) == (500, "base base-1 gives no answer")

    play(doors, act)


def test_following_goes_on_over_an_outage_of_the_base_and_ends_with_the_pod(doors: Doors) -> None:
    async def act(served: Served) -> None:
        world = served.world
        world.logs = [entry("a")]
        query = {"follow": "true"}
        async with (
            served.client(token="good") as client,
            client.stream("GET", "/containerLogs/shop/one/orders", params=query) as answer,
        ):
            lines = answer.aiter_lines()
            assert await anext(lines) == "a"
            world.bases_answer = False
            world.logs.append(entry("b"))
            count = len(world.asked)
            await _until(lambda: len(world.asked) > count + 2)
            world.bases_answer = True
            assert await anext(lines) == "b"
            world.logs.append(entry("c"))
            del world.pods["one"]
            assert [line async for line in lines] == ["c"]

    play(doors, act)


def test_slow_readers_hold_little_and_wait_for_room(doors: Doors) -> None:
    async def act(served: Served) -> None:
        served.kubelet._logs._room._most = 8 << 20
        served.world.logs = [entry("x" * (3 << 20))]
        readers = []
        trusted = ssl.create_default_context(cafile=doors.authority.certificate)
        for _ in range(6):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=trusted, limit=1 << 10)
            path = "/containerLogs/shop/one/orders"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n".encode())
            readers.append((reader, writer))
        await _until(lambda: len(served.world.asked) == len(readers))
        assert served.kubelet._logs._room._used <= 8 << 20
        for reader, writer in readers:  # as slow as one after the other
            assert (await reader.read()).count(b"x") >= 3 << 20
            await closed(writer)
        await _until(lambda: not served.kubelet._logs._room._used)

    play(doors, act)


def test_of_many_followers_few_questions_go_to_the_base(doors: Doors) -> None:
    followers = 100  # by hand, a thousand

    async def follow(served: Served) -> int:
        trusted = ssl.create_default_context(cafile=doors.authority.certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=trusted)
        path = "/containerLogs/shop/one/orders?follow=true"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n".encode())
        text = (await reader.read()).decode()
        await closed(writer)
        return text.count("line ")

    async def act(served: Served) -> None:
        world = served.world
        world.logs = [entry("line 0")]
        served.kubelet._logs._poll_s = 0.5
        following = [asyncio.create_task(follow(served)) for _ in range(followers)]
        await _until(lambda: len(world.asked) > followers)
        world.asked.clear()
        world.logs += [entry(f"line {number}") for number in range(1, 11)]
        await _until(lambda: any(one.get("places") == {"log": "11"} for one in world.asked))
        del world.pods["one"]
        assert await asyncio.gather(*following) == [11] * followers
        assert len(world.asked) < followers / 10

    play(doors, act)


def test_a_follower_that_leaves_leaves_nothing_behind(doors: Doors) -> None:
    async def act(served: Served) -> None:
        present = len(asyncio.all_tasks())
        async with served.client(token="good") as client:
            query = {"follow": "true"}
            async with client.stream("GET", "/containerLogs/shop/one/orders", params=query) as answer:
                assert answer.status_code == 200
        await _until(lambda: len(asyncio.all_tasks()) <= present)

    play(doors, act)


# --- ports -----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
        await closed(writer)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def declare(world: World, *ports: int) -> None:
    declared = [{"containerPort": port} for port in ports]
    world.pods["one"] = pod("one", container("orders", ports=declared))
    world.known = type(BASE)(**{name: getattr(BASE, name) for name in BASE.__slots__} | {"ip": "127.0.0.1"})


def pair(client: Client, port: int, request: str) -> tuple[int, int]:
    errors = client.open(streamtype="error", port=str(port), requestid=request)
    return errors, client.open(streamtype="data", port=str(port), requestid=request)


def test_many_connections_are_forwarded_at_once(doors: Doors) -> None:
    async def act(served: Served) -> None:
        async with echoing() as port:
            declare(served.world, port)
            head, client = await served.upgrade(
                "/portForward/shop/one", **{"X-Stream-Protocol-Version": "portforward.k8s.io"}
            )
            assert "x-stream-protocol-version: portforward.k8s.io" in head.lower()
            pairs = [pair(client, port, str(number)) for number in range(30)]
            for _, data in pairs:
                client.send(data, b"%d " % data * 9_000)
                client.send(data, b"", is_last=True)
            numbers = {number for both in pairs for number in both}
            await client.until(lambda: client.ended == numbers)
            assert all(client.got[data] == b"%d " % data * 9_000 + b"bye" for _, data in pairs)
            assert all(not client.got[errors] for errors, _ in pairs)
            await client.close()

    play(doors, act)


def test_only_declared_ports_are_forwarded_and_never_that_of_the_arklet(doors: Doors) -> None:
    async def act(served: Served) -> None:
        async with echoing() as port:
            declare(served.world, 1238, 9)
            _, client = await served.upgrade("/portForward/shop/one")
            for wanted, words in (
                (port, "declared by no container"),
                (1238, "that of the arklet"),
                (9, "cannot be reached"),
            ):
                errors, data = pair(client, wanted, str(wanted))
                await client.until(lambda errors=errors, data=data: errors in client.ended and data in client.reset)
                assert words in client.got[errors].decode()
            bad = [client.open(streamtype="data", port=text) for text in ("", "0", "65536", "x", "9" * 30, "-1")]
            bad.append(client.open(streamtype="other", port="9"))
            await client.until(lambda: set(bad) <= client.reset)
            await client.close()

    play(doors, act)


def test_a_client_of_old_that_names_no_request_is_served(doors: Doors) -> None:
    async def act(served: Served) -> None:
        async with echoing() as port:
            declare(served.world, port)
            _, client = await served.upgrade("/portForward/shop/one")
            client.open(streamtype="error", port=str(port))
            data = client.open(streamtype="data", port=str(port))
            client.send(data, b"x", is_last=True)
            await client.until(lambda: data in client.ended)
            assert client.got[data] == b"xbye"
            await client.close()

    play(doors, act)


def test_a_client_that_is_gone_leaves_no_connection_to_the_base(doors: Doors) -> None:
    async def act(served: Served) -> None:
        open_now: set[asyncio.StreamWriter] = set()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_now.add(writer)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            open_now.discard(writer)
            await closed(writer)

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        declare(served.world, port)
        _, client = await served.upgrade("/portForward/shop/one")
        for number in range(20):
            pair(client, port, str(number))
        await _until(lambda: len(open_now) == 20)
        client.writer.transport.abort()
        await _until(lambda: not open_now)
        await client.close()
        server.close()

    play(doors, act)


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_other_protocols_are_refused_with_words(doors: Doors, upgrade: str) -> None:
    async def act(served: Served) -> None:
        said, _ = await served.upgrade("/portForward/shop/one", Upgrade=upgrade)
        assert said.startswith("HTTP/1.1 400")
        assert "only SPDY/3.1" in said
        said, _ = await served.upgrade("/portForward/shop/one", **{"X-Stream-Protocol-Version": "v9.channel.k8s.io"})
        assert said.startswith("HTTP/1.1 403")
        said, _ = await served.upgrade("/attach/shop/one/orders")
        assert "kubectl exec" in said

    play(doors, act)


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_have_the_form_of_a_kubelet(doors: Doors) -> None:
    async def act(served: Served) -> None:
        status = {
            "containerStatuses": [{"name": "orders", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]
        }
        served.world.pods["one"] = pod("one", container("orders"), container("missing"), status=status)
        answer = await served.get("/metrics/resource")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        from prometheus_client.parser import text_string_to_metric_families

        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
        assert found == {
            ("container_cpu_usage_seconds_total", "orders", "shop", "one"): 1.25,
            ("container_memory_working_set_bytes", "orders", "shop", "one"): 2_097_152,
            ("container_start_time_seconds", "orders", "shop", "one"): 1767225600,
            ("pod_cpu_usage_seconds_total", "shop", "one"): 1.25,
            ("pod_memory_working_set_bytes", "shop", "one"): 2_097_152,
            ("node_cpu_usage_seconds_total",): 7.5,
            ("node_memory_working_set_bytes",): 1e8,
            ("resource_scrape_error",): 0,
        }
        summary = (await served.get("/stats/summary")).json()
        assert summary["node"]["cpu"]["usageCoreNanoSeconds"] == 7_500_000_000
        (told,) = summary["pods"]
        assert told["podRef"] == {"name": "one", "namespace": "shop", "uid": "uid-one"}
        assert told["containers"][0]["memory"]["workingSetBytes"] == 2_097_152
        (listed,) = json.loads((await served.get("/pods")).content)["items"]
        assert listed["spec"]["nodeName"] == NODE

    play(doors, act)


def test_a_base_without_figures_is_told_as_an_error_of_the_scrape(doors: Doors) -> None:
    async def act(served: Served) -> None:
        served.world.bases_answer = False
        text = (await served.get("/metrics/resource")).text
        assert "resource_scrape_error 1" in text
        assert "orders" not in text

    play(doors, act)


# --- the server ------------------------------------------------------------------------------------------------------


def test_more_connections_than_allowed_are_refused_with_words(doors: Doors) -> None:
    async def act(served: Served) -> None:
        async with served.client(token="good") as client:
            query = {"follow": "true"}
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(3):
                    await stack.enter_async_context(
                        client.stream("GET", "/containerLogs/shop/one/orders", params=query)
                    )
                assert (await served.get("/healthz")).status_code == 503

    play(doors, act, most=3)


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /pods?" + b"&".join([b"a=b"] * 2000) + b" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n",
        struct.pack(">I", 7) * 9,
    ],
)
def test_nonsense_is_answered_with_400_and_the_server_goes_on(doors: Doors, raw: bytes) -> None:
    async def act(served: Served) -> None:
        trusted = ssl.create_default_context(cafile=doors.authority.certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=trusted)
        writer.write(raw)
        with contextlib.suppress(ConnectionError):
            writer.write_eof() if writer.can_write_eof() else None
            answer = await reader.read()
            assert answer.split()[1] in {b"400", b"431"}
        await closed(writer)
        assert (await served.get("/healthz")).text == "ok"

    play(doors, act)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - of code that tells it nowhere else
            await asyncio.sleep(0.005)

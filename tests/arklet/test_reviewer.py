"""Callers with tokens of service accounts, judged by an API server: a small one here, and the real one."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.arklet.reviewer import Reviewer
from koupleless.arklet.server import ArkletServer
from koupleless.errors import SettingsError
from koupleless.settings.controller import ReviewSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from tests.kube.plane import Access

    from koupleless.arklet.operations import Operations

GOOD, OTHER, BAD = "head.good.x", "head.other.x", "head.bad.x"
ACCOUNTS = {GOOD: "system:serviceaccount:koupleless:controller", OTHER: "system:serviceaccount:shop:default"}


@dataclass
class Judge:
    """An API server that knows some tokens."""

    status: int = 201
    body: bytes | None = None
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, shown: str, review: dict[str, Any]) -> bytes:
        self.asked.append((path, shown, review["spec"]))
        if self.body is not None:
            return self.body
        name = ACCOUNTS.get(review["spec"]["token"])
        status: dict[str, Any] = {"authenticated": False, "error": "unknown"}
        if name is not None:
            status = {"authenticated": True, "user": {"username": name}, "audiences": review["spec"]["audiences"]}
        return json.dumps({**review, "status": status}).encode()


@pytest.fixture
def judge() -> Iterator[Judge]:
    made = Judge()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = made.answer(self.path, self.headers["Authorization"], review)
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


class Moment:
    """A clock that stands until the test lets time pass."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def reviewer_of(judge: Judge, clock: Moment, *accounts: str) -> Reviewer:
    return Reviewer(
        judge.url,
        accounts=accounts or ("koupleless/controller",),
        audience="koupleless",
        read_token=lambda: "token-of-the-base",
        clock=clock,
        wall=clock,
    )


def ask(reviewer: Reviewer, token: str) -> int | None:
    refusal = reviewer.judge([(b"authorization", f"Bearer {token}".encode())])
    return None if refusal is None else refusal.status


def test_the_server_is_asked_once_with_the_token_of_the_base(judge: Judge) -> None:
    clock = Moment()
    reviewer = reviewer_of(judge, clock)
    assert [ask(reviewer, GOOD) for _ in range(3)] == [None] * 3
    spec = {"token": GOOD, "audiences": ["koupleless"]}
    assert judge.asked == [("/apis/authentication.k8s.io/v1/tokenreviews", "Bearer token-of-the-base", spec)]
    clock.now = 121
    assert ask(reviewer, GOOD) is None
    assert len(judge.asked) == 2


def test_other_accounts_and_unknown_tokens_are_refused_for_a_while(judge: Judge) -> None:
    clock = Moment()
    reviewer = reviewer_of(judge, clock)
    assert [ask(reviewer, token) for token in (OTHER, BAD, OTHER, BAD)] == [403, 401, 403, 401]
    assert len(judge.asked) == 2
    clock.now = 11
    assert ask(reviewer, BAD) == 401
    assert len(judge.asked) == 3
    assert ask(reviewer_of(judge, clock, "shop/*"), OTHER) is None


@pytest.mark.parametrize("token", ["", "x", "a.b", "a.b.c.d", "a.b." + "c" * 20_000])
def test_texts_that_are_no_such_tokens_are_no_questions(judge: Judge, token: str) -> None:
    assert ask(reviewer_of(judge, Moment()), token) == 401
    assert judge.asked == []


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (403, b"{}"), (201, b"[]"), (201, b"{"), (200, b'{"status": {"authenticated": true}}')],
)
def test_a_server_in_trouble_lets_nobody_new_in(judge: Judge, status: int, body: bytes) -> None:
    clock = Moment()
    reviewer = reviewer_of(judge, clock)
    assert ask(reviewer, GOOD) is None
    judge.status, judge.body = status, body
    assert ask(reviewer, GOOD) is None  # remembered
    assert ask(reviewer, OTHER) in {503, 401}
    judge.status, judge.body = 201, None
    if status != 200:
        assert ask(reviewer, OTHER) == 403  # trouble is not remembered


def test_a_token_of_the_base_that_cannot_be_read_is_trouble(judge: Judge) -> None:
    def read() -> str | None:
        raise SettingsError("no such file")

    made = Reviewer(judge.url, accounts=["a/b"], audience="koupleless", read_token=read)
    assert ask(made, GOOD) == 503
    gone = Reviewer("http://127.0.0.1:9", accounts=["a/b"], audience="koupleless", read_token=lambda: "t")
    assert ask(gone, GOOD) == 503


@contextlib.contextmanager
def serving(operations: Operations, **settings: Any) -> Iterator[int]:
    server = ArkletServer(operations, port=0, **settings)
    port = server.start()
    try:
        yield port
    finally:
        server.stop()


def call(port: int, token: str, method: str = "POST", path: str = "/queryAllBiz") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body=b"{}", headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("token", [None, "own"])
def test_an_arklet_lets_in_its_own_token_and_the_accounts_and_nobody_else(
    operations: Operations, judge: Judge, token: str | None
) -> None:
    with serving(operations, token=token, reviewer=reviewer_of(judge, Moment())) as port:
        assert call(port, GOOD) == 200
        assert call(port, "own") == (200 if token else 401)
        assert [call(port, one) for one in ("", "x", BAD, OTHER)] == [401, 401, 401, 403]
        judge.status = 500
        assert call(port, GOOD) == 200
        assert call(port, "head.new.x") == 503


def test_a_flood_of_tokens_does_not_hold_up_those_who_are_known(operations: Operations, judge: Judge) -> None:
    holding = threading.Event()
    asked = judge.answer

    def slowly(path: str, shown: str, review: dict[str, Any]) -> bytes:
        if review["spec"]["token"] != GOOD:
            holding.wait(10)
        return asked(path, shown, review)

    with serving(operations, reviewer=reviewer_of(judge, Moment())) as port:
        assert call(port, GOOD) == 200
        judge.answer = slowly  # type: ignore[method-assign]
        strangers = [threading.Thread(target=call, args=(port, f"head.{number}.x")) for number in range(20)]
        for stranger in strangers:
            stranger.start()
        assert [call(port, GOOD) for _ in range(5)] == [200] * 5
        holding.set()
        for stranger in strangers:
            stranger.join()


def test_settings_find_the_server_of_the_cluster(tmp_path: Path) -> None:
    settings = ReviewSettings(accounts=("koupleless/controller",))
    assert settings.address({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "https://10.0.0.1:443"
    assert settings.address({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}) == (
        "https://[fd00::1]:6443"
    )
    with pytest.raises(SettingsError, match=r"arklet\.review\.server"):
        settings.address({})
    with pytest.raises(SettingsError, match=r"arklet\.review\.ca"):
        Reviewer.of("https://h", ca=tmp_path / "none", accounts=(), audience="", read_token=lambda: None)


@pytest.mark.kube
def test_the_real_server_vouches_for_the_token_of_the_controller(
    operations: Operations, control_plane: Access, kube: httpx.Client, namespace: str
) -> None:
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"

    def token(name: str, *audiences: str) -> str:
        kube.post(accounts, json={"metadata": {"name": name}})
        spec = {"audiences": list(audiences)} if audiences else {}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        made = kube.post(f"{accounts}/{name}/token", json=body).raise_for_status()
        return str(made.json()["status"]["token"])

    binding = {
        "metadata": {"name": f"{namespace}-base"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"kind": "ServiceAccount", "name": "base", "namespace": namespace}],
    }
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    own = token("base")
    reviewer = Reviewer.of(
        control_plane.url,
        ca=Path(control_plane.authority),
        accounts=[f"{namespace}/controller"],
        audience="koupleless",
        read_token=lambda: own,
    )
    with serving(operations, reviewer=reviewer) as port:
        assert call(port, token("controller", "koupleless")) == 503  # the base may not ask yet
        kube.post(bindings, json=binding).raise_for_status()
        assert call(port, token("controller", "koupleless")) == 200
        assert call(port, token("stranger", "koupleless")) == 403
        assert call(port, token("controller")) == 401  # a token for the API server
    kube.delete(f"{bindings}/{namespace}-base").raise_for_status()

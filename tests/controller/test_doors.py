"""Tokens between controller and bases: who may speak for which base, and which proof an arklet is shown."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from tests.controller.documents import NODE
from tests.controller.test_fleet import play as on_a_fleet
from tests.controller.test_tunnels import BASE, HEARTBEAT, Ear, post

from koupleless.controller.cluster.api import ApiError, Unreachable
from koupleless.controller.doors.credentials import SecretCredentials, SharedCredential
from koupleless.controller.doors.porter import Caller, Porter, Refused
from koupleless.controller.doors.tokens import ReadToken
from koupleless.controller.tunnels.http import HttpTunnel
from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vnodes.base import BaseState, Foreign
from koupleless.controller.vnodes.node import node_of
from koupleless.errors import SettingsError
from koupleless.wire.reviews import User

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.controller.test_fleet import Scene

    from koupleless.controller.cluster.api import Api
    from koupleless.controller.cluster.reviews import TokenReviews
    from koupleless.controller.tunnels.http import Credentials

POD = {"metadata": {"name": "base-0", "uid": "p-1"}, "status": {"podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]}}


def user(account: str = "shop:base", pod: str = "base-0", uid: str = "p-1") -> User:
    extra = {"authentication.kubernetes.io/pod-name": (pod,), "authentication.kubernetes.io/pod-uid": (uid,)}
    return User(f"system:serviceaccount:{account}", extra=extra if pod else {})


class Cluster:
    """Judgements about tokens, and objects by their path; ``trouble`` is that of the API server."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {"good": user()}
        self.objects: dict[str, dict[str, Any]] = {"/api/v1/namespaces/shop/pods/base-0": POD}
        self.trouble: Exception | None = None
        self.asked: list[str] = []
        self.now = 0.0

    async def user(self, token: str) -> User | None:
        self._check()
        return self.users.get(token)

    async def get(self, path: str) -> dict[str, Any] | None:
        self._check()
        self.asked.append(path)
        return self.objects.get(path)

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def porter(self, shared: str | None = None, *accounts: str) -> Porter:
        token = None if shared is None else ReadToken(lambda: shared)
        return Porter(
            token,
            reviews=cast("TokenReviews", self),
            pods=cast("Api", self),
            accounts=accounts or ("shop/base",),
            clock=lambda: self.now,
        )


def admit(porter: Porter, token: str) -> Caller:
    return asyncio.run(porter.admit(f"Bearer {token}" if token else ""))


def refusal(porter: Porter, token: str) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        admit(porter, token)
    return caught.value.status, str(caught.value)


def test_without_any_proof_to_ask_for_everybody_is_heard() -> None:
    assert admit(Porter(), "") == Caller()
    assert admit(Porter(ReadToken(lambda: None)), "x") == Caller()


def test_the_token_of_an_account_is_judged_beside_the_shared_one() -> None:
    cluster = Cluster()
    porter = cluster.porter("s3cret")
    assert admit(porter, "s3cret") == Caller()
    assert admit(porter, "good") == Caller("shop/base", "base-0", frozenset({"10.0.0.7", "fd00::7"}))
    assert refusal(porter, "bad")[0] == 401
    assert refusal(porter, "")[0] == 401


def test_accounts_are_allowed_one_by_one_or_by_namespace() -> None:
    cluster = Cluster()
    cluster.users |= {"other": user("shop:other", ""), "far": user("far:base", ""), "admin": User("admin")}
    cluster.users["namespaceless"] = User("system:serviceaccount:*:base")
    one, all_of = cluster.porter(None, "shop/base"), cluster.porter(None, "shop/*")
    assert [refusal(one, token)[0] for token in ("other", "far", "admin", "namespaceless")] == [403] * 4
    assert admit(all_of, "other") == Caller("shop/other")
    assert [refusal(all_of, token)[0] for token in ("far", "admin")] == [403, 403]


@pytest.mark.parametrize("trouble", [Unreachable("no route"), ApiError(500, "InternalError", "etcd")])
def test_without_the_api_server_nobody_new_is_heard_and_the_shared_token_counts_on(trouble: Exception) -> None:
    cluster = Cluster()
    cluster.trouble = trouble
    porter = cluster.porter("s3cret")
    assert refusal(porter, "good")[0] == 503
    assert admit(porter, "s3cret") == Caller()


def test_a_token_of_a_pod_that_is_gone_or_replaced_is_refused() -> None:
    cluster = Cluster()
    cluster.users["old"] = user(uid="p-0")
    assert refusal(cluster.porter(), "old") == (403, "the Pod shop/base-0 of the token is gone")
    cluster.objects.clear()
    assert refusal(cluster.porter(), "good")[0] == 403


def test_addresses_of_a_pod_are_read_again_after_a_while() -> None:
    cluster = Cluster()
    porter = cluster.porter()
    for _ in range(3):
        admit(porter, "good")
    assert len(cluster.asked) == 1
    cluster.now += 121
    admit(porter, "good")
    assert len(cluster.asked) == 2


def test_a_base_announces_the_address_of_its_own_pod_alone() -> None:
    caller = Caller("shop/base", "base-0", frozenset({"10.0.0.7", "fd00::7"}))
    for ip in ("10.0.0.7", "FD00:0::7"):
        assert caller.announce(replace(BASE, ip=ip)) == replace(BASE, ip=ip, speaker="shop/base/base-0")
    assert caller.announce(replace(BASE, ip="")).ip == "10.0.0.7"
    for ip in ("10.0.0.8", "evil.example", "127.0.0.1", "10.0.0.7@evil.example"):
        with pytest.raises(Refused, match="announces its own address"):
            caller.announce(replace(BASE, ip=ip))
    assert Caller().announce(replace(BASE, ip="10.0.0.8")).speaker == ""


def test_the_server_says_why_a_base_is_not_heard() -> None:
    cluster, ear = Cluster(), Ear()
    own = {**HEARTBEAT, "localIP": "10.0.0.7"}
    shown = {"Authorization": "Bearer good"}
    assert post(ear, "/heartbeat", porter=cluster.porter(), json=own, headers=shown).status_code == 200
    assert [base.speaker for base in ear.heard] == ["shop/base/base-0"]
    answer = post(ear, "/heartbeat", porter=cluster.porter(), json=HEARTBEAT, headers=shown)
    assert answer.status_code == 403
    assert "127.0.0.1" in answer.text
    ear.belongs = "base x is that of shop/other/other-0"
    answer = post(ear, "/heartbeat", porter=cluster.porter(), json=own, headers=shown)
    assert (answer.status_code, answer.text) == (403, ear.belongs)
    cluster.trouble = Unreachable("no route")
    assert post(ear, "/queryBaseline", porter=cluster.porter(), json=own, headers=shown).status_code == 503


# --- whose base it is ------------------------------------------------------------------------------------------------

MINE, BROTHER, STRANGER = "shop/base/base-0", "shop/base/base-1", "far/base/base-0"


def said_by(speaker: str) -> Any:
    return replace(BASE, identity="base-1", speaker=speaker)


def test_a_living_base_is_spoken_for_by_its_pod_alone() -> None:
    async def act(scene: Scene) -> None:
        scene.fleet.hear(said_by(MINE))
        scene.fleet.hear(said_by(MINE))
        scene.fleet.hear(said_by(""))  # the shared token has all rights, and takes the base from nobody
        for other in (BROTHER, STRANGER):
            with pytest.raises(Foreign, match=f"{other} may not speak for base base-1, which is that of {MINE}"):
                scene.fleet.hear(said_by(other))
            with pytest.raises(Foreign):
                scene.fleet.hear(replace(said_by(other), state=BaseState.DEACTIVATED))

    on_a_fleet(act)


def test_a_dead_base_may_come_back_in_another_pod_of_the_same_account() -> None:
    async def act(scene: Scene) -> None:
        scene.fleet.hear(said_by(MINE))
        scene.fleet.hear(replace(said_by(MINE), state=BaseState.DEACTIVATED))
        with pytest.raises(Foreign):
            scene.fleet.hear(said_by(STRANGER))
        scene.fleet.hear(said_by(BROTHER))
        with pytest.raises(Foreign):
            scene.fleet.hear(said_by(MINE))

    on_a_fleet(act, keeps_dead_nodes=True)


def test_a_base_that_only_others_hear_is_not_taken_for_dead() -> None:
    async def act(scene: Scene) -> None:
        scene.leases.is_leading = False
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        scene.fleet.hear(said_by(MINE))
        scene.cluster.nodes[NODE] = {**node_of(said_by(MINE), "dev"), "status": ready}
        scene.now += 600  # the leader asks the base, this controller hears nothing
        with pytest.raises(Foreign):
            scene.fleet.hear(said_by(BROTHER))

    on_a_fleet(act)


# --- proofs for arklets ----------------------------------------------------------------------------------------------


class Arklet:
    """An arklet that asks for one token."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        shown = request.headers.get("Authorization", "")
        self.asked.append(shown)
        if shown != f"Bearer {self.token}":
            return httpx.Response(401)
        return httpx.Response(200, json={"code": "SUCCESS", "data": []})


def call(arklet: Arklet, *acts: Callable[[HttpTunnel], Awaitable[Any]], credentials: Credentials) -> list[Any]:
    async def run() -> list[Any]:
        async with HttpTunnel(credentials, transport=httpx.MockTransport(arklet)) as tunnel:
            return [await act(tunnel) for act in acts]

    return asyncio.run(run())


def test_a_token_in_a_file_may_change_and_be_gone_for_a_moment() -> None:
    now, content = 0.0, ["one"]

    def read() -> str | None:
        if not content:
            raise SettingsError("no such file")
        return content[0]

    token = ReadToken(read, clock=lambda: now)
    assert token.get() == "one"
    content[:] = ["two"]
    assert token.get() == "one"
    now = 1.0
    assert token.get() == "two"
    content.clear()
    now = 2.0
    assert token.get() == "two"
    with pytest.raises(SettingsError):
        ReadToken(read)


def test_the_former_token_counts_for_a_while_after_a_change() -> None:
    now, content = 0.0, ["one"]
    token = ReadToken(lambda: content[0], clock=lambda: now)
    assert token.all() == ["one"]
    content[:] = ["two"]
    now = 1.0
    assert token.all() == ["two", "one"]
    now = 180.0
    assert token.all() == ["two", "one"]
    now = 182.0
    assert token.all() == ["two"]
    content[:] = ["three"]
    now = 183.0
    porter = Porter(token)
    assert admit(porter, "three") == admit(porter, "two") == Caller()
    assert refusal(porter, "one")[0] == 401


def secret(token: str) -> dict[str, Any]:
    return {"data": {"token": base64.b64encode(token.encode()).decode()}}


def credentials_of(cluster: Cluster, pattern: str = "koupleless/arklet-{name}") -> SecretCredentials:
    otherwise = ReadToken(lambda: "shared")
    return SecretCredentials(cast("Api", cluster), pattern, otherwise, clock=lambda: cluster.now)


SECRET = "/api/v1/namespaces/koupleless/secrets/arklet-shop-base"


def test_a_base_has_a_token_of_its_own_in_a_secret_and_others_the_shared_one() -> None:
    cluster, arklet = Cluster(), Arklet("own")
    cluster.objects[SECRET] = secret("own")
    call(arklet, *[lambda tunnel: tunnel.modules(BASE)] * 3, credentials=credentials_of(cluster))
    assert cluster.asked == [SECRET]
    arklet.token = "shared"
    call(arklet, lambda tunnel: tunnel.modules(replace(BASE, name="other")), credentials=credentials_of(cluster))


def test_a_rotated_token_is_read_at_the_first_refusal() -> None:
    cluster, arklet = Cluster(), Arklet("old")
    cluster.objects[SECRET] = secret("old")
    credentials = credentials_of(cluster)

    async def rotate(_: HttpTunnel) -> None:
        cluster.now += 6
        cluster.objects[SECRET] = secret("new")
        arklet.token = "new"

    ask = lambda tunnel: tunnel.modules(BASE)  # noqa: E731
    call(arklet, ask, rotate, ask, credentials=credentials)
    assert arklet.asked == ["Bearer old", "Bearer old", "Bearer new"]


def test_an_arklet_that_gets_a_changed_secret_late_is_shown_the_former_token() -> None:
    cluster, arklet = Cluster(), Arklet("old")
    cluster.objects[SECRET] = secret("old")
    credentials = credentials_of(cluster)

    async def rotate(_: HttpTunnel) -> None:
        cluster.now += 61
        cluster.objects[SECRET] = secret("new")

    ask = lambda tunnel: tunnel.modules(BASE)  # noqa: E731
    call(arklet, ask, rotate, ask, credentials=credentials)
    assert arklet.asked == ["Bearer old", "Bearer new", "Bearer old"]


def test_an_arklet_that_refuses_every_token_gets_each_once_and_the_reason_is_told() -> None:
    cluster, arklet = Cluster(), Arklet("unknown to all")
    cluster.objects[SECRET] = secret("own")
    credentials = credentials_of(cluster)
    for _ in range(10):
        with pytest.raises(NoAnswer, match="refuses the token of the controller"):
            call(arklet, lambda tunnel: tunnel.modules(BASE), credentials=credentials)
    assert arklet.asked == ["Bearer own"] * 10
    assert len(cluster.asked) == 1  # the Secret is read again after some seconds only
    with pytest.raises(NoAnswer, match="refuses the token"):
        call(arklet, lambda tunnel: tunnel.modules(BASE), credentials=SharedCredential(ReadToken(lambda: "x")))
    assert len(arklet.asked) == 11


def test_the_last_token_stays_in_use_while_the_api_server_is_away() -> None:
    cluster, arklet = Cluster(), Arklet("own")
    cluster.objects[SECRET] = secret("own")
    credentials = credentials_of(cluster)

    async def cut(_: HttpTunnel) -> None:
        cluster.trouble = Unreachable("no route")
        cluster.now += 600

    ask = lambda tunnel: tunnel.modules(BASE)  # noqa: E731
    call(arklet, ask, cut, ask, credentials=credentials)


@pytest.mark.parametrize("name", ["../../kube-system/secrets/admin", "a/b", "A", "x" * 300, "a..b", ""])
def test_the_name_of_a_base_is_no_way_to_other_secrets(name: str) -> None:
    cluster, arklet = Cluster(), Arklet("shared")
    base = replace(BASE, name=name, identity=name)
    call(arklet, lambda tunnel: tunnel.modules(base), credentials=credentials_of(cluster, "koupleless/{identity}"))
    assert cluster.asked == []


@pytest.mark.parametrize(
    "pattern", ["arklet", "a/b/c", "koupleless/{host}", "Koupleless/x", "/x", "x/", "x/{}", "x/{0}"]
)
def test_other_patterns_are_no_setting(pattern: str) -> None:
    with pytest.raises(SettingsError, match="namespace/name"):
        credentials_of(Cluster(), pattern)

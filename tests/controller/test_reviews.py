"""Tokens judged by the API server: who is admitted, for how long a judgement holds, and the trouble of the server."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.controller.conftest import secured

from koupleless.controller.cluster.api import Api, Unreachable
from koupleless.controller.cluster.reviews import TokenReviews
from koupleless.wire.reviews import User

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx
    from tests.kube.plane import Access

ACCOUNT = {
    "username": "system:serviceaccount:shop:base",
    "uid": "u-1",
    "groups": ["system:serviceaccounts"],
    "extra": {
        "authentication.kubernetes.io/pod-name": ["base-0"],
        "authentication.kubernetes.io/pod-uid": ["p-1"],
    },
}


class Judge:
    """An API server that judges tokens; counts the questions."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {"authenticated": True, "user": ACCOUNT, "audiences": ["koupleless"]}
        self.trouble: Exception | None = None
        self.now = 1_000.0

    async def create(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
        self.asked.append(document["spec"])
        if self.trouble is not None:
            raise self.trouble
        return {"status": self.status}

    def reviews(self) -> TokenReviews:
        return TokenReviews(cast("Api", self), ["koupleless"], clock=lambda: self.now, wall=lambda: self.now)


def play(act: Callable[[Judge, TokenReviews], Awaitable[None]]) -> None:
    async def run() -> None:
        judge = Judge()
        await act(judge, judge.reviews())

    asyncio.run(run())


def token(*, ends: float) -> str:
    return f"head.{base64.urlsafe_b64encode(json.dumps({'exp': ends}).encode()).decode().rstrip('=')}.signature"


def test_a_user_has_the_account_and_the_pod_of_the_token() -> None:
    async def act(judge: Judge, reviews: TokenReviews) -> None:
        user = await reviews.user("t0ken")
        assert user is not None
        assert (user.account, user.pod, user.pod_uid) == ("shop/base", "base-0", "p-1")
        assert judge.asked == [{"token": "t0ken", "audiences": ["koupleless"]}]

    play(act)


@pytest.mark.parametrize("name", ["admin", "system:serviceaccount:shop", "system:serviceaccount::base", ""])
def test_other_users_have_no_account(name: str) -> None:
    assert User(name).account == ""


def test_a_judgement_holds_for_two_minutes_and_a_refusal_for_ten_seconds() -> None:
    async def act(judge: Judge, reviews: TokenReviews) -> None:
        for _ in range(3):
            assert await reviews.user("good")
        judge.now += 119
        assert await reviews.user("good")
        assert len(judge.asked) == 1
        judge.now += 2
        judge.status = {"authenticated": False, "error": "the Pod is gone"}
        assert await reviews.user("good") is None
        assert await reviews.user("good") is None
        assert len(judge.asked) == 2
        judge.now += 11
        await reviews.user("good")
        assert len(judge.asked) == 3

    play(act)


def test_a_token_near_its_end_is_asked_about_again() -> None:
    async def act(judge: Judge, reviews: TokenReviews) -> None:
        short = token(ends=judge.now + 30)
        await reviews.user(short)
        judge.now += 24
        await reviews.user(short)
        assert len(judge.asked) == 1
        judge.now += 2
        await reviews.user(short)
        await reviews.user(short)
        assert len(judge.asked) == 3

    play(act)


def test_a_token_for_others_is_refused_though_the_server_knows_the_user() -> None:
    async def act(judge: Judge, reviews: TokenReviews) -> None:
        judge.status = {"authenticated": True, "user": ACCOUNT}
        assert await reviews.user("t0ken") is None

    play(act)


def test_a_server_out_of_reach_is_an_error_and_no_judgement() -> None:
    async def act(judge: Judge, reviews: TokenReviews) -> None:
        judge.trouble = Unreachable("no route")
        with pytest.raises(Unreachable):
            await reviews.user("t0ken")
        judge.trouble = None
        assert await reviews.user("t0ken")

    play(act)


def test_nonsense_in_the_place_of_a_token_is_no_question_to_the_server() -> None:
    async def act(judge: Judge, reviews: TokenReviews) -> None:
        assert await reviews.user("") is None
        assert await reviews.user("x" * 20_000) is None
        assert judge.asked == []
        for odd in (".", "a.!.c", "a.bm8.c", token(ends=0)):
            assert await reviews.user(odd)

    play(act)


def test_memory_of_tokens_is_bounded() -> None:
    async def act(judge: Judge, reviews: TokenReviews) -> None:
        for number in range(10_001):
            await reviews.user(f"t-{number}")
        await reviews.user("t-10000")
        assert len(judge.asked) == 10_001
        await reviews.user("t-0")
        assert len(judge.asked) == 10_002

    play(act)


@pytest.mark.kube
def test_the_real_server_knows_tokens_by_audience(control_plane: Access, kube: httpx.Client, namespace: str) -> None:
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    kube.post(account, json={"metadata": {"name": "base"}}).raise_for_status()

    def made(*audiences: str) -> str:
        spec = {"audiences": audiences} if audiences else {}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(kube.post(f"{account}/base/token", json=body).raise_for_status().json()["status"]["token"])

    async def run() -> None:
        async with Api(secured(control_plane, "admin")) as api:
            reviews = TokenReviews(api, ["koupleless"])
            user = await reviews.user(made("koupleless"))
            assert user is not None
            assert user.account == f"{namespace}/base"
            assert await reviews.user(made()) is None
            assert await reviews.user("no token at all") is None

    asyncio.run(run())

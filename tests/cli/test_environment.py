"""``arkctl env`` against a real arklet: values go in, names come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.arklet.server import ArkletServer
from koupleless.biz import BizId, BizState
from koupleless.descriptions import BizInfo
from koupleless.state.environments import Environments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Outcome

    from koupleless.container.container import Container


class Running:
    """A container with one module."""

    def bizs(self) -> tuple[BizInfo, ...]:
        shop = BizInfo(id=BizId.of("shop", "1"), state=BizState.ACTIVATED, entry="shop:app", web_context_path="/shop")
        return (shop,)


@pytest.fixture
def environments() -> Environments:
    return Environments()


@pytest.fixture
def env(environments: Environments, arkctl: Callable[..., Outcome]) -> Iterator[Callable[..., Outcome]]:
    operations = Operations(cast("Container", Running()), BaseMetadata(identity="me"), environments=environments)
    server = ArkletServer(operations, port=0)
    port = server.start()
    try:
        yield lambda *arguments: arkctl("env", *arguments, "--port", port)
    finally:
        server.stop()
        operations.close()


def test_values_are_set_and_unset_and_names_are_shown(
    env: Callable[..., Outcome], environments: Environments, tmp_path: Any
) -> None:
    environments.keep("shop", {}, project={"P": "s3cret"})
    (tmp_path / "more.env").write_text("B=s3cret\nA=weaker\n")
    changed = env("shop", "set", "A=s3cret=", "--env-file", tmp_path / "more.env", "-v")
    assert environments.of("shop").given == {"A": "s3cret=", "B": "s3cret"}
    assert changed.out.splitlines() == [
        "A  kept",
        "B  kept",
        "P  from the env-file of the project",
        "shop:1 runs with the values from its start; to use the change: arkctl restart shop",
    ]
    assert "s3cret" not in changed.out + changed.err
    gone = env("shop", "unset", "A", "Z")
    assert gone.out.startswith("Z has no kept value\nB  kept\n")
    assert env("shop").out == "B  kept\nP  from the env-file of the project\n"
    assert env("other", "-o", "json").out == '{"bizName":"other","names":[],"projectNames":[],"running":[]}\n'


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--restart"],
        ["set"],
        ["unset"],
        ["list", "A"],
        ["unset", "A", "--env-file", "x"],
        ["set", "s3cret"],
        ["set", "=x"],
    ],
)
def test_wrong_usage_sends_nothing(
    env: Callable[..., Outcome], environments: Environments, arguments: list[str]
) -> None:
    outcome = env("shop", *arguments)
    assert outcome.status == 2
    assert "s3cret" not in outcome.err


@pytest.mark.parametrize("name", ["../shop", "a/b", " "])
def test_an_impossible_name_is_refused(env: Callable[..., Outcome], name: str) -> None:
    outcome = env(name, "set", "A=s3cret")
    assert outcome.status == 1
    assert "s3cret" not in outcome.err

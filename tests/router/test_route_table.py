"""The route table is a value: look-up by host and path segments, and change by replacement."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.errors import PathTaken
from koupleless.router.gateway import Forwards, Rule
from koupleless.router.table import Route, RouteTable, normalise_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.router.gate import Gate


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers nothing."""


@pytest.fixture
def table_of(gate_of: Callable[..., Gate]) -> Callable[..., RouteTable]:
    def make(*paths: str | tuple[str, str]) -> RouteTable:
        table = RouteTable()
        for entry in paths:
            host, path = entry if isinstance(entry, tuple) else (None, entry)
            name = f"{host or ''}{path}".strip("/").replace("/", "_").replace(".", "_") or "root"
            table = table.with_route(Route.to(gate_of(nothing), path=path, biz=BizId.parse(f"{name}:1"), host=host))
        return table

    return make


def found(table: RouteTable, path: str, host: str = "") -> str | None:
    route = table.match(host, path)
    return None if route is None else str(route.biz)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", "a:1"),
        ("/a/", "a:1"),
        ("/a/x/y", "a:1"),
        ("/ab", None),
        ("/a/b", "a_b:1"),
        ("/a/b/", "a_b:1"),
        ("/a/bc", "a:1"),
        ("/a/b/c", "a_b:1"),
        ("/a/b/c/d", "a_b_c_d:1"),
        ("/a/b/c/d/e/f", "a_b_c_d:1"),
        ("/a//b", "a:1"),
        ("//a", None),
        ("/", None),
        ("", None),
        ("*", None),
        ("/A", None),
    ],
)
def test_the_longest_prefix_of_whole_segments_wins(
    table_of: Callable[..., RouteTable], path: str, expected: str | None
) -> None:
    assert found(table_of("/a", "/a/b", "/a/b/c/d"), path) == expected


def test_the_root_takes_what_no_other_path_does(table_of: Callable[..., RouteTable]) -> None:
    table = table_of("/", "/a")

    assert [found(table, path) for path in ("/", "", "/x", "/x/y", "/a", "/a/y")] == ["root:1"] * 4 + ["a:1"] * 2


def test_a_hosts_own_routes_come_before_those_of_any_host(table_of: Callable[..., RouteTable]) -> None:
    table = table_of("/a", "/a/b", ("Shop.Example", "/a"))

    assert found(table, "/a/b/c", "shop.example") == "Shop_Example_a:1"
    assert found(table, "/a/b/c", "other.example") == "a_b:1"
    assert found(table, "/a", "other.example") == "a:1"


def test_a_host_without_such_a_path_falls_back_to_the_routes_of_any_host(table_of: Callable[..., RouteTable]) -> None:
    table = table_of("/a", ("shop.example", "/b"))

    assert found(table, "/a", "shop.example") == "a:1"
    assert found(table, "/b", "other.example") is None


def test_a_path_of_another_identity_is_taken_and_the_error_says_whose_it_is(
    table_of: Callable[..., RouteTable], gate_of: Callable[..., Gate]
) -> None:
    table = table_of("/a")

    with pytest.raises(PathTaken) as caught:
        table.with_route(Route.to(gate_of(nothing), path="a/", biz=BizId.parse("other:1")))

    assert (caught.value.identity, caught.value.path, caught.value.owner) == ("other:1", "/a", "a:1")


def test_the_same_path_on_another_host_is_free(table_of: Callable[..., RouteTable]) -> None:
    table = table_of("/a", ("one.example", "/a"), ("two.example", "/a"))

    assert table.owner_of("/a") == BizId.parse("a:1")
    assert table.owner_of("/a", host="one.example") == BizId.parse("one_example_a:1")
    assert table.owner_of("/a", host="three.example") is None


def test_another_version_takes_a_path_over_when_the_gate_that_has_it_leaves(
    table_of: Callable[..., RouteTable], gate_of: Callable[..., Gate]
) -> None:
    old = table_of("/a")
    (held,) = old.routes
    new = old.without(held.gate).with_route(Route.to(gate_of(nothing), path="/a", biz=BizId.parse("a:2")))

    assert (found(old, "/a"), found(new, "/a")) == ("a:1", "a:2")
    assert len(new.routes) == 1


def test_a_gate_leaves_with_all_its_routes(gate_of: Callable[..., Gate], table_of: Callable[..., RouteTable]) -> None:
    gate = gate_of(nothing)
    before = table_of("/a", ("one.example", "/a"))
    table = before
    for host, path in ((None, "/b"), (None, "/c/d"), ("one.example", "/b"), ("two.example", "/b")):
        table = table.with_route(Route.to(gate, path=path, biz=BizId.parse("b:1"), host=host))

    after = table.without(gate)

    assert after == before
    assert before.without(gate) is before


def test_forward_rules_are_part_of_the_table_and_survive_its_changes(table_of: Callable[..., RouteTable]) -> None:
    table = table_of("/a")
    assert table.is_plain

    forwarding = table.with_forwards(Forwards.of([Rule("/a")]))
    route = forwarding.routes[0]

    assert not forwarding.is_plain
    assert len(forwarding.without(route.gate).with_route(route).forwards) == 1


@pytest.mark.parametrize(
    ("given", "expected"), [("/", ""), ("", ""), ("a", "/a"), ("/a/", "/a"), ("a/b//", "/a/b"), ("//a", "/a")]
)
def test_paths_have_one_spelling(given: str, expected: str) -> None:
    assert normalise_path(given) == expected


def test_a_path_of_endless_segments_is_looked_up_in_time_that_does_not_explode(
    table_of: Callable[..., RouteTable],
) -> None:
    table = table_of("/a", "/a/b/c")
    path = "/x" * 500_000  # trying every prefix of it would take hours
    began = time.perf_counter()

    assert found(table, path) is None
    assert time.perf_counter() - began < 1


def test_a_table_says_what_it_holds(table_of: Callable[..., RouteTable]) -> None:
    assert repr(table_of("/a", ("one.example", "/a"))) == "<RouteTable 2 routes, 1 hosts, 0 forwards>"

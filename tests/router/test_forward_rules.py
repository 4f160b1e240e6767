"""The gateway's rules, by the tables of its specification."""

from __future__ import annotations

from typing import Any

import pytest

from koupleless.errors import SettingsError
from koupleless.router.gateway import Forward, Forwards, Rule, expand, read_rules


@pytest.mark.parametrize(
    ("start", "to", "path", "inside"),
    [
        ("/", "/", "/a/b", "/a/b"),
        ("/idx2", "/", "/idx2", "/"),
        ("/idx2", "/", "/idx2/x", "/x"),
        ("/t2", "/timestamp", "/t2/x", "/timestamp/x"),
        ("/t2", "/timestamp", "/t2", "/timestamp"),
        ("/api", "/api", "/api/x", "/api/x"),
        ("/", "/v1", "/x", "/v1/x"),
        ("/", "/v1", "/", "/v1"),
        ("/idx2", "/", "/idx2//x", "//x"),
        ("/idx2", "/v/", "/idx2/x", "/v/x"),
    ],
)
def test_a_path_becomes_what_the_rule_says(start: str, to: str, path: str, inside: str) -> None:
    forward = Forward("/biz1", "", start, to)

    assert forward.applies("any.example", path)
    assert forward.target(path) == inside


@pytest.mark.parametrize(
    ("host", "asked", "applies"),
    [
        ("", "a.example.com", True),
        ("", "", True),
        ("a", "a", True),
        ("a", "a.example.com", True),
        ("a.example", "a.example.com", True),
        ("a", "ab.example.com", False),
        ("example.com", "a.example.com", False),
        ("a", "A.example.com", False),
        ("a", "", False),
    ],
)
def test_a_rules_host_is_a_prefix_of_labels(host: str, asked: str, applies: bool) -> None:
    assert Forward("/biz1", host, "/", "/").applies(asked, "/x") is applies


@pytest.mark.parametrize(
    ("start", "path", "applies"),
    [
        ("/idx", "/idx", True),
        ("/idx", "/idx/", True),
        ("/idx", "/idx/x", True),
        ("/idx", "/idx2", False),
        ("/idx/", "/idx/", True),
        ("/idx/", "/idx/x", False),
        ("/idx/", "/idx", False),
        ("/", "/", True),
        ("/", "/anything", True),
    ],
)
def test_a_rules_path_is_a_prefix_of_segments(start: str, path: str, applies: bool) -> None:
    assert Forward("/biz1", "", start, "/").applies("", path) is applies


def test_a_rule_becomes_one_forward_per_host_and_path() -> None:
    forwards = expand([Rule("/biz1", hosts=("a", "b"), paths=(("/x", "/"), ("/y", "/z")))])

    assert [(forward.host, forward.start, forward.to) for forward in forwards] == [
        ("a", "/x", "/"),
        ("a", "/y", "/z"),
        ("b", "/x", "/"),
        ("b", "/y", "/z"),
    ]


def test_forwards_are_tried_with_a_host_first_then_by_length_of_path_and_of_host_then_as_configured() -> None:
    rules = [
        Rule("/1", paths=(("/long/path", "/"), ("/", "/"))),
        Rule("/2", hosts=("a",)),
        Rule("/3", hosts=("a.long.host",)),
        Rule("/4", hosts=("a",), paths=(("/x", "/"),)),
        Rule("/5", hosts=("b",)),
        Rule("/6", paths=(("/same/size", "/"),)),
    ]

    tried = [(forward.context_path, forward.start) for forward in expand(rules)]

    assert tried == [
        ("/4", "/x"),
        ("/3", "/"),
        ("/2", "/"),
        ("/5", "/"),
        ("/1", "/long/path"),
        ("/6", "/same/size"),
        ("/1", "/"),
    ]


def test_the_rules_of_modules_come_before_the_bases_and_leave_with_their_module() -> None:
    base = Forwards.of([Rule("/base", hosts=("a",))])
    both = base.with_module("biz1:1", [Rule("/biz1")])

    def context_path(forwards: Forwards) -> str | None:
        forward = forwards.find("a.example", "/x")
        return None if forward is None else forward.context_path

    assert (context_path(base), context_path(both)) == ("/base", "/biz1")
    assert context_path(both.without_module("biz1:1")) == "/base"
    assert Forwards().find("a", "/x") is None
    assert (len(both), len(base)) == (2, 1)


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"contextPath": "biz1"}, Rule("/biz1")),
        ({"context-path": "/biz1", "hosts": "a, b"}, Rule("/biz1", ("a", "b"))),
        ({"contextPath": "biz1", "hosts": ["a"], "paths": None}, Rule("/biz1", ("a",))),
        (
            {"contextPath": "biz2", "paths": [{"from": "/idx2", "to": "/"}, {"from": "t2"}, {"from": "a", "to": "b"}]},
            Rule("/biz2", (), (("/idx2", "/"), ("/t2", "/t2"), ("/a", "/b"))),
        ),
    ],
)
def test_a_configured_rule_is_normalised(entry: dict[str, Any], rule: Rule) -> None:
    assert Rule.parse(entry) == rule


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"hosts": ["a"]}, "needs a contextPath"),
        ({"contextPath": ""}, "needs a contextPath"),
        ({"contextPath": "a", "hosts": {"x": 1}}, "hosts is a list"),
        ({"contextPath": "a", "paths": ["/x"]}, "pairs of 'from' and 'to'"),
        ({"contextPath": "a", "paths": [{"to": "/x"}]}, "pairs of 'from' and 'to'"),
    ],
)
def test_a_rule_of_the_wrong_shape_is_refused_in_words(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        Rule.parse(entry, origin="shop.yml: forwards[0]")
    assert str(caught.value).startswith("shop.yml: forwards[0]")


@pytest.mark.parametrize(
    "configuration",
    [
        {
            "koupleless.web.gateway.forwards": [
                {"contextPath": "biz1", "hosts": ["a", "b"]},
                {"contextPath": "biz2", "paths": [{"from": "/idx2", "to": "/"}, {"from": "/t2"}]},
            ]
        },
        {
            "koupleless.web.gateway.forwards[1].paths[1].from": "/t2",
            "koupleless.web.gateway.forwards[1].paths[0].from": "/idx2",
            "koupleless.web.gateway.forwards[1].paths[0].to": "/",
            "koupleless.web.gateway.forwards[1].contextPath": "biz2",
            "koupleless.web.gateway.forwards[0].contextPath": "biz1",
            "koupleless.web.gateway.forwards[0].hosts": "a,b",
            "koupleless.web.gateway.other": "x",
        },
        {
            "KOUPLELESS_WEB_GATEWAY_FORWARDS_0_CONTEXT_PATH": "biz1",
            "KOUPLELESS_WEB_GATEWAY_FORWARDS_0_HOSTS_0": "a",
            "KOUPLELESS_WEB_GATEWAY_FORWARDS_0_HOSTS_1": "b",
            "KOUPLELESS_WEB_GATEWAY_FORWARDS_1_CONTEXTPATH": "biz2",
            "KOUPLELESS_WEB_GATEWAY_FORWARDS_1_PATHS_0_FROM": "/idx2",
            "KOUPLELESS_WEB_GATEWAY_FORWARDS_1_PATHS_0_TO": "/",
            "KOUPLELESS_WEB_GATEWAY_FORWARDS_1_PATHS_1_FROM": "/t2",
            "koupleless.web.gateway.forwards": [{"contextPath": "weaker"}],
        },
    ],
    ids=["list", "properties", "variables"],
)
def test_rules_are_read_from_a_configuration_in_each_spelling(configuration: dict[str, object]) -> None:
    assert read_rules(configuration) == (
        Rule("/biz1", hosts=("a", "b")),
        Rule("/biz2", paths=(("/idx2", "/"), ("/t2", "/t2"))),
    )


def test_a_configuration_without_rules_has_none() -> None:
    assert read_rules({"server.port": 1}) == ()


@pytest.mark.parametrize(
    ("configuration", "says"),
    [
        ({"koupleless.web.gateway.forwards": ["biz1"]}, "every rule is a table with a contextPath, not 'biz1'"),
        ({"koupleless.web.gateway.forwards": 3}, "rules is a list, not 3"),
        ({"koupleless.web.gateway.forwards[0].host": "a"}, "forwards[0].host is no part of a rule"),
        ({"koupleless.web.gateway.forwards.contextPath": "a"}, "forwards.contextPath is no part of a rule"),
        ({"koupleless.web.gateway.forwards[0].hosts": "a"}, "every rule needs a contextPath"),
    ],
)
def test_a_configured_rule_that_cannot_be_read_is_named_with_its_origin(
    configuration: dict[str, object], says: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_rules(configuration, origin="hello:1.0")
    assert str(caught.value).startswith("hello:1.0: ")
    assert says in str(caught.value)


def test_a_module_without_rules_changes_nothing() -> None:
    forwards = Forwards.of([Rule("/base")])

    assert forwards.with_module("a:1", ()) is forwards
    assert forwards.without_module("a:1") is forwards

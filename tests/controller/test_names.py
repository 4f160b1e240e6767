"""Texts of bases that Kubernetes refuses are mapped to texts that it takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koupleless.controller.names import identity_of, is_env, label_value, node_name

LABEL = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("shop", "shop"),
        ("1.0+build", "1.0_build"),
        ("two words", "two-words"),
        ("-edges.", "edges"),
        ("", ""),
        ("grüße", "gr--e"),
        ("☃", ""),
    ],
)
def test_a_label_is_as_near_to_the_text_as_can_be(text: str, value: str) -> None:
    assert label_value(text) == value


@given(st.text(max_size=200))
def test_kubernetes_takes_any_mapped_label(text: str) -> None:
    value = label_value(text)
    assert len(value) <= 63
    assert LABEL.fullmatch(value)


def test_long_labels_that_differ_at_the_end_stay_different() -> None:
    values = {label_value("v" * 80 + end) for end in ("-a", "-b")}
    assert len(values) == 2


@pytest.mark.parametrize("identity", ["10.0.0.7", "base-1", "a.b.c"])
def test_the_name_of_a_node_shows_the_identity(identity: str) -> None:
    name = node_name(identity, "dev")
    assert name == f"vnode.{identity}.dev"
    assert identity_of(name, {}) == identity


@given(st.text(max_size=300), st.text(max_size=300))
def test_kubernetes_takes_any_name_and_bases_keep_apart(one: str, other: str) -> None:
    names = [node_name(text, "dev") for text in (one, other)]
    assert all(len(name) <= 253 and SUBDOMAIN.fullmatch(name) for name in names)
    assert (names[0] == names[1]) == (one == other)


def test_a_mapped_identity_is_told_by_the_annotation() -> None:
    name = node_name("Base One", "dev")
    assert name != "vnode.Base One.dev"
    assert identity_of(name, {"base.koupleless.io/identity": "Base One"}) == "Base One"


@pytest.mark.parametrize(("name", "identity"), [("worker-1", ""), ("vnode.10.0.0.7.dev", "10.0.0.7"), ("vnode", "")])
def test_nodes_of_others_have_no_identity(name: str, identity: str) -> None:
    assert identity_of(name, {}) == identity


@pytest.mark.parametrize(
    ("text", "is_one"), [("dev", True), ("prod-2", True), ("a.b", False), ("Dev", False), ("", False)]
)
def test_an_env_is_one_part_of_a_name(text: str, *, is_one: bool) -> None:
    assert is_env(text) is is_one

"""Reading requests as leniently as the field's clients need."""

from __future__ import annotations

from typing import Any

import pytest

from koupleless.wire.envelope import InputInvalid, decode_body
from koupleless.wire.requests import BatchInstallBiz, HealthQuery, InstallBiz, UninstallBiz, is_blank, read


def test_everything_has_its_default() -> None:
    request = read(InstallBiz, None)

    assert request == InstallBiz()
    assert (request.is_async, request.install_strategy, request.args, request.envs) == (
        False,
        "installOnly",
        None,
        None,
    )
    assert request.identity == "null:null"


@pytest.mark.parametrize("key", ["bizName", "BizName", "bizname", "BIZNAME", "biz_name", "biz-name", "_biz-Name"])
def test_keys_match_whatever_their_spelling(key: str) -> None:
    assert read(UninstallBiz, {key: "shop"}).biz_name == "shop"


def test_the_exact_spelling_wins() -> None:
    assert read(UninstallBiz, {"BIZNAME": "other", "bizName": "shop", "biz_name": "third"}).biz_name == "shop"


def test_unknown_keys_are_ignored() -> None:
    assert read(UninstallBiz, {"HostName": "127.0.0.1", "Port": 1238, "bizUrl": []}) == UninstallBiz()


@pytest.mark.parametrize("key", ["async", "isAsync", "is_async", "ASYNC", "IsAsync"])
def test_a_flag_may_be_called_is_something(key: str) -> None:
    assert read(UninstallBiz, {key: True}).is_async


def test_only_a_flag_may() -> None:
    assert read(UninstallBiz, {"isBizName": "x"}).biz_name is None


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (5, "5"), (1.5, "1.5"), (True, "true"), (False, "false"), ({"a": 1}, '{"a":1}'), ([1], "[1]"),
     ("", "")],
)  # fmt: skip
def test_almost_anything_does_for_a_text(value: object, text: str) -> None:
    assert read(UninstallBiz, {"bizName": value}).biz_name == text


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), ("true", True), ("True", True), ("1", True), (1, True), (1.0, True), ("Y", True),
     (False, False), ("false", False), (0, False), (2, False), ("", False), ("0", False), ("null", False),
     (None, False)],
)  # fmt: skip
def test_what_counts_as_true(value: object, flag: bool) -> None:
    assert read(UninstallBiz, {"async": value}).is_async is flag


@pytest.mark.parametrize("value", ["yes", "on", [], {}, " "])
def test_what_is_no_flag_is_refused(value: object) -> None:
    with pytest.raises(InputInvalid, match="async must be true or false"):
        read(UninstallBiz, {"async": value})


@pytest.mark.parametrize(
    ("value", "texts"), [(["a", 1, True], ["a", "1", "true"]), ([], []), (None, None), ("a", None), ("", None)]
)
def test_a_list_is_a_list_and_a_bare_text_is_nothing(value: object, texts: list[str] | None) -> None:
    assert read(InstallBiz, {"args": value}).args == texts


@pytest.mark.parametrize("value", ["--x=1", "-v", " --x", "5", 5, {}, True, 1.5])
def test_what_was_plainly_meant_as_an_argument_is_refused_not_lost(value: object) -> None:
    with pytest.raises(InputInvalid, match="args must be an array of texts"):
        read(InstallBiz, {"args": value})


def test_a_null_in_a_list_is_left_out() -> None:
    assert read(InstallBiz, {"args": ["a", None, 1]}).args == ["a", "1"]
    assert read(InstallBiz, {"args": [None]}).args == []


@pytest.mark.parametrize("key", ["envs", "env", "ENVS", "Env"])
def test_the_environment_is_read_under_both_names(key: str) -> None:
    assert read(InstallBiz, {key: {"A": "b", "N": 1, "F": False, "gone": None}}).envs == {
        "A": "b",
        "N": "1",
        "F": "false",
    }


def test_envs_wins_over_env() -> None:
    assert read(InstallBiz, {"env": {"A": "1"}, "envs": {"A": "2"}}).envs == {"A": "2"}


@pytest.mark.parametrize("value", [[], "a=b", "", 1, True])
def test_an_environment_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InputInvalid, match="envs must be an object of texts"):
        read(InstallBiz, {"envs": value})


def test_health_filters_are_read_under_both_names() -> None:
    assert read(HealthQuery, {"moduleName": "a", "moduleVersion": "1"}) == HealthQuery(biz_name="a", biz_version="1")
    assert read(HealthQuery, {"moduleName": "a", "bizName": "b"}).biz_name == "b"
    assert read(UninstallBiz, {"moduleName": "a"}).biz_name is None


def test_null_leaves_the_default_except_for_the_strategy() -> None:
    request = read(InstallBiz, {"bizName": None, "async": None, "args": None, "installStrategy": None})

    assert request == InstallBiz(install_strategy=None)


def test_elements_of_a_batch_are_read_alike() -> None:
    request = read(BatchInstallBiz, {"biz-list": [{"BIZNAME": 5, "env": {"a": 1}}]})

    assert request.biz_list == [InstallBiz(biz_name="5", envs={"a": "1"})]
    assert read(BatchInstallBiz, {"bizList": "x"}).biz_list is None


def test_a_request_describes_itself_without_what_it_does_not_have() -> None:
    assert InstallBiz(biz_url="u", is_async=True, request_id="r", args=["a"]).describe() == {
        "args": ["a"],
        "async": True,
        "bizUrl": "u",
        "installStrategy": "installOnly",
        "requestId": "r",
    }


@pytest.mark.parametrize(("text", "blank"), [(None, True), ("", True), (" \t\n", True), ("x", False), (" x", False)])
def test_blank_means_nothing_but_white_space(text: str | None, blank: bool) -> None:
    assert is_blank(text) is blank


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b"", None), (b"null", None), (b"{}", {}), (b"\xef\xbb\xbf", None), (b'\xef\xbb\xbf {"a": [1]} ', {"a": [1]}),
     (b'{"a":1,"a":2}', {"a": 2})],
)  # fmt: skip
def test_bodies_that_are_read(raw: bytes, value: Any) -> None:
    assert decode_body(raw) == value


@pytest.mark.parametrize("raw", [b" ", b"[]", b"1", b'"x"', b"true", b"{} {}", b"{a:1}", b"NaN", b'{"a":"\xff"}',
                                 b"\xef\xbb\xbf\xef\xbb\xbf{}", b"[" * 50_000, b'{"a":"\\ud800"}'])  # fmt: skip
def test_bodies_that_are_not(raw: bytes) -> None:
    with pytest.raises(InputInvalid, match="the body"):
        decode_body(raw)

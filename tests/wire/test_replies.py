"""Replies as they are written, and as those of any arklet are read."""

from __future__ import annotations

import json

import pytest

from koupleless.biz import BizId, BizState, ChangeReason
from koupleless.descriptions import BizInfo, StateRecord
from koupleless.wire import replies
from koupleless.wire.envelope import (
    Code,
    Envelope,
    ReplyInvalid,
    ResponseCode,
    decode_envelope,
    encode,
    without_nulls,
)

JAVA_BIZ = {
    "bizName": "biz1",
    "bizState": "activated",
    "bizStateRecords": [
        {"changeTime": 1718000000123, "message": "", "reason": "Created", "state": "resolved"},
        {"changeTime": 1718000001456, "message": "", "reason": "STARTED", "state": "ACTIVATED"},
    ],
    "bizVersion": "0.0.1",
    "mainClass": "com.example.Biz1Application",
    "webContextPath": "biz1",
}


def biz() -> BizInfo:
    return BizInfo(
        BizId.of("shop", "1.0"),
        BizState.ACTIVATED,
        "shop.app:app",
        web_context_path="/shop",
        records=(StateRecord(1718000000123, BizState.RESOLVED, ChangeReason.CREATED),),
        declared_libraries=("numpy",),
        deny_imports=("secret",),
        attributes={"team": "a"},
    )


def test_an_envelope_is_compact_and_leaves_out_what_it_has_not() -> None:
    assert encode(Envelope(code=Code.FAILED, message="no")) == b'{"code":"FAILED","message":"no"}'
    assert encode(Envelope(code=Code.INTERNAL_ERROR, error_stack_trace="t", message="m")) == (
        b'{"code":"CMD_PROCESS_INTERNAL_ERROR","message":"m","errorStackTrace":"t"}'
    )


def test_values_that_equal_a_default_are_written() -> None:
    data = replies.InstallData(code=ResponseCode.FAILED, message="", elapsed_space=0)

    assert json.loads(encode(data)) == {"code": "FAILED", "message": "", "elapsedSpace": 0}


def test_a_biz_is_written_with_all_members_of_the_original() -> None:
    written = json.loads(encode(replies.BizDetails.of(biz())))

    assert written == {
        "attributes": {"team": "a"},
        "bizName": "shop",
        "bizState": "ACTIVATED",
        "bizStateRecords": [{"changeTime": 1718000000123, "message": "", "reason": "Created", "state": "RESOLVED"}],
        "bizTempWorkDir": "",
        "bizUrl": "",
        "bizVersion": "1.0",
        "classPath": [],
        "declaredMode": True,
        "denyImportClasses": [],
        "denyImportPackageNodes": [],
        "denyImportPackageStems": [],
        "denyImportPackages": ["secret"],
        "denyImportResources": [],
        "denyPrefixImportResourceStems": [],
        "denySuffixImportResourceStems": [],
        "identity": "shop:1.0",
        "injectExportPackages": [],
        "injectPluginDependencies": [],
        "mainClass": "shop.app:app",
        "priority": 100,
        "webContextPath": "/shop",
    }


def test_what_is_written_can_be_read() -> None:
    for kind in (replies.BizDetails, replies.BizInfo, replies.BizHealth):
        value = kind.of(biz())
        assert replies.decode_data(json.loads(encode(value)), kind) == value


def test_text_that_is_no_unicode_is_written_with_escapes() -> None:
    envelope = Envelope(code=Code.FAILED, message="caf\udce9", data={"\udcff": ["\udcfe", 1]})

    assert json.loads(encode(envelope)) == {
        "code": "FAILED",
        "message": "caf\\udce9",
        "data": {"\\udcff": ["\\udcfe", 1]},
    }


def test_other_text_is_written_as_it_is() -> None:
    assert encode({"message": "模块"}) == '{"message":"模块"}'.encode()


def test_states_of_the_original_are_read_whatever_their_case() -> None:
    (read,) = replies.decode_data([JAVA_BIZ], list[replies.BizInfo])

    assert read.biz_state is BizState.ACTIVATED
    assert [record.state for record in read.biz_state_records] == [BizState.RESOLVED, BizState.ACTIVATED]
    assert [record.reason for record in read.biz_state_records] == [ChangeReason.CREATED, ChangeReason.STARTED]
    assert read.identity == "biz1:0.0.1"


def test_members_that_are_missing_or_null_or_unknown_do_no_harm() -> None:
    read = replies.decode_data({"bizName": "x", "mainClass": None, "news": {}}, replies.BizInfo)

    assert read == replies.BizInfo(biz_name="x")


def test_an_unknown_reason_is_undefined_and_an_unknown_state_refused() -> None:
    record = {"changeTime": 1, "reason": "Abducted", "state": "resolved"}
    assert replies.decode_data(record, replies.StateRecord).reason is ChangeReason.UNDEFINE
    with pytest.raises(ReplyInvalid, match="the reply's data cannot be read"):
        replies.decode_data({"bizName": "x", "bizState": "vanished"}, replies.BizInfo)


@pytest.mark.parametrize("raw", [b"", b"[]", b"<html>", b"{}", b'{"code":"GREAT"}', b'{"code":"FAILED","message":1}'])
def test_what_is_no_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(ReplyInvalid, match="no arklet envelope"):
        decode_envelope(raw)


def test_a_final_status_is_one_that_nothing_follows() -> None:
    assert [status.name for status in replies.OpsStatus if status.is_final] == ["SUCCEEDED", "FAILED"]


def test_nulls_are_left_out_at_every_depth() -> None:
    assert without_nulls({"a": None, "b": [{"c": None, "d": 1}], "e": (None,)}) == {"b": [{"d": 1}], "e": [None]}

"""The short list of modules sent over MQTT."""

from __future__ import annotations

import msgspec

from koupleless.announce.letters import simple_list
from koupleless.wire.replies import BizInfo


def test_the_health_is_in_the_list_where_known() -> None:
    unknown = BizInfo(biz_name="prices", biz_version="1")
    (one, other) = simple_list([unknown, msgspec.structs.replace(unknown, health="DOWN")])
    assert one == {"name": "prices", "version": "1", "state": "UNRESOLVED", "latestStateRecord": None}
    assert other == {**one, "health": "DOWN"}

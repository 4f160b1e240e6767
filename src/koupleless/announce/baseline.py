"""The baseline: the modules that a controller wants in a base, and their place among those the base has anyway.

Static modules, of the settings of the base, are stronger than the baseline, and the baseline is stronger than modules
of former times, of the journal. Modules that no baseline names stay: a controller removes strays by itself.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from koupleless.announce.fortune import logger
from koupleless.arklet.orders import absent
from koupleless.artifact.fetching.locations import without_secrets
from koupleless.biz import BizId
from koupleless.container.terms import Strategy
from koupleless.errors import InvalidIdentity
from koupleless.wire.envelope import Code, Envelope, ResponseCode, encode
from koupleless.wire.replies import BatchData, BatchEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koupleless.arklet.operations import Operations
    from koupleless.container.container import Container
    from koupleless.wire.requests import InstallBiz


class Baseline:
    """Brings the modules of baselines into one container, by the batch install that every caller may order.

    Lifetime: of the base. Any thread may call; a batch takes as long as its modules need.
    """

    def __init__(self, container: Container, operations: Operations) -> None:
        self._container = container
        self.operations = operations
        """The commands of the base."""

    def wishes(self, wanted: Sequence[InstallBiz]) -> dict[BizId, str]:
        """The identities of a baseline with their URLs, without those for which a static module stands."""
        static = self._static()
        named = ((_identity(each), each.biz_url) for each in wanted)
        return {biz: url for biz, url in named if biz is not None and url and biz.name not in static}

    def bring(self, wanted: Sequence[InstallBiz]) -> Envelope:
        """Install the modules that are missing; returns the reply to the batch. Never raises.

        A module takes the place of other versions of its name, unless the baseline has several of them. A module that
        is there already is left alone, and the reply says so, as to every install.
        """
        static, versions = self._static(), Counter(each.biz_name for each in wanted)
        there = {info.id for info in self._container.bizs()}
        refused, batch = [], []
        for each in wanted:
            biz = _identity(each)
            if biz is not None and biz not in there and biz.name in static:
                refused.append(each)
                continue
            is_new = biz is not None and biz not in there and versions[each.biz_name] == 1
            strategy = Strategy.REPLACE if is_new else Strategy.INSTALL_ONLY
            batch.append(msgspec.structs.replace(each, install_strategy=strategy.value))
        request = {"bizList": [each.describe() for each in batch]}
        reply = self.operations.handle("batchInstallBiz", encode(request))
        _tell(reply, len(batch))
        return _with_refusals(reply, refused)

    def _static(self) -> set[str]:
        return {wanted.id.name for wanted in self._container.book.standing().static}


def _identity(request: InstallBiz) -> BizId | None:
    try:
        return BizId.of(request.biz_name or "", request.biz_version or "")
    except InvalidIdentity:
        return None


def _tell(reply: Envelope, number: int) -> None:
    """Write one line: how many modules of the baseline are there, and why others are not."""
    if not isinstance(reply.data, BatchData):
        logger.warning("the baseline of the controller cannot be installed: %s", reply.message)
        return
    entries = reply.data.biz_url_to_response
    failed = {
        url: entry.message
        for url, entry in entries.items()
        if entry.code not in (ResponseCode.SUCCESS, ResponseCode.REPEAT_BIZ)
    }
    if failed:
        reasons = "; ".join(f"{without_secrets(url)}: {message}" for url, message in failed.items())
        logger.warning("%s of %s modules that the controller wants are not there: %s", len(failed), number, reasons)
    elif number:
        logger.info("%s modules that the controller wants are there", number)


def _with_refusals(reply: Envelope, refused: Sequence[InstallBiz]) -> Envelope:
    """The reply with an entry for each module whose name belongs to a static module."""
    if not refused or not isinstance(reply.data, BatchData):
        return reply
    entries: dict[str, Any] = dict(reply.data.biz_url_to_response)
    for each in refused:
        said = f"the settings of the base name another {each.biz_name}, which stays"
        logger.warning("%s:%s, which the controller wants, is not installed: %s", each.biz_name, each.biz_version, said)
        entries[each.biz_url or ""] = BatchEntry(
            code=ResponseCode.FAILED, message=said, biz_infos=[absent(each.biz_name or "", each.biz_version or "")]
        )
    data = msgspec.structs.replace(
        reply.data, code=ResponseCode.FAILED, message="batch install failed", biz_url_to_response=entries
    )
    return msgspec.structs.replace(reply, code=Code.FAILED, message="install biz not success!", data=data)

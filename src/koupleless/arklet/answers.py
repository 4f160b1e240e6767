"""Results and errors of the container, as the wire spells them; the one map from errors to replies."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

from koupleless.arklet.health import HealthRefused
from koupleless.arklet.records import RunRepeated, TooManyRuns, chain
from koupleless.errors import (
    BizBusy,
    BizFailed,
    BizNotFound,
    BizRepeated,
    EndRefused,
    IdentityMismatch,
    IllegalMove,
    InvalidIdentity,
    KouplelessError,
    MasterBizProtected,
    NoVersionBefore,
    code_of,
)
from koupleless.wire.envelope import Code, Envelope, ResponseCode
from koupleless.wire.replies import (
    BatchData,
    BatchEntry,
    BizDetails,
    BizReply,
    Held,
    InstallData,
    PurgeReport,
    Resident,
)

if TYPE_CHECKING:
    from koupleless.container.terms import Installed
    from koupleless.ownership import purge


def explain(error: BaseException, command: str, *, base_identity: str) -> Envelope:
    """The reply to an error of ``command``: nowhere else does an error get a spelling on the wire."""
    verb = command.removesuffix("Biz").removeprefix("batch").lower()
    message = f"{verb} biz not success!"
    data: BizReply | None = None
    match error:
        case HealthRefused() | RunRepeated() | TooManyRuns() | NoVersionBefore() | EndRefused():
            message = str(error)
        case BizBusy():
            message = conflict(error, command)
        case BizRepeated():
            data = InstallData(code=ResponseCode.REPEAT_BIZ, message=repeated(error), elapsed_space=0)
        case IdentityMismatch() | InvalidIdentity():
            message = str(error)
            data = BizReply(code=ResponseCode.FAILED, message=message)
            if verb == "install":
                data = InstallData(code=data.code, message=message, elapsed_space=0)
        case MasterBizProtected():
            data = BizReply(code=ResponseCode.FAILED, message="Master biz must not be uninstalled.")
        case BizNotFound() if verb in ("uninstall", "switch"):
            said = f"{verb.capitalize()} biz: {error.identity} not found."
            data = BizReply(code=ResponseCode.NOT_FOUND_BIZ, message=said)
        case IllegalMove() if verb == "switch":
            said = f"Switch Biz: {error.identity}'s state must not be {error.state.lower()}."
            data = BizReply(code=ResponseCode.ILLEGAL_STATE_BIZ, message=said)
        case IllegalMove() if verb == "uninstall":
            return _internal_error(error, "BizState must be ACTIVATED, DEACTIVATED or BROKEN.")
        case _:
            return _internal_error(error, say(error))
    return Envelope(
        code=Code.FAILED, message=message, data=data, error_type=_type_of(error), base_identity=base_identity
    )


def without_recursion(reply: Envelope) -> Envelope:
    """Make a success of the reply to an uninstall of an absent module; the data still say that there was no module.

    The original controller repeats a failed uninstall of a module without a Pod from within, until its stack is
    exhausted. The original ``arkctl`` takes either reply.
    """
    if isinstance(reply.data, BizReply) and reply.data.code is ResponseCode.NOT_FOUND_BIZ:
        return Envelope(code=Code.SUCCESS, data=reply.data, base_identity=reply.base_identity)
    return reply


def _internal_error(error: BaseException, text: str) -> Envelope:
    return Envelope(
        code=Code.INTERNAL_ERROR,
        message=f"Internal Error: {text}",
        error_type=_type_of(error),
        error_stack_trace=_trace(error),
    )


def _type_of(error: BaseException) -> str | None:
    """The code of an error of the product; ``None`` for any other."""
    return code_of(type(error)) if isinstance(error, KouplelessError) else None


def _trace(error: BaseException) -> str:
    """The traceback for the caller: that of the biz; for an error raised on purpose, the chain of causes alone."""
    if isinstance(error, BizFailed) and error.traceback:
        return error.traceback
    if isinstance(error, KouplelessError):
        return "caused by ".join("".join(traceback.format_exception_only(link)) for link in chain(error))
    return "".join(traceback.format_exception(error))


def say(error: BaseException) -> str:
    """An error in words: errors of the product are sentences; of any other error, the innermost cause says most."""
    if isinstance(error, KouplelessError):
        return str(error)
    root = chain(error)[-1]
    return str(root) if isinstance(root, KouplelessError) else f"{type(root).__name__}: {root}".removesuffix(": ")


def entry_of_failure(error: BaseException, present: BizDetails) -> BatchEntry:
    """The entry of a batch for an element that was not installed; ``present`` is the biz in its present state."""
    code, message = ResponseCode.FAILED, f"internal exception: {say(error)}"
    if isinstance(error, BizRepeated):
        code, message = ResponseCode.REPEAT_BIZ, repeated(error)
    elif isinstance(error, BizBusy):
        message = conflict(error, "installBiz")
    return BatchEntry(code=code, message=message, biz_infos=[present])


def conflict(error: BizBusy, command: str) -> str:
    """The message for a command that comes while another command runs for the biz."""
    return f"FAILED:{error.identity} {command} conflict, exist unfinished command({error.operation}) for this biz"


def repeated(error: BizRepeated) -> str:
    """The message for an install of an identity that is taken."""
    return f"Biz: {error.identity} has been installed or registered."


def detail(envelope: Envelope) -> str:
    """The message of a failure together with the message of its data, which records of the original lose."""
    data = envelope.data
    if isinstance(data, BatchData):
        failed = {
            url: entry for url, entry in data.biz_url_to_response.items() if entry.code is not ResponseCode.SUCCESS
        }
        return "; ".join([data.message, *(f"{url.strip()}: {entry.message}" for url, entry in failed.items())])
    if isinstance(data, BizReply) and data.message != envelope.message:
        return f"{envelope.message} {data.code.value}: {data.message}"
    return envelope.message or envelope.code.value


def install_data(installed: Installed) -> InstallData:
    """The data of a successful install."""
    clock = time.strftime("%H:%M:%S", time.localtime(installed.started_at))
    milliseconds = int(installed.started_at * 1000) % 1000
    started = f"cost: {installed.elapsed_ms} ms, started at: {clock},{milliseconds:03}"
    return InstallData(
        code=ResponseCode.SUCCESS,
        message=f"Install Biz: {installed.info.id} success, {started}",
        elapsed_space=installed.grown_bytes,
        biz_infos=[BizDetails.of(installed.info)],
        replaced=[purge_report(report) for report in installed.replaced] or None,
        warnings=list(installed.warnings) or None,
    )


def purge_report(report: purge.PurgeReport) -> PurgeReport:
    """The purge report of a biz, as the wire spells the report."""
    return PurgeReport(
        biz=str(report.biz),
        clean=report.clean,
        summary=report.summary(),
        held=[Held(name=held.name, holders=list(held.holders), size_bytes=held.size_bytes) for held in report.held],
        undone=dict(report.undone),
        failures=list(report.failures),
        elapsed_ms=round(report.elapsed_ms, 3),
        ended=list(report.ended),
        changed=list(report.changed),
        compared=report.is_compared,
        stays=[Resident.of(one) for one in report.stays],
        notes=list(report.notes),
    )

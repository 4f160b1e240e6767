"""The commands of a base: one function each, from a wire request over the container to a wire reply.

Every transport calls `Operations.handle`, so no command differs between transports.
"""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from koupleless.arklet import answers
from koupleless.arklet.health import Health
from koupleless.arklet.records import Conflicts, Run, RunRepeated, Runs, describe_error
from koupleless.biz import BizId, BizState
from koupleless.container.process import resident_bytes
from koupleless.container.terms import Strategy
from koupleless.errors import (
    ArtifactError,
    BizBusy,
    BizNotFound,
    BizRepeated,
    FetchFailed,
    IdentityMismatch,
    InvalidIdentity,
    ManifestInvalid,
    MasterBizProtected,
)
from koupleless.recorders.running.threads import leave_workers_behind
from koupleless.wire.envelope import Code, Envelope, InputInvalid, ResponseCode, decode_body
from koupleless.wire.replies import (
    BatchData,
    BatchEntry,
    BizDetails,
    BizInfo,
    BizReply,
    HealthReply,
    HelpItem,
    UninstallData,
)
from koupleless.wire.requests import (
    BatchInstallBiz,
    BizRequest,
    HealthQuery,
    InstallBiz,
    OpsQuery,
    SwitchBiz,
    UninstallBiz,
    is_blank,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from koupleless.arklet.health import BaseMetadata
    from koupleless.container.container import Container
    from koupleless.container.starting.prepare import Prepared
    from koupleless.container.terms import Installed

Body = dict[str, object] | None
R = TypeVar("R")

WORKERS: Final = 50
BATCH_THREADS: Final = 8


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Command:
    """One entry of the command list."""

    id: str
    description: str
    run: Callable[[Operations, Body], Envelope]
    changes_bizs: bool = False
    """Whether the command runs alone for its biz, may run in the background, and may take long."""


class Operations:
    """All commands over one container.

    Lifetime: from the start of the base to its end, when `close` is called after the transports have stopped. Threads:
    `handle` may be called from any number at once and blocks as long as the container blocks; commands that change no
    biz return within a millisecond.
    """

    def __init__(
        self,
        container: Container,
        metadata: BaseMetadata,
        *,
        health: Health | None = None,
        runs: Runs | None = None,
    ) -> None:
        self.vitals = health or Health(container)
        numbers = itertools.count(1)
        self.workers = ThreadPoolExecutor(
            WORKERS,
            "ARKLET-ark-biz-ops",
            initializer=lambda: setattr(threading.current_thread(), "name", f"ARKLET-ark-biz-ops-0-T{next(numbers)}"),
        )
        """Threads for commands that change bizs, and for background runs."""
        self._container = container
        self._identity = metadata.identity
        self._conflicts = Conflicts()
        self._runs = runs or Runs()

    def changes_bizs(self, command: str) -> bool:
        """Whether `handle` may take long for this command."""
        return command in _BY_ID and _BY_ID[command].changes_bizs

    def handle(self, command: str, raw: bytes) -> Envelope:
        """Run one command on the bytes of its input. Never raises: errors become part of the envelope."""
        found = _BY_ID.get(command)
        if found is None:
            return Envelope(code=Code.CMD_NOT_FOUND, message="please follow the doc")
        try:
            return found.run(self, decode_body(raw))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the reply says what happened
            return answers.explain(error, command, base_identity=self._identity)

    def close(self) -> None:
        """Start nothing more; running commands go on to their end. Idempotent."""
        self.workers.shutdown(wait=False, cancel_futures=True)

    def leave_behind(self) -> None:
        """Let the process end without operations that do not end; after `close`, when all bizs were taken down."""
        leave_workers_behind(self.workers)

    # --- commands that change nothing ----------------------------------------------------------------------------

    def help(self, body: Body) -> Envelope:  # noqa: ARG002 - the input is ignored
        """Every command with its description."""
        return self._success([HelpItem(command.description, command.id) for command in COMMANDS])

    def query_all(self, body: Body) -> Envelope:
        """Every biz but the base, by priority; with the libraries of each for ``libraries``, a field of ours."""
        has_libraries = body is not None and body.get("libraries") is True
        bizs = [biz for biz in self._container.bizs() if not biz.is_base]
        return self._success([BizInfo.of(biz, has_libraries=has_libraries) for biz in bizs])

    def health(self, body: Body) -> Envelope:
        """The health of the base, of a biz, or of all."""
        return self._success(HealthReply(self.vitals.answer(read(HealthQuery, body))))

    def query_ops(self, body: Body) -> Envelope:
        """The record of a background run."""
        if body is None:
            raise InputInvalid("request is null")
        request_id = read(OpsQuery, body).request_id
        if request_id is None or is_blank(request_id):
            raise InputInvalid("requestId is blank")
        run = self._runs.find(request_id)
        if run is None:
            return self._failed("Not found the corresponding ops record.")
        return self._success(run.snapshot())

    # --- commands that change bizs -------------------------------------------------------------------------------

    def install(self, body: Body) -> Envelope:
        """Install one biz."""
        request = read(InstallBiz, body)
        _check_async(request)
        _check_install(request)
        if not is_blank(request.biz_name):
            expected = BizId.of(request.biz_name or "", request.biz_version or "")
            return self._perform("installBiz", request, lambda: self._do_install(request, expected))
        prepared = self._identify(request)
        name, version = prepared.id.name, prepared.id.version
        named = msgspec.structs.replace(request, biz_name=name, biz_version=version)
        return self._perform("installBiz", named, lambda: self._installed(prepared, named), unused=prepared.discard)

    def _identify(self, request: InstallBiz) -> Prepared:
        """Read the identity from the artefact, unless the request would be refused anyway."""
        if request.is_async and self._runs.find(request.request_id or "") is not None:
            raise RunRepeated(request.request_id or "")
        try:
            return self._prepare(request)
        except ManifestInvalid:
            raise
        except ArtifactError as error:
            raise InputInvalid(f"refresh biz info from jar failed: {error}") from error

    def _do_install(self, request: InstallBiz, expected: BizId) -> Envelope:
        if _strategy(request) is Strategy.INSTALL_ONLY:
            self._check_not_installed(expected)
        return self._installed(self._prepare(request, expected), request)

    def _installed(self, prepared: Prepared, request: InstallBiz) -> Envelope:
        return self._success(answers.install_data(self._start(prepared, request)))

    def batch_install(self, body: Body) -> Envelope:
        """Install several bizs: priority by priority, all bizs of one priority at the same time."""
        request = read(BatchInstallBiz, body)
        _check_async(request)
        if request.biz_list is None:
            raise InputInvalid("bizList is null")
        for element in request.biz_list:
            _check_install(element)
        elements = [msgspec.structs.replace(element, is_async=False) for element in request.biz_list]
        request = msgspec.structs.replace(request, biz_list=elements)
        return self._perform("batchInstallBiz", request, lambda: self._do_batch_install(elements))

    def _do_batch_install(self, elements: Sequence[InstallBiz]) -> Envelope:
        before = resident_bytes()
        entries: dict[str, BatchEntry] = {}
        with ThreadPoolExecutor(BATCH_THREADS, "ARKLET-ark-biz-batch") as pool:
            ready, said = self._prepare_all(elements, pool)
            ready.sort(key=lambda pair: pair[1].priority)
            for _, group in itertools.groupby(ready, key=lambda pair: pair[1].priority):
                said += pool.map(lambda pair: (pair[0], self._install_element(*pair)), group)
        for element, entry in said:
            url = element.biz_url or ""
            # Of several elements with one URL, the installed one is shown.
            if url not in entries or entries[url].code is not ResponseCode.SUCCESS:
                entries[url] = entry
        is_success = all(entry.code is ResponseCode.SUCCESS for _, entry in said)
        data = BatchData(
            code=ResponseCode.SUCCESS if is_success else ResponseCode.FAILED,
            message="batch install success" if is_success else "batch install failed",
            elapsed_space=resident_bytes() - before,
            biz_url_to_response=entries,
        )
        return self._success(data) if is_success else self._failed("install biz not success!", data)

    def _prepare_all(
        self, elements: Sequence[InstallBiz], pool: ThreadPoolExecutor
    ) -> tuple[list[tuple[InstallBiz, Prepared]], list[tuple[InstallBiz, BatchEntry]]]:
        """The artefacts of a batch, and the entries of elements without an artefact."""
        futures = [pool.submit(self._prepare, element) for element in elements]
        ready, said = [], []
        for element, future in zip(elements, futures, strict=True):
            try:
                ready.append((element, future.result()))
            except Exception as error:  # noqa: BLE001 - every failure is this element's entry
                present = self._present(element.biz_name or "", element.biz_version or "")
                said.append((element, answers.entry_of_failure(error, present)))
        return ready, said

    def _install_element(self, element: InstallBiz, prepared: Prepared) -> BatchEntry:
        identity = str(prepared.id)
        if not is_blank(element.biz_name) and element.identity != identity:
            prepared.discard()
            mismatch = IdentityMismatch(element.biz_url or "", expected=element.identity, actual=identity)
            return answers.entry_of_failure(mismatch, self._present(element.biz_name or "", element.biz_version or ""))
        try:
            installed = self._exclusively(
                "installBiz", identity, lambda: self._start(prepared, element), unused=prepared.discard
            )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - every failure is this element's entry
            return answers.entry_of_failure(error, self._present(prepared.id.name, prepared.id.version))
        data = answers.install_data(installed)
        return BatchEntry(code=data.code, message=data.message, biz_infos=data.biz_infos or [])

    def uninstall(self, body: Body) -> Envelope:
        """Remove one biz; the reply has the purge report."""
        request = read(UninstallBiz, body)
        _check_named(request)
        if request.biz_name != self._container.base.id.name:
            _known(request)
        return self._perform("uninstallBiz", request, lambda: self._do_uninstall(request))

    def _do_uninstall(self, request: UninstallBiz) -> Envelope:
        if request.biz_name == self._container.base.id.name:
            raise MasterBizProtected(request.identity)
        report = self._container.uninstall(_known(request))
        message = f"Uninstall biz: {request.identity} success."
        return self._success(
            UninstallData(code=ResponseCode.SUCCESS, message=message, purge_report=answers.purge_report(report))
        )

    def switch(self, body: Body) -> Envelope:
        """Make one version the active one."""
        request = read(SwitchBiz, body)
        _check_named(request)
        biz = _known(request)
        return self._perform("switchBiz", request, lambda: self._do_switch(biz))

    def _do_switch(self, biz: BizId) -> Envelope:
        if biz != self._container.base.id:  # which is always active
            self._container.switch(biz)
        return self._success(BizReply(code=ResponseCode.SUCCESS, message=f"Switch biz: {biz} is activated."))

    # --- how they run --------------------------------------------------------------------------------------------

    def _perform(
        self,
        command: str,
        request: BizRequest,
        work: Callable[[], Envelope],
        *,
        unused: Callable[[], object] = _nothing,
    ) -> Envelope:
        """Do ``work`` as the only command for the biz of the request: now, or in the background.

        ``unused`` is called instead if another command is running for the biz.
        """
        if not request.is_async:
            return self._exclusively(command, request.identity, work, unused=unused)
        try:
            run = self._runs.open(request)
        except BaseException:
            unused()
            raise
        self.workers.submit(self._perform_later, run, command, request.identity, work, unused)
        return self._success(run.snapshot())

    def _exclusively(self, command: str, identity: str, work: Callable[[], R], *, unused: Callable[[], object]) -> R:
        try:
            self._conflicts.take(identity, command)
        except BizBusy:
            unused()
            raise
        try:
            return work()
        finally:
            self._conflicts.give_back(identity)

    def _perform_later(
        self, run: Run, command: str, identity: str, work: Callable[[], Envelope], unused: Callable[[], object]
    ) -> None:
        run.begin()
        try:
            reply = self._exclusively(command, identity, work, unused=unused)
        except BizBusy:
            run.fail("command conflict, exist unfinished command for this biz")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - every failure ends up in the record
            reply = answers.explain(error, command, base_identity=self._identity)
            if reply.code is Code.FAILED:
                run.fail(answers.detail(reply))
            else:
                text = answers.say(error)
                run.fail(text, describe_error(error, message=text))
        else:
            if reply.is_success:
                run.succeed()
            else:
                run.fail(answers.detail(reply))

    def _check_not_installed(self, biz: BizId) -> None:
        try:
            self._container.find(biz)
        except BizNotFound:
            return
        raise BizRepeated(str(biz))

    def _prepare(self, request: InstallBiz, expected: BizId | None = None) -> Prepared:
        url = (request.biz_url or "").strip()
        if not urlsplit(url).scheme:  # a path means something else on every machine
            raise FetchFailed(url, "no protocol: it has to begin with file://, http:// or https://")
        return self._container.prepare(url, expected=expected)

    def _start(self, prepared: Prepared, request: InstallBiz) -> Installed:
        return self._container.install(
            prepared, args=request.args or (), envs=request.envs or {}, strategy=_strategy(request)
        )

    def _present(self, name: str, version: str) -> BizDetails:
        """The biz in an entry of a batch: in its present state, or broken if the biz is not there."""
        try:
            return BizDetails.of(self._container.find(BizId.of(name, version)))
        except (BizNotFound, InvalidIdentity):
            identity = f"{name}:{version}"
            return BizDetails(biz_name=name, biz_version=version, biz_state=BizState.BROKEN, identity_=identity)

    # --- replies -------------------------------------------------------------------------------------------------

    def _success(self, data: Any) -> Envelope:
        return Envelope(code=Code.SUCCESS, data=data, base_identity=self._identity)

    def _failed(self, message: str, data: Any = None) -> Envelope:
        return Envelope(code=Code.FAILED, message=message, data=data, base_identity=self._identity)


COMMANDS: Final = (
    Command("help", "list all supported commands", Operations.help),
    Command("installBiz", "install one ark biz", Operations.install, changes_bizs=True),
    Command("batchInstallBiz", "install one ark biz", Operations.batch_install, changes_bizs=True),
    Command("uninstallBiz", "uninstall one ark biz", Operations.uninstall, changes_bizs=True),
    Command("switchBiz", "switch one ark biz", Operations.switch, changes_bizs=True),
    Command("queryAllBiz", "query all ark biz(including master biz)", Operations.query_all),
    Command("health", "get all health info", Operations.health),
    Command("queryBizOps", "query ark biz ops", Operations.query_ops),
)
_BY_ID: Final = {command.id: command for command in COMMANDS}


# --- validation: the texts are the original's ----------------------------------------------------------------------


def _check_async(request: BizRequest) -> None:
    if request.is_async and is_blank(request.request_id):
        raise InputInvalid("requestId should not be blank when async is true")


def _check_install(request: InstallBiz) -> None:
    if is_blank(request.biz_url):
        raise InputInvalid("bizUrl should not be blank")
    if is_blank(request.biz_name) != is_blank(request.biz_version):
        raise InputInvalid("bizName and bizVersion should be both blank or both not blank.")
    for name, value in (request.envs or {}).items():
        if not name or "=" in name or "\0" in name:
            raise InputInvalid(f"envs: {name[:200]!r} is no name of a variable")
        if "\0" in value:
            raise InputInvalid(f"envs: the value of {name[:200]!r} has a NUL")


def _check_named(request: BizRequest) -> None:
    if is_blank(request.biz_name):
        raise InputInvalid("bizName should not be blank")
    if is_blank(request.biz_version):
        raise InputInvalid("bizVersion should not be blank")
    _check_async(request)


def _known(request: BizRequest) -> BizId:
    """The identity in a request; raises ``BizNotFound`` for a text that is no identity."""
    try:
        return BizId.of(request.biz_name or "", request.biz_version or "")
    except InvalidIdentity:
        raise BizNotFound(request.identity) from None


def _strategy(request: InstallBiz) -> Strategy:
    try:
        return Strategy(request.install_strategy)
    except ValueError:  # any text unknown to the original means the default there, too
        return Strategy.INSTALL_ONLY

"""The commands of a base: one function each, from a wire request over the container to a wire reply.

Every transport calls `Operations.handle`, so no command differs between transports.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from koupleless.arklet import answers
from koupleless.arklet.health import Health
from koupleless.arklet.orders import (
    InstallOrder,
    absent,
    check_background,
    elements,
    named,
)
from koupleless.arklet.ours.commands import OwnCommands
from koupleless.arklet.ours.consoles import Consoles
from koupleless.arklet.ours.keeping import Keeping
from koupleless.arklet.ours.refusal import NothingDone
from koupleless.arklet.records import BatchBusy, RunRepeated, Runs, describe_error
from koupleless.container.process import resident_bytes
from koupleless.errors import ArtifactError, BizBusy, BizNotFound, ContainerClosed, ManifestInvalid
from koupleless.recorders.running.executors import leave_workers_behind
from koupleless.state.environments import Environments
from koupleless.view.logging.logbook import Logbook
from koupleless.wire.envelope import Code, Envelope, InputInvalid, ResponseCode, decode_body
from koupleless.wire.replies import (
    BatchData,
    BatchEntry,
    BizDetails,
    BizInfo,
    BizReply,
    CommandData,
    ConsoleData,
    EnvData,
    ExportData,
    HealthReply,
    HelpItem,
    InstallData,
    LibrariesData,
    LogsData,
    OpsRecord,
    UninstallData,
)
from koupleless.wire.requests import (
    BatchInstallBiz,
    BizEnv,
    BizRequest,
    BizsQuery,
    ConsoleBiz,
    HealthQuery,
    InstallBiz,
    LibrariesQuery,
    LiveBiz,
    LogsQuery,
    OpsQuery,
    Request,
    RestartBiz,
    RollbackBiz,
    SwitchBiz,
    UninstallBiz,
    is_blank,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from koupleless.arklet.health import BaseMetadata
    from koupleless.arklet.orders import Element
    from koupleless.arklet.records import Run
    from koupleless.biz import BizId
    from koupleless.container.container import Container
    from koupleless.container.starting.prepare import Prepared
    from koupleless.container.terms import Installed, Located, Stored
    from koupleless.health.readiness import Status

Body = dict[str, object] | None
R = TypeVar("R", bound="BizRequest")

WORKERS: Final = 50
BATCH_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class Command:
    """One entry of the command list."""

    id: str
    description: str
    run: Callable[[Operations, Body], Envelope]
    reads: type[Request]
    """The input; `Request` itself where the input is ignored."""
    data: Any
    """The type of the data in the reply to a success."""
    takes_long: bool = False
    """Whether the command changes bizs, alone for its biz and perhaps in the background, or reads large files."""

    @property
    def may_run_later(self) -> bool:
        """Whether the command runs in the background on request; the data is then the record of the run."""
        return self.takes_long and issubclass(self.reads, BizRequest)


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
        environments: Environments | None = None,
        logbook: Logbook | None = None,
        health: Health | None = None,
        runs: Runs | None = None,
        has_libraries: Callable[[str], bool] = lambda _: False,
        cancel: Callable[[str], bool] = lambda _: False,
        live: Callable[[str, float], object] = lambda _name, _seconds: None,
        end: Callable[[], object] | None = None,
        statuses: Callable[[], Mapping[BizId, Status]] = dict,
        has_consoles: bool = False,
    ) -> None:
        """``has_libraries`` finds private libraries in the store of the base, by digest.

        ``cancel`` cancels installs of a module, by name, and returns whether there are any; ``live`` lets pages of a
        module reload by themselves for so many seconds; ``end`` is as in `Keeping`. ``statuses`` returns the health of
        modules at once; ``has_consoles`` lets callers run code inside modules.
        """
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
        self._batch = threading.Lock()
        """Held by the one batch that runs."""
        self._runs = runs or Runs()
        self._statuses = statuses
        self.own = OwnCommands(
            container,
            Keeping(container, end),
            environments=environments or Environments(),
            logbook=logbook or Logbook(),
            has_libraries=has_libraries,
            cancel=cancel,
            live=live,
            consoles=Consoles(is_on=has_consoles),
        )

    def handle(self, command: str, raw: bytes) -> Envelope:
        """Run one command on the bytes of its input. Never raises: errors become part of the envelope."""
        found = _BY_ID.get(command)
        if found is None:
            return Envelope(code=Code.CMD_NOT_FOUND, message="please follow the doc")
        try:
            return found.run(self, decode_body(raw))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the reply says what happened
            return answers.explain(error, command, base_identity=self._identity)

    def give_up(self, command: str) -> Envelope:
        """Answer a command that has not ended, and is not awaited any longer because the base shuts down."""
        said = f"the base is shutting down and waits no longer for {command}, which may not have been done"
        return answers.explain(ContainerClosed(said), command, base_identity=self._identity)

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
        has_libraries = read(BizsQuery, body).libraries
        bizs = [biz for biz in self._container.bizs() if not biz.is_base]
        found, statuses = [], self._statuses()
        for biz in bizs:
            told = BizInfo.of(biz, has_libraries=has_libraries)
            status = statuses.get(biz.id)
            found.append(told if status is None else msgspec.structs.replace(told, health=status.value))
        return self._success(found)

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
        check_background(request)
        order = InstallOrder.of(request)
        if order.biz is not None:
            source = order.source(order.biz)
            return self._perform("installBiz", request, lambda: self._do_install(source, order))
        with self._identify(request, order) as prepared:
            name, version = prepared.id.name, prepared.id.version
            named = msgspec.structs.replace(request, biz_name=name, biz_version=version)
            return self._perform("installBiz", named, lambda: self._do_install(prepared, order))

    def _identify(self, request: InstallBiz, order: InstallOrder) -> Prepared:
        """Read the identity from the artefact, unless the request would be refused anyway."""
        if request.is_async and self._runs.find(request.request_id or "") is not None:
            raise RunRepeated(request.request_id or "")
        try:
            order.check_url()
            return self._container.prepare(order.url)
        except ManifestInvalid:
            raise
        except ArtifactError as error:
            raise InputInvalid(f"refresh biz info from jar failed: {error}") from error

    def _do_install(self, source: Prepared | Located | Stored, order: InstallOrder) -> Envelope:
        return self._success(answers.install_data(self._installed(source, order)))

    def _installed(self, source: Prepared | Located | Stored, order: InstallOrder) -> Installed:
        order.check_url()
        return self._container.install(
            source, args=order.args, envs=order.envs, project_envs=order.project_envs, strategy=order.strategy
        )

    def batch_install(self, body: Body) -> Envelope:
        """Install several bizs: priority by priority, all bizs of one priority at the same time."""
        request = read(BatchInstallBiz, body)
        check_background(request)
        batch = elements(request)
        plain = [msgspec.structs.replace(element, is_async=False) for element in request.biz_list or ()]
        request = msgspec.structs.replace(request, biz_list=plain)
        return self._perform("batchInstallBiz", request, lambda: self._do_batch_install(request.identity, batch))

    def _do_batch_install(self, identity: str, batch: Sequence[Element]) -> Envelope:
        before = resident_bytes()
        entries: dict[str, BatchEntry] = {}
        with self._only_batch(identity), ThreadPoolExecutor(BATCH_THREADS, "ARKLET-ark-biz-batch") as pool:
            ready, said = self._prepare_all(batch, pool)
            ready.sort(key=lambda pair: pair[1].priority)
            for _, group in itertools.groupby(ready, key=lambda pair: pair[1].priority):
                said += pool.map(lambda pair: (pair[0], self._install_element(*pair)), group)
        for element, entry in said:
            # Of several elements with one URL, the installed one is shown.
            if element.url not in entries or entries[element.url].code is not ResponseCode.SUCCESS:
                entries[element.url] = entry
        is_success = all(entry.code is ResponseCode.SUCCESS for _, entry in said)
        data = BatchData(
            code=ResponseCode.SUCCESS if is_success else ResponseCode.FAILED,
            message="batch install success" if is_success else "batch install failed",
            elapsed_space=resident_bytes() - before,
            biz_url_to_response=entries,
        )
        return self._success(data) if is_success else self._failed("install biz not success!", data)

    @contextlib.contextmanager
    def _only_batch(self, identity: str) -> Iterator[None]:
        """Hold the place of the one batch. Raises ``BatchBusy`` at once if another batch runs."""
        if not self._batch.acquire(blocking=False):
            raise BatchBusy(identity)
        try:
            yield
        finally:
            self._batch.release()

    def _prepare_all(
        self, batch: Sequence[Element], pool: ThreadPoolExecutor
    ) -> tuple[list[tuple[Element, Prepared]], list[tuple[Element, BatchEntry]]]:
        """The artefacts of a batch, and the entries of elements without an artefact."""
        futures = [pool.submit(self._prepare_element, element) for element in batch]
        ready, said = [], []
        for element, future in zip(batch, futures, strict=True):
            try:
                ready.append((element, future.result()))
            except Exception as error:  # noqa: BLE001 - every failure is this element's entry
                present = self._present(element.order.biz, element.missing)
                said.append((element, answers.entry_of_failure(error, present)))
        return ready, said

    def _prepare_element(self, element: Element) -> Prepared:
        if element.mistake is not None:
            raise element.mistake
        element.order.check_url()
        return self._container.prepare(element.order.url, expected=element.order.biz, digest=element.order.digest)

    def _install_element(self, element: Element, prepared: Prepared) -> BatchEntry:
        try:
            installed = self._installed(prepared, element.order)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - every failure is this element's entry
            missing = absent(prepared.id.name, prepared.id.version)
            return answers.entry_of_failure(error, self._present(prepared.id, missing))
        data = answers.install_data(installed)
        return BatchEntry(code=data.code, message=data.message, biz_infos=data.biz_infos or [])

    def _present(self, biz: BizId | None, missing: BizDetails) -> BizDetails:
        """The biz in an entry of a batch: in its present state, or ``missing`` if the biz is not there."""
        if biz is not None:
            with contextlib.suppress(BizNotFound):
                return BizDetails.of(self._container.find(biz))
        return missing

    def uninstall(self, body: Body) -> Envelope:
        """Remove one biz; the reply has the purge report."""
        request = read(UninstallBiz, body)
        biz = named(request)
        drain_s = None if request.drain_seconds is None else max(request.drain_seconds, 0.0)
        return self._perform("uninstallBiz", request, lambda: self._do_uninstall(biz, drain_s))

    def _do_uninstall(self, biz: BizId, drain_s: float | None) -> Envelope:
        report = answers.purge_report(self._container.uninstall(biz, drain_s=drain_s))
        message = f"Uninstall biz: {biz} success."
        return self._success(UninstallData(code=ResponseCode.SUCCESS, message=message, purge_report=report))

    def switch(self, body: Body) -> Envelope:
        """Make one version the active one."""
        request = read(SwitchBiz, body)
        biz = named(request)
        return self._perform("switchBiz", request, lambda: self._do_switch(biz))

    def _do_switch(self, biz: BizId) -> Envelope:
        if biz != self._container.base.id:  # which is always active
            self._container.switch(biz)
        return self._success(BizReply(code=ResponseCode.SUCCESS, message=f"Switch biz: {biz} is activated."))

    # --- how they run --------------------------------------------------------------------------------------------

    def _perform(self, command: str, request: BizRequest, work: Callable[[], Envelope]) -> Envelope:
        """Do ``work`` now, or in the background."""
        if not request.is_async:
            return work()
        run = self._runs.open(request)
        self.workers.submit(self._perform_later, run, command, work)
        return self._success(run.snapshot())

    def _perform_later(self, run: Run, command: str, work: Callable[[], Envelope]) -> None:
        run.begin()
        try:
            reply = work()
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

    # --- replies -------------------------------------------------------------------------------------------------

    def _success(self, data: Any) -> Envelope:
        return Envelope(code=Code.SUCCESS, data=data, base_identity=self._identity)

    def _failed(self, message: str, data: Any = None) -> Envelope:
        return Envelope(code=Code.FAILED, message=message, data=data, base_identity=self._identity)


def _own(take: Callable[[OwnCommands, Body], object]) -> Callable[[Operations, Body], Envelope]:
    """Make a command of ours that ends at once: the result of ``take`` is the data of the reply."""

    def run(operations: Operations, body: Body) -> Envelope:
        try:
            return operations._success(take(operations.own, body))  # noqa: SLF001 - a command, as the methods there
        except NothingDone as error:
            return operations._failed(str(error))  # noqa: SLF001 - as above

    return run


def _own_change(
    command: str, kind: type[R], take: Callable[[OwnCommands, R], Callable[[], InstallData]]
) -> Callable[[Operations, Body], Envelope]:
    """Make a command of ours that changes a biz: ``take`` checks the request, and returns the change."""

    def run(operations: Operations, body: Body) -> Envelope:
        request = read(kind, body)
        change = take(operations.own, request)
        return operations._perform(command, request, lambda: operations._success(change()))  # noqa: SLF001 - as above

    return run


COMMANDS: Final = (
    Command("help", "list all supported commands", Operations.help, Request, list[HelpItem]),
    Command("installBiz", "install one ark biz", Operations.install, InstallBiz, InstallData, takes_long=True),
    Command(
        "batchInstallBiz",
        "install one ark biz",
        Operations.batch_install,
        BatchInstallBiz,
        BatchData,
        takes_long=True,
    ),
    Command(
        "uninstallBiz", "uninstall one ark biz", Operations.uninstall, UninstallBiz, UninstallData, takes_long=True
    ),
    Command("switchBiz", "switch one ark biz", Operations.switch, SwitchBiz, BizReply, takes_long=True),
    Command("queryAllBiz", "query all ark biz(including master biz)", Operations.query_all, BizsQuery, list[BizInfo]),
    Command("health", "get all health info", Operations.health, HealthQuery, HealthReply),
    Command("queryBizOps", "query ark biz ops", Operations.query_ops, OpsQuery, OpsRecord),
    Command("envBiz", "set, unset and list kept variables of one ark biz", _own(OwnCommands.env), BizEnv, EnvData),
    Command("cancelBiz", "cancel the install of one ark biz", _own(OwnCommands.cancel), BizRequest, BizReply),
    Command(
        "liveBiz", "reload pages of one ark biz by themselves for a while", _own(OwnCommands.live), LiveBiz, BizReply
    ),
    Command(
        "commandBiz",
        "write a file on this machine to run a command as one ark biz",
        _own(OwnCommands.command),
        BizRequest,
        CommandData,
    ),
    Command(
        "queryLibraries",
        "query private libraries in the store, by digest",
        _own(OwnCommands.libraries),
        LibrariesQuery,
        LibrariesData,
    ),
    Command(
        "restartBiz",
        "start one ark biz again from the same artefact",
        _own_change("restartBiz", RestartBiz, OwnCommands.restart),
        RestartBiz,
        InstallData,
        takes_long=True,
    ),
    Command(
        "rollbackBiz",
        "let the version of one ark biz answer that did before",
        _own_change("rollbackBiz", RollbackBiz, OwnCommands.rollback),
        RollbackBiz,
        InstallData,
        takes_long=True,
    ),
    Command(
        "exportBizs", "query the ark bizs that start again with the base", _own(OwnCommands.export), Request, ExportData
    ),
    Command(
        "consoleBiz",
        "run code inside one ark biz, if consoles are on",
        _own(OwnCommands.console),
        ConsoleBiz,
        ConsoleData,
        takes_long=True,
    ),
    Command("stopBase", "end the base in order", _own(OwnCommands.stop), Request, BizReply),
    Command("queryLogs", "query the logs of ark bizs", _own(OwnCommands.logs), LogsQuery, LogsData, takes_long=True),
)
_BY_ID: Final = {command.id: command for command in COMMANDS}


def takes_long(command: str) -> bool:
    """Whether `Operations.handle` may take long. No such command takes no time."""
    return command in _BY_ID and _BY_ID[command].takes_long

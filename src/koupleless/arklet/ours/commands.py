"""The commands that the original does not have: variables, logs, libraries, cancelling, starting again, the end.

Each method reads a request and returns the data of the reply; a command that changes a biz returns the change instead,
to be made alone for the biz, at once or in the background.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from koupleless.arklet import answers
from koupleless.arklet.orders import check_background, check_variables, name_of, named
from koupleless.arklet.ours.refusal import NothingDone
from koupleless.biz import BizState
from koupleless.container.starting.portrait import Portrait
from koupleless.router.around.live import MAX_S
from koupleless.view.logging.reading import Life, Wish, names_of, no_logs, read_logs
from koupleless.wire.envelope import InputInvalid, ResponseCode
from koupleless.wire.replies import (
    BizDetails,
    BizReply,
    CommandData,
    ConsoleData,
    EnvData,
    InstallData,
    LibrariesData,
    LogEntry,
    LogsData,
)
from koupleless.wire.requests import BizEnv, BizRequest, ConsoleBiz, LibrariesQuery, LiveBiz, LogsQuery, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.arklet.ours.consoles import Consoles
    from koupleless.arklet.ours.keeping import Keeping
    from koupleless.container.container import Container
    from koupleless.context import Scope
    from koupleless.state.environments import Environments
    from koupleless.view.logging.logbook import Logbook
    from koupleless.wire.replies import ExportData
    from koupleless.wire.requests import RestartBiz, RollbackBiz

Body = dict[str, object] | None


class OwnCommands:
    """Commands of ours over one container.

    Lifetime: of the operations. Threads: any number. ``has_libraries`` finds private libraries in the store of the
    base, by digest; ``cancel`` cancels installs of a module, by name, and returns whether there are any; ``live`` lets
    pages of a module reload by themselves for so many seconds.
    """

    def __init__(
        self,
        container: Container,
        keeping: Keeping,
        *,
        environments: Environments,
        logbook: Logbook,
        has_libraries: Callable[[str], bool],
        cancel: Callable[[str], bool],
        live: Callable[[str, float], object],
        consoles: Consoles,
    ) -> None:
        self._container = container
        self._keeping = keeping
        self._environments = environments
        self._logbook = logbook
        self._has_libraries = has_libraries
        self._cancel = cancel
        self._live = live
        self._consoles = consoles

    # --- changes of a biz ----------------------------------------------------------------------------------------

    def restart(self, request: RestartBiz) -> Callable[[], InstallData]:
        """Start a module again from the same artefact, without a lost request."""
        biz = named(request)
        return lambda: answers.install_data(self._keeping.restart(biz))

    def rollback(self, request: RollbackBiz) -> Callable[[], InstallData]:
        """Let the version answer that answered before the present one."""
        name = name_of(request.biz_name)
        check_background(request)

        def change() -> InstallData:
            biz, installed = self._keeping.rollback(name)
            if installed is not None:
                return answers.install_data(installed)
            info = BizDetails.of(self._container.find(biz))
            said = f"Switch biz: {biz} is activated."
            return InstallData(code=ResponseCode.SUCCESS, message=said, elapsed_space=0, biz_infos=[info])

        return change

    def cancel(self, body: Body) -> BizReply:
        """Cancel the install of a module: the start is undone, and the base is as before."""
        name = name_of(read(BizRequest, body).biz_name)
        if not self._cancel(name):
            raise NothingDone(f"no install of {name} is running")
        return BizReply(code=ResponseCode.SUCCESS, message=f"the install of {name} is being cancelled")

    def live(self, body: Body) -> BizReply:
        """Let pages of a module reload by themselves when another life of it answers, for some seconds from now."""
        request = read(LiveBiz, body)
        name = name_of(request.biz_name)
        seconds = min(max(request.seconds, 0.0), MAX_S)
        self._live(name, seconds)
        said = f"pages of {name} reload by themselves for {seconds:g} s" if seconds else f"pages of {name} stay"
        return BizReply(code=ResponseCode.SUCCESS, message=said)

    # --- the base ------------------------------------------------------------------------------------------------

    def export(self, body: Body) -> ExportData:  # noqa: ARG002 - the input is ignored
        """The modules that the base keeps over a restart."""
        return self._keeping.export()

    def stop(self, body: Body) -> BizReply:  # noqa: ARG002 - the input is ignored
        """End the base in order, as SIGTERM does."""
        self._keeping.stop()
        return BizReply(code=ResponseCode.SUCCESS, message="the base ends")

    # --- what a module has ---------------------------------------------------------------------------------------

    def libraries(self, body: Body) -> LibrariesData:
        """Private libraries in the store, of the named ones: an artefact may travel without."""
        digests = read(LibrariesQuery, body).digests or []
        return LibrariesData([digest for digest in digests if self._has_libraries(digest)])

    def env(self, body: Body) -> EnvData:
        """Kept values of a module's environment: set some, remove some, and list the names, never a value."""
        request = read(BizEnv, body)
        name = name_of(request.biz_name)
        given, unset = request.set or {}, request.unset or []
        check_variables("set", given)
        unknown = self._environments.change(name, given, unset) if given or unset else ()
        kept = self._environments.of(name)
        return EnvData(
            biz_name=name,
            names=sorted(kept.given),
            project_names=sorted(kept.project),
            unknown=list(unknown),
            running=[str(biz.id) for biz in self._container.bizs() if biz.id.name == name],
        )

    def logs(self, body: Body) -> LogsData:
        """The newest entries of the logs of modules, or the entries after the places of an earlier answer."""
        request = read(LogsQuery, body)
        names = (name_of(request.biz_name),) if request.biz_name else ()
        if names and not names_of(self._logbook, names):
            raise NothingDone(no_logs(self._logbook, names[0]))
        level = logging.getLevelNamesMapping().get((request.level or "NOTSET").upper())
        if level is None:
            raise InputInvalid(f"level: {request.level} is no level of logging")
        life = _life(request)
        if (request.biz_version or life) and not names:
            raise InputInvalid("bizVersion and life are of one module: bizName is missing")
        if life is not None and not request.biz_version:
            raise InputInvalid("life is of one version: bizVersion is missing")
        wish = Wish(names, max(0, int(request.lines)), level, request.since, request.biz_version or "", life)
        found = read_logs(self._logbook, wish, request.places)
        entries = [LogEntry(time=entry.created, biz_name=entry.name, text=entry.text) for entry in found.entries]
        return LogsData(entries=entries, places=dict(found.places))

    def console(self, body: Body) -> ConsoleData:
        """Run code inside a module, in a console that is open or is opened."""
        request, consoles = read(ConsoleBiz, body), self._consoles
        consoles.check()
        if request.session is None:
            console = consoles.open(self._started(request), request.caller)
        else:
            console = consoles.find(request.session)
        if request.close:
            consoles.close(console)
        elif request.interrupt:
            console.interrupt()
        elif request.code is not None:
            consoles.note(console, request.code)
            console.give(request.code, is_script=request.script)
        answer = console.answer()
        if answer.state == "ended":
            consoles.close(console)
        return answer

    def _started(self, request: ConsoleBiz) -> Scope:
        """Return the life of the module that a console is asked for in."""
        name = name_of(request.biz_name)
        for biz in sorted(self._container.bizs(), key=lambda biz: biz.state is not BizState.ACTIVATED):
            if biz.id.name == name and request.biz_version in (None, biz.id.version) and biz.state.is_started:
                scope = self._container.scope_of(biz.id)
                if scope is not None:
                    return scope
        raise NothingDone(f"no module {name}:{request.biz_version or 'of any version'} is started")

    def command(self, body: Body) -> CommandData:
        """A file on this machine, readable for the user of the base alone, with all to run a command as one biz."""
        request = read(BizRequest, body)
        name = name_of(request.biz_name)
        container = self._container
        for biz in sorted(container.bizs(), key=lambda biz: biz.state is not BizState.ACTIVATED):
            if biz.id.name != name or request.biz_version not in (None, biz.id.version):
                continue
            scope = container.scope_of(biz.id)
            portrait = None if scope is None else scope.find_facet(Portrait)
            if scope is not None and portrait is not None:
                path = portrait.complete(scope).write()
                return CommandData(biz_name=name, biz_version=biz.id.version, path=str(path))
        raise InputInvalid(
            f"no version of {name} is started" if request.biz_version is None else "the biz is not started"
        )


def _life(request: LogsQuery) -> Life | None:
    try:
        return None if request.life is None else Life(request.life)
    except ValueError:
        raise InputInvalid(f"life: {request.life} is neither current nor previous") from None

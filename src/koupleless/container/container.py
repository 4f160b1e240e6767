"""The table of bizs, and the operations that change the table.

State: one dict from identity to entry and the routes derived from the dict, both touched only under ``_lock``, and
never while code of a biz, the disk or the network is at work. One operation at a time runs for an identity, reserved by
`Container.reserve`; a second operation is refused at once with `BizBusy` instead of being queued. Different identities
proceed in parallel.

Of several versions of a name that replace each other at the same time, the version committed last stays, as if the
versions had come one after another in the order of their commits. No operation waits for another: a replaced version
that is still busy with an operation is marked as superseded, and the operation removes the version at the end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from koupleless.biz import BizId, BizState, ChangeReason
from koupleless.container.events import EventKind, EventLog
from koupleless.container.leaving.remains import Remains
from koupleless.container.leaving.settling import Settling
from koupleless.container.life import Life
from koupleless.container.process import ProcessHooks, resident_bytes
from koupleless.container.roster import Entry, Roster
from koupleless.container.stage import DeadlineMissed
from koupleless.container.starting.environment import Variables
from koupleless.container.starting.prepare import Absent, Preparing
from koupleless.container.terms import Installed, Located, Place, Rules, Stored, Strategy
from koupleless.errors import (
    ArtifactError,
    BizBusy,
    ContainerClosed,
    FetchFailed,
    InstallCancelled,
    MasterBizProtected,
    PathTaken,
    StartFailed,
)
from koupleless.isolation.libraries.resident import arrivals
from koupleless.metrics.accounts import Accounts
from koupleless.metrics.families import publish_metrics
from koupleless.ownership.purge import PurgeReport
from koupleless.router.table import normalise_path
from koupleless.service.directory import Listed
from koupleless.state.book import Book, Version, Wanted
from koupleless.traffic import UNCOUNTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from koupleless.biz import BizName
    from koupleless.container.leaving.remains import Zombie
    from koupleless.container.starting.prepare import Preparation, Prepared
    from koupleless.container.surroundings import Surroundings
    from koupleless.context import Scope
    from koupleless.descriptions import BizInfo, Resident
    from koupleless.router.asgi import Front


class Container:
    """The owner of all bizs of one base.

    Lifetime: made by the composition root, closed once, at the end. Every method may be called from any thread except
    the thread of the bizs' event loop, and blocks until the work is done.
    """

    def __init__(
        self,
        *,
        base: BizInfo,
        front: Front,
        preparation: Preparation,
        around: Surroundings,
        rules: Rules | None = None,
    ) -> None:
        self.base = base
        self.events = EventLog(around.logbook)
        self.book = Book()
        """The modules that are to run again, by which artefact and with which arguments."""
        self.watch = around.watch
        self._front = front
        self._preparation = preparation
        self._around = around
        self._rules = rules or Rules()
        self._hooks = ProcessHooks()
        self.accounts = Accounts()
        """The numbers behind the metrics."""
        self._unpublish = publish_metrics(self, lambda: around.stage.loop)
        self._remains = Remains()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._roster = Roster(self._rules)
        self._busy: dict[BizId, str] = {}
        self._fetching: set[BizId] = set()
        """Reserved identities with an operation that has not touched a biz yet."""
        self._is_closed = False
        self._ends_process = False
        self._services = around.services.join()

    # --- questions -----------------------------------------------------------------------------------------------

    def bizs(self) -> tuple[BizInfo, ...]:
        """List all registered bizs but the base, by priority, then in the order of their registration."""
        with self._lock:
            infos = [entry.info() for entry in self._roster.bizs.values()]
        return tuple(sorted(infos, key=lambda info: info.priority))

    def find(self, biz: BizId) -> BizInfo:
        """Look one biz up. Raises ``BizNotFound`` if there is none."""
        with self._lock:
            return self._roster.entry(biz).info()

    def scope_of(self, biz: BizId) -> Scope | None:
        """Return the life that answers for ``biz`` now; ``None`` if the biz is not there or has no life."""
        listed = self._services.directory.locate(biz.name, biz.version)
        return None if listed is None else listed.scope

    def zombies(self) -> tuple[Zombie, ...]:
        """List what is still alive of bizs that left, the oldest first. Checked now, in microseconds for each."""
        return self._remains.check()

    def residents(self) -> tuple[Resident, ...]:
        """List the libraries that bizs brought into the process and that are still loaded, the largest first."""
        return arrivals.listing()

    # --- one operation for an identity --------------------------------------------------------------------------

    @contextlib.contextmanager
    def reserve(self, biz: BizId, operation: str) -> Iterator[None]:
        """Hold an identity, registered or not, for the one operation of the body; ``operation`` names it for others.

        At the end, a version that was replaced meanwhile is stopped. Raises ``BizBusy`` at once if another operation
        has the identity, ``ContainerClosed`` after `shut`, and ``RuntimeError`` on the thread of the event loop, since
        the operation would wait for the loop.
        """
        self._around.stage.check_thread()
        with self._lock:
            if self._is_closed:
                raise ContainerClosed(f"the base is shutting down; {operation} of {biz} was refused")
            if biz in self._busy:
                raise BizBusy(biz, self._busy[biz])
            self._busy[biz] = operation
        try:
            yield
        finally:
            self.book.settle(biz, lambda: self._versions(biz.name))
            self._end_reservation(biz)

    def _end_reservation(self, biz: BizId) -> None:
        """Let go of the identity; before, stop the version if another has replaced it meanwhile."""
        with contextlib.ExitStack() as ending:
            ending.callback(self._let_go_of, biz)
            while (entry := self._let_go_of(biz, unless_superseded=True)) is not None:
                self._stop(entry)
                self.book.settle(biz, lambda: self._versions(biz.name))
            ending.pop_all()

    def _let_go_of(self, biz: BizId, *, unless_superseded: bool = False) -> Entry | None:
        """End the operation on an identity; or return, once, the superseded entry to stop before the end."""
        with self._lock:
            entry = self._roster.take_superseded(biz) if unless_superseded and not self._is_closed else None
            if entry is not None:
                return entry
            del self._busy[biz]
            self._idle.notify_all()
        return None

    # --- install -------------------------------------------------------------------------------------------------

    def prepare(self, url: str, *, expected: BizId | None = None, digest: str | None = None) -> Prepared:
        """Fetch, verify, unpack and parse the artefact at ``url``; touches no shared state; the result may be dropped.

        With ``digest`` the artefact is taken from the store, and fetched only if the store has lost the artefact.

        Raises the children of ``ArtifactError``, among them an error for an artefact that is not ``expected``, and
        ``ContainerClosed`` if the base goes down meanwhile. A thread that waits for a file system for ever is left
        behind.
        """
        with self.accounts.installing(is_first_half=True):
            return self._prepare(url, expected, digest)

    def _prepare(self, url: str, expected: BizId | None, digest: str | None) -> Prepared:
        preparing = Preparing(self._preparation, url, expected, digest)
        deadline_s = self._around.deadlines.prepare_s
        try:
            return self._around.stage.run(
                preparing.run, name="prepare an artefact", timeout_s=deadline_s, may_interrupt=True
            )
        except DeadlineMissed as error:
            preparing.discard()
            raise FetchFailed(url, f"the artefact was not fetched, checked and unpacked in time: {error}") from None
        except (ContainerClosed, InstallCancelled):
            preparing.discard()
            raise

    def install(
        self,
        source: Prepared | Located | Stored,
        *,
        args: Sequence[str] = (),
        envs: Mapping[str, str] | None = None,
        project_envs: Mapping[str, str] | None = None,
        strategy: Strategy = Strategy.INSTALL_ONLY,
        place: Place | None = None,
    ) -> Installed:
        """Start a module and register the biz.

        ``envs`` are variables for the biz, ``project_envs`` those of the env-file of the project; both are kept for
        later installs once the biz has started, by the name of the biz.

        ``source`` is a prepared module, used up in every case; or an artefact to be prepared once the identity is
        reserved, so that a refusal costs no fetch. The book notes the install before anything is changed, except with a
        ``place``. Raises ``BizRepeated``, ``BizBusy``, ``PathTaken``, ``MasterBizProtected``, ``ContainerClosed``,
        ``StateUnwritable``, the errors of `prepare` (nothing was changed), ``StartFailed`` and
        ``StartTimeout`` (the start is undone, but versions removed by ``UNINSTALL_THEN_INSTALL`` stay removed; under
        the rule ``keep_broken`` the biz stays listed as broken).
        """
        with contextlib.ExitStack() as held:
            held.enter_context(self.accounts.installing())
            if not isinstance(source, Located | Stored):
                held.enter_context(source)
            held.enter_context(self.reserve(source.id, "installBiz"))
            held.enter_context(self._around.stage.cancellable(source.id.name))
            self._refuse_base(source.id)
            with self._lock:
                is_again = place is not None and place.is_again
                self._roster.admit(source.id, beside=is_again or strategy is not Strategy.INSTALL_ONLY)
            if isinstance(source, Located | Stored):
                source = held.enter_context(self._fetched(source, place))
            variables = Variables(envs or {}, project_envs)
            return self._install(source, args=args, variables=variables, strategy=strategy, place=place)

    def _fetched(self, source: Located | Stored, place: Place | None) -> Prepared:
        """Prepare the artefact of a reserved identity; a present biz of the identity may take over meanwhile."""
        with self._lock:
            self._fetching.add(source.id)
        try:
            digest = source.digest if isinstance(source, Stored) else None
            return self._prepare(source.url, source.id, digest)
        except ArtifactError as error:
            if place is not None and place.is_kept:
                self._list_broken(Entry(Absent(source.id, source.url), "", place.order or 0, is_kept=True), error)
            raise
        finally:
            with self._lock:
                self._fetching.discard(source.id)

    def _list_broken(self, entry: Entry, error: Exception) -> None:
        """List a biz without an artefact."""
        entry.move(BizState.RESOLVED, ChangeReason.CREATED)
        with self._changing(entry.id):
            self._roster.fail(entry, str(error))
            info = entry.info()
        self.events.append(EventKind.START_FAILED, info, str(error))

    def _install(
        self,
        prepared: Prepared,
        *,
        args: Sequence[str],
        variables: Variables,
        strategy: Strategy,
        place: Place | None,
    ) -> Installed:
        started_at, before, begin = time.time(), resident_bytes(), time.perf_counter()
        wanted = self._wanted(prepared, args, variables, strategy)
        if place is None:
            order, place = self.book.installing(wanted), Place()
        else:
            order = self.book.note_static(wanted) if place.order is None else place.order
        entry = Entry(prepared, normalise_path(prepared.manifest.web_context_path), order, is_kept=place.is_kept)
        self._register(entry)
        cleared = self._clear_the_way(entry) if strategy is Strategy.UNINSTALL_THEN_INSTALL else []
        self.events.append(EventKind.INSTALLING, entry.info())
        traffic = self.accounts.traffic_of(entry.id) if self._around.counts else UNCOUNTED
        life = Life(prepared, self._around, traffic=traffic)
        take_over = strategy is Strategy.REPLACE
        others = self._start(entry, life, args=args, variables=variables, take_over=take_over, answers=place.answers)
        info = entry.info()
        warnings = life.warnings
        elapsed_ms = round((time.perf_counter() - begin) * 1_000)
        grown = resident_bytes() - before
        self.accounts.note_start(entry.id, grown)
        self.events.append(EventKind.STARTED, info, elapsed_ms=elapsed_ms)
        if strategy is not Strategy.REPLACE:
            others = tuple(other for other in others if place.is_again and other.id == entry.id)
        retired = self._retire(entry, others)
        replaced = (*cleared, *retired)
        notes = (note for report in replaced for note in report.notes)
        return Installed(info, elapsed_ms, started_at, grown, replaced, (*warnings, *notes))

    def _wanted(self, prepared: Prepared, args: Sequence[str], variables: Variables, strategy: Strategy) -> Wanted:
        """Make the note of an install. Raises ``SettingsError`` for unreadable kept values of variables."""
        kept = self._around.environments.of(prepared.id.name).given
        return Wanted(
            id=prepared.id,
            digest=prepared.unpacked.digest,
            url=prepared.url,
            priority=prepared.priority,
            args=tuple(args),
            variables=tuple(sorted({*kept, *variables.given})),
            strategy=strategy.value,
        )

    def _versions(self, name: BizName) -> list[Version] | None:
        """The versions of a name, for the book; ``None`` if the base goes down, and versions with the base."""
        with self._lock:
            if self._is_closed:
                return None
            return [
                Version(entry.id, entry.order, entry.state.is_started, entry.state is BizState.ACTIVATED)
                for entry in self._roster.versions(name)
            ]

    def _register(self, entry: Entry) -> None:
        """Put an admitted biz into the table, and reserve the path; nothing else has been changed yet."""
        entry.move(BizState.RESOLVED, ChangeReason.CREATED)
        try:
            with self._changing(entry.id):
                self._roster.register(entry)
        except PathTaken as refusal:
            with self._lock:
                is_kept, info = self._roster.bizs.get(entry.id) is entry, entry.info()
            if is_kept:
                self.events.append(EventKind.START_FAILED, info, str(refusal))
            raise

    def _clear_the_way(self, entry: Entry) -> list[PurgeReport]:
        """Uninstall the other versions of the name, and the earlier life of ``entry``'s identity.

        Refuses before the first uninstall if any of the versions is busy; ``entry`` is not registered any more then.
        """
        try:
            with contextlib.ExitStack() as operations:
                with self._lock:
                    old = [other for other in self._roster.versions(entry.id.name) if other is not entry]
                for other in old:
                    if other.id != entry.id:
                        operations.enter_context(self.reserve(other.id, "uninstallBiz"))
                with self._lock:
                    old = [
                        other for other in old if self._roster.bizs.get(other.id) is other
                    ]  # a version may have left meanwhile
                reports = [self._stop(other) for other in old]
        except BaseException:
            with self._changing(entry.id):
                self._roster.remove(entry)
            raise
        return reports

    def _start(
        self,
        entry: Entry,
        life: Life,
        *,
        args: Sequence[str],
        variables: Variables,
        take_over: bool,
        answers: bool | None,
    ) -> tuple[Entry, ...]:
        """Start a registered entry and commit the entry; returns the other lives of the name at the time of commit."""
        try:
            self._hooks.install(self._around.stage.loop)
            self.watch.begin(self._around.stage.loop)
            self.accounts.enter(life)
            with self._changing(entry.id):
                entry.life = life
            life.start(args=args, variables=variables)
            variables.keep(entry.id.name, self._around.environments)
            return self._commit(entry, take_over=take_over, answers=answers)
        except BaseException as error:
            self._break(entry, error, self._leave(life))
            raise

    def _leave(self, life: Life, drain_s: float | None = None) -> PurgeReport:
        settling = Settling(self._around.stage, life.scope)
        with settling.around():
            report = life.leave(with_process=self._ends_process, drain_s=drain_s)
        self.accounts.leave(life)
        if life.remains is not None:
            self._remains.add(report, life.remains)
        self._remains.check()
        return replace(report, stays=settling.stays)

    def _break(self, entry: Entry, error: BaseException, report: PurgeReport) -> None:
        trace = error.traceback if isinstance(error, StartFailed) else ""
        detail = str(error) if report.clean else f"{error}; left behind: {report.summary()}"
        with self._changing(entry.id):
            self._roster.fail(entry, trace or str(error))
            info = entry.info()
        elapsed_ms = time.time() * 1_000 - entry.records[0].time_ms
        self.events.append(EventKind.START_FAILED, info, detail, elapsed_ms=elapsed_ms, trace=trace)

    def _commit(self, entry: Entry, *, take_over: bool, answers: bool | None) -> tuple[Entry, ...]:
        """Give a started entry the final state and the route, in one step that no request sees half done.

        Returns the other lives of the name, started or broken, at this time. Raises ``ContainerClosed`` if the base is
        going down.
        """
        with self._changing(entry.id):
            if self._is_closed:
                raise ContainerClosed(f"the base is shutting down; biz {entry.id} was started and is stopped again")
            table, others = self._roster.commit(entry, self._front.table, take_over=take_over, answers=answers)
            if table is not None:
                self._front.swap(table)
        return others

    def _retire(self, entry: Entry, others: Sequence[Entry]) -> list[PurgeReport]:
        """Stop the versions found by ``entry`` at its commit, and no version that came, or was switched to, since.

        All are marked before the first is stopped, since stopping takes time. A version busy with another operation is
        stopped by the operation at the end. All are left to `close` if the base is going down.
        """
        with self._lock:
            self._roster.supersede(others)
        reports = []
        for old in others:
            if old.id == entry.id:  # the running operation is the operation of this identity, too
                reports.append(self._stop(old))
                continue
            with contextlib.suppress(BizBusy, ContainerClosed), self.reserve(old.id, "uninstallBiz"):
                with self._lock:
                    is_left = self._roster.bizs.get(old.id) is old and old.is_superseded
                if is_left:
                    reports.append(self._stop(old))
        return reports

    # --- uninstall and switch ------------------------------------------------------------------------------------

    def uninstall(self, biz: BizId, *, drain_s: float | None = None) -> PurgeReport:
        """Withdraw, drain, stop and purge one biz; returns the purge report.

        ``drain_s`` shortens the time for requests in flight, the silence before included; ``None`` leaves the time.

        The biz is gone afterwards even if its own stop code failed. Such a failure, and everything that could not be
        freed, is in the report. Raises ``BizNotFound``, ``BizBusy``, ``MasterBizProtected``, ``StateUnwritable`` and
        ``ContainerClosed``.
        """
        self._refuse_base(biz)
        with self.reserve(biz, "uninstallBiz"):
            with self._lock:
                entry = self._roster.entry(biz)
            self.book.leaving(biz)
            ends = None if drain_s is None else time.monotonic() + drain_s
            self._be_silent(entry, drain_s)
            with_successor = self._rules.activate_next or self._rules.activate_many
            left_s = None if ends is None else max(ends - time.monotonic(), 0.0)
            return self._stop(entry, with_successor=with_successor, drain_s=left_s)

    def _be_silent(self, entry: Entry, most_s: float | None) -> None:
        """Let probes tell that a biz is about to leave, and serve on for a while; a shutdown ends the while."""
        silence_s = self._around.deadlines.silence_s
        if most_s is not None:
            silence_s = min(silence_s, most_s)
        if silence_s and entry.state.is_started:
            with self._lock:
                entry.announce(f"serves {silence_s:g} s more")
                self._idle.wait_for(lambda: self._is_closed, silence_s)

    def _stop(self, entry: Entry, *, with_successor: bool = False, drain_s: float | None = None) -> PurgeReport:
        begin = time.monotonic()
        with self._changing(entry.id):
            withdrawal = self._roster.withdraw(
                entry, self._front.table, with_successor=with_successor, busy=self._busy.keys() - self._fetching
            )
            self._front.swap(withdrawal.routes)
            life, entry.life = entry.life, None
            info = entry.info()
            next_info = None if withdrawal.successor is None else withdrawal.successor.info()
        self.events.append(EventKind.STOPPING, info)
        if next_info is not None:
            self.events.append(EventKind.SWITCHED, next_info)
        report = (
            PurgeReport(entry.id, clean=True, held=(), undone={}, failures=(), elapsed_ms=0.0, is_compared=True)
            if life is None
            else self._leave(life, drain_s)
        )
        if report.failures:
            failed = "; ".join(report.failures)
            with self._changing(entry.id):
                entry.move(BizState.BROKEN, ChangeReason.UN_INSTALL_FAILED, failed)
                info = entry.info()
            self.events.append(EventKind.STOP_FAILED, info, failed)
        with self._changing(entry.id):
            entry.move(BizState.STOPPED, ChangeReason.STOPPED)
            self._roster.remove(entry)
            info = entry.info()
        entry.prepared.discard()
        seconds = time.monotonic() - begin
        self.accounts.note_uninstall(report, seconds)
        self.events.append(EventKind.STOPPED, info, report.summary(), elapsed_ms=seconds * 1_000)
        return report

    def switch(self, biz: BizId) -> None:
        """Make ``biz`` the version that answers by name and path, in one step; the active version is deactivated.

        Nothing happens if ``biz`` is active already. Raises ``BizNotFound``, ``BizBusy``, ``ContainerClosed``,
        ``StateUnwritable``, and ``IllegalMove`` if ``biz`` has not been started.
        """
        begin = time.perf_counter()
        with self.reserve(biz, "switchBiz"):
            with self._lock:
                is_possible = self._roster.entry(biz).state.is_started
            if is_possible:
                self.book.switching(biz)
            with self._changing(biz):
                table = self._roster.switch(biz, self._front.table)
                if table is not None:
                    self._front.swap(table)
                info = self._roster.entry(biz).info()
        if table is not None:
            self.events.append(EventKind.SWITCHED, info, elapsed_ms=(time.perf_counter() - begin) * 1_000)

    # --- the end -------------------------------------------------------------------------------------------------

    def shut(self) -> None:
        """Take no more operations, and give up on bizs that are just starting. Idempotent; `close` has to follow."""
        with self._lock:
            self._is_closed = True
            self._idle.notify_all()
        self._around.stage.interrupt("the base is shutting down")

    def close(self, *, timeout_s: float = 30.0, ends_process: bool = False) -> None:
        """Shut, wait for running operations, stop every biz and leave the interpreter as before the first biz.

        An operation still running after ``timeout_s`` seconds is left behind. ``ends_process`` tells that the process
        ends next: then daemon threads of bizs are left behind, too. Idempotent.
        """
        self._ends_process = ends_process
        self.shut()
        self._around.stage.check_thread()
        with self._lock:
            self._idle.wait_for(lambda: not self._busy, timeout_s)
            entries = self._roster.stoppable()
        with contextlib.ExitStack() as closing:  # from the last to the first, each despite errors of the others
            closing.callback(self._around.stage.close)
            closing.callback(self._hooks.remove)
            closing.callback(self.watch.end)
            closing.callback(self._unpublish)
            closing.callback(self._services.leave)
            for entry in entries:
                closing.callback(self._stop, entry)

    def _refuse_base(self, biz: BizId) -> None:
        if biz.name == self.base.id.name:
            raise MasterBizProtected(biz)

    # --- under the lock ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing(self, biz: BizId) -> Iterator[None]:
        """Hold the lock for a change of a biz and of its versions, and publish the change to the services."""
        with self._lock:
            try:
                yield
            finally:
                self._publish_locked(biz)

    def _publish_locked(self, biz: BizId) -> None:
        before = directory = self._services.directory
        for each in (*directory.versions(biz.name), biz):
            entry = self._roster.bizs.get(each)
            if entry is None:
                directory = directory.without(each)
            else:
                scope = None if entry.life is None else entry.life.scope
                directory = directory.with_biz(Listed(entry.id, entry.state, scope))
        if directory is not before:
            self._services.publish(directory)

    def __repr__(self) -> str:
        with self._lock:
            states = Counter(entry.state.value.lower() for entry in self._roster.bizs.values())
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no bizs"
        return f"<Container of {self.base.id}: {counts}>"

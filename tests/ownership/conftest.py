"""A tiny biz: a scope, a ledger and modules made by hand, so that these tests need no namespace room."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import textwrap
import threading
import types
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from koupleless.adapters.door import ADAPTERS
from koupleless.adapters.releasers import call_releasers
from koupleless.artifact.build import Options, build_project
from koupleless.biz import BizId
from koupleless.container.host import Host
from koupleless.container.surroundings import Deadlines
from koupleless.context import Scope, entered
from koupleless.isolation.libraries.holding import Wishes
from koupleless.ownership.collect import held_back
from koupleless.ownership.ledger import Ledger
from koupleless.ownership.purge import Survey, purge
from koupleless.recorders.door import RECORDING, SWEEPS
from koupleless.recorders.loops.eventloop import adopt_loop
from koupleless.recorders.loops.stubborn import loop_at_hand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from koupleless.ownership.ledger import Failure
    from koupleless.ownership.purge import PurgeReport

MakeBiz = type["TinyBiz"]
MakeModule = Callable[[str, str], types.ModuleType]

_numbers = itertools.count(1)

# Whatever a tiny biz registers, this class and its method reach the globals of its module.
PREAMBLE = """
class K:
    def reach(self):
        return K
    def __call__(self, *args, **kwargs):
        return K

def reach(*args, **kwargs):
    return K
"""


class TinyBiz:
    """One life of a biz. It holds its modules until `leave`, and nothing of them afterwards."""

    def __init__(self, name: str = "tiny") -> None:
        self.scope = Scope(BizId.of(name, "1.0"))
        self.ledger = Ledger(self.scope)
        self.scope.attach(self.ledger)
        self.modules: dict[str, types.ModuleType] = {}
        self.failures: tuple[Failure, ...] = ()

    def run(self, source: str, *, name: str = "", **given: Any) -> types.ModuleType:
        """Execute a module as the biz, with ``given`` among its globals."""
        name = name or f"tiny_{next(_numbers)}"
        module = types.ModuleType(name)
        module.__dict__.update(given)
        self.modules[name] = module
        code = compile(PREAMBLE + textwrap.dedent(source), f"/biz/{name}.py", "exec")
        # While it runs, its name leads to it, as the namespace room sees to for as long as the biz lives.
        before = sys.modules.get(name)
        sys.modules[name] = module
        try:
            with entered(self.scope):
                exec(code, module.__dict__)
        finally:
            del sys.modules[name]
            if before is not None:
                sys.modules[name] = before
        return module

    def undo(self, deadline_s: float = 5.0) -> tuple[Failure, ...]:
        self.failures = self.ledger.undo_all(deadline_s)
        return self.failures

    def leave(self, deadline_s: float = 5.0) -> PurgeReport:
        self.undo(deadline_s)
        with held_back(), loop_at_hand():
            survey = Survey(self.scope, self.modules)
            released, failures = call_releasers(survey, deadline_s=deadline_s)
            survey.undone = {**survey.undone, **released}
            assert failures == ()
            self.modules.clear()
            self.scope.close()
            return purge(survey, self.failures, sweeps=SWEEPS, ended=self.ledger.ended)


@pytest.fixture(scope="module", autouse=True)
def recorders() -> Iterator[None]:
    """All recorders and adapters, put in once for the tests of a file, as once for the bizs of a base."""
    RECORDING.acquire()
    ADAPTERS.acquire()
    yield
    ADAPTERS.release()
    RECORDING.release()


@pytest.fixture
def make_biz() -> Callable[..., TinyBiz]:
    return TinyBiz


@pytest.fixture
def biz() -> TinyBiz:
    return TinyBiz()


@pytest.fixture
def base_module() -> Iterator[Callable[..., types.ModuleType]]:
    """Make modules of the base, that is in the real table, for the length of a test."""
    made = []

    def make(name: str, source: str) -> types.ModuleType:
        module = types.ModuleType(name)
        sys.modules[name] = module
        made.append(name)
        exec(compile(textwrap.dedent(source), f"/base/{name}.py", "exec"), module.__dict__)
        return module

    yield make
    for name in made:
        del sys.modules[name]


class LoopThread:
    """An event loop on a thread of its own, adopted."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._thread = threading.Thread(target=loop.run_forever, name="test loop", daemon=True)
        self._thread.start()
        self.adoption = adopt_loop(loop)

    def run(self, function: Callable[..., Any], *args: Any, scope: Scope | None = None) -> Any:
        """Call ``function`` on the loop's thread, as a biz or as the base; what it returns is awaited if it can be."""

        async def call() -> Any:
            with entered(scope):
                result = function(*args)
                return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def close(self) -> None:
        self.adoption.release()
        self.run(self.loop.shutdown_default_executor)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[LoopThread]:
    made = LoopThread(asyncio.new_event_loop() if request.param == "asyncio" else uvloop.new_event_loop())
    yield made
    made.close()


# --- a real base, and a module that registers one thing in it --------------------------------------------------------


class Trial:
    """A base in this process. Called with the source of a module, it installs that, removes it, and proves it gone.

    The module sees what it is given as attributes of ``shared``, a module of the base; its class ``K`` reaches its
    globals. ``async def main`` is run on the base's event loop, any other ``main`` on a thread.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        host = Host.make(
            directory / "store",
            deadlines=Deadlines(start_s=60.0, drain_s=5.0, stop_s=30.0),
            # These tests are about what bizs leave in registries of a base that shares its libraries.
            wishes=Wishes.of(shared=["blinker", "celery", "django"]),
        )
        self.stage, self.container = host.stage, host.container
        self.shared = types.ModuleType("shared")
        self._watched: dict[BizId, weakref.ref[type]] = {}

    def __call__(self, source: str, **given: Any) -> PurgeReport:
        report = self.leave(self.install(source, **given))
        assert report.clean, report.summary()
        return report

    def install(self, source: str, *, name: str = "row", **given: Any) -> BizId:
        vars(self.shared).update(given)
        project = self._directory / f"{name}-{next(_numbers)}"
        project.mkdir()
        watch = "import shared\n" + PREAMBLE + "shared.watch(K)\n"
        (project / "app.py").write_text(watch + textwrap.dedent(source))
        entry = "app:main" if "def main(" in source else "app"
        version = f"1.0.{next(_numbers)}"
        head = f"[project]\nname = {name!r}\nversion = {version!r}\n[tool.koupleless.module]\nentry = {entry!r}\n"
        (project / "pyproject.toml").write_text(head)
        built = build_project(project, Options(out=self._directory)).path
        identity = BizId.of(name, version)
        self.shared.watch = lambda kind: self._watched.update({identity: weakref.ref(kind)})  # type: ignore[attr-defined]
        self.container.install(self.container.prepare(str(built)))
        return identity

    def leave(self, identity: BizId) -> PurgeReport:
        """Remove the module; a report that says clean is checked against its class."""
        report = self.container.uninstall(identity)
        kind = self._watched.pop(identity)
        if report.clean:
            assert kind() is None, gc.get_referrers(kind())
        return report

    def on_loop(self, function: Callable[[], Any]) -> Any:
        """Call a function of the base on its event loop."""

        async def call() -> Any:
            return function()

        return self.stage.call(call, timeout_s=30)


@pytest.fixture(scope="module")
def trial_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    made = Trial(tmp_path_factory.mktemp("trial"))
    sys.modules["shared"] = made.shared
    yield made
    del sys.modules["shared"]
    made.container.close()


@pytest.fixture
def trial(trial_of_module: Trial, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """The same for one test: empty, whatever failed before, and it finds holders, however slow the machine."""
    monkeypatch.setattr("koupleless.ownership.purge.EXPLAIN_BUDGET_S", 30.0)
    before = set(vars(trial_of_module.shared))
    yield trial_of_module
    for info in trial_of_module.container.bizs():
        trial_of_module.container.uninstall(info.id)
    for name in set(vars(trial_of_module.shared)) - before:
        delattr(trial_of_module.shared, name)

"""A tiny biz: a scope, a ledger and modules made by hand, so that these tests need no namespace room."""

from __future__ import annotations

import asyncio
import itertools
import sys
import textwrap
import threading
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.ownership.eventloop import adopt_loop
from koupleless.ownership.ledger import Ledger
from koupleless.ownership.purge import Survey, purge
from koupleless.ownership.recorders import install_recorders, remove_recorders

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        survey = Survey(self.scope, self.modules)
        self.modules.clear()
        self.scope.close()
        return purge(survey, self.failures)


@pytest.fixture(autouse=True)
def recorders() -> Iterator[None]:
    install_recorders()
    yield
    remove_recorders()


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

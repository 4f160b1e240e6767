"""Operations in any order, requests and calls in flight among them, against a simple model of what has to be.

A base is a process of its own, so that it can be killed in the middle of things; the next one has its store. The
number of operations is a setting of the environment: ``scripts/fuzz`` runs many more of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from multiprocessing.connection import Client
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.fuzz import lives
from tests.fuzz.lives import PATHS, SOURCE, VERSIONS, Expected

from koupleless.artifact.build import Options, build_file
from koupleless.container.terms import Rules, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

STEPS: Final = int(os.environ.get("KOUPLELESS_MODEL_STEPS", "2000"))
STEPS_OF_A_RUN: Final = 50
ANSWER_S: Final = 60.0

NAMES: Final = st.sampled_from(sorted(PATHS))
BIZS: Final = st.sampled_from([f"{name}:{version}" for name in PATHS for version in VERSIONS])
KINDS: Final = st.sampled_from(["request", "call"])
RULES: Final = st.builds(
    Rules,
    activate_new=st.booleans(),
    activate_next=st.booleans(),
    activate_many=st.booleans(),
    keep_broken=st.booleans(),
)


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, bool], str]:
    """Name, version, whether its start fails -> URL."""
    root = tmp_path_factory.mktemp("artefacts")
    urls = {}
    for name, path in PATHS.items():
        for version in VERSIONS:
            for fails in (False, True):
                out = root / ("failing" if fails else "good")
                source = root / f"{name}.py"
                source.write_text(SOURCE.format(version=version, more="raise ValueError" if fails else ""))
                options = Options(out=out, name=name, version=version, web_context_path=path)
                urls[name, version, fails] = build_file(source, options).path.as_uri()
    return urls


class Lives(RuleBasedStateMachine):
    """One store, and the bases that it has one after the other."""

    def __init__(self, artefacts: dict[tuple[str, str, bool], str], nursery: str, store: Path) -> None:
        super().__init__()
        self._artefacts = artefacts
        self._nursery = nursery
        self._store = store
        self._wire: Connection | None = None
        self._pid = 0
        self._tickets = 0

    @initialize(rules=RULES)
    def begin(self, rules: Rules) -> None:
        self._expected = Expected(rules)
        self._start()

    def _start(self) -> None:
        self._wire = Client(self._nursery)
        self._pid = self._wire.recv()
        self._wire.send((self._store, self._expected.rules))

    def _ask(self, *words: Any) -> Any:
        assert self._wire is not None
        self._wire.send(words)
        assert self._wire.poll(ANSWER_S), f"no answer to {words}"
        return self._wire.recv()

    def _do(self, expected: str | None, *words: Any) -> None:
        answer = self._ask(*words)
        if expected is None:
            assert answer == [], f"{words} left {answer} behind"
        else:
            assert str(answer).partition(":")[0] == expected, f"{words}: {answer}"

    # --- what may happen ----------------------------------------------------------------------------------------------

    @rule(name=NAMES, version=st.sampled_from(VERSIONS), strategy=st.sampled_from(Strategy), luck=st.integers(0, 4))
    def install(self, name: str, version: str, strategy: Strategy, luck: int) -> None:
        fails = luck == 0
        expected = self._expected.install(name, version, strategy, fails=fails)
        self._do(expected, "install", self._artefacts[name, version, fails], strategy.value)

    @rule(biz=BIZS)
    def uninstall(self, biz: str) -> None:
        self._do(self._expected.uninstall(biz), "uninstall", biz)

    @rule(biz=BIZS)
    def switch(self, biz: str) -> None:
        self._do(self._expected.switch(biz), "switch", biz)

    @rule(name=NAMES, kind=KINDS)
    def come_in(self, name: str, kind: str) -> None:
        self._tickets += 1
        ticket = f"t{self._tickets}"
        assert self._ask("begin", ticket, name, kind) == self._expected.begin(ticket, name, kind)

    @precondition(lambda self: self._expected.tickets)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self._expected.tickets)))
        assert self._ask("end", ticket) == self._expected.end(ticket)

    @rule(luck=st.integers(0, 3), is_killed=st.booleans())
    def restart(self, luck: int, is_killed: bool) -> None:
        if luck == 0:
            self._stop(is_killed=is_killed)
            self._expected.restart()
            self._start()
            self._ask("picture")
            sessions = list((self._store / "sessions").iterdir())
            assert len(sessions) == 1, f"sessions of bases that ended: {sessions}"

    # --- what has to be -----------------------------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        if self._wire is not None:
            assert self._ask("picture") == self._expected.picture()

    def _stop(self, *, is_killed: bool) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        with wire:
            if is_killed:
                os.kill(self._pid, signal.SIGKILL)
            else:
                wire.send(("close",))
                assert wire.poll(ANSWER_S), "no answer to close"
                assert wire.recv() is None
            with contextlib.suppress(ConnectionError, EOFError):  # it ends when the process has
                assert wire.poll(ANSWER_S), "the base did not end"
                wire.recv()

    def teardown(self) -> None:
        self._stop(is_killed=True)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a process that makes bases."""
    address = str(tmp_path_factory.mktemp("nursery") / "door")
    command = [sys.executable, "-m", lives.__name__, address]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield address
        finally:
            process.kill()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / f"store-{number}" for number in range(1_000_000))


@pytest.mark.timeout(0 if STEPS > 2000 else 300)
def test_operations_in_any_order_leave_what_the_model_says(
    artefacts: dict[tuple[str, str, bool], str], nursery: str, stores: Iterator[Path]
) -> None:
    def make() -> Lives:
        return Lives(artefacts, nursery, next(stores))

    run_state_machine_as_test(
        cast("type[Lives]", make),  # anything that makes one
        settings=settings(
            max_examples=max(1, STEPS // STEPS_OF_A_RUN),
            stateful_step_count=STEPS_OF_A_RUN,
            deadline=None,
            database=None,
            derandomize=STEPS <= 2000,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )

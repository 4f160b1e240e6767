"""A suite, run as a biz and alone: each in a process of its own, with the same files and the same arguments."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
import threading
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil  # type: ignore[import-untyped]

import koupleless
from koupleless.artifact.temporary import temporary_directory
from koupleless.errors import KouplelessError
from koupleless.suite.furnish import asks_for, furnish
from koupleless.suite.inside import Order
from koupleless.suite.outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from koupleless.suite.furnish import Furnished
    from koupleless.suite.outcomes import Difference

PYTEST: Final = "pytest"
_WITHOUT_PLUGIN: Final = ("-p", "no:koupleless")


class RunTooLong(KouplelessError):
    """A run was ended because of the time limit of the suite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The tests of ``tree``, run by ``program``, a Python module or a script below the tree."""

    tree: Path
    requirements: tuple[str, ...] = ()
    program: str = PYTEST
    arguments: tuple[str, ...] = ()
    limit_s: float | None = None
    """Seconds until a run and all child processes are ended."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A suite alone and inside."""

    alone: Outcomes
    inside: Outcomes
    differences: tuple[Difference, ...]


def run_inside(suite: Suite) -> int:
    """Run the suite as a biz, with the output streams of this process; returns the exit status of the program.

    Raises ``ArtifactError``, ``BuildFailed`` before anything runs, and ``RunTooLong``.
    """
    return _inside(suite, _furnished(suite), ())


def compare_runs(suite: Suite, *, say: Callable[[str], object]) -> Comparison:
    """Run the suite alone, then as a biz, and compare the outcomes; ``say`` gets a line before each run.

    Outcomes are read from the report of pytest, or from the output of another program, which prints as ``unittest -v``
    does. Raises as `run_inside` does, ``NoReport``, and ``RunTooLong``.
    """
    furnished = _furnished(suite)
    outcomes = []
    for name, run in (("alone", _alone), ("inside", _inside)):
        say(f"running {suite.tree.name} {name}")
        if suite.program != PYTEST:
            printed: list[str] = []
            run(suite, furnished, (), printed)
            outcomes.append(Outcomes.parse("".join(printed)))
            continue
        with temporary_directory("koupleless-suite-") as directory:
            report = Path(directory, "report.xml")
            run(suite, furnished, (f"--junitxml={report}",))
            outcomes.append(Outcomes.read(report))
    alone, inside = outcomes
    return Comparison(alone, inside, tuple(alone.differences(inside)))


def _furnished(suite: Suite) -> Furnished:
    is_asked_for = any(asks_for(text, PYTEST) for text in suite.requirements)
    program = PYTEST if suite.program == PYTEST and not is_asked_for else None
    return furnish(suite.tree, suite.requirements, program=program)


def _inside(suite: Suite, furnished: Furnished, more: Sequence[str], printed: list[str] | None = None) -> int:
    name, warm = _biz_name(furnished.tree), tuple(sorted(_tops(furnished.paths)))
    with temporary_directory("koupleless-suite-") as directory:
        order = Order(name, furnished.paths, warm, str(directory))
        command = [sys.executable, "-P", "-m", "koupleless.suite.inside", order.as_text(), suite.program]
        # The plugin of this package is code of the base, and would look for pytest there.
        plain = _WITHOUT_PLUGIN if suite.program == PYTEST else ()
        return _run([*command, *plain, *suite.arguments, *more], furnished, {}, printed, suite.limit_s)


def _alone(suite: Suite, furnished: Furnished, more: Sequence[str], printed: list[str] | None = None) -> int:
    program = [suite.program] if suite.program.endswith(".py") else ["-P", "-m", suite.program]
    with temporary_directory("koupleless-suite-") as directory:
        venv.create(directory, symlinks=True)  # an interpreter with nothing installed but this package
        Path(directory, "own").mkdir()
        Path(directory, "own", "koupleless").symlink_to(Path(koupleless.__path__[0]))
        # A place for child processes that ignore, or are not given, the variables of the environment.
        packages = sysconfig.get_path("purelib", "venv", {"base": directory, "platbase": directory})
        lines = [*furnished.paths, str(Path(directory, "own")), ""]
        Path(packages, "suite.pth").write_text("\n".join(lines), encoding="utf-8")
        command = [str(Path(directory, "bin", "python")), *program, *suite.arguments, *more]
        return _run(command, furnished, {}, printed, suite.limit_s)


def _run(
    command: Sequence[str],
    furnished: Furnished,
    envs: dict[str, str],
    printed: list[str] | None,
    limit_s: float | None,
) -> int:
    """Run to the end, with the output streams of this process; ``printed`` gets the output as well."""
    collects = printed is not None
    with (
        subprocess.Popen(  # noqa: S603 - the user's own tests
            command,
            cwd=furnished.tree,
            env={**os.environ, **envs},
            stdout=subprocess.PIPE if collects else None,
            stderr=subprocess.STDOUT if collects else None,
            text=True,
            errors="replace",
        ) as process,
        _ended_after(limit_s, process),
    ):
        while True:
            try:
                for line in process.stdout or ():
                    sys.stdout.write(line)
                    if printed is not None:
                        printed.append(line)
                status = process.wait()
            except KeyboardInterrupt:  # the program was interrupted as well, and prints its own message
                continue
            return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _ended_after(limit_s: float | None, process: subprocess.Popen[str]) -> Iterator[None]:
    """End the process and all children after the time limit, and raise ``RunTooLong``."""
    if limit_s is None:
        yield
        return
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(process.pid)
            for each in [leader, *leader.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()

    timer = threading.Timer(limit_s, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
    if is_over.is_set():
        raise RunTooLong(f"the run took longer than {limit_s:g} s and was ended")


def _biz_name(tree: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", tree.name).strip(".-_") or "suite"


def _tops(paths: Sequence[str]) -> Iterator[str]:
    """The names of top-level Python modules at ``paths``: the base is to import its own copies, if there are any."""
    for path in paths:
        for entry in os.scandir(path) if Path(path).is_dir() else ():
            name, _, ending = entry.name.partition(".")
            if name.isidentifier() and (entry.is_dir() or ending == "py" or ending.endswith("so")):
                yield name

"""Fetches the suites that suites.toml names, runs each alone and inside a module, and prints what differs.

``python suites.py [--write FILE] [NAME...]``; the exit status is 1 if a test differs that is not known to. Each row is
written when its suite has ended, also by several of these at the same time. Archives and what was installed stay in the
user's cache, so that a suite runs again at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from koupleless.errors import KouplelessError
from koupleless.suite.furnish import cache
from koupleless.suite.run import PYTEST, Comparison, Suite, compare_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEADING = """# Suites of others, alone and inside a module

<!-- written by scripts/suites; the suites are in scripts/suites.toml -->

The test suites of well-known libraries, run by `scripts/suites`: once plainly, and once inside a module of a base, with
an own copy of every library shared with the suite. `scripts/suites.toml` names the part of each suite to run;
the project itself is the wheel of the package index. A failure in both runs has a reason of its own. Each
row is from the latest run of the suite, with the named Python.

"""
PYTHON = ".".join(map(str, sys.version_info[:2]))
SUITES = Path(__file__).with_name("suites.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One table of the file."""

    source: str
    repository: str = ""
    """Where a tag named as the version has the tests, if the source distribution has not all of them."""
    requirements: tuple[str, ...] = ()
    program: str = PYTEST
    arguments: tuple[str, ...] = ()
    limit_s: int = 900
    """How long each of the two runs may take."""
    differ: Mapping[str, str] = field(default_factory=dict)


def read() -> dict[str, Named]:
    """All suites, by name."""
    document = tomllib.loads(SUITES.read_text(encoding="utf-8"))
    return {
        name: Named(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
        for name, table in document.items()
    }


def version_of(suite: Named) -> str:
    """The one version that its source pins."""
    return str(Requirement(suite.source).specifier).removeprefix("==")


def fetch(source: str, into: Path) -> Path:
    """The tree of a source distribution, whose archive is downloaded once."""
    pin = source.partition(";")[0].strip()
    kept = cache() / "sources" / pin
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=kept.parent) as scratch:
            made = Path(scratch, "made")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            subprocess.run([*command, "--dest", made, pin], check=True)  # noqa: S603 - the interpreter's own pip
            with contextlib.suppress(OSError):  # somebody else was faster
                made.rename(kept)
    (archive,) = kept.iterdir()
    shutil.unpack_archive(archive, into, filter="data")
    (tree,) = into.iterdir()
    return tree


def clone(repository: str, tag: str, into: Path) -> Path:
    """The tree of a tag; ``url.<base>.insteadOf`` of git's configuration has it come from elsewhere."""
    tree = into / Path(repository).name
    quiet = ("-c", "advice.detachedHead=false", "clone", "--quiet", "--depth", "1", "--branch")
    subprocess.run(["git", *quiet, tag, repository, tree], check=True)  # noqa: S603, S607 - the user's own git
    return tree


def run(suite: Named) -> Comparison:
    """Both runs of one suite."""
    with tempfile.TemporaryDirectory(prefix="suite-") as directory:
        if suite.repository:
            tree = clone(suite.repository, version_of(suite), Path(directory))
        else:
            tree = fetch(suite.source, Path(directory))
        quiet = ("-q",) if suite.program == PYTEST else ()
        wanted = Suite(
            tree=tree,
            requirements=(suite.source, *suite.requirements),
            program=suite.program,
            arguments=(*suite.arguments, *quiet),
            limit_s=suite.limit_s,
        )
        return compare_runs(wanted, say=lambda line: print(line, file=sys.stderr, flush=True))


@contextlib.contextmanager
def held(page: Path) -> Iterator[None]:
    """Nobody else writes the page meanwhile."""
    page.touch()
    with page.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)  # released when the file is closed
        yield


def kept(page: Path, *, without: set[str]) -> list[tuple[str, ...]]:
    """The rows of a page that an earlier run wrote, but for those of some suites."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
    cells = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines if line.startswith("| ")]
    return [row for row in cells[1:] if row[0] not in without and row[0].strip("-")]


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as a Markdown table, sorted."""
    head = ("suite", "version", "Python", "alone", "inside a module", "tests that differ")
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ("---",) * len(head), *sorted(rows)]) + "\n"


def write(page: Path, row: tuple[str, ...]) -> None:
    """Put a row into a page, in the place of the one that the suite had."""
    with held(page):
        page.write_text(HEADING + table([*kept(page, without={row[0]}), row]), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run the named suites, or all; print a table."""
    suites = read()
    os.environ.setdefault("PYTHONHASHSEED", "0")  # some tests are named after what a set yields
    target = None
    if arguments[:1] == ["--write"]:
        target, arguments = Path(arguments[1]), arguments[2:]
    rows: list[tuple[str, ...]] = []
    is_failed = False
    for name in arguments or suites:
        suite = suites[name]
        requirement = Requirement(suite.source)
        if requirement.marker is not None and not requirement.marker.evaluate():
            print(f"{name}: not for this Python")
            continue
        row, found_new = row_of(name, suite)
        rows.append(row)
        is_failed = is_failed or found_new
        if target is not None:
            write(target, row)
    print(table(rows))
    return 1 if is_failed else 0


def row_of(name: str, suite: Named) -> tuple[tuple[str, ...], bool]:
    """Run a suite: its row, and whether there is something that is not known."""
    begin = time.monotonic()
    project, version = Requirement(suite.source).name, version_of(suite)
    try:
        found = run(suite)
    except (KouplelessError, subprocess.CalledProcessError) as error:
        print(f"{name}: did not run: {error} ({time.monotonic() - begin:.0f} s)", flush=True)
        return (project, version, PYTHON, "-", "-", f"did not run: {error}"), True
    new = [each for each in found.differences if each.test not in suite.differ]
    for difference in new:
        print(difference.as_text())
    print(f"{name}: {len(new)} of {len(found.alone.tests)} tests differ ({time.monotonic() - begin:.0f} s)", flush=True)
    known = "; ".join(f"`{each.test}` {suite.differ[each.test]}" for each in found.differences if each not in new)
    verdict = f"{len(new)} differ" if new else known or "none"
    return (project, version, PYTHON, found.alone.as_text(), found.inside.as_text(), verdict), bool(new)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Distributions in two versions at once, each in a real use: what works, on which Python, and what it costs.

For every distribution, and every pair, of the four tables beside this file, a fresh process for each scenario: the
base's version and a module's, which of them first, the versions swapped; two modules' versions without one in the base,
in both orders. In all of them modules leave and come back while the others are used. Each use has to yield what it
yields in a process that has this version alone, each owner has to see its own version, every uninstall has to be clean,
and no compiled file may be initialised twice.

Takes the wheels from the package index with pip, once for each Python. Exits with 1 if something that is expected to
work fails, or the other way round. ``scripts/versions`` runs all of it for every Python there is.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from packaging.utils import canonicalize_name, parse_wheel_filename

import koupleless
from koupleless.artifact.manifest import Manifest, render_biz_toml
from koupleless.biz import BizId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE: Final = Path(__file__).parent
FILES: Final = ("science.toml", "compiled.toml", "pure.toml", "pairs.toml")
SIDES: Final = ("newer", "older")
NEWEST: Final = ("3.14", "3.15")
"""Pythons for which compiled libraries, also those that pure ones need, have wheels in their latest versions only."""
MIXED: Final = "mixed"
"""The side of a pair with the newer of the distribution that finds the other one, and the older of that."""
REDEPLOYS: Final = 2
TIMEOUT_S: Final = 600


@dataclass(frozen=True)
class Case:
    """One distribution, as the table describes it."""

    name: str
    module: str
    pins: Mapping[str, tuple[str, ...]]
    use: str
    is_compiled: bool
    fails: str = ""
    """Why two versions cannot be had, in words for its users."""
    fails_mixed: str = ""
    """Of a pair, why the same one of the second cannot be had beside two versions of the first, in words for users."""
    keeps: str = ""
    """What stays of a module that used it, and why."""
    pair: tuple[str, ...] = ()
    """Of a pair, the distribution that is found, and the one that finds it in C."""
    pins_of_newest: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """The pins for each of the newest Pythons, for which there are no wheels of the others."""

    def on(self, version: str) -> Case | None:
        """The case as it is used on a Python; ``None`` if there are no two versions of it there."""
        if version not in NEWEST:
            return self
        pins = self.pins_of_newest.get(version)
        return None if pins is None else replace(self, pins=pins)

    @property
    def distribution(self) -> str:
        return self.pair[1] if self.pair else self.name

    def version(self, side: str, of: str = "") -> str:
        """The version that a side pins of a distribution, by default of the first."""
        pins = self.pins[side]
        return next((pin for pin in pins if _name_of(pin) == of), pins[0]).partition("==")[2]


def read_cases() -> list[Case]:
    """All cases, in the order of the files."""
    cases = []
    for file in FILES:
        for name, table in tomllib.loads((HERE / file).read_text()).items():
            pair = tuple(table.get("pair", ()))
            newest = {version: table.get(version, table.get("newest")) for version in NEWEST}
            pins_of_newest = {version: _pins(pinned, pair) for version, pinned in newest.items() if pinned}
            module = table.get("module", pair[1] if pair else name)
            words = {key: table.get(key, "") for key in ("fails", "fails_mixed", "keeps")}
            cases.append(
                Case(
                    name,
                    module,
                    _pins(table, pair),
                    table["use"],
                    file != "pure.toml",
                    **words,
                    pair=pair,
                    pins_of_newest=pins_of_newest,
                )
            )
    return cases


def _pins(table: Mapping[str, Any], pair: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The pins of each side, in a pair also of the mixed one."""
    pins = {side: tuple(table[side]) for side in SIDES}
    if pair:
        older = {_name_of(pin): pin for pin in pins["older"]}
        pins[MIXED] = tuple(older[pair[0]] if _name_of(pin) == pair[0] else pin for pin in pins["newer"])
    return pins


def _name_of(pin: str) -> str:
    return canonicalize_name(pin.partition("==")[0])


@dataclass
class Outcome:
    """What became of one case on one Python."""

    failures: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """What uninstalls left."""
    copies: int = 0
    """Compiled files that were initialised although another one has the same content, at most."""
    files: int = 0
    """Compiled files that were initialised, of both versions."""
    second_mb: float = 0.0
    redeploy_mb: float = 0.0

    def fails_as_said(self, case: Case) -> bool:
        """Whether something failed, and nothing but what the tables say."""
        is_mixed = bool(case.fails_mixed) and all(MIXED in failure.partition(":")[0] for failure in self.failures)
        return bool(self.failures) and (bool(case.fails) or is_mixed)

    def word(self, case: Case) -> str:
        """What the document says of it."""
        found = "ok" if not self.failures else "refused" if case.fails else "fails"
        if self.fails_as_said(case) and not case.fails:
            found = "ok, but not mixed"
        return f"{found}, keeps the module" if self.kept else found


# --- what is needed ------------------------------------------------------------------------------------------------


class Wheels:
    """The distributions of one Python, unpacked as pip would install them."""

    def __init__(self, directory: Path, version: str) -> None:
        self._directory = directory
        self._version = version
        directory.mkdir(parents=True, exist_ok=True)

    def fetch(self, cases: Sequence[Case]) -> None:
        """Download all at once, in as few runs of pip as there are versions of any one distribution."""
        batches: list[dict[str, str]] = []
        for pin in dict.fromkeys(pin for case in cases for side in SIDES for pin in case.pins[side]):
            name = _name_of(pin)
            batch = next((batch for batch in batches if name not in batch), None)
            if batch is None:
                batches.append(batch := {})
            batch[name] = pin
        for batch in batches:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            command += ["--python-version", self._version, "--implementation", "cp", "--dest", str(self._directory)]
            subprocess.run([*command, *batch.values()], check=True, env=os.environ | {"PIP_NO_INPUT": "1"})

    def unpack(self, pins: Sequence[str], into: Path) -> None:
        """Install some of them into an empty directory."""
        wanted = {(canonicalize_name(pin.partition("==")[0]), pin.partition("==")[2]) for pin in pins}
        for wheel in self._directory.glob("*.whl"):
            name, version, _, _ = parse_wheel_filename(wheel.name)
            if (name, str(version)) in wanted:
                wanted.remove((name, str(version)))
                with zipfile.ZipFile(wheel) as archive:
                    for entry in archive.infolist():
                        head, _, rest = entry.filename.partition("/")
                        if head.endswith(".data"):  # scripts and headers are not imported
                            kind, _, entry.filename = rest.partition("/")
                            if kind not in {"purelib", "platlib"}:
                                continue
                        archive.extract(entry, into)
        assert not wanted, f"no wheels of {wanted}"


def link_runtime(into: Path) -> None:
    """The distributions that the container of a base needs, alone: whatever else is installed here is not there."""
    into.mkdir(parents=True, exist_ok=True)
    if into.joinpath("koupleless").exists():
        return
    into.joinpath("koupleless").symlink_to(Path(koupleless.__file__).parent)
    into.joinpath("inside.py").symlink_to(HERE.parent / "inside.py")
    for name in ("a2wsgi", "packaging"):
        for file in importlib.metadata.files(name) or ():
            if len(file.parts) > 1 and ".." not in file.parts and not into.joinpath(file.parts[0]).exists():
                into.joinpath(file.parts[0]).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 2])


# --- one case ------------------------------------------------------------------------------------------------------


class Trial:
    """One case on one Python, in its own directory."""

    def __init__(self, case: Case, *, python: str, wheels: Wheels, directory: Path, shared: Path) -> None:
        self.case = case
        self._python = python
        self._directory = directory
        self._shared = shared
        self._sides: dict[str, Any] = {}
        self._bizs = {
            "newer": self._make("newer", wheels, "newer"),
            "older": self._make("older", wheels, "older"),
            "twin": self._make("twin", wheels, "newer"),
            "shared": self._make("shared", wheels, None),
        }
        if case.pair:
            self._bizs[MIXED] = self._make(MIXED, wheels, MIXED)

    def _make(self, name: str, wheels: Wheels, side: str | None) -> Path:
        """An artefact with the wheels of one side, or with none."""
        into = self._directory / name
        into.mkdir(parents=True)
        into.joinpath("use.py").write_text(self.case.use)
        facts = {"module": self.case.module, "distribution": self.case.distribution, "is_pair": bool(self.case.pair)}
        into.joinpath("facts.json").write_text(json.dumps(facts))
        shutil.copy(HERE / "entry.py", into)
        packed = () if side is None else self.case.pins[side]
        if side is not None:
            wheels.unpack(packed, into / "lib")
        manifest = Manifest(
            id=BizId.of(name, "1"),
            entry="entry:app",
            web_context_path=f"/{name}",
            requirements=(self.case.distribution if side is None else packed[0],),
            packed=packed,
        )
        into.joinpath("biz.toml").write_text(render_biz_toml(manifest))
        return into

    def run(self) -> Outcome:
        """Every scenario."""
        outcome = Outcome()
        for side in self.case.pins:
            alone = self._child("alone", order=[side, side])
            if "failed" in alone:
                outcome.failures.append(f"{self.case.version(side)} alone: {alone['failed']}")
                return outcome
            self._sides[side] = alone
            outcome.files += alone["files"] if side != MIXED else 0
        second, growth = [], []
        for scenario, order, first in self._scenarios():
            told = self._child(scenario, order=order, first=first)
            where = f"{scenario} {'+'.join(order)}{first and ', first ' + first}"
            for failure in [told.get("failed"), *(f"initialised again: {file}" for file in told.get("repeated", ()))]:
                if failure:
                    outcome.failures.append(f"{where}: {failure}")
            outcome.kept += [f"{where}: {kept}" for kept in told.get("kept", ())]
            outcome.copies = max(outcome.copies, told.get("copies", 0))
            memory = told.get("memory", ())
            if len(memory) > 2 and "failed" not in told:
                second.append(memory[1] - memory[0])
                growth.append((memory[-1] - memory[2]) / max(1, len(memory) - 3))
        if second:
            outcome.second_mb, outcome.redeploy_mb = median(second), median(growth)
        return outcome

    def _scenarios(self) -> Iterator[tuple[str, list[str], str]]:
        for order in (list(SIDES), list(reversed(SIDES))):
            for first in ("base", "module"):
                yield "base", order, first
            yield "modules", order, ""
        if self.case.pair:
            yield "base", ["newer", MIXED], "base"
            yield "base", [MIXED, "newer"], "module"
            yield "modules", ["newer", MIXED], ""

    def _child(self, scenario: str, *, order: Sequence[str], first: str = "") -> dict[str, Any]:
        """Run one scenario; a process that ends without an answer has failed with its last words."""
        name = f"{scenario}-{'-'.join(order)}-{first}"
        settings, answer = self._directory / f"{name}.json", self._directory / f"{name}.answer.json"
        base = None if scenario == "modules" else order[0]
        path = [str(self._directory / base / "lib"), str(self._directory / "shared")] if base else []
        facts = {
            "scenario": scenario,
            "order": list(order),
            "first": first,
            "base": base,
            "redeploys": REDEPLOYS,
            "path": path if scenario == "alone" else [*path, str(self._shared / "runtime")],
            "store": str(self._shared / "store"),
            "sites": {side: str(self._directory / side / "lib") for side in self.case.pins},
            "sides": self._sides,
            "bizs": {
                biz: {"artefact": str(path), "side": {"twin": "newer", "shared": base}.get(biz, biz)}
                for biz, path in self._bizs.items()
            },
        }
        settings.write_text(json.dumps(facts))
        command = [self._python, "-I", "-S", str(HERE / "child.py"), str(settings), str(answer)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return {"failed": f"nothing after {TIMEOUT_S} s"}
        self._directory.joinpath(f"{name}.log").write_text(done.stdout + done.stderr)
        if not answer.exists():
            words = done.stderr.strip().splitlines() or [""]
            fatal = next((line for line in words if line.startswith("Fatal")), words[-1])
            return {"failed": f"the process ended with {done.returncode}: {fatal}"}
        told: dict[str, Any] = json.loads(answer.read_text())
        return told


# --- all of it -----------------------------------------------------------------------------------------------------


def version_of(python: str) -> str:
    """``3.12``, asked of the interpreter."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def interpreter_of(python: str) -> str:
    """The interpreter behind a virtual environment: what the environment has installed is not wanted."""
    code = "import os, sys; print(os.path.realpath(sys.executable))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run_all(
    cases: Sequence[Case],
    pythons: Sequence[str],
    scratch: Path,
    jobs: int,
    tell: Callable[[dict[str, dict[str, Outcome]]], object],
) -> dict[str, dict[str, Outcome]]:
    """Python version -> case -> what became of it; ``tell`` gets that of each case, never two at a time."""
    results: dict[str, dict[str, Outcome]] = {}
    telling = threading.Lock()
    link_runtime(scratch / "runtime")
    for python in pythons:
        version = version_of(python)
        wheels = Wheels(scratch / "wheels" / version, version)
        here = [used for case in cases if (used := case.on(version)) is not None]
        wheels.fetch(here)

        def run(case: Case, python: str = python, version: str = version, wheels: Wheels = wheels) -> Outcome:
            directory = scratch / version / case.name
            outcome = Trial(
                case, python=interpreter_of(python), wheels=wheels, directory=directory, shared=scratch
            ).run()
            show(case, version, outcome)
            with telling:
                tell({version: {case.name: outcome}})
            return outcome

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            results[version] = dict(zip((case.name for case in here), pool.map(run, here), strict=True))
    return results


def show(case: Case, version: str, outcome: Outcome) -> None:
    """A line for each case, as soon as it is known."""
    is_expected = outcome.fails_as_said(case) if outcome.failures else not (case.fails or case.fails_mixed)
    is_as_said = is_expected and (case.keeps or not outcome.kept)
    word = "FAILED" if not is_as_said else "fails, as expected" if outcome.failures else "ok"
    print(f"{version}  {case.name:<14} {case.version('newer'):>11} + {case.version('older'):<11} {word}", flush=True)
    for failure in (*outcome.failures[:3], *outcome.kept[: 0 if case.keeps else 3]):
        print(f"      {failure[:300]}", flush=True)


# --- the document --------------------------------------------------------------------------------------------------

HEAD: Final = """# Private versions

<!-- written by scripts/versions; the uses are in tests/e2e/versions -->

A module may bring another version of a library than the base has, and another one than the next module. Each library
below was used in two versions at once, in fresh processes. In some the two versions were the base's and a module's,
with either of them first, and with the versions swapped; in others two modules had the two versions, without a version
in the base, in both orders. In all processes modules leave and come back while the others go on. Each side uses the
library for real work, on the one thread of the server, and has to get the same results as a process with one version
alone; and no compiled file may be initialised twice.

"ok" means success in all of this. "Compiled" counts the compiled files loaded by both versions. The memory is the
memory of the second version at its first use (kept for good if the version is compiled), and of each further deployment
of the same content. Where a Python is newer than the wheels of these versions, later versions were used, named in the
column. A cell is empty where there are no wheels of two versions, or where nothing was run. Each cell is from the
latest run of the row.
"""
PAIRS: Final = """## Pairs that find each other in C

A compiled library finds another one in C: by the name of a Python module, through a capsule, or in a table of types.
Each of these pairs was used as above. In one trial the versions of both differ from the versions of the base or the
other module. In another trial two versions of the found library go with one version of the finding library; the
compiled files of the finding library are then bound to both. The uses ran on the server's thread, on another thread,
and from the second time on in ways for which both libraries import more of themselves.
"""
PYTHONS: Final = ("3.11", "3.12", "3.13", *NEWEST)
PAIR_COLUMNS: Final = ("Pair", "Versions", *PYTHONS)
COLUMNS: Final = ("Distribution", "Versions", "Compiled", *PYTHONS, "Second version", "Redeployed")


def write_document(path: Path, cases: Sequence[Case], results: Mapping[str, Mapping[str, Outcome]]) -> None:
    """Write the table; columns of Pythons and rows of distributions that were not used now stay as they are."""
    before = _cells(path.read_text()) if path.exists() else {}
    lines = [HEAD, _row(COLUMNS), _row(["---"] * len(COLUMNS))]
    alone = [case for case in cases if not case.pair]
    works = [case for case in alone if not case.fails]
    for case in (*works, *(case for case in alone if case.fails)):
        cells = before.get((case.name, _versions(case)), {})
        for version, outcomes in results.items():
            if case.name not in outcomes:
                continue
            outcome = outcomes[case.name]
            cells[version] = outcome.word(case)
            here = case.on(version)
            if here is not None and here is not case:
                cells[version] += f", {_versions(here)}"
                continue
            if case.is_compiled:
                cells["Compiled"] = str(outcome.files)
            if not outcome.failures:
                cells["Second version"] = f"{outcome.second_mb:.1f} MB"
                cells["Redeployed"] = f"{max(0.0, outcome.redeploy_mb):.1f} MB"
        named = {"Distribution": case.name, "Versions": _versions(case)}
        lines.append(_row([(named | cells).get(column, "") for column in COLUMNS]))
    compiled = sum(case.is_compiled for case in works)
    lines += ["", f"{len(works)} distributions work, {compiled} of them compiled.", "", PAIRS, _row(PAIR_COLUMNS)]
    lines.append(_row(["---"] * len(PAIR_COLUMNS)))
    for case in (case for case in cases if case.pair):
        named = {"Pair": " + ".join(case.pair), "Versions": _versions(case)}
        cells = before.get((named["Pair"], named["Versions"]), {})
        for version, outcomes in results.items():
            here = case.on(version)
            if here is not None and case.name in outcomes:
                later = "" if here is case else f", {_versions(here)}"
                cells[version] = f"{outcomes[case.name].word(case)}{later}"
        lines.append(_row([(named | cells).get(column, "") for column in PAIR_COLUMNS]))
    lines += ["", "## Libraries that do not work in two versions", ""]
    lines += [f"- **{case.name}**: {case.fails}." for case in alone if case.fails]
    lines += ["", "A base refuses a second version of such a library at install, by name.", ""]
    mixed = [f"- **{' + '.join(case.pair)}**: {case.fails_mixed}." for case in cases if case.fails_mixed]
    lines += ["## Pairs where one library does not go with two versions of the other", "", *mixed, ""] if mixed else []
    lines += ["## Libraries that keep a module", ""]
    lines += [f"- **{' + '.join(case.pair) or case.name}**: {case.keeps}." for case in cases if case.keeps]
    path.write_text("\n".join([*lines, ""]))


def _versions(case: Case) -> str:
    if case.pair:
        sides = [" + ".join(case.version(side, of=name) for name in case.pair) for side in SIDES]
        return f"{sides[0]}, {sides[1]}"
    return " and ".join(case.version(side) for side in SIDES)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(document: str) -> dict[tuple[str, str], dict[str, str]]:
    """Distribution, or pair, and versions -> column -> what an earlier document says."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in document.splitlines() if "|" in line]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    columns: list[str] = []
    for row in rows:
        if row[0] in {COLUMNS[0], PAIR_COLUMNS[0]}:
            columns = row
        else:
            cells[row[0], row[1]] = dict(zip(columns, row, strict=False))
    return cells


def surprises(cases: Sequence[Case], results: Mapping[str, Mapping[str, Outcome]]) -> list[str]:
    """What is not as the tables say."""
    found = []
    for version, outcomes in results.items():
        for case in (case for case in cases if case.name in outcomes):
            if outcomes[case.name].failures and not outcomes[case.name].fails_as_said(case):
                found.append(f"{case.name} fails on {version}")
            elif (case.fails or case.fails_mixed) and not outcomes[case.name].failures:
                found.append(f"{case.name} works on {version}, although it is listed as one that fails")
            if outcomes[case.name].kept and not case.keeps:
                found.append(f"{case.name} leaves something behind on {version}")
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="distributions; all of them by default")
    parser.add_argument("--python", action="append", help="an interpreter; may be repeated; by default this one")
    parser.add_argument("--scratch", type=Path, help="a directory to work in, which stays; by default a temporary one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", type=Path, help="the document to write what was found into")
    options = parser.parse_args()
    cases = [case for case in read_cases() if not options.names or case.name in options.names]
    if unknown := set(options.names) - {case.name for case in cases}:
        parser.error(f"not in the tables: {', '.join(sorted(unknown))}")
    unexpected = []
    with tempfile.TemporaryDirectory(prefix="koupleless-versions-") as temporary:
        scratch = (options.scratch or Path(temporary)).absolute()

        def tell(results: dict[str, dict[str, Outcome]]) -> None:
            if options.write:
                write_document(options.write, read_cases(), results)

        for python in options.python or [sys.executable]:
            unexpected += surprises(cases, run_all(cases, [python], scratch, options.jobs, tell))
    for surprise in unexpected:
        print(surprise)
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())

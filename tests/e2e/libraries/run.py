"""Many libraries, each configured differently by a base and two modules: what crosses, and what one module more costs.

For every library of the tables beside this file, fresh processes: each configuration alone, for the right values; a
base that uses the library, and one that merely has it installed, with two modules, a new version of the first, and all
of them leaving; and modules of equal content, installed one after the other and held in each of the ways there are.

Exits with 1 if anybody sees something of another, or a module leaves something behind that the tables do not list.
``scripts/libraries`` makes the environment and writes docs/libraries.md.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections import Counter
from dataclasses import dataclass, field, fields
from importlib.metadata import Distribution, distributions
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import koupleless
from koupleless.artifact.manifest import Manifest, render_biz_toml
from koupleless.biz import BizId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

HERE: Final = Path(__file__).parent
CONSTRAINTS: Final = HERE / "constraints.txt"
VALUES: Final = {"base": 11, "one": 22, "two": 33, "three": 44}
RUNTIME: Final = ("a2wsgi", "packaging")
"""Distributions that the container itself needs."""
HOLDS: Final = ("shared", "own", "anew")
ONE_MORE: Final = 5
TIMEOUT_S: Final = 120


@dataclass(frozen=True, kw_only=True)
class Case:
    """One library, as its table describes it."""

    name: str
    state: str
    """The kind of state that its users share, in words."""
    use: str
    """Source of a Python module with ``configure(value, number)`` and ``observe()``."""
    needs: tuple[str, ...] = ()
    """Requirements; by default its name."""
    imports: tuple[str, ...] = ()
    """Python modules by which it is told whether a module has the base's; by default its name."""
    crosses: str = ""
    """Why it cannot be kept apart, in words for its users."""
    keeps: str = ""
    """What stays of a module that used it, and why."""


def read_cases(tables: Path) -> list[Case]:
    """All cases of a directory of tables, sorted by name."""
    cases = []
    for file in sorted(tables.glob("*.toml")):
        for name, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
            needs, imports = tuple(table.pop("needs", [name])), tuple(table.pop("imports", [name]))
            cases.append(Case(name=name, needs=needs, imports=imports, **table))
    return sorted(cases, key=lambda case: case.name.lower())


# --- the environment -----------------------------------------------------------------------------------------------


def make_environment(directory: Path, cases: Sequence[Case]) -> Path:
    """A virtual environment with everything that the cases need; returns its directory of packages."""
    needs = sorted({*RUNTIME, *(need for case in cases for need in case.needs)})
    wanted = hashlib.sha256("\n".join([*needs, CONSTRAINTS.read_text()]).encode()).hexdigest()
    stamp = directory / "installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing {len(needs)} libraries into {directory}", flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS)]
        subprocess.run([*pip, *needs], check=True, env=os.environ | {"PIP_NO_INPUT": "1"})
        stamp.write_text(wanted)
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(directory), "platbase": str(directory)}))


class Environment:
    """The distributions of one directory of packages, from which smaller ones are made by hard links."""

    def __init__(self, packages: Path) -> None:
        found = distributions(path=[str(packages)])
        self._distributions: dict[str, Distribution] = {
            canonicalize_name(each.metadata["Name"]): each for each in found
        }

    def version(self, name: str) -> str:
        return self._distributions[canonicalize_name(Requirement(name).name)].version

    def is_compiled(self, name: str) -> bool:
        return any(file.suffix in {".so", ".pyd"} for file in self._distributions[name].files or ())

    def closure(self, requirements: Iterable[str]) -> list[str]:
        """Names of the distributions that the requirements need, and of those that these need, without duplicates."""
        found: dict[str, None] = {}
        pending = [Requirement(text) for text in requirements]
        seen = set()
        while pending:
            requirement = pending.pop(0)
            name = canonicalize_name(requirement.name)
            key = (name, frozenset(requirement.extras))
            if key in seen or name not in self._distributions:
                continue
            seen.add(key)
            found[name] = None
            for text in self._distributions[name].requires or ():
                needed = Requirement(text)
                extras = requirement.extras or {""}
                if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                    pending.append(needed)
        return list(found)

    def link(self, names: Iterable[str], into: Path) -> None:
        """Make ``into`` a directory of packages with some of the distributions, bytecode included."""
        for name in names:
            for file in self._distributions[name].files or ():
                source, target = Path(str(file.locate())), into / file
                if ".." in file.parts or not source.is_file():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.hardlink_to(source)
                except FileExistsError:  # two distributions share a file
                    continue
                except OSError:  # another file system
                    shutil.copy2(source, target)

    def pins(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"{name}=={self._distributions[name].version}" for name in names)


# --- one case ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """Something that was not as it is alone."""

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.where}): {self.detail}"


@dataclass
class Outcome:
    """What became of one case."""

    version: str
    is_compiled: bool
    mistakes: list[str] = field(default_factory=list)
    """Why the case itself proves nothing."""
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    """Scenario -> what was not as it is alone."""
    left: list[str] = field(default_factory=list)
    """What uninstalls left."""
    held: str = ""
    """How a module is said to hold it."""
    why: str = ""
    costs: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Way to hold the library -> milliseconds and MB of one more module."""

    @property
    def kinds(self) -> set[str]:
        return {finding.kind for findings in self.findings.values() for finding in findings}


@dataclass(frozen=True)
class Terms:
    """How to run the cases."""

    costs: bool
    """Measure what one module more costs."""
    copied: bool
    """Give each biz its own copy, whatever is known of the library."""


class Trial:
    """One case in its own directory."""

    def __init__(self, case: Case, environment: Environment, directory: Path, *, terms: Terms) -> None:
        self.case = case
        self._terms = terms
        self._own = canonicalize_name(Requirement(case.needs[0]).name)
        self._environment = environment
        self._directory = directory
        self._closure = environment.closure([*case.needs, *RUNTIME])
        shutil.rmtree(directory, ignore_errors=True)
        environment.link(self._closure, directory / "packages")
        base = directory / "base"
        base.mkdir()
        base.joinpath("use.py").write_text(case.use)

    def run(self) -> Outcome:
        """Every scenario."""
        outcome = Outcome(self._environment.version(self._own), self._environment.is_compiled(self._own))
        right = {value: self._child("alone", value=value) for value in VALUES}
        outcome.mistakes = [f"{value} alone: {told['failed']}" for value, told in right.items() if "failed" in told]
        if not outcome.mistakes:
            outcome.mistakes = mistakes(right)
        if outcome.mistakes:
            return outcome
        expected = {value: told["seen"] for value, told in right.items()}
        artefacts = {value: str(self._artefact(value)) for value in VALUES if value != "base"}
        for scenario in ("warm", "cold"):
            told = self._child(scenario, artefacts=artefacts)
            outcome.findings[scenario] = judge(told, expected)
            outcome.left += [
                f"{each['biz']}: {each['summary']}" for each in told.get("leaving", ()) if not each["clean"]
            ]
            if scenario == "warm":
                outcome.held, outcome.why = told.get("libraries", {}).get(self._own, ("", ""))
                if (is_shared := in_words(told.get("held", {}))) not in {"", outcome.held}:
                    outcome.mistakes.append(f"it is said to be held as {outcome.held!r}, and is {is_shared!r}")
        if not self._terms.costs:
            return outcome
        holds = [hold for hold in HOLDS if can_hold(hold) and not (hold == "anew" and outcome.is_compiled)]
        told = self._child("cost", costs={hold: self._more(hold) for hold in holds})
        outcome.costs = dict(costs(told))
        return outcome

    def _more(self, hold: str) -> list[str]:
        """Artefacts of equal content but for their names; what is read anew is so once only."""
        return [
            str(self._artefact("two", name=f"{hold}{i}", hold=hold)) for i in range(1 if hold == "anew" else ONE_MORE)
        ]

    def _artefact(self, value: str, *, name: str = "", hold: str = "") -> Path:
        """A directory that is installed as it is; ``hold`` says how it holds the library, if not as by default."""
        into = self._directory / "artefacts" / (name or value)
        into.mkdir(parents=True)
        into.joinpath("use.py").write_text(self.case.use)
        facts = {"value": value, "number": VALUES[value], "imports": self.case.imports}
        into.joinpath("facts.json").write_text(json.dumps(facts))
        shutil.copy(HERE / "entry.py", into)
        packed: tuple[str, ...] = ()
        chosen: dict[str, tuple[str, ...]] = {}
        if hold == "anew":
            pure = [each for each in self._closure if not self._environment.is_compiled(each) and each not in RUNTIME]
            self._environment.link(pure, into / "lib")
            packed = self._environment.pins(pure)
        elif hold and can_hold(hold):
            chosen = {hold: (self._own,)} if hold in MANIFEST else {}
        name = name or {"three": "one"}.get(value, value)
        manifest = Manifest(
            id=BizId.of(name, "2" if value == "three" else "1"),
            entry="entry:app",
            web_context_path=f"/{name}",
            requirements=tuple(str(Requirement(need).name) for need in self.case.needs),
            packed=packed,
            **chosen,  # type: ignore[arg-type]
        )
        into.joinpath("biz.toml").write_text(render_biz_toml(manifest))
        return into

    def _child(self, scenario: str, **facts: Any) -> dict[str, Any]:
        """Run one scenario; a process that ends without an answer has failed with its last words."""
        name = f"{scenario}-{facts['value']}" if "value" in facts else scenario
        settings, answer = self._directory / f"{name}.json", self._directory / f"{name}.answer.json"
        path = [self._directory / "base", self._directory / "packages"]
        if scenario != "alone":
            path.append(self._directory.parent / "runtime")
        facts |= {
            "scenario": scenario,
            "path": [str(each) for each in path],
            "store": str(self._directory / "store"),
            "imports": self.case.imports,
            "copied": [self._own] if self._terms.copied else [],
        }
        settings.write_text(json.dumps(facts))
        command = [sys.executable, "-I", "-S", str(HERE / "child.py"), str(settings), str(answer)]
        environ = {"PATH": os.defpath, "HOME": str(self._directory), "LANG": "C.UTF-8", "TZ": "UTC"}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
                env=environ,
                stdin=subprocess.DEVNULL,
                cwd=self._directory,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"nothing after {TIMEOUT_S} s"}
        self._directory.joinpath(f"{name}.log").write_text(done.stdout + done.stderr)
        if not answer.exists():
            words = done.stderr.strip().splitlines() or [""]
            fatal = next((line for line in words if line.startswith("Fatal")), words[-1])
            return {"failed": f"the process ended with {done.returncode}: {fatal}"}
        try:
            told: dict[str, Any] = json.loads(answer.read_text())
        except ValueError:
            return {"failed": "the process wrote no answer that can be read"}
        return told


MANIFEST: Final = frozenset(each.name for each in fields(Manifest))


def can_hold(hold: str) -> bool:
    """Whether a module can ask for that; sharing was the only way before it could."""
    return hold != "own" or hold in MANIFEST


def mistakes(right: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why a use proves nothing: what it sees changes by looking, or does not depend on the configuration."""
    found = [
        f"{value} sees {told['seen']}, then {told['again']}"
        for value, told in right.items()
        if told["seen"] != told["again"]
    ]
    times = Counter(json.dumps(told["seen"], sort_keys=True) for told in right.values())
    return found + [f"not only one configuration shows {seen}" for seen, number in times.items() if number > 1]


def judge(told: Mapping[str, Any], expected: Mapping[str, Any]) -> list[Finding]:
    """Everything that somebody saw after some step and does not see alone."""
    if "failed" in told:
        return [Finding("process fails", "all", told["failed"])]
    found = []
    for step in told["steps"]:
        where, actor = step["step"], step["actor"]
        is_over = where == "end" or (where.startswith("uninstall") and set(step["saw"]) <= {"base"})
        if "failed" in step:
            kind = "left behind" if is_over and actor == "base" else f"{role(actor)} fails"
            found.append(Finding(kind, where, step["failed"]))
        for party, answer in step["saw"].items():
            if "error" not in answer and answer["seen"] == expected[party]:
                continue
            seen = answer.get("error", answer.get("seen"))
            source = next((value for value, right in expected.items() if right == seen), actor)
            if source == party:  # nobody's value, after a step of its own
                source = "base" if "base" in step["saw"] and party != "base" else "another"
            kind = "left behind" if party == "base" and is_over else f"{role(source)} → {role(party)}"
            found.append(Finding(kind, f"{where}, {party}", f"{seen} instead of {expected[party]}"))
    return found


def role(party: str) -> str:
    return "base" if party == "base" else "module"


def in_words(held: Mapping[str, Mapping[str, bool]]) -> str:
    """How the modules hold the library, by the identity of its Python modules."""
    is_shared = {is_shared for modules in held.values() for is_shared in modules.values()}
    return {frozenset({True}): "shared", frozenset({False}): "own copy", frozenset(): ""}.get(
        frozenset(is_shared), "in part"
    )


def costs(told: Mapping[str, Any]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Way to hold the library -> median of milliseconds and MB, without the first that warms what all use."""
    for hold in HOLDS:
        measured = told.get(hold, ())
        measured = [each for each in measured[len(measured) > 1 :] if not isinstance(each, str)]
        if measured:
            yield hold, (median(each[0] for each in measured), median(each[1] for each in measured) / 1e6)


# --- all of it -----------------------------------------------------------------------------------------------------


def run_all(
    cases: Sequence[Case], environment: Environment, scratch: Path, *, jobs: int, terms: Terms
) -> dict[str, Outcome]:
    """Name of a case -> what became of it."""
    runtime = scratch / "runtime"
    runtime.mkdir(parents=True, exist_ok=True)
    for name, target in (("koupleless", Path(koupleless.__file__).parent), ("inside.py", HERE.parent / "inside.py")):
        runtime.joinpath(name).unlink(missing_ok=True)
        runtime.joinpath(name).symlink_to(target)

    def run(case: Case) -> Outcome:
        outcome = Trial(case, environment, scratch / case.name, terms=terms).run()
        show(case, outcome)
        return outcome

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return dict(zip((case.name for case in cases), pool.map(run, cases), strict=True))


def show(case: Case, outcome: Outcome) -> None:
    """A line for each case as soon as it is known, and one for each finding."""
    word = "PROVES NOTHING" if outcome.mistakes else ", ".join(sorted(outcome.kinds)) or "apart"
    if outcome.left and not case.keeps:
        word += "; leaves something"
    cost = "  ".join(f"{hold} {ms:.0f} ms {mb:.2f} MB" for hold, (ms, mb) in outcome.costs.items())
    print(f"{case.name:<28} {outcome.version:<12} {outcome.held:<9} {word:<40} {cost}", flush=True)
    for line in (*outcome.mistakes, *dict.fromkeys(outcome.left)):
        print(f"      {line[:400]}", flush=True)
    for scenario, findings in outcome.findings.items():
        for finding in findings:
            print(f"      {scenario}: {str(finding)[:400]}", flush=True)


# --- the document --------------------------------------------------------------------------------------------------

HEAD: Final = """# Libraries that a base and its modules configure differently

<!-- written by scripts/libraries; the uses are in tests/e2e/libraries -->

A base and two modules use the same library, each configured differently; the first module is replaced by a
version with yet another configuration; all leave. After every step each of them has to see the same as a process with
this configuration alone, and in the end the base sees the same as before. Each row was run in fresh processes: with a
base using the library ("base uses it"), and with a base where the library is merely installed, and first used when
all modules have left ("base has it"). "Apart" means success in all of this; otherwise the cell names both sides of each
crossing.

"Held" is the answer of a base, checked by the identity of Python modules of the library. "One more" is a further module
of equal content in a base with the library in use: processor time and memory from the install to the first answer, with
the same work as in the trial. The library is held in each possible way: shared with the base; as an own copy; and
brought along, with the Python files of the library and its requirements read anew from the artefact (compiled files
stay the base's). A cell is empty where a second module cannot hold the library in this way.
"""
COLUMNS: Final = (
    "Library",
    "Version",
    "State",
    "Compiled",
    "Held",
    "Base uses it",
    "Base has it",
    "Leaves",
    "One more, shared",
    "One more, own copy",
    "Brought along",
)


def row_of(case: Case, outcome: Outcome) -> dict[str, str]:
    """Column -> cell."""
    cells = {"Library": case.name, "Version": outcome.version, "State": case.state, "Held": outcome.held}
    cells["Compiled"] = "yes" if outcome.is_compiled else ""
    for column, scenario in (("Base uses it", "warm"), ("Base has it", "cold")):
        kinds = sorted({finding.kind for finding in outcome.findings.get(scenario, ())})
        cells[column] = "proves nothing" if outcome.mistakes else "; ".join(kinds) or "apart"
    cells["Leaves"] = "keeps something" if outcome.left else "clean"
    if outcome.costs:
        figures = (outcome.costs.get(hold) for hold in HOLDS)
        told = ("{:.0f} ms, {:.2f} MB".format(*figure) if figure else "" for figure in figures)
        cells |= zip(COLUMNS[-3:], told, strict=True)
    return cells


def write_document(path: Path, cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> None:
    """Write the table; rows of cases that were not run now stay as they are."""
    before = earlier_rows(path.read_text(encoding="utf-8")) if path.exists() else {}
    now = {case.name: row_of(case, outcomes[case.name]) for case in cases if case.name in outcomes}
    rows = {case.name: before.get(case.name, {}) | now.get(case.name, {}) for case in cases}
    there = [row for row in rows.values() if row]
    apart = sum(row["Base uses it"] == row["Base has it"] == "apart" for row in there)
    clean = sum(row["Leaves"] == "clean" for row in there)
    lines = [HEAD, line_of(COLUMNS), line_of(["---"] * len(COLUMNS))]
    lines += [line_of([row.get(column, "") for column in COLUMNS]) for row in there]
    lines += ["", f"{len(there)} libraries, {apart} apart in both, {clean} with nothing left behind.", ""]
    for heading, reasons in (
        ("Libraries that are not kept apart", {case.name: case.crosses for case in cases if case.crosses}),
        ("Libraries that keep a module", {case.name: case.keeps for case in cases if case.keeps}),
    ):
        if reasons:
            lines += [f"## {heading}", "", *(f"- **{name}**: {reason}." for name, reason in reasons.items()), ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def line_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def earlier_rows(document: str) -> dict[str, dict[str, str]]:
    """Library -> column -> cell of an earlier document."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in document.splitlines() if line[:2] == "| "
    ]
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in rows if len(row) == len(COLUMNS)}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="libraries; all of them by default")
    parser.add_argument("--environment", type=Path, help="where to install them; by default what is here is used")
    parser.add_argument("--scratch", type=Path, help="a directory to work in, which stays; by default a temporary one")
    parser.add_argument(
        "--tables", type=Path, default=HERE, help="a directory of tables; by default the one of this file"
    )
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--copied", action="store_true", help="try own copies of them, whatever is known of them")
    parser.add_argument("--without-costs", action="store_true", help="leave the figures of an earlier run as they are")
    parser.add_argument("--write", type=Path, help="the document to write what was found into")
    parser.add_argument("--json", type=Path, help="a file for all findings and figures")
    options = parser.parse_args()
    known = read_cases(options.tables)
    cases = [case for case in known if not options.names or case.name in options.names]
    if unknown := set(options.names) - {case.name for case in cases}:
        parser.error(f"not in the tables: {', '.join(sorted(unknown))}")
    packages = (
        make_environment(options.environment, known) if options.environment else Path(sysconfig.get_path("purelib"))
    )
    with tempfile.TemporaryDirectory(prefix="koupleless-libraries-", dir=options.environment) as temporary:
        scratch = (options.scratch or Path(temporary)).absolute()
        outcomes = run_all(
            cases,
            Environment(packages),
            scratch,
            jobs=options.jobs,
            terms=Terms(costs=not options.without_costs, copied=options.copied),
        )
    if options.write:
        write_document(options.write, known, outcomes)
    if options.json:
        facts = {name: vars(outcome) for name, outcome in outcomes.items()}
        options.json.write_text(json.dumps(facts, default=vars, indent=1))
    unexpected = surprises(cases, outcomes)
    for surprise in unexpected:
        print(surprise)
    return 1 if unexpected else 0


def surprises(cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> list[str]:
    """Everything that is not as the tables say."""
    found = []
    for case in cases:
        outcome = outcomes[case.name]
        if outcome.mistakes:
            found.append(f"{case.name} proves nothing")
        elif outcome.kinds and not case.crosses:
            found.append(f"{case.name} is not kept apart")
        elif case.crosses and not outcome.kinds:
            found.append(f"{case.name} is kept apart, although it is listed as one that is not")
        if outcome.left and not case.keeps:
            found.append(f"{case.name} leaves something behind")
    return found


if __name__ == "__main__":
    sys.exit(main())

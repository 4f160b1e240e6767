"""Which distributions travel in an artefact, and which the base provides: decided, explained, and fetched with pip."""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from koupleless.artifact.temporary import temporary_directory
from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from koupleless.artifact.manifest import Manifest

RUNTIME: Final = "koupleless"
"""The one distribution that no biz may bring: it always gets the process's own."""

_PIP_TIMEOUT_S: Final = 900.0
_NOISE: Final = frozenset({"INSTALLER", "direct_url.json", "REQUESTED"})


class BaseFacts:
    """What a base has: names and versions, and what those need in turn.

    Immutable; answers may be slow the first time, because an environment is read only as far as it is asked about.
    """

    def __init__(self, versions: Mapping[str, str], requires: Mapping[str, Sequence[str]] | None = None) -> None:
        known = {str(canonicalize_name(name)): version for name, version in versions.items()}
        needs = {str(canonicalize_name(name)): tuple(texts) for name, texts in (requires or {}).items()}
        self._find: Callable[[str], tuple[str, tuple[str, ...]] | None] = lambda name: (
            (known[name], needs.get(name, ())) if name in known else None
        )
        self._list: Callable[[], Mapping[str, str]] = lambda: known

    @classmethod
    def of_environment(cls) -> BaseFacts:
        """Those of the running interpreter."""
        facts = cls({})
        facts._find = functools.cache(_find_installed)
        facts._list = functools.cache(_list_installed)
        return facts

    def version_of(self, name: str) -> str | None:
        """The version of a distribution, given its normalised name; ``None`` if the base lacks it."""
        found = self._find(name)
        return found[0] if found else None

    def requires_of(self, name: str) -> tuple[str, ...]:
        """What a distribution of the base needs, as PEP 508 texts; empty where that is not known."""
        found = self._find(name)
        return found[1] if found else ()

    def versions(self) -> Mapping[str, str]:
        """Everything: normalised name -> version."""
        return self._list()


def _find_installed(name: str) -> tuple[str, tuple[str, ...]] | None:
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    return distribution.version, tuple(distribution.requires or ())


def _list_installed() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        # The first one on the path is the one that is imported. Broken metadata has no name.
        if (name := distribution.metadata["Name"]) is not None:
            found.setdefault(str(canonicalize_name(name)), distribution.version)
    return found


@dataclass(frozen=True, slots=True)
class Decision:
    """Why one distribution is in the artefact, or not."""

    name: str
    version: str
    is_packed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """Every distribution that the module needs, in alphabetical order, and what became of it."""

    decisions: tuple[Decision, ...] = ()
    provided: tuple[str, ...] = ()
    """What a base has to satisfy for the rest to be left out, as PEP 508 texts."""

    @property
    def packed(self) -> tuple[Decision, ...]:
        """Those that travel in the artefact."""
        return tuple(decision for decision in self.decisions if decision.is_packed)

    @property
    def left_out(self) -> tuple[Decision, ...]:
        """Those that the base provides."""
        return tuple(decision for decision in self.decisions if not decision.is_packed)


# --- deciding ------------------------------------------------------------------------------------------------------


def lack(requirement: Requirement, facts: BaseFacts) -> str | None:
    """Why the base does not satisfy a requirement, down to what its distributions need in turn; ``None`` if it does."""
    return _lack(requirement, facts, set())


def _lack(requirement: Requirement, facts: BaseFacts, seen: set[tuple[str, frozenset[str]]]) -> str | None:
    name = canonicalize_name(requirement.name)
    if name == RUNTIME:
        return None
    version = facts.version_of(name)
    if version is None or requirement.url:
        return "it comes from an address of its own" if requirement.url else "the base does not have it"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.specifier} is needed, the base has {version}"
    key = (name, frozenset(requirement.extras))
    if key in seen:
        return None
    seen.add(key)
    for needed in active(facts.requires_of(name), requirement.extras):
        if (why := _lack(needed, facts, seen)) is not None:
            return f"the base has {version}, but not the {needed.name} it needs ({why})"
    return None


def active(texts: Iterable[str], extras: Iterable[str] = ()) -> Iterator[Requirement]:
    """Those requirements whose markers hold for the running interpreter and any of the extras."""
    chosen = [*extras, ""]
    for text in texts:
        with contextlib.suppress(InvalidRequirement):  # what an installed package says of itself is not ours to mend
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in chosen):
                yield requirement


def unsatisfied(manifest: Manifest, facts: BaseFacts) -> tuple[str, ...]:
    """What the base would have to provide for this biz and does not, one sentence each.

    For the moment before an install: an artefact may meet another base than the one it was slimmed for.
    """
    packed = {canonicalize_name(text.partition("==")[0]) for text in manifest.packed}
    sentences = {}
    for requirement in active((*manifest.requirements, *manifest.provided)):
        if canonicalize_name(requirement.name) not in packed and (why := lack(requirement, facts)) is not None:
            sentences[requirement.name] = f"{requirement}: {why}"
    return tuple(sentences[name] for name in sorted(sentences))


@dataclass(slots=True)
class _Need:
    """One distribution while it is being decided about."""

    wanted: Requirement
    by: set[str] = field(default_factory=set)

    def add(self, requirement: Requirement, by: str) -> None:
        self.wanted.specifier &= requirement.specifier
        self.wanted.extras |= requirement.extras
        self.wanted.url = self.wanted.url or requirement.url
        if by:
            self.by.add(by)

    @property
    def words(self) -> str:
        return f", needed by {', '.join(sorted(self.by))}" if self.by else ""


def _needs(roots: Sequence[Requirement], requires_of: Callable[[str], Iterable[str]]) -> dict[str, _Need]:
    """Everything that ``roots`` need, with all that is asked of each."""
    needs: dict[str, _Need] = {}
    pending = [(root, "") for root in roots]
    while pending:
        requirement, by = pending.pop()
        name = str(canonicalize_name(requirement.name))
        need = needs.get(name)
        is_new = need is None or not requirement.extras <= need.wanted.extras
        if need is None:
            need = needs[name] = _Need(Requirement(requirement.name))
        need.add(requirement, by)
        if is_new:
            pending += [(needed, name) for needed in active(requires_of(name), need.wanted.extras)]
    return needs


def gather(
    project: str,
    requirements: Sequence[str],
    into: Path,
    *,
    facts: BaseFacts | None = None,
    always: frozenset[str] = frozenset(),
    python: str = sys.executable,
) -> Report:
    """Put the distributions that have to travel below ``into``, and say of every one why.

    ``facts`` says what the base provides; ``None`` packs everything. ``always`` are normalised names that travel in any
    case, also if nobody requires them. pip runs only if something has to be packed. Raises ``BuildFailed`` with the
    words of pip.
    """
    base = facts if facts is not None else BaseFacts({})
    roots = list(active(requirements))
    roots += [Requirement(name) for name in sorted(always - {canonicalize_name(root.name) for root in roots})]
    reasons = {requirement: lack(requirement, base) for requirement in roots}
    missing = [
        requirement
        for requirement in roots
        if reasons[requirement] is not None or canonicalize_name(requirement.name) in always
    ]
    there = [requirement for requirement in roots if requirement not in missing]
    decisions = {name: _left_out(name, need, base) for name, need in _needs(there, base.requires_of).items()}
    provided = {name: need.wanted for name, need in _needs(there, lambda _: ()).items()}
    if missing:
        pip = Pip(project, python)
        resolved = pip.resolve(missing, _constraints(base, missing, always), also=there)
        needs = _needs([*there, *missing], lambda name: resolved[name].requires if name in resolved else ())
        seeds = [str(canonicalize_name(requirement.name)) for requirement in missing]
        chosen = _decide(seeds, needs, resolved, base, always)
        pip.install([resolved[name].pin for name in sorted(chosen.packed)], into)
        decisions |= chosen.decisions
        provided |= chosen.provided
    provided.pop(RUNTIME, None)
    return Report(
        tuple(decisions[name] for name in sorted(decisions)), tuple(str(provided[name]) for name in sorted(provided))
    )


@dataclass(slots=True)
class _Choice:
    """What became of the distributions that pip resolved."""

    packed: set[str] = field(default_factory=set)
    decisions: dict[str, Decision] = field(default_factory=dict)
    provided: dict[str, Requirement] = field(default_factory=dict)


def _decide(
    seeds: Iterable[str],
    needs: Mapping[str, _Need],
    resolved: Mapping[str, _Resolved],
    base: BaseFacts,
    always: frozenset[str],
) -> _Choice:
    """Walk from what has to be packed to what that needs in turn; what only left-out ones need is not reached."""
    choice = _Choice()
    pending = list(seeds)
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        need = needs[name]
        why = "it is asked for" if name in always else lack(need.wanted, base)
        if why is None:
            choice.provided[name] = need.wanted
            for inner, inner_need in _needs([need.wanted], base.requires_of).items():
                choice.decisions.setdefault(inner, _left_out(inner, inner_need, base))
            choice.decisions[name] = _left_out(name, need, base)
        elif name not in resolved:
            raise BuildFailed(name, f"pip did not say which version of it is needed; {why}")
        else:
            choice.packed.add(name)
            choice.decisions[name] = Decision(name, resolved[name].version, is_packed=True, reason=why + need.words)
            needed = active(resolved[name].requires, need.wanted.extras)
            pending += [str(canonicalize_name(requirement.name)) for requirement in needed]
    return choice


def _left_out(name: str, need: _Need, base: BaseFacts) -> Decision:
    version = base.version_of(name) or ""
    if name == RUNTIME:
        return Decision(name, version, is_packed=False, reason="every biz gets the base's own")
    asked = f", which satisfies {need.wanted.specifier}" if need.wanted.specifier else ""
    return Decision(name, version, is_packed=False, reason=f"the base has it{asked}{need.words}")


# --- pip -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Resolved:
    """One distribution as pip resolved it."""

    version: str
    requires: tuple[str, ...]
    pin: str


class Pip:
    """The pip of one interpreter, run as a child on behalf of one project. May be used by any thread."""

    def __init__(self, project: str, python: str) -> None:
        self._project = project
        self._python = python

    def resolve(
        self, requirements: Sequence[Requirement], base: Mapping[str, str], *, also: Sequence[Requirement]
    ) -> dict[str, _Resolved]:
        """Everything that ``requirements`` need, as pip would install it into an empty environment.

        The base's versions are preferred, so that as much as possible can be left out; if they cannot be had together,
        pip chooses freely within what is asked for.
        """
        freely = [f"{requirement.name}{requirement.specifier}" for requirement in also if requirement.specifier]
        with temporary_directory("koupleless-pip-") as directory:
            report, constraints = Path(directory, "report.json"), Path(directory, "constraints.txt")
            command = ["--dry-run", "--ignore-installed", "--report", str(report), "--constraint", str(constraints)]
            command += [str(requirement) for requirement in requirements]
            constraints.write_text("\n".join([*freely, *(f"{name}=={base[name]}" for name in base)]), "utf-8")
            code, output = self._run(command)
            if code != 0 and base:
                constraints.write_text("\n".join(freely), "utf-8")
                code, output = self._run(command)
            self._check(code, output, "pip finds no set of distributions that satisfies it")
            found = json.loads(report.read_text("utf-8"))["install"]
        return {str(canonicalize_name(item["metadata"]["name"])): _resolved(item) for item in found}

    def install(self, pins: Sequence[str], into: Path) -> None:
        """Put exactly these below ``into``, and clean up what would differ from one build to the next."""
        if pins:
            code, output = self._run(["--no-deps", "--no-compile", "--target", str(into), *pins])
            self._check(code, output, "pip could not install what it needs")
            _clean(into)

    def install_freely(self, requirements: Sequence[str], into: Path, *, alone: bool = False) -> None:
        """Put whatever pip chooses for ``requirements`` below ``into``; ``alone``: without what they need in turn.

        Raises ``BuildFailed`` with what pip said.
        """
        code, output = self._run([*(["--no-deps"] if alone else []), "--target", str(into), *requirements])
        self._check(code, output, "pip could not install what it needs")

    def _run(self, arguments: Sequence[str]) -> tuple[int, str]:
        # What a user's pip configuration may say about where to install contradicts --target.
        environment = {**os.environ, "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH"):
            environment.pop(name, None)
        command = [self._python, "-m", "pip", "install", "--quiet", "--progress-bar", "off", *arguments]
        # A pip that is killed, by an interrupted build or the time-out, leaves its temporary files: they go with ours.
        with temporary_directory("koupleless-pip-") as directory:
            try:
                done = subprocess.run(  # noqa: S603 - the interpreter's own pip, no shell
                    command,
                    env={**environment, "TMPDIR": str(directory)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=_PIP_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise BuildFailed(self._project, f"pip did not finish within {_PIP_TIMEOUT_S:g} s") from None
            except OSError as error:
                raise BuildFailed(self._project, f"cannot run {self._python}: {error.strerror}") from None
        return done.returncode, done.stdout.decode(errors="replace").strip()

    def _check(self, code: int, output: str, reason: str) -> None:
        if code == 0:
            return
        if "No module named pip" in output:
            reason = f"{self._python} has no pip; install it with: {self._python} -m ensurepip"
        elif output:
            reason += ": " + output.splitlines()[-1].removeprefix("ERROR: ")
        raise BuildFailed(self._project, reason, output=output)


def _resolved(item: Mapping[str, Any]) -> _Resolved:
    metadata = item["metadata"]
    name, version = metadata["name"], metadata["version"]
    pin = f"{name} @ {item['download_info']['url']}" if item.get("is_direct") else f"{name}=={version}"
    return _Resolved(version, tuple(metadata.get("requires_dist") or ()), pin)


def _constraints(base: BaseFacts, missing: Iterable[Requirement], always: Iterable[str]) -> dict[str, str]:
    """The base's versions, but for what it is known not to satisfy."""
    out = {str(canonicalize_name(requirement.name)) for requirement in missing} | set(always) | {RUNTIME}
    return {name: version for name, version in sorted(base.versions().items()) if name not in out}


def _clean(directory: Path) -> None:
    """Drop scripts, bytecode, and what pip notes about the very run it was."""
    shutil.rmtree(directory / "bin", ignore_errors=True)
    for path in sorted(directory.rglob("__pycache__")):
        shutil.rmtree(path, ignore_errors=True)
    for info in directory.glob("*.dist-info"):
        for name in _NOISE:
            (info / name).unlink(missing_ok=True)
        record = info / "RECORD"
        if record.is_file():
            rows = [row for row in csv.reader(record.read_text("utf-8").splitlines()) if row]
            kept = sorted(row for row in rows if not row[0].startswith("..") and (directory / row[0]).is_file())
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(kept)
            record.write_text(text.getvalue(), "utf-8")

"""Slimming: decide for each distribution whether the base provides or the artefact packs it, and run pip."""

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
"""The one distribution no biz may bring: all bizs use the copy of the process."""

_PIP_TIMEOUT_S: Final = 900.0
_NOISE: Final = frozenset({"INSTALLER", "direct_url.json", "REQUESTED"})


class BaseFacts:
    """The distributions of a base, with versions and requirements.

    Immutable. The first answer about a distribution may be slow, because the environment is read on demand.
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
        """The facts of the running interpreter's environment."""
        facts = cls({})
        facts._find = functools.cache(_find_installed)
        facts._list = functools.cache(_list_installed)
        return facts

    def version_of(self, name: str) -> str | None:
        """The version of a distribution, given its normalised name; ``None`` if the base lacks it."""
        found = self._find(name)
        return found[0] if found else None

    def requires_of(self, name: str) -> tuple[str, ...]:
        """The requirements of a distribution of the base, as PEP 508 texts; empty if not known."""
        found = self._find(name)
        return found[1] if found else ()

    def versions(self) -> Mapping[str, str]:
        """All distributions: normalised name -> version."""
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
        # Python imports from the first distribution on the path. Broken metadata has no name.
        if (name := distribution.metadata["Name"]) is not None:
            found.setdefault(str(canonicalize_name(name)), distribution.version)
    return found


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about one distribution, packed or left out, with the reason."""

    name: str
    version: str
    is_packed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """Decisions about all distributions needed by a biz, in alphabetical order."""

    decisions: tuple[Decision, ...] = ()
    provided: tuple[str, ...] = ()
    """Requirements to be satisfied by the base for the distributions left out, as PEP 508 texts."""

    @property
    def packed(self) -> tuple[Decision, ...]:
        """The decisions about packed distributions."""
        return tuple(decision for decision in self.decisions if decision.is_packed)

    @property
    def left_out(self) -> tuple[Decision, ...]:
        """The decisions about distributions provided by the base."""
        return tuple(decision for decision in self.decisions if not decision.is_packed)


# --- deciding ------------------------------------------------------------------------------------------------------


def lack(requirement: Requirement, facts: BaseFacts) -> str | None:
    """The reason why the base does not satisfy a requirement, dependencies included; ``None`` if it does."""
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
    """The requirements with markers that hold for the running interpreter and any of the extras."""
    chosen = [*extras, ""]
    for text in texts:
        with contextlib.suppress(InvalidRequirement):  # a mistake in the metadata of an installed package
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in chosen):
                yield requirement


def unsatisfied(manifest: Manifest, facts: BaseFacts) -> tuple[str, ...]:
    """The requirements of this biz that the base does not satisfy, one sentence each.

    Asked before an install, because an artefact may have been slimmed for another base.
    """
    packed = {canonicalize_name(text.partition("==")[0]) for text in manifest.packed}
    sentences = {}
    for requirement in active((*manifest.requirements, *manifest.provided)):
        if canonicalize_name(requirement.name) not in packed and (why := lack(requirement, facts)) is not None:
            sentences[requirement.name] = f"{requirement}: {why}"
    return tuple(sentences[name] for name in sorted(sentences))


@dataclass(slots=True)
class _Need:
    """The combined requirement for one distribution, and the names of the distributions that need it."""

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
    """The needs of ``roots`` and of all dependencies: normalised name -> combined requirement."""
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
    """Install the distributions to be packed below ``into``, and report all decisions with reasons.

    ``facts`` are the distributions of the base; ``None`` packs all dependencies. ``always`` are normalised names to be
    packed in any case, required or not. pip runs only if there is a distribution to pack. Raises ``BuildFailed`` with
    the output of pip.
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
    """The decisions about the distributions resolved by pip."""

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
    """Decide about ``seeds`` and the dependencies of packed distributions.

    Distributions needed only by left-out ones are never reached.
    """
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
    """One distribution as resolved by pip: version, requirements, and the pin to install the same again."""

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
        """Resolve ``requirements`` with all dependencies, as for an empty environment; normalised name -> result.

        The versions of the base are preferred, so that as much as possible can be left out. If there is no solution
        with these versions, pip chooses freely within the requirements.
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
        """Install exactly the pinned distributions below ``into``; remove files that would differ between builds."""
        if pins:
            code, output = self._run(["--no-deps", "--no-compile", "--target", str(into), *pins])
            self._check(code, output, "pip could not install the dependencies")
            _clean(into)

    def install_freely(self, requirements: Sequence[str], into: Path, *, alone: bool = False) -> None:
        """Install pip's choice for ``requirements`` below ``into``; with ``alone``, without dependencies.

        Raises ``BuildFailed`` with the output of pip.
        """
        code, output = self._run([*(["--no-deps"] if alone else []), "--target", str(into), *requirements])
        self._check(code, output, "pip could not install the dependencies")

    def _run(self, arguments: Sequence[str]) -> tuple[int, str]:
        # A place for installs in the user's pip configuration would contradict --target.
        environment = {**os.environ, "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH"):
            environment.pop(name, None)
        command = [self._python, "-m", "pip", "install", "--quiet", "--progress-bar", "off", *arguments]
        # A killed pip (interrupted build, time-out) leaves temporary files, which are removed with this directory.
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
    """The versions of the base, without distributions known not to satisfy the requirements."""
    out = {str(canonicalize_name(requirement.name)) for requirement in missing} | set(always) | {RUNTIME}
    return {name: version for name, version in sorted(base.versions().items()) if name not in out}


def _clean(directory: Path) -> None:
    """Remove scripts, bytecode, and pip's notes about the run."""
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

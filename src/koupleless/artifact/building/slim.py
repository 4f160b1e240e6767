"""Slimming: decide for each distribution whether the base provides or the artefact packs it, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from koupleless.artifact.building.requirements import RUNTIME, BaseFacts, Preferred, active, lack
from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from koupleless.artifact.building.pip import Resolved
    from koupleless.artifact.building.remembered import RememberingPip


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
    resolved: tuple[Resolved, ...] = ()
    """The packed distributions, as pip installs them."""

    @property
    def packed(self) -> tuple[Decision, ...]:
        """The decisions about packed distributions."""
        return tuple(decision for decision in self.decisions if decision.is_packed)


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


def choose(
    requirements: Sequence[str],
    pip: RememberingPip,
    *,
    facts: BaseFacts | None = None,
    always: frozenset[str] = frozenset(),
) -> Report:
    """Decide which distributions are packed, and report all decisions with reasons.

    ``facts`` are the distributions of the base; ``None`` packs all dependencies. ``always`` are normalised names to be
    packed in any case, required or not. pip is asked only if there is a distribution to pack. Raises ``BuildFailed``
    with the output of pip.
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
    packed: tuple[Resolved, ...] = ()
    if missing:
        without = {str(canonicalize_name(requirement.name)) for requirement in missing} | always | {RUNTIME}
        resolved = pip.resolve(missing, Preferred(base, without=without), also=there)
        needs = _needs([*there, *missing], lambda name: resolved[name].requires if name in resolved else ())
        seeds = [str(canonicalize_name(requirement.name)) for requirement in missing]
        chosen = _decide(seeds, needs, resolved, base, always)
        packed = tuple(resolved[name] for name in sorted(chosen.packed))
        decisions |= chosen.decisions
        provided |= chosen.provided
    provided.pop(RUNTIME, None)
    return Report(
        tuple(decisions[name] for name in sorted(decisions)),
        tuple(str(provided[name]) for name in sorted(provided)),
        packed,
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
    resolved: Mapping[str, Resolved],
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
        why = "the module asks for an own version" if name in always else lack(need.wanted, base)
        if why is None:
            choice.provided[name] = need.wanted
            for inner, inner_need in _needs([need.wanted], base.requires_of).items():
                choice.decisions.setdefault(inner, _left_out(inner, inner_need, base))
            choice.decisions[name] = _left_out(name, need, base)
        elif name not in resolved:
            raise BuildFailed(name, f"pip did not say which version is needed; {why}")
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
    return Decision(name, version, is_packed=False, reason=f"the base has the distribution{asked}{need.words}")

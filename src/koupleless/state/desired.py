"""The desired modules of a base, and the meaning of the records of a journal. Values, without disk or lock.

An install is *pending* from the record of the install to the record of the versions afterwards. A process may die in
between and leave the install pending: the next process tries the install again, once the modules from before are back.
All other records are facts: after the record of an uninstall the module is gone, whether or not the process lived to
remove the module.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from koupleless.biz import DEFAULT_PRIORITY, BizId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from koupleless.biz import BizName
    from koupleless.state.journal import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One module of a base, without the values of environment variables, which are secrets."""

    id: BizId
    digest: str
    """The digest of the artefact, for the store."""
    url: str
    """The source as given; used only if the store has lost the artefact."""
    order: int = 0
    """The place in the order of the installs."""
    priority: int = DEFAULT_PRIORITY
    args: tuple[str, ...] = ()
    """The arguments of the install."""
    variables: tuple[str, ...] = ()
    """The names of the environment variables of the install."""
    strategy: str = ""
    """The treatment of other versions; of use for a pending install alone."""

    def record(self) -> Record:
        """Return the members as JSON knows them."""
        return {
            "biz": str(self.id),
            "digest": self.digest,
            "url": self.url,
            "order": self.order,
            "priority": self.priority,
            "args": list(self.args),
            "variables": list(self.variables),
            "strategy": self.strategy,
        }

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read the members. Raises ``KeyError``, ``TypeError``, ``ValueError`` and ``InvalidIdentity``."""
        return cls(
            id=BizId.parse(_text(record["biz"])),
            digest=_text(record["digest"]),
            url=_text(record["url"]),
            order=int(record["order"]),
            priority=int(record["priority"]),
            args=tuple(map(_text, record["args"])),
            variables=tuple(map(_text, record["variables"])),
            strategy=_text(record["strategy"]),
        )

    def is_like(self, other: Wanted) -> bool:
        """Tell whether both are the same artefact, started alike."""
        return (self.id, self.digest, self.args, self.variables) == (
            other.id,
            other.digest,
            other.args,
            other.variables,
        )


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a name in a container, for the comparison with the records."""

    id: BizId
    order: int
    is_started: bool
    is_active: bool


@dataclass(slots=True)
class Desired:
    """The modules of one base. Used by one thread at a time."""

    modules: dict[BizId, Wanted] = field(default_factory=dict)
    active: set[BizId] = field(default_factory=set)
    """The versions that answer by name."""
    pending: dict[BizId, Wanted] = field(default_factory=dict)
    """Recorded installs without an end."""
    before: dict[BizName, Wanted] = field(default_factory=dict)
    """For each name the version that answered before."""
    last: int = 0
    """The highest order so far."""
    _by_name: dict[BizName, dict[BizId, Wanted]] = field(default_factory=dict, init=False)
    """The modules by name."""

    def in_order(self) -> list[Wanted]:
        """List the modules in the order of their installs."""
        return sorted(self.modules.values(), key=lambda wanted: wanted.order)

    def versions(self, name: BizName) -> list[Wanted]:
        """List the versions of one name in the order of their installs."""
        return sorted(self._by_name.get(name, {}).values(), key=lambda wanted: wanted.order)

    def digests(self) -> set[str]:
        """Collect the digests of all artefacts for a later use."""
        return {each.digest for kind in (self.modules, self.pending, self.before) for each in kind.values()}

    # --- records ---------------------------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Change the state by one record; a record of an unknown kind changes nothing.

        Raises ``KeyError``, ``TypeError``, ``ValueError`` and ``InvalidIdentity`` for a record without sense.
        """
        match record.get("do"):
            case "install":
                self._note(wanted := Wanted.read(record))
                self.pending[wanted.id] = wanted
            case "stand":
                over = BizId.parse(_text(record["biz"]))
                versions = {BizId.parse(biz): (int(order), bool(active)) for biz, order, active in record["versions"]}
                self._stand(over, versions)
            case "uninstall":
                self._uninstall(BizId.parse(_text(record["biz"])))
            case "switch":
                self._switch(BizId.parse(_text(record["biz"])))
            case "keep":
                self._note(wanted := Wanted.read(record))
                self._put(wanted)
                if record["active"]:
                    self.active.add(wanted.id)
            case "before":
                self._note(wanted := Wanted.read(record))
                self.before[wanted.id.name] = wanted
            case "last":
                self.last = max(self.last, int(record["order"]))

    def records(self) -> Iterator[Record]:
        """Return the fewest records for this state."""
        yield {"do": "last", "order": self.last}
        for wanted in self.in_order():
            yield {"do": "keep", **wanted.record(), "active": wanted.id in self.active}
        for wanted in self.before.values():
            yield {"do": "before", **wanted.record()}
        for wanted in self.pending.values():
            yield {"do": "install", **wanted.record()}

    def standing(self, over: BizId, versions: Iterable[Version]) -> Record | None:
        """Make the record of how the versions of a name stand after an operation on ``over``; ``None`` if as before.

        A version without a record of an install (a static module) is left out, and so is a failed start, except a
        recorded module kept as broken.
        """
        stand: dict[BizId, tuple[int, bool]] = {}
        versions = tuple(versions)
        is_answered = any(version.is_active for version in versions)
        for version in versions:
            kept, pending = self.modules.get(version.id), self.pending.get(version.id)
            is_kept = kept is not None and kept.order == version.order
            is_new = pending is not None and pending.order == version.order and version.is_started
            if is_kept or is_new:
                waits = not version.is_started and not is_answered  # a broken version is to answer again
                is_active = version.is_active or (waits and version.id in self.active)
                stand[version.id] = version.order, is_active
        now = {each.id: (each.order, each.id in self.active) for each in self.versions(over.name)}
        if stand == now and over not in self.pending:
            return None
        listed = [[str(biz), order, active] for biz, (order, active) in stand.items()]
        return {"do": "stand", "biz": str(over), "versions": listed}

    # --- what records do -------------------------------------------------------------------------------------------

    def _put(self, wanted: Wanted) -> None:
        self.modules[wanted.id] = wanted
        self._by_name.setdefault(wanted.id.name, {})[wanted.id] = wanted

    def _drop(self, biz: BizId) -> None:
        if self.modules.pop(biz, None) is not None:
            versions = self._by_name[biz.name]
            del versions[biz]
            if not versions:
                del self._by_name[biz.name]

    def _note(self, wanted: Wanted) -> None:
        self.last = max(self.last, wanted.order)

    def _stand(self, over: BizId, versions: dict[BizId, tuple[int, bool]]) -> None:
        old = self.versions(over.name)
        answered = [each for each in old if each.id in self.active]
        stand: dict[BizId, Wanted] = {}
        for biz, (order, _) in versions.items():
            for known in (self.pending.get(biz), self.modules.get(biz)):
                if known is not None and known.order == order:
                    stand[biz] = known
        self.pending.pop(over, None)
        for each in old:
            self._drop(each.id)
            self.active.discard(each.id)
        for each in stand.values():
            self._put(each)
        self.active |= {biz for biz in stand if versions[biz][1]}
        self._remember(over.name, answered)

    def _switch(self, biz: BizId) -> None:
        if biz not in self.modules:
            return
        answered = [each for each in self.versions(biz.name) if each.id in self.active]
        self.active -= {each.id for each in answered}
        self.active.add(biz)
        self._remember(biz.name, answered)

    def _uninstall(self, biz: BizId) -> None:
        self._drop(biz)
        self.active.discard(biz)
        self.pending.pop(biz, None)
        if not self.versions(biz.name):
            self.before.pop(biz.name, None)

    def _remember(self, name: BizName, answered: list[Wanted]) -> None:
        """Keep the version that no longer answers, unless the same artefact answers in its place."""
        now = [each for each in self.versions(name) if each.id in self.active]
        gone = [old for old in answered if not any(old.is_like(new) for new in now)]
        if gone:
            self.before[name] = replace(gone[-1], strategy="")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value

"""Forward rules of the gateway: the module for a request whose path names no module. Pure functions over values.

The rules are those of ``koupleless.web.gateway.forwards``. Two things differ from the original: ``to`` and the rest of
the path are joined by exactly one slash (the original makes ``/v1x`` of ``/`` -> ``/v1`` and ``/x``), and nothing is
cached, since a look-up is a walk over a short tuple.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORWARDS: Final = "koupleless.web.gateway.forwards"
"""The key of a configuration under which the rules are listed."""

_INDEXED: Final = re.compile(
    re.escape(FORWARDS) + r"\.(\d+)\.(?:(context[.-]?path)|(hosts)(?:\.(\d+))?|(paths)\.(\d+)\.(from|to))"
)
"""``koupleless.web.gateway.forwards[0].paths[1].from`` with every index written as ``.0``."""


def _slashed(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One forward rule as configured: a module's context path, on which hosts, and which paths become which."""

    context_path: str
    hosts: tuple[str, ...] = ()
    """Empty is any host."""
    paths: tuple[tuple[str, str], ...] = ()
    """``(from, to)``; empty is ``/`` to ``/``."""

    @classmethod
    def parse(cls, entry: object, *, origin: str = FORWARDS) -> Rule:
        """Read one item of the configured list.

        Keys may be spelt ``contextPath`` or ``context-path``; ``hosts`` may be one text. Raises ``SettingsError``,
        naming ``origin``, for an item without a context path, or of another shape.
        """
        if not isinstance(entry, Mapping):
            raise SettingsError(f"{origin}: every rule is a table with a contextPath, not {entry!r}")
        context_path = entry.get("contextPath", entry.get("context-path"))
        if not isinstance(context_path, str) or not context_path:
            raise SettingsError(f"{origin}: every rule needs a contextPath, and there is none in {dict(entry)!r}")
        pairs = []
        for pair in _listed(entry.get("paths"), origin, "paths"):
            if not isinstance(pair, Mapping) or not isinstance(pair.get("from"), str):
                raise SettingsError(f"{origin}: paths are pairs of 'from' and 'to', not {pair!r}")
            start, to = pair["from"], pair.get("to")
            pairs.append((_slashed(start), _slashed(to if isinstance(to, str) and to else start)))
        hosts = tuple(str(host) for host in _listed(entry.get("hosts"), origin, "hosts"))
        return cls(_slashed(context_path), hosts, tuple(pairs))


def _listed(found: object, origin: str, key: str) -> list[object]:
    if found is None:
        return []
    if isinstance(found, str):
        return [part.strip() for part in found.split(",") if part.strip()]
    if isinstance(found, Iterable) and not isinstance(found, Mapping):
        return list(found)
    raise SettingsError(f"{origin}: {key} is a list, not {found!r}")


def read_rules(configuration: Mapping[str, object], *, origin: str = FORWARDS) -> tuple[Rule, ...]:
    """The rules in a configuration of dotted keys: one list, or indexed keys, as properties and variables spell lists.

    An indexed key is ``koupleless.web.gateway.forwards[0].contextPath``, or
    ``KOUPLELESS_WEB_GATEWAY_FORWARDS_0_CONTEXTPATH``; if there is any of these, the list does not count. Raises
    ``SettingsError`` that names ``origin``.
    """
    entries: dict[int, dict[str, Any]] = {}
    listed: object = None
    for key, value in configuration.items():
        spelt = re.sub(r"\[(\d+)\]", r".\1", key).lower().replace("_", ".")
        if spelt == FORWARDS:
            listed = value
        elif spelt.startswith(f"{FORWARDS}."):
            _add_indexed(entries, spelt, value, f"{origin}: {key}")
    if entries:
        return tuple(Rule.parse(_in_order(entries[index]), origin=origin) for index in sorted(entries))
    return tuple(Rule.parse(entry, origin=origin) for entry in _listed(listed, origin, "rules"))


def _add_indexed(entries: dict[int, dict[str, Any]], spelt: str, value: object, origin: str) -> None:
    found = _INDEXED.fullmatch(spelt)
    if found is None:
        raise SettingsError(f"{origin} is no part of a rule; parts look like {FORWARDS}[0].paths[0].from")
    entry = entries.setdefault(int(found[1]), {"hosts": {}, "paths": {}})
    if found[2]:
        entry["contextPath"] = value
    elif found[3]:
        # All in one text, or one by one.
        entry["hosts"] |= enumerate(_listed(value, origin, "hosts")) if found[4] is None else [(int(found[4]), value)]
    else:
        entry["paths"].setdefault(int(found[6]), {})[found[7]] = value


def _in_order(entry: Mapping[str, Any]) -> dict[str, object]:
    """An entry with lists in the place of tables by index."""
    lists = {key: [entry[key][index] for index in sorted(entry[key])] for key in ("hosts", "paths")}
    return {**entry, **lists}


@dataclass(frozen=True, slots=True)
class Forward:
    """One rule for one host and one path, as requests are compared with the rule."""

    context_path: str
    host: str
    """Empty is any host."""
    start: str
    to: str

    def applies(self, host: str, path: str) -> bool:
        """Whether a request for the decoded ``path`` on ``host`` (as sent, without its port) is meant.

        The host of a rule is a prefix of labels: ``a`` means ``a`` and ``a.example.com``.
        """
        if self.host and host != self.host and not host.startswith(f"{self.host}."):
            return False
        return self.start in ("/", path) or path.startswith(f"{self.start}/")

    def target(self, path: str) -> str:
        """The path inside the module for a ``path`` that the rule applies to."""
        rest = path[len(self.start) :]
        if not rest:
            return self.to
        return f"{self.to.removesuffix('/')}/{rest.removeprefix('/')}"


def expand(rules: Iterable[Rule]) -> tuple[Forward, ...]:
    """One forward per host and path of each rule, in the order in which they are tried.

    With a host before without one, then the longer ``from``, then the longer host, then as configured.
    """
    forwards = [
        Forward(_slashed(rule.context_path), host, _slashed(start), _slashed(to))
        for rule in rules
        for host in dict.fromkeys(rule.hosts or ("",))
        for start, to in dict.fromkeys(rule.paths or (("/", "/"),))
    ]
    forwards.sort(key=lambda forward: (not forward.host, -len(forward.start), -len(forward.host)))
    return tuple(forwards)


@dataclass(frozen=True, slots=True)
class Forwards:
    """All forward rules of a moment: the rules of modules, then those of the base. Immutable, part of a route table."""

    base: tuple[Forward, ...] = ()
    by_identity: Mapping[str, tuple[Forward, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> Forwards:
        """The base's rules."""
        return cls(expand(rules))

    def with_module(self, identity: str, rules: Sequence[Rule]) -> Forwards:
        """With the rules of the biz ``identity``, which are tried before the rules of the base."""
        if not rules:
            return self.without_module(identity)
        return Forwards(self.base, {**self.by_identity, identity: expand(rules)})

    def without_module(self, identity: str) -> Forwards:
        """Without the rules of the biz ``identity``; the same value if there are none."""
        if identity not in self.by_identity:
            return self
        kept = {name: forwards for name, forwards in self.by_identity.items() if name != identity}
        return Forwards(self.base, kept)

    def find(self, host: str, path: str) -> Forward | None:
        """The first forward that applies to the decoded ``path`` on ``host``."""
        for forward in self:
            if forward.applies(host, path):
                return forward
        return None

    def __iter__(self) -> Iterator[Forward]:
        for forwards in self.by_identity.values():
            yield from forwards
        yield from self.base

    def __len__(self) -> int:
        return len(self.base) + sum(map(len, self.by_identity.values()))

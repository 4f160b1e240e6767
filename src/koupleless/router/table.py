"""The route table: host and path prefix to the gate of a biz. An immutable value; a change is a new table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from koupleless.errors import PathTaken
from koupleless.router.gateway import Forwards

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.biz import BizId
    from koupleless.router.gate import Gate


def normalise_path(path: str) -> str:
    """A web context path in the spelling of the table: a leading slash, no trailing one, and ``""`` for the root."""
    trimmed = path.strip("/")
    return f"/{trimmed}" if trimmed else ""


@dataclass(frozen=True, slots=True)
class Route:
    """One entrance: requests for ``path`` and below it, on ``host`` or on any, belong to ``biz``."""

    host: str | None
    """In lower case, without a port; ``None`` is any host."""
    path: str
    """In the spelling of `normalise_path`."""
    biz: BizId
    gate: Gate

    @classmethod
    def to(cls, gate: Gate, *, path: str, biz: BizId, host: str | None = None) -> Route:
        """Make a route with a normalised host and path."""
        return cls(host.lower() if host else None, normalise_path(path), biz, gate)


@dataclass(frozen=True, slots=True)
class _Paths:
    """The routes of one host."""

    by_path: Mapping[str, Route] = field(default_factory=dict)
    by_gate: Mapping[Gate, tuple[Route, ...]] = field(default_factory=dict)
    depths: Mapping[int, int] = field(default_factory=dict)
    """Number of segments -> number of paths with so many."""
    depth: int = field(init=False)
    """Most segments of any of the paths: a look-up never cuts the path of a request more often."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", max(self.depths, default=0))

    def with_route(self, route: Route) -> _Paths:
        """Add a route; the route goes to the place of an earlier one on the same path."""
        displaced = self.by_path.get(route.path)
        others = self if displaced is None else self._without_route(displaced)
        by_gate = {**others.by_gate, route.gate: (*others.by_gate.get(route.gate, ()), route)}
        depths, depth = dict(others.depths), route.path.count("/")
        depths[depth] = depths.get(depth, 0) + 1
        return _Paths({**self.by_path, route.path: route}, by_gate, depths)

    def without(self, gate: Gate) -> _Paths:
        """Take the routes to a gate out; returns the same value if there are none."""
        paths = self
        for route in self.by_gate.get(gate, ()):
            paths = paths._without_route(route)
        return paths

    def _without_route(self, route: Route) -> _Paths:
        by_path, by_gate, depths = dict(self.by_path), dict(self.by_gate), dict(self.depths)
        del by_path[route.path]
        left = tuple(other for other in by_gate.pop(route.gate) if other is not route)
        if left:
            by_gate[route.gate] = left
        depth = route.path.count("/")
        depths[depth] -= 1
        if not depths[depth]:
            del depths[depth]
        return _Paths(by_path, by_gate, depths)

    def longest(self, path: str) -> Route | None:
        """The route with the longest prefix of ``path``, on whole segments."""
        by_path = self.by_path
        end = path.find("/", 1)
        if end < 0:
            found = by_path.get(path)
        elif self.depth <= 1:
            found = by_path.get(path[:end])
        else:
            found = self._longest_of_many(path, end)
        # The root is spelt "", and "/" is no key, so the route of the root is left.
        return by_path.get("") if found is None else found

    def _longest_of_many(self, path: str, end: int) -> Route | None:
        ends = [end]
        while len(ends) < self.depth and end < len(path):
            end = path.find("/", end + 1)
            if end < 0:
                end = len(path)
            ends.append(end)
        for cut in reversed(ends):
            found = self.by_path.get(path[:cut])
            if found is not None:
                return found
        return None


_NO_PATHS = _Paths()


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All routes and forward rules of a moment.

    Lifetime: a request reads one table and keeps to the table. Every change makes another table; a holder of the old
    table sees no change. Safe to share between threads. A look-up costs the same with one route as with thousands.
    """

    forwards: Forwards = field(default_factory=Forwards)
    _anywhere: _Paths = _NO_PATHS
    _hosts: Mapping[str, _Paths] = field(default_factory=dict)
    is_plain: bool = field(init=False)
    """Whether a request's path alone decides: no route has a host, and there are no forward rules."""

    match_path: Callable[[str], Route | None] = field(init=False, repr=False, compare=False)
    """The route for a path in a table that `is_plain`, so on any host."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_plain", not self._hosts and not self.forwards)
        object.__setattr__(self, "match_path", self._anywhere.longest)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every route: the routes for any host first, each group in the order of addition."""
        return (
            *self._anywhere.by_path.values(),
            *(route for paths in self._hosts.values() for route in paths.by_path.values()),
        )

    def match(self, host: str, path: str) -> Route | None:
        """The route for ``path`` on ``host`` (lower case, no port); a route of the host goes before one of any host.

        Prefixes match on whole segments, the longest wins: ``/a`` matches ``/a`` and ``/a/b``, not ``/ab``.
        """
        if self._hosts:
            own = self._hosts.get(host)
            if own is not None:
                found = own.longest(path)
                if found is not None:
                    return found
        return self._anywhere.longest(path)

    def owner_of(self, path: str, *, host: str | None = None) -> BizId | None:
        """The biz of the route with exactly this path on exactly this host; ``None`` if the path is free."""
        found = self._paths_of(host).by_path.get(normalise_path(path))
        return None if found is None else found.biz

    def with_route(self, route: Route) -> RouteTable:
        """Return a table with ``route`` added.

        ``route`` displaces a route of the same biz on the same path. Raises ``PathTaken`` if another biz has the path.
        """
        paths = self._paths_of(route.host)
        held = paths.by_path.get(route.path)
        if held is not None and held.biz != route.biz:
            raise PathTaken(route.biz, route.path or "/", held.biz)
        return self._with_paths(route.host, paths.with_route(route))

    def without(self, gate: Gate) -> RouteTable:
        """Return a table without the routes to ``gate``; the same table if there were none."""
        table = self
        for host in (None, *self._hosts):
            held = self._paths_of(host)
            kept = held.without(gate)
            if kept is not held:
                table = table._with_paths(host, kept)
        return table

    def with_forwards(self, forwards: Forwards) -> RouteTable:
        """Return a table with these forward rules in the place of the earlier ones."""
        if forwards is self.forwards:
            return self
        return replace(self, forwards=forwards)

    def _paths_of(self, host: str | None) -> _Paths:
        return self._anywhere if host is None else self._hosts.get(host, _NO_PATHS)

    def _with_paths(self, host: str | None, paths: _Paths) -> RouteTable:
        if host is None:
            return replace(self, _anywhere=paths)
        hosts = {**self._hosts, host: paths}
        if not paths.by_path:
            del hosts[host]
        return replace(self, _hosts=hosts)

    def __repr__(self) -> str:
        return f"<RouteTable {len(self.routes)} routes, {len(self._hosts)} hosts, {len(self.forwards)} forwards>"

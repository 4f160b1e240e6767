"""The running biz: one context variable, and the ways to set and to carry its value.

This is the second of two channels, which decide about the Python module, environment or logger behind a name (the
first, code ownership, is in ``isolation``). ``asyncio`` tasks inherit the variable by themselves; threads and executors
get the value from the recorders in ``recorders`` or through `carry`. The values of all other context variables come
along: see ``variables``. Every room above hangs its objects for a biz on the `Scope` of the biz and finds them there
again, so nothing here knows about these objects.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
from contextvars import Context, ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from koupleless.errors import in_words
from koupleless.variables import Crossing, Ground, Variables, has_decimal
from koupleless.visits import Visits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from koupleless.biz import BizId

F = TypeVar("F")
P = ParamSpec("P")
R = TypeVar("R")

Closer: TypeAlias = "Callable[[], Iterable[str] | None]"
"""Ends a facet; returns failures in words, or ``None``."""

_generations = itertools.count(1)


class Scope:
    """One life of one biz: made at install, closed at uninstall, never used again.

    Lifetime: the container holds the scope while the biz is registered. Captured contexts (a pending task, a thread, a
    ``copy_context()`` in somebody's hands) may hold the scope for longer, which is why `close` empties it: a closed
    scope names the biz and holds nothing of it.

    Threads: facets are attached before the biz's code runs and removed after the code ended; in between the scope is
    read by any thread without a lock.
    """

    __slots__ = (
        "__weakref__", "_closers", "_facets", "_stop_hooks", "biz", "calls", "generation", "ground", "is_closed",
        "variables",
    )  # fmt: skip

    def __init__(self, biz: BizId, ground: Ground | None = None) -> None:
        """Make the scope of a new life. ``ground`` is the base's; by default made from the caller's context."""
        self.biz = biz
        self.ground = Ground() if ground is None else ground
        self.variables = Variables(self.ground)
        self.variables.context.run(_current.set, self)
        self.generation = next(_generations)
        """The number of this life among the lives of all bizs of the process, from 1."""
        self.calls = Visits()
        """The calls of its services by others."""
        self.is_closed = False
        self._facets: dict[type, object] = {}
        self._closers: list[tuple[str, Closer]] = []
        self._stop_hooks: list[Callable[[], object]] | None = []

    def attach(self, facet: object, *, close: Closer | None = None) -> None:
        """Hang an object of a room for this biz on the scope, under the facet's class.

        ``close`` is called by `close`, once. Returns nothing, or failures in words.
        """
        self._facets[type(facet)] = facet
        if close is not None:
            self._closers.append((type(facet).__name__, close))

    def attach_once(self, facet: F) -> F:
        """Hang an object on the scope, unless an object of its class hangs there; return the one that does.

        One step for all threads, and for code that a collection runs in between.
        """
        return self._facets.setdefault(type(facet), facet)  # type: ignore[return-value]  # as in `find_facet`

    def facet(self, kind: type[F]) -> F:
        """Return the facet of exactly this class. Raises ``LookupError`` for none, or if the scope is closed."""
        try:
            return self._facets[kind]  # type: ignore[return-value]  # as below
        except KeyError:
            state = "was uninstalled" if self.is_closed else "has none"
            raise LookupError(f"no {kind.__name__} for biz {self.biz}: it {state}") from None

    def find_facet(self, kind: type[F]) -> F | None:
        """Return the facet of exactly this class; ``None`` for none, or if the scope is closed."""
        return self._facets.get(kind)  # type: ignore[return-value]  # asked at every import: `cast` is a call

    def add_stop_hook(self, hook: Callable[[], object]) -> None:
        """Call ``hook`` without arguments when the biz stops; the last one added is called first.

        Raises ``RuntimeError`` once the hooks are being called or the biz has left: nobody would call it any more.
        """
        if self._stop_hooks is None:
            state = "was uninstalled" if self.is_closed else "is stopping"
            raise RuntimeError(f"biz {self.biz} {state}; a stop hook added now would never be called")
        self._stop_hooks.append(hook)

    def take_stop_hooks(self) -> list[Callable[[], object]]:
        """Return the hooks in the order of their calls; the scope forgets them, and takes no more."""
        hooks, self._stop_hooks = self._stop_hooks, None
        return [] if hooks is None else hooks[::-1]

    def close(self) -> list[str]:
        """Close the facets, the last one attached first, and let go of all facets, hooks and variables. Idempotent.

        A facet finds all other facets while it closes. Returns failures in words; an error of one facet keeps no other
        from being closed.
        """
        failures: list[str] = []
        while self._closers:
            name, close = self._closers.pop()
            try:
                failures += close() or ()
            except BaseException as error:  # noqa: BLE001 - it may run code of the biz, which may raise SystemExit
                failures.append(f"close {name}: {in_words(error)}")
        self.is_closed = True
        self._facets.clear()
        self._stop_hooks = None
        self.variables.close()
        return failures

    def __repr__(self) -> str:
        return f"<Scope {self.biz} #{self.generation}{' closed' if self.is_closed else ''}>"


_current: ContextVar[Scope | None] = ContextVar("koupleless_biz", default=None)

current: Callable[[], Scope | None] = _current.get
"""Returns the scope of the biz running in this context; ``None`` means the base. One C call."""


enter: Callable[[Scope | None], Token[Scope | None]] = _current.set
"""Let the biz of a scope, or the base, run from here on, until `leave` gets the token. `entered` without its object."""

leave: Callable[[Token[Scope | None]], None] = _current.reset
"""Take `enter` back, in the same context."""


def scope_in(context: Context) -> Scope | None:
    """The scope of the biz of a captured context."""
    return context.get(_current)


class entered:  # noqa: N801 - reads as a verb: ``with entered(scope):``
    """Run the body as the given biz, or as the base for ``None``. Not re-entrant: make one for each ``with``."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope | None) -> None:
        self._scope = scope

    def __enter__(self) -> Scope | None:
        self._token: Token[Scope | None] = _current.set(self._scope)
        return self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)


def as_base() -> entered:
    """Run the body as the base, whichever biz is running now: for work on a biz's behalf that outlives the biz."""
    return entered(None)


# --- the same with the biz's context variables ------------------------------------------------------------------------


class crossed:  # noqa: N801 - as above
    """Run the body as the given biz, or the base, with its variables in the caller's context.

    One object may serve several bodies, as steps of one task: each finds variables as set by the steps before.
    """

    __slots__ = ("_crossing", "_has_begun", "_scope", "_token")

    def __init__(self, scope: Scope | None) -> None:
        self._scope = scope
        self._crossing: Crossing | None = None
        self._has_begun = False

    def __enter__(self) -> Scope | None:
        if not self._has_begun:
            self._has_begun = True
            self._crossing = crossing_into(self._scope)
        if self._crossing is not None:
            self._crossing.enter()
        self._token: Token[Scope | None] = _current.set(self._scope)
        return self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        if self._crossing is not None:
            self._crossing.leave()


def crossing_into(there: Scope | None) -> Crossing | None:
    """The way from here into a biz, or the base; ``None`` if no context variable has another value there."""
    here = _current.get()
    if here is there:
        return None
    if here is None:
        differ = there is not None and (there.variables.on_top or has_decimal())
    else:
        differ = here.variables.on_top or (there is not None and there.variables.on_top)
    return Crossing(_variables(here), _variables(there)) if differ else None


def _variables(scope: Scope | None) -> Variables | None:
    return None if scope is None else scope.variables


def call_as(scope: Scope, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function`` as the biz in a copy of its own context: for a new beginning, as of a thread or a hook."""
    return life_context(scope).run(function, *args, **kwargs)


def life_context(scope: Scope) -> Context:
    """Copy the biz's own context, in which the biz is running."""
    context = scope.variables.fork()
    if scope.is_closed:
        context.run(_current.set, scope)
    return context


def call_merged(scope: Scope | None, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function`` as the biz, or the base, in a copy of this context with its variables on top."""
    if scope is not None:
        context = copy_context()
        context.run(scope.variables.put_on_top)
    else:
        with crossed(None):
            context = copy_context()
    return context.run(_begin, scope, functools.partial(function, *args, **kwargs))


@contextlib.contextmanager
def library_context(scope: Scope) -> Iterator[Context]:
    """Give out a context for code of a library shared by several bizs; context variables set there are for all."""
    with scope.ground.copied() as context:
        context.run(_current.set, scope)
        yield context


def _begin(scope: Scope | None, function: Callable[..., R], /, *args: Any) -> R:
    _current.set(scope)  # for good: the context ends with this
    return function(*args)


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """Bind ``function`` to the running biz, for a callback called later by other code.

    The callback finds the context variables of the caller, with the variables set by the start of the biz on top.
    Returns ``function`` itself when the base is running, so wrapping costs nothing there. The wrapper may be called
    from any thread, any number of times.
    """
    scope = _current.get()
    if scope is None:
        return function

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        with crossed(scope):
            return function(*args, **kwargs)

    return carried


def current_biz() -> BizId | None:
    """Return the identity of the running biz; ``None`` in the base, and when a module runs alone.

    The answer is that of the calling code at the moment, on any thread and in any task, also while the biz is imported
    or leaves.
    """
    scope = _current.get()
    return None if scope is None else scope.biz


def on_stop(hook: Callable[[], R]) -> Callable[[], R]:
    """Call ``hook`` without arguments when this biz stops, last added first. Usable as a decorator; returns ``hook``.

    The hook of a biz runs once, on a thread, after the last request and the shutdown of the application, as the biz,
    within the stop deadline; an exception goes into the purge report. A coroutine is awaited on the loop of the base.
    Hooks of the base, and of a module that runs alone, are called at interpreter exit. They may be added on any thread,
    until the biz stops.
    """
    scope = _current.get()
    if scope is None:
        atexit.register(hook)
    else:
        scope.add_stop_hook(hook)
    return hook

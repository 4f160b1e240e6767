"""The context of a life: the values of context variables that a biz sees, wherever code of the biz runs.

Alone, a Python module is imported in the context which its server then copies for every request. So values set by the
import (``decimal.getcontext().prec = 50``, ``numpy.seterr``, any ``ContextVar.set``) are seen by the requests. Here a
base and many bizs share the server, and a biz is imported on a thread. So there are two kinds of such a context:

- the **ground** is the base's, as of the moment when the base was ready: a `Ground`, made by the composition root;
- each life has its own context, a copy of the ground: `Variables`, which hangs on the ``Scope`` of the life.

Where code of a biz runs, and in which context:

==============================================  =======================================================================
import of the entry, factory, start function    the life's own, so that values stay set
ASGI lifespan                                   one copy of the life's from start-up to shutdown; values set there are
                                                seen by its own task and tasks made there, as under a server
requests, WebSockets, work in executors of      a copy of the context they arrive in, with the life's values on top:
others                                          `put_on_top`; the next request does not see values set by one
threads, timers, executors of the biz's own     a copy of the life's, not of the starter's: `fork`
stop hooks, exit functions, closing of services  a copy of the life's: `fork`
asyncio tasks and callbacks                     a copy of the context they are made in, as always
calls through services, `carry`                 the caller's, for the time of the call with the variables put back
                                                which the caller's life has changed, and the owner's on top: `Crossing`
==============================================  =======================================================================

**On top** means: the variables to which the life has given another value than the base, and variables of the base that
are missing. All others are as they arrive: the request identifier that a middleware of the base has set, the span.

No value of a biz is left in a context of the base: a request runs in a copy, and the server's ``receive`` and ``send``
run in another copy, made before. Values set by a library while it is imported as the base's, on behalf of a biz, belong
to the ground and are there for all.

A ``decimal`` context is changed in place, so a biz never gets the base's object: a biz gets a copy, or makes its own as
alone if the base's has only default settings.
"""

from __future__ import annotations

import contextlib
import threading
import types
import weakref
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from koupleless.frames import passed_over

if TYPE_CHECKING:
    import decimal
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Mapping

P = ParamSpec("P")
R = TypeVar("R")

_MISSING: Final[Any] = object()

_NOT_INHERITED: Final = frozenset({"koupleless_biz", "current_async_library_cvar"})
"""Variables about the code running at this moment, wrong in a copy: our own, and anyio's or sniffio's."""

_decimal: ContextVar[decimal.Context] | None = None
"""The variable behind ``decimal.getcontext()``, from the first ground on; ``None`` where Python was built without."""
find_decimal: Callable[[None], decimal.Context | None] = {}.get  # type: ignore[assignment]  # finds none
"""Called with ``None``: the ``decimal`` context set at this place, or ``None``. One C call."""
_template: decimal.Context | None = None
"""The process's ``decimal.DefaultContext``, whichever biz is running."""


_lock: Final = threading.Lock()
_shared: Final[dict[ContextVar[Any], Any]] = {}
"""Values set by libraries which were imported as the base's on behalf of bizs."""
_grounds: Final[weakref.WeakSet[Ground]] = weakref.WeakSet()


def _here() -> dict[ContextVar[Any], Any]:
    return {var: value for var, value in copy_context().items() if var.name not in _NOT_INHERITED}


class Ground:
    """The context variables of a base.

    Lifetime: as its maker's. Threads: read by any thread without a lock, as each change replaces the values.
    """

    def __init__(self) -> None:
        """Take the values of the caller's context."""
        _find_decimal()
        self._context = Context()
        self.values: Mapping[ContextVar[Any], Any] = {}
        """The values by variable; to be read only."""
        with _lock:
            _grounds.add(self)
            self._put(_here())

    def renew(self) -> None:
        """Take the values of the caller's context: the base is ready. Existing lives keep their values."""
        with _lock:
            self._put(_here())

    @passed_over
    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``function`` in a copy of the ground: an import made as the base while a biz runs.

        Variables set there for the first time are set in the caller's context as well, and are part of every ground
        afterwards: Python modules of the base are the process's.
        """
        with self.copied() as context:
            return context.run(function, *args, **kwargs)

    @contextlib.contextmanager
    def copied(self) -> Iterator[Context]:
        """Give out the copy for `call`, to run something there with no frame of ours in between."""
        context = self._context.copy()
        try:
            yield context
        finally:
            if len(context) > len(self._context):
                self._share(context)

    def _share(self, context: Context) -> None:
        new = {
            var: value
            for var, value in context.items()
            if var not in self.values and var is not _decimal and var.name not in _NOT_INHERITED
        }
        if new:
            with _lock:
                _shared.update(new)
                for ground in _grounds:
                    ground._put(ground.values)  # noqa: SLF001 - the same class
            _set_missing(new.items())

    def _put(self, values: Mapping[ContextVar[Any], Any]) -> None:
        values = {**_shared, **values}
        context = Context()
        context.run(_set, values.items())
        self._context, self.values = context, values

    def value_of(self, var: ContextVar[Any]) -> Any:
        """The value of ``var`` without a biz; `_MISSING` if the variable is not set and cannot be unset."""
        value = self.values.get(var, _MISSING)
        if var is _decimal:
            return _default_decimal() if value is _MISSING else _own_decimal(value)
        if value is _MISSING:
            # Nobody but a token unsets a variable. For a variable with a default, setting the default is enough.
            try:
                value = Context().run(var.get)
            except LookupError:
                return _MISSING
        return value


class Variables:
    """The context variables of one life of one biz.

    Lifetime: as its scope; `close` lets go of all values. Threads: only `context` itself is run in by one thread at a
    time, while the biz starts; all else may be called from any thread.
    """

    __slots__ = ("_ground", "_is_settled", "_known", "_on_top", "context", "may_differ")

    def __init__(self, ground: Ground) -> None:
        self._ground: Ground | None = ground
        self._on_top: tuple[tuple[ContextVar[Any], Any], ...] = ()
        self._is_settled = False
        self.may_differ = True
        """Whether `on_top` has, or may get, any variable; read at every call of a service."""
        self._known = ground.values
        values = dict(ground.values)
        if _decimal is not None and (shared := values.pop(_decimal, None)) is not None and not _says_nothing(shared):
            values[_decimal] = _own_decimal(shared)
        self.context = Context()
        """The life's own context: import and start run there."""
        self.context.run(_set, values.items())

    @property
    def on_top(self) -> tuple[tuple[ContextVar[Any], Any], ...]:
        """The variables to which the life has given another value than the base."""
        return self._on_top if self._is_settled or self._ground is None else self._find_on_top(self._ground)

    @property
    def is_settled(self) -> bool:
        """Whether the biz has started."""
        return self._is_settled

    def settle(self) -> None:
        """Note the end of the start: from now on the life's own context does not change any more."""
        if self._ground is not None:
            self._on_top = self._find_on_top(self._ground)
            self._is_settled = True
            self.may_differ = bool(self._on_top)

    def _find_on_top(self, ground: Ground) -> tuple[tuple[ContextVar[Any], Any], ...]:
        return tuple(
            (var, value)
            for var, value in self.context.items()
            if ground.values.get(var, _MISSING) is not value and var.name not in _NOT_INHERITED
        )

    def fork(self) -> Context:
        """Copy the life's context, to run one function there. Empty for a closed life."""
        context = self.context.copy()
        if self._ground is not None and self._ground.values is not self._known:
            context.run(_set_missing, self._ground.values.items())
        return context

    def put_on_top(self) -> None:
        """Give the variables their values of the life, in the caller's context, made for one function."""
        ground = self._ground
        if ground is None:
            return
        if self.may_differ:
            for var, value in self.on_top:
                var.set(value)
        if ground.values:
            _set_missing(ground.values.items())
        if _decimal is not None:
            here = _decimal.get(None)
            if here is not None and here is not self.context.get(_decimal):
                _decimal.set(_own_decimal(here))

    def lifted(self) -> list[tuple[ContextVar[Any], Any]]:
        """The variables with the life's values in the caller's context, each with its value without the life."""
        ground = self._ground
        if ground is None:
            return []
        changed = (var for var, value in self.on_top if var.get(_MISSING) is value)
        return [(var, value) for var in changed if (value := ground.value_of(var)) is not _MISSING]

    def close(self) -> None:
        """Let go of all values. Idempotent."""
        self.context = Context()
        self._on_top = ()
        self.may_differ = False
        self._ground = None
        self._known = {}


class Crossing:
    """The way from one life, or the base, into another, within one context: variables change there, and back again.

    `enter` and `leave` come in pairs, any number of times, as for each step of a generator. Values set by the other
    side meanwhile, of the variables which change, are there again at the next step.
    """

    __slots__ = ("_changes", "_tokens")

    def __init__(self, here: Variables | None, there: Variables | None) -> None:
        changes = {} if here is None else dict(here.lifted())
        if there is not None:
            if here is None and _decimal is not None and (shared := _decimal.get(None)) is not None:
                changes[_decimal] = _own_decimal(shared)
            changes.update(there.on_top)
        self._changes = list(changes.items())
        self._tokens: list[Any] = []

    def enter(self) -> None:
        """Set the variables which differ there."""
        self._tokens = [var.set(value) for var, value in self._changes]

    def leave(self) -> None:
        """Put all values back, in the context in which `enter` was called."""
        self._changes = [(token.var, token.var.get()) for token in self._tokens]
        for token in self._tokens:
            token.var.reset(token)
        self._tokens = []


async def await_in(context: Context, function: Callable[..., Awaitable[R]], *args: Any) -> R:
    """Call ``function``, and await its result, in ``context``, within the awaiting task."""
    coroutine = as_coroutine(context.run(function, *args))
    try:
        item = context.run(coroutine.send, None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    return await rest_in(context, coroutine, item)


ENDED: Final[Any] = object()
"""In the place of an item to wait for: the coroutine has returned."""


def as_coroutine(awaitable: Awaitable[R]) -> Coroutine[Any, Any, R]:
    """Return an awaitable as a coroutine, to be driven step by step."""
    return awaitable if type(awaitable) is types.CoroutineType else _awaiting(awaitable)


async def _awaiting(awaitable: Awaitable[R]) -> R:
    return await awaitable


@types.coroutine
def rest_in(context: Context, coroutine: Coroutine[Any, Any, R], item: Any) -> Generator[Any, Any, R]:
    """Await a coroutine begun in ``context`` which waits for ``item``; each step runs in ``context``."""
    while True:
        step: Callable[[Any], Any] = coroutine.send
        try:
            value = yield item
        except GeneratorExit:
            context.run(coroutine.close)
            raise
        except BaseException as error:  # noqa: BLE001 - passed on to the coroutine
            step, value = coroutine.throw, error
        try:
            item = context.run(step, value)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            value = None  # the traceback of an exception refers to this frame


# --- sets of variables -----------------------------------------------------------------------------------------------


def _set(values: Iterable[tuple[ContextVar[Any], Any]]) -> None:
    for var, value in values:
        var.set(value)


def _set_missing(values: Iterable[tuple[ContextVar[Any], Any]]) -> None:
    for var, value in values:
        if var.get(_MISSING) is _MISSING and var is not _decimal:
            var.set(value)


# --- the one known value that is changed in place ---------------------------------------------------------------------


def _find_decimal() -> None:
    """Find the variable of ``decimal`` as the one which appears in an empty context: ``decimal`` does not name it."""
    global _decimal, _template, find_decimal  # noqa: PLW0603 - one for the process
    if _decimal is None:
        import decimal  # noqa: PLC0415 - not for modules that run alone

        _template = decimal.DefaultContext
        empty = Context()
        empty.run(decimal.getcontext)
        _decimal = next(iter(empty), None)
        if _decimal is not None:
            find_decimal = _decimal.get


def has_decimal() -> bool:
    """Whether ``decimal`` was used in the caller's context."""
    return find_decimal(None) is not None


def _own_decimal(shared: decimal.Context) -> decimal.Context:
    own = shared.copy()
    own.clear_flags()
    return own


def _default_decimal() -> decimal.Context:
    assert _template is not None
    return _own_decimal(_template)


def _says_nothing(context: decimal.Context) -> bool:
    """Whether a context has only the settings of a new one."""
    default = _default_decimal()
    settings = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps")
    return all(getattr(context, name) == getattr(default, name) for name in settings)

"""A handle that stands for an object of somebody else: it finds the object at every use and holds nothing of it.

Calls run as the object's owner, including the bodies of coroutines and generators, whoever drives them. What a call
returns or raises arrives as it is, without copies or wrappers; but keeping what was returned keeps its owner alive,
which is what handles are there to avoid. While a use goes on, its owner does not leave: see `Call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import operator
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from koupleless.context import Scope, crossed, current
from koupleless.errors import BizGone, ServiceError
from koupleless.frames import passed_over
from koupleless.service.call import Body, Use, begin
from koupleless.service.crossing import explain, tell_result

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator


class Target(NamedTuple):
    """Whom a use goes to."""

    obj: Any
    scope: Scope | None
    """The owner's; ``None`` is the base."""


class ServiceReference:
    """Stands for a service. Attributes, calls, items, iteration and operators go to the object that answers now.

    Methods are looked up again when they are called, so one kept in a variable is as good as the reference itself. A
    ``with`` block is not passed on, for its end could meet another object than its beginning; let the service have a
    method that returns a context manager.

    Lifetime: any; it keeps neither the object nor its owner alive. Threads: as safe as the object. Every use raises
    ``ServiceError`` while nobody answers, and ``BizGone`` if the owner leaves without having finished it. ``repr``
    describes the reference, ``str`` is the object's.
    """

    __slots__ = ("__weakref__", "_koupleless_label", "_koupleless_resolve")

    _koupleless_resolve: Callable[[], Target]
    _koupleless_label: str

    def __init__(self, resolve: Callable[[], Target], label: str) -> None:
        object.__setattr__(self, "_koupleless_resolve", resolve)
        object.__setattr__(self, "_koupleless_label", label)

    def __getattr__(self, name: str) -> Any:
        resolve = self._koupleless_resolve
        value = _perform(resolve, getattr, name)
        kind = type(value)
        if kind is types.MethodType and type(value.__func__) is types.FunctionType:  # nearly all, so without inspect
            is_async = value.__func__.__code__.co_flags & inspect.CO_COROUTINE
        elif inspect.isroutine(value):
            is_async = inspect.iscoroutinefunction(value)
        else:
            return value
        return (AsyncMethod if is_async else Method)(resolve, name, self._koupleless_label)

    def __setattr__(self, name: str, value: object) -> None:
        _perform(self._koupleless_resolve, setattr, name, value)

    def __delattr__(self, name: str) -> None:
        _perform(self._koupleless_resolve, delattr, name)

    @passed_over
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the service as its owner."""
        return _perform(self._koupleless_resolve, _call, args, kwargs)

    def __iter__(self) -> Iterator[Any]:
        target, scope = self._koupleless_resolve()
        return _each(scope, _enter_and(scope, iter, target))

    def __aiter__(self) -> AsyncIterator[Any]:
        target, scope = self._koupleless_resolve()
        return _each_async(scope, _enter_and(scope, aiter, target))

    def __dir__(self) -> list[str]:
        return list(_perform(self._koupleless_resolve, dir))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of whoever answers, for ``isinstance``; this one while nobody does."""
        try:
            return type(self._koupleless_resolve().obj)
        except ServiceError:
            return ServiceReference

    def __repr__(self) -> str:
        return f"<ServiceReference {self._koupleless_label}>"

    def __copy__(self) -> ServiceReference:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ServiceReference:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled: it means something in this process only; look it up there")


def _pass_on(name: str, action: Callable[..., Any]) -> None:
    def special(self: ServiceReference, *args: Any) -> Any:
        others = [other._koupleless_resolve().obj if type(other) is ServiceReference else other for other in args]  # noqa: SLF001
        return _perform(self._koupleless_resolve, action, *others)

    special.__name__ = special.__qualname__ = name
    setattr(ServiceReference, name, special)


def _pass_on_in_place(name: str, action: Callable[..., Any]) -> None:
    def special(self: ServiceReference, other: Any) -> Any:
        target, scope = self._koupleless_resolve()
        result = _enter_and(scope, action, target, other)
        return self if result is target else result

    special.__name__ = special.__qualname__ = name
    setattr(ServiceReference, name, special)


def _reflected(action: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda target, other: action(other, target)


_UNARY_AND_COMPARING = (
    *("abs", "index", "invert", "neg", "pos", "getitem", "setitem", "delitem"),
    *("eq", "ge", "gt", "le", "lt", "ne"),
)
_ARITHMETIC = (
    *("add", "and", "floordiv", "lshift", "matmul", "mod", "mul"),
    *("or", "pow", "rshift", "sub", "truediv", "xor"),
)
_PLAIN: dict[str, Callable[..., Any]] = {
    "str": str,
    "bytes": bytes,
    "format": format,
    "hash": hash,
    "bool": bool,
    "len": len,
    "reversed": reversed,
    "next": next,
    "int": int,
    "float": float,
    "complex": complex,
    "round": round,
    "contains": operator.contains,
    **{name: getattr(operator, f"__{name}__") for name in _UNARY_AND_COMPARING},
}
_BINARY: dict[str, Callable[..., Any]] = {
    "divmod": divmod,
    **{name: getattr(operator, f"__{name}__") for name in _ARITHMETIC},
}
for _name, _action in _PLAIN.items():
    _pass_on(f"__{_name}__", _action)
for _name, _action in _BINARY.items():
    _pass_on(f"__{_name}__", _action)
    _pass_on(f"__r{_name}__", _reflected(_action))
    if _name != "divmod":
        _pass_on_in_place(f"__i{_name}__", getattr(operator, f"__i{_name}__"))


class Method:
    """A method of a service, found again at every call. It keeps neither the method nor its object alive."""

    __slots__ = ("__name__", "_label", "_resolve")

    def __init__(self, resolve: Callable[[], Target], name: str, label: str) -> None:
        self._resolve = resolve
        self._label = label
        self.__name__ = name

    @passed_over
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call whoever answers now, as its owner."""
        return _perform(self._resolve, _call_method, self.__name__, args, kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """The method's, so that frameworks can read its parameters."""
        return inspect.signature(getattr(self._resolve().obj, self.__name__))

    def __repr__(self) -> str:
        return f"<method {self._label}.{self.__name__}>"


class AsyncMethod(Method):
    """A method that is a coroutine function, and is one for those who ask before they call."""

    __slots__ = ()

    # What asyncio.iscoroutinefunction and, from 3.12 on, inspect.iscoroutinefunction look for on other callables.
    _is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
    _is_coroutine_mark = getattr(inspect, "_is_coroutine_mark", None)

    @passed_over
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call whoever answers when the coroutine begins, as its owner."""
        return await _perform(self._resolve, _call_method, self.__name__, args, kwargs)


# --- running as the owner ---------------------------------------------------------------------------------------

_PLAIN_RESULTS: Final = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset}
    | {types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType, types.MethodType, types.FunctionType}
)
"""Classes that everybody has the same of."""


@passed_over
def _call(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return target(*args, **kwargs)


@passed_over
def _call_method(target: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return getattr(target, name)(*args, **kwargs)


@passed_over
def _perform(resolve: Callable[[], Target], action: Callable[..., Any], *args: Any) -> Any:
    target, scope, use = _admitted(resolve)
    try:
        result = _enter_and(scope, action, target, *args)
    except BaseException as error:
        if use.ends(error):
            raise
    else:
        if use.ends():
            return _stay(scope, result)
        del result
    raise use.gone()


def _admitted(resolve: Callable[[], Target]) -> tuple[Any, Scope | None, Use]:
    """Who answers now, and the use, which keeps him there meanwhile.

    Between the look-up and the entrance a biz may begin to leave; then there is another one, or none.
    """
    target, scope = resolve()
    while True:
        try:
            return target, scope, begin(scope)
        except BizGone:
            target, now = resolve()
            if now is scope:
                raise
            scope = now


@passed_over
def _enter_and(scope: Scope | None, action: Callable[..., Any], *args: Any) -> Any:
    if current() is scope:
        return action(*args)
    try:
        with crossed(scope):
            result = action(*args)
    except BaseException as error:
        explain(error, scope)
        raise
    if type(result) not in _PLAIN_RESULTS:
        tell_result(result, scope)
    return result


def _stay(scope: Scope | None, result: Any) -> Any:
    """What a call returned, such that a body which has not run yet will run as the owner, too."""
    kind = type(result)
    if kind is types.CoroutineType:
        return _awaited(scope, result)
    if kind is types.GeneratorType:
        return _steps(scope, result)
    if kind is types.AsyncGeneratorType:
        return _async_steps(scope, result)
    if kind is contextlib._GeneratorContextManager:  # noqa: SLF001 - what @contextmanager returns
        result.gen = _steps(scope, result.gen)
    elif kind is contextlib._AsyncGeneratorContextManager:  # noqa: SLF001 - what @asynccontextmanager returns
        result.gen = _async_steps(scope, result.gen)
    return result


@passed_over
async def _awaited(scope: Scope | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        use = begin(scope, Body)
    except BizGone:
        coroutine.close()
        raise
    use.awaits()
    try:
        result = await _drive(crossed(scope), coroutine.__await__(), use)
    except BaseException as error:
        if use.ends(error):
            explain(error, scope)
            raise
    else:
        if use.ends():
            _tell(result, scope)
            return result
        del result
    raise use.gone()


@types.coroutine
@passed_over
def _drive(owner: crossed, body: Any, use: Use, error: BaseException | None = None) -> Generator[Any, Any, Any]:
    """Await ``body`` so that each of its steps, and nothing of what happens in between, runs as its owner."""
    value: Any = None
    while True:
        try:
            with owner:
                item = body.send(value) if error is None else body.throw(error)
        except StopIteration as done:
            return done.value
        error = None  # its traceback refers to this frame
        try:
            value = yield item
        except GeneratorExit:
            with owner:
                body.close()
            raise
        except BaseException as thrown:
            if use.is_given_up:
                use.go_on_alone(_rest(owner, body, thrown))
                raise
            error = thrown


async def _rest(owner: crossed, body: Any, error: BaseException) -> None:
    await _drive(owner, body, Use(), error)


@passed_over
def _steps(scope: Scope | None, generator: Any) -> Generator[Any, Any, Any]:
    """Drive a generator so that each of its steps, and nothing of what happens in between, runs as its owner."""
    owner, use = crossed(scope), begin(scope, Body)
    use.close_by(functools.partial(_close, owner, generator))
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            with owner:
                item = generator.send(value) if error is None else generator.throw(error)
        except StopIteration as done:
            if use.ends():
                return done.value
            break
        except BaseException as raised:
            if use.ends(raised):
                raise
            break
        error = None  # its traceback refers to this frame
        if not use.pauses():
            _close(owner, generator)
            use.ends()
            break
        try:
            value = yield item
        except GeneratorExit:
            _drop(owner, generator, use)
            raise
        except BaseException as thrown:  # noqa: BLE001 - passed on to the generator
            error = thrown
        if not use.resumes():
            break
    raise use.gone()


def _close(owner: crossed, generator: Generator[Any, Any, Any]) -> None:
    with owner:
        generator.close()


def _drop(owner: crossed, generator: Generator[Any, Any, Any], use: Use) -> None:
    """The caller wants no more of it."""
    if use.resumes():
        try:
            _close(owner, generator)
        finally:
            use.ends()


@passed_over
async def _async_steps(scope: Scope | None, generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    owner, use = crossed(scope), begin(scope, Body)
    use.close_by(lambda: _close_async(owner, generator))
    value: Any = None
    error: BaseException | None = None
    while True:
        step = generator.asend(value) if error is None else generator.athrow(error)
        error = None  # its traceback refers to this frame
        use.awaits()
        try:
            item = await _drive(owner, step.__await__(), use)
        except StopAsyncIteration:
            if use.ends():
                return
            break
        except BaseException as raised:
            if use.ends(raised):
                raise
            break
        if not use.pauses():
            await _close_async(owner, generator)
            use.ends()
            break
        try:
            value = yield item
        except GeneratorExit:
            await _drop_async(owner, generator, use)
            raise
        except BaseException as thrown:  # noqa: BLE001 - passed on to the generator
            error = thrown
        if not use.resumes():
            break
    raise use.gone()


async def _close_async(owner: crossed, generator: AsyncGenerator[Any, Any]) -> None:
    await _drive(owner, generator.aclose().__await__(), Use())


async def _drop_async(owner: crossed, generator: AsyncGenerator[Any, Any], use: Use) -> None:
    if use.resumes():
        try:
            await _close_async(owner, generator)
        finally:
            use.ends()


@passed_over
def _each(scope: Scope | None, iterator: Iterator[Any]) -> Iterator[Any]:
    for item in _steps(scope, _items(iterator)):
        _tell(item, scope)
        yield item


@passed_over
def _items(iterator: Iterator[Any]) -> Iterator[Any]:
    for item in iterator:  # noqa: UP028 - what is closed is this, not the iterator
        yield item


@passed_over
async def _each_async(scope: Scope | None, iterator: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async with contextlib.aclosing(_async_steps(scope, _async_items(iterator))) as items:
        async for item in items:
            _tell(item, scope)
            yield item


@passed_over
async def _async_items(iterator: AsyncIterator[Any]) -> AsyncGenerator[Any, Any]:
    async for item in iterator:
        yield item


def _tell(item: object, scope: Scope | None) -> None:
    if current() is not scope and type(item) not in _PLAIN_RESULTS:
        tell_result(item, scope)

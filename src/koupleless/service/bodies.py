"""Driving the bodies of coroutines and generators of a service, so that each step runs as the owner of the service.

The caller awaits or iterates; the body runs in between. Each step of the body is made as the owner, with the context
variables of the owner, and the code of the caller between two steps runs as the caller. While a body goes on, its owner
does not leave: see `Body`.
"""

from __future__ import annotations

import contextlib
import functools
import types
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import Scope, crossed, current
from koupleless.errors import BizGone
from koupleless.frames import passed_over
from koupleless.service.call import Unwatched, begin_body
from koupleless.service.crossing import explain, tell_result

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator

VALUES: Final = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset}
)
"""Classes of results without a body, shared by every biz with the base."""

_BODIES: Final = frozenset({types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType})
_PLAIN: Final = VALUES | _BODIES | {types.MethodType, types.FunctionType}
"""Classes that every biz shares with the base."""


@passed_over
def tell(result: object, scope: Scope | None) -> None:
    """Warn if ``isinstance`` of the running caller will not know the class of a result of ``scope``."""
    if current() is not scope and type(result) not in _PLAIN:
        tell_result(result, scope)


def owned(result: Any, scope: Scope | None) -> Any:
    """The result of a call of a service, in a form whose body runs as ``scope``; any other result as it is."""
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
def each(iterator: Iterator[Any], scope: Scope | None) -> Iterator[Any]:
    """The items of an iterator, each step of which runs as ``scope``."""
    for item in _steps(scope, _items(iterator)):
        tell(item, scope)
        yield item


@passed_over
async def each_async(iterator: AsyncIterator[Any], scope: Scope | None) -> AsyncIterator[Any]:
    """The items of an asynchronous iterator, each step of which runs as ``scope``."""
    async with contextlib.aclosing(_async_steps(scope, _async_items(iterator))) as items:
        async for item in items:
            tell(item, scope)
            yield item


@passed_over
def _items(iterator: Iterator[Any]) -> Iterator[Any]:
    for item in iterator:  # noqa: UP028 - closing the generator must not close the iterator
        yield item


@passed_over
async def _async_items(iterator: AsyncIterator[Any]) -> AsyncGenerator[Any, Any]:
    async for item in iterator:
        yield item


# --- coroutines ------------------------------------------------------------------------------------------------------


@passed_over
async def _awaited(scope: Scope | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        use = begin_body(scope)
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
            tell(result, scope)
            return result
        del result
    raise use.gone()


@types.coroutine
@passed_over
def _drive(owner: crossed, body: Any, use: Unwatched, error: BaseException | None = None) -> Generator[Any, Any, Any]:
    """Await ``body``: each step of the body runs as the owner, and the code between two steps does not."""
    value: Any = None
    while True:
        try:
            with owner:
                item = body.send(value) if error is None else body.throw(error)
        except StopIteration as done:
            return done.value
        error = None  # the traceback of the error refers to this frame
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
    await _drive(owner, body, Unwatched(), error)


# --- generators ------------------------------------------------------------------------------------------------------


@passed_over
def _steps(scope: Scope | None, generator: Any) -> Generator[Any, Any, Any]:
    """Drive a generator: each step runs as the owner, and the code between two steps does not."""
    owner, use = crossed(scope), begin_body(scope)
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
        error = None  # the traceback of the error refers to this frame
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


def _drop(owner: crossed, generator: Generator[Any, Any, Any], use: Unwatched) -> None:
    """Close a generator from which the caller wants no more items."""
    if use.resumes():
        try:
            _close(owner, generator)
        finally:
            use.ends()


# --- asynchronous generators -----------------------------------------------------------------------------------------


@passed_over
async def _async_steps(scope: Scope | None, generator: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    owner, use = crossed(scope), begin_body(scope)
    use.close_by(lambda: _close_async(owner, generator))
    value: Any = None
    error: BaseException | None = None
    while True:
        step = generator.asend(value) if error is None else generator.athrow(error)
        error = None  # the traceback of the error refers to this frame
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
    await _drive(owner, generator.aclose().__await__(), Unwatched())


async def _drop_async(owner: crossed, generator: AsyncGenerator[Any, Any], use: Unwatched) -> None:
    """Close an asynchronous generator from which the caller wants no more items."""
    if use.resumes():
        try:
            await _close_async(owner, generator)
        finally:
            use.ends()

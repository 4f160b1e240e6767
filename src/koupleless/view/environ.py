"""Give each biz its own environment and arguments: ``os.environ``, ``sys.argv``, and variables for child processes.

``os.environ`` and ``os.environb`` stay the same objects, for code with an early import, but answer by context. Reads of
a biz fall through to the process; writes and deletions of a biz stay with the biz. C code that calls ``getenv`` itself
sees the process's environment only.
"""

from __future__ import annotations

import _posixsubprocess
import asyncio
import asyncio.subprocess
import errno
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import Scope, current
from koupleless.contextual import ContextList
from koupleless.errors import KouplelessError
from koupleless.frames import seen_as, standing_for
from koupleless.replacing import Shared, replace, specialise
from koupleless.view import children
from koupleless.view.children import DERIVED, interpreter
from koupleless.view.paths import for_child

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator, Sequence

_NOT_IN_A_PREFIX: Final = re.compile(r"[^A-Za-z0-9_]")

_ENV_POSITION: Final = 10
"""The position of ``env`` among the positional parameters of ``Popen``; that of ``cwd`` is before."""

_FORK_ENV_POSITION: Final = 5
"""As `_ENV_POSITION`, of ``_posixsubprocess.fork_exec`` after the first."""


_put_into_c, _take_out_of_c = os.putenv, os.unsetenv


class Environment:
    """The environment overlay and the arguments of one biz: a facet of its scope.

    ``envs`` are the variables given when the biz is installed, ``args`` its arguments, ``name`` its ``sys.argv[0]``
    (the biz's own name unless given). A variable ``<name>_<KEY>``, with every ``.`` and ``-`` of the biz's name as
    ``_``, answers for ``KEY`` in this biz, from ``envs`` as from the process, and is stronger than ``KEY``. ``made``
    are variables of the biz that are made when asked for, weaker than ``envs``. ``has_process`` says: no other biz will
    be in the process, so C code finds variables written by this one, too.

    Threads: as a dictionary; single operations are atomic. Keys and values are kept as bytes, as the process has them.
    """

    def __init__(
        self,
        scope: Scope,
        *,
        envs: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        name: str | None = None,
        has_process: bool = False,
        made: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        self.has_process = has_process
        self._made = {os.fsencode(key): make for key, make in (made or {}).items()}
        self.argv = [name if name is not None else str(scope.biz.name), *args]
        self._prefix = os.fsencode(_NOT_IN_A_PREFIX.sub("_", scope.biz.name) + "_")
        given = {os.fsencode(key): os.fsencode(value) for key, value in (envs or {}).items()}
        # None: deleted, the process's value is hidden
        self._changes: dict[bytes, bytes | None] = {**given, **self._stripped(given)}

    def read(self, process: Mapping[bytes, bytes], key: bytes) -> bytes:
        """Return the value of ``key`` for this biz over the ``process``'s variables. Raises ``KeyError``."""
        try:
            value = self._changes[key]
        except KeyError:
            value = process.get(self._prefix + key)
            if value is not None:
                return value
            if key in self._made:
                return os.fsencode(self._made[key]())
            return _derived(key, process[key]) if key in DERIVED else process[key]
        if value is None:
            raise KeyError(key)
        return value

    def has(self, process: Mapping[bytes, bytes], key: bytes) -> bool:
        """Tell whether this biz has a value of ``key``."""
        if key in self._changes:
            return self._changes[key] is not None
        return self._prefix + key in process or key in process

    def write(self, key: bytes, value: bytes) -> None:
        """Set a variable for this biz alone. Raises ``ValueError`` or ``OSError``, as ``os.putenv`` does."""
        if b"\0" in key or b"\0" in value:
            raise ValueError("embedded null byte")
        if b"=" in key:
            raise ValueError("illegal environment variable name")
        if not key:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._changes[key] = value
        if self.has_process:
            _put_into_c(key, value)

    def delete(self, key: bytes) -> None:
        """Hide a variable from this biz, present or not."""
        self._changes[key] = None
        if self.has_process:
            _take_out_of_c(key)

    def merged(self, process: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return all variables seen by this biz, as a new dictionary."""
        everything = dict(process)
        everything |= {key: _derived(key, everything[key]) for key in DERIVED if key in everything}
        everything |= {key: os.fsencode(make()) for key, make in self._made.items() if key not in self._changes}
        everything |= self._stripped(everything)
        for key, value in dict(self._changes).items():
            if value is None:
                everything.pop(key, None)
            else:
                everything[key] = value
        return everything

    def _stripped(self, variables: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        start = len(self._prefix)
        return {
            key[start:]: value for key, value in variables.items() if key.startswith(self._prefix) and len(key) > start
        }


def _derived(key: bytes, value: bytes) -> bytes:
    here = interpreter()
    return value if here is None else os.fsencode(here.variable(os.fsdecode(key), os.fsdecode(value)))


def _here() -> Environment | None:
    scope = current()
    return None if scope is None else scope.find_facet(Environment)


def _here_to_write() -> Environment | None:
    """Return the environment of the running biz for a write; ``None`` for the process.

    Raises ``KouplelessError`` for code of a biz that is gone, which must not fall through to the process.
    """
    scope = current()
    if scope is None:
        return None
    if scope.is_closed:
        raise KouplelessError(f"biz {scope.biz} was uninstalled; its code can change no environment any more")
    return scope.find_facet(Environment)


class ContextEnviron(os._Environ):  # type: ignore[type-arg]  # noqa: SLF001 - the class has no public name
    """Class of ``os.environ`` and ``os.environb`` while bizs may be there."""

    __slots__ = ()

    _data: dict[bytes, bytes]

    @seen_as(os._Environ.__getitem__)  # noqa: SLF001 - as above
    def __getitem__(self, key: Any) -> Any:
        # The very lines of the original, so that the base has no additional frame.
        here = None if current() is None else _here()
        try:
            encoded = self.encodekey(key)
            value = self._data[encoded] if here is None else here.read(self._data, encoded)
        except KeyError:
            raise KeyError(key) from None
        return self.decodevalue(value)

    @seen_as(Mapping.__contains__)
    def __contains__(self, key: object) -> bool:
        # Asked in each request by libraries with a variable as a switch; the inherited method raises two errors to say
        # no.
        here = None if current() is None else _here()
        encoded = self.encodekey(key)
        return encoded in self._data if here is None else here.has(self._data, encoded)

    @seen_as(os._Environ.__setitem__)  # noqa: SLF001 - as above
    def __setitem__(self, key: Any, value: Any) -> None:
        here = _here_to_write()
        if here is None:
            super().__setitem__(key, value)
        else:
            here.write(self.encodekey(key), self.encodevalue(value))

    @seen_as(os._Environ.__delitem__)  # noqa: SLF001 - as above
    def __delitem__(self, key: Any) -> None:
        here = _here_to_write()
        if here is None:
            super().__delitem__(key)
            return
        encoded = self.encodekey(key)
        try:
            here.read(self._data, encoded)
        except KeyError:
            raise KeyError(key) from None
        here.delete(encoded)

    @seen_as(os._Environ.__iter__)  # noqa: SLF001 - as above
    def __iter__(self) -> Iterator[Any]:
        for key in list(self._visible()):
            yield self.decodekey(key)

    def __len__(self) -> int:
        return len(self._visible())

    def __repr__(self) -> str:
        pairs = (f"{self.decodekey(key)!r}: {self.decodevalue(value)!r}" for key, value in self._visible().items())
        return f"environ({{{', '.join(pairs)}}})"

    def _visible(self) -> dict[bytes, bytes]:
        here = _here()
        return self._data if here is None else here.merged(self._data)


def _inherited() -> dict[str, str] | None:
    """Return the variables for a child process of the running biz; ``None`` where the process's own are right."""
    if _here() is None:
        return None
    children.before_a_child()
    return os.environ.copy()


def _putenv(original: Callable[..., None]) -> Callable[..., None]:
    @standing_for(original)
    def putenv(name: Any, value: Any, /) -> None:
        here = _here_to_write()
        if here is None:
            original(name, value)
        else:
            here.write(os.fsencode(name), os.fsencode(value))

    return putenv


def _unsetenv(original: Callable[..., None]) -> Callable[..., None]:
    @standing_for(original)
    def unsetenv(name: Any, /) -> None:
        here = _here_to_write()
        if here is None:
            original(name)
        else:
            here.delete(os.fsencode(name))

    return unsetenv


def _popen(original: Callable[..., None]) -> Callable[..., None]:
    @standing_for(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it takes the place of one
        inherited = _inherited()
        if inherited is not None:
            args = _with_default(args, kwargs, _ENV_POSITION, "env", lambda env: inherited if env is None else env)
            args = _with_default(args, kwargs, _ENV_POSITION - 1, "cwd", for_child)
        original(self, *args, **kwargs)

    return __init__


def _with_default(
    args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, value: Callable[[Any], Any]
) -> tuple[Any, ...]:
    """Put another value in the place of an argument of `Popen`; returns the positional arguments."""
    if len(args) > position:
        return (*args[:position], value(args[position]), *args[position + 1 :])
    kwargs[name] = value(kwargs.get(name))
    return args


def _fork_exec(original: Callable[..., int]) -> Callable[..., int]:
    """Replace the function below ``Popen``, used by ``multiprocessing`` to spawn and by libraries modelled on it."""

    @standing_for(original)
    def fork_exec(args: Sequence[Any], /, *more: Any) -> int:
        *before, cwd, env = more[:_FORK_ENV_POSITION]
        if env is None and not _serves_everybody(args) and (inherited := _inherited()) is not None:
            env = [os.fsencode(name) + b"=" + os.fsencode(value) for name, value in inherited.items()]
            more = (*before, for_child(cwd), env, *more[_FORK_ENV_POSITION:])
        return original(args, *more)

    return fork_exec


def _serves_everybody(args: Sequence[Any]) -> bool:
    """Tell whether the child is one of the two helpers that ``multiprocessing`` starts once for the process."""
    text = b" ".join(os.fsencode(part) for part in args)
    return b"multiprocessing.forkserver" in text or b"multiprocessing.resource_tracker" in text


def _subprocess(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a function of ``asyncio``, for event loops that start children without ``Popen``, as uvloop does."""

    @standing_for(original)
    async def create(*args: Any, **kwargs: Any) -> Any:
        if (inherited := _inherited()) is not None:
            kwargs["env"] = inherited if kwargs.get("env") is None else kwargs["env"]
            kwargs["cwd"] = for_child(kwargs.get("cwd"))
        return await original(*args, **kwargs)

    return create


def _system(original: Callable[[Any], int]) -> Callable[[Any], int]:
    @standing_for(original)
    def system(command: Any) -> int:
        if _here() is None:
            return original(command)
        code = subprocess.call(command, shell=True)  # noqa: S602 - that is what os.system is
        return -code if code < 0 else code << 8  # the wait status of os.system

    return system


def _context_argv() -> ContextList[str]:
    original = sys.argv

    def target() -> list[str]:
        here = _here()
        return original if here is None else here.argv

    return ContextList(target, mirror=original)


def _put_in(undo: contextlib.ExitStack) -> None:
    specialise(undo, os.environ, ContextEnviron)
    specialise(undo, os.environb, ContextEnviron)
    replace(undo, os, "putenv", _putenv(os.putenv))
    replace(undo, os, "unsetenv", _unsetenv(os.unsetenv))
    replace(undo, os, "system", _system(os.system))
    replace(undo, _posixsubprocess, "fork_exec", _fork_exec(_posixsubprocess.fork_exec))
    replace(undo, subprocess.Popen, "__init__", _popen(subprocess.Popen.__init__))
    for name in ("create_subprocess_exec", "create_subprocess_shell"):
        creator = _subprocess(getattr(asyncio.subprocess, name))
        replace(undo, asyncio.subprocess, name, creator)
        replace(undo, asyncio, name, creator)
    replace(undo, sys, "argv", _context_argv())
    children.put_in(undo)


ENVIRON: Final = Shared("views of the environment", _put_in)
"""Environment and arguments by context."""

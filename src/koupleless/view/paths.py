"""Give each biz a working directory of its own: relative paths lead there, in all code that works for the biz.

A process has one working directory. Inside a biz, ``open``, functions of ``os``, and all that is written in Python
above them (``os.path``, ``pathlib``, ``shutil``, ``glob``, ``tempfile``) take relative paths from the biz's directory.
C code that opens a path itself starts from the process's, but for ``sqlite3.connect`` and certificates for ``ssl``.
"""

# ruff: noqa: PTH115, PTH117 - a text, as in the functions of ``os`` that those here stand for

from __future__ import annotations

import builtins
import errno
import functools
import io
import os
import sys
import types
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.frames import handing_on, standing_for
from koupleless.replacing import Shared, replace
from koupleless.view.listing import Merged, hidden
from koupleless.view.own import put_in_late
from koupleless.view.working import NOWHERE, WorkingDirectory, exists, is_directory

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

_listdir, _lstat, _scandir = os.listdir, os.lstat, os.scandir


def working_directory() -> WorkingDirectory | None:
    """Return the working directory of the running biz; ``None`` for the process's."""
    scope = current()
    return None if scope is None else scope.find_facet(WorkingDirectory)


def for_child(path: Any) -> Any:
    """Return the working directory of a child process of the running biz, to which ``path`` is given, or ``None``."""
    here = working_directory()
    if here is None:
        return path
    if path is None:
        return here.path if is_directory(here.path) else None
    text = os.fsdecode(path)
    led = here.led(text)
    beside = None if is_directory(led) else here.beside(led)
    return _alike(path, led if beside is None or not is_directory(beside) else beside)


def _here_for(path: Any) -> tuple[WorkingDirectory | None, str]:
    """Return the working directory that a path is looked for in, and the path as text; ``None`` for the process's."""
    scope = current()
    here = None if scope is None else scope.find_facet(WorkingDirectory)
    if type(path) is int:
        return None, ""
    if here is None:
        if scope is not None and scope.is_closed and not os.path.isabs(path):
            # As of a process whose working directory was removed: nothing of a biz that is gone falls to the base.
            raise FileNotFoundError(errno.ENOENT, f"biz {scope.biz} was uninstalled, and has no directory", path)
        return None, ""
    if type(path) is not str:
        try:
            path = os.fsdecode(path)
        except TypeError:
            return None, ""  # the function itself says what it takes
    return (here, path) if here.concerns(path) else (None, "")


def _alike(path: Any, led: str) -> Any:
    return os.fsencode(led) if isinstance(path, bytes) or isinstance(os.fspath(path), bytes) else led


# --- functions --------------------------------------------------------------------------------------------------------


def _reading(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a function that looks at something."""

    @handing_on
    @standing_for(original)
    def function(path: Any, *args: Any, **kwargs: Any) -> Any:
        if current() is None or kwargs.get("dir_fd") is not None:
            return original(path, *args, **kwargs)
        here, text = _here_for(path)
        if here is None:
            return original(path, *args, **kwargs)
        led = here.led(text)
        try:
            return original(_alike(path, led), *args, **kwargs)
        except NOWHERE:
            beside = here.beside(led)
            if beside is None or not exists(beside):
                raise
        return original(_alike(path, beside), *args, **kwargs)

    return function


def _looking(original: Callable[..., bool]) -> Callable[..., bool]:
    """Replace ``os.access``, which answers instead of raising."""

    @handing_on
    @standing_for(original)
    def function(path: Any, *args: Any, **kwargs: Any) -> bool:
        if current() is None or kwargs.get("dir_fd") is not None:
            return original(path, *args, **kwargs)
        here, text = _here_for(path)
        if here is None:
            return original(path, *args, **kwargs)
        return original(here.found(text), *args, **kwargs)

    return function


def _leading(lead: Callable[[WorkingDirectory, str], str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the replacement of functions that change, make or remove something, by the way the path is led."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @handing_on
        @standing_for(original)
        def function(path: Any, *args: Any, **kwargs: Any) -> Any:
            if current() is None or kwargs.get("dir_fd") is not None:
                return original(path, *args, **kwargs)
            here, text = _here_for(path)
            return original(path if here is None else _alike(path, lead(here, text)), *args, **kwargs)

        return function

    return make


def _moving(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a function with two paths, of which the first is there and the second is made."""

    @handing_on
    @standing_for(original)
    def function(src: Any, dst: Any, **kwargs: Any) -> Any:
        if current() is not None:
            here, text = _here_for(src)
            if here is not None and kwargs.get("src_dir_fd") is None:
                src = _alike(src, here.to_change(text))
            here, text = _here_for(dst)
            if here is not None and kwargs.get("dst_dir_fd") is None:
                dst = _alike(dst, here.to_make(text))
        return original(src, dst, **kwargs)

    return function


def _linking(original: Callable[..., None]) -> Callable[..., None]:
    """Replace ``os.symlink``: the text of a link is read from the place of the link."""

    @handing_on
    @standing_for(original)
    def symlink(src: Any, dst: Any, *args: Any, **kwargs: Any) -> None:
        if current() is not None and kwargs.get("dir_fd") is None:
            here, text = _here_for(dst)
            if here is not None:
                dst = _alike(dst, here.to_make(text))
        original(src, dst, *args, **kwargs)

    return symlink


def _opening(original: Callable[..., int]) -> Callable[..., int]:
    @handing_on
    @standing_for(original)
    def open(path: Any, flags: int, mode: int = 0o777, **kwargs: Any) -> int:  # noqa: A001 - as the original
        if current() is not None and kwargs.get("dir_fd") is None:
            here, _ = _here_for(path)
            if here is not None:
                return here.open(path, flags, mode)
        return original(path, flags, mode, **kwargs)

    return open


def _open_file(original: Callable[..., Any]) -> Any:
    """Replace ``open``. The file keeps the name it was opened by."""

    @handing_on
    @standing_for(original)
    def open(original: Any, file: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: A001 - as the original
        if current() is not None:
            here, _ = _here_for(file)
            if here is not None and (args[_OPENER] if len(args) > _OPENER else kwargs.get("opener")) is None:
                args, kwargs["opener"] = args[:_OPENER], functools.partial(here.open, mode=0o666)
        return original(file, *args, **kwargs)

    del open.__wrapped__  # type: ignore[attr-defined]  # it has one parameter less, and a method has one less again
    # A function of C is no method where a class has it as an attribute, and neither is a method.
    return types.MethodType(open, original)


_OPENER: Final = 6
"""The position of ``opener`` among the positional parameters of ``open`` after the first."""


def _listing(original: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    @standing_for(original)
    def listdir(path: Any = None) -> list[Any]:
        here, text = (None, "") if current() is None else _here_for(path if path is not None else ".")
        if here is None:
            return original(path)
        led = here.led(text)
        is_bytes = isinstance(path, bytes)
        found = {os.fsencode(name) if is_bytes else name: None for name in _names(here, led)}
        return list(found)

    return listdir


def _names(here: WorkingDirectory, led: str) -> Iterator[str]:
    second = here.second(led)
    if second is None or is_directory(led):
        yield from _listdir(led)
    if second is not None:
        yield from (name for name in _listdir(second) if not hidden(name))


def _scanning(original: Callable[..., Any]) -> Callable[..., Any]:
    @standing_for(original)
    def scandir(path: Any = None) -> Any:
        here, text = (None, "") if current() is None else _here_for(path if path is not None else ".")
        if here is None:
            return original(path)
        led = here.led(text)
        second = here.second(led)
        if second is None:
            scans = [original(led)]
        else:
            scans = [original(place) for place in (led, second) if place == second or is_directory(led)]
        return Merged(scans, path if path is not None else ".")

    return scandir


def _saying(original: Callable[[], Any], spell: Callable[[str], Any]) -> Callable[[], Any]:
    @standing_for(original)
    def getcwd() -> Any:
        here = None if current() is None else working_directory()
        return original() if here is None else spell(here.path)

    return getcwd


def _changing(original: Callable[[Any], None]) -> Callable[[Any], None]:
    """Replace ``os.chdir`` and ``os.fchdir``."""

    @standing_for(original)
    def chdir(path: Any) -> None:
        here = None if current() is None else working_directory()
        if here is None:
            original(path)
        elif isinstance(path, int):
            here.change(os.readlink(f"/proc/self/fd/{path}"))
        else:
            here.change(os.fsdecode(path))

    return chdir


def _connecting(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace ``sqlite3.connect``, which opens the path in C."""

    @handing_on
    @standing_for(original)
    def connect(database: Any, *args: Any, **kwargs: Any) -> Any:
        if current() is not None and (here := working_directory()) is not None:
            database = _database(here, database, is_uri=bool(kwargs.get("uri")))
        return original(database, *args, **kwargs)

    return connect


def _certifying(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a method of ``ssl.SSLContext`` with paths as the first two arguments, which opens them in C."""

    @handing_on
    @standing_for(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if current() is not None:
            args = (*map(_found, args[:2]), *args[2:])
            for name in _CERTIFICATES & kwargs.keys():
                kwargs[name] = _found(kwargs[name])
        return original(self, *args, **kwargs)

    return method


def _found(path: Any) -> Any:
    here, text = _here_for(path)
    return path if here is None else _alike(path, here.found(text))


_CERTIFICATES: Final = frozenset({"certfile", "keyfile", "cafile", "capath"})
_IN_MEMORY: Final = ("", ":memory:")


def _database(here: WorkingDirectory, database: Any, *, is_uri: bool) -> Any:
    try:
        text = os.fsdecode(database)
    except TypeError:
        return database
    if is_uri and text.startswith("file:"):
        place, mark, query = text.removeprefix("file:").partition("?")
        path = urllib.parse.unquote(place)
        is_memory = path in _IN_MEMORY or "mode=memory" in query
        if is_memory or path.startswith("//") or not here.concerns(path):
            return database
        return f"file:{urllib.parse.quote(here.database(path))}{mark}{query}"
    return database if text in _IN_MEMORY or not here.concerns(text) else here.database(text)


# --- putting in -------------------------------------------------------------------------------------------------------

_CHANGE: Final = _leading(WorkingDirectory.to_change)
_MAKE: Final = _leading(WorkingDirectory.to_make)
_REMOVE: Final = _leading(WorkingDirectory.led)
_FUNCTIONS: Final[dict[Callable[..., Any], str]] = {
    _reading: "stat lstat readlink statvfs pathconf getxattr listxattr posix_spawn",
    _looking: "access",
    _CHANGE: "chmod chown lchown utime truncate setxattr removexattr",
    _MAKE: "mkdir mkfifo mknod",
    _REMOVE: "unlink remove rmdir",
    _moving: "rename replace link",
    _linking: "symlink",
    _opening: "open",
    _listing: "listdir",
    _scanning: "scandir",
}
"""Functions of ``os`` by the way their paths are led."""
_SETS: Final = ("supports_dir_fd", "supports_fd", "supports_follow_symlinks", "supports_effective_ids")
"""Sets of functions of ``os``, asked by callers for what a function takes."""
_OPENS: Final = {"bz2": "_builtin_open", "tarfile": "bltn_open", "tokenize": "_builtin_open"}
"""Python modules of the standard library that have imported ``open`` by name."""


def _put_in(undo: contextlib.ExitStack) -> None:
    for make, names in _FUNCTIONS.items():
        for name in names.split():
            if hasattr(os, name):
                _replace_in_os(undo, name, make(getattr(os, name)))
    for name, spell in (("getcwd", str), ("getcwdb", os.fsencode)):
        _replace_in_os(undo, name, _saying(getattr(os, name), spell))
    replace(undo, sys.modules["posix"], "getcwd", os.getcwd)  # for ``importlib``, which makes paths of files absolute
    for name in ("chdir", "fchdir"):
        _replace_in_os(undo, name, _changing(getattr(os, name)))
    put_in_late(undo, "glob", _put_into_glob)
    opened = _open_file(builtins.open)
    replace(undo, builtins, "open", opened)
    replace(undo, io, "open", opened)
    for name in _OPENS:
        put_in_late(undo, name, functools.partial(_put_into, opened))
    put_in_late(undo, "sqlite3", _put_into_sqlite)
    put_in_late(undo, "ssl", _put_into_ssl)


def _replace_in_os(undo: contextlib.ExitStack, name: str, function: Any) -> None:
    original = getattr(os, name)
    function.__module__ = "os"  # the one that has this function, for ``pickle``
    for known in (getattr(os, each) for each in _SETS):
        if original in known:
            known.add(function)
            undo.callback(known.discard, function)
    replace(undo, os, name, function)


def _put_into(opened: Any, undo: contextlib.ExitStack, module: types.ModuleType) -> None:
    replace(undo, module, _OPENS[module.__name__], opened)


def _put_into_glob(undo: contextlib.ExitStack, glob: Any) -> None:
    """Replace the functions of ``os`` that a class has among its attributes, in Python 3.13."""
    holder = getattr(glob, "_StringGlobber", None)
    for name, original in (("lstat", _lstat), ("scandir", _scandir)):
        if getattr(holder, name, None) is original:
            replace(undo, holder, name, staticmethod(getattr(os, name)))


def _put_into_ssl(undo: contextlib.ExitStack, ssl: Any) -> None:
    for name in ("load_cert_chain", "load_verify_locations"):
        replace(undo, ssl.SSLContext, name, _certifying(getattr(ssl.SSLContext, name)))


def _put_into_sqlite(undo: contextlib.ExitStack, sqlite3: Any) -> None:
    connect = _connecting(sqlite3.connect)
    replace(undo, sqlite3, "connect", connect)
    replace(undo, sqlite3.dbapi2, "connect", connect)


PATHS: Final = Shared("views of the working directory", _put_in)
"""Working directory and relative paths by context."""

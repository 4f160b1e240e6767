"""A digest of all that decides, beside the requirements, which distributions pip finds: the settings of the user."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME: Final = "pip.conf"
_WITHOUT_EFFECT: Final = frozenset({"cache-dir", "log", "log-file", "no-input", "progress-bar", "quiet", "verbose"})
"""Settings that do not decide which distributions are found; the cache of pip changes with each run."""


def digest_of_settings() -> str:
    """A digest of the environment and the configuration files of pip, and of local files and directories named there.

    A directory, such as a place for ``find-links``, counts with the names, sizes and times of its files.
    """
    lines = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("PIP_")]
    for path in _configuration_files():
        with contextlib.suppress(OSError):
            lines += path.read_text("utf-8", errors="replace").splitlines()
    lines = [line for line in lines if _option(line) not in _WITHOUT_EFFECT]
    marks = [mark for line in lines for word in line.replace("=", " ").split() for mark in _marks(word)]
    return hashlib.sha256("\0".join([*lines, *marks, *_netrc()]).encode()).hexdigest()


def _option(line: str) -> str:
    return line.partition("=")[0].strip().lower().removeprefix("pip_").replace("_", "-")


def _configuration_files() -> Iterator[Path]:
    """The places of pip, in no order that matters here."""
    if named := os.environ.get("PIP_CONFIG_FILE"):
        yield Path(named)
    for directory in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
        yield Path(directory, "pip", _NAME)
    yield Path("/etc", _NAME)
    yield Path("/Library/Application Support/pip", _NAME)
    yield Path(sys.prefix, _NAME)
    with contextlib.suppress(RuntimeError):
        home = Path.home()
        yield home / ".pip" / _NAME
        yield home / "Library" / "Application Support" / "pip" / _NAME
        yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "pip", _NAME)


def _netrc() -> Iterator[str]:
    """Marks of the file with the passwords of indexes, which may let a user see more."""
    with contextlib.suppress(RuntimeError):
        yield from _marks(os.environ.get("NETRC") or str(Path.home() / ".netrc"))


def _marks(word: str) -> Iterator[str]:
    """Texts of which one changes with the file, or with a file of the directory, that ``word`` names."""
    if word.startswith("file:"):
        word = urllib.parse.unquote(urllib.parse.urlsplit(word).path)
    path = Path(word)
    with contextlib.suppress(OSError, ValueError):
        if path.is_dir():
            for inside in sorted(path.iterdir()):
                with contextlib.suppress(OSError):
                    status = inside.stat()
                    yield f"{inside} {status.st_size} {status.st_mtime_ns}"
        elif path.is_file():
            status = path.stat()
            yield f"{path} {status.st_size} {status.st_mtime_ns}"

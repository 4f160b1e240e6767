"""Keep values of the environment of modules, by the name of the module, over redeployments and restarts.

The values may be secrets. They are in memory, and with a directory also in files that only the user of the base may
read. No message, and no ``repr``, has a value.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_ENDING: Final = ".json"
_OWNER_ONLY: Final = 0o600
_GIVEN: Final = "given"
_PROJECT: Final = "project"


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept values of one module. Immutable."""

    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values given by deployments and by ``arkctl env``; each stays until changed."""
    project: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of the env-file of the project, as of the last deployment from the project."""


class Environments:
    """The kept values of all modules of a base.

    ``directory`` gets one file for each module, of mode 600; with ``None`` the values leave with the base. Lives as
    long as the base. Thread-safe. All methods raise ``SettingsError`` for a file that cannot be read or written.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._known: dict[str, Kept] = {}

    def keep_in(self, directory: Path) -> None:
        """Keep the values in ``directory`` from now on; called at the start, before the first module."""
        with self._lock:
            self._directory = directory

    def of(self, name: str) -> Kept:
        """Return the kept values of a module; empty for a module without any."""
        with self._lock:
            return self._of_locked(name)

    def keep(self, name: str, given: Mapping[str, str], *, project: Mapping[str, str] | None = None) -> None:
        """Keep the values of a deployment: ``given`` over earlier ones, ``project`` in the place of earlier ones."""
        with self._lock:
            kept = self._of_locked(name)
            self._put_locked(name, kept, Kept({**kept.given, **given}, kept.project if project is None else project))

    def change(self, name: str, given: Mapping[str, str], unset: Iterable[str] = ()) -> tuple[str, ...]:
        """Set and remove given values; returns the names to remove that had no given value."""
        with self._lock:
            kept = self._of_locked(name)
            gone = set(unset) - given.keys()
            values = {key: value for key, value in {**kept.given, **given}.items() if key not in gone}
            self._put_locked(name, kept, Kept(values, kept.project))
            return tuple(sorted(gone - kept.given.keys()))

    def _of_locked(self, name: str) -> Kept:
        if name not in self._known:
            self._known[name] = Kept() if self._directory is None else _read(self._directory / f"{name}{_ENDING}")
        return self._known[name]

    def _put_locked(self, name: str, before: Kept, kept: Kept) -> None:
        if kept == before:
            return
        if self._directory is not None:
            _write(self._directory / f"{name}{_ENDING}", kept)
        self._known[name] = kept


def _read(path: Path) -> Kept:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Kept(_texts(values[_GIVEN]), _texts(values[_PROJECT]))
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):  # no cause: the message of a parser may have a piece of the content
        raise SettingsError(
            f"{path} is damaged: values of the environment were kept there; remove the file and deploy with --env again"
        ) from None


def _texts(values: object) -> dict[str, str]:
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise TypeError
    return values


def _write(path: Path, kept: Kept) -> None:
    """Write in one step: after a crash the file has the values from before or from now, on the disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    data = json.dumps({_GIVEN: dict(kept.given), _PROJECT: dict(kept.project)}).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside.unlink(missing_ok=True)
        try:
            # Made anew: an existing file could have another mode, or be a link.
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from None

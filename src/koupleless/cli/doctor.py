"""``arkctl doctor`` and ``arkctl version``: facts about the installation, and about the base."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.client import ArkletClient, NoArklet
from koupleless.errors import BaseUnreachable, KouplelessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from koupleless.settings import ClientSettings

_OLDEST: Final = (3, 11)
_NEWEST: Final = (3, 15)
_LEAST_FREE_BYTES: Final = 200 * 1024 * 1024
_PACKAGES: Final = ("a2wsgi", "click", "msgspec", "packaging", "psutil", "starlette", "uvicorn", "watchfiles")

OK: Final = "ok"
NOTE: Final = "note"
FAIL: Final = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of the doctor."""

    subject: str
    verdict: str
    """``ok``; ``note`` for a fact that may be intended; ``FAIL`` for a fault."""
    text: str
    status: int = 0
    """The exit status for this finding alone."""


def own_version() -> str:
    """The installed version of koupleless."""
    return importlib.metadata.version("koupleless")


def version_text(client: str, base: Mapping[str, str] | None = None) -> str:
    """The versions, in the form printed by the original client."""
    return f"arkctl Version: {client}" + (f"\nbase {base['bizName']} Version: {base['bizVersion']}" if base else "")


def versions(client: ArkletClient) -> tuple[str, dict[str, str] | None]:
    """The version of arkctl, and name and version of the base; ``None`` if the base does not answer."""
    own = own_version()
    try:
        info = client.health().master_biz_info
    except KouplelessError:
        return own, None
    return own, None if info is None else {"bizName": info.biz_name, "bizVersion": info.biz_version}


def examine(client: ArkletClient, settings: ClientSettings) -> list[Finding]:
    """Run all checks. A fault becomes a finding, never an exception."""
    return [*_interpreter(), *_packages(), *_scratch(), *_base(client, settings)]


def _interpreter() -> Iterator[Finding]:
    text = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    is_known = platform.python_implementation() == "CPython" and _OLDEST <= sys.version_info[:2] <= _NEWEST
    if is_known:
        yield Finding("interpreter", OK, text)
    else:
        wanted = f"CPython {'.'.join(map(str, _OLDEST))} to {'.'.join(map(str, _NEWEST))} is needed"
        yield Finding("interpreter", FAIL, f"{text}; {wanted}", 2)
    is_virtual = sys.prefix != sys.base_prefix
    yield Finding("environment", OK if is_virtual else NOTE, sys.prefix + ("" if is_virtual else ", no virtual one"))


def _packages() -> Iterator[Finding]:
    yield Finding("koupleless", OK, own_version())
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", OK, ", ".join(found))
    if missing:
        yield Finding("packages", FAIL, f"{', '.join(missing)} missing; install koupleless again", 2)
    try:
        yield Finding("pip", OK, f"{importlib.metadata.version('pip')}, for `arkctl build`")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("pip", NOTE, "not installed: projects without dependencies of their own can be built, others not")


def _scratch() -> Iterator[Finding]:
    directory = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=directory):
            free = shutil.disk_usage(directory).free
    except OSError as error:
        yield Finding("temporary files", FAIL, f"{directory} cannot be used: {error.strerror}", 2)
        return
    text = f"{directory}, {free // 1024 // 1024} MiB free"
    yield Finding("temporary files", OK if free >= _LEAST_FREE_BYTES else NOTE, text)


def _base(client: ArkletClient, settings: ClientSettings) -> Iterator[Finding]:
    from koupleless.cli.showing.suggestions import UNREACHABLE, owner_of, suggest  # noqa: PLC0415 - imports this room's rules

    owner = owner_of(client.address)
    try:
        info = client.health().master_biz_info
        bizs = client.query()
    except BaseUnreachable as error:
        yield Finding("base", FAIL, f"{error}; {suggest(error)}", UNREACHABLE)
        yield Finding("port", OK if owner is None else NOTE, f"{settings.port} is free" if owner is None else owner)
        return
    except NoArklet as error:
        yield Finding("base", FAIL, f"{error}; {suggest(error)}", UNREACHABLE)
        return
    except KouplelessError as error:
        yield Finding("base", FAIL, f"{client.address}: {error}", 1)
        return
    name = f"{info.biz_name}:{info.biz_version}" if info else "a base"
    yield Finding("base", OK, f"{name} at {client.address} with {len(bizs)} module{'s' * (len(bizs) != 1)}")
    yield Finding("port", OK, f"{settings.port} belongs to {owner or 'a process that may not be asked'}")

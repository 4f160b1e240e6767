"""``arkctl doctor``: checks of the installation, and of the connection to a base."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from koupleless.cli.versions import own_version
from koupleless.client import ArkletClient, NoArklet
from koupleless.errors import BaseUnreachable, KouplelessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.settings.client import ClientSettings

_LEAST_FREE_BYTES: Final = 200 * 1024 * 1024

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


def examine(client: ArkletClient, settings: ClientSettings) -> list[Finding]:
    """Run all checks. A fault becomes a finding, never an exception."""
    return [*_interpreter(), *_packages(), *_scratch(), *_base(client, settings)]


def _interpreter() -> Iterator[Finding]:
    text = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    wanted = SpecifierSet(importlib.metadata.metadata("koupleless")["Requires-Python"])
    is_fit = platform.python_implementation() == "CPython" and wanted.contains(
        platform.python_version(), prereleases=True
    )
    if is_fit:
        yield Finding("interpreter", OK, text)
    else:
        yield Finding("interpreter", FAIL, f"{text}; CPython {wanted} is needed", 2)
    is_virtual = sys.prefix != sys.base_prefix
    yield Finding("environment", OK if is_virtual else NOTE, sys.prefix + ("" if is_virtual else ", no virtual one"))


def _packages() -> Iterator[Finding]:
    yield Finding("koupleless", OK, own_version())
    found, wrong = [], []
    for requirement in map(Requirement, importlib.metadata.requires("koupleless") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
        else:
            found.append(f"{requirement.name} {version}")
            if not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    yield Finding("packages", OK, ", ".join(found))
    if wrong:
        yield Finding("packages", FAIL, f"{', '.join(wrong)}; install koupleless again", 2)
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

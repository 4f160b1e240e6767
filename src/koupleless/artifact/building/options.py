"""The options of one build: one value, from the command line to the reader of the project."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from koupleless.artifact.building.requirements import BaseFacts


class Tell(Protocol):
    """Takes the name of a step that may take long, when the step begins, and again with each change of the detail."""

    def __call__(self, step: str, detail: str = "", /) -> object:
        """Show the step; ``detail`` says how far the step is, as ``django-5.2-py3-none-any.whl, 1.5 of 8.3 MB``."""


def print_nothing(_: str, _detail: str = "", /) -> None:
    """Take the name of a step, and show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of one build. Frozen; made by the command line, or by a test of a biz."""

    out: Path | None = None
    """The directory for the artefact; by default ``dist`` beside the project or file."""
    name: str | None = None
    """As `version`, `entry` and `web_context_path`: in place of the value of the project, which ``None`` keeps."""
    version: str | None = None
    entry: str | None = None
    web_context_path: str | None = None
    requirements: tuple[str, ...] = ()
    """Requirements in addition to the project's own, as PEP 508 texts."""
    base: BaseFacts | None = None
    """The distributions of the base; by default those of the running interpreter."""
    standalone: bool = False
    """Pack all dependencies, provided by a base or not."""
    pack_env_file: bool | None = None
    """Put the env-file of the project into the artefact; ``None`` means as the project says, which is by default no."""
    compile: bool = True
    """Add bytecode for the running Python."""
    refresh: bool = False
    """Resolve the requirements anew, instead of taking a result of the last day from the cache."""
    is_present: Callable[[str], bool] | None = None
    """Asked with the digest of the packed libraries: whether the receiver of the artefact has them already, so that the
    artefact travels without; ``None`` packs them in any case."""
    tell: Tell = print_nothing
    """Called with the name of each step that may take long, when the step begins, and with its progress."""
    python: str = sys.executable
    """The interpreter with the pip that fetches distributions to pack; of the same version as the running one."""

"""The portrait of a biz: all that another process of the machine needs to run a command as the biz."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koupleless.context import Scope, as_base, entered

if TYPE_CHECKING:
    from collections.abc import Mapping

_OF_THE_BIZ = frozenset({"PATH", "VIRTUAL_ENV"})
"""Variables with a value for child processes of the biz, which leads to a directory that leaves with the biz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """The facts about one biz that decide what code of the biz finds: a facet of its scope. Immutable.

    Paths are absolute texts. ``variables`` and ``process`` may hold secrets: they are filled by `complete` alone.
    """

    name: str
    version: str
    paths: tuple[str, ...]
    """The search path: the code of the biz first."""
    scratch: str
    """A directory for files that leave with the base, or with the command."""
    data_dir: str = ""
    config_dirs: tuple[str, ...] = ()
    profile: str = ""
    declared: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    own_in_base: tuple[str, ...] = ()
    shared_in_base: tuple[str, ...] = ()
    python: str = sys.executable
    """The interpreter of the base."""
    directory: str = ""
    """The working directory of the base."""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The variables of the biz that differ from those of the process."""
    process: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The variables of the process of the base."""

    @classmethod
    def read(cls, path: Path) -> Portrait:
        """Read a portrait from a file. Raises ``OSError``, and ``ValueError`` for a file with other content."""
        try:
            read: dict[str, Any] = json.loads(path.read_text("utf-8"))
            values: dict[str, Any] = {
                name: tuple(value) if type(value) is list else value for name, value in read.items()
            }
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from None

    def write(self) -> Path:
        """Write the portrait to a new file below `scratch` that only this user may read. Raises ``OSError``."""
        handle, name = tempfile.mkstemp(prefix="command-", suffix=".json", dir=self.scratch)  # of mode 600
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file)
        return Path(name)

    def complete(self, scope: Scope) -> Portrait:
        """The portrait with the variables that the biz has now."""
        with as_base():
            process = dict(os.environ)
            directory = os.getcwd()  # noqa: PTH109 - a text
        with entered(scope):
            inside = dict(os.environ)
        variables = {
            name: value for name, value in inside.items() if process.get(name) != value and name not in _OF_THE_BIZ
        }
        return dataclasses.replace(self, variables=variables, process=process, directory=directory)

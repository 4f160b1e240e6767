"""A base in a process of its own, in which modules call what would patch it: a program that `test_refusals` runs.

Libraries like these leave marks in the process when they are merely imported. The argument is a list of cases as JSON,
the output one answer for each: the error, what else was said, and whether the standard library is as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import shutil
import socket
import ssl
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Final

from tests.container.conftest import World

from koupleless.artifact.build import Options, build_project
from koupleless.container.surroundings import Deadlines
from koupleless.container.terms import Rules
from koupleless.errors import StartFailed

HEAD = '[project]\nname = "green"\nversion = "{version}"\n[tool.koupleless.module]\nentry = "{entry}"\n'
FIRST: Final[tuple[str, list[str], str]] = ("def main(): pass\n", [], "green:main")
"""With the first module of all a base replaces what it replaces itself."""
_PARTS = ("socket", "SSLContext", "SSLSocket", "Thread", "Lock", "local", "sleep", "run", "get_event_loop", "Task")


def parts() -> list[Any]:
    """What such libraries replace."""
    modules = (socket, ssl, threading, time, asyncio, asyncio.events, asyncio.tasks)
    return [getattr(module, name) for module in modules for name in _PARTS if hasattr(module, name)]


def build(directory: Path, version: int, source: str, libraries: list[str], entry: str) -> Path:
    """A module of one file, and of libraries that it brings along."""
    project = directory / f"green-{version}"
    project.mkdir()
    (project / "pyproject.toml").write_text(HEAD.format(version=version, entry=entry))
    (project / "green.py").write_text(source)
    for library in libraries:
        spec = importlib.util.find_spec(library)
        assert spec is not None
        assert spec.origin is not None
        place = Path(spec.origin)
        if place.name == "__init__.py":
            shutil.copytree(place.parent, project / library, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, project / place.name)
    return build_project(project, Options(out=directory, compile=False)).path


def answer(world: World, artefact: Path, said: list[str]) -> dict[str, Any]:
    """What became of installing it."""
    before = parts()
    said.clear()
    error, traceback = "", ""
    try:
        world.container.install(world.container.prepare(str(artefact)))
    except StartFailed as failed:
        error, traceback = failed.reason, failed.traceback
    is_as_before = all(now is then for now, then in zip(parts(), before, strict=True))
    return {"error": error, "traceback": traceback, "said": "\n".join(said), "is_as_before": is_as_before}


def main() -> None:
    """Install one after the other, into one base."""
    warnings.simplefilter("ignore")
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("koupleless").addHandler(handler)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rules, deadlines = Rules(), {"start_s": 20.0, "drain_s": 5.0, "stop_s": 2.0}
        world = World(directory / "store", lambda _: directory, rules=rules, deadlines=Deadlines(**deadlines))
        with contextlib.closing(world.container):
            answers = [
                answer(world, build(directory, number, source, libraries, entry), said)
                for number, (source, libraries, entry) in enumerate([FIRST, *json.loads(sys.argv[1])])
            ]
    print(json.dumps(answers[1:]))  # noqa: T201 - this is a program


if __name__ == "__main__":
    main()

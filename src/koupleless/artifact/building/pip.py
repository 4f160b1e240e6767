"""pip, run as a child process: resolves requirements, and installs distributions below a directory."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

from packaging.utils import canonicalize_name

from koupleless.artifact.temporary import temporary_directory
from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from packaging.requirements import Requirement

_PIP_TIMEOUT_S: Final = 900.0
_LOOK_S: Final = 0.25
"""Seconds between two looks at a download."""
_BEGINS: Final = re.compile(r"\s*Downloading (\S+?)(?: \(([0-9.]+) (bytes|kB|MB)\))?\s*")
_BYTES: Final = {"bytes": 1, "kB": 1000, "MB": 1000 * 1000}
_NOISE: Final = frozenset({"INSTALLER", "direct_url.json", "REQUESTED"})


@dataclass(frozen=True, slots=True)
class Resolved:
    """One distribution as resolved by pip: version, requirements, and the pin to install the same again."""

    version: str
    requires: tuple[str, ...]
    pin: str
    digest: str = ""
    """The SHA-256 of the archive; empty if the index does not say."""

    @property
    def is_fixed(self) -> bool:
        """Whether the pin means the same archive at any time: not one at an address, whose content may change."""
        return bool(self.digest) or " @ " not in self.pin


class Pip:
    """The pip of one interpreter, run as a child on behalf of one project. May be used by any thread."""

    def __init__(self, project: str, python: str, show: Callable[[str], object] = lambda _: None) -> None:
        """``show`` is called with the progress of the present download, in words, empty without one."""
        self._project = project
        self._python = python
        self._show = show

    def resolve(
        self, requirements: Sequence[Requirement], base: Mapping[str, str], *, also: Sequence[Requirement]
    ) -> dict[str, Resolved]:
        """Resolve ``requirements`` with all dependencies, as for an empty environment; normalised name -> result.

        The versions of the base are preferred, so that as much as possible can be left out. If there is no solution
        with these versions, pip chooses freely within the requirements.
        """
        freely = [f"{requirement.name}{requirement.specifier}" for requirement in also if requirement.specifier]
        with temporary_directory("koupleless-pip-") as directory:
            report, constraints = Path(directory, "report.json"), Path(directory, "constraints.txt")
            command = ["--dry-run", "--ignore-installed", "--report", str(report), "--constraint", str(constraints)]
            command += [str(requirement) for requirement in requirements]
            constraints.write_text("\n".join([*freely, *(f"{name}=={base[name]}" for name in base)]), "utf-8")
            code, output = self._run(command)
            if code != 0 and base:
                constraints.write_text("\n".join(freely), "utf-8")
                code, output = self._run(command)
            self._check(code, output, "pip finds no set of distributions that satisfies all requirements")
            found = json.loads(report.read_text("utf-8"))["install"]
        return {str(canonicalize_name(item["metadata"]["name"])): _resolved(item) for item in found}

    def install(self, pins: Sequence[str], into: Path) -> None:
        """Install exactly the pinned distributions below ``into``; remove files that would differ between builds."""
        if pins:
            code, output = self._run(["--no-deps", "--no-compile", "--target", str(into), *pins])
            self._check(code, output, "pip could not install the dependencies")
            _clean(into)

    def install_freely(self, requirements: Sequence[str], into: Path, *, alone: bool = False) -> None:
        """Install pip's choice for ``requirements`` below ``into``; with ``alone``, without dependencies.

        Raises ``BuildFailed`` with the output of pip.
        """
        code, output = self._run([*(["--no-deps"] if alone else []), "--target", str(into), *requirements])
        self._check(code, output, "pip could not install the dependencies")

    def _run(self, arguments: Sequence[str]) -> tuple[int, str]:
        # A place for installs in the user's pip configuration would contradict --target.
        environment = {**os.environ, "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH"):
            environment.pop(name, None)
        command = [self._python, "-m", "pip", "install", "--progress-bar", "off", *arguments]
        # A killed pip (interrupted build, time-out) leaves temporary files, which are removed with this directory.
        with temporary_directory("koupleless-pip-") as directory, Path(directory, "errors").open("w+b") as errors:
            try:
                process = subprocess.Popen(  # noqa: S603 - the interpreter's own pip, no shell
                    command,
                    env={**environment, "TMPDIR": str(directory)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
            except OSError as error:
                raise BuildFailed(self._project, f"cannot run {self._python}: {error.strerror}") from None
            self._await(process, Path(directory))
            errors.seek(0)
            return process.returncode, errors.read().decode(errors="replace").strip()

    def _await(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        """Wait for pip, and show the downloads. Raises ``BuildFailed`` at the end of the time."""
        assert process.stdout is not None
        ends = time.monotonic() + _PIP_TIMEOUT_S
        with process, _Downloads(process.stdout, directory) as downloads:
            try:
                while not _has_ended(process):
                    self._show(downloads.now())
                    if time.monotonic() > ends:
                        raise BuildFailed(self._project, f"pip did not finish within {_PIP_TIMEOUT_S:g} s")
            finally:
                process.kill()  # nothing happens to a pip that has ended

    def _check(self, code: int, output: str, reason: str) -> None:
        if code == 0:
            return
        if "No module named pip" in output:
            reason = f"{self._python} has no pip; install pip with: {self._python} -m ensurepip"
        elif output:
            reason += ": " + output.splitlines()[-1].removeprefix("ERROR: ")
        raise BuildFailed(self._project, reason, output=output)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process ends before the next look at it."""
    try:
        process.wait(_LOOK_S)
    except subprocess.TimeoutExpired:
        return False
    return True


class _Downloads:
    """The download that runs, according to the ``output`` of pip, with files below ``directory``.

    pip has figures of its own (``--progress-bar raw``), but not before 24.1, and CPython 3.11 comes with an older pip.
    Files that grow are seen with any pip.

    Lifetime: a ``with``, which reads the output on a thread until pip has closed it. `now` is for one other thread.
    """

    def __init__(self, output: IO[bytes], directory: Path) -> None:
        self._output = output
        self._directory = directory
        self._current: tuple[str, str, str] | None = None
        """The name of the file, and the size with its unit, as in the last line about a download."""
        self._thread = threading.Thread(target=self._read, name="output of pip", daemon=True)

    def now(self) -> str:
        """The download that runs, in words: ``django-5.2-py3-none-any.whl, 1.5 of 8.3 MB``; empty without one."""
        current = self._current
        if current is None:
            return ""
        name, size, unit = current
        done = self._size_of(name)
        if done is None or not size:
            return name
        return f"{name}, {min(done / _BYTES[unit], float(size)):{'.1f' if '.' in size else '.0f'}} of {size} {unit}"

    def _size_of(self, name: str) -> int | None:
        try:
            found = (directory / name for directory in self._directory.iterdir())
            return max((path.stat().st_size for path in found if path.is_file()), default=None)
        except OSError:  # moved in between
            return None

    def _read(self) -> None:
        for line in self._output:
            begins = _BEGINS.fullmatch(line.decode(errors="replace"))
            if begins is None:
                self._current = None  # pip has gone on
                continue
            place, size, unit = begins.groups("")
            name = urllib.parse.unquote(urllib.parse.urlsplit(place).path.rpartition("/")[2])
            self._current = name, size, unit

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def _resolved(item: Mapping[str, Any]) -> Resolved:
    metadata = item["metadata"]
    name, version = metadata["name"], metadata["version"]
    pin = f"{name} @ {item['download_info']['url']}" if item.get("is_direct") else f"{name}=={version}"
    archive = item.get("download_info", {}).get("archive_info", {})
    return Resolved(
        version, tuple(metadata.get("requires_dist") or ()), pin, archive.get("hashes", {}).get("sha256", "")
    )


def _clean(directory: Path) -> None:
    """Remove scripts, bytecode, and pip's notes about the run."""
    shutil.rmtree(directory / "bin", ignore_errors=True)
    for path in sorted(directory.rglob("__pycache__")):
        shutil.rmtree(path, ignore_errors=True)
    for info in directory.glob("*.dist-info"):
        for name in _NOISE:
            (info / name).unlink(missing_ok=True)
        record = info / "RECORD"
        if record.is_file():
            rows = [row for row in csv.reader(record.read_text("utf-8").splitlines()) if row]
            kept = sorted(row for row in rows if not row[0].startswith("..") and (directory / row[0]).is_file())
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(kept)
            record.write_text(text.getvalue(), "utf-8")

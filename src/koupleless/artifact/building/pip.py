"""pip, run as a child process: resolves requirements, and installs distributions below a directory."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from packaging.utils import canonicalize_name

from koupleless.artifact.temporary import temporary_directory
from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packaging.requirements import Requirement

_PIP_TIMEOUT_S: Final = 900.0
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

    def __init__(self, project: str, python: str) -> None:
        self._project = project
        self._python = python

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
        command = [self._python, "-m", "pip", "install", "--quiet", "--progress-bar", "off", *arguments]
        # A killed pip (interrupted build, time-out) leaves temporary files, which are removed with this directory.
        with temporary_directory("koupleless-pip-") as directory:
            try:
                done = subprocess.run(  # noqa: S603 - the interpreter's own pip, no shell
                    command,
                    env={**environment, "TMPDIR": str(directory)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=_PIP_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise BuildFailed(self._project, f"pip did not finish within {_PIP_TIMEOUT_S:g} s") from None
            except OSError as error:
                raise BuildFailed(self._project, f"cannot run {self._python}: {error.strerror}") from None
        return done.returncode, done.stdout.decode(errors="replace").strip()

    def _check(self, code: int, output: str, reason: str) -> None:
        if code == 0:
            return
        if "No module named pip" in output:
            reason = f"{self._python} has no pip; install pip with: {self._python} -m ensurepip"
        elif output:
            reason += ": " + output.splitlines()[-1].removeprefix("ERROR: ")
        raise BuildFailed(self._project, reason, output=output)


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

"""The images of ``examples/container`` without a container engine: its steps and its process in the view of bubblewrap.

The root is read-only, and only the places that the recipe names can be written; the process is the first of its process
namespace, and runs as the user of the recipe. The network is that of this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parents[2]
CONTAINERFILE: Final = ROOT / "examples" / "container" / "Containerfile"


@dataclass
class Recipe:
    """One stage of a Containerfile."""

    steps: list[str] = field(default_factory=list)
    """The commands of ``RUN``."""
    environment: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    """Every other instruction, by its name; the last one counts."""


def stages(containerfile: Path) -> list[Recipe]:
    """The stages of a Containerfile."""
    lines = [line for line in containerfile.read_text().splitlines() if not line.startswith("#")]
    found: list[Recipe] = []
    for instruction in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = instruction.partition(" ")
        if name == "FROM":
            found.append(Recipe())
        if name == "RUN":
            found[-1].steps.append(rest)
        elif name == "ENV":
            variable, _, value = rest.partition("=")
            found[-1].environment[variable] = value
        elif name:
            found[-1].words[name] = rest
    return found


class Image:
    """What the recipe makes, below one directory of this machine."""

    def __init__(self, bwrap: str, directory: Path, containerfile: Path = CONTAINERFILE) -> None:
        """Carry out the steps of the recipe."""
        self._bwrap = bwrap
        self.directory = directory
        self.build, self.recipe = stages(containerfile)
        self.user, self.group = map(int, self.recipe.words["USER"].split(":"))
        self.volume = self.recipe.words.get("VOLUME")
        """The place to write besides ``/tmp``; an image without one writes nowhere."""
        (directory / "srv").mkdir(parents=True)
        self._environment()
        for step in self.build.steps:
            if not step.startswith(("python -m venv ", "pip install ")):
                self._step(step)

    def _environment(self) -> None:
        """In place of the first two steps: an environment that has what this one has, the package included."""
        base = getattr(sys, "_base_executable", sys.executable)
        command = [
            *self._view(writable={"/srv": self.directory / "srv"}),
            base,
            "-m",
            "venv",
            "--without-pip",
            "/srv/venv",
        ]
        subprocess.run(command, check=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        link = self.directory / "srv" / "venv" / "lib" / version / "site-packages" / "this.pth"
        link.write_text(f"{sysconfig.get_path('purelib')}\n")
        script = self.directory / "srv" / "venv" / "bin" / "arkctl"
        script.write_text(
            "#!/srv/venv/bin/python\nimport sys\nfrom koupleless.cli.commands import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)

    def _step(self, step: str) -> None:
        view = self._view(
            environment={"PATH": "/srv/venv/bin:/usr/bin:/bin"},
            writable={"/srv": self.directory / "srv"},
            readable={"/build": ROOT},
        )
        done = subprocess.run([*view, "sh", "-c", step], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"

    def new_volume(self, name: str) -> Path:
        """A directory for the volume, with the owner that the recipe gives it."""
        path = self.directory / name
        path.mkdir(mode=0o700)
        if os.getuid() == 0:
            os.chown(path, self.user, self.group)
        return path

    def command(
        self,
        volume: Path | None,
        environment: Mapping[str, str],
        readable: Mapping[str, Path],
        *,
        has_scratch: bool = False,
    ) -> list[str]:
        """What comes before a command that is to run in the image, as the user of the image.

        In an image without a volume, ``/tmp`` can be written only with ``has_scratch``.
        """
        path = f"{self.recipe.environment['PATH'].replace('$PATH', '')}/usr/bin:/bin"
        known = {**self.recipe.environment, **environment, "PATH": path, "LANG": "C.UTF-8", "HOME": "/"}
        readable = {"/srv": self.directory / "srv", **readable}
        writable = {} if self.volume is None or volume is None else {self.volume: volume}
        view = self._view(environment=known, writable=writable, readable=readable, is_user=True)
        if not writable and not has_scratch:
            view += ["--remount-ro", "/tmp"]
        return [*view, "--chdir", self.recipe.words["WORKDIR"]]

    def start(
        self,
        volume: Path | None,
        *,
        environment: Mapping[str, str],
        readable: Mapping[str, Path] | None = None,
        has_scratch: bool = False,
        log: Path,
    ) -> Running:
        """Start the command of the image."""
        before = self.command(volume, environment, readable or {}, has_scratch=has_scratch)
        told, tells = os.pipe()
        command = [*before, "--unshare-pid", "--as-pid-1", "--info-fd", str(tells), *self._as_user()]
        command += json.loads(self.recipe.words["CMD"])
        with log.open("ab") as file:
            popen = subprocess.Popen(command, stdout=file, stderr=file, pass_fds=[tells])
        os.close(tells)
        with open(told, "rb") as facts:  # noqa: PTH123 - a descriptor
            return Running(popen, json.load(facts)["child-pid"], log)

    def is_healthy(self, volume: Path | None, environment: Mapping[str, str]) -> bool:
        """Whether the health check of the image says so."""
        check = self.recipe.words["HEALTHCHECK"].partition("CMD ")[2]
        command = [*self.command(volume, environment, {}), *self._as_user(), "sh", "-c", check]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0

    def _as_user(self) -> list[str]:
        if os.getuid() != 0:
            return []
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups", "--no-new-privs"]

    def _view(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        writable: Mapping[str, Path],
        readable: Mapping[str, Path] | None = None,
        is_user: bool = False,
    ) -> list[str]:
        """A root with the programs of this machine, the given places, and nothing to write but these and ``/tmp``."""
        system = [Path("/", name) for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "etc")]
        python = {Path(sys.base_prefix), Path(sysconfig.get_path("purelib"))}
        command: list[str] = [self._bwrap, "--die-with-parent", "--clearenv", "--tmpfs", "/"]
        command += ["--perms", "1777", "--tmpfs", "/tmp"]
        # The directories on the way would be closed to other users.
        targets = {*python, *map(Path, writable), *map(Path, readable or ())}
        for above in sorted({above for path in targets for above in path.parents[:-1]}):
            if not any(above.is_relative_to(path) for path in system):
                command += ["--perms", "0755", "--dir", str(above)]
        for path in (*system, *sorted(python)):
            command += ["--ro-bind-try", str(path), str(path)]
        for inside, path in (readable or {}).items():
            command += ["--ro-bind", str(path), inside]
        for inside, path in writable.items():
            command += ["--bind", str(path), inside]
        command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/"]
        if is_user and os.getuid() != 0:
            command += ["--unshare-user", "--uid", str(self.user), "--gid", str(self.group)]
        for name, value in (environment or {}).items():
            command += ["--setenv", name, value]
        return command


@dataclass(frozen=True)
class Running:
    """A started image."""

    popen: subprocess.Popen[bytes]
    pid: int
    """The number of the first process of the image, on this machine."""
    log: Path

    def status(self) -> dict[str, str]:
        """The facts that the system knows of the process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def writable(self) -> set[str]:
        """The places of the image that the process may write, but for those of the kernel."""
        mounts = [line.split() for line in Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()]
        places = {mount[4] for mount in mounts if "rw" in mount[5].split(",")}
        return {place for place in places if not place.startswith(("/proc", "/dev"))}

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.popen.poll() is None:
            # Not the program around it: a change of user takes away the signal that a death of that would send.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.popen.wait()

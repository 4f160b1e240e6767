"""Make the virtual environment of a biz: an interpreter started by the biz finds the biz's Python modules there.

A child process is no biz, and knows nothing of one. The interpreter in a virtual environment makes the child find the
modules: an environment as the biz would have one alone, with a search path that goes on with the directories of the biz
and of the base. So options and variables that switch others off (``-I``, ``-E``, an ``env`` without ``PYTHONPATH``)
change nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import site
import stat
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from koupleless.isolation.environment import venv_start
from koupleless.isolation.libraries import distributions
from koupleless.isolation.policy import SELF
from koupleless.isolation.system import base_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from koupleless.isolation.policy import Policy

_START: Final = "_koupleless_start"
"""The name of `venv_start` in a virtual environment."""
_LONGEST_FIRST_LINE: Final = 127
"""Characters after which old kernels cut off the line naming the interpreter of a script."""
_ZIPPED_LIBRARY: Final = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
_SCRIPT: Final = """\
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.argv[0] = sys.argv[0].removesuffix(".exe")
    sys.exit({function}())
"""


class VirtualEnvironment:
    """The virtual environment of one biz. Nothing is on the disk until `make` is called.

    Lifetime: `remove` is called when the biz has left. Threads: any.
    """

    def __init__(self, prefix: Path, paths: Sequence[str], policy: Policy, *, is_bare: bool = False) -> None:
        """Describe an environment to be made at ``prefix``; ``paths`` are the biz's directories, the program's first.

        ``is_bare`` says: the directories are merely for the search path, without scripts and without ``.pth`` files.
        """
        self.prefix = prefix
        self.scripts = prefix / "bin"
        """The directory of the environment's interpreter and of the scripts of the biz's libraries."""
        self.executable = self.scripts / "python"
        self._paths = tuple(paths)
        self._policy = policy
        self._is_bare = is_bare
        self._lock = threading.Lock()
        self._is_made = False

    def make(self) -> None:
        """Make the environment, if there is none yet.

        Raises ``OSError``, also where the base's own interpreter is not known.
        """
        with self._lock:
            if not self._is_made and not self.executable.exists():  # a process forked by the biz may have made one
                self._make()
            self._is_made = True

    def remove(self) -> None:
        """Remove the environment from the disk. A running child process goes on, without modules not imported yet."""
        with self._lock:
            self._is_made = False
            shutil.rmtree(self.prefix, ignore_errors=True)

    def _make(self) -> None:
        interpreter = getattr(sys, "_base_executable", None)
        if not interpreter or not os.access(interpreter, os.X_OK):
            raise FileNotFoundError(f"the interpreter of this process is not known ({interpreter!r})")
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{self.prefix.name}-", dir=self.prefix.parent))
        try:
            self._fill(scratch, Path(interpreter))
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                scratch.chmod(0o755)
                scratch.rename(self.prefix)
        except OSError:
            if not self.executable.exists():  # else a process forked by the biz was faster
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _fill(self, place: Path, interpreter: Path) -> None:
        packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(place)}))
        packages.mkdir(parents=True)
        version = ".".join(map(str, sys.version_info[:3]))
        (place / "pyvenv.cfg").write_text(
            f"home = {interpreter.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
        )
        scripts = place / self.scripts.name
        scripts.mkdir()
        for name in ("python", "python3", f"python{sys.version_info[0]}.{sys.version_info[1]}"):
            (scripts / name).symlink_to(interpreter)
        declared = place / "declared"
        if self._policy.declared:
            declared.mkdir()
            self._link_declared(declared)
        self._write_search_path(packages)
        self._write_scripts(scripts)

    # --- the search path -----------------------------------------------------------------------------------------

    def _write_search_path(self, packages: Path) -> None:
        (packages / f"{_START}.py").symlink_to(venv_start.__file__)
        of_base = [os.path.abspath(entry or ".") for entry in base_path()]  # noqa: PTH100 - keeps links
        of_base = [entry for entry in of_base if not _is_standard_library(entry)]
        is_declared = bool(self._policy.declared)
        installed = {*site.getsitepackages(), site.getusersitepackages()}
        program = list(self._paths if self._is_bare else self._paths[:1])
        libraries = [*self._paths[len(program) :]]
        if is_declared:
            libraries.append(str(self.prefix / "declared"))
        else:
            # Read for links to other places, as editable projects have them.
            libraries += [entry for entry in of_base if entry in installed]
            program += [entry for entry in of_base if entry not in installed]
        arguments = f"{program!r}, {libraries!r}, {of_base!r}, keeps_base={not is_declared}"
        (packages / "koupleless.pth").write_text(f"import {_START}; {_START}.extend({arguments})\n")

    def _link_declared(self, place: Path) -> None:
        """Link the files the biz may take from the base: the declared distributions with all their requirements."""
        index = distributions.base_index()
        for name in self._distributions_of_base():
            for part in index.parts(name):
                _link(place / part, Path(index.place(name), part))
        for name in self._policy.declared - index.versions.keys() | {SELF}:
            for found in distributions.files_of_base(name):
                _link(place / found.name, found)

    def _distributions_of_base(self) -> Iterable[str]:
        index = distributions.base_index()
        declared = self._policy.declared
        if not declared:
            return index.versions
        families = (index.relations.family(name) for name in declared - {SELF} if name in index.versions)
        return frozenset().union({SELF} & index.versions.keys(), *families)

    # --- scripts -------------------------------------------------------------------------------------------------

    def _write_scripts(self, place: Path) -> None:
        """Write the console scripts of the libraries, which start the interpreter of this environment."""
        base = distributions.base_index()
        own = distributions.index_of(() if self._is_bare else self._paths)
        for index, names in ((own, own.versions), (base, self._distributions_of_base())):
            for name, reference in index.console_scripts(names):
                if not (place / name).exists():
                    self._write_script(place / name, reference)
        if not self._policy.declared and sys.prefix != sys.base_prefix:
            with contextlib.suppress(OSError), os.scandir(sysconfig.get_path("scripts")) as entries:
                for entry in entries:  # compiled programs of libraries of the base
                    if not (place / entry.name).exists() and not entry.name.startswith(("python", "activate")):
                        (place / entry.name).symlink_to(entry.path)

    def _write_script(self, path: Path, reference: str) -> None:
        module, _, function = reference.partition(":")
        text = _SCRIPT.format(module=module.strip(), first=function.partition(".")[0], function=function)
        first = f"#!{self.executable}\n"
        if len(first) > _LONGEST_FIRST_LINE or " " in first:
            first = f"#!/bin/sh\n'''exec' \"{self.executable}\" \"$0\" \"$@\"\n' '''\n"
        path.write_text(first + text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _is_standard_library(entry: str) -> bool:
    library = os.path.dirname(os.__file__)  # noqa: PTH120 - a text, as in sys.path
    return entry in {library, os.path.join(library, "lib-dynload")} or entry.endswith(_ZIPPED_LIBRARY)  # noqa: PTH118


def _link(place: Path, target: Path) -> None:
    with contextlib.suppress(FileExistsError):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

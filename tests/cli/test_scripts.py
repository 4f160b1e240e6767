"""The scripts of the repository: they parse, and the constraints pin everything that they install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    "scripts/demo",
    "scripts/libraries",
    "scripts/pythons",
    "scripts/test",
    "scripts/check",
    "scripts/coverage",
    "scripts/build",
    ".ci/run",
]


@pytest.mark.parametrize("script", [*SCRIPTS, "scripts/environment.sh"])
def test_every_script_parses_and_the_commands_can_be_run(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    assert os.access(ROOT / script, os.X_OK) == (script in SCRIPTS)


def test_everything_that_is_installed_for_development_has_one_exact_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["build-system"]["requires"]
    wanted += project["dependency-groups"]["dev"] + project["project"]["optional-dependencies"]["demo"]
    text = (ROOT / "constraints.txt").read_text()
    pins = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)
    assert {canonicalize_name(Requirement(text).name) for text in wanted} <= {
        canonicalize_name(pin.name) for pin in pins
    }
    assert "://" not in text
    assert "--" not in text  # no option either, such as one that names an index


def run_environment(commands: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"source scripts/environment.sh; {commands}"],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_interpreter_that_runs_this_is_found() -> None:
    version = "{}.{}".format(*sys.version_info)
    base = Path(sys.base_prefix) / "bin"
    found = run_environment(f"find_python {version}", PATH=f"{base}{os.pathsep}{os.environ['PATH']}")
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).is_file()


def test_a_shim_that_runs_nothing_is_passed_over(tmp_path: Path) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    found = run_environment("find_python 3.12", PATH=path, PYENV_ROOT=str(tmp_path / "none"))
    assert str(shim) not in found.stdout


def test_an_interpreter_that_cannot_be_used_is_refused_in_words() -> None:
    refused = run_environment("set_up dev", PYTHON="/bin/false")
    assert refused.returncode == 2
    assert "PYTHON=/bin/false is no CPython 3.11 to 3.15" in refused.stderr


def test_what_is_installed_is_known_by_the_names_and_the_content_of_its_files(tmp_path: Path) -> None:
    def digest() -> str:
        done = run_environment('digest_of "$TREE" README.md', PY=sys.executable, TREE=str(tmp_path))
        assert done.returncode == 0, done.stderr
        return done.stdout

    seen = [digest()]
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "one.py").write_text("1\n")
    seen.append(digest())
    (tmp_path / "part" / "one.py").write_text("2\n")
    seen.append(digest())
    (tmp_path / "part" / "one.py").rename(tmp_path / "part" / "two.py")
    seen.append(digest())
    assert len(set(seen)) == 4
    (tmp_path / "part" / "two.pyc").write_text("what running it leaves")
    assert digest() == seen[-1]


@pytest.mark.parametrize("value", ["/somewhere/python", "python3", "python3.99"])
def test_an_interpreter_that_is_given_otherwise_is_taken_as_it_is(value: str) -> None:
    assert run_environment(f"interpreter_of {value}").stdout == f"{value}\n"


def test_an_interpreter_that_cannot_be_had_is_named_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    """As on a machine that does not reach Debian, or is another system."""
    programs, pythons = tmp_path / "programs", tmp_path / "pythons"
    programs.mkdir()
    (programs / "apt-get").write_text(
        '#!/bin/sh\n[ "$1" = indextargets ] && echo file:/nowhere/debian/ && exit\nexit 100\n'
    )
    (programs / "apt-get").chmod(0o755)
    (programs / "python3.14").write_text("#!/bin/sh\nexit 1\n")
    (programs / "python3.14").chmod(0o755)
    pythons.mkdir()
    (pythons / ".making").mkdir()  # by a run that was interrupted
    environ = {
        **os.environ,
        "PATH": f"{programs}:/usr/bin:/bin",
        "KOUPLELESS_PYTHONS": str(pythons),
        "PYENV_ROOT": str(tmp_path),
    }
    made = subprocess.run([ROOT / "scripts/pythons", "3.14"], env=environ, capture_output=True, text=True, check=False)
    assert made.returncode == 1, made.stderr
    assert made.stderr.splitlines()[-1] == "CPython 3.14: could not be had, see above"
    assert [path.name for path in pythons.iterdir()] == [".lock"]

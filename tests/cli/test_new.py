"""Projects that ``arkctl new`` makes run at once."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Outcome

    Arkctl = Callable[..., Outcome]


def run_its_test(project: Path, test: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "unittest", test],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


@pytest.mark.parametrize("name", ["hello", "hello-world", "9lives", "Über.app"])
def test_a_new_module_is_a_project_whose_test_passes_and_that_builds(
    arkctl: Arkctl, quiet_surroundings: Path, name: str
) -> None:
    made = arkctl("new", "module", "it", "--name", name)
    if not name.isascii():
        assert made.status == 2
        assert not (quiet_surroundings / "it").exists()
        return
    assert made.status == 0, made.err
    assert made.out == "it\n"
    project = quiet_surroundings / "it"
    run_its_test(project, "tests/test_app.py")
    assert {path.name for path in project.iterdir()} >= {"README.md", "pyproject.toml", "tests"}
    built = arkctl("build", "it")
    assert built.status == 0, built.err
    assert built.out.strip() == str(project / "dist" / f"{name}-1.0.0-ark-biz.zip")


def test_a_new_base_is_a_project_whose_test_passes(arkctl: Arkctl, quiet_surroundings: Path) -> None:
    made = arkctl("new", "base", "my-shop")
    assert made.status == 0, made.err
    assert "arkctl serve my_shop.main:app" in made.err
    run_its_test(quiet_surroundings / "my-shop", "tests/test_main.py")


def test_the_directory_gives_the_name(arkctl: Arkctl, quiet_surroundings: Path) -> None:
    assert arkctl("new", "module", "deep/in/hello-you").status == 0
    project = quiet_surroundings / "deep" / "in" / "hello-you"
    assert 'name = "hello-you"' in (project / "pyproject.toml").read_text()
    assert (project / "hello_you" / "app.py").is_file()


def test_what_is_there_already_is_not_touched(arkctl: Arkctl, quiet_surroundings: Path) -> None:
    (quiet_surroundings / "mine").mkdir()
    (quiet_surroundings / "mine" / "notes").write_text("keep")
    refused = arkctl("new", "module", "mine")
    assert refused.status == 2
    assert "not an empty directory" in refused.err
    assert [path.name for path in (quiet_surroundings / "mine").iterdir()] == ["notes"]


@pytest.mark.parametrize("name", ["tests", "koupleless", "starlette", "a/b", "-", "json", "JSON", "class"])
def test_a_name_that_cannot_work_is_refused_before_anything_is_written(
    arkctl: Arkctl, quiet_surroundings: Path, name: str
) -> None:
    assert arkctl("new", "module", "it", "--name", name).status == 2
    assert not (quiet_surroundings / "it").exists()


def test_a_directory_that_cannot_be_written_is_an_error_in_words(arkctl: Arkctl, quiet_surroundings: Path) -> None:
    (quiet_surroundings / "file").write_text("")
    refused = arkctl("new", "base", "file/inside")
    assert refused.status == 2
    assert "cannot be written" in refused.err


@pytest.mark.parametrize(("name", "meaning"), [("json", "the standard library"), ("class", "the Python language")])
def test_a_name_that_python_needs_is_refused_with_one_that_works(
    arkctl: Arkctl, quiet_surroundings: Path, name: str, meaning: str
) -> None:
    refused = arkctl("new", "module", name)
    assert refused.status == 2
    assert meaning in refused.err
    assert not (quiet_surroundings / name).exists()
    assert f"--name {name}-module" in refused.err
    assert arkctl("new", "module", name, "--name", f"{name}-module").status == 0
    run_its_test(quiet_surroundings / name, "tests/test_app.py")

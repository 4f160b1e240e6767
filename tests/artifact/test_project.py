"""What a ``pyproject.toml`` says of a module, and which files belong to it."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from koupleless.artifact.build import Options
from koupleless.artifact.building.project import read_project
from koupleless.artifact.building.project_files import find_files
from koupleless.biz import Isolation
from koupleless.errors import ArtifactError, BuildFailed, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LEAST = """
[project]
name = "hello"
version = "1.0.0"
dependencies = ["fastapi"]

[tool.koupleless.module]
entry = "hello.app:app"
"""


def write(root: Path, text: str, files: Iterable[str] = ("hello/__init__.py", "hello/app.py")) -> Path:
    (root / "pyproject.toml").write_text(textwrap.dedent(text))
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


def issues(root: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ManifestInvalid) as caught:
        read_project(write(root, text))
    return caught.value.issues


class TestTable:
    def test_everything_but_the_entry_has_a_default(self, tmp_path: Path) -> None:
        project = read_project(write(tmp_path, LEAST))
        assert (str(project.id), project.entry, project.web_context_path) == ("hello:1.0.0", "hello.app:app", "/hello")
        assert (project.priority, project.isolation, project.requirements) == (100, Isolation.NAMESPACE, ("fastapi",))
        assert project.distribution == ("hello", "1.0.0")

    def test_each_key_of_the_module_wins_over_the_project(self, tmp_path: Path) -> None:
        text = LEAST + textwrap.dedent("""
            name = "other"
            version = "main"
            web-context-path = "/"
            strip-path = true
            scope-cookies = true
            priority = 3
            isolation = "process"
            declared-libraries = ["Flask"]
            own = ["Dash", "loguru"]
            shared = ["redis"]
            bring = ["Stripe"]
            deny-imports = ["numpy.*"]
            requirements = ["flask>=3"]
        """)
        project = read_project(write(tmp_path, text))
        assert (str(project.id), project.web_context_path, project.priority) == ("other:main", "/", 3)
        assert (project.strips_path, project.scopes_cookies) == (True, True)
        assert (project.isolation, project.requirements) == (Isolation.PROCESS, ("flask>=3",))
        assert (project.declared_libraries, project.is_declared_mode) == (("flask",), True)
        assert (project.own, project.shared, project.bring) == (("dash", "loguru"), ("redis",), ("stripe",))
        assert project.deny_imports == ("numpy.*",)

    def test_the_caller_wins_over_both(self, tmp_path: Path) -> None:
        options = Options(name="mine", version="9", entry="hello:main", web_context_path="/x")
        project = read_project(write(tmp_path, LEAST), options)
        assert (str(project.id), project.entry, project.web_context_path) == ("mine:9", "hello:main", "/x")

    def test_an_ordinary_project_becomes_a_module_when_the_entry_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, LEAST.partition("[tool")[0])
        assert read_project(tmp_path, Options(entry="hello.app:app")).entry == "hello.app:app"
        with pytest.raises(ManifestInvalid, match=r"entry is missing.*--entry"):
            read_project(tmp_path)

    def test_three_mistakes_are_reported_together(self, tmp_path: Path) -> None:
        found = issues(tmp_path, LEAST + 'priority = "x"\nisolation = "y"\nweb-context-pth = "/z"\n')
        assert len(found) == 3
        assert any("did you mean web-context-path?" in issue for issue in found)

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('include = ["../x"]', "climbs"),
            ('exclude = ["/x"]', "absolute"),
            ('requirements = ["="]', "no requirement"),
            ("declared-mode = 3", "not true or false"),
        ],
    )
    def test_each_wrong_value_is_said(self, tmp_path: Path, line: str, words: str) -> None:
        assert words in " ".join(issues(tmp_path, LEAST + line))

    def test_a_table_that_is_none_is_said(self, tmp_path: Path) -> None:
        assert "[tool.koupleless.module] is no table" in issues(tmp_path, "[tool.koupleless]\nmodule = 3\n")

    def test_another_python_is_said(self, tmp_path: Path) -> None:
        text = LEAST.replace('version = "1.0.0"', f'version = "1"\nrequires-python = ">3.{sys.version_info.minor + 1}"')
        assert "requires Python" in issues(tmp_path, text)[0]
        assert "no version specifier" in issues(tmp_path, text.replace(">3", "~3"))[0]

    def test_no_project_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match=r"there is no pyproject\.toml"):
            read_project(tmp_path)
        assert "no TOML" in issues(tmp_path, "[[[")[0]

    def test_entry_points_are_kept_for_run_time(self, tmp_path: Path) -> None:
        text = LEAST + '[project.scripts]\nrun = "hello:main"\n[project.entry-points."a.b"]\nx = "hello:x"\n'
        project = read_project(write(tmp_path, text))
        assert project.entry_points == {"console_scripts": {"run": "hello:main"}, "a.b": {"x": "hello:x"}}


class TestDynamicVersion:
    TEXT = LEAST.replace('version = "1.0.0"', 'dynamic = ["version"]')

    @pytest.mark.parametrize(
        ("more", "file"),
        [
            ("", "hello/__init__.py"),
            ("", "src/hello/__init__.py"),
            ("", "hello/_version.py"),
            ('[tool.hatch.version]\npath = "about.py"\n', "about.py"),
            ('[tool.setuptools.dynamic]\nversion = {attr = "facts.__version__"}\n', "facts.py"),
        ],
    )
    def test_it_is_read_from_the_file_that_holds_it(self, tmp_path: Path, more: str, file: str) -> None:
        write(tmp_path, self.TEXT + more, [file])
        (tmp_path / file).write_text('"""Doc."""\n__version__: str = "2.5"\n')
        assert str(read_project(tmp_path).id) == "hello:2.5"

    def test_one_that_only_a_backend_knows_has_to_be_set(self, tmp_path: Path) -> None:
        found = issues(tmp_path, self.TEXT)
        assert len(found) == 1
        assert "set version in [tool.koupleless.module]" in found[0]


class TestFiles:
    def found(self, root: Path, files: Iterable[str], more: str = "") -> set[str]:
        return set(find_files(read_project(write(root, LEAST + more, files))))

    def test_a_src_layout_gives_every_package_with_its_data(self, tmp_path: Path) -> None:
        files = ["src/hello/app.py", "src/hello/page.html", "src/other/deep/x.py", "src/single.py", "tests/test_x.py"]
        assert self.found(tmp_path, files) == {"hello/app.py", "hello/page.html", "other/deep/x.py", "single.py"}

    def test_a_flat_layout_gives_packages_and_modules_but_not_what_is_about_the_project(self, tmp_path: Path) -> None:
        files = ["hello/app.py", "models.py", "more/__init__.py", "data/x.csv"]
        aside = ["tests/__init__.py", "docs/__init__.py", "setup.py", "conftest.py", "test_x.py", "scripts/run.py"]
        aside += [".venv/lib/x.py", "build/hello/app.py", "dist/old.py", "hello.egg-info/PKG-INFO", "README.md"]
        assert self.found(tmp_path, [*files, *aside]) == {"hello/app.py", "models.py", "more/__init__.py"}

    @pytest.mark.parametrize("source", ["", "src/"])
    def test_a_namespace_package_whose_python_lies_deeper_is_found_in_both_layouts(
        self, tmp_path: Path, source: str
    ) -> None:
        places = {"hello/app.py", "near/x.py", "spread/deep/deeper/x.py", "spread/deep/deeper/x.txt"}
        assert self.found(tmp_path, [f"{source}{place}" for place in places]) == places

    def test_a_source_directory_of_nothing_but_a_deep_namespace_package_is_found(self, tmp_path: Path) -> None:
        text = LEAST.replace("hello.app:app", "spread.deep.deeper.x:app")
        write(tmp_path, text, ["src/spread/deep/deeper/x.py"])
        assert set(find_files(read_project(tmp_path))) == {"spread/deep/deeper/x.py"}

    def test_an_environment_is_no_namespace_package_whatever_it_is_called(self, tmp_path: Path) -> None:
        files = ["hello/app.py", "mine/pyvenv.cfg", "mine/bin/activate_this.py", "mine/lib/x.py"]
        assert self.found(tmp_path, files) == {"hello/app.py"}

    def test_directories_that_no_import_can_name_are_no_packages(self, tmp_path: Path) -> None:
        assert self.found(tmp_path, ["hello/app.py", "fixtures/set-one/make.py", "my-data/make.py"]) == {"hello/app.py"}

    def test_a_module_of_one_file_is_found(self, tmp_path: Path) -> None:
        write(tmp_path, LEAST.replace("hello.app:app", "example:app"), ["example.py"])
        assert set(find_files(read_project(tmp_path))) == {"example.py"}

    def test_the_package_of_the_entry_counts_whatever_it_is_called(self, tmp_path: Path) -> None:
        write(tmp_path, LEAST.replace("hello.app:app", "tests.app:app"), ["tests/app.py"])
        assert set(find_files(read_project(tmp_path))) == {"tests/app.py"}

    def test_bytecode_and_caches_stay_behind(self, tmp_path: Path) -> None:
        files = ["hello/app.py", "hello/__pycache__/app.cpython-311.pyc", "hello/.DS_Store", "hello/.mypy_cache/x"]
        assert self.found(tmp_path, files) == {"hello/app.py"}

    def test_the_config_directory_travels(self, tmp_path: Path) -> None:
        files = ["src/hello/app.py", "config/hello/application.toml"]
        assert self.found(tmp_path, files) == {"hello/app.py", "config/hello/application.toml"}

    def test_include_adds_and_exclude_removes(self, tmp_path: Path) -> None:
        files = ["hello/app.py", "hello/big.bin", "static/a/b.css", "pages/x.html", "pages/x.txt", "hello/old/x.py"]
        more = 'include = ["static", "pages/*.html"]\nexclude = ["*.bin", "hello/old"]\n'
        assert self.found(tmp_path, files, more) == {"hello/app.py", "static/a/b.css", "pages/x.html"}

    def test_an_include_that_matches_nothing_is_a_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(BuildFailed, match="include 'statc' matches no file"):
            self.found(tmp_path, ["hello/app.py"], 'include = ["statc"]\n')

    def test_an_entry_that_is_not_there_is_a_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(BuildFailed, match=r"hello\.app:app names hello, which is neither"):
            self.found(tmp_path, ["other/app.py"])

    def test_links_are_followed_once(self, tmp_path: Path) -> None:
        write(tmp_path, LEAST, ["hello/app.py", "shared/data.txt"])
        (tmp_path / "hello" / "shared").symlink_to(tmp_path / "shared")
        (tmp_path / "hello" / "loop").symlink_to(tmp_path / "hello")
        assert set(find_files(read_project(tmp_path))) == {"hello/app.py", "hello/shared/data.txt"}

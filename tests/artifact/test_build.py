"""A project or a file to an artefact: everything in it, the same bytes again, and readable by the store."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from koupleless.artifact.build import Options, build, build_file, build_project, build_requirement
from koupleless.artifact.building.pip import Pip, Resolved
from koupleless.artifact.building.requirements import BaseFacts
from koupleless.artifact.building.slim import Report
from koupleless.artifact.keeping.bytecode import bytecode_path
from koupleless.artifact.manifest import MARK
from koupleless.artifact.source import read_manifest
from koupleless.artifact.sources.zipped import FileSource
from koupleless.artifact.store import Store
from koupleless.errors import ArtifactError, BuildFailed, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

FASTAPI = BaseFacts({"fastapi": "0.115.0"})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "src" / "hello").mkdir(parents=True)
    (root / "src" / "hello" / "app.py").write_text("def app(scope, receive, send):\n    pass\n")
    (root / "src" / "hello" / "page.html").write_text("<p>")
    (root / "pyproject.toml").write_text(
        textwrap.dedent("""
            [project]
            name = "Hello.World"
            version = "1.0.0"
            dependencies = ["fastapi>=0.100"]
            [project.scripts]
            hello = "hello.app:main"
            [tool.koupleless.module]
            entry = "hello.app:app"
            priority = 5
        """)
    )
    return root


def script(directory: Path, text: str, name: str = "hello.py") -> Path:
    path = directory / name
    path.write_text(textwrap.dedent(text))
    return path


class TestProject:
    def test_the_artefact_holds_code_data_and_both_manifests(self, project: Path) -> None:
        built = build_project(project, Options(base=FASTAPI))
        assert built.path == project / "dist" / "Hello.World-1.0.0-ark-biz.zip"
        assert built.size == built.path.stat().st_size
        with zipfile.ZipFile(built.path) as archive:
            names = archive.namelist()
            assert names[:2] == ["META-INF/MANIFEST.MF", "biz.toml"]
            assert {"hello/app.py", "hello/page.html", MARK, bytecode_path("hello/app.py")} < set(names)
            assert names[2:] == sorted(names[2:])
            manifest_mf = archive.read("META-INF/MANIFEST.MF").decode()
        assert "Ark-Biz-Name: Hello.World\r\nArk-Biz-Version: 1.0.0\r\n" in manifest_mf
        manifest = read_manifest(FileSource(built.path))
        assert manifest == built.manifest
        assert (manifest.entry, manifest.priority, manifest.web_context_path) == ("hello.app:app", 5, "/Hello.World")
        assert (manifest.requirements, manifest.provided) == (("fastapi>=0.100",), ("fastapi>=0.100",))
        assert set(manifest.files) == set(names[2:])

    def test_the_store_takes_it_and_compiles_nothing(
        self, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built = build_project(project, Options(base=FASTAPI))
        if sys.flags.optimize == 0:
            monkeypatch.setattr("koupleless.artifact.keeping.bytecode.compile_source", None)
        with Store(tmp_path / "store") as store:
            unpacked = store.unpack(FileSource(built.path))
            assert unpacked.class_path == (unpacked.path,)
            assert (unpacked.path / "hello" / "page.html").read_text() == "<p>"

    def test_the_module_finds_its_own_metadata(self, project: Path, tmp_path: Path) -> None:
        built = build_project(project, Options(base=FASTAPI))
        with Store(tmp_path / "store") as store:
            path = store.unpack(FileSource(built.path)).path
            (found,) = importlib.metadata.distributions(path=[str(path)])
            assert (found.metadata["Name"], found.version) == ("Hello.World", "1.0.0")
            assert [point.name for point in found.entry_points] == ["hello"]
            assert found.files is not None
            assert "hello/app.py" in {str(file) for file in found.files}

    def test_the_same_project_gives_the_same_bytes_wherever_it_lies(self, project: Path, tmp_path: Path) -> None:
        first = build_project(project, Options(base=FASTAPI, out=tmp_path / "one")).path.read_bytes()
        shutil.copytree(project, tmp_path / "copy")
        for path in (tmp_path / "copy").rglob("*"):
            os.utime(path, (1, 1))
        second = build_project(tmp_path / "copy", Options(base=FASTAPI, out=tmp_path / "two")).path.read_bytes()
        assert first == second

    def test_bytecode_is_the_same_in_every_process(self, tmp_path: Path) -> None:
        """Real code, compiled in processes that differ in their hash seed and in what they imported before."""
        target = tmp_path / "real"
        target.mkdir()
        library = Path(os.__file__).parent
        for name in ("argparse.py", "dataclasses.py", "typing.py", "zipfile.py", "ast.py"):
            if (library / name).exists():
                shutil.copy(library / name, target / f"copy_{name}")
        (target / "pyproject.toml").write_text(
            '[project]\nname="real"\nversion="1"\n[tool.koupleless.module]\nentry="copy_ast:main"\n'
        )
        program = "import sys; from pathlib import Path; from koupleless.artifact.build import *;"
        program += "print(build_project(Path(sys.argv[1]), Options(out=Path(sys.argv[2]))).path)"
        contents = []
        for seed, before in (("1", ""), ("2", "import argparse, dataclasses, sqlite3, unittest;")):
            done = subprocess.run(
                [sys.executable, "-c", before + program, target, tmp_path / f"out{seed}"],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            )
            contents.append(Path(done.stdout.strip()).read_bytes())
        assert contents[0] == contents[1]

    def test_bytecode_can_be_left_to_the_store(self, project: Path) -> None:
        built = build_project(project, Options(base=FASTAPI, compile=False))
        assert not any(name.endswith(".pyc") for name in built.manifest.files)

    def test_warnings_about_other_peoples_code_do_not_stop_it(self, project: Path) -> None:
        (project / "src" / "hello" / "old.py").write_text("x = '\\d'\n")
        assert bytecode_path("hello/old.py") in build_project(project, Options(base=FASTAPI)).manifest.files

    def test_the_caller_may_change_name_version_entry_and_path(self, project: Path) -> None:
        options = Options(base=FASTAPI, name="blue", version="2", entry="hello.app:other", web_context_path="/b")
        manifest = build_project(project, options).manifest
        assert (str(manifest.id), manifest.entry, manifest.web_context_path) == ("blue:2", "hello.app:other", "/b")

    def test_declared_mode_lists_everything_the_module_needs(self, project: Path) -> None:
        text = (project / "pyproject.toml").read_text() + 'declared-mode = true\ndeclared-libraries = ["Extra"]\n'
        (project / "pyproject.toml").write_text(text)
        base = BaseFacts({"fastapi": "0.115", "pydantic": "2.9"}, {"fastapi": ["pydantic>=2"]})
        assert build_project(project, Options(base=base)).manifest.declared_libraries == (
            "extra",
            "fastapi",
            "pydantic",
        )

    def test_a_failed_build_leaves_no_artefact(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("koupleless.artifact.build.write_archive", full)
        with pytest.raises(BuildFailed, match="No space left"):
            build_project(project, Options(base=FASTAPI))
        assert not (project / "dist").exists()

    def test_an_extra_requirement_that_is_none_is_said(self, project: Path) -> None:
        with pytest.raises(ManifestInvalid, match="no requirement"):
            build_project(project, Options(base=FASTAPI, requirements=("=",)))


class TestFile:
    @pytest.mark.parametrize(
        ("text", "entry"),
        [
            ("app = 1", "hello:app"),
            ("application = 1", "hello:application"),
            ("async def app(scope, receive, send): ...", "hello:app"),
            ("from somewhere import app", "hello:app"),
            ("try:\n    app = 1\nexcept Exception:\n    app = 2", "hello:app"),
            ("def create_app(): ...", "hello:create_app()"),
            ("def main(): ...", "hello:main"),
            ("def main():\n    app = 1", "hello:main"),
            ("x = 1", "hello"),
        ],
    )
    def test_the_entry_is_what_can_be_seen_in_it(self, tmp_path: Path, text: str, entry: str) -> None:
        built = build(script(tmp_path, text))
        assert (str(built.manifest.id), built.manifest.entry) == ("hello:1.0.0", entry)
        assert built.path == tmp_path / "dist" / "hello-1.0.0-ark-biz.zip"
        assert "hello.py" in built.manifest.files

    def test_its_version_is_the_one_it_states(self, tmp_path: Path) -> None:
        path = script(tmp_path, "__version__ = '2.1'\napp = 1")
        assert str(build_file(path).manifest.id) == "hello:2.1"
        assert str(build_file(path, Options(version="3", name="x")).manifest.id) == "x:3"

    def test_a_script_block_holds_needs_and_settings(self, tmp_path: Path) -> None:
        text = """
            # /// script
            # dependencies = ["fastapi"]
            #
            # [tool.koupleless.module]
            # web-context-path = "/greet"
            # entry = "hello:other"
            # ///
            other = app = 1
        """
        manifest = build_file(script(tmp_path, text), Options(base=FASTAPI)).manifest
        assert manifest.requirements == ("fastapi",)
        assert (manifest.web_context_path, manifest.entry) == ("/greet", "hello:other")

    def test_a_name_that_is_no_module_name_is_mended(self, tmp_path: Path) -> None:
        manifest = build_file(script(tmp_path, "app = 1", "my-app.py")).manifest
        assert (manifest.id.name, manifest.entry) == ("my-app", "my_app:app")
        assert "my_app.py" in manifest.files

    @pytest.mark.parametrize("name", ["json.py", "koupleless.py", "1x.py"])
    def test_a_name_that_cannot_be_imported_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(BuildFailed, match="rename the file"):
            build_file(script(tmp_path, "", name))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("def (", "is no Python"),
            ("# /// script\n# [[[\n# ///\n", "block is no TOML"),
            ("# /// script\n# x = 1\n# ///\ny = 1\n# /// script\n# x = 1\n# ///\n", "more than one"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_said(self, tmp_path: Path, text: str, words: str) -> None:
        with pytest.raises(BuildFailed, match=words):
            build_file(script(tmp_path, text))

    def test_a_block_with_wrong_settings_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestInvalid, match="is no table"):
            build_file(script(tmp_path, "# /// script\n# [tool]\n# koupleless = {module = 3}\n# ///\n"))

    def test_a_file_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(BuildFailed, match="No such file"):
            build_file(tmp_path / "none.py")
        with pytest.raises(ArtifactError, match="is no project"):
            build(tmp_path / "none.py")


class TestPrivateDependencies:
    """With a stand-in for what pip would have put there; pip itself is in the tests marked ``network``."""

    @pytest.fixture
    def fill(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dict[str, bytes]], None]:
        def use(files: dict[str, bytes]) -> None:
            def install(_pip: Pip, _pins: object, into: Path) -> None:
                for name, data in files.items():
                    (into / name).parent.mkdir(parents=True, exist_ok=True)
                    (into / name).write_bytes(data)

            report = Report(resolved=(Resolved("1", (), "some==1"),))
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
            monkeypatch.setattr("koupleless.artifact.build.choose", lambda *_, **__: report)
            monkeypatch.setattr(Pip, "install", install)

        return use

    def test_they_go_below_lib(self, project: Path, fill: Callable[[dict[str, bytes]], None]) -> None:
        fill({"six.py": b"x = 1\n"})
        manifest = build_project(project).manifest
        assert {"lib/six.py", bytecode_path("lib/six.py")} < set(manifest.files)
        assert manifest.python_tag == "py3"

    @pytest.mark.parametrize(
        ("name", "tag"),
        [
            ("fast.cpython-311-x86_64-linux-gnu.so", f"cp3{sys.version_info.minor}"),
            ("fast.abi3.so", "py3"),
            ("numpy.libs/libx.so", "py3"),
        ],
    )
    def test_compiled_extensions_bind_it_to_this_python(
        self, project: Path, fill: Callable[[dict[str, bytes]], None], name: str, tag: str
    ) -> None:
        fill({name: b"\x7fELF"})
        assert build_project(project).manifest.python_tag == tag

    def test_a_package_lib_of_its_own_collides(self, project: Path, fill: Callable[[dict[str, bytes]], None]) -> None:
        fill({"six.py": b""})
        (project / "src" / "lib").mkdir()
        (project / "src" / "lib" / "x.py").write_text("")
        with pytest.raises(BuildFailed, match="rename the package"):
            build_project(project)


def test_a_requirement_that_is_none_is_said() -> None:
    with pytest.raises(BuildFailed, match="this is no requirement"):
        build_requirement("a b", entry="a:b")

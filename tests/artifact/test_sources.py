"""One suite over every kind of source, then what is particular to each."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from tests.artifact.memory import MemorySource

from koupleless.artifact.archive import DEFAULT_LIMITS, Limits
from koupleless.artifact.keeping.unpack import copy_files
from koupleless.artifact.manifest import BIZ_TOML, MANIFEST_MF, MARK
from koupleless.artifact.source import read_manifest, source_for
from koupleless.artifact.sources.directory import DirectorySource
from koupleless.artifact.sources.zipped import FileSource
from koupleless.errors import ArchiveRefused, ArtifactError, DigestMismatch, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.artifact.conftest import MakeFiles, MakeZip

    from koupleless.artifact.sources.content import BizSource


class MakeSource(Protocol):
    def __call__(self, files: Mapping[str, bytes], limits: Limits = ...) -> BizSource: ...


WHEEL_NAME = "hello-1.0.0-py3-none-any.whl"
INFO = "hello-1.0.0.dist-info"


def wheel_files(files: Mapping[str, bytes], **replaced: bytes) -> dict[str, bytes]:
    """``files`` with the metadata of a wheel around them."""
    all_files = {
        **files,
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: hello\nVersion: 1.0.0\nRequires-Dist: starlette>=0.40\n",
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{INFO}/entry_points.txt": b"[koupleless.module]\nhello = hello.app:app\n",
        **{f"{INFO}/{name}": data for name, data in replaced.items()},
    }
    rows = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for name, data in all_files.items()
    ]
    return {**all_files, f"{INFO}/RECORD": "\n".join([*rows, f"{INFO}/RECORD,,", ""]).encode()}


@pytest.fixture(params=["zip", "jar", "directory", "wheel", "memory"])
def make_source(request: pytest.FixtureRequest, tmp_path: Path, make_zip: MakeZip) -> MakeSource:
    counter = iter(range(100))

    def make(files: Mapping[str, bytes], limits: Limits = DEFAULT_LIMITS) -> BizSource:
        match request.param:
            case "zip" | "jar" as ending:
                return source_for(make_zip(files, f"hello{next(counter)}.{ending}"), limits=limits)
            case "directory":
                root = tmp_path / f"directory{next(counter)}"
                for name, data in files.items():
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    (root / name).write_bytes(data)
                return source_for(root, limits=limits)
            case "wheel":
                folder = f"wheel{next(counter)}"
                (tmp_path / folder).mkdir()
                return source_for(make_zip(wheel_files(files), f"{folder}/{WHEEL_NAME}"), limits=limits)
            case _:
                return MemorySource(files, limits=limits)

    return make


def copied(source: BizSource, directory: Path) -> dict[str, bytes]:
    directory.mkdir()
    with source.open() as content:
        written = copy_files(content, directory, source.origin)
    return {name: (directory / name).read_bytes() for name in written}


def without_list(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same module with a ``biz.toml`` that lists no digests, as somebody would write it by hand."""
    return {**files, BIZ_TOML: files[BIZ_TOML].partition(b"[files]")[0]}


class TestEverySource:
    def test_reads_the_manifest(self, make_source: MakeSource, make_files: MakeFiles) -> None:
        manifest = read_manifest(make_source(without_list(make_files())))
        assert (str(manifest.id), manifest.entry, manifest.web_context_path) == (
            "hello:1.0.0",
            "hello.app:app",
            "/hello",
        )

    def test_copies_every_file_but_manifest_and_mark(
        self, make_source: MakeSource, make_files: MakeFiles, tmp_path: Path
    ) -> None:
        files = without_list(make_files())
        found = copied(make_source(files), tmp_path / "out")
        wanted = {name: data for name, data in files.items() if name not in {BIZ_TOML, MARK}}
        assert {name: data for name, data in found.items() if INFO not in name} == wanted

    def test_has_a_digest_that_follows_the_content(self, make_source: MakeSource, make_files: MakeFiles) -> None:
        one, same, other = make_source(make_files()), make_source(make_files()), make_source(make_files({"more": b"x"}))
        assert len(one.digest()) == 64
        assert one.digest() == one.digest() == same.digest() != other.digest()

    def test_refuses_a_file_that_is_not_what_was_promised(
        self, make_source: MakeSource, make_files: MakeFiles, tmp_path: Path
    ) -> None:
        files = {**make_files(), "hello/app.py": b"import os\n"}
        with pytest.raises((DigestMismatch, ArchiveRefused)) as caught:
            copied(make_source(files), tmp_path / "out")
        assert "hello/app.py" in str(caught.value) or INFO in str(caught.value)

    def test_refuses_a_file_that_nobody_promised(
        self, make_source: MakeSource, make_files: MakeFiles, tmp_path: Path
    ) -> None:
        with pytest.raises(ArchiveRefused, match="does not list"):
            copied(make_source({**make_files(), "hello/extra.py": b""}), tmp_path / "out")

    def test_refuses_when_a_promised_file_is_missing(
        self, make_source: MakeSource, make_files: MakeFiles, tmp_path: Path
    ) -> None:
        files = make_files()
        del files["hello/data.txt"]
        with pytest.raises(ArchiveRefused, match=r"lacks|does not list"):
            copied(make_source(files), tmp_path / "out")

    def test_refuses_a_copy_of_the_runtime(
        self, make_source: MakeSource, make_files: MakeFiles, tmp_path: Path
    ) -> None:
        files = without_list({**make_files(), "lib/koupleless/__init__.py": b""})
        with pytest.raises(ArchiveRefused, match="the artefact has a copy of koupleless"):
            copied(make_source(files), tmp_path / "out")

    def test_keeps_to_the_limit_of_bytes(self, make_source: MakeSource, make_files: MakeFiles, tmp_path: Path) -> None:
        files = without_list(make_files({"big": b"x" * 5000}))
        with pytest.raises(ArchiveRefused, match="more than 4000 bytes"):
            copied(make_source(files, Limits(max_bytes=4000)), tmp_path / "out")

    def test_says_when_the_two_manifests_disagree(self, make_source: MakeSource, make_files: MakeFiles) -> None:
        files = without_list({**make_files(), MANIFEST_MF: b"Ark-Biz-Name: other\r\nArk-Biz-Version: 1.0.0\r\n"})
        with pytest.raises(ManifestInvalid, match=r"Ark-Biz-Name: other, but biz\.toml says hello"):
            read_manifest(make_source(files))

    def test_reports_every_mistake_of_the_manifest(self, make_source: MakeSource) -> None:
        with pytest.raises(ManifestInvalid) as caught:
            read_manifest(make_source({BIZ_TOML: b'version = "1 0"\nentry = "a b"\n'}))
        assert len(caught.value.issues) == 3

    def test_refuses_a_manifest_that_is_no_text(self, make_source: MakeSource) -> None:
        with pytest.raises(ArchiveRefused, match="no UTF-8"):
            read_manifest(make_source({BIZ_TOML: b"\xff\xfe"}))

    def test_holds_nothing_open(self, make_source: MakeSource, make_files: MakeFiles, tmp_path: Path) -> None:
        before = len(list(Path("/proc/self/fd").iterdir()))
        source = make_source(without_list(make_files()))
        copied(source, tmp_path / "out")
        source.digest()
        assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestZip:
    def test_the_manifest_of_the_original_alone_is_enough(self, make_zip: MakeZip) -> None:
        text = b"Ark-Biz-Name: old\r\nArk-Biz-Version: 2\r\nStart-Class: pkg.mod:app\r\nbuild-user: me\r\n"
        manifest = read_manifest(FileSource(make_zip({MANIFEST_MF: text, "pkg/mod.py": b""})))
        assert (str(manifest.id), manifest.attributes) == ("old:2", {"build-user": "me"})

    def test_no_manifest_at_all_says_what_the_original_says(self, make_zip: MakeZip) -> None:
        with pytest.raises(ManifestInvalid) as caught:
            read_manifest(FileSource(make_zip({"a.py": b""})))
        assert "Biz Name must not be empty!" in caught.value.issues

    def test_a_java_module_is_told_apart(self, make_zip: MakeZip) -> None:
        text = b"Ark-Biz-Name: old\r\nArk-Biz-Version: 2\r\nStart-Class: com.x.Main\r\n"
        with pytest.raises(ArchiveRefused, match="Java"):
            read_manifest(FileSource(make_zip({MANIFEST_MF: text, "com/x/Main.class": b""})))

    def test_the_digest_is_that_of_the_file(self, make_zip: MakeZip, make_files: MakeFiles) -> None:
        path = make_zip(make_files())
        assert FileSource(path).digest() == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_a_file_that_is_replaced_after_it_was_digested_is_noticed(
        self, make_zip: MakeZip, make_files: MakeFiles
    ) -> None:
        source = FileSource(make_zip(make_files()))
        source.digest()
        make_zip(make_files({"more": b"x"}))
        with pytest.raises(ArtifactError, match="was changed while"), source.open():
            pass

    def test_a_file_that_is_written_to_while_it_is_read_is_noticed(
        self, make_zip: MakeZip, make_files: MakeFiles
    ) -> None:
        path = make_zip(make_files())
        with pytest.raises(ArtifactError, match="was changed while"), FileSource(path).open(), path.open("ab") as file:
            file.write(b"x")


class TestWheel:
    def wheel(self, make_zip: MakeZip, files: Mapping[str, bytes], **replaced: bytes) -> BizSource:
        return source_for(make_zip(wheel_files(files, **replaced), WHEEL_NAME))

    def test_the_entry_point_makes_it_a_module(self, make_zip: MakeZip, tmp_path: Path) -> None:
        source = self.wheel(make_zip, {"hello/app.py": b"app = 1\n"})
        manifest = read_manifest(source)
        assert (str(manifest.id), manifest.entry) == ("hello:1.0.0", "hello.app:app")
        assert manifest.requirements == ("starlette>=0.40",)
        assert manifest.python_tag == "py3"
        assert f"{INFO}/METADATA" in copied(source, tmp_path / "out")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"", "names 0 entry points"),
            (b"[koupleless.module]\na = a:b\nc = c:d\n", "names 2 entry points"),
            (b"[koupleless.module]\na = no entry\n", "neither package.module"),
            (b"nonsense", "cannot be read"),
        ],
    )
    def test_an_entry_point_that_cannot_be_used_is_said(self, make_zip: MakeZip, text: bytes, words: str) -> None:
        with pytest.raises(ManifestInvalid, match=words):
            read_manifest(self.wheel(make_zip, {}, **{"entry_points.txt": text}))

    def test_a_wheel_without_its_record_is_refused(self, make_zip: MakeZip) -> None:
        files = wheel_files({})
        del files[f"{INFO}/RECORD"]
        with pytest.raises(ArchiveRefused, match="RECORD is missing"):
            read_manifest(source_for(make_zip(files, WHEEL_NAME)))

    def test_a_name_that_is_no_wheels_is_refused(self, make_zip: MakeZip) -> None:
        with pytest.raises(ArchiveRefused, match="wheel filename"):
            read_manifest(source_for(make_zip(wheel_files({}), "hello.whl")))

    def test_its_digests_are_those_of_its_record(self, make_zip: MakeZip, tmp_path: Path) -> None:
        files = {**wheel_files({"hello/app.py": b"app = 1\n"}), "hello/app.py": b"app = 2\n"}
        with pytest.raises(DigestMismatch, match=r"hello/app\.py"):
            copied(source_for(make_zip(files, WHEEL_NAME)), tmp_path / "out")

    def test_libraries_in_its_data_directory_go_where_they_belong_and_scripts_go_nowhere(
        self, make_zip: MakeZip, tmp_path: Path
    ) -> None:
        files = {"hello-1.0.0.data/purelib/hello/more.py": b"1\n", "hello-1.0.0.data/scripts/run": b"#!python\n"}
        found = copied(self.wheel(make_zip, files), tmp_path / "out")
        assert "hello/more.py" in found
        assert not any("data" in name for name in found)

    def test_a_wheel_for_one_python_says_so(self, make_zip: MakeZip) -> None:
        name = "hello-1.0.0-cp39-cp39-linux_x86_64.whl"
        manifest = read_manifest(source_for(make_zip(wheel_files({}), name)))
        assert "was built for cp39" in (manifest.python_issue() or "")


class TestDirectory:
    def write(self, root: Path, files: Mapping[str, bytes]) -> DirectorySource:
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        return DirectorySource(root)

    def test_bytecode_that_python_left_there_is_no_part_of_it(self, make_files: MakeFiles, tmp_path: Path) -> None:
        source = self.write(tmp_path / "m", make_files())
        before = source.digest()
        self.write(tmp_path / "m", {"hello/__pycache__/app.cpython-311.pyc": b"x", ".git/HEAD": b"x"})
        assert source.digest() == before
        assert not any("__pycache__" in name for name in copied(source, tmp_path / "out"))

    @pytest.mark.parametrize("target", ["/etc/passwd", "app.py", "/etc"])
    def test_a_link_is_refused(self, make_files: MakeFiles, tmp_path: Path, target: str) -> None:
        source = self.write(tmp_path / "m", without_list(make_files()))
        (tmp_path / "m" / "hello" / "link").symlink_to(target)
        with pytest.raises(ArchiveRefused, match="'hello/link' is a link"):
            source.digest()

    def test_a_pipe_is_refused(self, make_files: MakeFiles, tmp_path: Path) -> None:
        source = self.write(tmp_path / "m", without_list(make_files()))
        os.mkfifo(tmp_path / "m" / "pipe")
        with pytest.raises(ArchiveRefused, match="special file"):
            source.digest()

    def test_too_many_files_are_refused(self, make_files: MakeFiles, tmp_path: Path) -> None:
        self.write(tmp_path / "m", without_list(make_files()))
        with pytest.raises(ArchiveRefused, match="more than 3 files"):
            DirectorySource(tmp_path / "m", limits=Limits(max_files=3)).digest()

    def test_a_change_between_digest_and_copy_is_noticed(self, make_files: MakeFiles, tmp_path: Path) -> None:
        source = self.write(tmp_path / "m", without_list(make_files()))
        source.digest()
        self.write(tmp_path / "m", {"hello/app.py": b"changed"})
        with pytest.raises(ArtifactError, match="was changed while"):
            copied(source, tmp_path / "out")


class TestMemory:
    @pytest.mark.parametrize("name", ["../x", "/x"])
    def test_odd_paths_are_refused_there_too(self, make_files: MakeFiles, name: str) -> None:
        with pytest.raises(ArchiveRefused):
            read_manifest(MemorySource({**make_files(), name: b""}))


class TestSourceFor:
    def test_a_project_has_to_be_built_first(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text("")
        with pytest.raises(ArtifactError, match=r"is a project.* arkctl build"):
            source_for(tmp_path)

    def test_a_program_has_to_be_built_first(self, tmp_path: Path) -> None:
        (tmp_path / "hello.py").write_text("")
        with pytest.raises(ArtifactError, match="arkctl build"):
            source_for(tmp_path / "hello.py")

    @pytest.mark.parametrize("name", ["x.tar.gz", "x"])
    def test_another_ending_is_refused_with_those_that_are_known(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("")
        with pytest.raises(ArtifactError, match=r"\.zip, \.jar, \.whl"):
            source_for(tmp_path / name)

    def test_nothing_there_is_said_plainly(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="does not exist"):
            source_for(tmp_path / "none.zip")
        with pytest.raises(ArtifactError, match="no unpacked module"):
            source_for(tmp_path)

    def test_the_kind_is_told_by_the_path(self, tmp_path: Path, make_zip: MakeZip, make_files: MakeFiles) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / BIZ_TOML).write_text("")
        kinds = [source_for(path) for path in (make_zip(make_files()), make_zip({}, "x.whl"), tmp_path / "d")]
        assert [type(kind) for kind in kinds] == [FileSource, FileSource, DirectorySource]
        with pytest.raises(ArchiveRefused, match="wheel filename"):
            read_manifest(kinds[1])


def test_an_archive_with_zip64_fields_is_read(tmp_path: Path, make_files: MakeFiles) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, data in make_files().items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    assert str(read_manifest(FileSource(tmp_path / "x.zip")).id) == "hello:1.0.0"

"""Texts and archives made to hurt: each is refused in words, soon, and leaves nothing."""

from __future__ import annotations

import time
import zipfile
from typing import TYPE_CHECKING

import pytest
from tests.artifact.conftest import everything_below
from tests.artifact.memory import MemorySource

from koupleless.artifact.archive import Archive, Limits
from koupleless.artifact.build import Options
from koupleless.artifact.building.project import parse_project, read_project
from koupleless.artifact.fetch import fetch
from koupleless.artifact.manifest import BIZ_TOML, MANIFEST_MF, parse_biz_toml
from koupleless.artifact.manifest_mf import manifest_keys, parse_manifest_mf
from koupleless.artifact.source import read_manifest, source_for
from koupleless.artifact.sources.directory import DirectorySource
from koupleless.errors import ArchiveRefused, ArtifactError, FetchFailed, ManifestInvalid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.artifact.conftest import MakeZip

    from koupleless.artifact.store import Store

SOUND = 'name = "hello"\nversion = "1.0.0"\nentry = "hello.app:app"\n'
MF = "Ark-Biz-Name: hello\nArk-Biz-Version: 1.0.0\nStart-Class: hello.app:app\n"
MANY = 1_000_000


def taken(begun: float) -> float:
    """Of the processor's time, so that others who use it do not count."""
    return time.thread_time() - begun


# --- biz.toml and MANIFEST.MF ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a = " + "[" * 100_000, id="arrays"),
        pytest.param("a = " + "[" * 100_000 + "]" * 100_000, id="arrays that are closed"),
        pytest.param("a = " + "{a=" * 100_000, id="inline tables"),
        pytest.param("priority = " + "1" * 5000, id="digits"),
        pytest.param("priority = " + "1" * 100, id="a number that no wire takes"),
        pytest.param("priority = 0x" + "f" * 500_000, id="hexadecimal digits"),
        pytest.param("format = " + "1" * 4000, id="a format of many digits"),
        pytest.param("python = 'cp3" + "1" * 5000 + "'", id="a tag of many digits"),
        pytest.param("python = 'cp3\u0663'", id="a tag of foreign digits"),
        pytest.param(f"requirements = ['{'(' * 3000}']", id="a requirement of brackets"),
        pytest.param(f"requirements = ['a; {'(' * 3000}']", id="a marker of brackets"),
        pytest.param(f"requirements = ['{'(' * MANY}']", id="a long requirement"),
        pytest.param(f"requirements = ['a=={'1' * 4000}.x!']", id="a version of digits"),
        pytest.param("requirements = ['']", id="an empty requirement"),
        pytest.param(".".join("a" * 100_000) + " = 1", id="a key of many parts"),
        pytest.param("[" + ".".join("a" * 100_000) + "]", id="a table of many parts"),
        pytest.param("x = {" + ". ".join(["'a'"] * 100_000) + " = 1}", id="a key of many parts in a table"),
        pytest.param("name." + ".".join("a" * 90) + " = 1", id="a name that is a deep table"),
        pytest.param(f"attributes.a = '{'x' * 2 * MANY}'", id="large attributes"),
        pytest.param(f"deny-imports = ['{'a.' * MANY}a']", id="a large pattern"),
        pytest.param("\n".join(f"k{number} = 1" for number in range(100_000)), id="unknown keys"),
        pytest.param(f"{'k' * MANY} = 1", id="a long unknown key"),
        pytest.param(f"entry = '{'x.' * MANY}'", id="a long entry"),
        pytest.param(f"web-context-path = '{'/a' * MANY} '", id="a long path"),
        pytest.param("deny-imports = ['" + "a." * MANY + "']", id="a long pattern"),
        pytest.param("own = ['" + "-" * MANY + "']", id="a name of dashes"),
        pytest.param("isolation = '" + "x" * MANY + "'", id="a long isolation"),
        pytest.param("\n".join(f"[[a]]\nb.c.d.e{number} = 1" for number in range(20_000)), id="arrays of tables"),
        pytest.param("[files]\n" + "\n".join(f"'{'../' * 20}{number}' = ''" for number in range(20_000)), id="places"),
        pytest.param("a = '''" + "'" * 100_000, id="quotes"),
        pytest.param('a = """\\\n' + " \n" * 100_000, id="folded space"),
        pytest.param("a = 2000-13-45T99:99:99Z", id="no date"),
        pytest.param("a" + " " * MANY, id="space"),
        pytest.param("# \x00", id="a control character"),
    ],
)
def test_a_crafted_biz_toml_has_a_mistake_in_words(text: str) -> None:
    is_own = text.startswith(("[", "priority", "format", "python"))
    begun = time.thread_time()
    with pytest.raises(ManifestInvalid) as caught:
        parse_biz_toml(f"{SOUND}{text}" if is_own else f"{text}\n{SOUND}", "shop.zip")

    assert taken(begun) < 3
    assert "mistake" in str(caught.value)
    assert len(str(caught.value)) < 60_000


def test_folded_lines_are_joined_in_linear_time() -> None:
    text = f"{MF}X: " + "\n y" * 450_000
    begun = time.thread_time()

    assert len(manifest_keys(text)["X"]) == 450_000
    assert parse_manifest_mf(text, "shop.jar").attributes["X"] == "y" * 450_000
    assert taken(begun) < 3


@pytest.mark.parametrize(
    "text",
    [
        "priority: " + "1" * 5000,
        "priority: " + "1" * 12,
        f"X: {'y' * 2 * MANY}",
        f"declared-libraries: {'-,' * 100_000}",
        f"deny-import-packages: {'.,' * 100_000}",
        f"web-context-path: {'/.' * MANY}",
    ],
    ids=["digits", "a large number", "a large attribute", "names", "patterns", "a path"],
)
def test_a_crafted_manifest_mf_has_a_mistake_in_words(text: str) -> None:
    begun = time.thread_time()
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest_mf(f"{MF}{text}", "shop.jar")

    assert taken(begun) < 3
    assert len(str(caught.value)) < 60_000


def test_a_project_has_its_mistake_in_words_too(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ManifestInvalid, match="nested too deeply"):
        read_project(tmp_path)
    project = {"name": "x", "version": "1", "dependencies": ["(" * 3000]}
    with pytest.raises(ManifestInvalid, match="is no requirement"):
        parse_project({"project": project}, root=tmp_path, origin="x", options=Options(entry="x"))


# --- wheels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RECORD", "a" * 200_000 + ",sha256=x,1\n"),
        ("RECORD", '"' + "a," * 200_000),
        ("RECORD", "a.py,sha256=\u00e9,1\n"),
        ("RECORD", "a.py,sha256=x,1\n"),
        ("entry_points.txt", "[koupleless.module]\nx" + " " * 200_000 + "y\n"),
        ("entry_points.txt", "[koupleless.module]\n" + "x = a\n" * 100_000),
        ("entry_points.txt", "[koupleless.module]\nx\n y\n"),
        ("entry_points.txt", "[koupleless.module\nx = a.b:c\n"),
        ("entry_points.txt", "[koupleless.module]\nx = " + "a." * MANY),
        ("METADATA", "Requires-Dist: " + "(" * 3000 + "\n"),
        ("METADATA", "Requires-Dist: a; " + "(" * 3000 + "\n"),
    ],
)
def test_a_crafted_wheel_is_refused_in_words(make_zip: MakeZip, name: str, text: str) -> None:
    files = {
        "a.py": b"",
        "hello-1.0.dist-info/METADATA": b"Name: hello\n",
        "hello-1.0.dist-info/RECORD": b"",
        "hello-1.0.dist-info/entry_points.txt": b"[koupleless.module]\nx = a:app\n",
        f"hello-1.0.dist-info/{name}": text.encode(),
    }
    begun = time.thread_time()
    with pytest.raises((ManifestInvalid, ArchiveRefused)):
        read_manifest(source_for(make_zip(files, "hello-1.0-py3-none-any.whl")))

    assert taken(begun) < 3


def test_metadata_is_read_as_headers_alone(make_zip: MakeZip) -> None:
    nested = "".join(f"Content-Type: multipart/mixed; boundary={n}\n\n--{n}\n" for n in range(2000))
    files = {
        "a.py": b"",
        "hello-1.0.dist-info/METADATA": f"Name: hello\nRequires-Dist: click\n{nested}".encode(),
        "hello-1.0.dist-info/RECORD": b"",
        "hello-1.0.dist-info/entry_points.txt": b"# x\n[console_scripts]\ny = z\n[koupleless.module]\n x = a:app [y]\n",
    }
    manifest = read_manifest(source_for(make_zip(files, "hello-1.0-py3-none-any.whl")))

    assert (str(manifest.id), manifest.entry, manifest.requirements) == ("x:1.0", "a:app", ("click",))


# --- names and numbers of files -------------------------------------------------------------------------------------


def test_directories_count_like_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(600):
            archive.writestr(f"{number}/{'a/' * 480}x", "")
    begun = time.thread_time()
    with pytest.raises(ArchiveRefused, match="more than 200000 files and directories"), Archive(tmp_path / "x.zip"):
        pass
    assert taken(begun) < 3


def test_directories_of_a_directory_count_as_well(tmp_path: Path) -> None:
    (tmp_path / BIZ_TOML).write_text(SOUND)
    for number in range(10):
        (tmp_path / f"{number}").mkdir()
    with pytest.raises(ArchiveRefused, match="more than 8 files and directories"):
        DirectorySource(tmp_path, limits=Limits(max_files=8)).digest()


@pytest.mark.parametrize("size", [230, 252])
def test_a_name_too_long_for_its_bytecode_is_refused(
    make_zip: MakeZip, store: Store, tmp_path: Path, size: int
) -> None:
    name = f"hello/{'x' * size}.py"
    files = {BIZ_TOML: SOUND.encode(), name: b"", f"hello/{'y' * 250}": b""}
    (tmp_path / "tree" / "hello").mkdir(parents=True)
    for place, data in files.items():
        (tmp_path / "tree" / place).write_bytes(data)
    for source in (source_for(make_zip(files)), DirectorySource(tmp_path / "tree"), MemorySource(files)):
        with pytest.raises(ArchiveRefused, match="too long for its bytecode"):
            store.unpack(source)
    assert not {name for name in everything_below(store.root) if "hello" in name}


def test_a_name_just_short_enough_is_compiled(store: Store) -> None:
    name = "x" * (255 - 32 - len(".py"))
    with store.unpack(MemorySource({BIZ_TOML: SOUND.encode(), f"{name}.py": b"X = 1\n"})) as unpacked:
        assert len(list((unpacked.path / "__pycache__").iterdir())) == 1


# --- locations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [(), ("/srv",), ("https://a.example/",)])
@pytest.mark.parametrize(
    "url",
    [
        "//[",
        "http://[",
        "http://[::1",
        "http://user:secret@[::1/x?token=secret",
        "file://[/x",
        "file:///\0",
        "file:///n%00where",
        "~nosuchuser",
        "~nosuchuser/x.zip#sha256=" + "0" * 64,
        "http://127.0.0.1:99999999/x.zip",
        "http://127.0.0.1:1\u00b2/x.zip",
        "http://" + "a" * 100 + ".example/x",
        "http://\u2100.example/",
        "x" * 5000,
        "\0",
        "http://127.0.0.1:0/\r\nX: y",
        "#",
        "://",
        "http://",
        "/proc/self/mem/../../..\ud800",
    ],
)
def test_what_is_no_location_is_said_so(url: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(FetchFailed) as caught, fetch(url, allowed_prefixes=allowed, timeout_s=5):
        pass

    assert "secret" not in str(caught.value)


def test_an_allowed_prefix_that_is_none_is_said_so() -> None:
    with pytest.raises(ArtifactError), fetch("/x", allowed_prefixes=["http://["]):
        pass


def test_the_manifests_of_an_archive_that_is_large_are_refused_in_words(make_zip: MakeZip) -> None:
    for name in (BIZ_TOML, MANIFEST_MF):
        path = make_zip({BIZ_TOML: SOUND.encode(), name: b"# " + b"x" * MANY}, f"{len(name)}.zip")
        with pytest.raises(ArchiveRefused, match="larger than"):
            read_manifest(source_for(path, limits=Limits(max_manifest_bytes=1000)))

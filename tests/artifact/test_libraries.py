"""Large private libraries: kept apart in the store, shared by all artefacts that bring the same, and left at home."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest

from koupleless.artifact.keeping.libraries import LARGE_BYTES
from koupleless.artifact.manifest import BIZ_TOML, parse_biz_toml, render_biz_toml
from koupleless.artifact.sources.content import tree_digest
from koupleless.artifact.sources.zipped import FileSource
from koupleless.errors import ArtifactError, LibrariesMissing, ManifestInvalid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.artifact.conftest import MakeFiles, MakeZip

    from koupleless.artifact.store import Store

LARGE = {"lib/large/__init__.py": b"VALUE = 1\n", "lib/large/data.bin": bytes(LARGE_BYTES)}


@pytest.fixture
def whole(make_files: MakeFiles, make_zip: MakeZip) -> FileSource:
    return FileSource(make_zip(make_files(LARGE), "whole.zip"))


@pytest.fixture
def without(make_files: MakeFiles, make_zip: MakeZip) -> FileSource:
    """The next version, which names the libraries by digest alone."""
    return FileSource(make_zip(left_at_home(make_files(LARGE, version="1.0.1")), "without.zip"))


def left_at_home(files: dict[str, bytes]) -> dict[str, bytes]:
    manifest = parse_biz_toml(files[BIZ_TOML].decode(), "")
    libraries = {name[4:]: hashlib.sha256(data).hexdigest() for name, data in files.items() if name.startswith("lib/")}
    own = {name: digest for name, digest in manifest.files.items() if not name.startswith("lib/")}
    manifest = dataclasses.replace(manifest, files=own, libraries=tree_digest(libraries))
    return {BIZ_TOML: render_biz_toml(manifest).encode(), **{name: files[name] for name in own}}


def libraries_in(store: Store) -> list[Path]:
    return list(store.root.glob("*/libraries-*"))


def test_they_are_found_on_the_class_path_with_bytecode_and_texts(store: Store, whole: FileSource) -> None:
    with store.unpack(whole) as unpacked:
        own, lib = unpacked.class_path
        assert own == unpacked.path
        assert not (own / "lib").exists()
        source = lib / "large" / "__init__.py"
        assert source.read_bytes() == b"VALUE = 1\n"
        assert list(lib.glob("large/__pycache__/*.pyc"))
        status = source.stat()
        text = unpacked.text_of(str(source), status.st_size, status.st_mtime_ns)
        assert text == hashlib.sha256(b"VALUE = 1\n").digest()
        assert unpacked.text_of(str(source), status.st_size + 1, status.st_mtime_ns) is None
        unpacked.forget_texts()
        assert unpacked.text_of(str(source), status.st_size, status.st_mtime_ns) is None


def test_artefacts_that_bring_the_same_share_one_copy(
    store: Store, whole: FileSource, make_files: MakeFiles, make_zip: MakeZip
) -> None:
    other = FileSource(make_zip(make_files(LARGE, version="2"), "other.zip"))
    with store.unpack(whole) as one, store.unpack(other) as two:
        assert one.path != two.path
        assert one.class_path[1] == two.class_path[1]
    assert len(libraries_in(store)) == 1


def test_an_artefact_may_come_without_those_that_are_there(
    store: Store, whole: FileSource, without: FileSource
) -> None:
    with store.unpack(whole) as unpacked:
        digest = unpacked.manifest.libraries
    assert store.has_libraries(digest)
    with store.unpack(without) as unpacked:
        assert unpacked.manifest.libraries == digest
        assert (unpacked.class_path[1] / "large" / "data.bin").stat().st_size == LARGE_BYTES


def test_one_without_those_that_are_not_there_is_refused_and_leaves_nothing(
    store: Store, whole: FileSource, without: FileSource
) -> None:
    assert not store.has_libraries("0" * 64)
    with pytest.raises(LibrariesMissing, match="deploy again"):
        store.unpack(without)
    store.unpack(whole).release()
    store.unpack(without).release()
    shutil.rmtree(libraries_in(store)[0])
    with pytest.raises(LibrariesMissing):
        store.unpack(without)
    store.unpack(whole).release()  # brings them again, although its own entry was left
    store.unpack(without).release()
    assert not list(store.scratch.glob("work-*"))


def test_they_stay_as_long_as_anybody_uses_them(store: Store, whole: FileSource, without: FileSource) -> None:
    store.unpack(whole).release()
    in_use = store.unpack(without)
    assert store.remove_unused().identities == ("hello:1.0.0",)
    assert len(libraries_in(store)) == 1
    in_use.release()
    assert sorted(identity.partition(":")[0] for identity in store.remove_unused().identities) == ["hello", "libraries"]
    assert store.size_bytes() == 0


def test_damaged_ones_are_told_of_and_made_again(store: Store, whole: FileSource) -> None:
    with store.unpack(whole) as unpacked:
        damaged = unpacked.class_path[1] / "large" / "__init__.py"
        assert unpacked.damage() is None
        damaged.write_bytes(b"VALUE = 2\n")
        assert "large/__init__.py" in (unpacked.damage() or "")
    assert not store.has_libraries(unpacked.manifest.libraries)
    with store.unpack(whole) as again:
        assert damaged.read_bytes() == b"VALUE = 1\n"
        assert "large/__init__.py" in (again.notice or "")


def test_an_interrupt_leaves_no_half_of_them(store: Store, whole: FileSource, monkeypatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("koupleless.artifact.store.compile_tree", die)
    with pytest.raises(KeyboardInterrupt):
        store.unpack(whole)
    monkeypatch.undo()
    assert libraries_in(store) == []
    store.unpack(whole).release()


def test_the_name_of_an_artefact_cannot_pass_for_libraries(
    store: Store, make_files: MakeFiles, make_zip: MakeZip
) -> None:
    with store.unpack(FileSource(make_zip(make_files()))) as unpacked:
        assert not store.has_libraries(unpacked.digest)


@pytest.mark.parametrize("digest", ["../../etc", "A" * 64, "0" * 63])
def test_a_digest_that_is_none_is_refused(make_files: MakeFiles, digest: str) -> None:
    text = make_files()[BIZ_TOML].decode().replace("[files]", f'libraries = "{digest}"\n\n[files]')
    with pytest.raises(ManifestInvalid, match="is no SHA-256"):
        parse_biz_toml(text, "biz.toml")


def test_the_disk_may_refuse(store: Store, whole: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("koupleless.artifact.store.compile_tree", refuse)
    with pytest.raises(ArtifactError, match="no space is left"):
        store.unpack(whole)
    assert libraries_in(store) == []

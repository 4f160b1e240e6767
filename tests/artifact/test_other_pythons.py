"""A store that has served a base with another Python: after an upgrade, artefacts are taken from there."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from typing import TYPE_CHECKING

import pytest
from tests.artifact.test_libraries import LARGE
from tests.artifact.test_store import entries, work

from koupleless.artifact.keeping.bytecode import TAG, bytecode_path
from koupleless.artifact.manifest import BIZ_TOML, parse_biz_toml, render_biz_toml
from koupleless.artifact.sources.zipped import FileSource
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.artifact.conftest import MakeFiles, MakeZip

    from koupleless.artifact.store import Store

FORMER = "cpython-300"


def of_former_python(store: Store, artefact: Path) -> tuple[str, Path]:
    """The digest of an artefact that another Python has unpacked, and the directory of its files."""
    with store.unpack(FileSource(artefact)) as unpacked:
        digest, name = unpacked.digest, unpacked.path.name
    (store.root / TAG).rename(store.root / FORMER)
    for bytecode in (store.root / FORMER).rglob("*.pyc"):
        status = bytecode.stat()
        bytecode.write_bytes(b"x" * status.st_size)  # of another Python, and undamaged
        os.utime(bytecode, ns=(status.st_atime_ns, status.st_mtime_ns))
    return digest, store.root / FORMER / digest / name


def test_an_artefact_is_made_ready_for_this_python(store: Store, make_zip: MakeZip, make_files: MakeFiles) -> None:
    digest, former = of_former_python(store, make_zip(make_files(LARGE)))
    (former / "hello" / "written.txt").write_text("by the module")
    found = store.find(digest)
    assert found is not None
    with found:
        assert found.digest == digest
        assert found.path.parent.parent == store.root / TAG
        assert str(found.manifest.id) == "hello:1.0.0"
        assert (found.path / "hello" / "data.txt").read_bytes() == b"data"
        assert not (found.path / "hello" / "written.txt").exists()
        bytecode = found.path / bytecode_path("hello/__init__.py")
        assert bytecode.read_bytes()[:4] == importlib.util.MAGIC_NUMBER
        assert (found.class_path[1] / "large" / "data.bin").is_file()
        assert found.damage() is None
    assert former.is_dir()  # for the way back
    assert work(store) == []
    again = store.find(digest)
    assert again is not None
    again.release()
    assert len(entries(store)) == 2  # the artefact and its libraries


def test_compiled_code_for_the_other_python_is_refused_with_advice(
    store: Store, make_zip: MakeZip, make_files: MakeFiles
) -> None:
    digest, former = of_former_python(store, make_zip(make_files()))
    manifest = former.parent / "manifest.toml"
    told = dataclasses.replace(parse_biz_toml(manifest.read_text(), BIZ_TOML), python_tag="cp300")
    manifest.write_text(render_biz_toml(told))
    with pytest.raises(
        ArtifactError, match=r"hello:1\.0\.0 was built for cp300, this base runs cp3\d+; build the module"
    ):
        store.find(digest)
    assert entries(store) == []


@pytest.mark.parametrize("is_of_libraries", [False, True])
def test_changed_files_are_not_taken(
    store: Store, make_zip: MakeZip, make_files: MakeFiles, is_of_libraries: bool
) -> None:
    digest, former = of_former_python(store, make_zip(make_files(LARGE)))
    changed = next((store.root / FORMER).rglob("large/data.bin")) if is_of_libraries else former / "hello" / "data.txt"
    changed.write_bytes(b"somebody else's")
    assert store.find(digest) is None
    assert digest not in entries(store)
    assert work(store) == []

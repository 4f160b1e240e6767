"""The memory of builds: what was resolved and packed once is not asked for again, unless what decides it differs.

pip is a stand-in that counts: an interpreter whose index is a file.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.artifact.indexes import FakeIndex, write

from koupleless.artifact.build import Options, build_project
from koupleless.artifact.building.requirements import BaseFacts
from koupleless.artifact.cached.cache import Cache, key_of
from koupleless.artifact.source import read_manifest
from koupleless.artifact.sources.zipped import FileSource
from koupleless.artifact.store import Store

BASE = BaseFacts({"fastapi": "0.115.0"})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeIndex:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return FakeIndex(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "a project ü"
    root.mkdir()
    write(root, "dep")
    return root


def built(index: FakeIndex, project: Path, **options: Any) -> Any:
    return build_project(project, Options(**{"base": BASE, "python": str(index.python), **options}))


def test_a_second_build_asks_nothing_and_gives_the_same_bytes(index: FakeIndex, project: Path) -> None:
    first = built(index, project).path.read_bytes()
    assert index.asked == ["resolve", "install"]
    result = built(index, project)
    assert index.asked == []
    assert result.path.read_bytes() == first
    assert result.report.packed[0].reason == "the base does not have the distribution"
    assert "lib/dep.py" in read_manifest(FileSource(result.path)).files


def test_another_text_of_the_module_asks_nothing(index: FakeIndex, project: Path, tmp_path: Path) -> None:
    built(index, project)
    write(project, "dep", text="app = repr\n")
    assert index.asked == ["resolve", "install"]
    result = built(index, project)
    assert index.asked == []
    with Store(tmp_path / "store") as store, store.unpack(FileSource(result.path)) as unpacked:
        assert (unpacked.path / "hello.py").read_text() == "app = repr\n"
        assert (unpacked.class_path[1] / "dep.py").read_text() == "VALUE = 1"


def test_what_decides_a_resolution_is_never_hidden(
    index: FakeIndex, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolves(**options: Any) -> bool:
        index.asked  # noqa: B018 - forgets the calls before
        built(index, project, **options)
        return "resolve" in index.asked

    assert resolves()
    assert not resolves()
    write(project, "dep>0.5")
    assert resolves(), "another requirement"
    assert resolves(base=BaseFacts({"fastapi": "0.116.0"})), "another base"
    assert resolves(base=None), "the base is this environment"
    assert not resolves(base=None)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert resolves(), "another index in the environment"
    monkeypatch.delenv("PIP_INDEX_URL")
    assert not resolves()
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path))
    assert not resolves(), "the cache of pip decides nothing"
    configuration = tmp_path / "home" / ".config" / "pip" / "pip.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(f"[install]\nfind-links =\n  {tmp_path / 'wheels'}\n")
    assert resolves(), "a configuration file"
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "dep-1.whl").touch()
    assert resolves(), "another file in a directory of the configuration"
    assert not resolves()
    os.utime(index.python, ns=(1, 1))
    assert resolves(), "another interpreter"
    assert not resolves()
    assert resolves(refresh=True)
    assert not resolves()


def test_a_distribution_that_comes_to_the_environment_is_another_base(
    index: FakeIndex, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(index, project, base=None)
    monkeypatch.syspath_prepend(str(tmp_path / "more"))
    (tmp_path / "more" / "other-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "more" / "other-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n"
    )
    assert index.asked == ["resolve", "install"]
    built(index, project, base=None)
    assert index.asked == ["resolve"]


def test_a_resolution_counts_for_a_day(index: FakeIndex, project: Path, tmp_path: Path) -> None:
    built(index, project)
    (kept,) = (tmp_path / "cache" / "koupleless" / "builds").glob("resolved-*")
    os.utime(kept, (time.time() - 25 * 3600,) * 2)
    assert index.asked == ["resolve", "install"]
    built(index, project)
    assert index.asked == ["resolve"], "the packed libraries are known by what they are made from"
    os.utime(kept, (time.time() + 3600,) * 2)
    built(index, project)
    assert index.asked == ["resolve"], "a time to come is no age"


def test_another_archive_under_the_same_version_is_packed_anew(index: FakeIndex, project: Path) -> None:
    built(index, project)
    index.offers(dep=["1.0", "e" * 64, "VALUE = 2"])
    assert index.asked == ["resolve", "install"]
    result = built(index, project, refresh=True)
    assert index.asked == ["resolve", "install"]
    assert result.manifest.files["lib/dep.py"] == hashlib.sha256(b"VALUE = 2").hexdigest()


def test_an_address_without_a_digest_is_asked_every_time(index: FakeIndex, project: Path, tmp_path: Path) -> None:
    index.offers(dep=["1.0", "", "VALUE = 1"])
    write(project, "dep @ file:///nowhere")
    built(index, project)
    built(index, project)
    assert index.asked == ["resolve", "install"] * 2


@pytest.mark.parametrize("damage", ["cut", "flip"])
@pytest.mark.parametrize("entry", ["resolved-*", "libraries-*", "*.zip"])
def test_a_damaged_entry_is_made_again(
    index: FakeIndex, project: Path, tmp_path: Path, entry: str, damage: str
) -> None:
    first = built(index, project).path.read_bytes()
    (kept,) = (tmp_path / "cache" / "koupleless" / "builds").glob(entry)
    data = kept.read_bytes()
    middle = len(data) // 2
    kept.write_bytes(
        {"cut": data[:middle], "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]}[damage]
    )
    index.asked  # noqa: B018 - forgets the calls before
    assert built(index, project).path.read_bytes() == first
    assert index.asked == (["resolve"] if entry == "resolved-*" else ["install"])
    built(index, project)
    assert index.asked == []


def test_libraries_stay_at_home_if_the_receiver_has_them(index: FakeIndex, project: Path) -> None:
    asked: list[str] = []

    def is_present(digest: str) -> bool:
        asked.append(digest)
        return len(asked) > 1

    whole = built(index, project, is_present=is_present).manifest
    assert whole.libraries == ""
    assert "lib/dep.py" in whole.files
    result = built(index, project, is_present=is_present)
    assert asked[0] == asked[1] == result.manifest.libraries
    assert not [name for name in result.manifest.files if name.startswith("lib/")]
    assert result.manifest.packed == ("dep==1.0",)
    write(project)
    built(index, project, is_present=is_present)
    assert len(asked) == 2, "nothing to leave at home, nothing to ask"


@pytest.mark.parametrize("place", ["writable by others", "a file", "read-only"])
def test_a_cache_that_cannot_be_used_is_done_without(
    index: FakeIndex, project: Path, tmp_path: Path, place: str
) -> None:
    builds = tmp_path / "cache" / "koupleless" / "builds"
    if place == "a file":
        builds.parent.mkdir(parents=True)
        builds.write_text("")
    else:
        builds.mkdir(parents=True)
        builds.chmod(0o777 if place == "writable by others" else 0o500)
    if place == "read-only" and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    first = built(index, project).path.read_bytes()
    assert built(index, project).path.read_bytes() == first
    assert index.asked == ["resolve", "install"] * 2


def test_a_full_disk_fails_no_build(
    index: FakeIndex, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("koupleless.artifact.cached.cache.shutil.copyfile", full)
    monkeypatch.setattr("koupleless.artifact.cached.cache.Path.write_bytes", full)
    assert built(index, project).path.stat().st_size
    assert list((tmp_path / "cache" / "koupleless" / "builds").iterdir()) == []


def test_two_builds_at_once_both_succeed(index: FakeIndex, project: Path, tmp_path: Path) -> None:
    results: list[Path] = []

    def run(number: int) -> None:
        results.append(built(index, project, out=tmp_path / f"out {number}").path)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.read_bytes() for path in results}) == 1
    assert not list((tmp_path / "cache" / "koupleless" / "builds").glob(".making-*"))


def test_a_process_killed_while_writing_leaves_no_entry(tmp_path: Path) -> None:
    code = """
        import pathlib, shutil, sys
        from koupleless.artifact.cached import cache
        def copy(source, target):
            pathlib.Path(target).write_bytes(b"half")
            print("now", flush=True)
            sys.stdin.read()
        cache.shutil.copyfile = copy
        cache.Cache(pathlib.Path(sys.argv[1])).keep_archive(pathlib.Path(sys.executable), "a" * 64)
    """
    root = tmp_path / "builds"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    cache = Cache(root)
    assert cache.archive("a" * 64) is None
    (left,) = root.iterdir()
    assert cache.clean().freed_bytes == 0, "it may belong to a process that lives"
    os.utime(left, (time.time() - 7200,) * 2)
    assert cache.clean().freed_bytes == len(b"half")
    assert list(root.iterdir()) == []


class TestCache:
    def test_what_was_not_used_for_long_goes_and_the_oldest_first(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path / "builds")
        made = tmp_path / "made"
        ages = {"a": 40 * 24 * 3600, "b": 3600, "c": 60}
        for name in ages:
            made.write_bytes(name.encode() * 100)
            cache.keep_archive(made, key_of(name))
        for name, age in ages.items():
            os.utime(tmp_path / "builds" / f"{key_of(name)}.zip", (time.time() - age,) * 2)
        cleaned = cache.clean()
        assert (cleaned.freed_bytes, cleaned.left_bytes) == (100, 200)
        assert cache.clean(max_bytes=150).freed_bytes == 100
        assert [path.stem for path in (tmp_path / "builds").iterdir()] == [key_of("c")]
        assert cache.clean(max_bytes=0).left_bytes == 100, "a build may read what was used a minute ago"
        assert cache.clean(max_bytes=0, in_use_s=0).left_bytes == 0

    def test_without_a_home_nothing_is_kept(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def homeless() -> Path:
            raise RuntimeError

        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", homeless)
        cache = Cache.of_user()
        cache.write("x", "y", {})
        assert cache.read("x", "y") is None
        assert cache.keep_archive(tmp_path, "z") == tmp_path
        assert cache.archive("z") is None
        assert cache.clean().left_bytes == 0

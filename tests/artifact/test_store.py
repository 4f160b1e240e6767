"""The store: once per content, whole or not at all, and nothing of anybody's left behind."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.artifact.memory import MemorySource

from koupleless.artifact import store as store_module
from koupleless.artifact.archive import Limits
from koupleless.artifact.keeping.bytecode import bytecode_path, compile_source
from koupleless.artifact.keeping.cleaning import Retention
from koupleless.artifact.keeping.unpack import copy_files
from koupleless.artifact.manifest import BIZ_TOML, parse_biz_toml, render_biz_toml
from koupleless.artifact.source import source_for
from koupleless.artifact.sources.zipped import FileSource
from koupleless.artifact.store import Store
from koupleless.errors import ArchiveRefused, ArtifactError, DigestMismatch, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.artifact.conftest import MakeFiles, MakeZip

TAG = sys.implementation.cache_tag


def entries(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / str(TAG)).iterdir())


def work(store: Store) -> list[str]:
    """What lies about in the sessions but for their locks."""
    return sorted(path.name for path in (store.root / "sessions").rglob("*") if path.is_file() and path.name != "alive")


class TestUnpacking:
    def test_the_files_are_there_with_their_private_libraries_on_the_class_path(
        self, store: Store, make_zip: MakeZip, make_files: MakeFiles
    ) -> None:
        with store.unpack(FileSource(make_zip(make_files()))) as unpacked:
            assert (unpacked.path / "hello" / "data.txt").read_bytes() == b"data"
            assert unpacked.class_path == (unpacked.path, unpacked.path / "lib")
            assert unpacked.path.name == "hello-1.0.0"
            assert str(unpacked.manifest.id) == "hello:1.0.0"

    def test_an_entry_just_made_is_what_is_read_later(
        self, store: Store, make_zip: MakeZip, make_files: MakeFiles
    ) -> None:
        source = FileSource(make_zip(make_files()))
        with store.unpack(source) as made, store.unpack(source) as read:
            assert (read.manifest, read.path, read.class_path) == (made.manifest, made.path, made.class_path)
            file = made.path / "hello" / "data.txt"
            status = file.stat()
            known = [each.text_of(str(file), status.st_size, status.st_mtime_ns) for each in (made, read)]
            assert known == [hashlib.sha256(b"data").digest()] * 2

    def test_the_text_of_an_unpacked_file_is_known_as_long_as_it_looks_unchanged(
        self, store: Store, make_zip: MakeZip, make_files: MakeFiles
    ) -> None:
        source = source_for(make_zip(make_files()))
        for _ in range(2):  # unpacked, and found in the store
            unpacked = store.unpack(source)
            path = unpacked.path / "lib/private/__init__.py"
            status = path.stat()
            looks = status.st_size, status.st_mtime_ns
            assert unpacked.text_of(str(path), *looks) == hashlib.sha256(path.read_bytes()).digest()
            assert unpacked.text_of(str(path), status.st_size + 1, status.st_mtime_ns) is None
            assert unpacked.text_of(str(path), status.st_size, status.st_mtime_ns + 1) is None
            assert unpacked.text_of(str(unpacked.path / "other.py"), *looks) is None
            unpacked.forget_texts()
            assert unpacked.text_of(str(path), *looks) is None

    def test_the_same_content_is_unpacked_once(
        self, store: Store, make_zip: MakeZip, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = store.unpack(FileSource(make_zip(make_files(), "one.zip")))
        monkeypatch.setattr(store_module, "copy_files", None)
        second = store.unpack(FileSource(make_zip(make_files(), "two.jar")))
        assert (second.path, second.digest) == (first.path, first.digest)
        assert second.manifest == first.manifest

    def test_another_store_on_the_root_finds_what_is_there(
        self, store: Store, make_zip: MakeZip, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = store.unpack(FileSource(make_zip(make_files())))
        with Store(store.root) as other:
            monkeypatch.setattr(store_module, "copy_files", None)
            found = other.unpack(FileSource(make_zip(make_files())))
            assert (found.path, found.manifest) == (first.path, first.manifest)

    def test_a_known_file_is_not_read_again(
        self, store: Store, make_zip: MakeZip, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_zip(make_files())
        monkeypatch.setattr(store_module, "_SETTLED_NS", -1_000_000_000)
        store.unpack(FileSource(path))
        monkeypatch.setattr("koupleless.artifact.sources.zipped.digest_of", None)
        store.unpack(FileSource(path))

    def test_a_file_written_again_at_once_is_read_again(
        self, store: Store, make_zip: MakeZip, make_files: MakeFiles
    ) -> None:
        path = make_zip(make_files())
        one = store.unpack(FileSource(path))
        times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        data = path.read_bytes()
        other = make_zip(make_files(version="1.0.1"), "other.zip").read_bytes()
        assert len(data) == len(other)
        path.write_bytes(other)
        os.utime(path, ns=times)
        assert store.unpack(FileSource(path)).manifest.id != one.manifest.id

    def test_small_modules_take_milliseconds(
        self, store: Store, make_zip: MakeZip, make_files: MakeFiles, tmp_path: Path
    ) -> None:
        """Of the processor's time, so that others who use it do not count.

        Besides what as many plain files and directories take, which differs a lot between file systems.
        """
        fresh, known, plain = [], [], []
        for number in range(10):
            path = make_zip(make_files({"more": b"%d" % number}), f"{number}.zip")
            begin = time.thread_time()
            store.unpack(source_for(path))
            unpacked = time.thread_time()
            store.unpack(source_for(path))
            found = time.thread_time()
            for directory in range(7):
                (tmp_path / f"plain-{number}-{directory}").mkdir()
                (tmp_path / f"plain-{number}-{directory}" / "a").write_bytes(b"x")
                (tmp_path / f"plain-{number}-{directory}" / "b").write_bytes(b"x")
            plain.append(time.thread_time() - found)
            fresh.append(unpacked - begin)
            known.append(found - unpacked)
        assert min(fresh) < 0.01 + min(plain)
        assert min(known) < 0.002

    def test_a_damaged_entry_is_made_again(self, store: Store, make_zip: MakeZip, make_files: MakeFiles) -> None:
        source = FileSource(make_zip(make_files()))
        unpacked = store.unpack(source)
        (unpacked.path.parent / "manifest.toml").write_text("damaged")
        with Store(store.root) as other:
            again = other.unpack(source)
            assert again.path == unpacked.path
            assert (again.path / "hello" / "app.py").is_file()

    def test_an_artefact_for_another_python_is_refused(self, store: Store, make_files: MakeFiles) -> None:
        files = make_files()
        manifest = replace(parse_biz_toml(files[BIZ_TOML].decode(), ""), python_tag="cp38")
        source = MemorySource({**files, BIZ_TOML: render_biz_toml(manifest).encode()})
        with pytest.raises(ArtifactError, match="was built for cp38"):
            store.unpack(source)
        assert entries(store) == []


class TestBytecode:
    def test_every_source_is_compiled_for_the_place_where_it_lies(self, store: Store, make_files: MakeFiles) -> None:
        unpacked = store.unpack(MemorySource(make_files()))
        for name in ("hello/__init__.py", "hello/app.py", "lib/private/__init__.py"):
            assert (unpacked.path / bytecode_path(name, optimize=sys.flags.optimize)).is_file()
        compiled = (unpacked.path / bytecode_path("hello/app.py", optimize=sys.flags.optimize)).read_bytes()
        assert str(unpacked.path / "hello" / "app.py").encode() in compiled

    def test_the_import_system_takes_it_whatever_the_times_of_the_files(
        self, store: Store, make_files: MakeFiles
    ) -> None:
        unpacked = store.unpack(MemorySource(make_files()))
        path = unpacked.path / "hello" / "app.py"
        os.utime(path, (1, 1))
        program = (
            "import importlib.util as u, sys; s = u.spec_from_file_location('m', sys.argv[1]); s.loader.get_code('m')"
        )
        done = subprocess.run([sys.executable, "-v", "-c", program, path], capture_output=True, text=True, check=True)
        assert f"matches {path}" in done.stderr
        assert f"wrote '{path.parent}" not in done.stderr

    def test_what_cannot_be_compiled_is_left_for_the_importer(self, store: Store, make_files: MakeFiles) -> None:
        unpacked = store.unpack(MemorySource(make_files({"hello/t.py": b"{{ name }} ="})))
        assert (unpacked.path / "hello" / "t.py").is_file()
        assert not (unpacked.path / bytecode_path("hello/t.py")).exists()

    def test_bytecode_that_came_along_is_kept(self, store: Store, make_files: MakeFiles) -> None:
        other = compile_source(b"def app():\n    return 'compiled elsewhere'\n", "hello/app.py")
        assert other is not None
        place = bytecode_path("hello/app.py")
        unpacked = store.unpack(MemorySource(make_files({place: other})))
        assert b"compiled elsewhere" in (unpacked.path / bytecode_path("hello/app.py")).read_bytes()

    def test_bytecode_of_another_kind_is_replaced(self, store: Store, make_files: MakeFiles) -> None:
        timed = importlib.util.MAGIC_NUMBER + bytes(12) + b"whatever"
        files = make_files()
        place = bytecode_path("hello/app.py")
        unpacked = store.unpack(
            MemorySource({**files, BIZ_TOML: files[BIZ_TOML].partition(b"[files]")[0], place: timed})
        )
        assert b"whatever" not in (unpacked.path / place).read_bytes()


class TestFailure:
    @pytest.mark.parametrize(
        ("change", "error"),
        [
            (lambda files: files.update({"hello/app.py": b"other"}), DigestMismatch),
            (lambda files: files.update({"hello/extra.py": b""}), ArchiveRefused),
            (lambda files: files.update({"../evil": b""}), ArchiveRefused),
            (lambda files: files.pop("hello/app.py"), ArchiveRefused),
            (lambda files: files.update({BIZ_TOML: b""}), ManifestInvalid),
        ],
    )
    def test_bad_input_leaves_nothing(
        self,
        store: Store,
        make_zip: MakeZip,
        make_files: MakeFiles,
        change: Callable[[dict[str, bytes]], object],
        error: type[Exception],
    ) -> None:
        files = make_files()
        change(files)
        with pytest.raises(error):
            store.unpack(FileSource(make_zip(files)))
        assert entries(store) == work(store) == []

    def test_a_bomb_leaves_nothing(self, store: Store, make_zip: MakeZip, make_files: MakeFiles) -> None:
        path = make_zip(make_files({"bomb": bytes(40 << 20)}))
        with pytest.raises(ArchiveRefused, match="a bomb"):
            store.unpack(FileSource(path))
        with pytest.raises(ArchiveRefused, match="more than"):
            store.unpack(FileSource(path, limits=Limits(max_bytes=1000)))
        assert entries(store) == work(store) == []

    @pytest.mark.parametrize(
        "step",
        [
            "store.tempfile.mkdtemp",
            "store.copy_files",
            "store.compile_tree",
            "keeping.entry.render_biz_toml",
            "store.Path.rename",
        ],
    )
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_a_disk_that_refuses_at_any_step_leaves_nothing(
        self, store: Store, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch, step: str, number: int
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(f"koupleless.artifact.{step}", refuse)
            with pytest.raises(ArtifactError, match="nothing was kept") as caught:
                store.unpack(MemorySource(make_files()))
        words = "Input/output" if number == errno.EIO else "no space is left on the disk"
        assert words in str(caught.value)
        assert entries(store) == work(store) == []
        store.unpack(MemorySource(make_files()))

    @pytest.mark.skipif(os.geteuid() != 0, reason="a file system can only be mounted by root")
    def test_a_disk_that_is_really_full_leaves_nothing(self, tmp_path: Path, make_files: MakeFiles) -> None:
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", small], check=False)
        if mounted.returncode != 0:
            pytest.skip("mounting is not allowed here")
        try:
            with Store(small / "store") as store:
                with pytest.raises(ArtifactError, match="no space is left"):
                    store.unpack(MemorySource(make_files({"big": os.urandom(1 << 20)})))
                assert entries(store) == work(store) == []
                store.unpack(MemorySource(make_files()))
        finally:
            subprocess.run(["umount", small], check=True)

    def test_an_interrupt_leaves_nothing(
        self, store: Store, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(store_module, "compile_tree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.unpack(MemorySource(make_files()))
        assert entries(store) == work(store) == []

    def test_a_directory_that_others_may_write_to_is_no_store(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        with pytest.raises(ArtifactError, match="other users can write"):
            Store(tmp_path)

    def test_a_file_is_no_store(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ArtifactError, match="cannot use"):
            Store(tmp_path / "file")


class TestTogether:
    def test_threads_that_want_the_same_content_get_it_once(
        self, store: Store, make_zip: MakeZip, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_zip(make_files())
        copies, paths, together = [], set(), threading.Barrier(8)
        copy = copy_files

        def counted(*args: object) -> object:
            copies.append(1)
            return copy(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(store_module, "copy_files", counted)

        def take() -> None:
            together.wait(10)
            paths.add(store.unpack(FileSource(path)).path)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert (len(copies), len(paths)) == (1, 1)

    def test_two_stores_that_unpack_at_the_same_moment_both_succeed(
        self, store: Store, make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As two processes would: each finds nothing, both unpack, the second finds the first one's entry in place."""
        together = threading.Barrier(2)
        copy = copy_files

        def meet(*args: object) -> object:
            together.wait(10)
            return copy(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(store_module, "copy_files", meet)
        found = []
        with Store(store.root) as other:
            threads = [
                threading.Thread(
                    target=lambda which: found.append(which.unpack(MemorySource(make_files()))), args=(one,)
                )
                for one in (store, other)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert len({unpacked.path for unpacked in found}) == 1
            assert len(entries(store)) == 1
            assert [name for name in work(store) if TAG not in name] == []

    def test_processes_share_a_root(self, store: Store, make_zip: MakeZip, make_files: MakeFiles) -> None:
        path = make_zip(make_files())
        program = textwrap.dedent(
            """
            import sys
            from pathlib import Path
            from koupleless.artifact.source import source_for
            from koupleless.artifact.store import Store
            with Store(Path(sys.argv[1])) as store:
                print(store.unpack(source_for(Path(sys.argv[2]))).path)
            """
        )
        children = [
            subprocess.Popen([sys.executable, "-c", program, store.root, path], stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        outputs = {child.communicate(timeout=60)[0].strip() for child in children}
        assert outputs == {str(store.unpack(FileSource(path)).path)}
        assert len(entries(store)) == 1

    def test_what_a_killed_process_left_is_swept_by_the_next_that_opens(self, tmp_path: Path) -> None:
        program = textwrap.dedent(
            """
            import sys, tempfile, os
            from pathlib import Path
            from koupleless.artifact.store import Store
            store = Store(Path(sys.argv[1]))
            work = Path(tempfile.mkdtemp(prefix="work-", dir=store.scratch))
            (work / "half").write_text("x")
            print("ready", flush=True)
            sys.stdin.read()
            """
        )
        root = tmp_path / "store"
        child = subprocess.Popen(
            [sys.executable, "-c", program, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            with Store(root) as store:
                assert work(store) == ["half"], "a living process keeps its work"
            child.kill()
        with Store(root) as store:
            assert work(store) == []
            assert len(list((root / "sessions").iterdir())) == 1


class TestRemoving:
    def test_what_is_used_stays_until_it_is_released(self, store: Store, make_files: MakeFiles) -> None:
        one, two = store.unpack(MemorySource(make_files())), store.unpack(MemorySource(make_files()))
        assert store.remove_unused().digests == ()
        one.release()
        one.release()
        assert store.remove_unused().digests == ()
        two.release()
        removed = store.remove_unused()
        assert removed.digests == (two.digest,)
        assert removed.size_bytes > 0
        assert entries(store) == work(store) == []
        assert store.size_bytes() == 0

    def test_it_can_be_had_again_afterwards(self, store: Store, make_files: MakeFiles) -> None:
        store.unpack(MemorySource(make_files())).release()
        store.remove_unused()
        with store.unpack(MemorySource(make_files())) as unpacked:
            assert (unpacked.path / "hello" / "app.py").is_file()

    def test_what_another_process_uses_stays(self, store: Store, make_files: MakeFiles) -> None:
        with Store(store.root) as other:
            unpacked = other.unpack(MemorySource(make_files()))
            assert store.remove_unused().digests == ()
            assert unpacked.path.is_dir()
        assert store.remove_unused().digests == (unpacked.digest,)

    def test_the_newest_may_be_kept(self, store: Store, make_files: MakeFiles) -> None:
        made = [store.unpack(MemorySource(make_files({"more": b"%d" % number}))) for number in range(3)]
        for age, unpacked in enumerate(made):
            os.utime(unpacked.path.parent, (1_000_000 - age, 1_000_000 - age))
            unpacked.release()
        assert store.remove_unused(Retention(newest=3)).digests == ()
        removed = store.remove_unused(Retention(newest=1))
        assert removed.digests == (made[1].digest, made[2].digest), "the newest first"
        assert removed.identities == ("hello:1.0.0", "hello:1.0.0")
        assert entries(store) == [made[0].digest]

    def test_entries_not_used_for_long_go_and_the_oldest_of_a_large_store(
        self, store: Store, make_files: MakeFiles
    ) -> None:
        made = [store.unpack(MemorySource(make_files({"more": b"%d" % number * 10_000}))) for number in range(4)]
        now = time.time()
        for number, unpacked in enumerate(made[:3]):
            os.utime(unpacked.path.parent, (now - number * 1_000, now - number * 1_000))
            unpacked.release()
        one, two, three, used = (unpacked.digest for unpacked in made)
        assert store.remove_unused(Retention(newest=9, age_s=5_000, size_bytes=10_000_000)).digests == ()
        assert store.remove_unused(Retention(newest=9, age_s=1_500)).digests == (three,)
        size = store.size_bytes()
        assert store.remove_unused(Retention(newest=9, size_bytes=size)).digests == ()
        assert store.remove_unused(Retention(newest=9, size_bytes=size - 1)).digests == (two,)
        assert store.remove_unused(Retention(newest=9, size_bytes=0)).digests == (one,)
        assert entries(store) == [used]

    def test_needed_entries_stay_with_their_libraries(self, store: Store, make_files: MakeFiles) -> None:
        large = {"lib/large/data.bin": os.urandom(1 << 20), "lib/large/__init__.py": b""}
        with store.unpack(MemorySource(make_files(large))) as kept, store.unpack(MemorySource(make_files())):
            pass
        assert len(entries(store)) == 3
        removed = store.remove_unused(keep={kept.digest})
        assert len(removed.digests) == 1
        assert kept.digest in entries(store)
        assert len(entries(store)) == 2
        found = store.find(kept.digest)
        assert found is not None
        found.release()
        assert store.find("0" * 64) is None

    def test_the_books_of_bases_are_known_as_long_as_they_are_there(self, store: Store, tmp_path: Path) -> None:
        assert store.books() == []
        for name in ("one", "two", "one"):
            (tmp_path / name).touch()
            store.add_book(tmp_path / name)
        assert sorted(store.books()) == [tmp_path / "one", tmp_path / "two"]
        (tmp_path / "one").unlink()
        with Store(store.root) as other:
            assert other.books() == [tmp_path / "two"]

    def test_a_closed_store_leaves_no_session(self, tmp_path: Path, make_files: MakeFiles) -> None:
        store = Store(tmp_path / "store")
        unpacked = store.unpack(MemorySource(make_files()))
        store.close()
        store.close()
        unpacked.release()
        assert list((tmp_path / "store" / "sessions").iterdir()) == []
        assert unpacked.path.is_dir()


def test_objects_describe_themselves(store: Store, make_zip: MakeZip, make_files: MakeFiles) -> None:
    assert "hello:1.0.0" in repr(store.unpack(FileSource(make_zip(make_files()))))
    with zipfile.ZipFile(make_zip(make_files())) as archive:
        assert BIZ_TOML in archive.namelist()

"""A store whose files others remove and edit: noticed at the next use, made again, and told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.artifact.memory import MemorySource

from koupleless.artifact import store as store_module
from koupleless.artifact import temporary
from koupleless.artifact.keeping import bytecode
from koupleless.artifact.keeping.bytecode import TAG, bytecode_path
from koupleless.artifact.store import Store
from koupleless.artifact.temporary import temporary_directory
from koupleless.cli.commands import main
from koupleless.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.artifact.conftest import MakeFiles

    from koupleless.artifact.store import Unpacked

APP = "hello/app.py"


@pytest.fixture
def unpack(store: Store, make_files: MakeFiles) -> Callable[..., Unpacked]:
    def again(**options: Any) -> Unpacked:
        return store.unpack(MemorySource(make_files(**options)))

    return again


def edit(path: Path, data: bytes = b"def app():\n    return 'edited'\n") -> None:
    path.write_bytes(data)
    os.utime(path, (2_000_000_000, 2_000_000_000))


# --- entries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_used", [True, False], ids=["used", "unused"])
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param(lambda tree: (tree / APP).unlink(), APP, id="a module is missing"),
        pytest.param(lambda tree: (tree / "hello" / "data.txt").unlink(), "hello/data.txt", id="data is missing"),
        pytest.param(lambda tree: edit(tree / APP), APP, id="a module is edited"),
        pytest.param(lambda tree: edit(tree / bytecode_path(APP)), bytecode_path(APP), id="bytecode is edited"),
        pytest.param(lambda tree: shutil.rmtree(tree / "lib"), "lib/private/__init__.py", id="a directory is missing"),
        pytest.param(shutil.rmtree, "hello/__init__.py", id="all files are missing"),
        pytest.param(lambda tree: (tree.parent / "manifest.toml").write_text("x"), "manifest.toml", id="no manifest"),
        pytest.param(lambda tree: (tree.parent / "files.json").write_text("[1]"), "files.json", id="no inventory"),
        pytest.param(lambda tree: (tree.parent / "files.json").unlink(), "files.json", id="the inventory is missing"),
    ],
)
def test_what_was_removed_or_edited_is_unpacked_again_and_told(
    unpack: Callable[..., Unpacked], damage: Callable[[Path], object], named: str, is_used: bool
) -> None:
    first = unpack()
    assert first.notice is None
    if not is_used:
        first.release()
    damage(first.path)
    again = unpack()

    assert again.path == first.path
    assert (again.path / APP).read_bytes() == b"def app():\n    return 'hello'\n"
    assert (again.path / "lib" / "private" / "__init__.py").is_file()
    assert again.notice is not None
    assert named in again.notice
    assert "unpacked again" in again.notice
    assert unpack().notice is None
    assert [path.name for path in first.path.parent.parent.parent.joinpath("sessions").rglob("damaged-*")] == []


def test_an_entry_that_is_gone_is_made_again_without_a_word(unpack: Callable[..., Unpacked]) -> None:
    first = unpack()
    shutil.rmtree(first.path.parent)

    assert unpack().notice is None
    assert (first.path / APP).is_file()


@pytest.mark.parametrize("has_inventory", [True, False])
def test_what_a_module_has_written_is_no_damage_and_is_carried_over(
    unpack: Callable[..., Unpacked], has_inventory: bool
) -> None:
    first = unpack(extra={"hello/more.txt": b"more"})
    (first.path / "instance").mkdir()
    (first.path / "instance" / "db").write_bytes(b"rows")
    edit(first.path / "hello" / "data.txt", b"changed")
    assert unpack(extra={"hello/more.txt": b"more"}).notice is None
    (first.path / APP).unlink()
    if not has_inventory:
        (first.path.parent / "files.json").unlink()
    again = unpack(extra={"hello/more.txt": b"more"})

    assert again.notice is not None
    assert (again.path / "instance" / "db").read_bytes() == b"rows"
    assert (again.path / "hello" / "data.txt").read_bytes() == b"changed"
    assert sorted(map(str, again.written())) == ["hello/data.txt", "instance/db"]


def test_an_entry_that_others_remove_meanwhile_is_made_again(
    store: Store, unpack: Callable[..., Unpacked], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(store.root) as other:
        make = store._make
        removals: list[tuple[str, ...]] = []

        def then_removed(*arguments: Any) -> None:
            make(*arguments)
            if len(removals) < 3:
                removals.append(other.remove_unused().digests)

        monkeypatch.setattr(store, "_make", then_removed)
        unpacked = unpack()

    assert (unpacked.path / APP).is_file()
    assert len(removals) == 3
    assert all(removals)


def test_an_entry_that_is_removed_for_ever_is_an_error(
    store: Store, unpack: Callable[..., Unpacked], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = store._make
    monkeypatch.setattr(store, "_make", lambda *arguments: (make(*arguments), store.remove_unused()))
    with pytest.raises(ArtifactError, match="was removed from the store"):
        unpack()


# --- the store's own directories ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["sessions", "session", "alive", "tag", "root", "lock"])
def test_a_directory_of_a_running_store_that_is_removed_is_made_again(
    store: Store, unpack: Callable[..., Unpacked], what: str
) -> None:
    first = unpack()
    {
        "sessions": lambda: shutil.rmtree(store.root / "sessions"),
        "session": lambda: shutil.rmtree(store._session.directory),
        "alive": (store._session.directory / "alive").unlink,
        "tag": lambda: shutil.rmtree(store.root / TAG),
        "root": lambda: shutil.rmtree(store.root),
        "lock": (store.root / "lock").unlink,
    }[what]()

    assert unpack(version="2.0.0").path.is_dir()
    assert (unpack().path / APP).is_file()
    assert store.scratch.is_dir()
    with Store(store.root) as other:
        assert other.remove_unused().digests == (), "what was in use before is still known to be"
        assert store.scratch.is_dir()
    first.release()


def test_directories_that_go_while_an_artefact_is_unpacked_are_made_again(
    store: Store, unpack: Callable[..., Unpacked], monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_tree = bytecode.compile_tree
    times = []

    def and_remove(*arguments: Any) -> None:
        compile_tree(*arguments)
        times.append(1)
        if len(times) < 3:
            shutil.rmtree(store.root)

    monkeypatch.setattr(store_module, "compile_tree", and_remove)

    assert (unpack().path / APP).is_file()
    assert len(times) == 3


def test_a_closed_store_makes_nothing_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.close()
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(ArtifactError):
        store.unpack(MemorySource({}))


def test_nothing_of_a_manifest_is_kept_when_its_entry_is_given_back(store: Store, make_files: MakeFiles) -> None:
    with store.unpack(MemorySource(make_files())) as unpacked:
        manifest = unpacked.manifest
    del unpacked
    referrers = [value for value in vars(store).values() if isinstance(value, dict) and manifest in value.values()]

    assert referrers == []


# --- verifying ------------------------------------------------------------------------------------------------------


def test_verifying_reads_all_and_has_what_is_damaged_unpacked_again(
    store: Store, unpack: Callable[..., Unpacked]
) -> None:
    unpacked, other = unpack(), unpack(version="2.0.0")
    times = (unpacked.path / APP).stat()
    (unpacked.path / APP).write_bytes(b"def app():\n    return 'jello'\n")
    os.utime(unpacked.path / APP, ns=(times.st_atime_ns, times.st_mtime_ns))
    (unpacked.path / "notes").write_text("mine")
    assert unpack().notice is None, "size and time are as they were"
    found = {one.digest: one for one in store.verify()}

    assert found[unpacked.digest].identity == "hello:1.0.0"
    assert found[unpacked.digest].damaged == (APP,)
    assert found[unpacked.digest].written == ("notes",)
    assert (found[other.digest].damaged, found[other.digest].written) == ((), ())
    again = unpack()
    assert again.notice is not None
    assert b"hello" in (again.path / APP).read_bytes()
    assert (again.path / "notes").read_text() == "mine"
    assert [one.damaged for one in store.verify()] == [(), ()]


def test_who_has_seen_it_fail_can_ask_whether_it_is_damaged(unpack: Callable[..., Unpacked]) -> None:
    unpacked = unpack()
    assert unpacked.damage() is None
    times = (unpacked.path / APP).stat()
    (unpacked.path / APP).write_bytes(b"def app():\n    return 'jello'\n")
    os.utime(unpacked.path / APP, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (
        unpacked.damage()
        == f"unpacked files of the module were changed ({APP}), and are unpacked again at the next install"
    )
    assert b"hello" in (unpack().path / APP).read_bytes()
    assert unpacked.damage() is None


# --- temporary directories ------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_goes_with_the_next_one(place: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from koupleless.artifact.temporary import temporary_directory
        with temporary_directory("koupleless-store-") as directory:
            (directory / "half").write_text("x")
            print(directory, flush=True)
            sys.stdin.read()
        """
    )
    environment = {**os.environ, "TMPDIR": str(place)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        with temporary_directory("koupleless-store-"), temporary_directory("koupleless-other-"):
            assert left.is_dir(), "its process lives"
        child.kill()
        child.wait()
    assert left.is_dir()
    with temporary_directory("koupleless-other-"):
        assert left.is_dir(), "it is of another kind"
    with temporary_directory("koupleless-store-") as directory:
        assert not left.exists()
        assert directory.is_dir()
    assert list(place.iterdir()) == []


def test_what_is_nobodys_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "koupleless-store-file").write_text("x")
    (place / "koupleless-store-young").mkdir()
    (place / "elsewhere").mkdir()
    (place / "koupleless-store-link").symlink_to(place / "elsewhere")
    (place / "koupleless-store-old").mkdir()
    os.utime(place / "koupleless-store-old", (1, 1))
    temporary.sweep("koupleless-store-")

    assert {path.name for path in place.iterdir()} == {
        "koupleless-store-file",
        "koupleless-store-young",
        "koupleless-store-link",
        "elsewhere",
    }


def test_a_base_sweeps_all_kinds_and_no_directory_of_others_with_such_a_name(place: Path) -> None:
    for kind in temporary.KINDS:
        for name, files in (("left", ["held", "work/half"]), ("begun", ["unheld"]), ("mine", ["notes"])):
            for file in files:
                (place / f"{kind}{name}" / file).parent.mkdir(parents=True, exist_ok=True)
                (place / f"{kind}{name}" / file).write_text("x")
            os.utime(place / f"{kind}{name}", (1, 1))
    (place / "koupleless-notes").mkdir()
    with temporary_directory("koupleless-store-") as alive:
        temporary.sweep_all()

        left = {path.name for path in place.iterdir()} - {alive.parent.name}
    assert left == {"koupleless-notes", *(f"{kind}mine" for kind in temporary.KINDS)}


def test_many_at_once_take_nothing_from_each_other(place: Path) -> None:
    failures = []

    def work() -> None:
        try:
            for _ in range(60):
                with temporary_directory("koupleless-store-") as directory:
                    (directory / "file").write_text("x")
                    temporary.sweep("koupleless-store-")
                    assert (directory / "file").read_text() == "x"
        except BaseException as error:  # noqa: BLE001 - of another thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failures == []
    assert list(place.iterdir()) == []


def test_the_command_line_verifies_a_store(
    tmp_path: Path, make_files: MakeFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "store"
    with Store(root) as store:
        path = store.unpack(MemorySource(make_files())).path
    assert main(["store", "verify", str(root)]) == 0
    assert "hello:1.0.0  as it was" in capsys.readouterr().out
    (path / APP).write_bytes(b"x")
    (path / "notes").write_bytes(b"x")
    assert main(["store", "verify", str(root)]) == 1
    said = "hello:1.0.0  damaged, unpacked again at its next use: hello/app.py; written since: notes"
    assert said in capsys.readouterr().out
    assert main(["store", "verify", str(tmp_path / "nowhere")]) != 0
    assert "is no directory" in capsys.readouterr().err


def test_the_command_line_cleans_a_store_of_all_but_what_is_used_and_was_used_last(
    tmp_path: Path, make_files: MakeFiles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    with Store(root) as store:
        used = store.unpack(MemorySource(make_files(version="9.0.0")))
        made = [store.unpack(MemorySource(make_files(version=f"{number}.0.0"))) for number in range(1, 4)]
        for number, unpacked in enumerate(made):
            os.utime(unpacked.path.parent, (1_000_000 + number, 1_000_000 + number))
            unpacked.release()
        assert main(["store", "clean", str(root), "--keep", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split("  ")[1:] for line in lines[:-1]] == [["hello:2.0.0", "removed"], ["hello:1.0.0", "removed"]]
        assert lines[-1].endswith("left")
        assert used.path.is_dir()
        assert made[2].path.is_dir()
        monkeypatch.chdir(tmp_path)
        (tmp_path / "koupleless.toml").write_text('[base]\nstore-dir = "store"\nstore-keep = 1\n')
        assert main(["store", "clean"]) == 0
        assert capsys.readouterr().out.count("removed") == 0, "the settings keep one"
        assert main(["store", "clean", "--keep", "0"]) == 0
        assert "hello:3.0.0  removed" in capsys.readouterr().out
        assert used.path.is_dir()
    assert main(["store", "clean", str(tmp_path / "nowhere")]) != 0
    assert "is no directory" in capsys.readouterr().err

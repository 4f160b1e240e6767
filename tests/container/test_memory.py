"""Memory that goes back to the system, and what a report says of libraries that stay."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import subprocess
import sys
import textwrap
import types
import weakref
from typing import TYPE_CHECKING

import prometheus_client
import pytest
from tests.isolation.test_distributions import wheel

from koupleless.adapters import door
from koupleless.adapters.containers import own_containers
from koupleless.adapters.variables import own_variables
from koupleless.artifact.build import Options, build_project
from koupleless.container.leaving import memory
from koupleless.ownership import caches
from koupleless.recorders import door as recorders

if TYPE_CHECKING:
    from pathlib import Path

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc and madvise are of Linux")


def test_it_is_given_back_after_much_was_freed_and_not_after_little(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []
    monkeypatch.setattr(memory, "give_back", lambda: given.append(True))
    with memory.returned_if_much():
        [[] for _ in range(100)].clear()
    assert given == []
    kept: list[list[int]] = [[] for _ in range(2 * memory.MUCH)]
    with memory.returned_if_much():
        kept.clear()
    assert given == [True]


def test_a_c_library_that_is_not_glibc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError(f"unrecognized configuration name {name}")

    monkeypatch.setattr("os.confstr", unknown)
    memory._glibc.cache_clear()
    try:
        assert memory.give_back() is False
    finally:
        memory._glibc.cache_clear()


@ON_LINUX
def test_pages_of_compiled_files_leave_and_are_read_again(tmp_path: Path) -> None:
    """In a process of its own, of a file that no other process has mapped: such pages stay."""
    content = os.urandom(8 << 20)
    (tmp_path / "compiled.so").write_bytes(content)
    program = f"""
        import mmap
        from pathlib import Path
        from koupleless.container.leaving.memory import page_out

        def of_files():
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssFile"):
                    return int(line.split()[1])

        with open({str(tmp_path / "compiled.so")!r}, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
        content = bytes(mapped)
        page_out(["/nowhere"])  # what it needs itself is loaded
        before = of_files()
        assert page_out([{str(tmp_path)!r}]) == 1
        after = of_files()
        assert bytes(mapped) == content
        assert page_out([]) == page_out(["/nowhere"]) == page_out([{str(tmp_path)[:-1]!r}]) == 0
        print(before - after)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 > len(content) / 2


def test_free_memory_really_goes_back() -> None:
    program = """
        from koupleless.container.leaving.memory import give_back
        from koupleless.container.process import resident_bytes

        kept = [bytearray(100_000) for _ in range(300)]  # of the C library, below what it maps one by one
        guard = bytearray(100_000)
        del kept
        before = resident_bytes()
        gave = give_back()
        print(gave, before - resident_bytes())
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    gave, returned = done.stdout.split()
    if memory._glibc() is not None:
        assert gave == "True"
        assert int(returned) > 20_000_000


# --- what stays -----------------------------------------------------------------------------------------------------


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    """``heavy(source)`` is a library that the base has installed, and that modules share."""
    place = tmp_path / "site"

    def write(source):
        place.mkdir()
        for name, text in wheel("remaining-heavy", "2.0", {"remaining_heavy.py": source}).items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(text)
        monkeypatch.syspath_prepend(str(place))

    yield write
    sys.modules.pop("remaining_heavy", None)
    vars(sys).pop("heavy", None)


HELD = "import sys\nsys.heavy = vars()\n"


def using(directory, name):
    """The artefact of a module that shares the library with the base."""
    project = directory / name
    project.mkdir()
    (project / "app.py").write_text("import remaining_heavy\n\ndef app(environ, start_response):\n    return []\n")
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1"\n'
        '[tool.koupleless.module]\nentry = "app:app"\nshared = ["remaining-heavy"]\n'
    )
    return str(build_project(project, Options(out=directory)).path)


def test_the_last_user_s_report_names_what_stays_and_so_does_the_base(world, heavy, tmp_path):
    def sizes():
        text = prometheus_client.generate_latest().decode()
        return [line for line in text.splitlines() if line.startswith("koupleless_resident_bytes{")]

    heavy(HELD)
    for name in ("first", "second"):
        world.container.install(world.container.prepare(using(tmp_path, name)))
    first, second = (info.id for info in world.container.bizs())
    (resident,) = (one for one in world.container.residents() if one.name == "remaining-heavy")
    assert (resident.version, resident.modules, resident.users) == ("2.0", 1, ("first:1", "second:1"))
    assert any('library="remaining-heavy"' in line for line in sizes())
    assert world.container.uninstall(first).stays == ()
    report = world.container.uninstall(second)
    assert report.clean, report.summary()
    assert [(one.name, one.version) for one in report.stays] == [("remaining-heavy", "2.0")]
    (resident,) = (one for one in world.container.residents() if one.name == "remaining-heavy")
    assert resident.is_idle
    world.container.install(world.container.prepare(using(tmp_path, "third")))
    assert [one.name for one in world.container.uninstall(world.container.bizs()[0].id).stays] == ["remaining-heavy"]
    world.container.close()
    assert sizes() == []


def test_a_library_that_nobody_holds_goes_with_its_last_user_and_comes_again(world, heavy, tmp_path):
    heavy("class Thing:\n    def me(self):\n        return Thing\nthings = [Thing()]\n")
    for name in ("first", "second"):
        world.container.install(world.container.prepare(using(tmp_path, name)))
    kind = weakref.ref(sys.modules["remaining_heavy"].Thing)
    first, second = (info.id for info in world.container.bizs())
    assert world.container.uninstall(first).stays == ()
    assert kind() is not None
    report = world.container.uninstall(second)
    assert report.clean, report.summary()
    assert report.stays == ()
    assert kind() is None
    assert "remaining_heavy" not in sys.modules
    assert not any(one.name == "remaining-heavy" for one in world.container.residents())
    world.container.install(world.container.prepare(using(tmp_path, "third")))
    assert sys.modules["remaining_heavy"].things[0].me().__name__ == "Thing"
    assert any(one.name == "remaining-heavy" for one in world.container.residents())


FOLLOWED = """
limit = 1
kinds = {}

class Thing:
    def register(self, kind):
        kinds[kind] = self

def read():
    return limit, sorted(kinds)
"""


def test_a_library_that_an_adapter_and_a_recorder_follow_goes_and_is_followed_again(
    make_world, heavy, tmp_path, monkeypatch, request
):
    """The functions that follow it refer to it; they leave before it is asked who does.

    As in ``arkctl serve``, which freezes the base: in a heap that is too large to be collected the library stays.
    """

    def follow(undo, module):
        own_variables(undo, module, "limit")
        own_containers(undo, module, "kinds")

    def record(patches, module):
        patches.replace(module.Thing, "register", functools.partialmethod)

    def install(patches):
        patches.when_imported("remaining_heavy", record)

    heavy(FOLLOWED)
    monkeypatch.setattr(door, "KNOWN", (types.SimpleNamespace(follow={"remaining_heavy": follow}),))
    monkeypatch.setattr(recorders, "RECORDERS", (*recorders.RECORDERS, install))
    world = make_world()
    monkeypatch.setattr(caches, "_blocks_frozen", 0)
    request.addfinalizer(gc.unfreeze)
    caches.freeze_base()
    kinds = []
    for name in ("first", "second"):
        world.container.install(world.container.prepare(using(tmp_path, name)))
        library = sys.modules["remaining_heavy"]
        assert type(vars(library.Thing)["register"]) is functools.partialmethod
        assert type(library.kinds) is not dict
        kinds.append(weakref.ref(library.Thing))
        del library
        report = world.container.uninstall(world.container.bizs()[0].id)
        assert report.clean, report.summary()
        assert report.stays == ()
        assert kinds[-1]() is None
    held = importlib.import_module("remaining_heavy")
    world.container.install(world.container.prepare(using(tmp_path, "third")))
    world.container.uninstall(world.container.bizs()[0].id)
    assert sys.modules["remaining_heavy"] is held
    assert type(held.kinds) is not dict  # still followed, as before the question


def test_a_library_of_which_the_base_has_imported_something_itself_stays(world, heavy, tmp_path):
    heavy("value = 1\n")
    vars(importlib.import_module("remaining_heavy"))["value"] = 2  # which nobody else remembers
    world.container.install(world.container.prepare(using(tmp_path, "first")))
    world.container.uninstall(world.container.bizs()[0].id)
    assert sys.modules["remaining_heavy"].value == 2

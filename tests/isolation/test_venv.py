"""The virtual environment of a biz on the disk. What children find in it is tested with real ones, elsewhere."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from koupleless.isolation.environment.venv import VirtualEnvironment
from koupleless.isolation.policy import Policy


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """The directories of a biz: a program, and a library with a script, and a link to another place in a ``.pth``."""
    files = {
        "program/shop.py": "NAME = 'shop'\n",
        "lib/tool/__init__.py": "import sys\nclass Main:\n    run = lambda: print('tool', sys.argv[1:])\n",
        "lib/tool-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: tool\nVersion: 1\n",
        "lib/tool-1.dist-info/RECORD": "tool/__init__.py,,\n",
        "lib/tool-1.dist-info/entry_points.txt": "[console_scripts]\ntool = tool:Main.run [extra]\n[other]\nx = y\n",
        "lib/elsewhere.pth": f"{tmp_path / 'elsewhere'}\n",
        "elsewhere/linked.py": "NAME = 'linked'\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return [str(tmp_path / "program"), str(tmp_path / "lib")]


def run(*command: object) -> str:
    return subprocess.check_output([*map(str, command)], text=True, env={}, cwd="/").strip()


@pytest.mark.parametrize("place", ["venv", "with a space", "a" * 150])
def test_interpreter_and_scripts_work_wherever_it_lies(tmp_path: Path, own: list[str], place: str) -> None:
    venv = VirtualEnvironment(tmp_path / place, own, Policy())
    venv.make()
    assert run(venv.scripts / "tool", "a", "b c") == "tool ['a', 'b c']"
    text = "import shop, linked, sys; print(shop.NAME, linked.NAME, sys.executable, sys.prefix)"
    assert run(venv.executable, "-I", "-c", text) == f"shop linked {venv.executable} {venv.prefix}"


def test_without_site_there_are_no_libraries_as_in_any_virtual_environment(tmp_path: Path, own: list[str]) -> None:
    venv = VirtualEnvironment(tmp_path / "venv", own, Policy())
    venv.make()
    assert run(venv.executable, "-S", "-c", "import importlib.util as u; print(u.find_spec('shop'))") == "None"


def test_the_entry_of_a_program_itself_stays_before_those_of_the_biz(tmp_path: Path, own: list[str]) -> None:
    venv = VirtualEnvironment(tmp_path / "venv", own, Policy())
    venv.make()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "shop.py").write_text("NAME = 'beside the script'\n")
    (tmp_path / "scripts" / "run.py").write_text("import shop, sys; print(shop.NAME, sys.path[0])\n")
    assert run(venv.executable, tmp_path / "scripts" / "run.py") == f"beside the script {tmp_path / 'scripts'}"


@pytest.mark.parametrize("name", ["gc", "zipimport", "shop"])
def test_the_first_import_of_a_program_may_be_of_anything(tmp_path: Path, own: list[str], name: str) -> None:
    venv = VirtualEnvironment(tmp_path / "venv", own, Policy(declared=frozenset({"koupleless"})))
    venv.make()
    assert run(venv.executable, "-c", f"import {name} as m; print(m.__name__)") == name


def test_it_is_made_once_by_many_threads_and_removed(tmp_path: Path, own: list[str]) -> None:
    venv = VirtualEnvironment(tmp_path / "venv", own, Policy())
    together = threading.Barrier(6)

    def make(_: int) -> None:
        together.wait()
        venv.make()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(make, range(6)))
    assert run(venv.executable, "-c", "import shop; print(shop.NAME)") == "shop"
    before = (venv.prefix / "pyvenv.cfg").stat().st_mtime_ns
    VirtualEnvironment(tmp_path / "venv", own, Policy()).make()  # as a process would that was forked earlier
    assert (venv.prefix / "pyvenv.cfg").stat().st_mtime_ns == before
    venv.remove()
    venv.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "lib", "program"]
    venv.make()
    assert venv.executable.exists()


def test_a_disk_that_refuses_leaves_nothing(tmp_path: Path, own: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    venv = VirtualEnvironment(tmp_path / "places" / "venv", own, Policy())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fail)
        with pytest.raises(OSError, match="No space"):
            venv.make()
    assert list((tmp_path / "places").iterdir()) == []
    venv.make()
    assert run(venv.executable, "-c", "import shop; print(shop.NAME)") == "shop"


def test_a_process_without_an_interpreter_of_its_own_cannot_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_base_executable", "")
    with pytest.raises(FileNotFoundError, match="interpreter of this process is not known"):
        VirtualEnvironment(tmp_path / "venv", (), Policy()).make()
    assert list(tmp_path.iterdir()) == []


def test_in_declared_mode_a_namespace_that_distributions_share_is_put_together(
    tmp_path: Path, own: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    for name, needs in {"one": "Requires-Dist: space.two\n", "two": "", "three": ""}.items():
        (site / "space" / name).mkdir(parents=True)
        (site / "space" / name / "__init__.py").write_text("")
        info = site / f"space.{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: space.{name}\nVersion: 1\n{needs}")
        (info / "RECORD").write_text(f"space/{name}/__init__.py,,\n{info.name}/METADATA,,\n")
    (site / "plain.py").write_text("")
    (site / "secret.py").write_text("")
    monkeypatch.syspath_prepend(str(site))
    venv = VirtualEnvironment(tmp_path / "venv", own, Policy(declared=frozenset({"space.one", "plain"})))
    venv.make()
    text = (
        "import importlib.util as u, shop, tool, plain, space.one, space.two; print([u.find_spec(n) for n in "
        "('space.three', 'secret', 'pytest')])"
    )
    assert run(venv.executable, "-c", text) == "[None, None, None]"

"""Modules whose unpacked files others have changed."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.artifact.manifest import BIZ_TOML, MARK, Manifest, render_biz_toml
from koupleless.biz import BizId
from koupleless.container.terms import Strategy
from koupleless.errors import StartFailed
from koupleless.isolation import codes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.container.conftest import World


def code_of(world: World) -> Path:
    (info,) = (info for info in world.container.bizs() if not info.is_base)
    return next(path for path in world.store.root.rglob("app.py") if str(path).startswith(info.work_dir))


def test_an_install_says_that_files_had_to_be_unpacked_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert world.install("hello-1.0").warnings == ()
    code = code_of(world)
    code.unlink()
    (warning, *others) = world.install("hello-1.0", strategy=Strategy.UNINSTALL_THEN_INSTALL).warnings
    assert others == []

    assert "hello/app.py" in warning
    assert "unpacked again" in warning
    assert warning in caplog.text
    assert world.get("/hello/").status_code == 200
    assert code.is_file()


def test_a_private_library_that_the_store_knows_is_not_read_to_know_its_text(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "_digest", lambda path: pytest.fail(f"read {path}"))
    for name in ("first", "second"):
        files = {"app.py": b"import private_library\n", "lib/private_library.py": b""}
        manifest = Manifest(id=BizId.of(name, "1.0"), entry="app", web_context_path=f"/{name}")
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for place, data in {BIZ_TOML: render_biz_toml(manifest).encode(), MARK: b"", **files}.items():
                archive.writestr(place, data)
        world.container.install(world.container.prepare(str(tmp_path / f"{name}.zip")))
    assert world.states() == {"first:1.0": "ACTIVATED", "second:1.0": "ACTIVATED"}


def test_a_store_that_was_removed_under_a_running_base_is_made_again(world: World) -> None:
    import shutil

    world.install("hello-1.0")
    shutil.rmtree(world.store.root)
    assert world.get("/hello/").status_code == 200
    world.install("hello-1.1", strategy=Strategy.REPLACE)
    assert world.get("/hello/").status_code == 200
    assert world.states() == {"hello:1.1": "ACTIVATED"}


def test_a_start_that_fails_on_changed_code_says_so_and_the_next_one_is_unpacked_again(world: World) -> None:
    world.install("hello-1.0")
    code = code_of(world)
    world.container.uninstall(BizId.parse("hello:1.0"))
    for path in [code, *code.parent.glob("__pycache__/app.*")]:  # of the same size and time, so that nothing tells
        status, data = path.stat(), path.read_bytes()
        path.write_bytes(bytes(len(data)))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(
        StartFailed, match=r"unpacked files of the module were changed .hello/.*unpacked again at the next install"
    ):
        world.install("hello-1.0")
    (warning,) = world.install("hello-1.0").warnings

    assert "unpacked again" in warning
    assert world.get("/hello/").status_code == 200


def test_a_start_that_fails_by_itself_says_nothing_of_files(world: World) -> None:
    def words(error: Any) -> str:
        return str(error.value)

    with pytest.raises(StartFailed) as caught:
        world.install("broken-import-1.0")
    assert "unpacked" not in words(caught)

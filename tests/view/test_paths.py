"""Relative paths of a module: from its own directory, over the files of its artefact, in all code that works for it."""

# ruff: noqa: PTH100, PTH101, PTH110, PTH102, PTH103, PTH104, PTH107, PTH109, PTH112, PTH115, PTH116, PTH123, PTH207, PTH208, PTH211

from __future__ import annotations

import bz2
import contextlib
import functools
import glob
import importlib.util
import io
import os
import pathlib
import pickle
import runpy
import shutil
import sqlite3
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import tokenize
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, call_as, entered
from koupleless.view.data import DataDirectory
from koupleless.view.environ import ENVIRON, Environment
from koupleless.view.paths import PATHS
from koupleless.view.shared.guest import begin
from koupleless.view.shared.process import GUARDS
from koupleless.view.working import WorkingDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = ("open", "stat", "listdir", "scandir", "rename", "getcwd", "chdir", "fchdir")
ORIGINALS = {name: getattr(os, name) for name in NAMES}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Scope]]:
    """Make a module with ``page.txt`` and ``templates/x.html`` in its artefact; the base is somewhere else."""
    here = tmp_path / "base"
    here.mkdir()
    monkeypatch.chdir(here)

    def scope(name: str) -> Scope:
        code = tmp_path / "code" / name
        (code / "templates").mkdir(parents=True)
        (code / "templates" / "x.html").write_text(f"template of {name}")
        (code / "page.txt").write_text(f"page of {name}")
        (code / "biz.toml").write_text("")
        made = Scope(BizId.of(name, "1"))
        made.attach(Environment(made))
        data = DataDirectory(tmp_path / "data" / name, code)
        made.attach(data)
        made.attach(WorkingDirectory(data, code))
        return made

    begin()
    hooks = (ENVIRON, PATHS, GUARDS)
    for hook in hooks:
        hook.acquire()
    try:
        yield scope
    finally:
        for hook in reversed(hooks):
            hook.release()
    assert {name: getattr(os, name) for name in ORIGINALS} == ORIGINALS
    assert open is io.open
    assert isinstance(open, types.BuiltinFunctionType)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data" / "shop"


@pytest.fixture
def shop(make: Callable[[str], Scope]) -> Scope:
    return make("shop")


def inside(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test as the module; the fixtures, and what pytest does around them, are of the base."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        with entered(fixtures["shop"]):
            test(**fixtures)

    return run


@inside
def test_what_is_written_is_in_the_data_directory(shop: Scope, data: Path, tmp_path: Path) -> None:
    with open("a.txt", "w") as file:
        file.write("a")
    assert file.name == "a.txt"
    Path("b.txt").write_text("b")
    os.makedirs("deep/er")
    shutil.copy("a.txt", "deep/er/c.txt")
    os.rename("b.txt", "deep/d.txt")
    os.symlink("d.txt", "deep/link")
    descriptor, path = tempfile.mkstemp(dir="deep")
    os.close(descriptor)
    os.remove(path)
    with tarfile.open("x.tar.bz2", "w:bz2") as archive:
        archive.add("a.txt")
    with bz2.open("y.bz2", "wt") as packed:
        packed.write("y")
    with entered(None):
        found = sorted(str(place.relative_to(data)) for place in data.rglob("*"))
    assert found == ["a.txt", "deep", "deep/d.txt", "deep/er", "deep/er/c.txt", "deep/link", "x.tar.bz2", "y.bz2"]
    assert Path("deep/link").read_text() == "b"
    assert list((tmp_path / "base").iterdir()) == []


@inside
def test_files_of_the_artefact_are_found_and_never_changed(shop: Scope, data: Path, tmp_path: Path) -> None:
    code = tmp_path / "code" / "shop"
    positional: list[Any] = ["r", -1, None, None, None, True, None]
    with open("page.txt", *positional) as page:
        assert page.read() == "page of shop"
    assert Path("templates/x.html").read_text() == "template of shop"
    assert os.path.isdir("templates")
    assert os.access("page.txt", os.R_OK)
    with entered(None):
        assert not data.exists()
    with open("page.txt", "a") as file:
        file.write("!")
    with Path("templates/x.html").open("r+") as file:
        file.write("T")
    os.chmod("templates", 0o700)
    assert (code / "page.txt").read_text() == "page of shop"
    assert (code / "templates" / "x.html").read_text() == "template of shop"
    assert Path("page.txt").read_text() == (data / "page.txt").read_text() == "page of shop!"
    assert Path("templates/x.html").read_text() == "Template of shop"
    (code / "new.txt").write_text("")
    with pytest.raises(FileExistsError):
        open("new.txt", "x")  # noqa: SIM115
    Path("new.txt").write_text("mine")
    assert (code / "new.txt").read_text() == ""


@inside
def test_absolute_paths_of_the_directory_show_the_artefact_too(shop: Scope, data: Path) -> None:
    for path in (Path("templates").absolute(), Path("templates").resolve(), Path(os.path.realpath("templates"))):
        assert path == data / "templates"
        assert (path / "x.html").read_text() == "template of shop"
        assert [each.name for each in path.iterdir()] == ["x.html"]
    assert Path.cwd() == data
    assert os.getcwd() == os.path.abspath(".") == str(data)
    assert os.getcwdb() == os.fsencode(data)
    assert data.is_dir()


@inside
def test_listings_show_both_places_and_no_machinery(shop: Scope, data: Path) -> None:
    Path("templates").mkdir()
    Path("templates/y.html").write_text("y")
    Path("page.txt").write_text("mine")
    assert sorted(os.listdir()) == sorted(os.listdir(".")) == ["page.txt", "templates"]
    assert sorted(os.listdir(b"templates")) == [b"x.html", b"y.html"]
    both = ["templates/x.html", "templates/y.html"]
    assert sorted(glob.glob("templates/*.html")) == sorted(map(str, Path("templates").glob("*.html"))) == both
    assert sorted(glob.glob("**/*.html", recursive=True)) == sorted(map(str, Path().rglob("*.html"))) == both
    walked = [(top, sorted(inner), sorted(names)) for top, inner, names in os.walk(".")]
    assert walked == [(".", ["templates"], ["page.txt"]), ("./templates", [], ["x.html", "y.html"])]
    with os.scandir("templates") as entries:
        found = {entry.name: entry for entry in entries}
    assert {entry.path for entry in found.values()} == set(both)
    assert all(entry.is_file() and not entry.is_dir() and entry.stat().st_size for entry in found.values())
    assert Path(found["x.html"]).read_text() == "template of shop"
    with pytest.raises(FileNotFoundError):
        os.listdir("nowhere")
    with pytest.raises(FileNotFoundError):
        os.scandir("nowhere")
    with pytest.raises(NotADirectoryError):
        os.listdir("page.txt")


@inside
def test_what_is_not_there_is_told_as_alone(shop: Scope) -> None:
    looks: list[Any] = [open, os.stat, os.listdir, os.remove, os.chmod, os.rmdir, os.readlink]
    for look in looks:
        with pytest.raises(FileNotFoundError):
            look("nowhere", *([0o600] if look is os.chmod else []))
    for path in ("", "nowhere/x"):
        with pytest.raises(FileNotFoundError):
            open(path, "w")  # noqa: SIM115
    assert not Path("nowhere").exists()
    with pytest.raises(TypeError):
        os.stat(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="null"):
        open("a\0b")  # noqa: SIM115


@inside
def test_paths_that_lead_out_are_what_they_are_alone(shop: Scope, data: Path, tmp_path: Path) -> None:
    Path("../beside.txt").write_text("out")
    assert (tmp_path / "data" / "beside.txt").read_text() == "out"
    os.symlink(tmp_path / "base", "link")
    Path("link/x").write_text("through a link")
    assert (tmp_path / "base" / "x").read_text() == "through a link"
    assert (tmp_path / "base" / "x").exists()
    with open(os.devnull) as nothing, open(nothing.fileno(), closefd=False) as again:
        assert again.read() == ""


@inside
def test_a_change_of_directory_is_the_modules_alone(shop: Scope, make: Callable[[str], Scope], tmp_path: Path) -> None:
    other = make("other")
    base = ORIGINALS["getcwd"]()
    os.mkdir("sub")
    with contextlib.chdir("sub"):
        Path("here.txt").write_text("")
        assert os.getcwd() == str(tmp_path / "data" / "shop" / "sub")
        assert sorted(os.listdir("..")) == ["page.txt", "sub", "templates"]
        os.chdir("../templates")
        assert os.listdir() == ["x.html"]
        with pytest.raises(FileNotFoundError):
            os.chdir("nowhere")
        with pytest.raises(NotADirectoryError):
            os.chdir("x.html")
    descriptor = os.open("sub", os.O_RDONLY)
    os.fchdir(descriptor)
    os.close(descriptor)
    assert os.listdir() == ["here.txt"]
    with entered(other):
        assert Path("page.txt").read_text() == "page of other"
        assert os.getcwd() == str(tmp_path / "data" / "other")
    with entered(None):
        assert os.getcwd() == base


def test_two_modules_on_threads_keep_their_files_apart(make: Callable[[str], Scope], tmp_path: Path) -> None:
    wrong: list[str] = []

    def work(name: str) -> None:
        for number in range(50):
            Path(f"{number}.txt").write_text(name)
            if Path(f"{number}.txt").read_text() != name or Path("page.txt").read_text() != f"page of {name}":
                wrong.append(name)

    scopes = {name: make(name) for name in ("one", "two")}
    threads = [threading.Thread(target=call_as, args=(scope, work, name)) for name, scope in scopes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(list((tmp_path / "data" / "two").iterdir())) == 50


@inside
def test_databases_are_where_files_are(shop: Scope, data: Path, tmp_path: Path) -> None:
    code = tmp_path / "code" / "shop"
    with entered(None):
        seed = sqlite3.connect(code / "seed.db")
        seed.execute("create table t(x)")
        seed.commit()
        seed.close()
    for path in (
        "app.db",
        "seed.db",
        str(data / "seed.db"),
        b"bytes.db",
        str(code / "inside.db"),
        str(code / "seed.db"),
    ):
        connection = sqlite3.connect(path)
        connection.execute("create table if not exists t(x)")
        connection.execute("insert into t values(1)")
        connection.commit()
        connection.close()
    for uri in ("file:uri%20x.db?mode=rwc", "file::memory:", "file:x?mode=memory"):
        sqlite3.connect(uri, uri=True).close()
    sqlite3.connect(":memory:").close()
    sqlite3.connect(database="").close()
    with entered(None):
        found = {place.name for place in data.iterdir()}
    assert found == {"app.db", "seed.db", "bytes.db", "inside.db", "uri x.db"}
    connection = sqlite3.connect("seed.db")
    assert connection.execute("select count(*) from t").fetchone() == (3,)
    connection.close()
    assert sorted(place.name for place in code.iterdir()) == ["biz.toml", "page.txt", "seed.db", "templates"]


def test_threads_that_change_a_file_of_the_artefact_at_once_lose_nothing(
    make: Callable[[str], Scope], tmp_path: Path
) -> None:
    scope = make("shop")
    (tmp_path / "code" / "shop" / "log.txt").write_text("x" * 1_000_000)
    ready = threading.Barrier(8)

    def work() -> None:
        ready.wait()
        with open("log.txt", "a") as file:
            file.write("y")

    threads = [threading.Thread(target=call_as, args=(scope, work)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "data" / "shop" / "log.txt").read_text().count("y") == 8
    assert [place.name for place in (tmp_path / "data" / "shop").iterdir()] == ["log.txt"]


@inside
def test_a_file_of_python_is_loaded_by_its_relative_path(shop: Scope, data: Path) -> None:
    Path("plugin.py").write_text("value = 5\n")
    spec = importlib.util.spec_from_file_location("plugin", "plugin.py")
    assert spec is not None
    assert spec.origin == str(data / "plugin.py")
    assert runpy.run_path("plugin.py")["value"] == 5


@inside
def test_certificates_are_found_where_files_are(shop: Scope, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    (tmp_path / "code" / "shop" / "ca.pem").write_text("no certificate")
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("ca.pem",), {}),
        ((None, "templates"), {}),
        ((), {"cafile": "ca.pem"}),
    ]
    for args, kwargs in calls:
        with contextlib.suppress(ssl.SSLError):  # found, and no certificate
            context.load_verify_locations(*args, **kwargs)
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain("ca.pem", keyfile=None)
    with pytest.raises(FileNotFoundError):
        context.load_cert_chain("nowhere.pem")
    with pytest.raises(TypeError):
        context.load_verify_locations()


@inside
def test_a_file_that_only_the_base_has_is_told(shop: Scope, data: Path, tmp_path: Path) -> None:
    (tmp_path / "base" / "of-base.txt").write_text("")
    with pytest.raises(FileNotFoundError) as caught:
        Path("of-base.txt").read_text()
    (note,) = caught.value.__notes__
    assert note == (
        f"relative paths of the module start from {data}, and not from the working directory of the base, "
        f"{tmp_path / 'base'}, where of-base.txt is"
    )
    with pytest.raises(FileNotFoundError) as plain:
        Path("nowhere").read_text()
    assert not hasattr(plain.value, "__notes__")


def test_code_of_a_module_that_is_gone_writes_nothing_into_the_base(shop: Scope, tmp_path: Path) -> None:
    shop.close()
    with entered(shop):
        for do in (lambda: open("x", "w"), lambda: os.mkdir("x"), lambda: Path("x").write_text("")):  # noqa: SIM115
            with pytest.raises(FileNotFoundError, match=r"shop:1 was uninstalled"):
                do()
        assert not os.path.exists("x")
        (tmp_path / "absolute").write_text("")
    assert list((tmp_path / "base").iterdir()) == []


@inside
def test_children_start_there(shop: Scope, data: Path) -> None:
    program = [sys.executable, "-c", "import os; print(os.getcwd())"]
    assert subprocess.check_output(program, text=True).strip() == str(data)
    os.makedirs("sub")
    assert subprocess.check_output(program, text=True, cwd="sub").strip() == str(data / "sub")
    assert subprocess.check_output(program, text=True, cwd="/").strip() == "/"
    assert os.system("test -d sub") == 0


@inside
def test_code_that_took_the_functions_by_name_is_led_too(shop: Scope, tmp_path: Path) -> None:
    name = f"by_name_{os.getpid()}"
    Path(f"{name}.txt").write_text("x = 1\n")
    (tmp_path / f"{name}.py").write_text("from os import open, stat, listdir\nfrom io import open as io_open\n")
    sys.path.insert(0, str(tmp_path))
    try:
        module = importlib.import_module(name)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop(name, None)
    assert module.stat(f"{name}.txt").st_size == 6
    assert f"{name}.txt" in module.listdir(".")
    with module.io_open(f"{name}.txt") as file, tokenize.open(f"{name}.txt") as tokens:
        assert file.read() == tokens.read()


@inside
def test_the_functions_look_as_those_of_python(shop: Scope) -> None:
    class Holder:
        opens: Any = open

    with Holder().opens(os.devnull) as file:
        assert file.read() == ""
    assert pickle.loads(pickle.dumps(os.remove)) is os.remove
    assert os.stat in os.supports_dir_fd
    assert os.scandir in os.supports_fd
    assert os.stat.__name__ == "stat"
    os.mkdir("tree")
    Path("tree/x").write_text("")
    shutil.rmtree("tree")
    assert not Path("tree").exists()
    descriptor = os.open(".", os.O_RDONLY)
    try:
        os.close(os.open("by-fd", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        assert os.stat("by-fd", dir_fd=descriptor).st_size == 0
        assert "by-fd" in os.listdir(descriptor)
    finally:
        os.close(descriptor)


def test_a_directory_that_cannot_be_made_is_told_with_the_setting(make: Callable[[str], Scope], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with entered(make("shop")):
        assert Path("page.txt").read_text() == "page of shop"
        assert os.getcwd() == str(tmp_path / "data" / "shop")
        assert subprocess.call(["true"]) == 0
        with pytest.raises(OSError, match=r"Not a directory|File exists") as caught:
            Path("x").write_text("")
    assert "the base's setting data-dir leads elsewhere" in "".join(caught.value.__notes__)


@inside
def test_links_of_a_relative_text_stay_as_they_are(shop: Scope, data: Path) -> None:
    pathlib.Path("to").symlink_to("page.txt")
    assert os.readlink("to") == "page.txt"
    assert os.lstat("to").st_size == len("page.txt")

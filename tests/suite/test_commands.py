"""`arkctl run`: a command as a module, of a base and without a base."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from koupleless.container.starting.portrait import Portrait

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A module with a script, a package, a resource, variables and a private library, below an awkward name."""
    root = tmp_path / "a shop ü"
    (root / "src" / "shop").mkdir(parents=True)
    (root / "src" / "shop" / "__init__.py").write_text("")
    (root / "src" / "shop" / "app.py").write_text("def app(): ...\n")
    (root / "src" / "shop" / "tell.py").write_text(
        textwrap.dedent("""
            import os, sys
            import koupleless, shop
            print("argv", sys.argv[1:])
            print("biz", koupleless.current_biz().name)
            print("data", koupleless.data_dir())
            print("color", os.environ.get("COLOR"), os.environ.get("SECRET"))
            print("shop", shop.__file__)
            sys.exit(int(os.environ.get("STATUS", "0")))
        """)
    )
    (root / "src" / "manage.py").write_text("import sys\nprint('managed', sys.argv, __name__)\n")
    (root / "pyproject.toml").write_text(
        "[project]\nname = 'shop'\nversion = '1'\n[tool.koupleless.module]\nentry = 'shop.app:app'\n"
        "env-file = '.env'\n[tool.koupleless.module.env]\nCOLOR = 'red'\n"
    )
    (root / ".env").write_text("SECRET=s3cret\n")
    return root


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def arkctl(*words: object, text: str = "") -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": path}
        command = [sys.executable, "-P", "-m", "koupleless", "run", *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, input=text, check=False, timeout=60
        )

    return arkctl


def test_a_project_needs_no_base_and_is_used_in_place(run: Run, project: Path, tmp_path: Path) -> None:
    done = run(project, "--env", "STATUS=3", "--", "-m", "shop.tell", "--flag", "a b")
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines() == [
        "argv ['--flag', 'a b']",
        "biz shop",
        f"data {tmp_path / 'data' / 'shop'}",
        "color red s3cret",
        f"shop {project / 'src' / 'shop' / '__init__.py'}",
    ]
    assert not list(project.rglob("dist"))


def test_scripts_shells_and_programs(run: Run, project: Path) -> None:
    done = run(project, "--", "manage.py", "migrate")
    assert done.stdout == f"managed ['{project / 'src' / 'manage.py'}', 'migrate'] __main__\n", done.stderr
    assert run(project, "--", "python", "manage.py").stdout.startswith("managed")
    shell = run(project, text="import shop\nprint(shop.__name__.upper())\n")
    assert "SHOP" in shell.stdout, shell.stderr
    console = run(project, "--", "sh", "-c", "python -c 'import shop, os; print(shop.__name__, os.environ[\"COLOR\"])'")
    assert console.stdout == "shop red\n", console.stderr
    missing = run(project, "--", "no-such-program")
    assert missing.returncode == 127
    assert missing.stderr.startswith("no-such-program: No such file")


def test_a_console_script_of_a_library_runs_as_the_module(run: Run, project: Path, tmp_path: Path) -> None:
    (project / "src" / "shop" / "web.py").write_text(
        "import click, flask, koupleless\napp = flask.Flask('shop')\n"
        "@app.cli.command()\ndef hello():\n    click.echo(f'hello {koupleless.current_biz()} {app.instance_path}')\n"
    )
    done = run(project, "--", "flask", "--app", "shop.web", "hello")
    assert done.stdout == f"hello shop:1 {tmp_path / 'data' / 'shop' / 'instance'}\n", done.stderr


class TestPortrait:
    """The file that a base writes; a command of a real base is in tests/e2e/test_command_line.py."""

    def test_a_portrait_is_for_its_user_alone_and_is_read_once(self, tmp_path: Path) -> None:
        place = str(tmp_path)
        path = Portrait(name="shop", version="1", paths=(place,), scratch=place, variables={"A": "1"}).write()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert Portrait.read(path).variables == {"A": "1"}
        assert "variables" not in repr(Portrait.read(path))
        command = [sys.executable, "-P", "-m", "koupleless.suite.command", str(path), "sh", "-c", "echo $A"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == "1\n", done.stderr
        assert not path.exists()

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 3, "more": 4}'])
    def test_another_file_is_no_portrait(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "file").write_text(content)
        with pytest.raises(ValueError, match=r".+"):
            Portrait.read(tmp_path / "file")

    def test_a_command_of_a_base_has_the_working_directory_of_the_module(self, tmp_path: Path) -> None:
        code, data = tmp_path / "code", tmp_path / "data" / "shop"
        (code / "templates").mkdir(parents=True)
        (code / "templates" / "x.html").write_text("of the artefact")
        (code / "migrate.py").write_text(
            "import os, sqlite3, subprocess\n"
            "print(os.getcwd(), open('templates/x.html').read())\n"
            "sqlite3.connect('app.db').execute('create table t(x)')\n"
            "print(subprocess.check_output('pwd', text=True).strip())\n"
            "os.mkdir('sub'); os.chdir('sub')\n"
            "print(os.getcwd(), os.readlink('/proc/self/cwd'))\n"
        )
        place = str(tmp_path)
        portrait = Portrait(
            name="shop", version="1", paths=(str(code),), scratch=place, data_dir=str(data), directory=place
        )
        path = portrait.write()
        command = [sys.executable, "-P", "-m", "koupleless.suite.command", str(path), "migrate.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.stdout.splitlines() == [
            f"{data} of the artefact",
            str(data),
            f"{data / 'sub'} {data / 'sub'}",
        ], done.stderr
        assert (data / "app.db").exists()

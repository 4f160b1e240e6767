"""``arkctl init`` on projects of several layouts, and deployments of what is no project of ours."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.artifact.source import read_manifest, source_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cli.conftest import FakeArklet, Outcome

    Arkctl = Callable[..., Outcome]

FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
FACTORY = "import flask\ndef create_app(config=None):\n    return flask.Flask(__name__)\n"
MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_of_us.settings.dev')\n"
WSGI = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
ASGI = "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n"
EXPLODING = "raise SystemExit('a project is never imported')\n"

LAYOUTS: dict[str, tuple[dict[str, str], str]] = {
    "a single file": ({"shop.py": FASTAPI}, "shop:app"),
    "flat": ({"shop/__init__.py": "", "shop/main.py": FASTAPI, "shop/models.py": "app = dict()\n"}, "shop.main:app"),
    "src": ({"src/shop/__init__.py": "", "src/shop/app.py": FASTAPI, "tests/app.py": FASTAPI}, "shop.app:app"),
    "factory": ({"shop/__init__.py": FACTORY, "shop/views.py": ""}, "shop:create_app()"),
    "an application before a factory": ({"shop/__init__.py": FACTORY, "wsgi.py": FASTAPI}, "wsgi:app"),
    "a factory before something called a server": (
        {"tools.py": "import x\nserver = x.Tools()\ndef create_app():\n    return server.asgi()\n"},
        "tools:create_app()",
    ),
    "something called a server, and no other": ({"tools.py": "import x\nserver = x.Tools()\n"}, "tools:server"),
    "annotated, in a package": ({"shop/asgi.py": "import x\napi: object = x.Starlette()\n"}, "shop.asgi:api"),
    "django": (
        {
            "manage.py": MANAGE,
            "site_of_us/__init__.py": "",
            "site_of_us/wsgi.py": WSGI,
            "site_of_us/asgi.py": ASGI,
            "site_of_us/settings/dev.py": EXPLODING,
            "blog/apps.py": "app = object()\n",
        },
        "site_of_us.wsgi:application",
    ),
    "django for asgi": ({"manage.py": MANAGE, "site_of_us/asgi.py": ASGI}, "site_of_us.asgi:application"),
    "beside what is no application": (
        {
            "broken.py": "def (",
            "venv/pyvenv.cfg": "",
            "venv/app.py": FASTAPI,
            "node_modules/app.py": FASTAPI,
            "server.py": EXPLODING + FASTAPI,
            "needs.py": "def create_app(settings): ...\n",
        },
        "server:app",
    ),
}


def write(root: Path, files: Mapping[str, str]) -> Path:
    for place, text in files.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(("files", "entry"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_application_is_found_without_importing_it(
    arkctl: Arkctl, quiet_surroundings: Path, files: dict[str, str], entry: str
) -> None:
    project = write(quiet_surroundings / "my shop", files)
    made = arkctl("init", project, "--yes")
    assert made.status == 0, made.err
    assert f"the application is {entry}: " in made.err
    document = tomllib.loads((project / "pyproject.toml").read_text())
    assert document["tool"]["koupleless"]["module"] == {"entry": entry}
    assert document["project"] == {"name": "my-shop", "version": "1.0.0"}
    assert f'+entry = "{entry}"' in made.out
    if "broken.py" not in files:
        built = arkctl("build", project, "--out", "built")
        assert built.status == 0, built.err


def test_what_is_there_stays_and_the_change_is_shown_before_it_is_made(
    arkctl: Arkctl, quiet_surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = "# mine\n[project]\nname = 'shop'\nversion = '3'\ndependencies = ['fastapi']"
    project = write(quiet_surroundings, {"shop.py": FASTAPI, "pyproject.toml": before, ".env": "A=s3cret\n"})
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    asked = arkctl("init")
    assert asked.status == 1
    assert "nothing was written" in asked.err
    assert arkctl("init").status == 130  # nobody answers
    assert (project / "pyproject.toml").read_text() == before
    assert "+[tool.koupleless.module]" in asked.out
    assert arkctl("init", "--yes", "--entry", "shop:other").status == 0
    after = (project / "pyproject.toml").read_text()
    assert after == f'{before}\n\n[tool.koupleless.module]\nentry = "shop:other"\nenv-file = ".env"\n'
    again = arkctl("init", "--yes")
    assert again.status == 2
    assert "the project is a module" in again.err


def test_requirements_and_names_of_other_tools_are_taken_over(arkctl: Arkctl, quiet_surroundings: Path) -> None:
    listed = write(
        quiet_surroundings / "one", {"app.py": FASTAPI, "requirements.txt": "# web\nfastapi>=0.1 # fast\n\nclick\n"}
    )
    assert arkctl("init", listed, "--yes").status == 0
    document = tomllib.loads((listed / "pyproject.toml").read_text())
    assert document["project"]["dependencies"] == ["fastapi>=0.1", "click"]
    poetry = "[tool.poetry]\nname = 'po'\nversion = '2.1'\n"
    other = write(quiet_surroundings / "two", {"app.py": FASTAPI, "pyproject.toml": poetry})
    assert arkctl("init", other, "--yes").status == 0
    document = tomllib.loads((other / "pyproject.toml").read_text())
    assert document["tool"]["koupleless"]["module"] == {"name": "po", "version": "2.1", "entry": "app:app"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"shop.py": "x = 1\n"}, "--entry package.module:attribute"),
        ({"shop.py": FASTAPI, "pyproject.toml": "["}, "is no TOML"),
        ({"shop.py": FASTAPI, "requirements.txt": "-r other.txt\n"}, "requirements.txt, line 1"),
    ],
)
def test_a_project_that_cannot_be_made_a_module_is_left_alone(
    arkctl: Arkctl, quiet_surroundings: Path, files: dict[str, str], words: str
) -> None:
    write(quiet_surroundings, files)
    refused = arkctl("init", "--yes")
    assert refused.status == 2
    assert words in refused.err
    assert {path.name for path in quiet_surroundings.iterdir()} == set(files)


def test_a_directory_without_a_project_file_builds_with_an_entry_and_a_name(
    arkctl: Arkctl, quiet_surroundings: Path
) -> None:
    write(quiet_surroundings, {"shop/app.py": "app = 1\n", "static/x.css": "", "requirements.txt": "click\n"})
    built = arkctl("build", "--entry", "shop.app:app", "--name", "shop")
    assert built.status == 0, built.err
    manifest = read_manifest(source_for(quiet_surroundings / "dist" / "shop-1.0.0-ark-biz.zip"))
    assert (str(manifest.id), manifest.entry, manifest.requirements) == ("shop:1.0.0", "shop.app:app", ("click",))
    assert "static/x.css" in manifest.files
    refused = arkctl("build", "--entry", "shop.app:app")
    assert refused.status != 0
    assert "--name" in refused.err
    assert "arkctl init" in refused.err


def test_a_plain_wheel_is_deployed_with_an_entry(
    arkctl: Arkctl, arklet: FakeArklet, quiet_surroundings: Path, tmp_path: Path
) -> None:
    assert arkctl("new", "module", "hello-you").status == 0
    wheel = _wheel(quiet_surroundings / "hello-you", tmp_path)
    found: list[Any] = []

    def keep(body: Any) -> Any:
        manifest = read_manifest(source_for(Path(body["bizUrl"].removeprefix("file://"))))
        found.append(
            (str(manifest.id), manifest.entry, sorted(manifest.requirements), "hello_you/app.py" in manifest.files)
        )
        return {"code": "SUCCESS", "data": {"code": "SUCCESS", "bizInfos": []}}

    arklet.says("installBiz", keep)
    arguments = ["--port", arklet.port, "--strategy", "install-only"]
    done = arkctl("deploy", wheel, "--entry", "hello_you.app:app", *arguments)
    assert done.status == 0, done.err
    assert arkctl("deploy", wheel, "--entry", "hello_you.app:app", "--name", "other", *arguments).status == 0
    assert found == [
        ("hello-you:1.0.0", "hello_you.app:app", ["starlette"], True),
        ("other:1.0.0", "hello_you.app:app", ["starlette"], True),
    ]
    refused = arkctl("deploy", wheel, *arguments)
    assert "arkctl deploy WHEEL --entry package.module:attribute" in refused.err


def _wheel(project: Path, into: Path) -> Path:
    """A wheel as build backends make it: the package, and metadata without an entry point."""
    path = into / "hello_you-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((project / "hello_you").rglob("*.py")):
            archive.write(file, file.relative_to(project).as_posix())
        info = "hello_you-1.0.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: hello-you\nVersion: 1.0.0\nRequires-Dist: starlette\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_projects_are_read_without_the_libraries_of_a_base() -> None:
    program = "import sys, koupleless.cli.projects.init\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert not {"starlette", "uvicorn", "koupleless.base", "koupleless.isolation"} & set(done.stdout.split())

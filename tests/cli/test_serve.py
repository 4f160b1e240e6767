"""How ``arkctl serve`` finds the application; the serving itself is tested with real processes under ``e2e``."""

from __future__ import annotations

import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from koupleless.cli.serve import _static_modules, load_app
from koupleless.errors import BaseStartFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Outcome

SOURCE = """
from types import SimpleNamespace

app = "the application"
inner = SimpleNamespace(app="an inner one")


def create():
    return "a made one"


def fail():
    raise ValueError("no database")
"""


@pytest.fixture
def shop(quiet_surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module ``cli_shop`` in the current directory, which is not on ``sys.path``."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(quiet_surroundings))])
    path = quiet_surroundings / "cli_shop.py"
    path.write_text(SOURCE)
    monkeypatch.delitem(sys.modules, "cli_shop", raising=False)
    return path


def test_a_static_project_brings_the_variables_of_its_file(quiet_surroundings: Path) -> None:
    project = quiet_surroundings / "shop"
    project.mkdir()
    (project / "shop.py").write_text("app = lambda *_: None\n")
    (project / "pyproject.toml").write_text(
        "[project]\nname = 'shop'\nversion = '1'\n[tool.koupleless.module]\nentry = 'shop:app'\nenv-file = '.env'\n"
    )
    (project / ".env").write_text("TOKEN=s3cret\n")
    with _static_modules((str(project), "http://elsewhere/a.zip"), goes_on=False) as modules:
        assert list(modules.values()) == [{"TOKEN": "s3cret"}, None]
        with zipfile.ZipFile(next(iter(modules))) as archive:
            assert ".env" not in archive.namelist()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("cli_shop:app", "the application"),
        ("cli_shop:inner.app", "an inner one"),
        ("cli_shop:create()", "a made one"),
    ],
)
def test_an_application_is_found_in_the_current_directory(shop: Path, name: str, found: str) -> None:
    assert load_app(name) == found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cli_shop", "package.module:attribute is expected"),
        (":app", "package.module:attribute is expected"),
        ("cli_shop:", "package.module:attribute is expected"),
        ("cli_nowhere:app", "there is no module 'cli_nowhere', seen from"),
        ("cli_shop.deeper:app", "there is no module 'cli_shop.deeper'"),
        ("cli_shop:nothing", "cli_shop has no attribute 'nothing'"),
        ("cli_shop:app()", "is no factory"),
        ("cli_shop:fail()", "ValueError: no database"),
    ],
)
def test_an_application_that_cannot_be_found_is_an_error_in_words(shop: Path, name: str, words: str) -> None:
    with pytest.raises(BaseStartFailed) as raised:
        load_app(name)
    assert words in str(raised.value)


def test_an_application_that_fails_shows_the_traceback_of_its_own_code(
    shop: Path, arkctl: Callable[..., Outcome]
) -> None:
    shop.write_text("import cli_shop_missing\n")
    outcome = arkctl("serve", "cli_shop:app")
    assert outcome.status == 1
    assert f'File "{shop}", line 1' in outcome.err
    assert "No module named 'cli_shop_missing'" in outcome.err
    assert "importlib" not in outcome.err
    assert "koupleless" not in outcome.err.partition("suggestion")[0]


def test_a_static_module_that_cannot_be_built_stops_the_start(
    arkctl: Callable[..., Outcome], quiet_surroundings: Path
) -> None:
    (quiet_surroundings / "torn.py").write_text("def app(:\n")
    outcome = arkctl("serve", "--module", "torn.py")
    assert outcome.status == 1
    assert "static module" in outcome.err
    assert "torn.py" in outcome.err

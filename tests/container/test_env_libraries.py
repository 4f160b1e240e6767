"""A ``.env`` that a library looks for is found as alone: packed beside the code, or in the data directory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from koupleless.artifact.build import Options, build_project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.container.conftest import World

LOOKS = {
    "pydantic-settings": """
from pydantic_settings import BaseSettings, SettingsConfigDict
class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_file=".env", extra="ignore")
    token: str
value = Settings().token
""",
    "python-dotenv, from the code": """
import os
from dotenv import load_dotenv
assert load_dotenv()
value = os.environ["TOKEN"]
""",
    "python-dotenv, from the working directory": """
from dotenv import dotenv_values, find_dotenv
value = dotenv_values(find_dotenv(usecwd=True))["TOKEN"]
""",
    "flask": """
import os
from flask.cli import load_dotenv
assert load_dotenv()
value = os.environ["TOKEN"]
""",
    "django-environ": """
import environ
env = environ.Env()
environ.Env.read_env()
value = env("TOKEN")
""",
    "python-decouple": """
from decouple import config
value = config("TOKEN")
""",
}
APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": value.encode()})
"""


@pytest.mark.parametrize("place", ["packed", "data"])
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_the_file_is_found(world: World, tmp_path: Path, look: str, place: str) -> None:
    # Not as env-file: then the variables would be there without a library.
    keys, file = 'include = [".env"]\n', "TOKEN=of-the-file\n"
    project = tmp_path / "shop"
    project.mkdir()
    (project / "shop.py").write_text(look + APP)
    (project / "pyproject.toml").write_text(
        "[project]\nname = 'shop'\nversion = '1'\n[tool.koupleless.module]\nentry = 'shop:app'\n"
        + (keys if place == "packed" else "")
    )
    if place == "packed":
        (project / ".env").write_text(file)
    else:
        (tmp_path / "data" / "shop").mkdir(parents=True)
        (tmp_path / "data" / "shop" / ".env").write_text(file)
    built = build_project(project, Options(out=tmp_path / "out", compile=False)).path
    world.container.install(world.container.prepare(str(built)))
    assert world.get("/shop/").text == "of-the-file"


def test_two_modules_with_the_same_names_find_their_own(world: World, tmp_path: Path) -> None:
    for name in ("one", "two"):
        project = tmp_path / name
        project.mkdir()
        sources = {key: f"def look_{number}():\n{_indented(look)}" for number, (key, look) in enumerate(LOOKS.items())}
        calls = f"value = json.dumps([{', '.join(f'look_{number}()' for number in range(len(sources)))}])"
        (project / f"{name}.py").write_text("\n".join(["import json", *sources.values(), calls, APP]))
        head = f"[project]\nname = '{name}'\nversion = '1'\n[tool.koupleless.module]\nentry = '{name}:app'\n"
        (project / "pyproject.toml").write_text(head)
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / ".env").write_text(f"TOKEN={name}\n")
        built = build_project(project, Options(out=tmp_path / "out", compile=False)).path
        world.container.install(world.container.prepare(str(built)))
    for name in ("one", "two"):
        assert json.loads(world.get(f"/{name}/").text) == [name] * len(LOOKS)


def _indented(look: str) -> str:
    return "".join(f"    {line}\n" for line in look.strip().splitlines()) + "    return value\n"

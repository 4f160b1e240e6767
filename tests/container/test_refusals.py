"""What would patch the process for everybody is refused by name, before anything is patched."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.artifact.build import Options, build_project
from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.errors import PatchRefused, StartFailed
from koupleless.recorders.registries.refusals import refuse_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.container.conftest import World

ROOT = Path(__file__).parents[2]
HEAD = '[project]\nname = "green"\nversion = "{version}"\n[tool.koupleless.module]\nentry = "green:main"\n'

CALLS = {
    "gevent.monkey.patch_all": "from gevent import monkey\ndef main():\n    monkey.patch_all()\n",
    "gevent.monkey.patch_socket": "import gevent.monkey\ndef main():\n    gevent.monkey.patch_socket()\n",
    "eventlet.monkey_patch": "import eventlet\ndef main():\n    eventlet.monkey_patch()\n",
    "eventlet.patcher.monkey_patch": "from eventlet.patcher import monkey_patch\ndef main():\n    monkey_patch()\n",
    "nest_asyncio.apply": "import nest_asyncio\ndef main():\n    nest_asyncio.apply()\n",
}
COMPILED = "gevent"
"""What a base shares, whoever brings it along."""
OTHERS = {
    "at import": "import sys\nif sys:\n    import nest_asyncio as n\n    n.apply()\n",
    "caught": (
        "import nest_asyncio\ndef main():\n    try:\n        nest_asyncio.apply()\n    except Exception as error:\n"
        "        assert type(error).__name__ == 'PatchRefused', error\n"
    ),
    "pymysql": (
        "import sys\nimport pymysql\ndef main():\n    pymysql.install_as_MySQLdb()\n    import MySQLdb\n"
        "    assert sys.modules['MySQLdb'] is pymysql\n"
    ),
    "pymysql after that": (
        "def main():\n    try:\n        import MySQLdb\n    except ImportError:\n        return\n    1 / 0\n"
    ),
}


def is_there(call: str) -> bool:
    return importlib.util.find_spec(call.partition(".")[0]) is not None


def needs(call: str) -> None:
    if not is_there(call):
        pytest.skip(f"{call.partition('.')[0]} is not installed")


def own(call: str) -> tuple[str, list[str], str]:
    """A module that brings the library along."""
    top = call.partition(".")[0]
    return f"{CALLS[call]}import {top}\nassert {top}.__file__.startswith(__file__[:-9])\n", [top], "green:main"


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    """What became of each, in a base in a process of its own."""
    cases: dict[str, tuple[str, list[str], str]] = {}
    for call, source in CALLS.items():
        if is_there(call):
            cases[call] = source, [], "green:main"
    for call in CALLS:
        if is_there(call) and not call.startswith(COMPILED):
            cases[f"own {call}"] = own(call)
    for name, source in OTHERS.items():
        cases[name] = source, [], "green:main" if "def main" in source else "green"
    command = [sys.executable, "-P", "-m", "tests.container.refusing", json.dumps(list(cases.values()))]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))


def check(answer: dict[str, Any], call: str) -> None:
    top, function = call.partition(".")[0], call.rpartition(".")[2]
    assert "PatchRefused: biz green:" in answer["error"]
    assert f"may not call {top}." in answer["error"]
    assert f".{function}(): it replaces " in answer["error"]
    assert "the base and other modules included; remove the call" in answer["error"]
    assert answer["is_as_before"]


@pytest.mark.parametrize("call", CALLS)
def test_a_library_of_the_base_patches_nothing_for_a_biz(answers: dict[str, Any], call: str) -> None:
    needs(call)
    check(answers[call], call)
    assert "left behind" not in answers[call]["said"]


@pytest.mark.parametrize("call", [call for call in CALLS if not call.startswith(COMPILED)])
def test_a_library_that_a_biz_has_for_itself_patches_nothing_either(answers: dict[str, Any], call: str) -> None:
    needs(call)
    check(answers[f"own {call}"], call)


def test_a_call_at_import_that_the_build_did_not_see_is_refused_with_the_line(answers: dict[str, Any]) -> None:
    needs("nest_asyncio")
    check(answers["at import"], "nest_asyncio.apply")
    assert 'green.py", line 4' in answers["at import"]["traceback"]


def test_a_biz_may_catch_the_refusal_and_go_on(answers: dict[str, Any]) -> None:
    needs("nest_asyncio")
    assert answers["caught"]["error"] == ""
    assert answers["caught"]["is_as_before"]


def test_pymysql_stands_in_for_mysqldb_in_the_biz_that_asks(answers: dict[str, Any]) -> None:
    needs("pymysql")
    assert answers["pymysql"]["error"] == ""
    assert answers["pymysql after that"]["error"] == ""


def test_functions_in_c_are_refused_by_the_name_of_who_calls() -> None:
    """As that of time-machine, which is shared by all that bring it along, under a name of its own."""
    library, caller = Scope(BizId.of("time-machine", "3")), Scope(BizId.of("shop", "1"))
    module = types.ModuleType("_time_machine")
    module.patch = gc.isenabled  # type: ignore[attr-defined]  # a function in C
    module.original_time = time.time  # type: ignore[attr-defined]
    refuse_in(library, module)
    words = r"biz shop:1 may not call _time_machine\.patch\(\): it replaces the clocks in the C code"
    with entered(caller), pytest.raises(PatchRefused, match=words):
        module.patch()
    with pytest.raises(PatchRefused, match="biz time-machine:3"):
        module.patch()
    assert module.original_time is time.time


@pytest.fixture
def install(world: World, tmp_path: Path) -> Callable[[str], Any]:
    def put_in(source: str) -> Any:
        version = len(list(tmp_path.glob("green-*"))) + 1
        project = tmp_path / f"green-{version}"
        project.mkdir()
        (project / "pyproject.toml").write_text(HEAD.format(version=version))
        (project / "green.py").write_text(source)
        built = build_project(project, Options(out=tmp_path / "out", compile=False)).path
        return world.container.install(world.container.prepare(str(built)))

    return put_in


def test_the_base_itself_may_and_has_its_functions_back_in_the_end(
    world: World, install: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    patched: list[str] = []
    library: Any = types.ModuleType("gevent.monkey")
    exec("def patch_all(): patched.append('all')\ndef patch_time(): patched.append('time')", vars(library))
    library.patched = patched
    monkeypatch.setitem(sys.modules, "gevent", types.ModuleType("gevent"))
    monkeypatch.setitem(sys.modules, "gevent.monkey", library)
    monkeypatch.setattr(sys.modules["gevent"], "monkey", library, raising=False)
    original = library.patch_all
    install("def main():\n    pass\n")
    library.patch_all()
    assert patched == ["all"]
    for function in ("patch_all", "patch_time"):
        with pytest.raises(StartFailed, match=rf"may not call gevent\.monkey\.{function}\(\)"):
            install(f"from gevent import monkey\ndef main():\n    monkey.{function}()\n")
    assert patched == ["all"]
    world.container.close()
    assert library.patch_all is original


def test_the_error_has_what_a_caller_can_act_on() -> None:
    error = PatchRefused(BizId.parse("green:1"), "gevent.monkey.patch_all()", "it replaces everything")
    assert (error.identity, error.call, error.reason) == (
        "green:1",
        "gevent.monkey.patch_all()",
        "it replaces everything",
    )

"""Child processes that modules start with ``sys.executable``, and the scripts of their libraries: they find what the
module finds, as alone, whatever way they are started in.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from koupleless.artifact.manifest import BIZ_TOML, Manifest, render_biz_toml
from koupleless.biz import BizId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import BaseProcess

MODULE = """
import asyncio, concurrent.futures, importlib, json, multiprocessing, os, shutil, subprocess, sys, sysconfig
from pathlib import Path
from urllib.parse import unquote

import brought
from orders import NAME

PRINT = "import orders, brought; print(orders.NAME, brought.VALUE)"


def output(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    return (done.stdout + done.stderr[-800:]).strip()


def forked(function, *arguments):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(write, 1)
        os.dup2(write, 2)
        try:
            function(*arguments)
        finally:
            os._exit(3)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read().strip()
    os.waitpid(pid, 0)
    return text


def spawned():
    read, write = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, write, 1)]
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", PRINT], {}, file_actions=actions)
    os.close(write)
    os.waitpid(pid, 0)
    with open(read) as pipe:
        return pipe.read().strip()


async def of_asyncio():
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", PRINT, stdout=asyncio.subprocess.PIPE)
    return (await child.communicate())[0].decode().strip()


def in_child():
    import brought, orders
    return f"{orders.NAME} {brought.VALUE}"


def pooled(method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(in_child).result(60)


def ways():
    return {
        "-c": lambda: output(sys.executable, "-c", PRINT),
        "-m": lambda: output(sys.executable, "-m", "orders.main"),
        "-m of a library": lambda: output(sys.executable, "-m", "brought"),
        "script": lambda: output(sys.executable, str(Path(__file__).with_name("script.py"))),
        "stdin": lambda: output(sys.executable, "-", input=PRINT),
        "-I": lambda: output(sys.executable, "-I", "-c", PRINT),
        "-E": lambda: output(sys.executable, "-E", "-c", PRINT),
        "-P": lambda: output(sys.executable, "-P", "-c", PRINT),
        "empty environment": lambda: output(sys.executable, "-c", PRINT, env={}),
        "beside the base": lambda: output(sys.executable, "-c", PRINT, env={**os.environ, "PYTHONSAFEPATH": ""}),
        "elsewhere": lambda: output(sys.executable, "-c", PRINT, cwd="/"),
        "shell": lambda: output(f'"{sys.executable}" -c "{PRINT}"', shell=True),
        "os.popen": lambda: os.popen(f'"{sys.executable}" -c "{PRINT}"').read().strip(),
        "fork and exec": lambda: forked(os.execl, sys.executable, "python", "-c", PRINT),
        "posix_spawn": spawned,
        "asyncio": lambda: asyncio.run(of_asyncio()),
        "spawn": lambda: pooled("spawn"),
        "forkserver": lambda: pooled("forkserver"),
        "grandchild": lambda: output(
            sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PRINT!r}])"
        ),
        "get_executable": lambda: output(multiprocessing.spawn.get_executable(), "-c", PRINT),
        "script beside the interpreter": lambda: output(str(Path(sys.executable).parent / "brought-tool")),
        "script by sysconfig": lambda: output(str(Path(sysconfig.get_path("scripts"), "brought-tool"))),
    }


def facts():
    import importlib.metadata
    text = (
        "import importlib.metadata as m, json, sys, packaging, orders, brought\\n"
        "print(json.dumps([sys.executable, sys.prefix != sys.base_prefix, sys.path, m.version('brought'),"
        " m.version('packaging'), packaging.__file__, orders.__file__, brought.__file__]))"
    )
    found = json.loads(output(sys.executable, "-c", text))
    import packaging, orders
    return {
        "executable": [sys.executable, found[0]], "is venv": found[1], "path": found[2],
        "versions": found[3:5], "files": found[5:], "inside": [packaging.__file__, orders.__file__, brought.__file__],
    }


def answer(query):
    if query == "facts":
        return facts()
    if query == "never":
        return None
    if query == "environment":
        return {
            "which": shutil.which("brought-tool"), "run": output("brought-tool"), "venv": os.environ.get("VIRTUAL_ENV"),
            "python": output("python", "-c", PRINT), "execvp": forked(os.execvp, "python", ["python", "-c", PRINT]),
            "variable": forked(os.execv, sys.executable, ["python", "-c", "import os; print(os.environ['OWN'])"]),
        }
    if query.startswith("run="):
        return output(sys.executable, "-c", query[4:])
    found = {}
    for name, way in ways().items():
        try:
            found[name] = way()
        except BaseException as error:
            found[name] = repr(error)
    return found


async def app(scope, receive, send):
    if scope["type"] == "http":
        body = json.dumps(await asyncio.to_thread(answer, unquote(scope["query_string"].decode()))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""

BROUGHT = {
    "brought/__init__.py": "VALUE = {value!r}\ndef tool():\n    import orders\n    print(orders.NAME, VALUE)\n",
    "brought/__main__.py": "import brought; brought.tool()\n",
    "brought-{value}.dist-info/METADATA": "Metadata-Version: 2.1\nName: brought\nVersion: {value}\n",
    "brought-{value}.dist-info/entry_points.txt": "[console_scripts]\nbrought-tool = brought:tool\n",
    "brought-{value}.dist-info/RECORD": "brought/__init__.py,,\nbrought/__main__.py,,\n",
}


def module(place: Path, name: str, value: str, *, declared: tuple[str, ...] = ()) -> Path:
    """An unpacked artefact with a library in it; each has the same names and values of its own."""
    manifest = Manifest(
        id=BizId.of(name, value), entry="web:app", web_context_path=f"/{name}", declared_libraries=declared
    )
    files = {
        BIZ_TOML: render_biz_toml(manifest),
        "web.py": MODULE,
        "script.py": "import sub_of_script; import orders, brought; print(orders.NAME, brought.VALUE)\n",
        "sub_of_script.py": "",
        "orders/__init__.py": f"NAME = {name!r}\n",
        "orders/main.py": "import orders, brought; print(orders.NAME, brought.VALUE)\n",
        **{f"lib/{path.format(value=value)}": text.format(value=value) for path, text in BROUGHT.items()},
    }
    for path, text in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text)
    return place


BASE = """
import fastapi

app = fastapi.FastAPI()


@app.get("/executable")
def executable():
    import os, shutil, subprocess, sys, sysconfig
    printed = subprocess.check_output([sys.executable, "-c", "import orders; print(orders.NAME)"], text=True).strip()
    path = os.environ["PATH"].split(os.pathsep)
    return [sys.executable, sysconfig.get_path("scripts"), path[0], shutil.which("brought-tool"), printed]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the base is at home. It has modules of its own that are called as those of the modules are."""
    directory = tmp_path_factory.mktemp("place")
    (directory / "koupleless.toml").write_text(f'[base]\nstore-dir = "{directory}/store"\n')
    (directory / "warm.py").write_text(BASE)
    (directory / "orders.py").write_text("NAME = 'the base'\n")
    (directory / "on_path").mkdir()
    (directory / "on_path" / "brought.py").write_text("VALUE = 'of the base'\n")
    return directory


@pytest.fixture(scope="module")
def base(serve: Callable[..., BaseProcess], place: Path) -> BaseProcess:
    """One that was started in an activated virtual environment, with a search path in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"])
        patch.setenv("VIRTUAL_ENV", sys.prefix)
        patch.setenv("PYTHONPATH", str(place / "on_path"))
        return serve("warm:app", cwd=place)


class Shop:
    """A base, modules in it, and questions to them."""

    def __init__(self, base: BaseProcess, place: Path, directory: Path) -> None:
        self.base = base
        self.directory = directory
        self._sessions = place / "store" / "sessions"

    def install(
        self, name: str, value: str, *, declared: tuple[str, ...] = (), envs: dict[str, str] | None = None
    ) -> None:
        artefact = module(self.directory / f"{name}-{value}", name, value, declared=declared)
        self.base.ask("installBiz", bizUrl=artefact.as_uri(), bizName=name, bizVersion=value, env=envs or {})

    def ask(self, name: str, query: str = "") -> Any:
        reply = self.base.get(f"/{name}/?{quote(query, safe='=')}")
        assert reply.status_code == 200, reply.text
        return reply.json()

    def made(self) -> list[str]:
        """The virtual environments on the disk."""
        return sorted(found.parent.name for found in self._sessions.rglob("pyvenv.cfg"))


@pytest.fixture
def shop(base: BaseProcess, place: Path, tmp_path: Path) -> Iterator[Shop]:
    world = Shop(base, place, tmp_path)
    yield world
    base.clear()
    assert world.made() == []


def test_a_child_finds_the_modules_of_its_module_however_it_is_started(shop: Shop) -> None:
    shop.install("shop", "1.5")
    found = shop.ask("shop")
    assert found == dict.fromkeys(found, "shop 1.5")
    assert len(found) > 15


def test_two_modules_and_the_next_version_each_get_their_own(shop: Shop) -> None:
    shop.install("one", "1")
    shop.install("two", "2")
    query = "run=import orders, brought; print(orders.NAME, brought.VALUE)"
    assert (shop.ask("one", query), shop.ask("two", query)) == ("one 1", "two 2")
    assert len(shop.made()) == 2
    shop.base.ask("uninstallBiz", bizName="one", bizVersion="1")
    assert len(shop.made()) == 1
    shop.install("one", "3")
    assert (shop.ask("one", query), shop.ask("two", query)) == ("one 3", "two 2")
    assert "nothing left behind" in shop.base.undeploy("two")


def test_a_child_is_in_a_virtual_environment_of_the_module_with_the_versions_it_has(shop: Shop) -> None:
    shop.install("shop", "1.5")
    found = shop.ask("shop", "facts")
    assert found["executable"] == [found["executable"][0]] * 2
    assert found["executable"][0] != sys.executable
    assert found["is venv"] is True
    assert found["versions"] == ["1.5", version("packaging")]
    assert found["files"] == found["inside"]
    assert len(set(found["path"])) == len(found["path"])


def test_nothing_is_made_for_a_module_that_does_not_ask(shop: Shop) -> None:
    shop.install("shop", "1.5")
    assert shop.ask("shop", "never") is None
    assert shop.made() == []


def test_scripts_and_interpreter_of_the_module_stand_before_the_base_s_on_an_active_path(shop: Shop) -> None:
    shop.install("shop", "1.5", envs={"OWN": "mine"})
    found = shop.ask("shop", "environment")
    assert found["which"].endswith("/bin/brought-tool")
    assert found["venv"] == str(Path(found["which"]).parents[1])
    assert found["run"] == found["python"] == found["execvp"] == "shop 1.5"
    assert found["variable"] == "mine"


def test_the_base_has_its_own_interpreter_path_and_modules(shop: Shop) -> None:
    shop.install("shop", "1.5")
    shop.ask("shop", "environment")
    scripts = sysconfig.get_path("scripts")
    assert shop.base.get("/executable").json() == [sys.executable, scripts, scripts, None, "the base"]


DECLARED = """
import importlib.metadata, importlib.util
import fastapi, starlette, pydantic_core, koupleless, orders, brought
print(orders.NAME, brought.VALUE, importlib.metadata.version("fastapi"), koupleless.current_biz())
print([importlib.util.find_spec(name) for name in ("pytest", "sqlalchemy", "warm", "on_path")])
print("pytest" in {found.name for found in importlib.metadata.distributions()})
"""


@pytest.mark.parametrize("envs", [{}, {"PYTHONSAFEPATH": ""}], ids=["safe path", "path of the base"])
def test_a_child_in_declared_mode_finds_what_is_declared_and_nothing_else(shop: Shop, envs: dict[str, str]) -> None:
    shop.install("shop", "1.5", declared=("fastapi",), envs=envs)
    lines = [f"shop 1.5 {version('fastapi')} None", "[None, None, None, None]", "False"]
    assert shop.ask("shop", f"run={DECLARED}").splitlines() == lines


PIP = """
import subprocess, sys
subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-index", {wheel!r}])
print(subprocess.check_output([sys.executable, "-c", "import late; print(late.NAME)"], text=True))
"""


def test_pip_in_a_child_installs_for_the_module_alone(shop: Shop, tmp_path: Path) -> None:
    wheel = tmp_path / "late-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("late.py", "NAME = 'late'\n")
        archive.writestr("late-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: late\nVersion: 1\n")
        archive.writestr("late-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("late-1.dist-info/RECORD", "late.py,,\n")
    shop.install("shop", "1.5")
    assert shop.ask("shop", f"run={PIP.format(wheel=str(wheel))}") == "late"
    assert not Path(sysconfig.get_path("purelib"), "late.py").exists()

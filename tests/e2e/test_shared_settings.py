"""Settings and registries of the standard library that a module changes and does not change back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import BaseProcess

CASES = Path(__file__).parent.parent / "bizs" / "shared"

SHOWN: Final = {
    "https context": "ssl._create_default_https_context.__name__",
    "http debug level": "http.client.HTTPConnection.debuglevel",
    "garbage collection": "gc.isenabled()",
    "switch interval": "round(sys.getswitchinterval(), 4)",
    "field size": "csv.field_size_limit()",
    "raised by logging": "logging.raiseExceptions",
    "digits": "sys.get_int_max_str_digits()",
    "socket": "socket.socket.__module__",
    "archives": "[name for name, _ in shutil.get_archive_formats()]",
    "unpacked archives": "[name for name, *_ in shutil.get_unpack_formats()]",
    "opener": "opened('setting://x')",
    "browsers": "'setting' in webbrowser._browsers",
    "loop policy": "type(asyncio.get_event_loop_policy()).__name__",
    "generator hooks": "sys.get_asyncgen_hooks()[0] is None",
    "mime type": "mimetypes.guess_type('a.setting')[0]",
    "dialects": "sorted(csv.list_dialects())",
    "namespaces": "xml.etree.ElementTree._namespace_map.get('urn:setting')",
    "locale": "locale.setlocale(locale.LC_ALL)",
    "decimal": "decimal.DefaultContext.prec",
    "schemes": "[scheme for scheme in urllib.parse.uses_netloc if scheme == 'setting']",
    "a started mock": "textwrap.shorten('a b', width=9)",
}
"""What there is to see of each in the base."""

IMPORTS: Final = """
import asyncio, csv, decimal, gc, http.client, locale, logging, mimetypes, shutil, socket, ssl, sys, textwrap
import urllib.parse, urllib.request, webbrowser, xml.etree.ElementTree
from unittest import mock

from fastapi import FastAPI

app = FastAPI()


class Opening(urllib.request.BaseHandler):
    def setting_open(self, request):
        return "opened"


def opened(url):
    try:
        return urllib.request.urlopen(url)
    except OSError:
        return None
"""

PAGE: Final = """

@app.get("/settings")
async def settings():
    shown = {shown!r}
    return {{name: eval(text) for name, text in shown.items()}}
"""


@pytest.fixture(scope="module")
def shared_base(serve: Callable[..., BaseProcess], tmp_path_factory: pytest.TempPathFactory) -> BaseProcess:
    """A base that shows its settings."""
    place = tmp_path_factory.mktemp("base")
    (place / "settings_base.py").write_text(IMPORTS + PAGE.format(shown=SHOWN))
    return serve("settings_base:app", cwd=place)


@pytest.fixture
def base(shared_base: BaseProcess) -> Iterator[BaseProcess]:
    """That base without modules; its settings have to be the same at the end."""
    before = shared_base.get("/settings").json()
    yield shared_base
    shared_base.clear()
    assert shared_base.get("/settings").json() == before


def write(place: Path, name: str, text: str) -> Path:
    path = place / f"{name}.py"
    path.write_text(text)
    return path


def test_settings_that_switch_safety_off_are_the_modules_own_or_refused_with_its_name(base: BaseProcess) -> None:
    """Certificates are verified, garbage is collected and headers are not printed, whatever a module says."""
    before = base.get("/settings").json()
    assert (before["https context"], before["garbage collection"], before["http debug level"]) == (
        "create_default_context",
        True,
        0,
    )
    said = base.deploy(CASES / "careless.py")
    assert base.get("/settings").json() == before
    warnings = [line for line in (said + base.log.read_text()).splitlines() if "Warning: biz careless:" in line]
    assert any("gc.disable" in line for line in warnings), "the other two can be the module's own"
    assert "nothing left behind" in base.undeploy("careless")
    assert base.get("/settings").json() == before


CHANGES: Final = {
    "frozen objects": "gc.freeze()",
    "switch interval": "sys.setswitchinterval(0.5)",
    "field size": "csv.field_size_limit(7)",
    "raised by logging": "logging.raiseExceptions = False",
    "digits": "sys.set_int_max_str_digits(0)",
    "socket": "class Other(socket.socket): pass\nsocket.socket = Other",
    "archives": "shutil.register_archive_format('setting', lambda *args: None)",
    "unpacked archives": "shutil.register_unpack_format('setting', ['.setting'], lambda *args: None)",
    "opener": "urllib.request.install_opener(urllib.request.build_opener(Opening()))",
    "browsers": "webbrowser.register('setting', webbrowser.GenericBrowser)",
    "loop policy": "class Policy(asyncio.DefaultEventLoopPolicy): pass\nasyncio.set_event_loop_policy(Policy())",
    "generator hooks": "sys.set_asyncgen_hooks(firstiter=lambda generator: None)",
    "mime type": "mimetypes.add_type('text/setting', '.setting')",
    "dialects": "csv.register_dialect('setting', delimiter=';')",
    "namespaces": "xml.etree.ElementTree.register_namespace('setting', 'urn:setting')",
    "locale": "locale.setlocale(locale.LC_ALL, 'C.UTF-8' if 'UTF' not in locale.setlocale(locale.LC_ALL) else 'C')",
    "decimal": "decimal.DefaultContext.prec = 9",
    "schemes": "urllib.parse.uses_netloc.append('setting')",
    "a started mock": "mock.patch('textwrap.shorten', return_value='patched').start()",
}
OF_ITS_OWN: Final = {
    "archives",
    "unpacked archives",
    "opener",
    "browsers",
    "mime type",
    "dialects",
    "namespaces",
    "schemes",
    "a started mock",
}
"""What works for the module that does it; of the others a warning may say that they do not count."""
AS_ALONE: Final = {"generator hooks"}
"""What is seen of nobody's, alone either: an event loop sets its own hooks while it runs."""


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_module_changes_in_the_standard_library_is_its_own_or_refused(
    base: BaseProcess, tmp_path: Path, what: str
) -> None:
    """Base and a neighbour see no change while the module is there, and a change that does not count is told."""
    of_base = base.get("/settings").json()
    page = PAGE.format(shown=SHOWN)
    base.deploy(write(tmp_path, "neighbour", IMPORTS + page))
    of_neighbour = base.get("/neighbour/settings").json()

    said = len(base.log.read_text())
    base.deploy(write(tmp_path, "changing", f"{IMPORTS}\n{CHANGES[what]}\n{page}"))
    of_module: dict[str, Any] = base.get("/changing/settings").json()
    if what in OF_ITS_OWN:
        assert of_module[what] != of_neighbour[what], "it works for the module"
    elif of_module.get(what) == of_neighbour.get(what) and what not in AS_ALONE:
        lines = base.log.read_text()[said:].splitlines()
        assert [line for line in lines if "ProcessWideWarning: biz changing:" in line], (
            "it is told that it does not count"
        )
    assert base.get("/settings").json() == of_base
    assert base.get("/neighbour/settings").json() == of_neighbour
    assert "nothing left behind" in base.undeploy("changing")
    assert base.get("/neighbour/settings").json() == of_neighbour


def test_nothing_of_a_module_stays_in_the_standard_library(base: BaseProcess, tmp_path: Path) -> None:
    """A module that registers and sets everything at once leaves clean, twice, and the settings are as before."""
    before = base.get("/settings").json()
    changes = "\n".join(CHANGES.values())
    for _ in range(2):
        base.deploy(write(tmp_path, "changing", f"{IMPORTS}\n{changes}\n{PAGE.format(shown=SHOWN)}"))
        assert "nothing left behind" in base.undeploy("changing")
        assert base.get("/settings").json() == before


def test_settings_of_a_module_that_does_not_start_are_taken_back(base: BaseProcess, tmp_path: Path) -> None:
    """Whatever a module has registered and set before its start failed is gone from the base."""
    before = base.get("/settings").json()
    changes = "\n".join(CHANGES.values())
    broken = write(tmp_path, "broken", f"{IMPORTS}\n{changes}\nraise RuntimeError('not today')\n")
    assert "not today" in base.say("deploy", broken, fails=True)
    assert base.get("/settings").json() == before

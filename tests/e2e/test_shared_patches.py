"""Patches of shared libraries work for who made them: of error trackers, of hardening libraries, of a module's own."""

from __future__ import annotations

import http.server
import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import BaseProcess

CASES = Path(__file__).parent.parent / "bizs" / "shared"

SURVEY: Final = '''
"""What a patch could change of libraries and the interpreter: functions, classes and plain data, by name."""
import sys
import types

PACKAGES = ("http.client", "logging", "threading", "subprocess", "ssl", "socket", "time", "asyncio.base_events", "xml.")
PACKAGES += ("starlette.", "fastapi.", "uvicorn.", "concurrent.futures.", "requests.", "urllib3.", "sentry_sdk.", "os")
KINDS = (types.FunctionType, types.BuiltinFunctionType, type, staticmethod, classmethod, property, str, bool)


def looked_at(name):
    return any(name == prefix.rstrip(".") or prefix[-1] == "." and name.startswith(prefix) for prefix in PACKAGES)


def survey():
    seen = {"sys.excepthook": id(sys.excepthook)}
    for name, module in list(sys.modules.items()):
        if not issubclass(type(module), types.ModuleType) or not looked_at(name):
            continue
        for key, value in list(vars(module).items()):
            if issubclass(type(value), KINDS):
                seen[f"{name}.{key}"] = id(value)
            if issubclass(type(value), type) and value.__module__ == name:
                for member, kind in list(vars(value).items()):
                    if issubclass(type(kind), KINDS) and (member[:1] != "_" or member == "__init__"):
                        seen[f"{name}.{key}.{member}"] = id(kind)
    return seen
'''

SEEN: Final = """
from survey import survey

BEFORE = survey()


@app.get("/remember")
def remember():
    BEFORE.update(survey())
    return len(BEFORE)


@app.get("/changed")
def changed():
    now = survey()
    return sorted(name for name, value in BEFORE.items() if now.get(name, value) != value)
"""


@pytest.fixture(scope="module")
def start(serve: Callable[..., BaseProcess], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BaseProcess]:
    """``start(text)`` starts a base of this text, which tells at ``/changed`` what is not as at ``/remember``."""
    place = tmp_path_factory.mktemp("bases")
    (place / "survey.py").write_text(SURVEY)

    def begin(text: str) -> BaseProcess:
        number = len(list(place.iterdir()))
        (place / f"base_{number}.py").write_text(text + SEEN)
        return serve(f"base_{number}:app", cwd=place)

    return begin


@pytest.fixture
def unchanged(tmp_path: Path) -> Iterator[Callable[[BaseProcess], BaseProcess]]:
    """``unchanged(base)`` is that base; at the end it has no module, and nothing in it is other than it was."""
    bases: list[BaseProcess] = []

    def remember(base: BaseProcess) -> BaseProcess:
        base.deploy(write(tmp_path, "before", PLAIN))  # the hooks of the base itself are in place
        base.undeploy("before")
        assert base.get("/remember").json() > 1_000
        bases.append(base)
        return base

    yield remember
    for base in bases:
        base.clear()
        assert base.get("/changed").json() == []


def write(place: Path, name: str, text: str) -> Path:
    path = place / f"{name}.py"
    path.write_text(text)
    return path


# --- Sentry --------------------------------------------------------------------------------------------------------


class Collector:
    """Takes in what clients of Sentry send, and says for which project each event was."""

    def __init__(self) -> None:
        self.events: queue.Queue[tuple[str, str]] = queue.Queue()
        taken = self.events

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                import gzip

                raw = self.rfile.read(int(self.headers["Content-Length"]))
                text = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
                taken.put((self.path.split("/")[2], text.decode(errors="replace")))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def dsn(self, project: int) -> str:
        return f"http://key@127.0.0.1:{self.server.server_address[1]}/{project}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def told(self) -> list[tuple[str, str]]:
        """The project and the error of every event that has come since the last call."""
        events = []
        while not self.events.empty():
            project, text = self.events.get()
            errors = [word for word in ("KeyError", "IndexError", "LookupError") if f'"{word}"' in text]
            events += [(project, error) for error in errors]
        return events


WITH_SENTRY: Final = """
import sentry_sdk
from fastapi import FastAPI

sentry_sdk.init(dsn={dsn!r}, environment={name!r})
app = FastAPI()


@app.get("/own/")
def dsn():
    return [str(sentry_sdk.get_client().dsn), sentry_sdk.get_client().options["environment"]]


@app.get("/fail")
def fail():
    raise {error}("of {name}")


@app.get("/flush")
def flush():
    sentry_sdk.flush(10)
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def base_with_sentry(start: Callable[[str], BaseProcess], collector: Collector) -> BaseProcess:
    """A base that sends its errors to a project of its own."""
    return start(WITH_SENTRY.format(dsn=collector.dsn(9), name="base", error="KeyError"))


@pytest.fixture(scope="module")
def base_without(start: Callable[[str], BaseProcess]) -> BaseProcess:
    """A base that has imported the libraries that are patched here, and configures none of them."""
    return start(OWN_PAGES)


OWN_PAGES: Final = """
import ssl
import xml.etree.ElementTree

import defusedxml
import requests
import sentry_sdk
import truststore
from fastapi import FastAPI
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

app = FastAPI()
app.router.routes.append(Route("/json", lambda request: JSONResponse({"a": 1})))
app.router.routes.append(Route("/html", lambda request: HTMLResponse("text")))


@app.get("/client")
def client():
    return sentry_sdk.get_client().is_active()


@app.get("/parser")
def parser():
    return [xml.etree.ElementTree.XMLParser.__module__, ssl.SSLContext.__module__]
"""


def own(base: BaseProcess, *paths: str) -> list[Any]:
    return [base.get(path).json() for path in paths]


def test_each_module_reports_to_the_project_that_it_has_named(
    base_with_sentry: BaseProcess, unchanged: Callable[[BaseProcess], BaseProcess], collector: Collector
) -> None:
    """Two modules and the base each keep their own client while the others come and go."""
    base = unchanged(base_with_sentry)
    of_base = [collector.dsn(9), "base"]
    base.deploy(CASES / "one.py")
    base.deploy(CASES / "two.py")
    for _ in range(2):
        assert own(base, "/one/", "/two/", "/own/") == [
            "http://key@127.0.0.1:9/1",
            "http://key@127.0.0.1:9/2",
            of_base,
        ]
    assert "nothing left behind" in base.undeploy("two")
    assert own(base, "/one/", "/own/") == ["http://key@127.0.0.1:9/1", of_base]
    assert "nothing left behind" in base.undeploy("one")
    assert own(base, "/own/") == [of_base]


def test_an_error_goes_to_the_project_of_who_made_it_and_to_no_other(
    base_with_sentry: BaseProcess,
    unchanged: Callable[[BaseProcess], BaseProcess],
    collector: Collector,
    tmp_path: Path,
) -> None:
    """Errors arrive once at the project of their module, or at that of the base, also after a module has left."""
    base = unchanged(base_with_sentry)
    for number, error in ((1, "IndexError"), (2, "LookupError")):
        text = WITH_SENTRY.format(dsn=collector.dsn(number), name=f"tracked{number}", error=error)
        base.deploy(write(tmp_path, f"tracked{number}", text))

    def after_failing(*prefixes: str) -> list[tuple[str, str]]:
        for prefix in prefixes:
            assert base.get(f"{prefix}/fail").status_code == 500
        for prefix in prefixes:
            assert base.get(f"{prefix}/flush").status_code == 200
        of_modules = ("IndexError", "LookupError")  # which the base may see, too: it has patched what all share
        return sorted(
            (project, error) for project, error in collector.told() if project != "9" or error not in of_modules
        )

    collector.told()  # of a test before
    assert after_failing("") == [("9", "KeyError")]
    assert after_failing("/tracked1", "/tracked2") == [("1", "IndexError"), ("2", "LookupError")]
    assert after_failing("/tracked2", "", "/tracked1") == [
        ("1", "IndexError"),
        ("2", "LookupError"),
        ("9", "KeyError"),
    ]
    assert "nothing left behind" in base.undeploy("tracked2")
    assert after_failing("", "/tracked1") == [("1", "IndexError"), ("9", "KeyError")]
    assert "nothing left behind" in base.undeploy("tracked1")
    assert after_failing("") == [("9", "KeyError")]


def test_a_tracker_of_modules_is_unknown_to_a_base_that_has_none(
    base_without: BaseProcess, unchanged: Callable[[BaseProcess], BaseProcess], collector: Collector, tmp_path: Path
) -> None:
    """A base without a client of its own has none while its modules have theirs, and is as before when they left."""
    base = unchanged(base_without)
    for number in (1, 2):
        text = WITH_SENTRY.format(dsn=collector.dsn(number), name=f"tracked{number}", error="IndexError")
        base.deploy(write(tmp_path, f"tracked{number}", text))
        assert own(base, "/client") == [False]
    collector.told()  # of a test before
    assert own(base, "/tracked1/own/") == [[collector.dsn(1), "tracked1"]]
    for name in ("tracked1", "tracked2"):
        assert base.get(f"/{name}/fail").status_code == 500
        base.get(f"/{name}/flush")
        assert "nothing left behind" in base.undeploy(name)
    assert sorted(collector.told()) == [("1", "IndexError"), ("2", "IndexError")]
    assert own(base, "/client") == [False]


# --- a module's own patches of a shared library ----------------------------------------------------------------------


def pages(base: BaseProcess, prefix: str = "") -> tuple[str, str]:
    """The body of a JSON answer, and the type of an HTML one."""
    return base.get(f"{prefix}/json").text, base.get(f"{prefix}/html").headers["content-type"].split(";")[0]


PLAIN: Final = """
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

app = Starlette()
app.routes.append(Route("/json", lambda request: JSONResponse({"a": 1})))
app.routes.append(Route("/html", lambda request: HTMLResponse("text")))
"""
ORIGINAL = ('{"a":1}', "text/html")


def test_modules_that_patch_nothing_change_nothing(
    base_without: BaseProcess, unchanged: Callable[[BaseProcess], BaseProcess], tmp_path: Path
) -> None:
    """What these tests compare is the same after two modules without a patch have come, served and left."""
    base = unchanged(base_without)
    for name in ("first", "second"):
        base.deploy(write(tmp_path, name, PLAIN))
        assert pages(base, f"/{name}") == ORIGINAL
    for name in ("first", "second"):
        assert "nothing left behind" in base.undeploy(name)


def test_a_patch_of_a_shared_class_works_for_its_module_alone(
    base_without: BaseProcess, unchanged: Callable[[BaseProcess], BaseProcess], tmp_path: Path
) -> None:
    """A method and an attribute that a module replaces are others for that module, and for nobody else."""
    base = unchanged(base_without)
    base.deploy(write(tmp_path, "earlier", PLAIN))
    base.deploy(CASES / "base_patch.py")
    base.deploy(write(tmp_path, "later", PLAIN))
    for _ in range(2):
        assert base.get("/base_patch/").text == '"patched"'
        assert [pages(base), pages(base, "/earlier"), pages(base, "/later")] == [ORIGINAL] * 3
    base.deploy(CASES / "base_patch.py")
    assert base.get("/base_patch/").text == '"patched"'
    assert "no code of the module is left" in (said := base.undeploy("base_patch")) or "nothing left behind" in said
    assert [pages(base), pages(base, "/earlier"), pages(base, "/later")] == [ORIGINAL] * 3


def test_two_modules_patch_the_same_function_differently(
    base_without: BaseProcess, unchanged: Callable[[BaseProcess], BaseProcess], tmp_path: Path
) -> None:
    """Each module has its own patch in any order of coming and going, and a patch may call what it replaced."""
    base = unchanged(base_without)
    patch = """
original = JSONResponse.render


def render(self, content):
    return original(self, content) + b" by {name}"


JSONResponse.render = render
"""
    for first, second in (("anna", "bert"), ("bert", "anna")):
        for name in (first, second):
            base.deploy(write(tmp_path, name, PLAIN + patch.format(name=name)))
        for name in (second, first):
            assert base.get(f"/{name}/json").text == f'{{"a":1}} by {name}'
        assert pages(base) == ORIGINAL
        assert "nothing left behind" in base.undeploy(first)
        assert base.get(f"/{second}/json").text == f'{{"a":1}} by {second}'
        assert pages(base) == ORIGINAL
        assert "nothing left behind" in base.undeploy(second)
        assert base.get("/changed").json() == []


# --- libraries that patch others -------------------------------------------------------------------------------------

DEFUSED: Final = """
import defusedxml

defusedxml.defuse_stdlib()

import xml.dom.minidom
import xml.sax
from fastapi import FastAPI

app = FastAPI()
BOMB = b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'


@app.get("/")
def parse():
    answers = []
    for read in (xml.dom.minidom.parseString, lambda text: xml.sax.parseString(text, xml.sax.ContentHandler())):
        try:
            read(BOMB)
            answers.append("parsed")
        except defusedxml.EntitiesForbidden:
            answers.append("refused")
    return answers
"""
INNOCENT: Final = DEFUSED.replace("defusedxml.defuse_stdlib()", "")


def test_parsers_that_one_module_has_hardened_are_as_they_were_for_others(
    base_without: BaseProcess, unchanged: Callable[[BaseProcess], BaseProcess], tmp_path: Path
) -> None:
    """A module that replaces the parsers of the standard library is refused bombs, and nobody else notices."""
    base = unchanged(base_without)
    before = base.get("/parser").json()
    base.deploy(write(tmp_path, "innocent", INNOCENT))
    base.deploy(write(tmp_path, "defused", DEFUSED))
    assert own(base, "/defused/", "/innocent/") == [["refused", "refused"], ["parsed", "parsed"]]
    assert base.get("/parser").json() == before
    assert "nothing left behind" in base.undeploy("defused")
    assert own(base, "/innocent/", "/parser") == [["parsed", "parsed"], before]


TRUSTING: Final = """
import ssl

import truststore

truststore.inject_into_ssl()

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def kind():
    return ssl.SSLContext.__module__
"""


def test_a_class_of_the_standard_library_that_a_library_replaces_stays_for_others(
    base_without: BaseProcess, unchanged: Callable[[BaseProcess], BaseProcess], tmp_path: Path
) -> None:
    """`truststore` puts another class in the place of `ssl.SSLContext`, which only its module may see."""
    base = unchanged(base_without)
    before = base.get("/parser").json()
    base.deploy(write(tmp_path, "trusting", TRUSTING))
    assert base.get("/trusting/").json().startswith("truststore")
    assert base.get("/parser").json() == before
    assert "nothing left behind" in base.undeploy("trusting")
    assert base.get("/parser").json() == before

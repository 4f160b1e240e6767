"""Objects that modules and the base offer to each other, through a real ``arkctl serve`` and real requests."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import until

from koupleless.artifact.build import Options, build_file, build_project

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import BaseProcess

CASES = Path(__file__).parent.parent / "bizs" / "shared" / "in-flight"

BASE = """
from contracts import Prices
from flask import Flask
from koupleless import ServiceError, service


class Stock:
    def __init__(self):
        self.taken = []

    def take(self, thing):
        self.taken.append(thing)
        return self


stock = Stock()
service.offer(stock, name="stock")
prices = service.use("prices", biz="owner")
kept = []
app = Flask(__name__)


@app.get("/taken")
def taken():
    return {"taken": [str(thing) for thing in stock.taken]}


@app.get("/ask")
def ask():
    try:
        kept[:] = kept or [prices.of]
        return {"version": prices.version(), "kept method": kept[0]("tea")}
    except ServiceError as error:
        return {"error": str(error)}, 503
"""

CONTRACTS = """
import abc


class Prices(abc.ABC):
    @abc.abstractmethod
    def of(self, article): ...
"""

OWNER = """
from contracts import Prices
from koupleless import current_biz, service


class Unsaleable(Exception):
    pass


class Own(Prices):
    def of(self, article):
        if article == "nothing":
            raise Unsaleable("nothing has no price")
        return {price}

    def version(self):
        return {version!r}

    def who(self):
        return str(current_biz())

    def slowly(self, started, go_on):
        started.set()
        assert go_on.wait(20)
        return {version!r}

    def same(self, thing):
        return thing

    @property
    def attribute(self):
        return [{version!r}]

    def __len__(self):
        return {price}

    def __iter__(self):
        return iter(["tea", {version!r}])


service.offer(Own(), name="prices")


def app(environ, start_response):
    start_response("200 OK", [])
    return [{version!r}.encode()]
"""

USER = """
import threading

from contracts import Prices
from flask import Flask, jsonify
from koupleless import ServiceError, current_biz, service

prices = service.use("prices", biz="owner")
anybody = service.use("prices")
by_type = service.use(Prices)
pinned = service.use("prices", biz="owner", version="1.0")
stock = service.use("stock")
started, go_on = threading.Event(), threading.Event()
app = Flask(__name__)


@app.errorhandler(ServiceError)
def gone(error):
    return {"error": str(error), "kind": type(error).__name__}, 503


@app.get("/version")
def version():
    return {"version": prices.version()}


@app.get("/all")
def everything():
    thing = object()
    return {
        "version": prices.version(), "anybody": anybody.version(), "type": by_type.version(), "of": prices.of("tea"),
        "attribute": prices.attribute, "len": len(prices), "items": list(prices), "owner": prices.who(),
        "me": str(current_biz()), "isinstance": isinstance(prices, Prices), "same": prices.same(thing) is thing,
    }


@app.get("/pinned")
def of_one_version():
    return {"version": pinned.version()}


@app.get("/raise")
def raising():
    try:
        prices.of("nothing")
    except Exception as error:
        return {"raised": type(error).__name__, "text": str(error), "me": str(current_biz())}


@app.get("/slowly")
def slowly():
    return {"version": prices.slowly(started, go_on)}


@app.get("/started")
def has_started():
    return {"started": started.wait(20)}


@app.get("/go-on")
def let_go():
    go_on.set()
    return {}


@app.get("/take/<thing>")
def take(thing):
    return {"same": stock.take(thing) is stock.take(thing), "me": str(current_biz())}


@app.get("/all-owners")
def owners():
    return {name: offered.version() for name, offered in service.use_all("prices").items()}


@app.get("/no-such-service")
def no_such():
    return service.use("silver", biz="owner").shine()


@app.get("/no-such-biz")
def no_such_biz():
    return service.use("prices", biz="nobody").version()


@app.get("/no-such-method")
def no_such_method():
    try:
        return prices.no_such()
    except AttributeError as error:
        return {"attribute error": str(error)}, 501
"""

OTHER = """
from koupleless import service


class Other:
    def version(self):
        return "other"


service.offer(Other(), name="prices")


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"other"]
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("services")
    (directory / "shop.py").write_text(BASE)
    (directory / "contracts.py").write_text(CONTRACTS)
    for name, source in (("user", USER), ("other", OTHER)):
        write(directory, name, name, "1.0", source)
    for version, price in (("1.0", 100), ("2.0", 200)):
        write(directory, f"owner-{version}", "owner", version, OWNER.format(price=price, version=version))
    return directory


def write(directory: Path, folder: str, name: str, version: str, source: str) -> None:
    project = directory / folder
    project.mkdir()
    (project / f"{name}.py").write_text(source)
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "{version}"\n\n[tool.koupleless.module]\nentry = "{name}:app"\n'
    )


@pytest.fixture(scope="module")
def process(serve: Callable[..., BaseProcess], sources: Path) -> BaseProcess:
    return serve("shop:app", cwd=sources)


@pytest.fixture
def shop(process: BaseProcess) -> BaseProcess:
    """With nothing but the user's module."""
    process.clear()
    deploy(process, "user")
    return process


@functools.cache
def built(project: Path) -> Path:
    return build_project(project, Options(out=project.parent / "dist")).path


def deploy(shop: BaseProcess, folder: str, strategy: str = "replace") -> None:
    """As `arkctl deploy` does, which others test, without a process and a build each time."""
    shop.ask("installBiz", bizUrl=built(shop.cwd / folder).as_uri(), installStrategy=strategy)


def test_a_module_uses_what_another_one_offers_as_if_it_were_its_own(shop: BaseProcess) -> None:
    deploy(shop, "owner-1.0")

    assert shop.get("/user/all").json() == {
        "version": "1.0", "anybody": "1.0", "type": "1.0", "of": 100, "attribute": ["1.0"], "len": 100,
        "items": ["tea", "1.0"], "owner": "owner:1.0", "me": "user:1.0", "isinstance": True, "same": True,
    }  # fmt: skip


def test_module_and_base_use_each_other(shop: BaseProcess) -> None:
    deploy(shop, "owner-1.0")

    taken = shop.get("/user/take/tea").json()
    assert taken["same"] is True
    assert taken["me"] == "user:1.0", "after a call into the base it is itself again"
    assert shop.get("/taken").json()["taken"][-2:] == ["tea", "tea"]
    assert shop.get("/ask").json() == {"version": "1.0", "kept method": 100}


def test_what_an_owner_raises_arrives_as_itself(shop: BaseProcess) -> None:
    deploy(shop, "owner-1.0")

    reply = shop.get("/user/raise").json()
    assert reply == {"raised": "Unsaleable", "text": "nothing has no price", "me": "user:1.0"}
    assert shop.get("/user/no-such-method").status_code == 501


def test_a_reference_may_be_taken_before_there_is_an_owner(shop: BaseProcess) -> None:
    missed = shop.get("/user/version")
    assert missed.status_code == 503, missed.text
    assert "owner" in missed.json()["error"]
    assert shop.get("/ask").status_code == 503

    deploy(shop, "owner-1.0")
    assert shop.get("/user/version").json() == {"version": "1.0"}


def test_a_reference_follows_a_switch_there_and_back(shop: BaseProcess) -> None:
    deploy(shop, "owner-1.0")
    deploy(shop, "owner-2.0", "installOnly")
    assert shop.get("/user/version").json() == {"version": "1.0"}, "the second version comes up deactivated"
    for version, price in (("2.0", 200), ("1.0", 100), ("2.0", 200)):
        shop.say("switch", f"owner:{version}")
        everything = shop.get("/user/all").json()
        told = [everything[key] for key in ("version", "anybody", "type", "of", "owner")]
        assert told == [version, version, version, price, f"owner:{version}"]
        assert shop.get("/ask").json() == {"version": version, "kept method": price}
        assert shop.get("/user/pinned").json() == {"version": "1.0"}, "an explicit version is that one, active or not"


def test_a_reference_follows_a_deployment_and_keeps_no_old_version_alive(shop: BaseProcess) -> None:
    deploy(shop, "owner-1.0")
    shop.get("/user/all")
    shop.get("/ask")
    deploy(shop, "owner-2.0")

    assert shop.get("/user/version").json() == {"version": "2.0"}
    missed = shop.get("/user/pinned")
    assert missed.status_code == 503
    assert "owner:1.0" in missed.json()["error"]
    shop.get("/user/raise")
    assert "nothing left behind" in shop.say("undeploy", "owner")


@pytest.mark.parametrize("path", ["version", "all", "pinned", "raise"])
def test_the_error_is_clear_once_the_owner_is_gone(shop: BaseProcess, path: str) -> None:
    deploy(shop, "owner-1.0")
    assert shop.get(f"/user/{path}").status_code == 200
    assert "nothing left behind" in shop.say("undeploy", "owner")

    if path == "raise":
        assert shop.get("/user/raise").json()["raised"] == "ServiceError"
        return
    missed = shop.get(f"/user/{path}")
    assert missed.status_code == 503, missed.text
    assert missed.json()["kind"] == "ServiceError"
    assert "owner" in missed.json()["error"]
    base = shop.get("/ask")
    assert base.status_code == 503
    assert "owner" in base.json()["error"]

    deploy(shop, "owner-2.0")
    assert shop.get("/user/version").json() == {"version": "2.0"}


@pytest.mark.parametrize(("path", "words"), [("no-such-service", ["silver", "owner"]), ("no-such-biz", ["nobody"])])
def test_what_nobody_offers_is_named(shop: BaseProcess, path: str, words: list[str]) -> None:
    deploy(shop, "owner-1.0")

    missed = shop.get(f"/user/{path}")
    assert missed.status_code == 503
    for word in words:
        assert word in missed.json()["error"]


def test_of_two_owners_none_is_taken_by_chance(shop: BaseProcess) -> None:
    deploy(shop, "owner-1.0")
    deploy(shop, "other")

    both = shop.get("/user/all")
    assert both.status_code == 503, both.text
    assert "owner" in both.json()["error"]
    assert "other" in both.json()["error"]
    assert shop.get("/user/all-owners").json() == {"owner": "1.0", "other": "other"}
    shop.say("undeploy", "other")
    assert shop.get("/user/all").json()["anybody"] == "1.0"


def test_a_call_in_flight_is_finished_by_the_version_that_began_it(shop: BaseProcess) -> None:
    deploy(shop, "owner-1.0")
    replies: list[object] = []
    call = threading.Thread(target=lambda: replies.append(shop.get("/user/slowly").json()))
    call.start()
    assert shop.get("/user/started").json() == {"started": True}
    deploy(shop, "owner-2.0", "installOnly")
    shop.say("switch", "owner:2.0")
    assert shop.get("/user/version").json() == {"version": "2.0"}
    shop.get("/user/go-on")
    call.join()

    assert replies == [{"version": "1.0"}]


@pytest.mark.parametrize("drained", [True, False], ids=["in time", "at the deadline"])
def test_calls_in_flight_get_the_value_or_an_error(
    serve: Callable[..., BaseProcess], sources: Path, tmp_path: Path, drained: bool
) -> None:
    (tmp_path / "koupleless.toml").write_text(f"[base]\ndrain-timeout = {30 if drained else 0.2}\n")
    shop = serve(cwd=tmp_path)
    for name in ("provider", "consumer"):
        shop.ask("installBiz", bizUrl=build_file(CASES / f"{name}.py", Options(out=tmp_path)).path.as_uri())
    newer = tmp_path / "provider.py"
    newer.write_text((CASES / "provider.py").read_text().replace("VERSION = 1", "VERSION = 2"))
    artefact = build_file(newer, Options(out=tmp_path / "newer", version="2.0.0")).path
    with ThreadPoolExecutor(4) as pool:
        asked = {kind: pool.submit(shop.get, f"/consumer/?{kind}") for kind in ("slow", "agen", "task", "thread")}
        until(lambda: shop.log.read_text().count("asked\n") == len(asked))
        shop.ask("installBiz", bizUrl=artefact.as_uri(), installStrategy="replace")
        replies = {kind: reply.result() for kind, reply in asked.items()}

    told = {kind: reply.text for kind, reply in replies.items()}
    if drained:
        assert told == {"slow": "1", "agen": str(list(range(10))), "task": "1", "thread": "1"}
    else:
        assert all(text.startswith("BizGone: biz provider:1.0.0 was uninstalled") for text in told.values()), told
        assert {reply.status_code for reply in replies.values()} == {503}
    assert shop.get("/consumer/?slow").text == "2"


def test_no_call_is_lost_or_half_new_while_the_owner_is_replaced(shop: BaseProcess) -> None:
    deploy(shop, "owner-1.0")
    stop, answers = threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            reply = shop.get("/user/version")
            answers.append((reply.status_code, reply.json().get("version")))

    def has_answered(version: str, since: int) -> bool:
        return (200, version) in answers[since:]

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for version in ["2.0", "1.0"] * 3:
            deploy(shop, f"owner-{version}")
            until(functools.partial(has_answered, version, len(answers)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert set(answers) == {(200, "1.0"), (200, "2.0")}


def test_a_user_that_leaves_leaves_nothing_with_the_owner(shop: BaseProcess) -> None:
    deploy(shop, "owner-1.0")
    shop.get("/user/all")
    shop.get("/user/raise")

    assert "nothing left behind" in shop.say("undeploy", "user")
    assert shop.get("/owner/").text == "1.0"
    assert shop.get("/ask").json()["version"] == "1.0"

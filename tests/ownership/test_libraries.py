from __future__ import annotations

import logging
import logging.handlers
import sys
import weakref
from typing import TYPE_CHECKING, Any

import fastapi  # noqa: F401 - by the base, before any biz uses it
import flask  # noqa: F401
import httpx  # noqa: F401
import pydantic
import pytest
import starlette.middleware.gzip  # noqa: F401

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ownership.conftest import LoopThread, MakeBiz, TinyBiz


@pytest.fixture
def shared_logger() -> Any:
    logger = logging.getLogger("shared.library")
    yield logger
    logger.handlers.clear()
    logger.filters.clear()


def test_a_handler_on_a_shared_logger_is_removed_and_the_base_s_stays(
    biz: TinyBiz, shared_logger: logging.Logger
) -> None:
    own = logging.NullHandler()
    shared_logger.addHandler(own)
    biz.run(
        """
        class Own(logging.Handler):
            emit = reach
        logging.getLogger("shared.library").addHandler(Own())
        logging.getLogger("shared.library").addHandler(own)
        """,
        logging=logging,
        own=own,
    )
    report = biz.leave()
    assert report.clean, report
    assert shared_logger.handlers == [own]
    assert report.undone == {"logging handler": 1}


def test_filters_on_shared_loggers_and_handlers_are_removed(biz: TinyBiz, shared_logger: logging.Logger) -> None:
    handler = logging.NullHandler()
    biz.run("logger.addFilter(reach)\nhandler.addFilter(K())", logger=shared_logger, handler=handler)
    report = biz.leave()
    assert report.clean, report
    assert shared_logger.filters == []
    assert handler.filters == []
    assert report.undone == {"logging filter": 2}


def test_a_handler_the_biz_removes_itself_is_forgotten(biz: TinyBiz, shared_logger: logging.Logger) -> None:
    biz.run(
        "h = logging.NullHandler()\nlogger.addHandler(h)\nlogger.removeHandler(h)",
        logging=logging,
        logger=shared_logger,
    )
    assert [entry.kind for entry in biz.ledger._entries] == ["logging"]


def test_handlers_the_biz_made_are_flushed_and_closed(biz: TinyBiz, tmp_path: Path) -> None:
    biz.run(
        """
        target = logging.FileHandler(path)
        handler = logging.handlers.MemoryHandler(100, target=target)
        handler.emit(logging.makeLogRecord({"msg": "buffered", "levelno": 10}))
        """,
        logging=logging,
        path=tmp_path / "biz.log",
    )
    report = biz.leave()
    assert report.clean, report
    assert (tmp_path / "biz.log").read_text() == "buffered\n"


def test_a_logger_of_the_biz_s_own_is_not_kept_by_the_ledger(biz: TinyBiz) -> None:
    module = biz.run("own = logging.Logger('own')\nown.addHandler(logging.NullHandler())", logging=logging)
    reference = weakref.ref(module.own)
    del module.own
    assert reference() is None
    assert biz.leave().undone == {}


def test_pydantic_models_and_parametrised_generics_are_released(biz: TinyBiz) -> None:
    generics = sys.modules["pydantic._internal._generics"]
    module = biz.run(
        """
        from typing import Generic, TypeVar
        T = TypeVar("T")
        class Order(pydantic.BaseModel):
            id: int
            def reach(self):
                return K
        class Page(pydantic.BaseModel, Generic[T]):
            items: list[T]
        OrderPage = Page[Order]
        IntPage = Page[int]
        Shared = Envelope[Order]
        adapter = pydantic.TypeAdapter(list[Order])
        """,
        pydantic=pydantic,
        Envelope=Envelope,
    )
    del module
    kept = Envelope[int]
    report = biz.leave()
    assert report.clean, report
    assert kept in set(generics._GENERIC_TYPES_CACHE.values())
    assert Envelope[int] is kept


def make_envelope() -> Any:
    from typing import Generic, TypeVar

    T = TypeVar("T")

    class Envelope(pydantic.BaseModel, Generic[T]):
        content: T

    return Envelope


Envelope = make_envelope()

FASTAPI = """
from typing import Annotated
import fastapi
from fastapi.security import HTTPBearer
from pydantic import BaseModel

class Item(BaseModel):
    name: str
    def reach(self):
        return app

def settings():
    return K

async def session():
    yield 1

class Pager:
    def __call__(self, page: int = 1):
        return page

app = fastapi.FastAPI()
router = fastapi.APIRouter(dependencies=[fastapi.Depends(settings)])

@router.get("/items", response_model=list[Item])
def items(page: Annotated[int, fastapi.Depends(Pager())], s: Annotated[int, fastapi.Depends(session)]):
    return [Item(name=str(page + s))]

@app.post("/items")
async def add(item: Item, token: Annotated[object, fastapi.Depends(HTTPBearer(auto_error=False))] = None) -> Item:
    return item

@app.websocket("/ws")
async def ws(socket: fastapi.WebSocket):
    await socket.accept()

@app.exception_handler(ValueError)
async def broken(request, error):
    return None

@app.middleware("http")
async def timing(request, call_next):
    return await call_next(request)

app.include_router(router)
"""

FLASK = """
import flask, blinker

app = flask.Flask("tiny")
signal = blinker.signal("tiny-shared")
blueprint = flask.Blueprint("b", "tiny")

@app.route("/")
def index():
    app.logger.warning("seen")
    return flask.render_template_string("{{ name }}", name=K.__name__)

@app.before_request
def before():
    flask.g.k = K()

@blueprint.route("/b")
def b():
    return flask.jsonify(flask.url_for("index"))

app.register_blueprint(blueprint)
flask.request_started.connect(reach, app)
"""

STARLETTE = """
import contextlib
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Mount, WebSocketRoute
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

def sync(request):
    return PlainTextResponse(K.__name__)

async def endpoint(request):
    return PlainTextResponse("a")

@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"k": K}

app = Starlette(
    routes=[Route("/", sync), Mount("/sub", routes=[Route("/", endpoint)])],
    middleware=[Middleware(GZipMiddleware)],
    lifespan=lifespan,
)
"""

ASK = """
import httpx
async def ask():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://tiny") as client:
        return [(await client.get(path)).status_code for path in paths]
"""


def test_a_fastapi_application_that_served_is_collected(biz: TinyBiz, loop: LoopThread) -> None:
    module = biz.run(FASTAPI + ASK, name="tiny_fastapi", paths=["/items", "/openapi.json", "/none"])
    assert loop.run(module.ask, scope=biz.scope) == [200, 200, 404]
    del module
    report = biz.leave()
    assert report.clean, report.summary()
    assert report.undone["lru cache"] >= 1


def test_a_starlette_application_that_served_is_collected(biz: TinyBiz, loop: LoopThread) -> None:
    module = biz.run(STARLETTE + ASK, paths=["/", "/sub/"])
    assert loop.run(module.ask, scope=biz.scope) == [200, 200]
    del module
    report = biz.leave()
    assert report.clean, report.summary()


def test_a_flask_application_that_served_is_collected(biz: TinyBiz) -> None:
    module = biz.run(
        FLASK
        + "\ndef ask():\n    client = app.test_client()\n    return [client.get(p).status_code for p in ('/', '/b')]"
    )
    from koupleless.context import entered

    with entered(biz.scope):
        assert module.ask() == [200, 200]
    del module
    report = biz.leave()
    assert report.clean, report.summary()


def test_forty_lives_of_a_fastapi_application_leave_no_object_behind(make_biz: MakeBiz) -> None:
    import gc

    def live() -> Any:
        biz = make_biz()
        biz.run(FASTAPI, name="tiny_fastapi")
        report = biz.leave()
        assert report.clean, report.summary()

    for _ in range(10):
        live()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(40):
        live()
    gc.collect()
    assert len(gc.get_objects()) - before < 40


def test_overloads_the_biz_declared_are_forgotten_and_the_base_s_stay(biz: TinyBiz) -> None:
    import typing

    @typing.overload
    def mine(x: int) -> int: ...
    @typing.overload
    def mine(x: str) -> str: ...
    def mine(x: object) -> object:
        return x

    biz.run("import typing\n@typing.overload\ndef f(x: int) -> int: ...\n@typing.overload\ndef f(x: str) -> str: ...")
    report = biz.leave()
    assert report.clean, report
    assert report.undone == {"overload": 2}
    assert len(typing.get_overloads(mine)) == 2


def test_overloads_of_methods_and_what_decorators_note_on_them_are_forgotten(biz: TinyBiz) -> None:
    biz.run(
        """
        import typing

        def field(): ...

        class Maker:
            @typing.overload
            @staticmethod
            def make(x: int) -> int: ...
            @typing.overload
            @classmethod
            def other(cls, x: int) -> int: ...

        @typing.dataclass_transform(field_specifiers=(field,))
        @typing.overload
        def f(x: int) -> int: ...
        """
    )
    report = biz.leave()

    assert report.clean, report
    assert report.undone == {"overload": 4}


def test_sqlalchemy_listeners_are_removed_and_the_base_s_stay(biz: TinyBiz) -> None:
    from sqlalchemy import create_engine, event, text
    from sqlalchemy.orm import Session

    engine = create_engine("sqlite://")
    heard: list[str] = []

    def mine(*_: object) -> None:
        heard.append("base")

    class Shared(Session):
        """Of the base: what a biz hears on a class of SQLAlchemy itself, it hears of itself alone."""

    event.listen(engine, "before_cursor_execute", mine)
    event.listen(Shared, "after_begin", mine)
    biz.run(
        """
        from sqlalchemy import event

        class Own(Shared):
            pass

        def hear(*_):
            heard.append("biz")

        event.listen(engine, "before_cursor_execute", hear)
        event.listen(Shared, "after_begin", hear)
        event.listen(Own, "before_flush", hear)
        """,
        Shared=Shared,
        engine=engine,
        heard=heard,
    )

    def use() -> list[str]:
        heard.clear()
        with Shared(engine) as session:
            session.execute(text("select 1"))
        return heard

    try:
        assert use() == ["base", "biz", "base", "biz"]
        report = biz.leave()
        assert report.clean, report
        assert report.undone["sqlalchemy listener"] == 3
        assert use() == ["base", "base"]
    finally:
        event.remove(Shared, "after_begin", mine)
        engine.dispose()

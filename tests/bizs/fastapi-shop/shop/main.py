"""A FastAPI application of some size: nearly everything a tutorial shows, in one."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Form, Request, WebSocket, WebSocketDisconnect
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates

from shop import items
from shop.models import Message, User

HERE = Path(__file__).parent
done = []


async def tick(state):
    while True:
        state["ticks"] += 1
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def lifespan(app):
    state = {"ticks": 0, "name": "shop"}
    task = asyncio.create_task(tick(state))
    forgotten = asyncio.create_task(asyncio.sleep(3600))
    app.state.forgotten = forgotten
    yield {"counter": state}
    task.cancel()


app = FastAPI(title="Shop", lifespan=lifespan)
app.add_middleware(CORSMiddleware, allow_origins=["http://elsewhere"])
app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
app.include_router(items.router, prefix="/items", tags=["items"])
templates = Jinja2Templates(directory=HERE / "templates")


class OutOfStock(Exception):
    def __init__(self, name: str) -> None:
        self.name = name


@app.exception_handler(OutOfStock)
async def out_of_stock(request: Request, error: OutOfStock):
    return JSONResponse({"out of stock": error.name, "path": request.url.path}, status_code=418)


@app.middleware("http")
async def stamp(request: Request, call_next):
    response = await call_next(request)
    response.headers["X-Shop"] = "1"
    return response


async def current_user(request: Request) -> User:
    return User(name=request.headers.get("x-user", "nobody"))


@app.get("/")
async def index(request: Request):
    return templates.TemplateResponse(request, "index.html", {"names": ["tea", "<cup>"]})


@app.get("/me")
async def me(user: Annotated[User, Depends(current_user)]) -> User:
    return user


@app.post("/later")
def later(message: Message, tasks: BackgroundTasks) -> dict[str, int]:
    tasks.add_task(done.append, message.text)
    return {"length": len(message.text)}


@app.get("/done")
async def all_done() -> list[str]:
    return done


@app.post("/form")
async def form(name: Annotated[str, Form()]) -> str:
    return name


@app.get("/teapot/{name}")
async def teapot(name: str):
    raise OutOfStock(name)


@app.get("/broken")
async def broken():
    raise RuntimeError("broken on purpose")


@app.get("/stream")
async def stream():
    async def numbers():
        for n in range(50):
            yield f"{n};"
            await asyncio.sleep(0)

    return StreamingResponse(numbers(), media_type="text/plain")


@app.get("/state")
async def state(request: Request):
    return {"name": request.state.counter["name"], "ticking": request.state.counter["ticks"] > 0}


@app.websocket("/echo")
async def echo(socket: WebSocket, user: Annotated[str, Depends(lambda: "you")]):
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.send_json({"from": user, "said": await socket.receive_text(), "path": socket.url.path})

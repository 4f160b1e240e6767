"""A FastAPI application with what FastAPI applications have: a model, a dependency, a lifespan, a WebSocket, a stream."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

VERSION = "1.1"
life: list[str] = []


@asynccontextmanager
async def lifespan(app: FastAPI):
    life.append("started")
    yield {"greeting": "hello"}
    life.append("stopped")


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    price: float = 1.0


def who(name: str = "world") -> str:
    return name


@app.get("/")
async def root(request: Request, name: Annotated[str, Depends(who)]) -> dict[str, object]:
    return {"hello": name, "version": VERSION, "life": life, "state": request.state.greeting}


@app.post("/items")
async def create(item: Item) -> Item:
    return item


@app.get("/slow")
async def slow(seconds: float = 0.2) -> dict[str, str]:
    await asyncio.sleep(seconds)
    return {"version": VERSION}


@app.get("/stream")
async def stream(count: int = 3, pause: float = 0.0) -> StreamingResponse:
    async def lines():
        for number in range(count):
            yield f"{number}\n"
            await asyncio.sleep(pause)

    return StreamingResponse(lines(), media_type="text/plain")


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"{VERSION}:{text}")

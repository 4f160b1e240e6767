"""Leaves behind what modules leave behind: a thread, a timer, an executor, tasks, atexit, a handler, a cache entry."""

import asyncio
import atexit
import concurrent.futures
import functools
import logging
import threading


class Leaf:
    """Its method reaches the module's globals, so whoever holds one holds the module."""

    def touch(self) -> None:
        stopped.set()


stopped = threading.Event()
leaf = Leaf()
pool = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="leaky")
pool.submit(leaf.touch).result()
timer = threading.Timer(3600, leaf.touch)
timer.start()
atexit.register(leaf.touch)


class Collecting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        leaf.touch()


logging.getLogger("uvicorn.error").addHandler(Collecting())
logging.getLogger().addHandler(Collecting())


@functools.lru_cache
def cached(number: int) -> Leaf:
    return leaf


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        asyncio.get_running_loop().call_later(3600, leaf.touch)
        scope["state"]["task"] = asyncio.create_task(asyncio.sleep(3600))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    cached(1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"leaky"})

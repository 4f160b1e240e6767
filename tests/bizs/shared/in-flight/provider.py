"""What ``consumer`` calls while this is deployed again with VERSION changed."""
import asyncio
import time

from koupleless.service import offer
from starlette.applications import Starlette

VERSION = 1


class Provider:
    async def slow(self):
        await asyncio.sleep(1)
        return VERSION

    async def agen(self):
        for number in range(10):
            yield number
            await asyncio.sleep(0.1)

    async def task(self):
        return await asyncio.create_task(self.slow())

    async def thread(self):
        return await asyncio.to_thread(time.sleep, 1) or VERSION


offer(Provider(), name="provider")
app = Starlette()

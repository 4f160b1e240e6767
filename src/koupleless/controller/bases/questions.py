"""Questions to one base: the list of modules and the health, asked again and again while the controller leads."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final, TypeVar

from koupleless.controller.tunnels.tunnel import Deaf, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from koupleless.controller.bases.knowledge import Knowledge
    from koupleless.controller.tunnels.tunnel import Tunnel

_log: Final = logging.getLogger("koupleless.controller")

_Answer = TypeVar("_Answer")

_SMALL_NEWS_S: Final = 300.0
"""Seconds between small news of the memory left, which changes all the time: each is a write to the API server."""
_JITTER: Final = 0.1
"""The part by which pauses differ, so that bases are not all asked at once."""


class Questions:
    """The two questions to one base, each with one answer awaited at a time.

    Lifetime: of a task that calls `run`. All on one event loop.
    """

    def __init__(
        self,
        news: Knowledge,
        tunnel: Tunnel,
        *,
        clock: Callable[[], float],
        list_every_s: float,
        health_every_s: float,
        on_list: Callable[[bool], object],
        on_health: Callable[[], object],
    ) -> None:
        """``on_list`` is called after each list, and told if it was news; ``on_health`` after health with news."""
        self._news = news
        self._tunnel = tunnel
        self._clock = clock
        self._pauses = (list_every_s, health_every_s)
        self._on_list = on_list
        self._on_health = on_health
        self._wants_list = asyncio.Event()
        self._told = float("-inf")
        """The time of the last news of the capacity."""

    def ask_for_list(self) -> None:
        """Ask for the list at once; twice, if the question is under way."""
        self._wants_list.set()

    async def run(self) -> None:
        """Ask until cancelled, for the first time at once."""
        list_every_s, health_every_s = self._pauses
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self.ask_list, list_every_s, self._wants_list))
            tasks.create_task(self._repeat(self.ask_health, health_every_s, asyncio.Event()))

    async def _repeat(self, ask: Callable[[], Awaitable[None]], every_s: float, sooner: asyncio.Event) -> None:
        while True:
            sooner.clear()
            try:
                await ask()
            except NoAnswer as error:
                _log.info("%s", error)
            try:
                async with asyncio.timeout(every_s * random.uniform(1 - _JITTER, 1 + _JITTER)):  # noqa: S311 - no secret
                    await sooner.wait()
            except TimeoutError:
                continue

    async def ask_list(self) -> None:
        """Ask for the list of modules once. Raises `NoAnswer`."""
        news, asked = self._news, self._clock()
        start = news.base.start
        found = await self._answer_to(self._tunnel.modules(news.base))
        if news.base.start == start:  # else the answer is that of a former life
            self._on_list(news.take_list(found, asked=asked))

    async def ask_health(self) -> None:
        """Ask for the health once. Raises `NoAnswer`."""
        news, now = self._news, self._clock()
        health = await self._answer_to(self._tunnel.health(news.base))
        if health.is_active:
            news.liveness.see(self._clock())
        elif health.is_active is False:
            news.liveness.end()
        known = news.capacity
        if health.capacity != known and (not health.capacity.is_near(known) or now - self._told >= _SMALL_NEWS_S):
            news.capacity, self._told = health.capacity, now
            self._on_health()
        elif news.liveness.has_ended:
            self._on_health()

    async def _answer_to(self, question: Awaitable[_Answer]) -> _Answer:
        """Wait for an answer, and note whether one came. Raises `NoAnswer`."""
        try:
            answer = await question
        except Deaf:
            self._news.liveness.excuse(self._clock())
            raise
        except NoAnswer:
            self._news.liveness.miss()
            raise
        self._news.liveness.answer(self._clock())
        return answer

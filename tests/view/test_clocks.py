"""What a biz puts in the place of functions of ``time`` and its like is its own."""

import asyncio
import datetime as dt
import email.utils
import math
import threading
import time
import types
import uuid
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from koupleless.context import Scope, entered

MakeBiz = Callable[..., Scope]

pytestmark = pytest.mark.usefixtures("with_stdlib")


def fake() -> float:
    return 1.0


def test_a_patched_clock_is_seen_by_the_biz_and_what_works_for_it(make_biz: MakeBiz) -> None:
    one, two = make_biz("one"), make_biz("two")
    original, kind = time.time, dt.datetime
    with entered(one), mock.patch("time.time", fake):
        assert email.utils.formatdate().startswith("Thu, 01 Jan 1970 00:00:01")
        assert vars(time)["time"] is fake
    with entered(one), mock.patch("time.time", fake), mock.patch("datetime.datetime") as patched:
        assert (time.time(), dt.datetime) == (1.0, patched)
        with entered(two):
            assert (time.time, dt.datetime) == (original, kind)
            time.time = lambda: 2.0
            assert time.time() == 2.0
        with entered(None):
            assert (time.time, dt.datetime) == (original, kind)
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(time.time))
            thread.start()
            thread.join()
            assert found == [original]
        assert time.time() == 1.0
    with entered(one):
        assert (time.time, dt.datetime) == (original, kind)
    with entered(two):
        assert time.time() == 2.0


def test_new_variables_and_deleted_ones_are_the_biz_s(make_biz: MakeBiz) -> None:
    biz = make_biz()
    with entered(biz):
        uuid.mine = 1  # type: ignore[attr-defined]
        assert "mine" in dir(uuid)
        time.sleep = None  # type: ignore[assignment]
        del time.sleep
    assert not hasattr(uuid, "mine")
    assert callable(time.sleep)
    time.of_base = 1  # type: ignore[attr-defined]
    with entered(biz):
        assert time.of_base == 1  # type: ignore[attr-defined]
    del time.of_base  # type: ignore[attr-defined]
    assert not hasattr(time, "of_base")


def test_the_clock_of_the_event_loop_is_real(make_biz: MakeBiz) -> None:
    async def wait() -> float:
        with entered(make_biz()), mock.patch("time.monotonic", fake):
            assert time.monotonic() == 1.0
            async with asyncio.timeout(30):
                await asyncio.sleep(0.01)
            return asyncio.get_running_loop().time()

    before = time.monotonic()
    assert before <= asyncio.run(wait()) <= time.monotonic()


def test_a_module_that_nobody_has_changed_is_read_as_it_is(make_biz: MakeBiz) -> None:
    """Only what is assigned to becomes a property."""
    make_biz()
    assert "monotonic" not in vars(type(time))
    assert isinstance(time, types.ModuleType)
    assert type(time) == type(math)  # noqa: E721 - passes for it, and is not the same

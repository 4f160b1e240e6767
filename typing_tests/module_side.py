"""The types that code of a module sees: `koupleless` and `koupleless.service`.

Nothing here is run: ``scripts/check`` reads the files of this directory with mypy. An ``assert_type`` fails if a public
type changes, and an ``ignore`` fails if the mistake beside it is accepted one day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, assert_type

import koupleless
from koupleless import (
    BizGone,
    BizId,
    BizInfo,
    BizState,
    KouplelessError,
    ModuleRefused,
    ServiceError,
    carry,
    config,
    current_biz,
    data_dir,
    health_check,
    on_stop,
)
from koupleless.service import Registration, offer, use, use_all


class PriceList:
    """A service."""

    def price_of(self, article: str) -> int:
        """A method with types that a reference has to keep."""
        return len(article)


class HasPrices(Protocol):
    """What a service may be offered as without being an instance of a common class."""

    def price_of(self, article: str) -> int: ...


# --- who and where -----------------------------------------------------------------------------------------------

assert_type(current_biz(), BizId | None)
assert_type(config(), Mapping[str, Any])
assert_type(config()["database"], Any)
assert_type(koupleless.config(), Mapping[str, Any])
assert_type(data_dir(), Path)
assert_type(koupleless.data_dir() / "uploads", Path)

config()["database"] = "other"  # type: ignore[index]  # configuration is read only


# --- callbacks ---------------------------------------------------------------------------------------------------


def parse(text: str, *, base: int = 10) -> int:
    """A function whose parameters `carry` has to keep."""
    return int(text, base)


async def fetch(url: str) -> bytes:
    """A coroutine function, which `carry` has to keep one."""
    return url.encode()


assert_type(carry(parse)("12", base=8), int)
callback: Callable[[str], int] = carry(parse)


async def call_later() -> None:
    """Await a carried coroutine function."""
    assert_type(await carry(fetch)("tea"), bytes)


carry(parse)(12)  # type: ignore[arg-type]  # the wrapped function takes a text
carry(parse)("12", radix=8)  # type: ignore[call-arg]  # the wrapped function has no such parameter


@on_stop
def close_files() -> int:
    """A stop hook; whatever it returns is not looked at."""
    return 0


@on_stop
async def close_connections() -> None:
    """A stop hook that is awaited."""


assert_type(close_files(), int)
assert_type(on_stop(lambda: None)(), None)


@on_stop  # type: ignore[arg-type]  # a stop hook is called without arguments
def close(force: bool) -> None:
    """No stop hook."""


# --- services ----------------------------------------------------------------------------------------------------

assert_type(offer(PriceList()), Registration)
assert_type(offer(PriceList(), name="prices", on_close=close_files), Registration)
assert_type(offer(PriceList(), type=HasPrices), Registration)
assert_type(offer(PriceList(), type=[PriceList, HasPrices]), Registration)
assert_type(offer(parse, name="parse").withdraw(), None)

offer(PriceList(), "prices")  # type: ignore[call-arg]  # all but the object goes by its name
offer(PriceList(), type="prices")  # type: ignore[arg-type]  # a text is no type: a name goes by name=

assert_type(use("prices"), Any)
assert_type(use(PriceList), PriceList)
assert_type(use(PriceList, biz="prices", version="2.0.0").price_of("tea"), int)
assert_type(use_all("prices"), dict[str, Any])
assert_type(use_all(PriceList), dict[str, PriceList])
assert_type([each.price_of("tea") for each in use_all(PriceList).values()], list[int])

use(PriceList).prices_of("tea")  # type: ignore[attr-defined]  # a reference has the methods of its type
use(PriceList, "prices")  # type: ignore[call-overload]  # the biz goes by its name

# A protocol finds services as well; mypy, alone among checkers, wants to be told so (its code type-abstract).
prices: HasPrices = use(HasPrices)  # type: ignore[type-abstract]
assert_type(prices.price_of("tea"), int)


# --- values and errors -------------------------------------------------------------------------------------------


def describe(info: BizInfo) -> str:
    """Read the public fields of a snapshot."""
    assert_type(info.id, BizId)
    assert_type(info.state, BizState)
    assert_type(info.state.is_started, bool)
    assert_type(info.attributes, Mapping[str, str])
    info.priority = 1  # type: ignore[misc]  # a snapshot is frozen
    return f"{info.id.name}, {info.id.version}"


assert_type(BizId.parse("shop:1.0.0"), BizId)
assert_type(BizId.of("shop", "1.0.0"), BizId)
assert_type(sorted([BizId.parse("shop:1.0.0")]), list[BizId])
BizId("shop", "1.0.0")  # type: ignore[arg-type]  # names and versions are checked first: BizId.of

tree: Iterable[type[KouplelessError]] = (BizGone, ServiceError)
missing: type[ModuleNotFoundError] = ModuleRefused

try:
    use(PriceList).price_of("tea")
except ServiceError as error:
    assert_type(error.code, str)


@health_check
def is_up() -> bool:
    """A check that keeps its type."""
    return True


@health_check(name="database", timeout=2)
async def ask_database() -> dict[str, int]:
    """A check with details."""
    return {"connections": 1}


assert_type(is_up(), bool)

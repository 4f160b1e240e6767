"""The base: an ordinary FastAPI application, and an object that its modules may use."""

import threading

import flask  # noqa: F401 - imported once, here, for the modules that are Flask applications
from fastapi import FastAPI, HTTPException

from koupleless import service


class Stock:
    """What is in the store. Modules call it from their own requests, on any thread."""

    def __init__(self, amounts: dict[str, int]) -> None:
        self._lock = threading.Lock()
        self._amounts = amounts

    def amount(self, article: str) -> int:
        """How many there are. Raises ``KeyError`` for an article the shop does not have."""
        return self._amounts[article]

    def take(self, article: str, amount: int) -> int:
        """Take some out and return how many are left. Raises ``ValueError`` if there are not enough."""
        with self._lock:
            if self._amounts[article] < amount:
                raise ValueError(f"only {self._amounts[article]} of {article} left")
            self._amounts[article] -= amount
            return self._amounts[article]


app = FastAPI(title="shop")
stock = Stock({"tea": 10, "coffee": 2})
offer = service.offer(stock, name="stock")


@app.get("/stock/{article}")
async def show(article: str) -> dict[str, int]:
    try:
        return {article: stock.amount(article)}
    except KeyError:
        raise HTTPException(404, f"no {article} here") from None

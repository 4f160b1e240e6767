"""A FastAPI application that takes from the stock of the base, at the prices of another module."""

from collections import Counter

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from koupleless import ServiceError, service


class Receipt(BaseModel):
    article: str
    amount: int
    cents: int
    left: int


class Orders:
    """What was sold since the module started."""

    def __init__(self) -> None:
        self._sold: Counter[str] = Counter()

    def sold(self, article: str) -> int:
        """How many."""
        return self._sold[article]

    def note(self, article: str, amount: int) -> None:
        """They are sold."""
        self._sold[article] += amount


app = FastAPI(title="orders")
orders = Orders()
service.offer(orders, name="orders")
stock = service.use("stock")
prices = service.use("prices", biz="prices")


@app.post("/{article}")
def order(article: str, amount: int = 1) -> Receipt:
    try:
        cents = prices.of(article) * amount
        left = stock.take(article, amount)
    except KeyError:
        raise HTTPException(404, f"no {article} here") from None
    except ValueError as error:
        raise HTTPException(409, str(error)) from None
    except ServiceError as error:
        raise HTTPException(503, f"no orders at the moment: {error}") from None
    orders.note(article, amount)
    return Receipt(article=article, amount=amount, cents=cents, left=left)

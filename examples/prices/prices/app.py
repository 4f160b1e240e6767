"""A Flask application that offers its prices, and lowers them for what sells."""

from flask import Flask, abort

from koupleless import ServiceError, service

LIST_PRICES = {"tea": 400, "coffee": 700}
DISCOUNT_FROM = 3


class Prices:
    """What things cost now, in cents."""

    def of(self, article: str) -> int:
        """The price of one. Raises ``KeyError`` for what has none."""
        price = LIST_PRICES[article]
        return price * 9 // 10 if _sold(article) >= DISCOUNT_FROM else price


# Found again at every use: orders may come, go and be replaced.
orders = service.use("orders", biz="orders")


def _sold(article: str) -> int:
    try:
        return orders.sold(article)
    except ServiceError:
        return 0  # nobody takes orders at the moment, or this application runs alone


app = Flask(__name__)
prices = Prices()
service.offer(prices, name="prices")


@app.get("/<article>")
def show(article: str) -> dict[str, int]:
    try:
        return {article: prices.of(article)}
    except KeyError:
        abort(404)

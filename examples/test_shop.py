"""The base and its two modules in the process of the test: `pytest examples`, with the fixture of koupleless."""

import importlib
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent


@pytest.fixture
def koupleless_app(monkeypatch):
    """The application of the base, imported anew: each test has a stock of its own."""
    monkeypatch.syspath_prepend(EXAMPLES / "base")
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        monkeypatch.delitem(sys.modules, name)
    main = importlib.import_module("shop.main")
    yield main.app
    main.offer.withdraw()


def test_orders_use_prices_and_the_stock_of_the_base(koupleless_base):
    koupleless_base.install(EXAMPLES / "prices")
    koupleless_base.install(EXAMPLES / "orders")
    with koupleless_base.client() as http:
        assert http.get("/prices/tea").json() == {"tea": 400}
        receipt = http.post("/orders/tea", params={"amount": 3}).json()
        assert receipt == {"article": "tea", "amount": 3, "cents": 1200, "left": 7}
        assert http.get("/stock/tea").json() == {"tea": 7}
        assert http.get("/prices/tea").json() == {"tea": 360}


def test_a_module_that_leaves_is_missed_in_words(koupleless_base):
    prices = koupleless_base.install(EXAMPLES / "prices")
    orders = koupleless_base.install(EXAMPLES / "orders")
    koupleless_base.uninstall(prices)
    missed = orders.request("POST", "/tea")
    assert missed.status == 503
    assert "prices" in missed.text

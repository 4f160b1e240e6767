"""The applications of ``examples/``, run as their README says: a base, and two modules that use each other."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import BaseProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
README = EXAMPLES.parent / "README.md"


@pytest.fixture
def shop(serve: Callable[..., BaseProcess]) -> BaseProcess:
    """A new base with nothing installed."""
    return serve("shop.main:app", "--log-dir", "-", cwd=EXAMPLES / "base")


def order(shop: BaseProcess, article: str, amount: int = 1) -> httpx.Response:
    return httpx.post(f"{shop.url}/orders/{article}", params={"amount": amount}, timeout=30)


def test_modules_of_two_frameworks_and_the_base_use_each_other(shop: BaseProcess) -> None:
    assert shop.get("/stock/tea").json() == {"tea": 10}
    assert shop.get("/prices/tea").status_code == 404, "nothing is deployed yet"
    shop.arkctl("deploy", str(EXAMPLES / "prices"))
    shop.arkctl("deploy", str(EXAMPLES / "orders"))
    assert shop.get("/prices/tea").json() == {"tea": 400}
    assert order(shop, "tea", 3).json() == {"article": "tea", "amount": 3, "cents": 1200, "left": 7}
    assert shop.get("/stock/tea").json() == {"tea": 7}, "the base sees what the module took"
    assert shop.get("/prices/tea").json() == {"tea": 360}, "the other module sees what was sold"
    assert order(shop, "coffee", 3).status_code == 409
    assert order(shop, "milk").status_code == 404
    assert shop.get("/prices/milk").status_code == 404


def test_a_module_that_leaves_is_missed_in_words_and_found_again_when_it_is_back(shop: BaseProcess) -> None:
    shop.arkctl("deploy", str(EXAMPLES / "prices"))
    shop.arkctl("deploy", str(EXAMPLES / "orders"))
    assert "nothing left behind" in shop.arkctl("undeploy", "prices")
    missed = order(shop, "tea")
    assert missed.status_code == 503
    assert "prices" in missed.json()["detail"]
    assert shop.get("/stock/tea").json() == {"tea": 10}, "nothing was taken"
    shop.arkctl("deploy", str(EXAMPLES / "prices"))
    assert order(shop, "tea").status_code == 200
    assert "nothing left behind" in shop.arkctl("undeploy", "orders")
    assert shop.get("/prices/tea").json() == {"tea": 400}, "without orders nothing sells"


@pytest.mark.parametrize(
    ("directory", "command", "path", "answer"),
    [
        ("base", ["uvicorn", "shop.main:app", "--port"], "/stock/coffee", {"coffee": 2}),
        ("prices", ["flask", "--app", "prices.app", "run", "--port"], "/coffee", {"coffee": 700}),
        ("orders", ["uvicorn", "orders.app:app", "--port"], "/openapi.json", None),
    ],
)
def test_each_also_runs_alone_with_the_server_it_would_have_anyway(
    run_alone: Callable[..., BaseProcess], directory: str, command: list[str], path: str, answer: object
) -> None:
    alone = run_alone(lambda port: [sys.executable, "-m", *command, str(port)], EXAMPLES / directory)
    reply = httpx.get(alone.url + path, timeout=30)
    assert reply.status_code == 200
    assert answer is None or reply.json() == answer


def test_the_services_of_the_readme_are_complete_and_run(serve: Callable[..., BaseProcess], tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    for name, source in blocks:
        (tmp_path / name).write_text(source)
    assert [name for name, _ in blocks] == ["prices.py", "basket.py"]
    base = serve(cwd=tmp_path)
    base.arkctl("deploy", "basket.py")
    early = base.get("/basket/")
    assert (early.status_code, early.text[:17]) == (503, "come back later: ")
    base.arkctl("deploy", "prices.py")
    assert base.get("/basket/").text == "tea costs 400 cents"
    assert "nothing left behind" in base.arkctl("undeploy", "prices")
    assert base.get("/basket/").status_code == 503

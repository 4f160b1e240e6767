"""The probes of a real base, at both of its ports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAILING = """
from koupleless import health_check

@health_check
def disk():
    raise OSError("no disk")

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
"""


def test_probes_answer_at_both_ports_and_follow_the_modules(serve: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "from starlette.applications import Starlette\n"
        "from starlette.responses import PlainTextResponse\n"
        "from starlette.routing import Route\n"
        "app = Starlette(routes=[Route('/livez', lambda request: PlainTextResponse('of the base'))])\n"
    )
    base = serve("main:app", cwd=tmp_path)
    arklet = f"http://127.0.0.1:{base.arklet_port}"
    assert base.get("/livez").text == "of the base"
    for url in (base.url, arklet):
        assert [httpx.get(url + path).json() for path in ("/readyz", "/healthz")] == [{"status": "UP"}] * 2
    assert httpx.get(f"{arklet}/livez", headers={"Host": "10.1.2.3"}).json() == {"status": "UP"}

    (tmp_path / "shop.py").write_text(FAILING)
    base.deploy(tmp_path / "shop.py")
    assert base.get("/readyz").status_code == 200
    assert (base.get("/healthz").status_code, base.get("/healthz").json()) == (503, {"status": "DOWN"})
    details = httpx.get(f"{arklet}/actuator/health").json()["components"]["compositeAllBiz"]["details"]
    assert details["shop:1.0.0"]["details"]["disk"]["details"] == {"error": "OSError: no disk"}
    assert "clean" not in base.undeploy("shop")
    assert base.get("/healthz").status_code == 200

"""Cookies of applications that ask for paths of their own: as set, as sent back, and at the root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from koupleless.router.around.cookies import with_scoped_cookies
from koupleless.router.asgi import Front

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from koupleless.router.gate import Gate

    Client = Callable[..., httpx.AsyncClient]
    Mount = Callable[..., Gate]

pytestmark = pytest.mark.anyio


def setting(*cookies: str) -> Any:
    async def app(connection: Any, receive: Any, send: Any) -> None:
        headers = [(b"set-cookie", cookie.encode()) for cookie in cookies]
        seen = [value for name, value in connection["headers"] if name == b"cookie"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"|".join(seen)})

    return app


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("a=1; Path=/; HttpOnly", "a=1; Path=/shop; HttpOnly"),
        ("a=1; path = / ", "a=1; path = /shop"),
        ("a=path=/; PATH=/", "a=path=/; PATH=/shop"),
        ("a=1; Path=/admin; Secure", "a=1; Path=/shop/admin; Secure"),
        ("a=1; Path=/; Path=/x", "a=1; Path=/; Path=/shop/x"),
        ("a=; expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/", "a=; expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/shop"),
        ("a=1; Path=/shopping", "a=1; Path=/shop/shopping"),
        *((same, same) for same in ("a=1", "a=1; Path=", "a=1; Path=/shop", "a=1; Path=/shop/x", "__Host-a=1; Path=/")),
    ],
)
async def test_a_cookie_is_set_below_the_path_of_the_module(
    client: Client, mount: Mount, cookie: str, expected: str
) -> None:
    front = Front()
    mount(front, "/shop", with_scoped_cookies(setting("first=1", cookie)))
    async with client(front) as http:
        answer = await http.get("/shop/x")
    assert answer.headers.get_list("set-cookie") == ["first=1", expected]


async def test_of_namesakes_the_application_gets_the_first_as_ordered_by_browsers(client: Client, mount: Mount) -> None:
    front = Front()
    mount(front, "/shop", with_scoped_cookies(setting()))
    mount(front, "/plain", setting())
    async with client(front) as http:
        sent = [("cookie", "id=own; b=2;id=other"), ("x-cookie", "id=x"), ("cookie", "b=3; c=id=1"), ("cookie", "id=3")]
        assert (await http.get("/shop/", headers=sent)).text == "id=own; b=2|c=id=1"
        assert (await http.get("/plain/", headers=sent)).text == "id=own; b=2;id=other|b=3; c=id=1|id=3"


async def test_at_the_root_and_below_an_outer_path(client: Client, mount: Mount) -> None:
    front = Front()
    mount(front, "/", with_scoped_cookies(setting("a=1; Path=/")))
    mount(front, "/ä b", with_scoped_cookies(setting("a=1; Path=/")), "umlaut:1.0")
    async with client(front) as http:
        assert (await http.get("/x")).headers["set-cookie"] == "a=1; Path=/"
        assert (await http.get("/ä b/")).headers["set-cookie"] == "a=1; Path=/%C3%A4%20b"
    async with client(front, root_path="/outer") as http:
        assert (await http.get("/outer/ä b/")).headers["set-cookie"] == "a=1; Path=/outer/%C3%A4%20b"

"""One of two applications whose top-level package is called ``app``."""

import json
import sys

from app.settings import WHO


class Thing:
    pass


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    from app import settings

    body = json.dumps(
        {
            "who": WHO,
            "again": settings.WHO,
            "module": Thing.__module__,
            "same": sys.modules["app.main"] is sys.modules[Thing.__module__],
        }
    ).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})

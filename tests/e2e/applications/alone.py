"""One application alone: the same entry under uvicorn or waitress, mounted at the same path as in the base.

``python alone.py INTERFACE PREFIX PORT``, with the entry and its libraries on the search path. uvicorn has no option
for a prefix that the client sends as well (its ``--root-path`` is for a proxy that strips it): the scope is given one.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def serve(interface: str, prefix: str, port: int) -> None:
    """Serve until a signal ends the process."""
    app: Any = importlib.import_module("entry").app
    if interface == "wsgi":
        import waitress  # type: ignore[import-untyped]

        waitress.serve(app, host="127.0.0.1", port=port, url_prefix=prefix, threads=4)
        return

    import uvicorn

    async def mounted(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
        if scope["type"] != "lifespan":
            scope = {**scope, "root_path": prefix}
        await app(scope, receive, send)

    uvicorn.run(mounted, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))

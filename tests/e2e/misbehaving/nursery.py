"""Bases by the dozen: a process that has imported what a base needs, and becomes one for each line it is sent.

Run as a script, by the interpreter that has the package installed. Each line of its input is a JSON object with
``port``, ``arklet_port``, ``modules``, ``loop``, ``cwd`` and ``log``; it answers with the process number of the base
that it has forked, and reports the end of one as ``<number> <status>`` when asked ``end <number>``. It ends with its
input.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

import uvicorn.config
import uvicorn.lifespan.on
import uvicorn.loops.auto
import uvicorn.protocols.http.auto
import uvicorn.protocols.websockets.auto

import koupleless.base
from koupleless.cli.serve import _log_to_stderr
from koupleless.settings.base import ArkletSettings, BaseSettings


async def application(scope: Any, receive: Any, send: Any) -> None:
    """What the base itself serves."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b"base %d" % os.getpid()})


def serve(order: dict[str, Any]) -> int:
    """Be the base of an order, in the child."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nowhere, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.setpgid(0, 0)
    os.chdir(order["cwd"])
    _log_to_stderr()
    uvicorn.config.LOOP_FACTORIES["auto"] = uvicorn.config.LOOP_FACTORIES[order["loop"]]
    settings = BaseSettings(
        port=order["port"],
        modules=tuple(order["modules"]),
        start_timeout_s=10.0,
        drain_timeout_s=1.0,
        stop_timeout_s=1.0,
        ephemeral=True,
        arklet=ArkletSettings(port=order["arklet_port"]),
    )
    return koupleless.base.serve(application, settings)


def answer(*numbers: int) -> None:
    sys.stdout.write(" ".join(map(str, numbers)) + "\n")
    sys.stdout.flush()


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        if line.startswith("end "):
            number = int(line.split()[1])
            _, status = os.waitpid(number, 0)
            answer(number, os.waitstatus_to_exitcode(status))
            continue
        pid = os.fork()
        if pid == 0:
            sys.exit(serve(json.loads(line)))
        answer(pid)


if __name__ == "__main__":
    main()

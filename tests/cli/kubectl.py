"""A ``kubectl`` for tests: answers from a table, forwards to a port that is there, and runs commands of Pods here.

Run with the table's file as first argument; all calls are written beside the table, with the number of the process.
"""

# ruff: noqa: T201 - a program prints

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def main() -> int:
    table = Path(sys.argv[1])
    state, arguments = json.loads(table.read_text()), sys.argv[2:]
    with table.with_name("calls").open("a") as calls:
        calls.write(json.dumps({"pid": os.getpid(), "arguments": arguments}) + "\n")
    while arguments[0].startswith("-"):
        arguments = arguments[2:]
    match arguments:
        case ["config", *_]:
            print(state.get("namespace", ""), end="")
        case ["get", "--raw", path]:
            return get(state, path)
        case ["port-forward", *_]:
            return forward(state)
        case ["exec", "-i", *rest]:
            command = rest[rest.index("--") + 1 :]
            if "cut" in state and command[0] == "sh":
                sys.stdin.buffer.read()
                print(state["cut"])
                return 0
            return subprocess.run(command, check=False).returncode
    return 0


def get(state: dict[str, dict[str, object]], path: str) -> int:
    found = state["objects"].get(path, state["objects"].get(path.partition("?")[0]))
    if not isinstance(found, dict):
        print(found or 'Error from server (NotFound): pods "x" not found', file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


def forward(state: dict[str, object]) -> int:
    if "refusal" in state:
        print(f"error: {state['refusal']}", file=sys.stderr)
        return 1
    if "complaint" in state:
        print(state["complaint"], file=sys.stderr, flush=True)
    print(f"Forwarding from 127.0.0.1:{state['port']} -> 1238", flush=True)
    for _ in range(5_000):  # more than a pipe holds
        print("Handling connection for 1238", flush=True)
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())

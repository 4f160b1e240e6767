"""The progress of a download by the pip of this interpreter, from an index on loopback that waits in the middle."""

from __future__ import annotations

import http.server
import io
import os
import re
import sys
import threading
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.artifact.building.pip import Pip
from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHEEL = "slow-1.0-py3-none-any.whl"


def wheel() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("slow.py", os.urandom(1_500_000).hex())
        archive.writestr("slow-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
        archive.writestr("slow-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("slow-1.0.dist-info/RECORD", "")
    return content.getvalue()


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What the index waits for in the middle of the wheel."""
    content, event = wheel(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_wheel = self.path.endswith(".whl")
            data = content if is_wheel else f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream" if is_wheel else "text/html")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:1_000_000])
            if is_wheel:
                event.wait(60)
                self.wfile.write(data[1_000_000:])

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}/simple",
        "PIP_NO_CACHE_DIR": "1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield event
    event.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_bytes_of_a_download_are_shown_while_it_goes_on(tmp_path: Path, go_on: threading.Event) -> None:
    shown: list[str] = []

    def show(detail: str) -> None:
        shown.append(detail)
        if detail.startswith(f"{WHEEL}, ") and not detail.startswith(f"{WHEEL}, 0.0 "):
            go_on.set()

    Pip("hello", sys.executable, show).install(["slow==1.0"], tmp_path)
    assert (tmp_path / "slow.py").is_file()
    # How much of the first third has been written by then depends on the pip.
    assert any(re.fullmatch(re.escape(WHEEL) + r", (0\.[1-9]|1\.0) of 3\.0 MB", detail) for detail in shown), shown


def test_the_messages_of_a_failure_are_those_of_a_quiet_pip(tmp_path: Path, go_on: threading.Event) -> None:
    go_on.set()
    with pytest.raises(BuildFailed, match=r"No matching distribution found for slow==2\.0") as caught:
        Pip("hello", sys.executable).install(["slow==2.0"], tmp_path)
    assert "Looking in" not in caught.value.output
    assert caught.value.output.startswith("ERROR: ")


def test_a_build_that_is_interrupted_ends_pip(tmp_path: Path, go_on: threading.Event) -> None:
    def show(detail: str) -> None:
        if detail.startswith(WHEEL):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pip("hello", sys.executable, show).install(["slow==1.0"], tmp_path)
    assert not go_on.is_set()
    assert "output of pip" not in [thread.name for thread in threading.enumerate()]

"""A base that stands where the recorded Java base stood: the same modules under the same names, in Python."""

from __future__ import annotations

import http.server
import threading
import zipfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.arklet.server import ArkletServer
from koupleless.container.host import Host
from koupleless.container.surroundings import Deadlines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = "async def app(scope, receive, send):\n    pass\n"
SLOW = """
import time
from pathlib import Path

deadline = time.monotonic() + 20
while not Path({gate!r}).exists() and time.monotonic() < deadline:
    time.sleep(0.005)
"""


@dataclass(frozen=True)
class Recorded:
    """The base, and what the recordings call ``${files}`` and ``${server}``."""

    port: int
    files: Path
    server: str
    gate: Path
    """Until this file exists, ``copy10`` does not finish starting."""


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def _write_artefacts(files: Path, gate: Path) -> None:
    def write(file: str, identity: str, source: str = APP, *, entry: str = "app:app", path: str | None = None) -> None:
        name, _, version = identity.partition(":")
        lines = ["Manifest-Version: 1.0", f"Ark-Biz-Name: {name}", f"Ark-Biz-Version: {version}"]
        lines += [f"Start-Class: {entry}", f"web-context-path: {path or name}"]
        with zipfile.ZipFile(files / file, "w") as archive:
            archive.writestr("META-INF/MANIFEST.MF", "\n".join(lines) + "\n")
            archive.writestr("app.py", source)

    write("biz1-ark-biz.jar", "biz1-web-single-host:0.0.1-SNAPSHOT", path="biz1")
    write("biz1-0.0.2.jar", "biz1-web-single-host:0.0.2", path="biz1")
    write("biz1-0.0.2-ctx.jar", "biz1-web-single-host:0.0.2", path="biz1v2")
    write("biz2-ark-biz.jar", "biz2-web-single-host:0.0.1-SNAPSHOT", path="biz2")
    for number in range(1, 14):
        source = SLOW.format(gate=str(gate)) + APP if number == 10 else APP
        write(f"copy{number:02}.jar", f"copy{number:02}:1.0.0", source)
    write("samectx.jar", "samectx:1.0.0", path="biz1")
    write("plain-ok.jar", "plain-ok:1.0.0", "STARTED = True\n", entry="app", path="/")
    write("broken-plain.jar", "broken-plain:1.0.0", "raise RuntimeError('boom: plain main throws')\n")
    write("broken-spring.jar", "broken-spring:1.0.0", "import no_such_library\n")
    write("broken-nomain.jar", "broken-nomain:1.0.0", entry="x.broken:Nope")
    with zipfile.ZipFile(files / "noark.jar", "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    (files / "notajar.jar").write_text("this is no archive\n")


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    files, gate = tmp_path / "files", tmp_path / "gate"
    files.mkdir()
    _write_artefacts(files, gate)
    downloads = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(files)))
    thread = threading.Thread(target=downloads.serve_forever, args=(0.02,))
    thread.start()
    container = Host.make(tmp_path / "store", deadlines=Deadlines(start_s=20.0, drain_s=5.0, stop_s=5.0)).container
    operations = Operations(container, BaseMetadata(identity="10.1.2.3"))
    arklet = ArkletServer(operations, port=0)
    yield Recorded(arklet.start(), files, f"127.0.0.1:{downloads.server_address[1]}", gate)
    gate.touch()
    arklet.stop()
    operations.close()
    container.close()
    downloads.shutdown()
    downloads.server_close()
    thread.join()

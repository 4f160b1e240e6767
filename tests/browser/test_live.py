"""``arkctl deploy --watch --live``: a page that shows the saved change by itself, and nothing of it afterwards."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.browser.conftest import write
from tests.conftest import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.conftest import Browser
    from tests.e2e.conftest import BaseProcess

APP = """
from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import HTMLResponse

app = FastAPI()
app.add_middleware(GZipMiddleware, minimum_size=1)

@app.get("/", response_class=HTMLResponse)
def page():
    return "<!doctype html><title>live</title><p>the first word</p>"
"""


def test_a_saved_letter_shows_by_itself_and_a_mistake_shows_nothing(
    base: BaseProcess, browser: Browser, tmp_path: Path
) -> None:
    project = write(tmp_path / "words", {"web.py": APP}, keys='entry = "web:app"', needs=("fastapi",))
    url, source, log = f"{base.url}/words/", project / "web.py", tmp_path / "watch.log"
    command = [sys.executable, "-P", "-m", "koupleless", "deploy", str(project), "--watch", "--live"]
    with log.open("wb") as out:
        watch = subprocess.Popen([*command, "--port", str(base.arklet_port)], stdout=out, stderr=subprocess.STDOUT)
    try:
        until(lambda: "live.js" in page(base), 60, otherwise="no page gets the script")
        browser.open(url)
        browser.shows("the first word")
        browser.run("window.kept = true")
        source.write_text(APP.replace("first", "second"))
        browser.shows("the second word")
        assert browser.run("window.kept === undefined"), "the page was loaded again"

        browser.run("window.kept = true")
        source.write_text(APP.replace("first", "third") + "\n)")
        until(lambda: "not deployed" in log.read_text(), 30, otherwise="the mistake is not told")
        assert browser.run("window.kept")
        assert "the second word" in browser.text()
        source.write_text(APP.replace("first", "fourth"))
        browser.shows("the fourth word")
        said = [entry for entry in browser.chrome.messages() if "favicon.ico" not in entry["message"]]
        assert said == [], "the console of the page is empty"
    finally:
        watch.kill()  # no last word to the base
        watch.wait()
    until(lambda: "live.js" not in page(base), 30, otherwise="the base goes on with it")
    assert base.get("/words/.koupleless/live").status_code == 404


def page(base: BaseProcess) -> str:
    return base.get("/words/", headers={"accept": "text/html"}).text


def test_an_interrupted_watcher_ends_it_at_once(base: BaseProcess, tmp_path: Path) -> None:
    from koupleless.cli.deploying.live import LiveReload
    from koupleless.settings.client import load_client

    write(tmp_path / "words", {"web.py": APP}, keys='entry = "web:app"', needs=("fastapi",))
    base.deploy(tmp_path / "words")
    with LiveReload(load_client({"port": base.arklet_port})) as live:
        live.begin("words")
        live.begin("words")
        assert "live.js" in page(base)
    assert "live.js" not in page(base)


def test_live_without_watch_is_refused(base: BaseProcess) -> None:
    assert "--live reloads pages after each deployment of --watch" in base.say("deploy", "--live", fails=True)

"""Applications from the package index, unmodified, give inside a base the answers that they give alone."""

from __future__ import annotations

import importlib.metadata
import re
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network

DATASETTE_ENTRY = '''"""Datasette has to be constructed; this is all that is needed to make a module of it."""

from pathlib import Path

from datasette.app import Datasette

app = Datasette([{database!r}], settings={{"base_url": "{prefix}/"}}).app()
'''


def arkctl(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-P", "-m", "koupleless", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def same(response: httpx.Response, server: str, prefix: str = "") -> tuple[int, str | None, list[str]]:
    """Status, type and body, with the address and the path prefix of the server taken out."""
    text = response.text.replace(server + prefix, "http://server")
    text = text.replace(server.removeprefix("http://"), "server")
    if prefix:
        text = re.sub(rf"(?<=[\"'=]){re.escape(prefix)}(?=[/\"'])", "", text)
    return response.status_code, response.headers.get("content-type"), text.splitlines()


@pytest.fixture(scope="module")
def base(serve, tmp_path_factory):
    directory = tmp_path_factory.mktemp("index")
    version = importlib.metadata.version("httpbin")
    out = directory / "dist"
    arkctl("build", "--requirement", f"httpbin=={version}", "--entry", "httpbin:app", "--out", str(out), cwd=directory)
    (directory / "koupleless.toml").write_text("[base]\nstop-timeout = 2\n")  # datasette's thread has no stop
    process = serve(cwd=directory)
    (artefact,) = out.glob("httpbin-*-ark-biz.zip")
    process.deploy(artefact)
    return process


@pytest.fixture(scope="module")
def httpbin_alone(run_alone, tmp_path_factory):
    return run_alone(
        lambda port: [sys.executable, "-P", "-m", "flask", "--app", "httpbin:app", "run", "--port", str(port)],
        tmp_path_factory.mktemp("httpbin"),
    )


@pytest.mark.parametrize(
    "path",
    [
        "/get",
        "/get?a=1&b=%C3%A4",
        "/forms/post",
        "/status/418",
        "/html",
        "/encoding/utf8",
        "/robots.txt",
        "/xml",
        "/gzip",
    ],
)
def test_httpbin_answers_as_it_does_alone(base, httpbin_alone, path):
    inside = httpx.get(f"{base.url}/httpbin{path}", headers={"connection": "keep-alive"})
    alone = httpx.get(f"{httpbin_alone.url}{path}", headers={"connection": "keep-alive"})

    assert same(inside, base.url, "/httpbin") == same(alone, httpbin_alone.url)


def test_httpbin_takes_forms_files_and_cookies_as_it_does_alone(base, httpbin_alone):
    def answers(root: str) -> list[object]:
        with httpx.Client(base_url=root, follow_redirects=True) as client:
            form = client.post("/post", data={"name": "x"}, files={"file": ("f.txt", b"content")}).json()
            cookies = client.get("/cookies/set?flavour=plain").json()
            body = client.put("/put", json={"a": [1]}).json()
        return [form["form"], form["files"], cookies, body["json"], body["data"]]

    assert answers(f"{base.url}/httpbin") == answers(httpbin_alone.url)


def test_httpbin_with_all_its_libraries_private_answers_too(base, httpbin_alone, tmp_path):
    version = importlib.metadata.version("httpbin")
    options = ["--entry", "httpbin:app", "--standalone", "--name", "private-bin", "--out", str(tmp_path)]
    arkctl("build", "--requirement", f"httpbin=={version}", *options, cwd=tmp_path)
    (artefact,) = tmp_path.glob("private-bin-*-ark-biz.zip")
    base.deploy(artefact)

    inside = httpx.get(f"{base.url}/private-bin/forms/post")

    assert same(inside, base.url, "/private-bin") == same(
        httpx.get(f"{httpbin_alone.url}/forms/post"), httpbin_alone.url
    )
    said = base.undeploy("private-bin")
    assert "nothing left behind" in said


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("database") / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table item (id integer primary key, name text, price real)")
        items = [("tea", 2.5), ("b\u00fcro", 1.0), ("x<y", 0.0)]
        connection.executemany("insert into item (name, price) values (?, ?)", items)
    connection.close()
    return path


@pytest.fixture(scope="module")
def datasette_alone(run_alone, database):
    return run_alone(
        lambda port: [
            *(sys.executable, "-P", "-m", "datasette", "serve", str(database), "--port", str(port)),
            *("--setting", "base_url", "/tables/"),
        ],
        database.parent,
    )


@pytest.fixture(scope="module")
def datasette_inside(base, database, tmp_path_factory):
    entry = tmp_path_factory.mktemp("entry") / "tables.py"
    entry.write_text(DATASETTE_ENTRY.format(database=str(database), prefix="/tables"), encoding="utf-8")
    base.deploy(entry)


def timeless(answer: tuple[int, str | None, list[str]]) -> tuple[int, str | None, list[str]]:
    """Without the times that datasette puts into its pages."""
    status, kind, lines = answer
    return status, kind, [re.sub(r"(took |ms\": |_ms\":)[\d.]+", r"\1", line) for line in lines]


@pytest.mark.parametrize("path", ["/", "/shop/item", "/shop/item.json", "/shop/item/1", "/shop/item?name=tea", "/nope"])
@pytest.mark.usefixtures("datasette_inside")
def test_datasette_answers_as_it_does_alone(base, datasette_alone, path):
    inside = httpx.get(f"{base.url}/tables{path}")
    alone = httpx.get(f"{datasette_alone.url}/tables{path}")

    assert timeless(same(inside, base.url)) == timeless(same(alone, datasette_alone.url))

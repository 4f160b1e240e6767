"""Forward rules as operators and modules write them, through a base that serves."""

from __future__ import annotations

import subprocess
import sys

import pytest

WHERE = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        said = f"{VERSION} {scope['root_path']} {scope['path'][len(scope['root_path']):]}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": said})
    else:
        raise RuntimeError
"""

RULES = """
[tool.koupleless.base]
name = "shop"

[[tool.koupleless.base.koupleless.web.gateway.forwards]]
contextPath = "where"
hosts = ["where.example"]

[[tool.koupleless.base.koupleless.web.gateway.forwards]]
contextPath = "where"
paths = [{ from = "/old", to = "/new" }, { from = "/same" }]
"""


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """``write("1.0", rules)`` is the directory of a module that answers with where it was asked."""
    directory = tmp_path_factory.mktemp("modules")

    def project(version, configuration=""):
        root = directory / f"where-{version}"
        (root / "config").mkdir(parents=True)
        (root / "where.py").write_text(f"VERSION = {version!r}\n{WHERE}")
        (root / "config" / "application.toml").write_text(configuration)
        (root / "pyproject.toml").write_text(
            f'[project]\nname = "where"\nversion = "{version}"\n[tool.koupleless.module]\nentry = "where:app"\n'
        )
        return str(root)

    return project


@pytest.fixture(scope="module")
def base(serve, tmp_path_factory):
    directory = tmp_path_factory.mktemp("base")
    (directory / "pyproject.toml").write_text(RULES)
    (directory / "base.py").write_text(
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http':\n"
        "        raise RuntimeError\n"
        "    await send({'type': 'http.response.start', 'status': 418})\n"
        "    await send({'type': 'http.response.body', 'body': b'the base'})\n"
    )
    return serve("base:app", cwd=directory)


def test_the_rules_of_a_base_lead_to_a_module_and_those_of_a_module_come_and_leave_with_it(base, write):
    def ask(path, host="base.example"):
        return base.get(path, headers={"Host": host}).text

    base.say("deploy", write("1.0"))

    assert ask("/where/x") == "1.0 /where /x"
    assert ask("/old/x") == "1.0 /where /new/x"
    assert ask("/same/x") == "1.0 /where /same/x"
    assert ask("/y", host="where.example") == "1.0 /where /y"
    assert ask("/y", host="other.example") == "the base"
    assert ask("/module/x") == "the base"

    rule = '[[koupleless.web.gateway.forwards]]\ncontextPath = "where"\npaths = [{ from = "/module", to = "/in" }]\n'
    base.say("deploy", write("2.0", rule), "--strategy", "install-only")
    assert ask("/module/x") == "the base"  # it is there, and another version answers

    base.say("switch", "where:2.0")
    assert ask("/module/x") == "2.0 /where /in/x"
    assert ask("/old/x") == "2.0 /where /new/x"

    base.say("switch", "where:1.0")
    assert ask("/module/x") == "the base"

    base.say("switch", "where:2.0")
    base.say("deploy", write("3.0"), "--strategy", "replace")
    assert ask("/module/x") == "the base"
    assert ask("/old/x") == "3.0 /where /new/x"

    base.say("undeploy", "where", "--all-versions")
    assert base.get("/old/x").json()["detail"] == "no module answers at /old/x"


def test_a_module_with_a_rule_that_cannot_be_read_is_refused_and_the_rule_named(base, write):
    base.say("deploy", write("4.0", "koupleless.web.gateway.forwards = ['where']\n"), fails=True)

    assert "every rule is a table with a contextPath, not 'where'" in base.log.read_text()
    assert base.get("/where/").status_code == 418


def test_the_configuration_files_of_a_base_feed_its_rules_as_well(serve, write, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "application.properties").write_text(
        "koupleless.web.gateway.forwards[0].contextPath=where\n"
        "koupleless.web.gateway.forwards[0].paths[0].from=/prop\n"
        "koupleless.web.gateway.forwards[0].paths[0].to=/\n"
    )
    base = serve("--module", write("5.0"), cwd=tmp_path)

    assert base.get("/prop/x").text == "5.0 /where /x"


def test_a_base_with_a_rule_that_cannot_be_read_does_not_start_and_says_why(tmp_path):
    (tmp_path / "koupleless.toml").write_text('[base]\nforwards = [{ hosts = ["a"] }]\n')

    done = subprocess.run(
        [sys.executable, "-P", "-m", "koupleless", "serve", "--port", "0", "--arklet-port", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert "koupleless.web.gateway.forwards: every rule needs a contextPath" in done.stderr
    assert "Traceback" not in done.stderr

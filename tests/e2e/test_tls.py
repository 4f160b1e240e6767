"""A base with TLS at both ports, and ``arkctl`` that talks to it."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.conftest import free_port, until
from tests.state.conftest import make_module
from tests.test_certificates import OPENSSL, make, name_at

from koupleless.cli.commands import main

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes certificates, is not here")


def test_both_ports_speak_tls_and_renew_their_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_application, of_arklet = make(tmp_path / "application.pem", "first"), make(tmp_path / "arklet.pem", "ops")
    caller, stranger = make(tmp_path / "caller.pem", "caller"), make(tmp_path / "stranger.pem", "stranger")
    port, arklet, log = free_port(), free_port(), tmp_path / "log"
    (tmp_path / "token").write_text("secret\n")
    command = [sys.executable, "-P", "-m", "koupleless", "serve", "--ephemeral", "--port", str(port)]
    command += ["--ssl-certfile", str(of_application), "--arklet-ssl-certfile", str(of_arklet)]
    command += ["--arklet-ssl-ca-certs", f"{caller}.crt", "--arklet-port", str(arklet)]
    command += ["--arklet-token-file", str(tmp_path / "token")]
    for name, value in {"CA_CERTS": f"{of_arklet}.crt", "CERTFILE": caller, "TOKEN_FILE": tmp_path / "token"}.items():
        monkeypatch.setenv(f"ARKCTL_{name}", str(value))

    def arkctl(*arguments: str, status: int = 0) -> str:
        full = [sys.executable, "-P", "-m", "koupleless", arguments[0], "--port", str(arklet), *arguments[1:]]
        done = subprocess.run(full, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done.stdout + done.stderr + log.read_text()
        return done.stdout + done.stderr

    with log.open("wb") as file, subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file) as base:
        try:
            until(lambda: "Uvicorn running on https://" in log.read_text(), 60, otherwise="the base does not start")
            artefact = make_module(tmp_path, "shop:1")
            assert "shop:1 ACTIVATED" in arkctl("deploy", str(artefact))
            assert httpx.get(f"https://127.0.0.1:{port}/shop/", verify=trusting(of_application)).text == "shop:1"

            assert name_at(port) == "first"
            make(of_application, "second")
            assert name_at(port) == "second"
            make(of_arklet, "renewed")
            assert "shop" in arkctl("status")

            monkeypatch.setenv("ARKCTL_CERTFILE", str(stranger))
            assert "error: " in arkctl("status", status=4)
            monkeypatch.delenv("ARKCTL_CERTFILE")
            assert "error: " in arkctl("status", status=4)
            monkeypatch.setenv("ARKCTL_CA_CERTS", f"{stranger}.crt")
            assert "name the issuers of the arklet's certificate" in arkctl("status", status=4)
            monkeypatch.delenv("ARKCTL_CA_CERTS")
            assert "if the arklet speaks TLS" in arkctl("status", status=4)
        finally:
            base.terminate()
    assert base.returncode == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def trusting(issuer: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=f"{issuer}.crt")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ARKCTL_CERTFILE": "none.pem"}, "TLS: .*none.pem cannot be used: .*No such file"),
        ({"ARKCTL_CA_CERTS": "token"}, "TLS: .*token cannot be used"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert main(["status"]) == 2
    assert re.search(said, capsys.readouterr().err)

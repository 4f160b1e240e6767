"""Secrets go to the host that they are for, and to nobody else."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.artifact.test_fetch import reply

from koupleless.artifact.fetch import fetch
from koupleless.artifact.fetching.credentials import Credentials
from koupleless.errors import FetchFailed, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.artifact.conftest import Serve

LOGIN = base64.b64encode(b"me:s3cret").decode()


@pytest.mark.parametrize(
    ("host", "entry", "url", "header"),
    [
        ("h.example", {"auth": LOGIN}, "https://h.example/a.zip", f"Basic {LOGIN}"),
        ("h.example", {"auth": LOGIN}, "https://H.EXAMPLE:443/a.zip", f"Basic {LOGIN}"),
        ("h.example", {"auth": LOGIN}, "http://h.example/a.zip", f"Basic {LOGIN}"),
        ("https://h.example/v1/", {"auth": LOGIN}, "https://h.example/a.zip", f"Basic {LOGIN}"),
        ("h.example", {"username": "me", "password": "s3cret"}, "https://h.example/", f"Basic {LOGIN}"),
        ("h.example", {"registrytoken": "t"}, "https://h.example/", "Bearer t"),
        ("h.example:8443", {"auth": LOGIN}, "https://h.example:8443/", f"Basic {LOGIN}"),
        ("h.example:443", {"auth": LOGIN}, "https://h.example/", f"Basic {LOGIN}"),
        ("h.example", {"auth": LOGIN}, "https://h.example:8443/", None),
        ("h.example:8443", {"auth": LOGIN}, "https://h.example/", None),
        ("h.example", {"auth": LOGIN}, "https://evil-h.example/", None),
        ("h.example", {"auth": LOGIN}, "https://h.example.evil/", None),
        ("h.example", {"auth": LOGIN}, "https://evil/h.example", None),
        ("h.example", {}, "https://h.example/", None),
    ],
)
def test_a_secret_is_for_one_host_and_port(host: str, entry: dict[str, str], url: str, header: str | None) -> None:
    assert Credentials(text=json.dumps({"auths": {host: entry}})).of(url) == header


def test_a_file_is_read_each_time_and_has_to_be_of_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {"h": {"registrytoken": "one"}}}))
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="may be read by others than its owner; chmod 600"):
        Credentials(file).of("https://h/")
    file.chmod(0o600)
    assert Credentials(file).of("https://h/") == "Bearer one"
    file.write_text(json.dumps({"auths": {"h": {"registrytoken": "two"}}}))
    assert Credentials(file).of("https://h/") == "Bearer two"
    file.unlink()
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        Credentials(file).of("https://h/")


@pytest.mark.parametrize(
    "text", ["s3cret", "[]", '{"auths": []}', '{"auths": {"h": "s3cret"}}', '{"auths": {"h": {"auth": "s3cret!"}}}']
)
def test_what_is_no_file_of_credentials_is_said_without_a_secret(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Credentials(text=text).of("https://h/")
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(Credentials(text=text))


class TestFetch:
    def of(self, server: Any, **entry: str) -> Credentials:
        return Credentials(text=json.dumps({"auths": {f"127.0.0.1:{server.port}": entry}}))

    def test_the_host_gets_its_secret_and_the_host_of_a_redirect_does_not(
        self, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        target = serve(reply())
        start = serve(reply(status="302 Found", more=f"Location: {target.url}/a.zip\r\n"))
        with fetch(f"{start.url}/a.zip", into=tmp_path / "in", credentials=self.of(start, auth=LOGIN)):
            pass
        assert f"Authorization: Basic {LOGIN}".encode() in start.requests[0]
        assert b"Authorization" not in target.requests[0]
        assert LOGIN not in caplog.text

    def test_a_host_without_a_secret_gets_none(self, serve: Serve, tmp_path: Path) -> None:
        server, other = serve(reply()), serve(reply())
        with fetch(f"{server.url}/a.zip", into=tmp_path / "in", credentials=self.of(other, registrytoken="t")):
            pass
        assert b"Authorization" not in server.requests[0]

    def test_a_login_in_the_location_is_stronger(self, serve: Serve, tmp_path: Path) -> None:
        server = serve(reply())
        url = f"http://you:else@127.0.0.1:{server.port}/a.zip"
        with fetch(url, into=tmp_path / "in", credentials=self.of(server, auth=LOGIN)):
            pass
        assert LOGIN.encode() not in server.requests[0]

    def test_a_refusal_names_the_setting(self, serve: Serve, tmp_path: Path) -> None:
        server = serve(reply(status="401 Unauthorized"))
        with (
            pytest.raises(FetchFailed) as caught,
            fetch(f"{server.url}/a.zip", into=tmp_path / "in", credentials=self.of(server, auth=LOGIN)),
        ):
            pass
        assert "pull-secrets-file" in str(caught.value)
        assert LOGIN not in str(caught.value)

    def test_a_file_of_no_use_fails_the_fetch(self, serve: Serve, tmp_path: Path) -> None:
        server = serve(reply())
        with (
            pytest.raises(FetchFailed, match="no-such-file cannot be read"),
            fetch(f"{server.url}/a.zip", into=tmp_path / "in", credentials=Credentials(tmp_path / "no-such-file")),
        ):
            pass
        assert server.requests == []

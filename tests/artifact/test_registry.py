"""Artefacts go to a registry and come back: by tag, by digest, with a login, and never altered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import LOGIN, TOKEN, registry_on

from koupleless.artifact.fetch import fetch
from koupleless.artifact.fetching.credentials import Credentials
from koupleless.artifact.fetching.oci import Reference
from koupleless.artifact.push import push
from koupleless.errors import DigestMismatch, FetchFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.artifact.conftest import MakeZip
    from tests.registry import FakeRegistry


@pytest.fixture
def registries() -> Iterator[Callable[..., FakeRegistry]]:
    with contextlib.ExitStack() as stack:
        yield lambda login="": stack.enter_context(registry_on(login))


@pytest.fixture
def artefact(make_zip: MakeZip) -> Path:
    return make_zip({"a": b"x" * 5000}, "shop-1.0-ark-biz.zip")


def secrets(registry: FakeRegistry) -> Credentials:
    return Credentials(text=json.dumps({"auths": {registry.host: {"auth": LOGIN}}}))


def pull(url: str, into: Path, **options: Any) -> bytes:
    with fetch(url, into=into, **options) as path:
        content = path.read_bytes()
    assert list(into.iterdir()) == []
    return content


@pytest.mark.parametrize("login", ["", "basic", "token"])
def test_an_artefact_comes_back_as_it_was_pushed(
    registries: Callable[..., FakeRegistry], artefact: Path, tmp_path: Path, login: str
) -> None:
    registry = registries(login)
    pushed = push(artefact, f"oci://{registry.host}/team/shop", version="1.0", credentials=secrets(registry))

    assert str(pushed).startswith(f"oci://{registry.host}/team/shop:1.0@sha256:")
    for url in (
        str(pushed),
        f"oci://{registry.host}/team/shop:1.0",
        f"oci://{registry.host}/team/shop@{pushed.digest}",
    ):
        assert pull(url, tmp_path / "in", credentials=secrets(registry)) == artefact.read_bytes()


def test_the_manifest_is_that_of_an_artefact_and_the_same_each_time(
    registries: Callable[..., FakeRegistry], artefact: Path
) -> None:
    registry = registries()
    url = f"oci://{registry.host}/team/shop:stable"
    first = push(artefact, url, version="1.0", credentials=Credentials())
    sent = [method for method, path, _ in registry.requests if "/uploads/" in path]
    second = push(artefact, url, version="1.0", credentials=Credentials())

    assert first == second
    assert sent == [method for method, path, _ in registry.requests if "/uploads/" in path] == ["POST", "PUT"] * 2
    manifest = json.loads(registry.manifests[f"team/shop:{first.digest}"])
    assert manifest["artifactType"] == "application/vnd.koupleless.biz.v1"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    (layer,) = manifest["layers"]
    assert layer["size"] == artefact.stat().st_size
    assert layer["digest"] == f"sha256:{hashlib.sha256(artefact.read_bytes()).hexdigest()}"
    assert layer["annotations"] == {"org.opencontainers.image.title": "shop-1.0-ark-biz.zip"}


def test_a_manifest_of_another_tool_will_do(
    registries: Callable[..., FakeRegistry], artefact: Path, tmp_path: Path
) -> None:
    registry = registries()
    layer = {"mediaType": "application/zip", "digest": registry.put(artefact.read_bytes())}
    layer["annotations"] = {"org.opencontainers.image.title": "shop.jar"}  # type: ignore[assignment]
    other = {"mediaType": "text/plain", "digest": registry.put(b"read me")}
    registry.put_manifest("team/shop", "1", json.dumps({"layers": [other, layer]}).encode())

    with fetch(f"oci://{registry.host}/team/shop:1", into=tmp_path / "in") as path:
        assert path.suffix == ".jar"


# --- altered content -------------------------------------------------------------------------------------------------


def test_a_pinned_manifest_that_was_altered_is_refused(
    registries: Callable[..., FakeRegistry], artefact: Path, tmp_path: Path
) -> None:
    registry = registries()
    pushed = push(artefact, f"oci://{registry.host}/team/shop:1", version="1", credentials=Credentials())
    registry.manifests[f"team/shop:{pushed.digest}"] += b" "

    with pytest.raises(DigestMismatch):
        pull(str(pushed), tmp_path / "in")


def test_a_blob_that_was_altered_is_refused(
    registries: Callable[..., FakeRegistry], artefact: Path, make_zip: MakeZip, tmp_path: Path
) -> None:
    registry = registries()
    push(artefact, f"oci://{registry.host}/team/shop:1", version="1", credentials=Credentials())
    digest = f"sha256:{hashlib.sha256(artefact.read_bytes()).hexdigest()}"
    registry.blobs[digest] = make_zip({"b": b""}, "other.zip").read_bytes()

    with pytest.raises(DigestMismatch):
        pull(f"oci://{registry.host}/team/shop:1", tmp_path / "in")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b'{"layers": 1}',
        b'{"layers": []}',
        b'{"layers": [{"digest": "../../x", "annotations": {"org.opencontainers.image.title": "a.zip"}}]}',
        b'{"layers": [{"digest": 1}], "manifests": []}',
        b"[" * 100_000,
        b" " * (5 << 20),
    ],
)
def test_a_manifest_without_one_artefact_is_refused(
    registries: Callable[..., FakeRegistry], manifest: bytes, tmp_path: Path
) -> None:
    registry = registries()
    registry.put_manifest("shop", "latest", manifest)
    with pytest.raises(FetchFailed):
        pull(f"oci://{registry.host}/shop", tmp_path / "in")


# --- logins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", ["basic", "token"])
def test_the_host_of_a_redirect_gets_no_login(
    registries: Callable[..., FakeRegistry],
    artefact: Path,
    tmp_path: Path,
    login: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    registry, storage = registries(login), registries()
    push(artefact, f"oci://{registry.host}/team/shop:1", version="1", credentials=secrets(registry))
    storage.blobs = registry.blobs
    registry.elsewhere = f"http://{storage.host}/v2/team/shop/blobs"

    assert pull(f"oci://{registry.host}/team/shop:1", tmp_path / "in", credentials=secrets(registry))
    assert {authorization for _, _, authorization in storage.requests} == {""}
    assert LOGIN not in caplog.text
    assert TOKEN not in caplog.text


def test_a_host_of_a_redirect_that_asks_for_a_login_gets_none(
    registries: Callable[..., FakeRegistry], artefact: Path, tmp_path: Path
) -> None:
    registry, thief = registries("basic"), registries("token")
    push(artefact, f"oci://{registry.host}/team/shop:1", version="1", credentials=secrets(registry))
    registry.elsewhere = f"http://{thief.host}/v2/team/shop/blobs"

    with pytest.raises(FetchFailed, match="answered 401"):
        pull(f"oci://{registry.host}/team/shop:1", tmp_path / "in", credentials=secrets(registry))
    assert {authorization for _, _, authorization in thief.requests} == {""}


@pytest.mark.parametrize("login", ["basic", "token"])
def test_without_a_secret_the_setting_is_named(
    registries: Callable[..., FakeRegistry], login: str, tmp_path: Path
) -> None:
    registry = registries(login)
    with pytest.raises(FetchFailed, match="pull-secrets-file"):
        pull(f"oci://{registry.host}/team/shop:1", tmp_path / "in")


# --- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "oci://",
        "oci://host",
        "oci://host/",
        "oci:///shop",
        "oci://host/Shop",
        "oci://host/a/../b",
        "oci://host/shop:",
        "oci://host/shop@sha256:12",
        "oci://host/shop:1?x=y",
    ],
)
def test_a_place_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="is expected"):
        pull(url, tmp_path / "in")


def test_another_machine_is_called_over_tls_alone() -> None:
    assert Reference.parse("oci://registry.example/team/shop.jar:1").base == "https://registry.example/v2/team/shop.jar"
    assert Reference.parse("oci://localhost:5000/shop").base == "http://localhost:5000/v2/shop"


def test_sources_are_allowed_by_repository(registries: Callable[..., FakeRegistry], tmp_path: Path) -> None:
    registry = registries()
    for url in (f"oci://{registry.host}/team/shop:1", f"oci://{registry.host}/team"):
        with pytest.raises(FetchFailed, match="answered 404"):
            pull(url, tmp_path / "in", allowed_prefixes=[f"oci://{registry.host}/team"])
    with pytest.raises(FetchFailed, match="may only come from"):
        pull(f"oci://{registry.host}/teams/shop:1", tmp_path / "in", allowed_prefixes=[f"oci://{registry.host}/team"])


@pytest.mark.parametrize(
    ("url", "words"), [("oci://{}/shop@sha256:" + "0" * 64, "name a tag"), ("http://{}/shop", "oci://")]
)
def test_a_push_needs_a_place_with_a_tag(
    registries: Callable[..., FakeRegistry], artefact: Path, url: str, words: str
) -> None:
    with pytest.raises(FetchFailed, match=words):
        push(artefact, url.format(registries().host), version="1", credentials=Credentials())


def test_a_push_to_nobody_says_so(artefact: Path) -> None:
    with pytest.raises(FetchFailed, match="Connection refused"):
        push(artefact, "oci://127.0.0.1:9/shop", version="1", credentials=Credentials())

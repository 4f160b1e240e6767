"""Pushing an artefact to an OCI registry."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Final

from koupleless.artifact.archive import digest_of
from koupleless.artifact.fetching.oci import (
    ARTEFACT_TYPE,
    EMPTY_TYPE,
    LAYER_TYPE,
    LET_IN,
    MANIFEST_TYPE,
    TITLE,
    Reference,
    Registry,
)
from koupleless.artifact.fetching.transfer import opener
from koupleless.errors import FetchFailed

if TYPE_CHECKING:
    import http.client
    from pathlib import Path

    from koupleless.artifact.fetching.credentials import Credentials

_EMPTY: Final = b"{}"
_VERSION: Final = "org.opencontainers.image.version"
_ABSENT: Final = 404
_NOT_LET_IN: Final = (401, 403)


def push(path: Path, url: str, *, version: str, credentials: Credentials, timeout_s: float = 120.0) -> Reference:
    """Push the archive at ``path`` to ``oci://host/repository[:tag]``, and return its reference with the digest.

    Without a tag, ``version`` is the tag. Content that the registry has is not sent again. ``timeout_s`` is for each
    request. The same archive makes the same digest each time. Raises ``FetchFailed``.
    """
    wanted = Reference.parse(url)
    if wanted.digest is not None:
        raise FetchFailed(str(wanted), "a digest is what a push returns; name a tag alone")
    tagged = Reference(wanted.host, wanted.name, wanted.tag or version.replace("+", "_").replace("!", "_"))
    Reference.parse(str(tagged))  # a version that is no tag
    director = opener(())

    def send(request: urllib.request.Request) -> http.client.HTTPResponse:
        response: http.client.HTTPResponse = director.open(request, timeout=timeout_s)
        return response

    registry = Registry(tagged, credentials, send)
    digest, _ = digest_of(path)
    try:
        _put_file(registry, tagged, path, f"sha256:{digest}")
        _put_bytes(registry, tagged, _EMPTY)
        manifest = _manifest(path, f"sha256:{digest}", version)
        headers = {"Content-Type": MANIFEST_TYPE}
        registry.send("PUT", f"{tagged.base}/manifests/{tagged.tag}", data=manifest, headers=headers).close()
    except urllib.error.HTTPError as error:
        error.close()
        advice = f": {LET_IN}" if error.code in _NOT_LET_IN else ""
        raise FetchFailed(str(tagged), f"the registry answered {error.code} {error.reason}{advice}") from None
    except OSError as error:  # URLError is one
        reason = getattr(error, "reason", None) or error.strerror or error
        raise FetchFailed(str(tagged), getattr(reason, "strerror", None) or str(reason)) from None
    return Reference(tagged.host, tagged.name, tagged.tag, _digest(manifest))


def _manifest(path: Path, digest: str, version: str) -> bytes:
    layer = {
        "mediaType": LAYER_TYPE,
        "digest": digest,
        "size": path.stat().st_size,
        "annotations": {TITLE: path.name},
    }
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTEFACT_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": _digest(_EMPTY), "size": len(_EMPTY)},
        "layers": [layer],
        "annotations": {_VERSION: version},
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _has(registry: Registry, reference: Reference, digest: str) -> bool:
    try:
        registry.send("HEAD", f"{reference.base}/blobs/{digest}").close()
    except urllib.error.HTTPError as error:
        if error.code != _ABSENT:
            raise
        error.close()
        return False
    return True


def _place(registry: Registry, reference: Reference, digest: str) -> str:
    """The address of a new upload."""
    with registry.send("POST", f"{reference.base}/blobs/uploads/", data=b"") as answer:
        location = answer.headers.get("Location", "")
    url = urllib.parse.urljoin(f"{reference.base}/blobs/uploads/", location)
    return f"{url}{'&' if urllib.parse.urlsplit(url).query else '?'}{urllib.parse.urlencode({'digest': digest})}"


def _put_file(registry: Registry, reference: Reference, path: Path, digest: str) -> None:
    if _has(registry, reference, digest):
        return
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
    with path.open("rb") as file:
        registry.send("PUT", _place(registry, reference, digest), data=file, headers=headers).close()


def _put_bytes(registry: Registry, reference: Reference, content: bytes) -> None:
    digest = _digest(content)
    if not _has(registry, reference, digest):
        headers = {"Content-Type": "application/octet-stream"}
        registry.send("PUT", _place(registry, reference, digest), data=content, headers=headers).close()

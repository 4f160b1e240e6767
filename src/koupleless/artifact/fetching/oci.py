"""Artefacts in an OCI registry: references, the login of the distribution specification, and one download."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from koupleless.artifact.fetching.locations import is_loopback, split, without_secrets
from koupleless.artifact.fetching.transfer import Transfer
from koupleless.errors import DigestMismatch, FetchFailed

if TYPE_CHECKING:
    import http.client
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from koupleless.artifact.fetching.credentials import Credentials

ARTEFACT_TYPE: Final = "application/vnd.koupleless.biz.v1"
LAYER_TYPE: Final = "application/vnd.koupleless.biz.v1+zip"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
TITLE: Final = "org.opencontainers.image.title"
LET_IN: Final = "no secret of its host will do (`pull-secrets-file` of a base, `--secrets` of `arkctl push`)"
MANIFEST_BYTES: Final = 4 << 20
"""The largest manifest, and the largest answer with a token, that is read."""

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"/(?P<name>{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?", re.ASCII
)
_CHALLENGE: Final = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ENDINGS: Final = (".zip", ".jar", ".whl")
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True)
class Reference:
    """The place of an artefact in a registry."""

    host: str
    """The host with the port."""
    name: str
    """The repository."""
    tag: str | None = None
    digest: str | None = None
    """The digest of the manifest."""

    @classmethod
    def parse(cls, url: str) -> Reference:
        """Read ``oci://host[:port]/repository[:tag][@sha256:digest]``. Raises ``FetchFailed``."""
        parts = split(url)
        found = _REFERENCE.fullmatch(parts.path)
        host = parts.netloc.rpartition("@")[2].lower()
        if parts.scheme != "oci" or not host or found is None or parts.query:
            raise FetchFailed(without_secrets(url), "oci://host/repository:tag@sha256:<digest> is expected")
        return cls(host, found["name"], found["tag"], found["digest"])

    @property
    def base(self) -> str:
        """The address of the repository: over TLS, except on this machine."""
        parts = urllib.parse.urlsplit(f"//{self.host}")
        return f"{'http' if is_loopback(parts.hostname or '') else 'https'}://{self.host}/v2/{self.name}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"oci://{self.host}/{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"


class Registry:
    """Requests to one repository, with the login that the registry asks for. Used by one thread."""

    def __init__(
        self,
        reference: Reference,
        credentials: Credentials,
        open_url: Callable[[urllib.request.Request], http.client.HTTPResponse],
    ) -> None:
        """``open_url`` sends a request and returns the answer; it raises ``HTTPError`` for a refusal."""
        self._reference = reference
        self._credentials = credentials
        self._open = open_url
        self._authorization: str | None = None

    def send(
        self, method: str, url: str, *, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Send one request; a second time with a login, if asked for. Raises ``HTTPError`` and ``FetchFailed``.

        The login goes to the host of the registry alone.
        """
        try:
            return self._send(method, url, data, headers or {})
        except urllib.error.HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            if error.code != _UNAUTHORIZED or not challenge or not self._is_ours(error.url):  # after a redirect
                raise
            error.close()
        self._authorization = self._answer(challenge)
        if hasattr(data, "seek"):
            data.seek(0)
        return self._send(method, url, data, headers or {})

    def _send(self, method: str, url: str, data: Any, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        login = {"Authorization": self._authorization} if self._authorization and self._is_ours(url) else {}
        request = urllib.request.Request(  # noqa: S310 - the scheme is ours
            url, data, {"User-Agent": "koupleless", **headers, **login}, method=method
        )
        return self._open(request)

    def _is_ours(self, url: str) -> bool:
        return urllib.parse.urlsplit(url).netloc.lower() == self._reference.host

    def _answer(self, challenge: str) -> str:
        """The value of ``Authorization`` for a challenge. Raises ``FetchFailed`` without a secret that would do."""
        secret = self._credentials.of(self._reference.base)
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "bearer" and not (secret or "").startswith("Bearer "):
            return f"Bearer {self._token(rest, secret)}"
        if secret is None:
            raise FetchFailed(str(self._reference), f"the registry asks for a login, and {LET_IN}")
        return secret

    def _token(self, rest: str, secret: str | None) -> str:
        """A token of the authority named in a challenge."""
        values = {key.lower(): quoted or plain for key, quoted, plain in _CHALLENGE.findall(rest)}
        realm = values.pop("realm", "")
        parts = urllib.parse.urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise FetchFailed(str(self._reference), f"the registry names no safe place for a login: {realm!r}")
        asked = {key: values[key] for key in ("service", "scope") if key in values}
        url = f"{realm}{'&' if parts.query else '?'}{urllib.parse.urlencode(asked)}"
        login = {"Authorization": secret} if secret is not None else {}
        request = urllib.request.Request(url, headers={"User-Agent": "koupleless", **login})  # noqa: S310 - see above
        with self._open(request) as response:
            document = read_json(response, str(self._reference))
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str):
            raise FetchFailed(str(self._reference), f"{parts.netloc} gives no token")
        return token


class Pull(Transfer):
    """One download from a registry: the manifest, then the artefact that the manifest names."""

    def __init__(self, reference: Reference, directory: Path, **options: Any) -> None:
        super().__init__(reference.base, str(reference), directory, (), **options)
        self._reference = reference

    def _download(self) -> tuple[Path, str]:
        reference = self._reference
        registry = Registry(reference, self._credentials, self.open)
        wanted = reference.digest or reference.tag or "latest"
        with registry.send("GET", f"{reference.base}/manifests/{wanted}", headers={"Accept": MANIFEST_TYPE}) as answer:
            raw = _read(answer, str(reference))
        actual = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if reference.digest is not None and actual != reference.digest:
            raise DigestMismatch(str(reference), expected=reference.digest[7:], actual=actual[7:])
        layer = _artefact_in(_object(raw, str(reference)), str(reference))
        title = str(layer.get("annotations", {}).get(TITLE, ""))
        with registry.send("GET", f"{reference.base}/blobs/{layer['digest']}") as answer:
            path, digest = self.receive(answer, name=title)
        if f"sha256:{digest}" != layer["digest"]:
            raise DigestMismatch(str(reference), expected=layer["digest"][7:], actual=digest)
        return path, digest


def read_json(response: http.client.HTTPResponse, shown: str) -> dict[str, Any]:
    """The object in an answer of a registry. Raises ``FetchFailed``."""
    return _object(_read(response, shown), shown)


def _read(response: http.client.HTTPResponse, shown: str) -> bytes:
    raw = response.read(MANIFEST_BYTES + 1)
    if len(raw) > MANIFEST_BYTES:
        raise FetchFailed(shown, f"the registry answers with more than {MANIFEST_BYTES} bytes where a manifest belongs")
    return raw


def _object(raw: bytes, shown: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FetchFailed(shown, "the registry answers with something else than a JSON object")
    return found


def _artefact_in(manifest: Mapping[str, Any], shown: str) -> Mapping[str, Any]:
    """The layer with the artefact: of our type, else the only one whose title ends as an artefact's."""
    layers = manifest.get("layers")
    known = [each for each in layers if isinstance(each, dict)] if isinstance(layers, list) else []
    sound = [
        each
        for each in known
        if _DIGEST.fullmatch(str(each.get("digest"))) and isinstance(each.get("annotations", {}), dict)
    ]
    ours = [each for each in sound if each.get("mediaType") == LAYER_TYPE]
    titled = [each for each in sound if str(each.get("annotations", {}).get(TITLE, "")).lower().endswith(_ENDINGS)]
    for found in (ours, titled):
        if len(found) == 1:
            layer: Mapping[str, Any] = found[0]
            return layer
    raise FetchFailed(
        shown, f"there is no artefact in the manifest ({len(known)} layers); `arkctl push` writes one that has one"
    )

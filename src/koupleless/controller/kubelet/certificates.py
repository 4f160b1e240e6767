"""The certificate of the kubelet's API: mounted files, or a certificate of the cluster's signer, renewed in time.

The signer ``kubernetes.io/kubelet-serving`` signs a request that somebody has approved. Source: Kubernetes
documentation, "Certificates and Certificate Signing Requests".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import ipaddress
import logging
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from koupleless.controller.cluster.api import ApiError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_log: Final = logging.getLogger("koupleless.controller")

REQUESTS: Final = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SIGNER: Final = "kubernetes.io/kubelet-serving"
_AUTHORITY: Final = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
_CA: Final = "client-ca-file"
_POLL_S: Final = 2.0
_TELL_S: Final = 30.0
"""How long a request waits for an approval until the log says so; later once in ten minutes."""
_TELL_AGAIN_S: Final = 600.0
_AGAIN_S: Final = 60.0
"""The pause after a request that was denied, or has failed."""
_LOOK_S: Final = 600.0
"""The pause between two looks for another authority for clients."""


class Server(Protocol):
    """The API server, as far as certificates go."""

    async def get(self, path: str, /) -> dict[str, Any] | None:
        """Return an object. Raises `ApiError` and `Unreachable`."""

    async def create(self, path: str, document: Mapping[str, Any], /) -> dict[str, Any]:
        """Create an object. Raises `ApiError` and `Unreachable`."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a certificate; without ``key``, the file of the certificate has the key, too."""

    certificate: Path
    key: Path | None = None


class Certificates(Protocol):
    """The source of a certificate."""

    async def obtain(self) -> Files:
        """Return the files once they are there."""

    async def keep(self) -> None:
        """Renew the files in time, until cancelled."""


class Mounted:
    """Files that somebody else writes, and renews; the server looks at the files in each handshake."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def obtain(self) -> Files:
        """See `Certificates.obtain`."""
        return self._files

    async def keep(self) -> None:
        """See `Certificates.keep`."""
        await asyncio.Event().wait()


class Requested:
    """A certificate of the cluster's signer, in a directory readable for the user of the controller alone."""

    def __init__(self, api: Server, directory: Path, *, name: str, address: str, poll_s: float = _POLL_S) -> None:
        """``name`` is that of the controller, ``address`` the one by which the API server calls."""
        self._api = api
        self._path = directory / "serving.pem"
        self._name = name
        self._address = address
        self._poll_s = poll_s
        self._ends: tuple[float, float] = (0.0, 0.0)
        """The begin and the end of the present certificate, in seconds since the epoch."""

    async def obtain(self) -> Files:
        """See `Certificates.obtain`. The API server is asked until somebody has approved."""
        while True:
            try:
                if await self._request():
                    return Files(self._path)
            except (ApiError, Unreachable) as error:
                _log.warning("no certificate for the kubelet's API can be requested at the moment: %s", error)
            await asyncio.sleep(_AGAIN_S * random.uniform(0.5, 1))  # noqa: S311 - no secret

    async def keep(self) -> None:
        """See `Certificates.keep`. The last fifth of the life of a certificate is for its renewal."""
        while True:
            begin, end = self._ends
            due = begin + (end - begin) * random.uniform(0.7, 0.8)  # noqa: S311 - no secret
            await asyncio.sleep(max(due - dt.datetime.now(dt.UTC).timestamp(), 1.0))
            await self.obtain()
            _log.info("the certificate of the kubelet's API is renewed")

    async def _request(self) -> bool:
        """Make a request, and wait for the certificate; returns whether there is one."""
        key, request = _signing_request(f"system:node:{self._name}", self._address)
        document = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "koupleless-kubelet-"},
            "spec": {
                "request": base64.b64encode(request).decode(),
                "signerName": SIGNER,
                "usages": ["digital signature", "server auth"],
            },
        }
        name: str = (await self._api.create(REQUESTS, document))["metadata"]["name"]
        loop = asyncio.get_running_loop()
        tell = loop.time() + _TELL_S
        _log.info("the certificate of the kubelet's API is requested as %s", name)
        while True:
            found = await self._api.get(f"{REQUESTS}/{name}")
            if found is None:
                _log.warning("the request %s for a certificate is gone; another one is made", name)
                return False
            status = found.get("status") or {}
            if certificate := status.get("certificate"):
                self._write(base64.b64decode(certificate), key)
                return True
            for one in status.get("conditions") or ():
                if one.get("type") in {"Denied", "Failed"}:
                    said = one.get("message") or one.get("reason") or ""
                    _log.warning("the request %s for a certificate is %s: %s", name, one["type"].lower(), said)
                    return False
            if loop.time() >= tell:
                tell = loop.time() + _TELL_AGAIN_S
                _log.warning(
                    "the kubelet's API waits for its certificate: nobody has approved the request; "
                    "`kubectl certificate approve %s` does, or mount a certificate (kubelet-certfile)",
                    name,
                )
            await asyncio.sleep(self._poll_s)

    def _write(self, certificate: bytes, key: bytes) -> None:
        from cryptography import x509  # noqa: PLC0415 - only for a controller that requests certificates

        leaf = x509.load_pem_x509_certificate(certificate)
        self._ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        write_private(self._path, certificate + b"\n" + key)


class Authority:
    """The authority for certificates of clients: a mounted file, or the one that the API server publishes."""

    def __init__(self, api: Server, directory: Path, mounted: Path | None = None) -> None:
        self._api = api
        self._mounted = mounted
        self._path = directory / "clients.pem"

    async def obtain(self) -> Path:
        """Return the file; for a cluster without a published authority, asks on until there is one."""
        if self._mounted is not None:
            return self._mounted
        while not await self._look():  # noqa: ASYNC110 - the API server tells by no event
            await asyncio.sleep(_AGAIN_S * random.uniform(0.5, 1))  # noqa: S311 - no secret
        return self._path

    async def keep(self) -> None:
        """Follow changes, until cancelled."""
        while self._mounted is None:
            await asyncio.sleep(_LOOK_S)
            await self._look()
        await asyncio.Event().wait()

    async def _look(self) -> bool:
        try:
            found = await self._api.get(_AUTHORITY)
        except (ApiError, Unreachable) as error:
            _log.warning("the authority for clients of the kubelet's API cannot be read: %s", error)
            return False
        text = ((found or {}).get("data") or {}).get(_CA)
        if not text:
            _log.warning("%s has no %s: name the authority for clients with kubelet-client-ca", _AUTHORITY, _CA)
            return False
        content = str(text).encode()
        with contextlib.suppress(OSError):
            if self._path.read_bytes() == content:
                return True
        write_private(self._path, content)
        return True


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, in one step for those who read."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(content)
    part.replace(path)


def _signing_request(name: str, address: str) -> tuple[bytes, bytes]:
    """Make a key, and a request to sign it; returns both in PEM."""
    from cryptography import x509  # noqa: PLC0415 - only for a controller that requests certificates
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - the same
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - the same

    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(NameOID.COMMON_NAME, name),
    ]
    try:
        reached: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        reached = x509.DNSName(address)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    builder = builder.add_extension(x509.SubjectAlternativeName([reached]), critical=False)
    pem = serialization.Encoding.PEM
    written = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return written, builder.sign(key, hashes.SHA256()).public_bytes(pem)

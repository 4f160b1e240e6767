"""The certificate of the kubelet's API: requested of the signer, awaited, refused, renewed."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import stat
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from koupleless.certificates import ServerCertificate
from koupleless.controller.cluster.api import Unreachable
from koupleless.controller.kubelet import certificates
from koupleless.controller.kubelet.certificates import Authority, Requested

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path


class Signer:
    """An API server with requests for certificates, and somebody who decides about each."""

    def __init__(self, *decisions: str, life_s: float = 3600) -> None:
        self.requests: list[dict[str, Any]] = []
        self.authority: str | None = "pem"
        self.life_s = life_s
        self.is_reachable = True
        self._decisions = list(decisions)

    async def create(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        if not self.is_reachable:
            raise Unreachable("not there")
        name = f"csr-{len(self.requests)}"
        self.requests.append({**document, "metadata": {"name": name}})
        return self.requests[-1]

    async def get(self, path: str) -> dict[str, Any] | None:
        if path.endswith("extension-apiserver-authentication"):
            return {"data": {} if self.authority is None else {"client-ca-file": self.authority}}
        document = self.requests[int(path.rpartition("-")[2])]
        match self._decisions.pop(0) if self._decisions else "sign":
            case "gone":
                return None
            case "wait":
                return document
            case "deny":
                return {**document, "status": {"conditions": [{"type": "Denied", "message": "no"}]}}
        request = base64.b64decode(document["spec"]["request"])
        return {**document, "status": {"certificate": base64.b64encode(_signed(request, self.life_s)).decode()}}


def _signed(request: bytes, life_s: float) -> bytes:
    found = x509.load_pem_x509_csr(request)
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(found.subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer")]))
        .public_key(found.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(seconds=life_s))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_AGAIN_S", 0.01)


def play(act: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20):
            await act()

    asyncio.run(run())


def test_a_request_names_the_controller_and_the_address_and_the_files_are_private(tmp_path: Path) -> None:
    signer = Signer("wait", "wait")

    async def act() -> None:
        files = await Requested(signer, tmp_path, name="one", address="10.0.0.9", poll_s=0).obtain()
        assert stat.S_IMODE(files.certificate.stat().st_mode) == 0o600
        ServerCertificate(files.certificate)  # the key fits

    play(act)
    spec = signer.requests[0]["spec"]
    assert spec["signerName"] == "kubernetes.io/kubelet-serving"
    assert spec["usages"] == ["digital signature", "server auth"]
    found = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
    assert {part.rfc4514_string() for part in found.subject} == {"O=system:nodes", "CN=system:node:one"}
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.9"]


@pytest.mark.parametrize("decision", ["deny", "gone"])
def test_after_a_request_in_vain_comes_another(decision: str, tmp_path: Path) -> None:
    signer = Signer(decision, decision)

    async def act() -> None:
        await Requested(signer, tmp_path, name="one", address="kubelet.example", poll_s=0).obtain()

    play(act)
    assert len(signer.requests) == 3


def test_an_outage_of_the_api_server_is_waited_out(tmp_path: Path) -> None:
    signer = Signer()
    signer.is_reachable = False

    async def act() -> None:
        obtaining = asyncio.create_task(Requested(signer, tmp_path, name="one", address="::1", poll_s=0).obtain())
        await asyncio.sleep(0.03)
        assert not obtaining.done()
        signer.is_reachable = True
        await obtaining

    play(act)


def test_nobody_who_approves_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(certificates, "_TELL_S", 0)
    signer = Signer("wait", "wait", "wait")

    async def act() -> None:
        await Requested(signer, tmp_path, name="one", address="::1", poll_s=0).obtain()

    play(act)
    (told,) = [record.getMessage() for record in caplog.records if "nobody" in record.getMessage()]
    assert "kubectl certificate approve csr-0" in told


def test_a_certificate_is_renewed_before_its_end(tmp_path: Path) -> None:
    signer = Signer(life_s=2)

    async def act() -> None:
        source = Requested(signer, tmp_path, name="one", address="::1", poll_s=0)
        files = await source.obtain()
        first = files.certificate.read_bytes()
        keeping = asyncio.create_task(source.keep())
        while files.certificate.read_bytes() == first:  # noqa: ASYNC110 - a file tells by no event
            await asyncio.sleep(0.01)
        keeping.cancel()

    play(act)
    assert len(signer.requests) == 2


def test_the_authority_for_clients_is_that_of_the_api_server_and_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_LOOK_S", 0.01)
    signer = Signer()
    signer.authority = None

    async def act() -> None:
        source = Authority(signer, tmp_path)
        obtaining = asyncio.create_task(source.obtain())
        await asyncio.sleep(0.03)
        assert not obtaining.done()
        signer.authority = "first"
        path = await obtaining
        assert path.read_text() == "first"
        keeping = asyncio.create_task(source.keep())
        signer.authority = "second"
        while path.read_text() != "second":  # noqa: ASYNC110 - a file tells by no event
            await asyncio.sleep(0.01)
        keeping.cancel()

    play(act)

"""A certificate authority of one run, by openssl: for the API server, brokers, and their clients."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SETTINGS = """
[req]
distinguished_name = name
prompt = no
x509_extensions = extensions
[name]
{name}
[extensions]
{extensions}
"""


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and of its key, in PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority with its files in one directory. Needs openssl 3 on the PATH."""

    def __init__(self, directory: Path, pair: Pair | None = None) -> None:
        """With a ``pair``, the authority is the one that is there; issued certificates go into ``directory``."""
        self._directory = directory
        self._pair = pair or self._make(
            "ca",
            "CN = authority of the tests",
            "basicConstraints = critical,CA:TRUE",
            "keyUsage = critical,keyCertSign,cRLSign,digitalSignature",
        )
        self.certificate = self._pair.certificate
        self.key = self._pair.key

    def issue(self, name: str, *, addresses: str = "IP:127.0.0.1,DNS:localhost", organization: str = "") -> Pair:
        """A certificate for one end of a connection, server or client: ``organization`` is a group to Kubernetes."""
        subject = f"CN = {name}" + (f"\nO = {organization}" if organization else "")
        extensions = [
            "basicConstraints = critical,CA:FALSE",
            "keyUsage = critical,digitalSignature,keyEncipherment",
            "extendedKeyUsage = serverAuth,clientAuth",
            f"subjectAltName = {addresses}",
        ]
        return self._make(name, subject, *extensions, by=self._pair)

    def _make(self, file: str, subject: str, *extensions: str, by: Pair | None = None) -> Pair:
        made = Pair(self._directory / f"{file}.crt", self._directory / f"{file}.key")
        settings = self._directory / f"{file}.cnf"
        settings.write_text(_SETTINGS.format(name=subject, extensions="\n".join(extensions)), encoding="utf-8")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-config", str(settings), "-keyout", str(made.key), "-out", str(made.certificate)]
        if by is not None:
            command += ["-CA", str(by.certificate), "-CAkey", str(by.key)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"openssl made no certificate {file}: {done.stderr.strip()}")
        return made

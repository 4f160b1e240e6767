"""Certificates: that of a server, renewed without a restart, and the trust of clients.

A certificate lives for weeks and a base for longer. The files are looked at in each handshake, and read again after a
change, as certbot and the secrets of Kubernetes change them. Nothing runs between handshakes.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Final, TypeAlias

from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]

logger: Final = logging.getLogger("koupleless.base")


class ServerCertificate:
    """The certificate of one server, with the key, and the issuers of certificates that clients have to show.

    Lifetime: as the server. `context` is for the one thread on which the server runs.
    """

    def __init__(
        self,
        certificate: Path,
        *,
        key: Path | None = None,
        password: str | None = None,
        issuers: Path | None = None,
        is_optional: bool = False,
    ) -> None:
        """Read the files. Raises ``OSError`` for unusable ones; ``ssl.SSLError`` is such an error.

        ``is_optional`` lets clients in that show no certificate; a certificate shown has to be of the ``issuers``.
        """
        self._certificate = certificate
        self._key = key
        self._password = password
        self._issuers = issuers
        self._is_optional = is_optional
        self._stamp = self._look()
        self._current = self._read()
        self.context = self._read()
        """The context to listen with, for as long as the server lives."""
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:  # noqa: ARG002
        """Give a handshake the present certificate. OpenSSL asks in every handshake, also without a server name."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._current = self._read()
            except OSError as error:
                reason = getattr(error, "reason", None) or error
                logger.warning("%s has changed and cannot be used (%s): the one before is served", self, reason)
            else:
                logger.info("%s has changed, and is served from now on", self)
        connection.context = self._current

    def _look(self) -> _Stamp:
        """The states of the files; a missing file has one, too."""
        stamp = []
        for path in self._files:
            try:
                status = path.stat()
            except OSError:
                stamp.append((0, 0, 0))
            else:
                stamp.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(stamp)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(self._certificate, self._key, self._password or "")
        if self._issuers is not None:
            context.load_verify_locations(self._issuers)
            context.verify_mode = ssl.CERT_OPTIONAL if self._is_optional else ssl.CERT_REQUIRED
        return context

    @property
    def _files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self._certificate, self._key, self._issuers) if path is not None)

    def __str__(self) -> str:
        return f"the certificate {self._certificate}"


def trusting(issuers: Path | None, key: str) -> ssl.SSLContext:
    """Return the context of a client that trusts ``issuers``, else those of the system. Raises ``SettingsError``."""
    try:
        return ssl.create_default_context(cafile=None if issuers is None else str(issuers))
    except OSError as error:  # ssl.SSLError is one
        raise _unusable(key, issuers, error) from None


def show(context: ssl.SSLContext, certificate: Path, private: Path | None, key: str) -> None:
    """Let ``context`` show a certificate to servers. Raises ``SettingsError``, also for a key with a password."""
    try:
        context.load_cert_chain(certificate, private, password="")  # otherwise OpenSSL asks on the terminal
    except OSError as error:
        raise _unusable(key, certificate, error) from None


def _unusable(key: str, path: Path | None, error: OSError) -> SettingsError:
    reason = getattr(error, "reason", None) or error.strerror or error
    return SettingsError(f"{key}: {path} cannot be used: {reason}")

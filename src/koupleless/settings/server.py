"""The options of uvicorn for the application of a base: address, proxies, TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from koupleless.settings.base import BaseSettings


def server_options(settings: BaseSettings) -> dict[str, Any]:
    """The options by the names of uvicorn. Raises ``SettingsError`` for files that cannot be used."""
    root = (settings.root_path or "").rstrip("/")
    if root and not root.startswith("/"):
        raise SettingsError(f"root-path = {settings.root_path!r} does not begin with a slash")
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "root_path": root,
        "proxy_headers": settings.proxy_headers,
        "forwarded_allow_ips": settings.forwarded_allow_ips,
    }
    if settings.uds is not None:
        options |= {"uds": str(settings.uds)}
        if not settings.uds.absolute().parent.is_dir():
            raise SettingsError(f"uds = {settings.uds}: there is no directory {settings.uds.absolute().parent}")
    return options | _tls(settings)


def _tls(settings: BaseSettings) -> dict[str, Any]:
    certificate, key, issuers = settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_ca_certs
    if certificate is None:
        if key is not None or issuers is not None:
            raise SettingsError("TLS needs a certificate: ssl-certfile is missing")
        return {}
    password = settings.ssl_keyfile_password
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password or "")
        if issuers is not None:
            context.load_verify_locations(issuers)
    except FileNotFoundError:
        missing = [str(path) for path in (certificate, key, issuers) if path is not None and not path.is_file()]
        raise SettingsError(f"TLS: there is no file {', '.join(missing)}") from None
    except OSError as error:  # ssl.SSLError is one
        named = ", ".join(str(path) for path in (certificate, key, issuers) if path is not None)
        raise SettingsError(f"TLS: {named} cannot be used: {getattr(error, 'reason', None) or error}") from None
    options: dict[str, Any] = {"ssl_certfile": str(certificate), "ssl_keyfile_password": password}
    if key is not None:
        options["ssl_keyfile"] = str(key)
    if issuers is not None:
        options |= {"ssl_ca_certs": str(issuers), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options

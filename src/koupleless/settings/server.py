"""The options of uvicorn for the application of a base, address and proxies, and the certificates of servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from koupleless.certificates import ServerCertificate
from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from koupleless.settings.base import ArkletSettings, BaseSettings


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
    return options


def server_certificate(settings: BaseSettings | ArkletSettings, *, under: str = "") -> ServerCertificate | None:
    """The certificate of a server; ``None`` for a server without TLS. ``under`` is the prefix of the keys, for errors.

    Raises ``SettingsError`` for files that cannot be used.
    """
    certificate, key, issuers = settings.ssl_certfile, settings.ssl_keyfile, settings.ssl_ca_certs
    if certificate is None:
        if key is not None or issuers is not None:
            raise SettingsError(f"TLS needs a certificate: {under}ssl-certfile is missing")
        return None
    files = [path for path in (certificate, key, issuers) if path is not None]
    try:
        return ServerCertificate(certificate, key=key, password=settings.ssl_keyfile_password, issuers=issuers)
    except FileNotFoundError:
        missing = [str(path) for path in files if not path.is_file()]
        raise SettingsError(f"TLS: there is no file {', '.join(missing)}") from None
    except OSError as error:  # ssl.SSLError is one
        named = ", ".join(map(str, files))
        raise SettingsError(f"TLS: {named} cannot be used: {getattr(error, 'reason', None) or error}") from None

"""Credentials for the hosts of artefacts, in the form of docker's ``config.json``."""

from __future__ import annotations

import base64
import binascii
import json
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PORTS: Final = {"http": 80, "https": 443, "oci": 443}
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secrets of hosts: name and password, or a token. Any thread may ask; nothing is kept in memory.

    A file is read for each question, so a secret that changes needs no restart.
    """

    path: Path | None = None
    """A file that none but the owner may read."""
    text: str | None = field(default=None, repr=False)
    """The content itself, instead of a file."""

    def of(self, url: str) -> str | None:
        """The value of ``Authorization`` for the host of ``url``; ``None`` for a host without a secret.

        Raises ``SettingsError`` for a file that cannot be used. The text of an error has no secret.
        """
        parts = urllib.parse.urlsplit(url)
        host = (parts.hostname or "").lower()
        names = [f"{host}:{parts.port}"] if parts.port is not None else [f"{host}:{_PORTS.get(parts.scheme, 0)}"]
        if parts.port in (None, _PORTS.get(parts.scheme)):
            names.append(host)
        entries = self._read()
        for name in names:
            if name in entries:
                return _header(entries[name], name)
        return None

    def _read(self) -> dict[str, Mapping[str, Any]]:
        if self.text is None and self.path is None:
            return {}
        origin = "pull-secrets" if self.path is None else str(self.path)
        try:
            content = self.text if self.path is None else _content(self.path)
            document = json.loads(content or "{}")
        except OSError as error:
            raise SettingsError(f"pull-secrets-file: {origin} cannot be read: {error.strerror or error}") from None
        except (ValueError, RecursionError):
            raise SettingsError(f"{origin} has no credentials: JSON as in docker's config.json is expected") from None
        auths = document.get("auths") if isinstance(document, dict) else None
        if not isinstance(auths, dict) or not all(isinstance(entry, dict) for entry in auths.values()):
            raise SettingsError(f'{origin} has no credentials: {{"auths": {{"host": {{"auth": ...}}}}}} is expected')
        return {_host(name): entry for name, entry in auths.items()}


def _content(path: Path) -> str:
    if path.stat().st_mode & _OTHERS:
        raise SettingsError(f"pull-secrets-file: {path} may be read by others than its owner; chmod 600 {path}")
    return path.read_text(encoding="utf-8")


def _host(name: str) -> str:
    """The host of an entry: docker also writes ``https://host/v1/``."""
    return name.partition("://")[2].partition("/")[0].lower() if "://" in name else name.partition("/")[0].lower()


def _header(entry: Mapping[str, Any], host: str) -> str | None:
    if token := entry.get("registrytoken"):
        return f"Bearer {token}"
    login = entry.get("auth")
    if login:
        try:
            base64.b64decode(login, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, TypeError):
            raise SettingsError(f"the secret of {host} is not base64 of name:password") from None
        return f"Basic {login}"
    if "username" in entry:
        login = f"{entry['username']}:{entry.get('password', '')}"
        return f"Basic {base64.b64encode(login.encode()).decode()}"
    return None

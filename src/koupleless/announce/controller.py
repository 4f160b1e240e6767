"""A controller at an address, called over HTTP: the one place that opens connections to a controller."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from koupleless.certificates import trusting
from koupleless.errors import KouplelessError, SettingsError
from koupleless.exchange import BadAnswer, exchange
from koupleless.wire.envelope import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from koupleless.arklet.health import BaseMetadata
    from koupleless.wire.announcements import BaseStatus, Metadata

CONNECT_S: Final = 5.0
_OK: Final = range(200, 300)
_LONGEST: Final = 200
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class ControllerSilent(KouplelessError):
    """A controller did not answer, or refused. ``kind`` is the way of the failure in few words, ``reason`` the rest."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        self.reason = reason
        super().__init__(f"{kind}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """One controller. Any thread may call; a connection for each call, no redirect is followed."""

    url: str
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    read_token: Callable[[], str | None] = field(default=lambda: None, repr=False)
    """Returns the token to send, read anew for each message. May raise ``SettingsError``."""

    @classmethod
    def of(cls, url: str, *, ca: Path | None = None, read_token: Callable[[], str | None] = lambda: None) -> Self:
        """Make one from settings. Raises ``SettingsError`` for issuers that cannot be read, or without ``https``."""
        is_secure = url.startswith("https://")
        if ca is not None and not is_secure:
            raise SettingsError(f"arklet.controller.ca is set, and the controller at {url} is not called by https")
        return cls(url=url, tls=trusting(ca, "arklet.controller.ca") if is_secure else None, read_token=read_token)

    def __str__(self) -> str:
        return f"the controller at {self.url}"

    @property
    def host(self) -> str:
        """The name or address of the machine."""
        return urlsplit(self.url).hostname or ""

    def post(self, path: str, body: Metadata | BaseStatus, *, timeout_s: float) -> bytes:
        """Send one message, and return the body of the answer. Raises ``ControllerSilent``."""
        parts = urlsplit(self.url)
        headers = {"Content-Type": "application/json", "User-Agent": "koupleless", "Connection": "close"}
        try:
            token = self.read_token()
            if token:
                headers["Authorization"] = f"Bearer {token}"
            answer = exchange(
                (parts.hostname or "", parts.port or (80 if self.tls is None else 443)),
                "POST",
                f"{parts.path}{path}",
                headers=headers,
                body=encode(body),
                connect_timeout_s=CONNECT_S,
                timeout_s=timeout_s,
                tls=self.tls,
            )
        except TimeoutError:
            raise ControllerSilent("does not answer", f"nothing came within {timeout_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            said = f"its certificate is not trusted ({error.verify_message}); arklet.controller.ca names the issuers"
            raise ControllerSilent("cannot be trusted", said) from None
        except OSError as error:
            raise ControllerSilent("cannot be reached", error.strerror or str(error)) from None
        except BadAnswer as error:
            raise ControllerSilent("does not answer as a controller", str(error)) from None
        except (SettingsError, ValueError) as error:
            raise ControllerSilent("cannot be asked", str(error)) from None
        if answer.status not in _OK:
            text = answer.content[:_LONGEST].decode("utf-8", "replace").strip()
            raise ControllerSilent(f"answers {answer.status}", text or "without a word")
        return answer.content


def check_names(metadata: BaseMetadata) -> None:
    """Raise ``SettingsError`` for values that cannot become names and labels of a cluster, or parts of a topic."""
    for key, value in (("arklet.identity", metadata.identity), ("arklet.environment", metadata.environment.lower())):
        if not _NAME.fullmatch(value):
            raise SettingsError(
                f"{key} = {value!r} becomes part of the name of a node: lower-case letters, digits, '-' and '.' alone"
            )
    for key, value in (("name", metadata.name), ("version", metadata.version), ("arklet.cluster", metadata.cluster)):
        if not _LABEL.fullmatch(value):
            raise SettingsError(
                f"{key} = {value!r} becomes a label of a node: at most 63 letters, digits, '-', '_' and '.', with a "
                "letter or digit at both ends"
            )

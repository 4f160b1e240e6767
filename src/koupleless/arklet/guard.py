"""The decision about callers, from the headers alone, before anything else of a request is read.

The operations API installs code. Three kinds of stranger are kept out: another machine (by listening on loopback, or
else by a token), another user with the address but without the token, and a web page in the browser of a developer
(``Origin``, or a ``Host`` with a name rebound to this machine).
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from koupleless.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

logger = logging.getLogger("koupleless.arklet")

_EVERY_S: Final = 1.0
_OVERLAP_S: Final = 180.0
_LOOPBACK_NAMES: Final = frozenset({"localhost", "ip6-localhost"})
_HOST: Final = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason for refusing a request, and the HTTP status."""

    status: int
    reason: str


class Rotating:
    """The token in a file, read again once a second at most. The former one counts for a while after a change.

    A changed Secret of Kubernetes takes a minute or two to all Pods, that of the caller among them. Any thread may ask.
    """

    def __init__(self, read: Callable[[], str | None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """``read`` may raise ``SettingsError``, which leaves the last token in use."""
        self._read = read
        self._clock = clock
        self._tokens: tuple[bytes, ...] = ()
        self._until = float("inf")
        """The end of the time of the former token."""
        self._due = float("-inf")
        self._lock = threading.Lock()

    def tokens(self, first: bytes) -> tuple[bytes, ...]:
        """Return the tokens that count now, the newest first; ``first`` is that of the start."""
        with self._lock:
            now, known = self._clock(), self._tokens or (first,)
            if now >= self._due:
                self._due = now + _EVERY_S
                try:
                    token = (self._read() or "").encode()
                except SettingsError as error:
                    logger.warning("the last token stays in use: %s", error)
                    token = known[0]
                if token and token != known[0]:
                    logger.info("the token of the arklet has changed")
                    known, self._until = (token, known[0]), now + _OVERLAP_S
            self._tokens = known if now < self._until else known[:1]
            return self._tokens


class Guard:
    """Judges requests. Lifetime: as the server. Any thread may ask."""

    def __init__(
        self,
        *,
        bound: str,
        token: str | None,
        names: Iterable[str] = (),
        metrics_token: str | None = None,
        rotating: Rotating | None = None,
        asks_everybody: bool = False,
    ) -> None:
        """``bound`` is the address that the server listens on, ``names`` are further names of the base.

        ``metrics_token`` lets callers read metrics and nothing else. ``rotating`` knows later values of ``token``.
        With ``asks_everybody``, callers without the token are refused, even if there is none: another judge asks them.
        """
        self._token = None if token is None else token.encode()
        self._rotating = rotating
        self._asks_everybody = asks_everybody
        self._metrics_token = () if metrics_token is None else (metrics_token.encode(),)
        address = ipaddress.ip_address(bound)
        # A literal address in `Host` cannot be a rebound name. Callers reach a server on all addresses by any of them,
        # also by addresses of a node or a service in front of the server, which this process cannot know.
        self._any_address = address.is_unspecified
        self._hosts = _LOOPBACK_NAMES | {_bare(bound)} | {_bare(name) for name in names}

    def judge(self, headers: Sequence[tuple[bytes, bytes]], *, for_metrics: bool = False) -> Refusal | None:
        """``None`` lets the request in. ``headers`` have lower-case names."""
        if any(name == b"origin" for name, _ in headers):
            return Refusal(403, "requests of web pages are refused (the request has an Origin header)")
        for name, value in headers:
            if name == b"host" and not self._is_ours(value.decode("latin-1")):
                return Refusal(
                    403,
                    f"the request is addressed to {value.decode('latin-1')!r}, which is no name of this base; "
                    "if the base has this name, add the name to the arklet's allowed-hosts",
                )
        tokens = (*self._present(), *self._metrics_token) if for_metrics else self._present()
        if (tokens or self._asks_everybody) and not _has_one_of(tokens, headers):
            return Refusal(401, "the request lacks the right token (Authorization: Bearer ...)")
        return None

    def _present(self) -> tuple[bytes, ...]:
        if self._token is None:
            return ()
        return (self._token,) if self._rotating is None else self._rotating.tokens(self._token)

    def judge_probe(self, headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
        """``None`` lets a caller in who learns of up or down and nothing else, as the probes of Kubernetes do.

        Such a caller has no token, and in ``Host`` an address of the machine that this process need not know.
        """
        if any(name == b"origin" for name, _ in headers):
            return Refusal(403, "requests of web pages are refused (the request has an Origin header)")
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name_in(host)
        if name is None or name in self._hosts:
            return name is not None
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._any_address


def bearer(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the token of a request; empty without one, or with several."""
    given = [value for name, value in headers if name == b"authorization"]
    scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _has_one_of(tokens: Sequence[bytes], headers: Sequence[tuple[bytes, bytes]]) -> bool:
    token = bearer(headers)
    matches = [hmac.compare_digest(token, right) for right in tokens]  # all, so that the time tells nothing
    return any(matches)


def check_exposure(
    address: str, *, token: str | None, insecure: bool, metrics_token: str | None = None, is_reviewed: bool = False
) -> None:
    """Refuse to listen for strangers without a token.

    Raises ``SettingsError`` for an address other than loopback without a token, unless ``insecure`` says that no token
    is meant, and logs a warning in that case; raises for an empty token, too. ``is_reviewed`` says that an API server
    judges the tokens of callers.
    """
    for name, given in (("token", token), ("metrics-token", metrics_token)):
        if given is not None and (not given.strip() or not given.isascii() or given != given.strip()):
            raise SettingsError(f"the arklet {name} must be printable ASCII without blanks around it")
    if token is not None or is_reviewed or ipaddress.ip_address(address).is_loopback:
        return
    if not insecure:
        raise SettingsError(
            f"the arklet would listen on {address}, where anybody who reaches the port could install code: "
            "set a token (--arklet-token-file, KOUPLELESS_ARKLET_TOKEN), or allow access without a token "
            "(--arklet-insecure)"
        )
    logger.warning("the arklet listens on %s without a token: anybody who reaches the port can install code", address)


def _name_in(host: str) -> str | None:
    """The name or address in a ``Host`` header; ``None`` without a name, or with more than a port besides."""
    host = host.strip()
    match = _HOST.fullmatch(host)
    if match is not None and match["name"]:
        return _bare(match["name"])
    try:
        return str(ipaddress.IPv6Address(match["bracketed"] if match else host))  # without brackets, as some clients do
    except ValueError:
        return None


def _bare(name: str) -> str:
    name = name.strip().removeprefix("[").removesuffix("]").removesuffix(".").lower()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name

"""One download over HTTP, within a deadline, a size and the allowed prefixes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.artifact.archive import CHUNK
from koupleless.artifact.fetching.credentials import Credentials
from koupleless.artifact.fetching.locations import check_prefix, is_loopback, without_secrets
from koupleless.errors import FetchFailed, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_REDIRECTS: Final = 5
_UNAUTHORIZED: Final = 401
_ARCHIVE_STARTS: Final = (b"PK\x03\x04", b"PK\x05\x06")
_ENDINGS: Final = (".zip", ".jar", ".whl")


class Transfer:
    """One download, on a separate thread.

    Neither a slow name look-up nor a server that sends a byte a second can hold the caller beyond the deadline. The
    thread ends by itself soon after the deadline, because the socket in use is shut down by the caller.
    """

    def __init__(
        self,
        url: str,
        shown: str,
        directory: Path,
        allowed: Sequence[str],
        *,
        timeout_s: float,
        max_bytes: int,
        credentials: Credentials | None = None,
    ) -> None:
        self._credentials = credentials or Credentials()
        self._url = url
        self._shown = shown
        self._directory = directory
        self._allowed = allowed
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_cancelled = False

    def run(self) -> tuple[Path, str]:
        """Download, and return the file and its SHA-256. Raises ``FetchFailed``."""
        outcome: concurrent.futures.Future[tuple[Path, str]] = concurrent.futures.Future()
        thread = threading.Thread(target=self._work, args=(outcome,), name="koupleless-fetch", daemon=True)
        thread.start()
        try:
            return outcome.result(max(0.0, self._deadline - time.monotonic()))
        except concurrent.futures.TimeoutError:
            raise FetchFailed(self._shown, self._words(TimeoutError())) from None
        finally:
            self._cancel()
            # The thread gets a second to notice. Only a name look-up lasts longer, and no file is open then.
            thread.join(1.0)

    def _work(self, outcome: concurrent.futures.Future[tuple[Path, str]]) -> None:
        try:
            result = self._download()
        except FetchFailed as error:
            outcome.set_exception(error)
        except urllib.error.HTTPError as error:
            error.close()
            said = f"the server answered {error.code} {error.reason}"
            if error.code == _UNAUTHORIZED:
                said += "; pull-secrets-file names a file with the secrets of hosts"
            outcome.set_exception(FetchFailed(self._shown, said))
        except urllib.error.URLError as error:
            outcome.set_exception(FetchFailed(self._shown, self._words(error.reason)))
        except SettingsError as error:
            outcome.set_exception(FetchFailed(self._shown, str(error)))
        except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
            outcome.set_exception(FetchFailed(self._shown, self._words(error)))
        except BaseException as error:  # noqa: BLE001 - only the caller can report a failure of this thread
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    def _cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            connected, self._socket = self._socket, None
        if connected is not None:
            # The base class on purpose: SSLSocket.shutdown drops the TLS state under the thread that is reading.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def connect(self, address: tuple[str, int], _timeout: object, _source: object) -> socket.socket:
        """Connect like `socket.create_connection`, within the rest of the deadline; `run` can cancel the socket."""
        connected = socket.create_connection(address, timeout=max(0.01, self._deadline - time.monotonic()))
        with self._lock:
            if not self._is_cancelled:
                self._socket = connected
                return connected
        connected.close()
        raise TimeoutError("the deadline has passed")

    def secured(self, connection: http.client.HTTPConnection) -> None:
        """Note the TLS socket, which has replaced the plain socket of the connection."""
        with self._lock:
            if not self._is_cancelled:
                self._socket = connection.sock
                return
        connection.close()
        raise TimeoutError("the deadline has passed")

    def _download(self) -> tuple[Path, str]:
        url, headers = _with_login(self._url)
        if not headers and (secret := self._credentials.of(url)):
            headers["Authorization"] = secret
        headers |= {"User-Agent": "koupleless", "Accept": "application/zip, */*;q=0.5", "Accept-Encoding": "identity"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http and https only, see fetch
        with self.open(request) as response:
            return self.receive(response)

    def open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request on the thread of the transfer. Raises ``HTTPError`` for a refusal."""
        director = opener(self._allowed, _Plain(self), _Secure(self))
        response: http.client.HTTPResponse = director.open(request, timeout=self._timeout_s)
        return response

    def receive(self, response: http.client.HTTPResponse, *, name: str | None = None) -> tuple[Path, str]:
        """Write an answer into a file, and return the file and its SHA-256; ``name`` is the one to judge the kind by.

        Raises ``FetchFailed`` for an answer that is no archive, too large, or cut off.
        """
        kind = response.headers.get_content_type()
        if kind in {"text/html", "application/xhtml+xml"}:
            self._fail("the answer is a web page (HTML), not an artefact; is a login or another address needed?")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            self._fail(f"the answer is encoded as {response.headers['Content-Encoding']}, which was not asked for")
        promised = response.length
        if promised is not None and promised > self._max_bytes:
            self._fail(f"the content has {promised} bytes, and {self._max_bytes} are allowed")
        path = self._directory / _file_name(urllib.parse.quote(name) if name else response.url)
        hashed, size = hashlib.sha256(), 0
        with path.open("xb") as file:
            while piece := response.read1(CHUNK):
                if size == 0 and not _is_archive(piece):
                    self._fail(f"the answer ({kind}) is no archive; the first bytes are {piece[:20]!r}")
                size += len(piece)
                if size > self._max_bytes:
                    self._fail(f"the content has more than the {self._max_bytes} allowed bytes")
                hashed.update(piece)
                file.write(piece)
        if promised is not None and size < promised:
            self._fail(f"the connection ended after {size} of {promised} bytes")
        if size == 0:
            self._fail("the answer is empty")
        return path, hashed.hexdigest()

    def _fail(self, reason: str) -> None:
        raise FetchFailed(self._shown, reason)

    def _words(self, error: object) -> str:
        if isinstance(error, TimeoutError):  # of the transfer, or of the socket, whose limit is the rest of the first
            return f"the content did not arrive whole within {self._timeout_s:g} s"
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return str(error) or type(error).__name__


def opener(
    allowed: Sequence[str],
    plain: urllib.request.BaseHandler | None = None,
    secure: urllib.request.BaseHandler | None = None,
) -> urllib.request.OpenerDirector:
    """An opener that follows redirects below ``allowed`` alone, and tells no other host a login."""
    director = urllib.request.OpenerDirector()
    for handler in (
        _Proxies(),
        plain or urllib.request.HTTPHandler(),
        secure or urllib.request.HTTPSHandler(),
        _Redirects(allowed),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        director.add_handler(handler)
    return director


def _is_archive(piece: bytes) -> bool:
    return any(piece.startswith(start[: len(piece)]) for start in _ARCHIVE_STARTS)


def _file_name(url: str) -> str:
    """A file name with the ending of the archive's kind; no other part of the location reaches the file system."""
    ending = Path(urllib.parse.urlsplit(url).path).suffix.lower()
    if ending == ".whl":
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        # The name of a wheel carries name, version and tags. A name with odd characters is not a wheel's.
        return name if re.fullmatch(r"[A-Za-z0-9._+!-]{1,200}", name) else "artefact.whl"
    return f"artefact{ending if ending in _ENDINGS else '.zip'}"


def _with_login(url: str) -> tuple[str, dict[str, str]]:
    parts = urllib.parse.urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    import base64  # noqa: PLC0415 - seldom needed

    token = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {token}"}


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, *args: Any, transfer: Transfer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._create_connection = transfer.connect  # the attribute HTTPConnection offers for this purpose


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, *args: Any, transfer: Transfer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._create_connection = transfer.connect
        self._transfer = transfer

    def connect(self) -> None:
        super().connect()
        self._transfer.secured(self)


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, transfer: Transfer) -> None:
        super().__init__()
        self._transfer = transfer

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_PlainConnection, transfer=self._transfer), req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, transfer: Transfer) -> None:
        super().__init__()
        self._transfer = transfer

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_SecureConnection, transfer=self._transfer), req)


class _Proxies(urllib.request.ProxyHandler):
    """The proxies of the environment, except for requests to this machine."""

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> Any:  # noqa: A002 - the base's name
        if is_loopback(urllib.parse.urlsplit(req.full_url).hostname or ""):
            return None
        return super().proxy_open(req, proxy, type)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MAX_REDIRECTS
    max_repeats = 2

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = allowed

    def redirect_request(  # noqa: PLR0917 - the base's signature
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            self._check(req.full_url, newurl)
        except FetchFailed:
            fp.close()
            raise
        follow = super().redirect_request(req, fp, code, msg, headers, newurl)
        if follow is not None and urllib.parse.urlsplit(req.full_url).netloc != urllib.parse.urlsplit(newurl).netloc:
            follow.remove_header("Authorization")
        return follow

    def _check(self, old: str, new: str) -> None:
        schemes = urllib.parse.urlsplit(old).scheme, urllib.parse.urlsplit(new).scheme
        if schemes[1] not in {"http", "https"} or schemes == ("https", "http"):
            raise FetchFailed(
                without_secrets(old), f"the server redirects to {without_secrets(new)}, which is not followed"
            )
        check_prefix(new, self._allowed)

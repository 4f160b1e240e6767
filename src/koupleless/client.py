"""The client of the arklet API, for the command line and the control side.

Talks to any arklet, of this project or of the Java original, so members unknown to the original are never required. One
connection for each call, and no proxy. Importing this file is a large part of a short command, hence `exchange`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from koupleless.errors import BaseUnreachable, KouplelessError
from koupleless.exchange import BadAnswer, exchange
from koupleless.wire.envelope import Envelope, ReplyInvalid, decode_envelope, encode, without_nulls
from koupleless.wire.replies import (
    BatchData,
    BizInfo,
    BizReply,
    EnvData,
    HealthData,
    HealthReply,
    HelpItem,
    InstallData,
    LogsData,
    OpsRecord,
    UninstallData,
    decode_data,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from koupleless.biz import BizId
    from koupleless.wire.requests import InstallBiz

T = TypeVar("T")

_OK = 200


class Refused(KouplelessError):
    """A base answered, and refused the command; ``envelope`` is the answer.

    ``reason`` is the most telling text of the answer: the message in ``data``, else the often generic message of the
    envelope. ``response_code`` is the text of ``data.code``; empty without such a text.
    """

    def __init__(self, command: str, envelope: Envelope) -> None:
        self.command = command
        self.envelope = envelope
        data = envelope.data if isinstance(envelope.data, dict) else {}
        self.response_code = _text(data.get("code"))
        self.reason = _text(data.get("message")) or envelope.message or envelope.code.value
        super().__init__(self.reason)


class NoArklet(KouplelessError):
    """Another program answered at the address, not an arklet; ``status`` is the HTTP status, 0 if not HTTP."""

    def __init__(self, address: str, status: int, reason: str) -> None:
        self.address = address
        self.status = status
        self.reason = reason
        super().__init__(f"{address} answered HTTP {status}, and not as an arklet: {reason}")


class ArkletClient:
    """Commands to one base.

    Lifetime: any, since no connection is held between calls. Threads: any number may call at once. Each method raises
    ``BaseUnreachable`` without an answer in time, ``NoArklet`` for another answer than an arklet's, and ``Refused`` if
    the base refuses. ``timeout_s`` limits a whole call, ``connect_timeout_s`` the connecting, both in seconds. With
    ``tls``, calls go over TLS.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str | None = None,
        timeout_s: float = 120,
        connect_timeout_s: float = 10,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._token = token
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls

    @property
    def address(self) -> str:
        """The address of the base, as a URL."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self._port}"

    # --- commands ----------------------------------------------------------------------------------------------------

    def help(self) -> list[HelpItem]:
        """The commands of the base."""
        return self._read(self._ask("help", {}).data or [], list[HelpItem])

    @overload
    def install(
        self,
        url: str,
        *,
        identity: BizId | None = None,
        args: Sequence[str] = (),
        envs: Mapping[str, str] | None = None,
        strategy: str | None = None,
        request_id: None = None,
    ) -> InstallData: ...

    @overload
    def install(
        self,
        url: str,
        *,
        identity: BizId | None = None,
        args: Sequence[str] = (),
        envs: Mapping[str, str] | None = None,
        strategy: str | None = None,
        request_id: str,
    ) -> OpsRecord: ...

    def install(
        self,
        url: str,
        *,
        identity: BizId | None = None,
        args: Sequence[str] = (),
        envs: Mapping[str, str] | None = None,
        strategy: str | None = None,
        request_id: str | None = None,
    ) -> InstallData | OpsRecord:
        """Install the artefact at ``url``, which the base must be able to open.

        Without ``identity`` the artefact's own identity is taken. With ``request_id`` the base works in the background
        and answers with the record of the run; `ops` returns later states of the record.
        """
        body = {
            **_named(identity),
            "bizUrl": url,
            "args": list(args) or None,
            "envs": dict(envs) if envs else None,
            "installStrategy": strategy,
            "async": True if request_id is not None else None,
            "requestId": request_id,
        }
        data = self._ask("installBiz", body).data
        return self._read(data, InstallData) if request_id is None else self._read(data, OpsRecord)

    def batch_install(self, installs: Sequence[InstallBiz]) -> BatchData:
        """Install several bizs. Raises ``Refused`` unless all succeed, with an entry for each in ``envelope.data``."""
        body = {"bizList": [install.describe() for install in installs]}
        return self._read(self._ask("batchInstallBiz", body).data, BatchData)

    def uninstall(self, identity: BizId) -> UninstallData:
        """Remove a biz. A base of this project answers with a ``purge_report``."""
        return self._read(self._ask("uninstallBiz", _named(identity)).data, UninstallData)

    def switch(self, identity: BizId) -> BizReply:
        """Make this version of the biz the active one."""
        return self._read(self._ask("switchBiz", _named(identity)).data, BizReply)

    def query(self, *, has_libraries: bool = False) -> list[BizInfo]:
        """All bizs without the base, by priority. A base of this project adds libraries for ``has_libraries``."""
        body = {"libraries": True} if has_libraries else {}
        return self._read(self._ask("queryAllBiz", body).data or [], list[BizInfo])

    def health(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the name on the wire
        metrics: Sequence[str] = (),
        name: str | None = None,
        version: str | None = None,
    ) -> HealthData:
        """The health of one part of the base: ``system``, ``biz`` or ``plugin``; ``None`` means all parts."""
        body = {"type": type, "metrics": list(metrics) or None, "bizName": name, "bizVersion": version}
        return self._read(self._ask("health", body).data, HealthReply).health_data

    def ops(self, request_id: str) -> OpsRecord:
        """The record of a background run."""
        return self._read(self._ask("queryBizOps", {"requestId": request_id}).data, OpsRecord)

    def env(self, name: str, *, given: Mapping[str, str] | None = None, unset: Sequence[str] = ()) -> EnvData:
        """Set and remove kept values of a module's environment, and list the names. Only a base of this project."""
        body = {"bizName": name, "set": dict(given) if given else None, "unset": list(unset) or None}
        return self._read(self._ask("envBiz", body).data, EnvData)

    def logs(
        self,
        name: str | None = None,
        *,
        lines: int = 100,
        level: str | None = None,
        since: float | None = None,
        places: Mapping[str, str] | None = None,
        version: str | None = None,
        life: str | None = None,
    ) -> LogsData:
        """Entries of the log of a module, or of all: the newest, or those after ``places``. Only this project's base.

        ``since`` is a time in seconds; ``places`` come from the answer before; ``life`` of a version is ``current`` or
        ``previous``.
        """
        chosen = {"bizName": name, "bizVersion": version, "life": life, "lines": lines, "level": level, "since": since}
        return self._read(self._ask("queryLogs", {**chosen, "places": places}).data, LogsData)

    def call(self, command: str, body: Mapping[str, Any] | None = None) -> Envelope:
        """Send any command and return the envelope of the answer. Never raises ``Refused``."""
        status, raw = self._post(command, encode(without_nulls(dict(body or {}))))
        try:
            return decode_envelope(raw)
        except ReplyInvalid as error:
            raise NoArklet(self.address, status, str(error)) from None

    # --- transport ---------------------------------------------------------------------------------------------------

    def _ask(self, command: str, body: Mapping[str, Any]) -> Envelope:
        envelope = self.call(command, body)
        if not envelope.is_success:
            raise Refused(command, envelope)
        return envelope

    def _read(self, data: Any, kind: type[T]) -> T:
        try:
            return decode_data(data, kind)
        except ReplyInvalid as error:
            raise NoArklet(self.address, _OK, str(error)) from None

    def _post(self, command: str, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            answer = exchange(
                (self._host, self._port),
                "POST",
                f"/{command}",
                headers=headers,
                body=body,
                connect_timeout_s=self._connect_timeout_s,
                timeout_s=self._timeout_s,
                tls=self._tls,
            )
        except TimeoutError:
            raise BaseUnreachable(self.address, "no answer in time") from None
        except OSError as error:
            raise BaseUnreachable(self.address, error.strerror or str(error)) from error
        except ValueError as error:
            raise BaseUnreachable(self.address, str(error)) from None
        except BadAnswer as error:
            raise NoArklet(self.address, 0, str(error)) from error
        return answer.status, answer.content


def _named(identity: BizId | None) -> dict[str, str]:
    return {} if identity is None else {"bizName": identity.name, "bizVersion": identity.version}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

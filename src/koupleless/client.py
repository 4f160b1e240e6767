"""The client of the arklet API, for the command line and the control side.

It talks to any arklet, the Java one too, so it needs no member that the original does not send. One connection a call,
and no proxy. A command line starts in the time this takes to import, hence the small HTTP client of `exchange`.
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
    HealthData,
    HealthReply,
    HelpItem,
    InstallData,
    OpsRecord,
    UninstallData,
    decode_data,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from koupleless.biz import BizId
    from koupleless.wire.requests import InstallBiz

T = TypeVar("T")

_OK = 200


class Refused(KouplelessError):
    """A base answered, and did not do what was asked; ``envelope`` is its answer.

    ``reason`` is the most telling text of it: what ``data`` says before the envelope's own, often generic, message.
    ``response_code`` is the text of ``data.code`` if there is one.
    """

    def __init__(self, command: str, envelope: Envelope) -> None:
        self.command = command
        self.envelope = envelope
        data = envelope.data if isinstance(envelope.data, dict) else {}
        self.response_code = _text(data.get("code"))
        self.reason = _text(data.get("message")) or envelope.message or envelope.code.value
        super().__init__(self.reason)


class NoArklet(KouplelessError):
    """Something answered at the address, but not as an arklet would; ``status`` is the HTTP status."""

    def __init__(self, address: str, status: int, reason: str) -> None:
        self.address = address
        self.status = status
        self.reason = reason
        super().__init__(f"{address} answered HTTP {status}, and not as an arklet: {reason}")


class ArkletClient:
    """Commands to one base.

    Lifetime: as long as you like; it holds no connection. Threads: any number may call at once. Every method raises
    ``BaseUnreachable`` if nobody answers in time, ``NoArklet`` if something else does, ``Refused`` if the base says no.
    """

    def __init__(
        self, host: str, port: int, *, token: str | None = None, timeout_s: float = 120, connect_timeout_s: float = 10
    ) -> None:
        self._host = host
        self._port = port
        self._token = token
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s

    @property
    def address(self) -> str:
        """Where the base is, as a URL."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

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
        """Install what is at ``url``, which the base must be able to open.

        Without ``identity`` the artefact's own is taken. With ``request_id`` the base works in the background and
        answers with the record of the run; ask `ops` how it goes on.
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
        """Install several. Raises ``Refused`` unless all succeeded; ``envelope.data`` then has an entry for each."""
        body = {"bizList": [install.describe() for install in installs]}
        return self._read(self._ask("batchInstallBiz", body).data, BatchData)

    def uninstall(self, identity: BizId) -> UninstallData:
        """Remove a biz. ``purge_report`` is there if the base is one of ours."""
        return self._read(self._ask("uninstallBiz", _named(identity)).data, UninstallData)

    def switch(self, identity: BizId) -> BizReply:
        """Make this version the one that answers."""
        return self._read(self._ask("switchBiz", _named(identity)).data, BizReply)

    def query(self, *, has_libraries: bool = False) -> list[BizInfo]:
        """All bizs but the base, by priority; if asked for, with their libraries, which a base of ours tells."""
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
        """What `type` (``system``, ``biz``, ``plugin``; all of it if ``None``) has to say."""
        body = {"type": type, "metrics": list(metrics) or None, "bizName": name, "bizVersion": version}
        return self._read(self._ask("health", body).data, HealthReply).health_data

    def ops(self, request_id: str) -> OpsRecord:
        """The record of a background run."""
        return self._read(self._ask("queryBizOps", {"requestId": request_id}).data, OpsRecord)

    def call(self, command: str, body: Mapping[str, Any] | None = None) -> Envelope:
        """Send any command and return whatever envelope comes back. Raises all but ``Refused``."""
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

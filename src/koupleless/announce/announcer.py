"""The announcer of a base: all tunnels to controllers, begun and ended together."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol

from koupleless.announce.fortune import logger
from koupleless.announce.heartbeat import Heartbeat
from koupleless.announce.query import BaselineQuery
from koupleless.announce.session import Session
from koupleless.artifact.fetching.locations import is_loopback
from koupleless.wire.announcements import BaseStatus, Metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koupleless.announce.baseline import Baseline
    from koupleless.announce.controller import Controller
    from koupleless.announce.session import Broker
    from koupleless.arklet.health import BaseMetadata
    from koupleless.wire.requests import InstallBiz


class Tunnel(Protocol):
    """One way to a controller."""

    def begin(self) -> None:
        """Tell of a serving base, now and from now on; returns at once."""

    def leave(self) -> None:
        """Begin to tell of the end; returns at once. Idempotent."""

    def close(self) -> None:
        """Wait until this is told, a few seconds at most. Idempotent."""


class Announcer:
    """Tells controllers of the begin and the end of a base.

    Lifetime: of the base; `ask` and `wanted` during the start, `begin` once when the base is ready, `leave` at the
    begin of the end, `close` at the end.
    None of them raises. Threads: the base's, one at a time. A base without a controller has no announcer.
    """

    def __init__(
        self,
        metadata: BaseMetadata,
        baseline: Baseline,
        *,
        controller: Controller | None = None,
        patience_s: float = 0.0,
        broker: Broker | None = None,
    ) -> None:
        """``controller`` is told over HTTP, and asked for a baseline unless ``patience_s`` is 0.

        Controllers behind ``broker`` are told over MQTT. Both at once is well.
        """
        self._metadata = metadata
        self.baseline = baseline
        self._start_id = secrets.token_hex(8)
        self._controller = controller
        self._patience_s = patience_s
        self._broker = broker
        self._query: BaselineQuery | None = None
        self._tunnels: list[Tunnel] = []

    def ask(self) -> None:
        """Ask the controller for the modules wanted in this base; returns at once, for the start to go on meanwhile."""
        if self._controller is not None and self._patience_s:
            self._query = BaselineQuery(self._controller, described(self._metadata), self.baseline.bring)
            self._query.ask()

    def wanted(self) -> Sequence[InstallBiz]:
        """The modules wanted by the controller, awaited until ``patience_s`` after `ask`; empty without an answer."""
        return () if self._query is None else self._query.answer(self._patience_s)

    def begin(self, port: int) -> None:
        """Tell all controllers of a serving base, with the arklet on ``port``."""

        def status(serves: bool) -> BaseStatus:
            return self._status("ACTIVATED" if serves else "DEACTIVATED", port)

        if self._controller is not None:
            self._check_reach(self._controller)
            self._tunnels.append(Heartbeat(self._controller, status))
        if self._broker is not None:
            self._tunnels.append(Session(self._broker, self.baseline, status, environment=self._metadata.environment))
        for tunnel in self._tunnels:
            tunnel.begin()
        if self._query is not None:
            self._query.begin()

    def leave(self) -> None:
        """Tell all controllers of the end. Idempotent."""
        if self._query is not None:
            self._query.close()
        for tunnel in self._tunnels:
            tunnel.leave()

    def close(self) -> None:
        """Wait until all are told, or have not listened for some seconds. Idempotent."""
        self.leave()
        for tunnel in self._tunnels:
            tunnel.close()

    def _status(self, state: str, port: int) -> BaseStatus:
        metadata = self._metadata
        return BaseStatus(
            base_metadata=described(metadata),
            local_ip=metadata.local_ip,
            local_host_name=metadata.host_name,
            port=port,
            state=state,
            start_id=self._start_id,
            service_port=metadata.service_port,
        )

    def _check_reach(self, controller: Controller) -> None:
        if is_loopback(self._metadata.local_ip) and not is_loopback(controller.host):
            logger.warning(
                "%s cannot call this base, whose arklet listens on %s; set arklet.host (--arklet-host)",
                controller,
                self._metadata.local_ip,
            )


def described(metadata: BaseMetadata) -> Metadata:
    """The identity of a base, as a controller reads it."""
    return Metadata(
        identity=metadata.identity, name=metadata.name, version=metadata.version, cluster_name=metadata.cluster
    )

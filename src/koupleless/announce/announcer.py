"""The announcer of a base: all tunnels to controllers, begun and ended together."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol

from koupleless.announce.fortune import logger
from koupleless.announce.heartbeat import Heartbeat
from koupleless.artifact.fetching.locations import is_loopback
from koupleless.wire.announcements import BaseStatus, Metadata

if TYPE_CHECKING:
    from koupleless.announce.controller import Controller
    from koupleless.arklet.health import BaseMetadata


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

    Lifetime: of the base; `begin` once when the base is ready, `leave` at the begin of the end, `close` at the end.
    None of them raises. Threads: the base's, one at a time. A base without a controller has no announcer.
    """

    def __init__(self, metadata: BaseMetadata, controller: Controller | None = None) -> None:
        """``controller`` is told over HTTP."""
        self._metadata = metadata
        self._start_id = secrets.token_hex(8)
        self._controller = controller
        self._tunnels: list[Tunnel] = []

    def begin(self, port: int) -> None:
        """Tell all controllers of a serving base, with the arklet on ``port``."""
        if self._controller is not None:
            self._check_reach(self._controller)
            self._tunnels.append(
                Heartbeat(self._controller, lambda serves: self._status("ACTIVATED" if serves else "DEACTIVATED", port))
            )
        for tunnel in self._tunnels:
            tunnel.begin()

    def leave(self) -> None:
        """Tell all controllers of the end. Idempotent."""
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

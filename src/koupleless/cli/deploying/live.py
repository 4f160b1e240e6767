"""Asking a base, again and again, to let pages of a module reload by themselves."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, Self

from koupleless.client import ArkletClient, Refused
from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from koupleless.settings.client import ClientSettings

_LEASE_S: Final = 10.0
"""Seconds after which a base forgets the wish, if this process is killed or the network is gone."""
_AGAIN_S: Final = 3.0
_ANSWER_S: Final = 5.0


class LiveReload:
    """Live reload of the pages of one module, from `begin` to the end of the ``with``. Used by one thread."""

    def __init__(self, settings: ClientSettings) -> None:
        token = settings.read_token()
        self._client = ArkletClient(
            settings.host, settings.port, token=token, timeout_s=_ANSWER_S, connect_timeout_s=_ANSWER_S
        )
        self._name: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask_again, name="live reload", daemon=True)

    def begin(self, name: str) -> None:
        """Let pages of the module ``name`` reload from now on; nothing happens the second time.

        Raises ``Refused`` for a base that has no live reload, and ``BaseUnreachable``.
        """
        if self._name is None:
            self._ask(name, _LEASE_S)
            self._name = name
            self._thread.start()

    def _ask(self, name: str, seconds: float) -> None:
        envelope = self._client.call("liveBiz", {"bizName": name, "seconds": seconds})
        if not envelope.is_success:
            raise Refused("liveBiz", envelope)

    def _ask_again(self) -> None:
        assert self._name is not None
        while not self._ended.wait(_AGAIN_S):
            with contextlib.suppress(KouplelessError):  # a base that starts again is asked again
                self._ask(self._name, _LEASE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._name is not None:
            self._thread.join(_ANSWER_S)
            with contextlib.suppress(KouplelessError):  # the base forgets by itself
                self._ask(self._name, 0)

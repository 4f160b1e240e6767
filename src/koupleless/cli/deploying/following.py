"""Following an install from outside: the base is asked, beside the call that waits, how far the module is."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from koupleless.biz import BizState
from koupleless.client import ArkletClient
from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koupleless.cli.showing.progress import Progress
    from koupleless.settings.client import ClientSettings
    from koupleless.wire.replies import BizInfo

_FIRST_S: Final = 0.5
"""Seconds before the first question: most installs are done by then."""
_ANSWER_S: Final = 2.0


@contextlib.contextmanager
def followed(settings: ClientSettings, name: str, progress: Progress) -> Iterator[None]:
    """Show the steps of the module ``name`` in the base, while the context lasts. A silent progress asks nothing."""
    if progress.is_silent:
        yield
        return
    begin = progress.begin
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(settings, name, begin, ended), name="follow", daemon=True)
    begin(f"the base takes {name} in")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_ANSWER_S)


def _follow(settings: ClientSettings, name: str, begin: Callable[[str], object], ended: threading.Event) -> None:
    client = ArkletClient(
        settings.host,
        settings.port,
        token=settings.read_token(),
        timeout_s=_ANSWER_S,
        connect_timeout_s=_ANSWER_S,
        tls=settings.read_tls(),
    )
    was_starting = False
    while not ended.wait(_FIRST_S):
        try:
            bizs = [biz for biz in client.query() if biz.biz_name == name]
        except KouplelessError:  # the call that waits says what is wrong
            return
        is_starting = any(biz.biz_state is BizState.RESOLVED for biz in bizs)
        was_starting = was_starting or is_starting
        if not ended.is_set():
            begin(_step(name, bizs, is_starting=is_starting, was_starting=was_starting))


def _step(name: str, bizs: list[BizInfo], *, is_starting: bool, was_starting: bool) -> str:
    if is_starting:
        return f"{name} is started"
    if not was_starting:
        return f"the base checks and unpacks {name}"
    leaving = [biz.biz_version for biz in bizs if biz.biz_state is not BizState.ACTIVATED]
    versions = f" {', '.join(leaving)}" if leaving else ""
    return f"{name} answers; the version before{versions} finishes its requests, and leaves"

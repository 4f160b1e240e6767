"""Deploying again after every saved file."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from koupleless.cli.deploying.live import LiveReload
from koupleless.cli.deploying.target import TargetKind
from koupleless.cli.showing.suggestions import report
from koupleless.errors import ArtifactError, KouplelessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from koupleless.cli.deploying.deploy import Deployment, Done
    from koupleless.cli.deploying.target import DeployTarget
    from koupleless.settings.client import ClientSettings


def watch(
    deployment: Deployment,
    target: DeployTarget,
    *,
    show: Callable[[Done], object],
    say: Callable[[str], object],
    live: ClientSettings | None = None,
) -> NoReturn:
    """Deploy now and after every saved file, until interrupted. A failed deployment is reported to ``say``.

    With the settings ``live``, pages of the module reload by themselves meanwhile, after the first deployment.
    Raises ``KeyboardInterrupt`` at the end, and ``ArtifactError`` for a target without files. Only for the main thread.
    """
    import watchfiles  # noqa: PLC0415 - for this flag alone

    if target.kind is TargetKind.URL:
        raise ArtifactError("--watch needs files to watch, not a URL")
    path = target.path
    directory = path if path.is_dir() else path.parent
    say(f"watching {path}: every save deploys again; interrupt to stop")

    def deploy() -> None:
        try:
            done = deployment.run()
            show(done)
            if pages is not None:
                pages.begin(done.identity.partition(":")[0])
        except KouplelessError as error:
            for line in [*report(error), "not deployed; the next save tries again"]:
                say(line)

    wanted = watchfiles.DefaultFilter(
        ignore_dirs=(*watchfiles.DefaultFilter.ignore_dirs, "dist", "build", ".ruff_cache")
    )
    with LiveReload(live) if live else contextlib.nullcontext() as pages, _interrupts() as interrupted:
        deploy()
        for changes in watchfiles.watch(
            directory, watch_filter=wanted, debounce=200, step=20, stop_event=interrupted, raise_interrupt=False
        ):
            if path.is_dir() or any(Path(changed) == path for _, changed in changes):
                deploy()
    raise KeyboardInterrupt


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Give an event set by Ctrl-C, in addition to ``KeyboardInterrupt``, while the context lasts.

    The exception alone can be lost: inside a callback from compiled code, like the watcher's, no caller receives the
    exception. Only for the main thread, as all handling of signals.
    """
    interrupted = threading.Event()

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(signal_number, frame)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)

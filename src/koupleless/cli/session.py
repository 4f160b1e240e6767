"""The session of one command: settings, client, output, and the questions several commands ask of a base."""

# ruff: noqa: PLC0415 - a command pays only for the modules it uses

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from koupleless.errors import BizNotFound, KouplelessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from koupleless.cli.kube.pods import Carrier
    from koupleless.client import ArkletClient
    from koupleless.settings.client import ClientSettings
    from koupleless.wire.envelope import Envelope
    from koupleless.wire.replies import BizInfo, Zombie

F = TypeVar("F", bound="Callable[..., Any]")
NOT_FOUND: Final = "NOT_FOUND_BIZ"
"""The response code of any base for a module that is not installed."""


_COMPLETION_S: Final = 1.0


class Session:
    """The settings and the client of one command, and the form of the command's output."""

    # No dataclass: to make one takes a hundredth of the time in which `arkctl status` is done.
    def __init__(self, settings: ClientSettings, client: ArkletClient, carrier: Carrier | None = None) -> None:
        """``carrier`` takes files to a base in a Pod; ``None`` for any other base."""
        self.settings = settings
        self.client = client
        self.carrier = carrier

    @property
    def is_json(self) -> bool:
        """Whether the result is for a program."""
        return self.settings.output == "json"

    @property
    def is_wide(self) -> bool:
        """Whether the output shows all columns."""
        return self.settings.output == "wide"

    @property
    def way(self) -> str:
        """The flags for a further command to reach the same base."""
        from koupleless.settings.client import ClientSettings

        plain, own = ClientSettings(), self.settings
        if own.pod is not None:
            return f" --pod {own.pod}"
        host = f" --host {own.host}" if own.host != plain.host else ""
        return host + (f" --port {own.port}" if own.port != plain.port else "")

    @property
    def is_coloured(self) -> bool:
        """Whether stdout is a terminal with colours switched on."""
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def show(self, value: Mapping[str, object], text: str) -> None:
        """Print a result: ``value`` for programs, ``text`` for people."""
        from koupleless.cli.showing.render import json_text

        click.echo(json_text(value) if self.is_json else text)


def opens_session(command: F) -> F:
    """Add the flags that name a base to a command, and pass a `Session` made of the flags as first argument."""

    @click.option("--host", metavar="HOST", help="The host of the base.  [default: 127.0.0.1]")
    @click.option("--port", type=int, metavar="PORT", help="The port of the arklet.  [default: 1238]")
    @click.option("--pod", metavar="[NS/]POD", help="A Pod with a base or a module, instead of a host; needs kubectl.")
    @click.option("--container", metavar="NAME", help="With --pod: the container of the base.  [default: the first]")
    @click.option("--context", metavar="NAME", help="With --pod: the context of the kubeconfig.")
    @click.option("--kubeconfig", metavar="FILE", help="With --pod: the way to the cluster.  [default: kubectl's]")
    @click.option("--token", metavar="TOKEN", help="The arklet's token, if one is demanded; better in ARKCTL_TOKEN.")
    @click.option("--timeout", type=float, metavar="SEC", help="Seconds to wait for an answer.  [default: 120]")
    @click.option(
        "-o", "--output", type=click.Choice(["table", "wide", "json"]), help="The form of output.  [default: table]"
    )
    @click.option("-v", "--verbose", is_flag=True, help="Show calls as curl commands, and stack traces.")
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        host: str | None,
        port: int | None,
        pod: str | None,
        container: str | None,
        context: str | None,
        kubeconfig: str | None,
        token: str | None,
        timeout: float | None,
        output: str | None,
        verbose: bool,
        **kwargs: Any,
    ) -> Any:
        from koupleless.settings.client import load_client

        click.get_current_context().obj.is_verbose = verbose
        if host is not None and pod is not None:
            raise click.UsageError("--host and --pod name two bases: give one")
        address = {"host": host, "port": port, "token": token, "timeout_s": timeout, "output": output}
        settings = load_client(
            {**address, "pod": pod, "container": container, "context": context, "kubeconfig": kubeconfig}
        )

        def run(settings: ClientSettings, carrier: Carrier | None = None) -> Any:
            return command(Session(settings, _client(settings, is_verbose=verbose), carrier), *args, **kwargs)

        if host is not None:  # stronger than the Pod of a file or a variable
            settings = settings.of_host()
        return run(settings) if settings.pod is None else _in_pod(settings, settings.pod, run)

    return wrapped  # type: ignore[return-value]


def _in_pod(settings: ClientSettings, pod: str, call: Callable[[ClientSettings, Carrier | None], Any]) -> Any:
    """Call a command for the base of a Pod, with the way to the base as settings."""
    import dataclasses

    from koupleless.cli.kube.pods import way_to
    from koupleless.errors import BaseUnreachable

    with way_to(pod, settings) as way:
        there = dataclasses.replace(settings, host=way.host, port=way.port, pod=way.text)
        try:
            return call(there, way.carrier)
        except BaseUnreachable as error:
            raise way.explain(error) from error


def _client(settings: ClientSettings, *, is_verbose: bool) -> ArkletClient:
    from koupleless.cli.showing.render import as_curl
    from koupleless.client import ArkletClient

    token = settings.read_token()

    class TalkativeClient(ArkletClient):
        """A client that prints each call as a shell command to repeat the call."""

        def call(self, command: str, body: Mapping[str, Any] | None = None) -> Envelope:
            say(as_curl(self.address, command, body or {}, has_token=token is not None))
            return super().call(command, body)

    kind = TalkativeClient if is_verbose else ArkletClient
    return kind(settings.host, settings.port, token=token, timeout_s=settings.timeout_s, tls=settings.read_tls())


def complete_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Names of installed modules for the completion of a shell; none if the base does not answer at once."""
    return sorted({biz.biz_name for biz in _installed(context) if biz.biz_name.startswith(incomplete)})


def complete_identities(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Identities of installed modules, as `complete_names`."""
    return sorted(biz.identity for biz in _installed(context) if biz.identity.startswith(incomplete))


def _installed(context: click.Context) -> list[BizInfo]:
    from koupleless.client import ArkletClient
    from koupleless.settings.client import load_client

    if context.params.get("pod"):  # kubectl would take longer than a shell waits
        return []
    try:
        settings = load_client({name: context.params.get(name) for name in ("host", "port", "token")})
        token = settings.read_token()
        client = ArkletClient(
            settings.host,
            settings.port,
            token=token,
            timeout_s=_COMPLETION_S,
            connect_timeout_s=_COMPLETION_S,
            tls=settings.read_tls(),
        )
        return client.query()
    except (KouplelessError, ValueError):  # a shell shows nothing but names
        return []


def say(text: str) -> None:
    """Print a text that is not the result to stderr."""
    click.echo(text, err=True)


def versions_of(session: Session, text: str, *, has_libraries: bool = False) -> list[BizInfo]:
    """The installed bizs that match ``name`` or ``name:version``. Raises ``NotThere`` if there is none."""
    name, _, version = text.partition(":")
    installed = session.client.query(has_libraries=has_libraries)
    found = [biz for biz in installed if biz.biz_name == name and version in ("", biz.biz_version)]
    if not found:
        raise not_there(text, installed)
    return found


def zombies_of(session: Session, text: str) -> list[Zombie]:
    """The zombies of removed bizs that match ``name`` or ``name:version``, if the base reports zombies."""
    name, _, version = text.partition(":")
    try:
        left = session.client.health(type="biz").zombies or []
    except KouplelessError:  # a Java base may refuse the query; an unreachable base is reported by the next call
        return []
    return [zombie for zombie in left if zombie.biz == text or (not version and zombie.biz.startswith(f"{name}:"))]


def not_there(text: str, installed: Sequence[BizInfo]) -> BizNotFound:
    """The error for a module that is not installed, with the identities of the installed modules."""
    from koupleless.cli.showing.suggestions import NotThere

    return NotThere(text, [biz.identity for biz in installed])


@contextlib.contextmanager
def naming_installed(session: Session, identity: str) -> Iterator[None]:
    """Turn the answer "no such module" of a base into a ``NotThere``, which lists the installed modules."""
    try:
        yield
    except KouplelessError as error:
        if getattr(error, "response_code", "") != NOT_FOUND:
            raise
        raise not_there(identity, session.client.query()) from None

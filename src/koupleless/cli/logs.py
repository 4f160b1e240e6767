"""``arkctl logs``: the entries of the logs of modules, as the base has them."""

# ruff: noqa: PLC0415 - a command pays only for the modules it uses

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

import click

from koupleless.cli.session import Session, complete_names, opens_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from koupleless.wire.replies import LogEntry

_POLL_S: Final = 0.5
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Span(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A span of time: a number with s, m, h or d behind; a number alone means seconds."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds. Fails with a sentence for another text."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no span of time: 30s, 10m, 2h and 1d are", param, ctx)
        return float(found[1]) * _UNITS[found[2] or "s"]


@click.command()
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("-f", "--follow", is_flag=True, help="Go on with new entries as they come.")
@click.option("--since", type=Span(), metavar="SPAN", help="Entries of the last 30s, 10m, 2h or 1d.")
@click.option("--level", type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
              help="The lowest level.")  # fmt: skip
@click.option("-n", "--lines", type=click.IntRange(min=0), default=100, show_default=True, help="Number of entries.")
@click.option("-p", "--previous", is_flag=True, help="Entries of the life before the present one, for NAME:VERSION.")
@opens_session
def logs(
    session: Session,
    name: str | None,
    *,
    follow: bool,
    since: float | None,
    level: str | None,
    lines: int,
    previous: bool,
) -> None:
    """Print the newest entries of the log of a module.

    NAME:VERSION means the entries of one version. Without NAME, the entries of all modules, in the order of time. A
    base in another server than arkctl serve has logs only with a log-dir. With -o json, each entry is an object.
    """
    import time

    begin = None if since is None else time.time() - since
    name, _, version = (name or "").partition(":")
    ask = functools.partial(session.client.logs, name or None, version=version or None, level=level)
    found = ask(lines=lines, since=begin, life="previous" if previous else None)
    _print(session, found.entries)
    places: Mapping[str, str] = found.places
    while follow and not previous:  # nothing comes to a life that is over
        time.sleep(_POLL_S)
        found = ask(places=places)
        _print(session, found.entries)
        places = found.places


def _print(session: Session, entries: Iterable[LogEntry]) -> None:
    from koupleless.cli.showing.render import json_text

    for entry in entries:
        shown = {"time": entry.time, "bizName": entry.biz_name, "text": entry.text}
        click.echo(json_text(shown) if session.is_json else entry.text)

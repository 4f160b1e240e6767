"""The overview of a cluster as text for people."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from koupleless.cli.kube.advice import PAGE
from koupleless.cli.showing.render import table

if TYPE_CHECKING:
    from koupleless.cli.kube.overview import Base, Overview, Trouble

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"))
_LINES: Final = 6
"""The lines shown of a message; the form for programs has all."""


def overview_text(overview: Overview, *, is_wide: bool = False) -> str:
    """Return a table of bases, the Pods that are not ready with messages and advice, and a table of controllers."""
    if not overview.bases:
        parts = ["no bases; a base shows itself with: arkctl serve APP --controller ADDRESS"]
    else:
        parts = [_bases(overview, is_wide=is_wide)]
    parts += [f"{base.node}: {base.strays}" for base in overview.bases if base.strays]
    if overview.troubles:
        told = "\n".join(line for trouble in overview.troubles for line in _trouble(trouble))
        parts.append(f"PODS NOT READY\n{told}\nmore: {PAGE}")
    if overview.controllers:
        rows = [
            [one.name, str(one.bases), _span(one.renewed_s), "alive" if one.is_alive else "lapsed"]
            for one in overview.controllers
        ]
        parts.append(table(["CONTROLLER", "BASES", "RENEWED", "LIFE"], rows))
    return "\n\n".join(parts)


def overview_json(overview: Overview) -> dict[str, Any]:
    """Return an overview for programs: all members, named as in other replies, and whether all is well."""
    return {"isWell": overview.is_well, **_camel(dataclasses.asdict(overview))}


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {_member(name): _camel(member) for name, member in value.items()}
    return [_camel(one) for one in value] if isinstance(value, list | tuple) else value


def _member(name: str) -> str:
    """Return the name of a member in JSON; seconds are ``...Seconds``."""
    first, *rest = name.split("_")
    return first + "".join("Seconds" if part == "s" else part.capitalize() for part in rest)


def _bases(overview: Overview, *, is_wide: bool) -> str:
    headings = ["NODE", "BASE", "VERSION", "CLUSTER", "LIFE", "SINCE", "MODULES", "CONTROLLER"]
    headings += ["RENEWED", "ENV", "ADDRESS", "NEWS"] if is_wide else []
    return table(headings, [_row(base, is_wide=is_wide) for base in overview.bases])


def _row(base: Base, *, is_wide: bool) -> list[str]:
    life = f"{base.life}, cordoned" if base.is_cordoned else base.life
    led = base.controller if base.is_led else f"{base.controller} (lapsed)" if base.controller else "none"
    row = [base.node, base.name, base.version, base.cluster, life, _span(base.since_s)]
    row += [f"{base.ready}/{base.wanted}", led]
    if is_wide:
        row += [_span(base.renewed_s), base.env, base.address, base.news]
    return [cell or "-" for cell in row]


def _trouble(trouble: Trouble) -> list[str]:
    where = f" on {trouble.node}" if trouble.node else ""
    lines = [f"{trouble.pod}{where}: {trouble.module}: {trouble.reason}, for {_span(trouble.since_s)}"]
    said = trouble.message.strip().splitlines()
    lines += [f"    {line}" for line in said[:_LINES]]
    if len(said) > _LINES:
        lines.append(f"    ({len(said) - _LINES} more lines: kubectl describe pod)")
    return [*lines, f"    suggestion: {trouble.advice}"]


def _span(seconds: float | None) -> str:
    """Return a span of time in one unit; a clock behind that of the cluster gives 0."""
    if seconds is None:
        return "-"
    seconds = max(seconds, 0)
    return next((f"{int(seconds // size)}{unit}" for size, unit in _UNITS if seconds >= size), f"{int(seconds)}s")

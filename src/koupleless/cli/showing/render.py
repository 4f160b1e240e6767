"""Rendering: values of the wire as text, tables for people and JSON for programs. Pure functions; nothing prints."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from koupleless.biz import BizState
from koupleless.wire.envelope import Code, Envelope, encode, without_nulls, without_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from koupleless.wire.replies import (
        BizHealth,
        BizInfo,
        HealthData,
        Library,
        PurgeReport,
        Resident,
        StateRecord,
        Zombie,
    )

_GAP: Final = "   "
_MIB: Final = 1024 * 1024
_COLOURS: Final = {
    BizState.ACTIVATED: "32",
    BizState.DEACTIVATED: "33",
    BizState.RESOLVED: "36",
    BizState.BROKEN: "31",
}


def json_text(value: object) -> str:
    """Compact JSON on one line."""
    return encode(value).decode()


def bizs_json(bizs: Sequence[BizInfo], zombies: Sequence[Zombie] = ()) -> str:
    """The bizs in the form printed by the original client: the reply of ``queryAllBiz``, code and data only.

    Zombies, if there are any, stand beside the bizs.
    """
    if zombies:
        return json_text({"code": Code.SUCCESS, "data": list(bizs), "zombies": list(zombies)})
    return json_text(Envelope(code=Code.SUCCESS, data=list(bizs)))


def bizs_table(bizs: Sequence[BizInfo], *, is_wide: bool = False, is_coloured: bool = False) -> str:
    """One line for each biz under a line of headings; headings alone without bizs."""
    headings = ["NAME", "VERSION", "STATE", "CONTEXT-PATH", "SINCE", "REASON"]
    if is_wide:
        headings += ["ENTRY", "MESSAGE"]
    rows = []
    for biz in bizs:
        last = biz.biz_state_records[-1] if biz.biz_state_records else None
        row = [biz.biz_name, biz.biz_version, biz.biz_state.value, biz.web_context_path]
        row += [_since(last, is_wide=is_wide), last.reason.value if last else "-"]
        if is_wide:
            row += [biz.main_class or "-", _last_line(last.message) if last else "-"]
        rows.append(row)
    paint = {index: _COLOURS.get(biz.biz_state, "") for index, biz in enumerate(bizs)} if is_coloured else {}
    return table(headings, rows, paint=(2, paint))


def biz_details(biz: BizInfo, *, is_coloured: bool = False) -> str:
    """All members of one biz in the reply of ``queryAllBiz``, state records included."""
    state = biz.biz_state.value
    if is_coloured:
        state = _painted(state, _COLOURS.get(biz.biz_state, ""))
    lines = [
        f"{biz.identity}",
        f"  state         {state}",
        f"  context path  {biz.web_context_path}",
        f"  entry         {biz.main_class or '-'}",
        "  records",
    ]
    for record in biz.biz_state_records:
        lines.append(f"    {_timestamp(record)}  {record.state.value:<11}  {record.reason.value}")
        lines += [f"      {line}" for line in record.message.splitlines()]
    if biz.libraries:
        lines += ["  libraries", *(f"    {line}" for line in libraries_table(biz.libraries).splitlines())]
    return "\n".join(lines)


def libraries_table(libraries: Sequence[Library]) -> str:
    """One line for each library of a module: how held, and why."""
    rows = [[one.name, one.version, one.held, one.reason] for one in libraries]
    return table(["LIBRARY", "VERSION", "HELD AS", "WHY"], rows)


def health_text(health: HealthData, *, is_wide: bool = False) -> str:
    """The health of a base: the process in words, then the bizs. With ``is_wide``, all figures sent by the base."""
    lines: list[str] = []
    if health.master_biz_info is not None:
        lines.append(f"base     {_health_line(health.master_biz_info)}")
    lines += _process_lines(health.jvm or {})
    lines += _processor_lines(health.cpu or {})
    parts = ["\n".join(lines)] if lines else []
    for name in ("cpu", "jvm") if is_wide else ():
        indicator: Mapping[str, object] | None = getattr(health, name)
        if indicator:
            width = max(len(key) for key in indicator)
            parts.append("\n".join([name, *(f"  {key:<{width}}  {_plain(value)}" for key, value in indicator.items())]))
    bizs = list(health.biz_list_info or []) + ([health.biz_info] if health.biz_info else [])
    bizs = [biz for biz in bizs if biz != health.master_biz_info]
    if bizs:
        rows = [[biz.biz_name, biz.biz_version, biz.biz_state.value, biz.web_context_path or "-"] for biz in bizs]
        parts.append(table(["NAME", "VERSION", "STATE", "CONTEXT-PATH"], rows))
    if health.zombies:
        parts.append(zombies_table(health.zombies))
    if health.residents and is_wide:
        parts.append(residents_table(health.residents))
    return "\n\n".join(parts)


def zombies_table(zombies: Sequence[Zombie]) -> str:
    """One line for each zombie: the removed biz, the surviving object, the size if known, and the holders."""
    rows = [
        [
            zombie.biz,
            zombie.name,
            _clock(zombie.since),
            "-" if zombie.size_bytes is None else f"{zombie.size_bytes:,} bytes",
            " -> ".join(zombie.holders) or "unknown",
        ]
        for zombie in zombies
    ]
    return table(["REMOVED", "STILL ALIVE", "SINCE", "SIZE", "HELD BY"], rows)


def base_details(health: HealthData) -> str:
    """The state of a base, the libraries brought in by modules, and the zombies of removed modules."""
    parts = []
    if health.master_biz_info is not None:
        parts.append(_health_line(health.master_biz_info))
    if health.residents:
        whole = sum(one.size_bytes for one in health.residents)
        parts.append(f"libraries that modules brought along, {megabytes(whole)}\n{residents_table(health.residents)}")
    if health.zombies:
        parts.append(zombies_table(health.zombies))
    return "\n\n".join(parts)


def residents_table(residents: Sequence[Resident]) -> str:
    """One line for each library brought into a base by modules: version, size, Python modules, and users."""
    rows = [
        [one.name, one.version or "-", megabytes(one.size_bytes), f"{one.modules:,}", ", ".join(one.users) or "-"]
        for one in residents
    ]
    return table(["LIBRARY", "VERSION", "SIZE", "PYTHON MODULES", "USED BY"], rows)


def left_behind(purge: PurgeReport | None) -> str:
    """``; nothing left behind; stays for the next user: numpy 2.3.5, 31 MB`` and so on; empty without a report."""
    return "" if purge is None else f"; {purge.left}{_ended(purge)}{_staying(purge)}"


def _ended(purge: PurgeReport) -> str:
    if not purge.ended:
        return ""
    more = f" and {len(purge.ended) - _TOLD} more" if len(purge.ended) > _TOLD else ""
    return f"; did not end by itself: {', '.join(purge.ended[:_TOLD])}{more}"


_TOLD: Final = 3
"""The number of names shown in one line."""


def _staying(purge: PurgeReport) -> str:
    if not purge.stays:
        return ""
    large = [one for one in purge.stays if one.size_bytes >= _WORTH_NAMING] or list(purge.stays)
    said = [f"{one.name} {one.version}".strip() + f", {megabytes(one.size_bytes)}" for one in large]
    if rest := purge.stays[len(large) :]:
        said.append(f"{len(rest)} smaller, {megabytes(sum(one.size_bytes for one in rest))}")
    return f"; stays for the next user: {'; '.join(said)}"


_WORTH_NAMING: Final = 1_000_000


def megabytes(count: float) -> str:
    """A number of bytes in MB (1,000,000 bytes)."""
    amount = count / 1e6
    return f"{amount:.0f} MB" if amount >= 10 else f"{amount:.1f} MB"  # noqa: PLR2004


def _process_lines(figures: Mapping[str, object]) -> list[str]:
    """Lines with runtime, age and memory of the process. The keys were made for Java processes."""
    lines = []
    if "java version" in figures:
        lines.append(f"runtime  {figures['java version']} in {figures.get('java home', '?')}")
    if (seconds := _number(figures, "run time(s)")) is not None:
        lines.append(f"uptime   {_duration(seconds)}")
    used, free, whole = (_number(figures, key) for key in ("used heap memory(M)", "free memory(M)", "max memory(M)"))
    memory = [] if used is None else [f"{used:,.0f} MB in use"]
    if free is not None and whole is not None:
        memory.append(f"{free:,.0f} of {whole:,.0f} MB free")
    return [*lines, f"memory   {', '.join(memory)}"] if memory else lines


def _processor_lines(figures: Mapping[str, object]) -> list[str]:
    parts = []
    if (used := _number(figures, "total used (%)")) is not None:
        shares = [
            f"{share:.0f} % {name}"
            for name in ("user", "system")
            if (share := _number(figures, f"{name} used (%)")) is not None
        ]
        parts.append(f"{used:.0f} % used" + (f" ({', '.join(shares)})" if shares else ""))
    if "count" in figures:
        parts.append(f"{figures['count']} x {figures.get('type', 'processor')}")
    return [f"cpu      {' of '.join(parts)}"] if parts else []


def _number(figures: Mapping[str, object], key: str) -> float | None:
    value = figures.get(key)
    return float(value) if isinstance(value, int | float) else None


def _plain(value: object) -> object:
    return f"{value:.1f}" if isinstance(value, float) else value


def _duration(seconds: float) -> str:
    """A duration in the two largest units: ``2 d 3 h``."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if left >= length or (unit == "s" and not parts):
            parts.append(f"{left // length} {unit}")
            left %= length
    return " ".join(parts[:2])


def as_curl(address: str, command: str, body: Mapping[str, Any], *, has_token: bool) -> str:
    """The shell command to repeat a call. The token stays in the variable ``ARKCTL_TOKEN``; values are hidden."""
    import shlex  # noqa: PLC0415 - for few commands

    words = ["curl", "-X", "POST", "-H", "Content-Type: application/json"]
    token = ' -H "Authorization: Bearer $ARKCTL_TOKEN"' if has_token else ""
    tail = ["-d", encode(without_nulls(without_values(body))).decode(), f"{address}/{command}"]
    return f"{shlex.join(words)}{token} {shlex.join(tail)}"


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, paint: tuple[int, Mapping[int, str]] = (0, {})
) -> str:
    """Rows in columns as wide as the content. ``paint``: the number of one column, and row -> colour."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    column, colours = paint
    texts = []
    for index, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if colour := colours.get(index - 1, ""):
            cells[column] = _painted(cells[column], colour)
        texts.append(_GAP.join(cells).rstrip())
    return "\n".join(texts)


def mebibytes(count: float) -> str:
    """A number of bytes in MiB, or in KiB below one MiB."""
    amount = count / _MIB
    return f"{amount:.1f} MiB" if abs(amount) >= 1 else f"{count / 1024:.0f} KiB"


def _painted(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def _health_line(biz: BizHealth) -> str:
    return f"{biz.biz_name}:{biz.biz_version}  {biz.biz_state.value}"


def _timestamp(record: StateRecord) -> str:
    return _clock(record.change_time)


def _clock(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(milliseconds / 1000))


def _since(record: StateRecord | None, *, is_wide: bool) -> str:
    if record is None:
        return "-"
    if is_wide:
        return _timestamp(record)
    seconds = max(0, int(time.time() - record.change_time / 1000))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _last_line(text: str) -> str:
    """The last line of a message or traceback, which names the error."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "-"

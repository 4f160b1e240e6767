"""Draw what ``bench/cycles.py`` measured: ``python bench/plot.py`` makes ``docs/cycles-<module>.svg`` of each result.

Memory, objects and time of a cycle over the cycles. Plain text, so that nothing has to be installed for it.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from harness import RESULTS, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES: Final = {
    "fastapi": "cycles",
    "flask": "cycles-flask",
    "sqlalchemy": "cycles-sqlalchemy",
    "django": "cycles-django",
}
TITLES: Final = {
    "fastapi": "the small FastAPI module",
    "flask": "the Flask module",
    "sqlalchemy": "the SQLAlchemy module",
    "django": "a Django project with a private Django",
}
POINTS: Final = 250
WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 640, 130, 70, 12, 34, 46

Point: TypeAlias = tuple[float, float]


def thinned(values: Sequence[float]) -> list[Point]:
    """At most `POINTS` points, each the median of as many cycles."""
    each = max(1, -(-len(values) // POINTS))
    return [
        (start + (len(values[start : start + each]) - 1) / 2, statistics.median(values[start : start + each]))
        for start in range(0, len(values), each)
    ]


def panel(title: str, points: Sequence[Point], *, cycles: int, top: float) -> list[str]:
    """A frame with a line in it; the scale starts at zero, so that what grows can be told from what trembles."""
    highest = max(value for _, value in points) * 1.1
    bottom, right = top + HEIGHT, WIDTH - RIGHT

    def place(x: float, y: float) -> str:
        across = LEFT + x / max(1, cycles - 1) * (right - LEFT)
        return f"{across:.1f},{bottom - y / highest * HEIGHT:.1f}"

    lines = [
        f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{title}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{right - LEFT}" height="{HEIGHT}" fill="none" stroke="#999"/>',
    ]
    for part in (0, 0.5, 1):
        y = bottom - part * HEIGHT
        value = highest * part
        text = f"{value:,.0f}" if highest >= 20 else f"{value:.1f}"
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>')
        if part == 0.5:
            lines.append(f'<line x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}" stroke="#ddd"/>')
    for part in (0, 0.5, 1):
        x = LEFT + part * (right - LEFT)
        lines.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{round(cycles * part):,}</text>')
    drawn = " ".join(place(x, y) for x, y in points)
    lines.append(f'<polyline points="{drawn}" fill="none" stroke="#1f6fb2" stroke-width="1.4"/>')
    return lines


def draw(module: str, result: dict[str, Any]) -> str:
    """The whole picture."""
    cycles = result["cycles"]
    panels = (
        ("resident memory, MB", thinned(result["memory_mb"])),
        ("objects the collector knows", [(number, count) for number, count in result["objects"]]),
        ("time of a cycle (install and uninstall), ms", thinned(result["cycle_ms"])),
    )
    height = TOP + len(panels) * (HEIGHT + GAP)
    title = f"{cycles:,} cycles of {TITLES[module]}"
    font = 'font-family="sans-serif" font-size="11"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {font}>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="14" text-anchor="middle" font-size="13">{title}</text>',
    ]
    for number, (title, points) in enumerate(panels):
        lines += panel(title, points, cycles=cycles, top=TOP + number * (HEIGHT + GAP) + 8)
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    """Draw every result that is there; ends with 1 if there is none."""
    found = False
    for module, name in NAMES.items():
        result = RESULTS / f"{name}.json"
        if result.is_file():
            picture = ROOT / "docs" / f"cycles-{module}.svg"
            picture.write_text(draw(module, json.loads(result.read_text(encoding="utf-8"))), encoding="utf-8")
            print(picture.relative_to(ROOT))
            found = True
    sys.exit(0 if found else 1)


if __name__ == "__main__":
    main()

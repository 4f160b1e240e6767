"""The display of the demonstration: steps with their findings."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Step:
    """One running step."""

    tell: Callable[[str], object]
    """Show one finding of the step."""
    advance: Callable[[], object]
    """Move the bar of the step on by one."""


class Screen:
    """Steps with their findings: a live display on a terminal where rich is installed, plain lines elsewhere."""

    def __init__(self) -> None:
        is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._is_live = is_terminal and find_spec("rich") is not None

    @contextlib.contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Step]:
        """Show one step while the context lasts."""
        if not self._is_live:
            print(title, flush=True)
            yield Step(lambda text: print(f"    {text}", flush=True), lambda: None)
            return
        from rich import console as rich_console  # noqa: PLC0415 - loaded where something is drawn
        from rich import progress as bars  # noqa: PLC0415

        console = rich_console.Console(highlight=False)
        bar = [bars.BarColumn(), bars.MofNCompleteColumn()] if total is not None else []
        findings: list[str] = []
        mark = "[red]✗[/red]"
        try:
            columns = (bars.SpinnerColumn(), bars.TextColumn("{task.description}"), *bar, bars.TimeElapsedColumn())
            with bars.Progress(*columns, console=console, transient=True) as progress:
                task = progress.add_task(title, total=total)
                yield Step(findings.append, lambda: progress.advance(task))
            mark = "[green]✓[/green]"
        finally:
            console.print(f"{mark} [bold]{title}[/bold]")
            for finding in findings:
                console.print(f"    {finding}", markup=False)

"""Printing: lines, tables, progress. Plain where nobody watches: no colours, no bars, nothing cut."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from featherweight.cli.text import Column, clean, plain

__all__ = ["complain", "print_json", "print_table", "progress", "say", "ticking"]

LEAST, LEAST_FOLDED = 12, 20  # characters of a cell that is cut, and of the lines of one that is folded
_STYLES = {"": "", "bold": "1", "dim": "2"}


def say(text: str = "", style: str = "") -> None:
    """Print a line of results; `style` is for terminals."""
    print(_styled(text, style))


def _styled(text: str, style: str) -> str:
    styled = _STYLES[style] and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if styled else text


def complain(text: str) -> None:
    """Print a line of trouble."""
    print(f"featherweight: {clean(text)}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print what a program is to read."""
    print(json.dumps(value, indent=2))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: cut, folded and of fewer columns on a narrow terminal, as wide as it is where there is none."""
    if not sys.stdout.isatty():
        print(plain(columns, rows))
        return
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
        made = Table(box=box.SIMPLE_HEAD, header_style="bold", border_style="dim", pad_edge=False, show_edge=False)
        for column in columns:
            side: Any = "right" if column.right else "left"
            made.add_column(column.title, justify=side, overflow="fold", no_wrap=not column.fold)
        for row in rows:
            made.add_row(*map(Text, row))
        return made

    def excess(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
        made = table(columns, rows)
        return Measurement.get(console, console.options.update_width(1 << 20), made).maximum - console.width

    console, left_out = Console(highlight=False), list[str]()
    while excess(columns, [list(map(_narrow, columns, row)) for row in rows]) > 0:
        out = max(range(len(columns)), key=lambda number: columns[number].spare)
        if not columns[out].spare:
            break
        left_out.append(columns[out].title)
        columns, *rows = ([*row[:out], *row[out + 1 :]] for row in (columns, *rows))  # type: ignore[assignment]
    cut = next((number for number, column in enumerate(columns) if column.cut), None)
    over = excess(columns, rows)
    if over > 0 and rows and cut is not None:
        most = max(len(columns[cut].title), LEAST, max(len(row[cut]) for row in rows) - over)
        rows = [[_cut(cell, most) if n == cut else cell for n, cell in enumerate(row)] for row in rows]
    console.print(table(columns, rows))
    if left_out:
        say(f"Left out, since the terminal is narrow: {', '.join(left_out)}.", "dim")


def _narrow(column: Column, cell: str) -> str:
    """Return what a cell is at the narrowest."""
    return cell[:LEAST] if column.cut else cell[:LEAST_FOLDED] if column.fold else cell


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


@contextlib.contextmanager
def progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[str, int], object]]:
    """Show a bar while the block works, where stderr is a terminal; gives what is to be told of it."""
    if quiet or not sys.stderr.isatty():
        yield lambda _name, _size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.theme import Theme

    calm = dict.fromkeys(("bar.complete", "bar.finished", "bar.pulse", "progress.download"), "default")
    calm |= dict.fromkeys(("progress.data.speed", "progress.remaining", "bar.back"), "dim")
    console = Console(stderr=True, theme=Theme(calm))
    numbers = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), BarColumn(), *numbers, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda _name, size: bar.advance(task, size)


@contextlib.contextmanager
def ticking(what: str, *, quiet: bool = False) -> Iterator[Callable[[str], object]]:
    """Show what is under way, where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _name: None
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(what) as status:
        yield lambda name: status.update(f"{what} {name}")

"""Output of rows: as tables that fit the terminal, or as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from rich.table import Table

NARROW_COLUMNS = 130  # below this width some cells are stacked
PIPED_COLUMNS = 10_000  # wide enough to print each row on one line
UUID_CHARS = 36

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    below: how many of the next columns are stacked below this one in a narrow terminal.
    whole: never wrap a cell.
    least: minimum width in characters.
    most: maximum width in a narrow terminal.
    """

    title: str
    justify: Literal["left", "right"] = "left"
    below: int = 0
    whole: bool = True
    least: int | None = None
    most: int | None = None


def print_json(answer: Any) -> None:
    """Prints dataclasses as objects, and times as ISO 8601 in UTC."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=PIPED_COLUMNS if piped else None, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(table_of(columns, rows, console.width))
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def print_limit(rows: Sequence[object], limit: int) -> None:
    """Prints a note if the limit may have cut off rows."""
    if len(rows) == limit:
        click.echo(f"Only the first {limit} are shown.")


def duration(seconds: float | None) -> str:
    """Formats a duration with at most two units; None is a dash."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR:02} h"


def moment(time: datetime | None) -> str:
    """Formats a time in UTC, to the second; None is a dash."""
    return "-" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def one_line(text: str) -> str:
    """Makes text from users safe for a terminal, on one line."""
    from ..logs import printable

    return printable(" ".join(text.split()))


def table_of(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Table:
    """Returns a table for a terminal of so many columns."""
    from rich.table import Table
    from rich.text import Text

    narrow = width < NARROW_COLUMNS
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    groups = _groups(columns) if narrow else [[index] for index in range(len(columns))]
    for group in groups:
        first = columns[group[0]]
        whole = all(columns[index].whole for index in group)
        title = "\n".join(_stacked([columns[index].title for index in group]))
        most = first.most if narrow else None
        table.add_column(
            title, justify=first.justify, no_wrap=whole, overflow="fold", min_width=first.least, max_width=most
        )
    for row in rows:
        table.add_row(*(Text("\n".join(_stacked([row[index] for index in group]))) for group in groups))
    return table


def _groups(columns: Sequence[Column]) -> list[list[int]]:
    """Groups the indices of columns that are stacked."""
    groups: list[list[int]] = []
    following = 0
    for index, column in enumerate(columns):
        if following:
            groups[-1].append(index)
            following -= 1
        else:
            groups.append([index])
            following = column.below
    return groups


def _stacked(cells: Sequence[str]) -> list[str]:
    return [cells[0], *(f"  {cell}" for cell in cells[1:])]

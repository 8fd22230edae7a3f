"""Rows for people, as tables that fit the terminal, or for machines, as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NARROW_COLUMNS = 130  # below this width some cells stand above one another
PIPED_COLUMNS = 10_000  # a row is a line
UUID_CHARS = 36

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    below: the number of columns that follow and stand below this one where it is narrow.
    whole: whether a cell is never broken into lines. least: characters it gets. most: where it is narrow.
    """

    title: str
    justify: Literal["left", "right"] = "left"
    below: int = 0
    whole: bool = True
    least: int | None = None
    most: int | None = None


def print_json(answer: Any) -> None:
    """Dataclasses as objects; times in ISO 8601, UTC."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=PIPED_COLUMNS if piped else None, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(_table(columns, rows, console))
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def print_limit(rows: Sequence[object], limit: int) -> None:
    """Says so where there may be more."""
    if len(rows) == limit:
        click.echo(f"Only the first {limit} are shown.")


def duration(seconds: float | None) -> str:
    """Two units at most; a dash for None."""
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
    """In UTC, to the second; a dash for None."""
    return "-" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def one_line(text: str) -> str:
    """Text of others, safe for a terminal."""
    from ..logs import printable

    return printable(" ".join(text.split()))


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]], console: Console) -> Table:
    from rich.table import Table
    from rich.text import Text

    narrow = console.width < NARROW_COLUMNS
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
    """The columns' indices, those that stand above one another together."""
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

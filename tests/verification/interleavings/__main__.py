"""`scripts/simulate --interleavings`: see `--help`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from lastcall import logs
from lastcall.embedded import postgres as embedded
from rich.console import Console

from tests.support import command_line
from tests.support.command_line import EXIT_BROKEN, command, conclude, folder, json_option

from .database import Source, run
from .orders import Orders, explore
from .overlap_lane import Overlap, Overlaps
from .overlaps import explore_overlaps
from .replay import again, parse
from .report import figures, say, show

SECONDS_MAX = 86_400
LENGTH_MAX = 1_000
COMPARED = 0.05  # share of the merged states


def parse_only(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Overlap | list[str] | None:
    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@command("scripts/simulate --interleavings")
@click.option(
    "--length",
    type=click.IntRange(1, LENGTH_MAX),
    help="Statements in the longest orders; default: all.",
)
@click.option(
    "--seconds", type=click.FloatRange(1, SECONDS_MAX), default=600, show_default=True, help="Stop after this time."
)
@json_option
@click.option(
    "--only",
    callback=parse_only,
    metavar="ORDER",
    help="Replay one order of a failure, step by step.",
)
def interleavings(*, as_json: bool, only: Overlap | list[str] | None, **options: Any) -> int:
    """Plays all orders of the lifecycle's statements on one session, and all pairs of them at the same moment, with the
    real schema in a real PostgreSQL.

    Exits with 0 if every promise held, with 1 if not, and with 2 on wrong usage.
    """
    logs.configure(json_logs=False, level="error")
    console = Console(stderr=as_json)
    with cluster(console) as url:
        if only is not None:
            return repeat(url, only, console)
        result = run(everything(url, console, **options))
    if as_json:
        say(result, console)  # on stderr, beside the figures
    return conclude(result, say, console)


@contextmanager
def cluster(console: Console) -> Iterator[str]:
    """Runs a PostgreSQL of our own; its URL."""
    with folder("lastcall-interleavings-", console) as directory:
        try:
            yield embedded.start(directory)
        finally:
            embedded.stop(directory)


async def everything(url: str, console: Console, *, length: int | None, seconds: float) -> dict[str, Any]:
    """A whole run. Returns its figures."""
    until = time.monotonic() + seconds
    orders, overlaps = Orders(), Overlaps()
    display = asyncio.ensure_future(show(console, orders, overlaps))
    try:
        await explore(url, Source(), length=length, until=until, compare=COMPARED, found=orders)
        await explore_overlaps(url, Source(), until=until, with_triples=True, found=overlaps)
    finally:
        display.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await display
    return figures(orders, overlaps)


def repeat(url: str, only: Overlap | list[str], console: Console) -> int:
    """Replays one order, step by step. Returns the exit code."""

    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    failures = run(again(url, Source(), only, tell))
    for failure in failures:
        for line in failure.broken:
            tell(f"BROKEN  {line}")
    tell("PROMISES WERE BROKEN" if failures else "every promise held")
    return EXIT_BROKEN if failures else 0


if __name__ == "__main__":
    sys.exit(command_line.run(interleavings, embedded.EmbeddedError))

"""`scripts/partitions`: see `--help`."""

from __future__ import annotations

import asyncio
import statistics
import sys
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import click
from lastcall.embedded import postgres
from lastcall.store.queries import SCHEMA
from rich.console import Console
from rich.table import Table

from tests.support.command_line import command, conclude, folder, json_option, run
from tests.support.databases import new_database

from .filling import fill, users_of
from .measuring import measure, sizes

FORMS = (0, 1, 4, 16)
MESSAGES_MIN, MESSAGES_MAX = 10_000, 100_000_000
STEPS = ("begin", "turn", "resume", "end")


@command("scripts/partitions")
@click.option(
    "--partitions", "forms", type=click.IntRange(0, 1024), multiple=True, default=FORMS, show_default=True,
    help="A form to measure; 0: no partitions; may be repeated.",
)  # fmt: skip
@click.option(
    "--messages", type=click.IntRange(MESSAGES_MIN, MESSAGES_MAX), default=MESSAGES_MIN, show_default=True,
    help="That are there before; 10 million take 6 GB of disk and some minutes for each form.",
)  # fmt: skip
@click.option("--sessions", type=click.IntRange(20, 100_000), default=2000, show_default=True, help="To measure.")
@click.option("--turns", type=click.IntRange(1, 1000), default=2, show_default=True, help="In each of them.")
@click.option("--batch", type=click.IntRange(1, 400), default=20, show_default=True, help="Sessions in a commit.")
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True, help="Alternated rounds.")
@json_option
def partitions(*, as_json: bool, forms: tuple[int, ...], messages: int, rounds: int, **options: int) -> int:
    """Measures what PostgreSQL takes for a turn, for a session and for its log, with the large tables whole and
    partitioned by user.

    \b
    Exit codes:
      0  it was measured
      2  wrong usage
    """
    console = Console(stderr=as_json)
    with folder("lastcall-partitions-", console) as directory:
        url = postgres.start(directory)
        try:
            found = asyncio.run(_measure_all(url, forms, messages, rounds, options, console))
        finally:
            postgres.stop(directory)
    result = {"ok": True, "messages": messages, "rounds": rounds, **options, "forms": found}
    return conclude(result, _say, console)


async def _measure_all(
    url: str, forms: tuple[int, ...], messages: int, rounds: int, options: dict[str, int], console: Console
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        connections = {}
        for form in forms:
            database = stack.enter_context(new_database(url))
            connections[form] = await _filled(database, form, messages, console)
            stack.push_async_callback(connections[form].close)
            found[str(form)] = {**await sizes(connections[form], messages), "samples": []}
        for number in range(1, rounds + 1):
            for form, connection in connections.items():
                sample = await measure(connection, users_of(messages), **options)
                found[str(form)]["samples"].append(sample)
                console.print(f"round {number}: {form} partitions", highlight=False)
    return found


async def _filled(url: str, form: int, messages: int, console: Console) -> Any:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT set_config('lastcall.partitions', $1, false)", str(form))
    await connection.execute(SCHEMA)
    await connection.execute("SET search_path TO public")
    await fill(connection, messages)
    console.print(f"{messages:,} messages in {form} partitions", highlight=False)
    return connection


def _say(result: dict[str, Any], console: Console) -> None:
    table = Table("partitions", *STEPS, "log of a turn, of a session", "a message: table, indexes")
    for form, found in result["forms"].items():
        cost = {name: _median(found["samples"], name, "cpu_us") for name in STEPS}
        logged = {name: _median(found["samples"], name, "wal_bytes") for name in STEPS}
        table.add_row(
            form,
            *(f"{cost[name]:.0f} us" for name in STEPS),
            f"{logged['turn']:.0f} B, {logged['begin'] + logged['end']:.0f} B",
            f"{found['table_bytes']:.0f} B, {found['index_bytes']:.0f} B",
        )
    console.print(table)


def _median(samples: list[dict[str, Any]], step: str, name: str) -> float:
    return float(statistics.median(each[step][name] for each in samples))


if __name__ == "__main__":
    sys.exit(run(partitions))

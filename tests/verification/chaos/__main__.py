"""`scripts/chaos`: see `--help`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import click
import trio
from lastcall.store.postgres import open_store
from rich.console import Console

from tests.support.command_line import SEED_MAX, command, conclude, folder, json_option, run

from .audit import Audit, Findings
from .faults import Run
from .plan import FAULTS, Pace
from .processes import Database, Failed, Server
from .records import install, read
from .report import Display, figures, say
from .run import conduct, free_ports

SECONDS_MAX = 86_400
SERVERS_MAX = 16
CLIENTS_MAX = 2_000


def parse_only(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    names = [name.strip() for name in value.split(",")] if value is not None else list(FAULTS)
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise click.BadParameter(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    return names


@command("scripts/chaos")
@click.option("--seconds", type=click.FloatRange(1, SECONDS_MAX), default=60, show_default=True, help="Of trouble.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Repeats a schedule; default: a random one.")
@click.option("--servers", type=click.IntRange(1, SERVERS_MAX), default=2, show_default=True, help="At once.")
@click.option("--clients", type=click.IntRange(1, CLIENTS_MAX), default=160, show_default=True, help="At once.")
@json_option
@click.option("--keep", is_flag=True, help="Keep the database and the logs, and say where.")
@click.option("--only", callback=parse_only, metavar="FAULT[,FAULT]", help="Only these faults.")
def chaos(*, as_json: bool, keep: bool, **options: Any) -> int:
    """Real servers, a real PostgreSQL and real clients under a seeded schedule of faults; then an audit of the database
    against what the clients saw. Exits with 0 only if every promise held."""
    if options["seed"] is None:
        options["seed"] = SystemRandom().randrange(SEED_MAX)
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)  # it reports each outage, and those are ours
    console = Console(stderr=as_json)
    console.print(f"seed {options['seed']}", highlight=False)
    with folder("lastcall-chaos-", console, keep=keep) as directory:
        result = trio.run(run_all, directory, console, options)
    return conclude(result, say, console)


async def run_all(directory: Path, console: Console, options: dict[str, Any]) -> dict[str, Any]:
    """One run with its own PostgreSQL; its figures."""
    pace = Pace(seconds=options["seconds"])
    database = Database(directory)
    try:
        await trio.to_thread.run_sync(database.start)
        run, findings = await run_on(database, directory, console, pace, options)
        return figures(run, findings)
    finally:
        with trio.CancelScope(shield=True):  # bounded by pg_ctl's own time limit
            await trio.to_thread.run_sync(database.stop)


async def run_on(
    database: Database, directory: Path, console: Console, pace: Pace, options: dict[str, Any]
) -> tuple[Run, Findings]:
    async with open_store(database.url) as store:
        await install(store)
        servers = [Server(port, database.url, pace, directory) for port in free_ports(options["servers"])]
        run = Run(
            pace, options["seed"], options["only"], options["clients"], database, store, servers, directory,
            random=Random(options["seed"]),
        )  # fmt: skip
        display = Display(console, pace.seconds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(display.show, run)
            await conduct(run, display.phase)
            display.phase("auditing")
            records = await read(store)
            nursery.cancel_scope.cancel()
        return run, Audit(run.ledger, records, run.samples, run.looks, pace).run()


if __name__ == "__main__":
    sys.exit(run(chaos, Failed))

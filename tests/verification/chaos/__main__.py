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

from ..starvation import Failed, timeouts_judged
from .audit import Audit
from .faults import ChaosRun
from .findings import Findings
from .plan import FAULTS, Pace
from .processes import Database, Server
from .records import install, read
from .report import Display, figures, say
from .run import cause_chaos, free_ports

SECONDS_MAX = 86_400
SERVERS_MAX = 16
CLIENTS_MAX = 2_000


def parse_only(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    names = [name.strip() for name in value.split(",")] if value is not None else list(FAULTS)
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise click.BadParameter(f"unknown fault {unknown[0]!r}; choose from {', '.join(FAULTS)}")
    return names


@command("scripts/chaos")
@click.option("--seconds", type=click.FloatRange(1, SECONDS_MAX), default=60, show_default=True, help="Of faults.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Repeat a schedule of faults; default: a random one.")
@click.option("--servers", type=click.IntRange(1, SERVERS_MAX), default=2, show_default=True, help="Server processes.")
@click.option("--clients", type=click.IntRange(1, CLIENTS_MAX), default=160, show_default=True, help="At a time.")
@json_option
@click.option("--keep", is_flag=True, help="Keep the database and the logs, and print where they are.")
@click.option("--only", callback=parse_only, metavar="FAULT[,FAULT]", help="Cause only these faults.")
def chaos(*, as_json: bool, keep: bool, **options: Any) -> int:
    """Runs real servers, a real PostgreSQL and real clients under a seeded schedule of faults, then compares the
    database with what the clients saw.

    \b
    Exit codes:
      0  every promise held
      1  a promise was broken, or the run failed
      2  wrong usage
      3  the machine was too busy to judge: bounds in time were missed, by no more than the
         time that the clients, the servers or PostgreSQL waited for a processor
    """
    if options["seed"] is None:
        options["seed"] = SystemRandom().randrange(SEED_MAX)
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)  # it logs each outage, and the outages are intended
    console = Console(stderr=as_json)
    console.print(f"seed {options['seed']}", highlight=False)
    with folder("lastcall-chaos-", console, keep=keep) as directory:
        result = trio.run(run_all, directory, console, options)
    return conclude(result, say, console)


async def run_all(directory: Path, console: Console, options: dict[str, Any]) -> dict[str, Any]:
    """Runs once with its own PostgreSQL. Returns the figures."""
    pace = Pace(seconds=options["seconds"])
    database = Database(directory)
    try:
        await trio.to_thread.run_sync(database.start)
        run, findings = await run_on(database, directory, console, pace, options)
        return figures(run, findings)
    finally:
        with trio.CancelScope(shield=True):  # bounded by pg_ctl's own timeout
            await trio.to_thread.run_sync(database.stop)


async def run_on(
    database: Database, directory: Path, console: Console, pace: Pace, options: dict[str, Any]
) -> tuple[ChaosRun, Findings]:
    async with open_store(database.url) as store:
        await install(store)
        servers = [Server(port, database.url, pace, directory) for port in free_ports(options["servers"])]
        run = ChaosRun(
            pace, options["seed"], options["only"], options["clients"], database, store, servers, directory,
            random=Random(options["seed"]),
        )  # fmt: skip
        display = Display(console, pace.seconds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(display.show, run)
            with timeouts_judged(run.ledger.starvation):
                await cause_chaos(run, display.phase)
            display.phase("auditing")
            records = await read(store)
            nursery.cancel_scope.cancel()
        return run, Audit(run.ledger, records, run.samples, run.listings, pace).run()


if __name__ == "__main__":
    sys.exit(run(chaos, Failed))

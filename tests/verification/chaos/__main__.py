"""`scripts/chaos`: see `--help`."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import click
import trio
from lastcall.store.postgres import open_store
from lastcall.webhooks.adding import add_webhook
from rich.console import Console

from tests.support.command_line import SEED_MAX, command, conclude, folder, json_option, run

from ..starvation import Failed, timeouts_judged
from .audit import Audit
from .audit_webhooks import WebhookAudit
from .clock import SettableClock, faketime, remove_leftovers
from .database import Database
from .faults.chaos_run import ChaosRun
from .findings import Findings
from .links import Links, open_links
from .places import HERE, REMOTE, left_out, link_names, places
from .plan import FAULTS, Pace
from .receipts import open_receiver
from .records import Clock, install, read
from .report import Display, figures, say
from .run import OPERATOR, cause_chaos, free_ports
from .server import Server

SECONDS_MAX = 86_400
SERVERS_MAX = 16
CLIENTS_MAX = 2_000
CLIENTS_PER_CORE = 12  # more would keep the servers from the processors, and times could not be judged
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_only(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    names = [name.strip() for name in value.split(",")] if value is not None else list(FAULTS)
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise click.BadParameter(f"unknown fault {unknown[0]!r}; choose from {', '.join(FAULTS)}")
    return names


@command("scripts/chaos")
@click.option("--seconds", type=click.FloatRange(1, SECONDS_MAX), default=60, show_default=True, help="Of faults.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Repeat a schedule of faults; default: a random one.")
@click.option("--servers", type=click.IntRange(1, SERVERS_MAX), default=3, show_default=True, help="Server processes.")
@click.option(
    "--clients",
    type=click.IntRange(1, CLIENTS_MAX),
    default=min(CLIENTS_PER_CORE * CORES, CLIENTS_MAX),
    show_default=f"{CLIENTS_PER_CORE} per core",
    help="At a time.",
)
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
    without = left_out(places(options["servers"], pace), pace)
    without = {fault: reason for fault, reason in without.items() if fault in options["only"]}
    for fault, reason in without.items():
        console.print(f"left out: {fault}: {reason}", highlight=False, soft_wrap=True)
    options["only"] = [fault for fault in options["only"] if fault not in without]
    database = Database(directory, _clock("database_clock_set", directory / "clock-database", options))
    try:
        await trio.to_thread.run_sync(database.start)
        async with (
            open_store(database.url) as store,
            open_links(database.socket, directory) as links,
            open_receiver(directory) as receiver,
        ):
            await install(store)
            endpoint = await add_webhook(store, receiver.url, OPERATOR)
            servers = await _servers(links, database.url, directory, pace, options)
            middle = Clock(time.time() + pace.seconds / 2)
            run = ChaosRun(
                pace, options["seed"], options["only"], options["clients"], database, store, servers, links,
                receiver, middle,
                without, directory, random=Random(options["seed"]),
            )  # fmt: skip
            return figures(run, await _audited(run, endpoint.secret, console))
    finally:
        with trio.CancelScope(shield=True):  # bounded by pg_ctl's own timeout
            await trio.to_thread.run_sync(database.stop)
        remove_leftovers()


async def _servers(links: Links, url: str, directory: Path, pace: Pace, options: dict[str, Any]) -> list[Server]:
    """Nothing runs yet, but the links are open."""
    servers: list[Server] = []
    count = options["servers"]
    there = places(count, pace)
    two_hosts = len({place.name == REMOTE for place in there}) == 2
    for port, place in zip(free_ports(count), there, strict=True):
        ports = await links.open(link_names(port, place))
        hosts = ",".join(f"127.0.0.1:{each}" for each in ports)
        clock = None
        if place.name == HERE and not any(server.clock for server in servers):
            clock = _clock("server_clock_set", directory / f"clock-{port}", options)
        server_url = f"postgresql://postgres@{hosts}/postgres" if hosts else url
        servers.append(Server(port, place, server_url, pace, directory, clock, seen_elsewhere=two_hosts))
    return servers


def _clock(fault: str, path: Path, options: dict[str, Any]) -> SettableClock | None:
    """Only for the fault: it costs time, and changes how processes are started."""
    library = faketime()
    return SettableClock(library, path) if library is not None and fault in options["only"] else None


async def _audited(run: ChaosRun, webhook_secret: str, console: Console) -> Findings:
    """Runs, and returns what was found."""
    display = Display(console, run.pace.seconds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(display.show, run)
        with timeouts_judged(run.ledger.starvation):
            await cause_chaos(run, display.phase)
        display.phase("auditing")
        records = await read(run.store, run.clock)
        nursery.cancel_scope.cancel()
    findings = Audit(run.ledger, records, run.samples, run.listings, run.pace).run()
    WebhookAudit(records, run.receiver.receipts, webhook_secret, run.clock, findings).run()
    return findings


if __name__ == "__main__":
    sys.exit(run(chaos, Failed))

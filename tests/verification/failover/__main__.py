"""`scripts/failover`: see `--help`."""

from __future__ import annotations

import sys
from typing import Any, get_args

import click
import msgspec
from lastcall import logs
from rich.console import Console
from rich.table import Table

from tests.support.command_line import command, conclude, json_option, run
from tests.support.replication import Fault

from .play import CLIENTS, play

FAULTS = get_args(Fault)
BACK_SECONDS = 10.0


@command("scripts/failover")
@click.option("--only", type=click.Choice(FAULTS), multiple=True, help="Only this fault; may be repeated.")
@click.option("--asynchronous", is_flag=True, help="Commits do not wait for the standby: what it has not got is lost.")
@json_option
def failover(*, only: tuple[Fault, ...], asynchronous: bool, as_json: bool) -> int:
    """Stops, kills and freezes the primary of two PostgreSQL under clients that chat, promotes its standby, and looks
    what is left of what the clients were told was stored.

    \b
    Exit codes:
      0  turns work again within 10 s, and nothing acknowledged is lost (with --asynchronous: some may be)
      1  not so
      2  wrong usage
    """
    logs.configure(json_logs=False, level="warning")
    console = Console(stderr=as_json)
    outcomes = [
        play(fault, synchronous=not asynchronous, tell=lambda said: console.print(said, highlight=False))
        for fault in only or FAULTS
    ]
    ok = all(
        each.back_seconds <= BACK_SECONDS and not each.active_rows and (asynchronous or not each.lost)
        for each in outcomes
    )
    result = {"ok": ok, "clients": CLIENTS, "failovers": [msgspec.to_builtins(each) for each in outcomes]}
    return conclude(result, say, console)


def say(result: dict[str, Any], console: Console) -> None:
    """Prints the outcomes for people."""
    table = Table("the primary is", "turns again after", "acknowledged", "lost", "connections lost", "rows left active")
    for each in result["failovers"]:
        counts = [str(each[name]) for name in ("acknowledged", "lost", "disconnects", "active_rows")]
        table.add_row(
            {"stop": "stopped", "kill": "killed", "freeze": "frozen"}[each["fault"]],
            f"{each['back_seconds']:.2f} s",
            *counts,
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(run(failover))

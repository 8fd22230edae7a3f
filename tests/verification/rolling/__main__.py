"""`scripts/rolling`: see `--help`."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any, get_args

import click
import msgspec
from lastcall import logs
from rich.console import Console
from rich.table import Table

from tests.support.command_line import command, conclude, folder, json_option, run
from tests.support.deployed_proxies import NoProxy, is_installed
from tests.support.postgresql import Cluster
from tests.support.rolling import CLIENTS, CLIENTS_MAX, Way, held, play

WAYS = get_args(Way)
SAID = {
    "workers": "2 workers, by SIGHUP",
    "nginx": "2 servers behind nginx",
    "haproxy": "2 servers behind HAProxy",
}


@command("scripts/rolling")
@click.option("--only", type=click.Choice(WAYS), multiple=True, help="Only this one; may be repeated.")
@click.option("--clients", type=click.IntRange(1, CLIENTS_MAX), default=CLIENTS, show_default=True, help="That chat.")
@json_option
def rolling(*, only: tuple[Way, ...], clients: int, as_json: bool) -> int:
    """Replaces 2 workers by SIGHUP, and restarts 2 servers behind nginx and behind HAProxy one after the other, under
    clients that chat; then looks what is left of what the clients were told was stored.

    \b
    Exit codes:
      0  nothing acknowledged is lost, no connection is refused, every client has gone on in its conversation
      1  not so, or a proxy that --only names is not installed
      2  wrong usage
    Without --only, proxies that are not installed are left out, and named.
    """
    logs.configure(json_logs=False, level="warning")
    console = Console(stderr=as_json)

    def tell(said: str) -> None:
        console.print(said, highlight=False)

    left_out = [way for way in WAYS if not only and way != "workers" and not is_installed(way)]
    for way in left_out:
        tell(f"left out, because it is not installed: {way}")
    with folder("lastcall-rolling-", console) as directory:
        tell("starting PostgreSQL")
        cluster = Cluster(directory)
        try:
            outcomes = [play(way, cluster.url, clients, tell) for way in only or WAYS if way not in left_out]
        finally:
            cluster.stop()
    rolls = [msgspec.to_builtins(each) for each in outcomes]
    result = {"ok": all(map(held, outcomes)), "left_out": left_out, "rolls": rolls}
    return conclude(result, say, console)


def say(result: dict[str, Any], console: Console) -> None:
    """Prints the outcomes for people."""
    names = ("clients", "acknowledged", "lost", "refused", "clients_resumed", "told_again", "cut")
    table = Table("restarted", *(name.replace("_", " ") for name in names), "away at most", "took")
    for each in result["rolls"]:
        times = (f"{each[name]:.1f} s" for name in ("away_seconds_max", "roll_seconds"))
        counts = {**each, "refused": len(each["refused"])}
        table.add_row(SAID[each["way"]], *(str(counts[name]) for name in names), *times)
    console.print(table)
    for reason, count in Counter(why for each in result["rolls"] for why in each["refused"]).items():
        console.print(f"refused {count} times: {reason}", highlight=False)


if __name__ == "__main__":
    sys.exit(run(rolling, NoProxy))

"""`scripts/hostile`: see `--help`."""

from __future__ import annotations

import sys
from pathlib import Path
from random import SystemRandom
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import TextColumn
from rich.table import Table

from tests.support.command_line import SEED_MAX, command, conclude, folder, json_option, progress, run

from ..starvation import Failed
from .audit import figures
from .run import HostileRun, run_hostile

SECONDS_MAX = 3_600
INPUTS_MAX = 1_000_000
CLIENTS_MAX = 500
REFRESH_SECONDS = 0.5


@command("scripts/hostile")
@click.option("--seconds", type=click.FloatRange(1, SECONDS_MAX), default=300, show_default=True, help="At most.")
@click.option("--inputs", type=click.IntRange(1, INPUTS_MAX), default=10_000, show_default=True, help="Bad inputs.")
@click.option("--clients", type=click.IntRange(1, CLIENTS_MAX), default=50, show_default=True, help="Healthy clients.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Repeat the inputs; default: a random one.")
@json_option
@click.option("--keep", is_flag=True, help="Keep the database and the log, and print where they are.")
def hostile(*, as_json: bool, keep: bool, **options: Any) -> int:
    """Runs a real server with a real PostgreSQL and healthy clients, attacks it with generated bad inputs from 49
    addresses of this machine, and checks what became of the healthy clients, the server and its rows.

    \b
    Exit codes:
      0  every promise held
      1  a promise was broken, or the run failed
      2  wrong usage
      3  the machine was too busy to judge: bounds in time were missed, by no more than the
         time that the clients, the server or PostgreSQL waited for a processor
    """
    if options["seed"] is None:
        options["seed"] = SystemRandom().randrange(SEED_MAX)
    console = Console(stderr=as_json)
    console.print(f"seed {options['seed']}", highlight=False)
    with folder("lastcall-hostile-", console, keep=keep) as directory:
        result = figures(trio.run(shown, directory, console, options), options)
    return conclude(result, say, console)


async def shown(directory: Path, console: Console, options: dict[str, Any]) -> HostileRun:
    """Runs with a progress bar on a terminal, and with a line for each phase elsewhere."""
    with progress(console, TextColumn("{task.fields[counts]}")) as bar:
        task = bar.add_task("starting", total=options["inputs"], counts="")
        runs: list[HostileRun] = []

        def phase(name: str, run: HostileRun) -> None:
            runs[:] = [run]
            bar.update(task, description=name)
            if not console.is_terminal:
                console.print(name, highlight=False)

        async def refresh() -> None:
            while True:
                for run in runs:
                    sent, counts = run.tally.sent.total(), f"{len(run.tally.turns)} healthy turns"
                    bar.update(task, completed=sent, counts=f"{sent} bad inputs, {counts}")
                await trio.sleep(REFRESH_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refresh)
            run = await run_hostile(directory, options, phase)
            nursery.cancel_scope.cancel()
        return run


def say(result: dict[str, Any], console: Console) -> None:
    """Prints the result for people."""
    table = Table("what", "figure")
    for name, value in result.items():
        shown = ", ".join(f"{key}: {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), shown)
    console.print(table)
    verdict = "every promise held" if result["ok"] else f"BROKEN: {', '.join(result['findings'])}"
    if result["too_busy"]:
        verdict = f"the machine was too busy to judge: {', '.join(result['unjudged'])}"
    console.print(f"{result['inputs']} bad inputs, seed {result['seed']}: {verdict}", highlight=False)


if __name__ == "__main__":
    sys.exit(run(hostile, Failed))

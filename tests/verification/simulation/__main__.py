"""`scripts/simulate`: see `--help`."""

from __future__ import annotations

import sys
import time
from random import SystemRandom
from typing import Any

import click
from lastcall import logs
from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn

from tests.support.command_line import SEED_MAX, command, conclude, json_option, progress, run

from .processes import outcomes, processors
from .report import Total, counts_of, figures, replay, say
from .run import run_seed

SEEDS_MAX = 10_000_000


@command("scripts/simulate")
@click.option("--seeds", type=click.IntRange(1, SEEDS_MAX), default=200, show_default=True, help="Number of worlds.")
@click.option(
    "--first-seed",
    type=click.IntRange(0, SEED_MAX),
    help="Seed of the first world, others count up from it; default: random.",
)
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Run only this world.")
@click.option("--trace", is_flag=True, help="With --seed: print everything that happened, in order.")
@json_option
@click.pass_context
def simulate(
    context: click.Context, *, seeds: int, first_seed: int | None, seed: int | None, trace: bool, as_json: bool
) -> int:
    """Runs the real server in simulated worlds: many clients, virtual time, and a seeded order of tasks and faults.
    Every promise is checked at every step.

    Exits with 0 if every promise held, with 1 if not, and with 2 on wrong usage.
    """
    console = Console(stderr=as_json)
    logs.configure(json_logs=False, level="error")  # stdout's last line stays the figures
    if seed is None:
        if trace:
            raise click.UsageError("--trace needs --seed: it prints one world", context)
        first = first_seed if first_seed is not None else SystemRandom().randrange(SEED_MAX - SEEDS_MAX)
        result = run_many(first, seeds, console)
    elif context.get_parameter_source("seeds") is click.core.ParameterSource.COMMANDLINE or first_seed is not None:
        raise click.UsageError("--seed runs one world: leave out --seeds and --first-seed", context)
    else:
        result = run_one(seed, console, trace=trace)
    return conclude(result, say, console)


def run_one(seed: int, console: Console, *, trace: bool) -> dict[str, Any]:
    """Runs one world in this process. Returns its figures, with the digest of its trace."""
    total, began = Total(), time.perf_counter()
    outcome = run_seed(seed, trace=True)
    total.add(outcome)
    if trace:
        for line in outcome.trace:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return figures(total, time.perf_counter() - began, 1) | {"seed": seed, "trace_hash": outcome.digest}


def run_many(first: int, seeds: int, console: Console) -> dict[str, Any]:
    """Runs seeds from `first` on, on all processors. Returns their figures."""
    processes = min(processors(), seeds)
    console.print(f"seeds {first} to {first + seeds - 1}", highlight=False)
    total, began = Total(), time.perf_counter()
    columns = MofNCompleteColumn(), TextColumn("{task.fields[counts]}")
    with outcomes(range(first, first + seeds), processes) as found, progress(console, *columns) as shown:
        task = shown.add_task("seeds", total=seeds, counts="")
        for outcome in found:
            total.add(outcome)
            shown.update(task, completed=total.seeds, counts=counts_of(total))
            if outcome.broken:
                console.print(f"{outcome.examples[0]}\n    {replay(outcome.seed)}", highlight=False, soft_wrap=True)
    return figures(total, time.perf_counter() - began, processes) | {"first_seed": first}


if __name__ == "__main__":
    sys.exit(run(simulate))

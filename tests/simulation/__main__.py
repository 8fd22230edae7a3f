"""`scripts/simulate`: see `--help`."""

from __future__ import annotations

import signal
import sys
import time
from random import SystemRandom
from typing import Any

import click
from rich.console import Console

from server import logs

from .processes import outcomes, processors
from .report import Total, command, counts_of, figures, last_line, progress, say
from .run import run_seed

SEEDS_MAX = 10_000_000
SEED_MAX = 2**32
EXIT_BROKEN = 1
EXIT_INTERRUPTED = 130


@click.command("scripts/simulate", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", type=click.IntRange(1, SEEDS_MAX), default=200, show_default=True, help="How many worlds.")
@click.option("--first-seed", type=click.IntRange(0, SEED_MAX), help="They count up from here; default: a random one.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Only this one.")
@click.option("--trace", is_flag=True, help="With --seed: everything that happened in it, in order.")
@click.option("--json", "as_json", is_flag=True, help="Progress on stderr, and every figure in stdout's last line.")
@click.pass_context
def simulate(
    context: click.Context, *, seeds: int, first_seed: int | None, seed: int | None, trace: bool, as_json: bool
) -> int:
    """The real server in made-up worlds: many clients, virtual time, seeded order of tasks and seeded faults; every
    promise is checked at every step. Exits with 0 only if every promise held."""
    console = Console(stderr=as_json)
    logs.configure(json_logs=False, level="error")  # stdout's last line stays the figures
    # A SIGTERM ends the run as Ctrl-C does: no worker is left behind. A shell's background jobs ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    if seed is None:
        if trace:
            raise click.UsageError("--trace needs --seed: it shows one world", context)
        first = first_seed if first_seed is not None else SystemRandom().randrange(SEED_MAX - SEEDS_MAX)
        result = run_many(first, seeds, console)
    elif context.get_parameter_source("seeds") is click.core.ParameterSource.COMMANDLINE or first_seed is not None:
        raise click.UsageError("--seed is one world; leave --seeds and --first-seed out", context)
    else:
        result = run_one(seed, console, trace=trace)
    if as_json:
        click.echo(last_line(result))
    else:
        say(result, console)
    return 0 if result["ok"] else EXIT_BROKEN


def run_one(seed: int, console: Console, *, trace: bool) -> dict[str, Any]:
    """One world, in this process. Its figures, with the digest of its trace."""
    total, began = Total(), time.perf_counter()
    outcome = run_seed(seed, trace=True)
    total.add(outcome)
    if trace:
        for line in outcome.trace:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return figures(total, time.perf_counter() - began, 1) | {"seed": seed, "trace_hash": outcome.digest}


def run_many(first: int, seeds: int, console: Console) -> dict[str, Any]:
    """Seeds from `first` on, on all processors."""
    processes = min(processors(), seeds)
    console.print(f"seeds {first} to {first + seeds - 1}", highlight=False)
    total, began = Total(), time.perf_counter()
    with outcomes(range(first, first + seeds), processes) as found, progress(console) as shown:
        task = shown.add_task("", total=seeds, counts="")
        for outcome in found:
            total.add(outcome)
            shown.update(task, completed=total.seeds, counts=counts_of(total))
            if outcome.broken:
                console.print(f"{outcome.examples[0]}\n    {command(outcome.seed)}", highlight=False, soft_wrap=True)
    return figures(total, time.perf_counter() - began, processes) | {"first_seed": first}


def main() -> int:
    try:
        code = simulate.main(standalone_mode=False)
    except click.ClickException as mistake:
        sys.stderr.write(f"scripts/simulate: {mistake.format_message().rstrip('.')}. See scripts/simulate --help.\n")
        return 2
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())

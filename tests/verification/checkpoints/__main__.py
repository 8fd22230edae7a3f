"""`scripts/simulate --checkpoints`: see `--help`."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from lastcall import logs
from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn

from tests.support.command_line import SEED_MAX, command, conclude, json_option, progress, run

from ..simulation.processes import processors
from .proof import Outcome, Proof, prove, run_once
from .report import figures, replay, say
from .scenarios import SCENARIOS
from .strike import KINDS, Kind, Strike


@command("scripts/simulate --checkpoints")
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), metavar="NAME", help="Run only this scenario.")
@click.option("--at", type=click.IntRange(1), metavar="N", help="Strike only before step N, and print what happened.")
@click.option("--with", "kind", type=click.Choice(KINDS), help="With --at: the kind of strike.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), default=0, show_default=True, help="Of the order of tasks.")
@json_option
@click.pass_context
def checkpoints(
    context: click.Context, *, scenario: str | None, at: int | None, kind: Kind | None, seed: int, as_json: bool
) -> int:
    """Runs every way in which a session can end once, to count its checkpoints, and then again for each of them, with
    a cancellation, a crash, a store error, a signal or a row closed by hand exactly there.

    Exits with 0 if every promise held in every run, with 1 if not, and with 2 on wrong usage.
    """
    if (at is None) != (kind is None) or (at is not None and scenario is None):
        raise click.UsageError("--scenario, --at and --with belong together", context)
    console = Console(stderr=as_json)
    logs.configure(json_logs=False, level="error")  # stdout's last line stays the figures
    if scenario is not None and at is not None and kind is not None:
        result = strike_once(Strike(scenario, kind, at, seed), console, context)
    else:
        result = prove_all([scenario] if scenario is not None else list(SCENARIOS), seed, console)
    return conclude(result, say, console)


def strike_once(strike: Strike, console: Console, context: click.Context) -> dict[str, Any]:
    """Makes one strike in this process, and prints everything that happened. Returns the figures."""
    began, proof = time.perf_counter(), Proof(strike.seed)
    counted = run_once(strike.scenario, strike.seed)
    if strike.at > len(counted.checkpoints):
        raise click.UsageError(
            f"--at {strike.at}: {strike.scenario!r} has {len(counted.checkpoints)} checkpoints", context
        )
    outcome = run_once(strike.scenario, strike.seed, strike, trace=True)
    for line in outcome.trace:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    proof.checkpoints[strike.scenario] = len(counted.checkpoints)
    proof.planned[strike.scenario][strike.kind] += 1
    proof.add(outcome)
    return figures(proof, time.perf_counter() - began, 1)


def prove_all(names: list[str], seed: int, console: Console) -> dict[str, Any]:
    """Makes all strikes of some scenarios, on all processors. Returns the figures."""
    began, processes = time.perf_counter(), processors()
    with progress(console, MofNCompleteColumn(), TextColumn("{task.fields[broken]} broken")) as shown:
        task = shown.add_task("runs", total=None, broken=0)

        def on_outcome(proof: Proof, outcome: Outcome, total: int) -> None:
            shown.update(task, completed=proof.runs, total=total, broken=len(proof.failing))
            if outcome.broken:
                words = f"{outcome.examples[0]}\n    {replay(outcome, seed)}"
                console.print(words, highlight=False, markup=False, soft_wrap=True)

        proof = prove(names, seed=seed, processes=processes, on_outcome=on_outcome)
    return figures(proof, time.perf_counter() - began, processes)


if __name__ == "__main__":
    sys.exit(run(checkpoints))

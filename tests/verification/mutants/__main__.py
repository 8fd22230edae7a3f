"""`scripts/simulate --mutants`."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import MofNCompleteColumn

from tests.support.command_line import command, conclude, json_option, progress, run

from ..simulation.processes import processors
from .catalogue import MUTANTS
from .mutant import Mutant, MutantNotFound, mutated
from .report import figures, say
from .run import SEEDS_MAX, copies, seeds_of, try_all, try_sound

FILES = sorted({mutant.file for mutant in MUTANTS})


def run_mutants(
    console: Console, processes: int, *, chosen: Collection[Mutant] = MUTANTS, seeds_max: int = SEEDS_MAX
) -> dict[str, Any]:
    """Tries mutants. Every figure, for `say` and for the last line.

    Raises `MutantNotFound`, before any is tried.
    """
    for mutant in chosen:
        mutated(mutant)
    began = time.perf_counter()
    with copies(processes) as codes, progress(console, MofNCompleteColumn()) as shown:
        task = shown.add_task("mutants", total=len(chosen))
        verdicts = trio.run(try_all, list(chosen), codes, seeds_max, lambda _: shown.advance(task))
        took = {verdict.name: verdict.seeds for verdict in verdicts if verdict.promise}
        seeds = {seed for mutant in chosen for seed in seeds_of(mutant, seeds_max)[: took.get(mutant.name, 0)]}
        task = shown.add_task("the code as it is", total=None)
        tests = [mutant.test for mutant in chosen if mutant.test is not None]
        unsound = trio.run(try_sound, sorted(seeds), tests, codes)
    by_name = {verdict.name: verdict for verdict in verdicts}
    return figures([by_name[mutant.name] for mutant in chosen], unsound, time.perf_counter() - began, processes)


@command("scripts/simulate --mutants")
@click.option("--only", multiple=True, metavar="NAME", help="Only this mutant; may be given again.")
@click.option("--file", "files", multiple=True, metavar="FILE", help="Only mutants of this file; may be given again.")
@click.option(
    "--seeds-max", type=click.IntRange(1), default=SEEDS_MAX, show_default=True, help="Within which it has to be seen."
)
@json_option
def mutating(*, only: tuple[str, ...], files: tuple[str, ...], seeds_max: int, as_json: bool) -> int:
    """Makes small mistakes in a copy of the code, one at a time. The simulation has to see each, or a test on
    PostgreSQL. Exits with 0 only if all were seen, with the promise that each one breaks."""
    if unknown := set(only) - {mutant.name for mutant in MUTANTS}:
        raise click.UsageError(f"no mutant is called {min(unknown)!r}; tests/verification/mutants/ lists them")
    if unknown := set(files) - set(FILES):
        raise click.UsageError(f"no mutant is in {min(unknown)!r}; they are in {', '.join(FILES)}")
    chosen = [each for each in MUTANTS if (not only or each.name in only) and (not files or each.file in files)]
    console = Console(stderr=as_json)
    try:
        result = run_mutants(console, processors(), chosen=chosen, seeds_max=seeds_max)
    except MutantNotFound as error:
        raise click.ClickException(str(error)) from None
    return conclude(result, say, console)


if __name__ == "__main__":
    sys.exit(run(mutating))

"""Whether the simulation would see a mistake: makes each one of `mutants` in a copy of the code, and looks."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import trio
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn
from rich.table import Table

from tests.support.command_line import command, conclude, json_option, progress, run

from ..promises import Promise
from .mutants import MUTANTS, Mutant
from .processes import processors

ROOT = Path(__file__).resolve().parents[3]
COPIED = ("server", "tests", "schema.sql", "pyproject.toml")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "node_modules")  # seven thousand files, of no use to any
SEEDS_MAX = 400  # within which a mistake has to be seen
STDERR_CHARS_MAX = 300
TEST_FAILED = 1  # pytest's exit code; others are no verdict


class MutantNotFound(Exception):
    """A mutant's text does not stand exactly once in its file; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a mutant, or of a run without one.

    promise: the one that was reported, after so many seeds; None: none of those that were asked for.
    seeds: none, where the simulation came to no verdict; `example` has its last words then.
    others: what else was reported, by the number of seeds. test: whether an ordinary test was asked, and no seed run.
    """

    name: str
    promise: str | None
    seeds: int
    seconds: float
    example: str
    others: dict[str, int] = field(default_factory=dict)
    test: bool = False


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of the mutant's file, with the mistake in it. Raises `MutantNotFound`."""
    text = (root / mutant.file).read_text()
    times = text.count(mutant.old)
    if times != 1:
        raise MutantNotFound(
            f"the text of the mutant {mutant.name!r} stands {times} times in {mutant.file}, not once;"
            " adapt tests/verification/simulation/mutants.py"
        )
    return text.replace(mutant.old, mutant.new)


def copy_code(target: Path) -> None:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=NOT_COPIED)
        else:
            shutil.copy2(ROOT / name, target / name)


def seeds_of(mutant: Mutant, seeds_max: int) -> Sequence[int]:
    """The seeds that have to see it, in the order in which they are tried."""
    return [mutant.hint, *(seed for seed in range(seeds_max) if seed != mutant.hint)][:seeds_max]


def _environment(code: Path) -> dict[str, str]:
    """The package is found in the copy before the one that is installed."""
    return {**os.environ, "PYTHONPATH": str(code / "server")}


async def look(name: str, code: Path, seeds: Sequence[int], promises: Collection[str]) -> Verdict:
    """What the simulation in a copy of the code says."""
    began = time.perf_counter()
    chosen = ",".join(map(str, seeds))
    run = await trio.run_process(
        [sys.executable, "-m", "tests.verification.simulation.until_broken", chosen, *sorted(promises)],
        cwd=code,
        env=_environment(code),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    seconds = round(time.perf_counter() - began, 1)
    if run.returncode:
        return Verdict(name, None, 0, seconds, run.stderr.decode(errors="replace").strip()[-STDERR_CHARS_MAX:])
    return Verdict(name, seconds=seconds, **json.loads(run.stdout.splitlines()[-1]))


async def ask(name: str, code: Path, test: str, promise: str) -> Verdict:
    """What an ordinary test in a copy of the code says: the promise is broken where it fails."""
    began = time.perf_counter()
    run = await trio.run_process(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test],
        cwd=code,
        env=_environment(code),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    said = run.stdout.decode(errors="replace").strip()[-STDERR_CHARS_MAX:]
    seconds = round(time.perf_counter() - began, 1)
    return Verdict(name, promise if run.returncode == TEST_FAILED else None, 0, seconds, said, test=True)


async def try_mutant(mutant: Mutant, seeds_max: int) -> Verdict:
    """Has the simulation look at a copy of the code with the mistake in it."""
    text = mutated(mutant)
    with TemporaryDirectory(prefix="lastcall-mutant-") as folder:
        copy_code(Path(folder))
        (Path(folder) / mutant.file).write_text(text)
        if mutant.test is not None:
            return await ask(mutant.name, Path(folder), mutant.test, min(mutant.promises))
        return await look(mutant.name, Path(folder), seeds_of(mutant, seeds_max), mutant.promises)


async def try_all(
    mutants: Sequence[Mutant], seeds_max: int, processes: int, told: Callable[[Verdict], None]
) -> list[Verdict]:
    """All verdicts, in the order in which they came."""
    verdicts: list[Verdict] = []
    slots = trio.CapacityLimiter(processes)

    async def one(mutant: Mutant) -> None:
        async with slots:
            verdicts.append(await try_mutant(mutant, seeds_max))
            told(verdicts[-1])

    async with trio.open_nursery() as nursery:
        for mutant in mutants:
            nursery.start_soon(one, mutant)
    return verdicts


async def try_sound(seeds: Sequence[int], tests: Collection[str], processes: int) -> list[Verdict]:
    """What breaks in the code as it is, on the seeds and tests in which the mistakes were seen: not their doing."""
    parts: list[Verdict] = []

    async def part(share: Sequence[int]) -> None:
        parts.append(await look("(none)", ROOT, share, tuple(Promise)))

    async with trio.open_nursery() as nursery:
        for first in range(min(processes, len(seeds))):
            nursery.start_soon(part, seeds[first::processes])
    parts += [await ask("(none)", ROOT, test, "a test fails") for test in tests]
    return [verdict for verdict in parts if verdict.promise or not (verdict.seeds or verdict.test)]


def run_mutants(
    console: Console, processes: int, *, only: Collection[str] = (), seeds_max: int = SEEDS_MAX
) -> dict[str, Any]:
    """Tries all mutants, or only those of the given names. Every figure, for `say` and for the last line.

    Raises `MutantNotFound`, before any is tried.
    """
    chosen = [mutant for mutant in MUTANTS if not only or mutant.name in only]
    for mutant in chosen:
        mutated(mutant)
    began = time.perf_counter()
    with progress(console, MofNCompleteColumn()) as shown:
        task = shown.add_task("mutants", total=len(chosen))
        verdicts = trio.run(try_all, chosen, seeds_max, processes, lambda _: shown.advance(task))
        took = {verdict.name: verdict.seeds for verdict in verdicts if verdict.promise}
        seeds = {seed for mutant in chosen for seed in seeds_of(mutant, seeds_max)[: took.get(mutant.name, 0)]}
        task = shown.add_task("the code as it is", total=None)
        tests = [mutant.test for mutant in chosen if mutant.test is not None]
        unsound = trio.run(try_sound, sorted(seeds), tests, processes)
    by_name = {verdict.name: verdict for verdict in verdicts}
    return figures([by_name[mutant.name] for mutant in chosen], unsound, time.perf_counter() - began, processes)


def figures(verdicts: Sequence[Verdict], unsound: Sequence[Verdict], seconds: float, processes: int) -> dict[str, Any]:
    """Every figure of a run. unsound: what broke without a mistake. seconds: of wall time."""
    caught = [verdict for verdict in verdicts if verdict.promise]
    return {
        "mutants": len(verdicts),
        "caught": len(caught),
        "survived": [verdict.name for verdict in verdicts if not verdict.promise],
        "broken_without_a_mutant": [verdict.example for verdict in unsound],
        "seeds_most": max((verdict.seeds for verdict in caught), default=0),
        "seconds": round(seconds, 1),
        "processes": processes,
        "verdicts": [_row(verdict) for verdict in verdicts],
        "ok": len(caught) == len(verdicts) and not unsound,
    }


def _row(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in Verdict.__slots__}


def say(result: dict[str, Any], console: Console) -> None:
    """The end of a run, for people."""
    table = Table("mistake", "promise that was reported", "seeds")
    for verdict in result["verdicts"]:
        others = ", ".join(verdict["others"])
        reported = verdict["promise"] or f"[red]NONE[/red]{f' (but {others})' if others else ''}"
        table.add_row(escape(verdict["name"]), reported, "a test" if verdict["test"] else str(verdict["seeds"]))
        if not verdict["seeds"] and not verdict["promise"]:
            table.add_row(escape(verdict["example"]))
    console.print(table)
    for example in result["broken_without_a_mutant"]:
        console.print(f"broken without any mistake: {escape(example)}", style="red", highlight=False, soft_wrap=True)
    verdict = "every mistake was seen" if result["ok"] else "IT DID NOT HOLD"
    console.print(f"{result['caught']} of {result['mutants']} in {result['seconds']:g} s: {verdict}", highlight=False)


@command("scripts/simulate --mutants")
@click.option("--only", multiple=True, metavar="NAME", help="Only this mutant; may be given again.")
@click.option(
    "--seeds-max", type=click.IntRange(1), default=SEEDS_MAX, show_default=True, help="Within which it has to be seen."
)
@json_option
def mutating(*, only: tuple[str, ...], seeds_max: int, as_json: bool) -> int:
    """Makes small mistakes in a copy of the code, one at a time, and has the simulation find each. Exits with 0 only
    if it found them all, with the promise that each one breaks."""
    unknown = set(only) - {mutant.name for mutant in MUTANTS}
    if unknown:
        raise click.UsageError(
            f"no mutant is called {min(unknown)!r}; tests/verification/simulation/mutants.py lists them"
        )
    console = Console(stderr=as_json)
    try:
        result = run_mutants(console, processors(), only=only, seeds_max=seeds_max)
    except MutantNotFound as error:
        raise click.ClickException(str(error)) from None
    return conclude(result, say, console)


if __name__ == "__main__":
    sys.exit(run(mutating))

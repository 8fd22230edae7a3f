"""`scripts/memory-bench`: see `--help`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import click
import trio
from lastcall import logs
from lastcall.embedded import postgres as embedded
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from tests.support.command_line import SEED_MAX, command, conclude, folder, json_option, progress, run

from .generated import (
    USERS,
    asked_in_other_languages,
    generated_samples,
    long_sample,
    own_fact_samples,
    varied_fact_samples,
)
from .measure import Bench, NotIndexed, Recall, open_bench, percentile
from .own_facts import VARIED_FACTS
from .samples import BadData, Sample, read_samples
from .small_talk import SMALL_TALK
from .turns import AGENTS, compare_turns

SEED = 18
TEXTS = 200  # of small talk, and questions, that are put to the gate
COST_TURNS = (700, 10_000)
COST_QUESTIONS = 300


@command("scripts/memory-bench")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A JSON file in the form of LoCoMo, gzipped or not; default: only the generated users.",
)
@click.option("--users", type=click.IntRange(4, 10_000), default=USERS, show_default=True, help="Generated users.")
@click.option(
    "--seed", type=click.IntRange(0, SEED_MAX), default=SEED, show_default=True, help="Of the generated users."
)
@click.option("--cost/--no-cost", default=True, show_default=True, help="Measure CPU and time at 700 and 10,000 turns.")
@click.option("--turns", is_flag=True, help="Compare turns with and without a past, on a server: five minutes more.")
@click.option("--meaning", is_flag=True, help="Search by meaning, too; needs lastcall[meaning].")
@json_option
def memory_bench(
    *, data: Path | None, users: int, seed: int, cost: bool, turns: bool, meaning: bool, as_json: bool
) -> int:
    """Measures how much of what questions need comes back from a user's past: the product's own finalizer, index and
    search on a PostgreSQL of its own. `recall` is over --data where that is given, else over the generated users.

    \b
    Exit codes:
      0  measured
      1  the product did not index what it was given
      2  wrong usage, or a file of another form
    """
    logs.configure(json_logs=False, level="warning")
    console = Console(stderr=as_json)
    try:
        given = read_samples(Path(os.environ.get("LASTCALL_BENCH_FROM", "."), data)) if data is not None else []
    except BadData as error:
        raise click.UsageError(str(error)) from error
    with folder("lastcall-memory-bench-", console) as directory, progress(console) as bar:
        try:
            url = embedded.start(directory)
            result = trio.run(lambda: measured(url, given, users, seed, bar, cost=cost, turns=turns, meaning=meaning))
        finally:
            embedded.stop(directory)
    return conclude(result, say, console)


async def measured(
    url: str, given: Sequence[Sample], users: int, seed: int, bar: Progress, *, cost: bool, turns: bool, meaning: bool
) -> dict[str, Any]:
    """All figures."""
    generated, own, varied = generated_samples(seed, users), own_fact_samples(), varied_fact_samples(seed)
    long = [long_sample(count, seed) for count in COST_TURNS if cost or (turns and count == COST_TURNS[0])]
    everybody = [*given, *generated, *own, *varied, *long]
    async with open_bench(url, meaning=meaning) as bench:
        task = bar.add_task("indexing", total=sum(len(sample.sessions) for sample in everybody))
        for sample in everybody:
            await bench.put(sample, lambda: bar.advance(task))
        await bench.settle()
        bar.update(task, description="asking")
        of_generated = await bench.recall(generated)
        of_given = await bench.recall(given) if given else of_generated
        figures = {
            "ok": True,
            "seed": seed,
            "meaning": meaning,
            **_recall(of_given),
            "generated": _recall(of_generated),
            "languages": {sample.language: await _first(bench, [sample]) for sample in own},
            "varied_languages": {
                language: await _first(bench, [each for each in varied if each.language == language])
                for language in VARIED_FACTS
            },
            "varied": await _first(bench, varied),
            "across_languages": await _first(bench, [asked_in_other_languages(each) for each in own]),
            **await _gate(bench, given or generated, Random(seed)),
            "cost": {
                str(count): await _cost(bench, sample) for count, sample in zip(COST_TURNS, long, strict=False) if cost
            },
        }
    return figures | ({"turns": await _turns(url, seed, bar, task)} if turns else {})


async def _first(bench: Bench, samples: Sequence[Sample]) -> float:
    """How often the first result is the one that was asked for."""
    return (await bench.recall(samples, baselines=False)).figures("product", (1,))["1"]


def _recall(recall: Recall) -> dict[str, Any]:
    return {
        "questions": recall.questions,
        "recall": recall.figures("product"),
        "bm25": recall.figures("bm25"),
        "last_50_messages": round(
            sum(share for (method, _), share in recall.found.items() if method == "last_50") / max(recall.questions, 1),
            4,
        ),
    }


async def _gate(bench: Bench, samples: Sequence[Sample], random: Random) -> dict[str, Any]:
    """How often something is brought back unasked, and how many tokens that takes."""
    picked = random.sample(list(samples), min(len(samples), 5))
    talk = await bench.brought(picked, lambda _: SMALL_TALK[:TEXTS])
    asked = await bench.brought(
        picked, lambda sample: [each.text for each in sample.questions if each.evidence][:TEXTS]
    )
    tokens = [each for each in asked if each > 0]
    return {
        "brought_back": {
            "small_talk": round(mean(each > 0 for each in talk), 4),
            "questions": round(mean(each > 0 for each in asked), 4),
        },
        "tokens": {"mean": round(mean(tokens or [0])), "p95": percentile(tokens, 95)},
    }


async def _turns(url: str, seed: int, bar: Progress, task: TaskID) -> dict[str, Any]:
    """By the agent's name: what a past of 700 turns costs a turn."""
    sample = long_sample(COST_TURNS[0], seed)
    questions = [question.text for question in sample.questions]
    figures = {}
    for agent in AGENTS:
        bar.update(task, description=f"turns, {agent}")
        figures[agent] = await compare_turns(url, agent, sample.user_id, questions, SMALL_TALK, seed)
    return figures


async def _cost(bench: Bench, sample: Sample) -> dict[str, float]:
    texts = [question.text for question in sample.questions]
    return await bench.cost(sample, [texts[number % len(texts)] for number in range(COST_QUESTIONS)])


def say(result: dict[str, Any], console: Console) -> None:
    """Prints the figures for people."""
    table = Table("what", "figure")
    for name, value in result.items():
        shown = ", ".join(f"{key}: {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), shown)
    console.print(table)


if __name__ == "__main__":
    sys.exit(run(memory_bench, NotIndexed))

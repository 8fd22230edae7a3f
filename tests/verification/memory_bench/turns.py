"""What a past costs a turn: a real server, and somebody with a past and somebody without one, in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Any

from tests.support.clients import Client, connect
from tests.support.processes import run_server

AGENTS = {
    "as_a_model": "tests.verification.memory_bench.agents:as_a_model",
    "at_once": "tests.verification.memory_bench.agents:at_once",
    "echo": "echo",  # it reads nothing of the past
}
ROUNDS = 5  # each in new conversations, and with somebody else who has no past
PAIRS = 24  # of turns in a round: the same message by both, questions and small talk in turn
WARM_UP_PAIRS = 4  # that do not count
KINDS = ("questions", "small_talk")

Times = dict[tuple[str, bool], list[float]]
"""Milliseconds of turns, by the kind of message, and whether their user has a past."""


async def compare_turns(
    database_url: str, agent: str, user_id: str, questions: Sequence[str], small_talk: Sequence[str], seed: int
) -> dict[str, Any]:
    """The median time of a turn of `user_id`, who has a past, over that of somebody without one: on a server with this
    agent of `AGENTS`, from the message to the end of the answer.

    Returns:
        `ratio`: the median of the rounds' ratios, `range`: the smallest and the largest; both medians in milliseconds;
        and the same for each kind of message.
    """
    rounds: list[Times] = []
    with run_server("--database-url", database_url, "--agent", AGENTS[agent]) as server:
        for number in range(ROUNDS):
            random = Random(f"{seed} {number}")
            texts = [
                text
                for pair in zip(random.choices(questions, k=PAIRS), random.sample(small_talk, PAIRS), strict=True)
                for text in zip(KINDS, pair, strict=True)
            ][: PAIRS + WARM_UP_PAIRS]
            async with (
                connect(server.url, user=user_id) as returning,
                connect(server.url, user=f"{user_id}-{agent}-{number}") as stranger,
            ):
                rounds.append(await _round(returning, stranger, texts))
    return _compared(rounds, KINDS) | {kind: _compared(rounds, [kind]) for kind in KINDS}


async def _round(returning: Client, stranger: Client, texts: Sequence[tuple[str, str]]) -> Times:
    times: Times = {(kind, known): [] for kind in KINDS for known in (True, False)}
    for number, (kind, text) in enumerate(texts):
        both = [(returning, True), (stranger, False)]
        for client, known in both if number % 4 < 2 else reversed(both):  # for either kind, either goes first
            began = time.perf_counter()
            await client.ask(text)
            if number >= WARM_UP_PAIRS:
                times[kind, known].append(1000 * (time.perf_counter() - began))
    return times


def _compared(rounds: Sequence[Times], kinds: Sequence[str]) -> dict[str, Any]:
    medians = [
        [median([each for kind in kinds for each in times[kind, known]]) for known in (True, False)] for times in rounds
    ]
    ratios = [with_past / without for with_past, without in medians]
    with_past, without = (round(median(each), 2) for each in zip(*medians, strict=True))
    return {
        "ratio": round(median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "with_ms": with_past,
        "without_ms": without,
    }

"""The agents of lastcall in a benchmark: they say what `answers` asks for, or how long the event loop was stuck."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import trio
from lastcall.agents.agent import Memory, Transcript, Turn

from .answers import wanted_answer
from .stalls import StallMeter, wanted_seconds


class BenchAgent:
    """Its memories are extracted by rules, which is the default."""

    describe = "bench"

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        said = turn.messages[-1].text if turn.messages else ""
        if seconds := wanted_seconds(said):
            yield await _longest_stall(seconds)
            return
        answer = wanted_answer(said)
        for piece in answer.pieces():
            await trio.sleep(answer.pause_ms / 1000)
            yield piece


class ForgetfulAgent(BenchAgent):
    """Extracts nothing, so that extraction can be measured apart: the work is still queued, claimed and finished."""

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        return ()


async def _longest_stall(seconds: float) -> str:
    meter = StallMeter(trio.current_time())
    while not meter.over(seconds):
        await trio.sleep_until(meter.due)
        meter.woke(trio.current_time())
    return str(meter)


def make() -> BenchAgent:
    return BenchAgent()


def make_forgetful() -> ForgetfulAgent:
    return ForgetfulAgent()

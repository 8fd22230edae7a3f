"""Agents that misbehave on purpose, for `--agent tests.support.scripted_agents:NAME`."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Sequence

import trio
from lastcall.agents.agent import Memory, Piece, Transcript, Turn

WORDS_MAX = 1_000
WORD_SECONDS = 0.25


class ScriptedAgent:
    """Says hello; subclasses answer otherwise."""

    @property
    def describe(self) -> str:
        return type(self).__name__

    async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        yield "Hello."


class Slow(ScriptedAgent):
    """Speaks for minutes, a word at a time."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        for number in range(WORDS_MAX):
            yield f"word{number} "
            await trio.sleep(WORD_SECONDS)


class Brief(ScriptedAgent):
    """Speaks for about a second."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        for number in range(20):
            yield f"word{number} "
            await trio.sleep(0.05)


class Crashing(ScriptedAgent):
    """Says one word and raises."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield "Well, "
        raise RuntimeError("the agent is broken")


class Introspective(ScriptedAgent):
    """Says how many objects garbage collections skip, how many they scan, and the threshold (0: none happen)."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        threshold = gc.get_threshold()[0] if gc.isenabled() else 0
        yield f"{gc.get_freeze_count()} {len(gc.get_objects())} {threshold}"


class Flooding(ScriptedAgent):
    """Says as much as it can, as fast as it can."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        for _ in range(200):
            yield "x" * 65_536
            await trio.lowlevel.checkpoint()


class Unstoppable(ScriptedAgent):
    """Does not heed cancellation."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield "I "
        with trio.CancelScope(shield=True):
            await trio.sleep(60)


class HangingMemory(ScriptedAgent):
    """Answers, but never finishes remembering."""

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        await trio.sleep_forever()
        raise AssertionError


class RaisingMemory(ScriptedAgent):
    """Answers, but cannot remember."""

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        raise RuntimeError("no memory")

"""Agents with scripted behaviour, for `--agent tests.support.scripted_agents:NAME`."""

from __future__ import annotations

import gc
import hashlib
import re
import sys
import time
from collections.abc import AsyncGenerator, Sequence

import trio
from lastcall.agents.agent import Memory, Piece, Transcript, Turn

WORDS_MAX = 1_000
WORD_SECONDS = 0.25
BLOCKING_SECONDS = 60.0
LONG_TEXT_CHARS = 1_000


class ScriptedAgent:
    """Yields a greeting; subclasses answer otherwise."""

    @property
    def describe(self) -> str:
        return type(self).__name__

    async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        yield "Hello."


class Slow(ScriptedAgent):
    """Yields words for minutes."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        for number in range(WORDS_MAX):
            yield f"word{number} "
            await trio.sleep(WORD_SECONDS)


class Brief(ScriptedAgent):
    """Yields words for about a second."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        for number in range(20):
            yield f"word{number} "
            await trio.sleep(0.05)


class Crashing(ScriptedAgent):
    """Yields one word, then raises."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield "Well, "
        raise RuntimeError("the agent is broken")


class Introspective(ScriptedAgent):
    """Reports the frozen objects, the tracked objects and the collection threshold (0: no collections)."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        threshold = gc.get_threshold()[0] if gc.isenabled() else 0
        yield f"{gc.get_freeze_count()} {len(gc.get_objects())} {threshold}"


class Flooding(ScriptedAgent):
    """Yields as much text as it can, as fast as it can."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        for _ in range(200):
            yield "x" * 65_536
            await trio.lowlevel.checkpoint()


class Unstoppable(ScriptedAgent):
    """Ignores cancellation for a minute."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield "I "
        with trio.CancelScope(shield=True):
            await trio.sleep(60)


class HangingMemory(ScriptedAgent):
    """Answers, but its `finalize` never returns."""

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        await trio.sleep_forever()
        raise AssertionError


class RaisingMemory(ScriptedAgent):
    """Answers, but its `finalize` raises."""

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        raise RuntimeError("no memory")


class Blocking(ScriptedAgent):
    """Blocks the event loop for `BLOCKING_SECONDS`, after a first word."""

    def block(self) -> None:
        time.sleep(BLOCKING_SECONDS)

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield "Well, "
        await trio.sleep(WORD_SECONDS)  # so that the word is sent
        self.block()
        yield "at last."


class Stuttering(Blocking):
    """Blocks for a moment."""

    def block(self) -> None:
        time.sleep(1.6)


class Spinning(Blocking):
    """Blocks by Python code."""

    def block(self) -> None:
        end = time.monotonic() + BLOCKING_SECONDS
        while time.monotonic() < end:
            pass


class Backtracking(Blocking):
    """Blocks by C code that keeps the GIL, and looks at signals now and then."""

    def block(self) -> None:
        re.match("(a+)+$", "a" * 40 + "!")


class Hashing(Blocking):
    """Blocks by C code that gives the GIL away, and never looks at signals."""

    def block(self) -> None:
        hashlib.pbkdf2_hmac("sha256", b"", b"", int(BLOCKING_SECONDS * 2_000_000))


class Printing(ScriptedAgent):
    """Prints much more than a pipe holds, with every answer."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        for _ in range(200):
            print("x" * 1_000)
            print("x" * 1_000, file=sys.stderr, flush=True)
        yield "Printed."


class Quoting(ScriptedAgent):
    """Fails with an exception that quotes what the user said, where that is long."""

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        if len(turn.messages[-1].text) > LONG_TEXT_CHARS:
            raise ValueError(turn.messages[-1].text)
        yield "Fine."

"""The agent of the simulation: an echo that misbehaves in the way that marks in the user's words ask for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import trio
from lastcall.agents.agent import AgentFailed, Memory, Piece, ToolArguments, ToolCall, Transcript, Turn

PIECES = 3
SLOW_SECONDS = 0.25  # after each piece
LONG_SECONDS = 60.0
DEAF_SECONDS = 3.0  # during which it ignores cancellation
STUBBORN_SECONDS = 30.0  # the same, beyond every budget
FLOOD_PIECES = 16
FLOOD_CHARS = 512

REPLY_MARKS = ("#slow", "#raise", "#fail", "#hang", "#deaf", "#stubborn", "#flood", "#exit")
MEMORY_MARKS = ("#forget", "#dawdle", "#numb", "#never")


class SimulatedAgent:
    """Shared by all servers of a world, like a service."""

    describe = "simulated"

    def __init__(self) -> None:
        self._forgotten: set[str] = set()

    async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        said = turn.messages[-1].text if turn.messages else ""
        mark = next((mark for mark in REPLY_MARKS if mark in said), "")
        yield "You said: "
        await self._misbehave(mark)
        if turn.tools:
            yield ToolCall(turn.tools[0].name, "{")
            yield ToolArguments("}")
            return
        if mark == "#flood":
            for _ in range(FLOOD_PIECES):
                yield "x" * FLOOD_CHARS
        size = -(-len(said) // PIECES) or 1
        for start in range(0, len(said), size):
            yield said[start : start + size]
            await trio.sleep(SLOW_SECONDS if mark == "#slow" else 0)

    async def _misbehave(self, mark: str) -> None:
        match mark:
            case "#raise":
                raise RuntimeError("told to break")
            case "#fail":
                raise AgentFailed("told_to", "The agent was told to fail.")
            case "#exit":
                raise SystemExit("told to exit")
            case "#hang":
                await trio.sleep(LONG_SECONDS)
            case "#deaf" | "#stubborn":
                with trio.CancelScope(shield=True):
                    await trio.sleep(DEAF_SECONDS if mark == "#deaf" else STUBBORN_SECONDS)

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        """Makes one memory of each of the user's items, in its own words.

        Not of the items' ids: they look drawn at random, and are taken out as secrets before a memory is stored.
        """
        said = [message for message in transcript.messages if message.role == "user"]
        words = " ".join(message.text for message in said)
        if "#never" in words:
            raise RuntimeError("told never to remember")
        if "#forget" in words and self._first_time(transcript):
            raise AgentFailed("told_to", "The agent was told to forget.")
        if "#numb" in words and self._first_time(transcript):
            await trio.sleep(LONG_SECONDS)
        await trio.sleep(0.5 if "#dawdle" in words else 0)
        return [Memory("note", message.text, message.item_id, message.text) for message in said]

    def _first_time(self, transcript: Transcript) -> bool:
        first = transcript.session_id not in self._forgotten
        self._forgotten.add(transcript.session_id)
        return first

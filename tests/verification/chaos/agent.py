"""The agent of a chaos run: an echo that hangs, raises, is slow or forgets where the user's words ask for it."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import trio
from lastcall.agents.agent import Memory, Transcript, Turn

PIECES = 3
SLOW_SECONDS = 0.4  # after each piece
HANG_SECONDS = 60.0
FAILED_ONCE = "LASTCALL_CHAOS_FAILED_ONCE"  # names the folder in which all servers note the extractions that failed
FACT = re.compile(r"My name is \w+\.")


class ChaosAgent:
    """Costs next to nothing, as the run is about the server."""

    describe = "chaos"

    def __init__(self) -> None:
        self._failed_once = Path(os.environ[FAILED_ONCE])

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        said = turn.messages[-1].text if turn.messages else ""
        if "#raise" in said:
            yield "Well, "
            raise RuntimeError("the agent was told to break")
        if "#hang" in said:
            yield "Let me think. "
            await trio.sleep(HANG_SECONDS)
        text = f"You said: {said}"
        size = -(-len(text) // PIECES)
        for start in range(0, len(text), size):
            yield text[start : start + size]
            await trio.sleep(SLOW_SECONDS if "#slow" in said else 0)

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        """Returns the user's facts. Fails once for a transcript marked #forget: the second try must apply them."""
        if any("#forget" in message.text for message in transcript.messages):
            self._fail_once(transcript.session_id)
        said = [message for message in transcript.messages if message.role == "user"]
        facts = [(message.item_id, fact.group()) for message in said if (fact := FACT.match(message.text))]
        return [Memory("name", fact, item_id, fact) for item_id, fact in facts]

    def _fail_once(self, session_id: str) -> None:
        # A file, because another server may make the next try.
        try:
            (self._failed_once / session_id).touch(exist_ok=False)
        except FileExistsError:
            return
        raise RuntimeError("the agent was told to forget")

"""Agents for `turns`: they read what is known of the past, and answer after a time of their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio
from lastcall.agents.agent import Piece, Turn

FIRST_PIECE_SECONDS = 0.3  # of a fast model elsewhere
PIECES = 10
PIECE_SECONDS = 0.02


class ReadingAgent:
    """Answers with pieces. Without `reads_past`, it is given what was said before."""

    def __init__(self, describe: str, first_piece_seconds: float, piece_seconds: float) -> None:
        self.describe = describe
        self._first_piece_seconds = first_piece_seconds
        self._piece_seconds = piece_seconds

    async def reply(self, turn: Turn, /) -> AsyncGenerator[Piece, None]:
        await trio.sleep(self._first_piece_seconds)
        for number in range(PIECES):
            await trio.sleep(self._piece_seconds)
            yield f"{len(turn.recalled)} {number} "


def at_once() -> ReadingAgent:
    """Takes no time of its own: a turn is as long as the server makes it."""
    return ReadingAgent("at once", 0.0, 0.0)


def as_a_model() -> ReadingAgent:
    """Takes the time of a short answer of a fast model."""
    return ReadingAgent("as a model", FIRST_PIECE_SECONDS, PIECE_SECONDS)

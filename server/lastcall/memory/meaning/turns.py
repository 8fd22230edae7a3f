"""What the turns of a closed session mean, for the index."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ...agents.agent import Transcript
from ...store.people.meanings import TurnMeaning
from ..reading import Reading, SessionReader
from .encoder import Encode

TURNS_MAX = 500  # of a session, the newest


def with_meanings(read: SessionReader, encode: Encode) -> SessionReader:
    """Reads as `read` does, and adds what the turns mean. Where that cannot be had, words have to do."""

    async def read_with_meanings(transcripts: Sequence[Transcript]) -> Sequence[Reading]:
        readings = await read(transcripts)
        return [
            msgspec.structs.replace(reading, meanings=await _meanings(transcript, encode))
            if reading.error is None
            else reading
            for transcript, reading in zip(transcripts, readings, strict=True)
        ]

    return read_with_meanings


async def _meanings(transcript: Transcript, encode: Encode) -> list[TurnMeaning]:
    turns = [each for each in transcript.messages if each.role != "system" and each.text.strip()][-TURNS_MAX:]
    vectors = await encode([turn.text for turn in turns]) if turns else None
    if vectors is None:
        return []
    return [TurnMeaning(turn.item_id, vector) for turn, vector in zip(turns, vectors, strict=True)]

"""Reads transcripts: what the rules remember of them, and their words for the index."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import msgspec
import trio

from ..agents.agent import Memory, Transcript
from ..store.people.meanings import TurnMeaning
from ..store.records import NO_PASSAGES


class Reading(msgspec.Struct, frozen=True):
    """What was found in one transcript.

    passages: a list of `Passage`, for the database: the server need not parse it. meanings: of its turns, where they
    are searched by meaning. error: why it failed, or None.
    """

    memories: list[Memory] = []
    passages: msgspec.Raw = NO_PASSAGES
    meanings: list[TurnMeaning] = []
    error: str | None = None


SessionReader: TypeAlias = Callable[[Sequence[Transcript]], Awaitable[Sequence[Reading]]]
"""Reads transcripts, wherever that is: one reading each. Raises `AgentFailed` and `RulesUnavailable`."""


def read_transcript(transcript: Transcript) -> Reading:
    """One transcript, in this process."""
    # Not above: patterns are slow to compile, and the server needs none.
    from .outcomes import acceptable
    from .rules import memories_by_rules
    from .search.indexing import passages_of

    try:
        passages = msgspec.json.encode(passages_of(transcript.messages))
        return Reading(acceptable(memories_by_rules(transcript)), msgspec.Raw(passages))
    except Exception as error:  # noqa: BLE001 - it is the answer, and costs this one transcript
        return Reading(error=f"the rules failed: {type(error).__name__}: {error}")


async def read_in_process(transcripts: Sequence[Transcript]) -> Sequence[Reading]:
    """Reads on the event loop: for tests and simulated worlds, which have no long texts."""
    await trio.lowlevel.checkpoint()
    return [read_transcript(transcript) for transcript in transcripts]

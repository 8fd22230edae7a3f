"""The records of memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from ...agents.agent import Memory, Transcript
from .meanings import TurnMeaning

NO_PASSAGES = msgspec.Raw(b"[]")


@dataclass(frozen=True, slots=True)
class RememberedFact:
    """A current memory, as recalled. slot: what it is about. said_at: Unix seconds, when the user said it, or None."""

    kind: str
    content: str
    slot: str = ""
    said_at: float | None = field(default=None, compare=False)


class LastTalk(msgspec.Struct, frozen=True, array_like=True):
    """The session that a user had last. ended_at: Unix seconds. words: its title, or its beginning."""

    conversation_id: UUID
    ended_at: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMemory:
    """A current memory of a user and where it comes from. Times are Unix seconds.

    quote: the words that it was made from. said_at: when these were said, or it was edited. expires_at: None: never.
    conversation_id, source_session_id, source_item_id: where they were said; None where that is gone.
    """

    memory_id: int
    kind: str
    content: str
    quote: str | None
    slot: str
    said_at: float
    edited_at: float | None
    expires_at: float | None
    conversation_id: UUID | None
    source_session_id: UUID | None
    source_item_id: str | None


@dataclass(frozen=True, slots=True)
class MemoryClaim:
    """A closed session whose memory the caller may finalize now. attempts: so far, including this one."""

    transcript: Transcript
    attempts: int


@dataclass(frozen=True, slots=True)
class FinishedMemory:
    """What is kept of a session.

    memories: in order. passages: JSON of `memory.search.indexing.Passage`. meanings: of turns in these.
    """

    session_id: UUID
    memories: Sequence[Memory] = ()
    passages: msgspec.Raw = field(default_factory=lambda: NO_PASSAGES)
    meanings: Sequence[TurnMeaning] = ()

"""The records that the store takes and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct

from ..agents.recalled import RecalledTurn
from .conversations.responses import StoredResponse as StoredResponse
from .people.memories import NO_PASSAGES as NO_PASSAGES
from .people.memories import FinishedMemory as FinishedMemory
from .people.memories import LastTalk
from .people.memories import MemoryClaim as MemoryClaim
from .people.memories import RememberedFact as RememberedFact

# Two heartbeats. An item stored later than this after its owner's last heartbeat does not show that the owner was still
# alive: a frozen database may run a statement long after it was sent.
EVIDENCE_SECONDS = 1.0
MEMORY_WAIT_SECONDS_MAX = 330.0  # until memory is due: above the longest back-off and claim of the finalizer
# That the database's clock may be set back before client secrets of before it are refused.
CLOCK_STEP_SECONDS_MAX = 60.0
# A session that ended earlier and is still pending is part of a backlog: no begin waits for its memory.
RECENT_SECONDS = 10.0
CLAIM_BYTES_MAX = 65_536  # of the transcripts that are claimed together; a session that has more is claimed alone
PAGE_BYTES_MAX = 1_048_576  # of the content of a page of items; the item that exceeds it is the page's last one


class EndReason(StrEnum):
    """Why a session ended (`conversation_sessions.end_reason`)."""

    CLIENT_CLOSED = "client_closed"  # the client sent a close frame
    CLIENT_LOST = "client_lost"  # FIN or RST without a close frame
    CLIENT_VANISHED = "client_vanished"  # no pong; the end is the time of the last byte received
    PROTOCOL_ERROR = "protocol_error"  # bytes that are not WebSocket
    MESSAGE_TOO_BIG = "message_too_big"
    SLOW_READER = "slow_reader"  # accepted no bytes for too long, or left too many unread
    FLOODING = "flooding"  # kept sending events above its rate
    EXPIRED = "expired"  # reached the longest time that a session may last
    IDLE = "idle"  # no event for too long
    OVERLOADED = "overloaded"  # one of the largest, when the server's memory was used up
    REFUSED = "refused"  # the session could not be begun as the client requested
    SERVER_ERROR = "server_error"  # an error in the server or its agent
    SHUTDOWN = "shutdown"
    CLOSED_ELSEWHERE = "closed_elsewhere"  # somebody else closed the row
    OWNER_DIED = "owner_died"  # closed on behalf of a dead instance
    REVOKED = "revoked"  # written by the schema when its key or client secret is revoked
    BY_HAND = "by_hand"  # written by the schema where whoever closes the row gives no reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A server process.

    lease_seconds: without a heartbeat for so long, it may be declared dead.
    host_id: the host where `pid` and `process_started` are valid; None where it cannot be determined.
    """

    instance_id: UUID
    hostname: str
    pid: int
    version: str
    lease_seconds: float
    host_id: str | None = None
    process_started: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """Another instance that owns active sessions, as of one query.

    gone: it has shut down in order, or was declared dead before.
    guard_gone: its lease connection has ended, and not because the database was restarted.
    heartbeat: the latest, to be compared with others only for equality: the database's clock may be set. Passed back to
        `reap`; an instance that renews it in between is not reaped.
    """

    instance_id: UUID
    host_id: str | None
    pid: int
    process_started: int | None
    lease_seconds: float
    gone: bool
    guard_gone: bool
    heartbeat: Any


class SessionStart(Struct, frozen=True, kw_only=True):
    """The beginning of a session.

    A struct, like all that each session or turn makes: a frozen dataclass takes ten to thirty times as long.

    started: on this process's monotonic clock, `trio.current_time()`.
    credential_id: the key or client secret that it was begun with; None: neither.
    memories_max: how many of the user's memories are recalled with it; None: nothing is.
    """

    session_id: UUID
    conversation_id: UUID
    user_id: str
    instance_id: UUID
    started: float
    credential_id: UUID | None = None
    memories_max: int | None = None


class StoredItem(Struct, frozen=True, kw_only=True):
    """One item of a conversation's transcript.

    message_id: chosen by the server process, so that storing an item twice has no effect.
    item_id: the id that clients see; unique among the conversation's items that are not deleted.
    position: the order of items in a conversation. content: a message's text, a call's arguments, or its output.
    role: `assistant` for a function call and `tool` for its output.
    call_id, name: of a function call; its output has the same `call_id`.
    deleted: no longer part of the conversation, but still in the transcript.
    """

    message_id: UUID = msgspec.field(default_factory=uuid4)
    session_id: UUID
    conversation_id: UUID
    item_id: str
    position: int
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    status: Literal["completed", "incomplete"]
    kind: Literal["message", "function_call", "function_call_output"] = "message"
    call_id: str | None = None
    name: str | None = None
    deleted: bool = False

    @property
    def key(self) -> UUID:
        """What names its row."""
        return self.message_id


class PageItem(StoredItem, frozen=True, kw_only=True):
    """An item as one reads it in a page. stored_at: Unix seconds."""

    stored_at: float


StoredRow: TypeAlias = StoredItem | StoredResponse  # what a session writes of its conversation


@dataclass(frozen=True, slots=True)
class ItemDeletion:
    """An item that a session deletes from its conversation.

    message_id: the item that it means, so that a repetition that arrives late deletes no item that the session has
        created under the same id since. None: the session does not know the item.
    """

    session_id: UUID
    item_id: str
    message_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHistory:
    """What a resumed conversation begins with: its newest items, and older ones of role system.

    items: oldest first, without deleted ones; None where their texts take more bytes than the caller has room for.
    older: how many of them, from the first on, are system items from before the newest ones.
    bytes: of all their texts, in UTF-8; also where they were not loaded.
    left_out: there are more system items than are loaded.
    """

    items: Sequence[StoredItem] | None
    older: int
    bytes: int
    left_out: bool


class SessionEnd(Struct, frozen=True, kw_only=True):
    """The end of a session.

    ended: on this process's monotonic clock, `trio.current_time()`.
    unfinished: items and figures of responses that were not stored by then.
    """

    session_id: UUID
    instance_id: UUID
    ended: float
    reason: EndReason
    close_code: int | None
    unfinished: Sequence[StoredRow] = ()


@dataclass(frozen=True, slots=True)
class Recollection:
    """What is known of a user. facts: the newest memories, oldest first. has_past: turns of theirs can be searched.

    pending: there may be more soon, since a session ended a moment ago or is being finalized; not another try later.
    last: what the session before was about; None: nothing that could be told.
    """

    facts: Sequence[RememberedFact]
    pending: bool
    has_past: bool = False
    last: LastTalk | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AskedWord:
    """A word of the question. rarity: its idf over the user's turns, also where none has it. known: whether one has."""

    rarity: float
    known: bool


@dataclass(slots=True)
class FoundPassage:
    """A passage that has words of the question.

    flags: per turn. topic: BM25 of the whole. at_most: what no turn exceeds. mentions: by word, for each of its keys.
    """

    passage_id: int
    topic: float
    at_most: float
    flags: Sequence[int] = ()
    mentions: dict[int, list[Sequence[int]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The words that count, by their number in the question, and the passages that could hold the best turns."""

    asked: Mapping[int, AskedWord]
    passages: Sequence[FoundPassage]


@dataclass(frozen=True, slots=True)
class PastTurn(RecalledTurn):
    """A turn that was found, and where it is."""

    conversation_id: str
    item_id: str

"""What the store takes and returns: rows and what they come to. No SQL, no sockets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID, uuid4

from ..agents.agent import Transcript

EVIDENCE_SECONDS = (
    1.0  # two heartbeats: what a dead owner stored later than that after its last one, it did not live to see
)


class EndReason(StrEnum):
    """Why a session ended (`conversation_sessions.end_reason`)."""

    CLIENT_CLOSED = "client_closed"  # a close frame of the client's
    CLIENT_LOST = "client_lost"  # FIN or RST without a close frame
    CLIENT_VANISHED = "client_vanished"  # no answer to pings; the end is the last byte received
    PROTOCOL_ERROR = "protocol_error"  # bytes that are no WebSocket
    MESSAGE_TOO_BIG = "message_too_big"
    SLOW_READER = "slow_reader"  # took no bytes for too long, or left too many unread
    FLOODING = "flooding"  # sent events at more than its rate, and went on
    EXPIRED = "expired"  # the longest time that a session may last
    IDLE = "idle"  # no event for too long
    REFUSED = "refused"  # the session could not be begun as the client asked
    SERVER_ERROR = "server_error"  # our fault
    SHUTDOWN = "shutdown"
    CLOSED_ELSEWHERE = "closed_elsewhere"  # somebody else closed the row
    OWNER_DIED = "owner_died"  # closed on behalf of a server that is gone
    REVOKED = "revoked"  # its key or client secret was revoked: written by the schema
    BY_HAND = "by_hand"  # closed by a person: the schema's default


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A server process.

    lease_seconds: after so long without a heartbeat, others may declare it dead.
    host_id: where `pid` and `process_started` mean something; None where that cannot be told.
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
    """Another instance that owns active sessions, as one look at the database shows it.

    gone: it left in good order, or was declared dead before.
    silent_seconds: since its last heartbeat.
    guard_gone: the connection that renewed its lease is gone, though the database was not restarted since.
    steady_seconds: how long the one who looks has reached the database without a gap.
    heartbeat: to be handed back with the verdict; whoever renews it meanwhile is not reaped.
    """

    instance_id: UUID
    host_id: str | None
    pid: int
    process_started: int | None
    lease_seconds: float
    gone: bool
    silent_seconds: float
    steady_seconds: float
    guard_gone: bool
    heartbeat: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStart:
    """A session that begins. `started` is this process's monotonic clock (`trio.current_time()`).

    credential_id: the key or client secret that it begins with; None: neither.
    """

    session_id: UUID
    conversation_id: UUID
    user_id: str
    instance_id: UUID
    started: float
    credential_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredItem:
    """One item of a conversation's transcript.

    message_id: made by the server process, so that writing an item again is no second item.
    item_id: what clients see; unique within the conversation, those that were deleted included.
    position: orders the items of a conversation.
    content: a message's text, a call's arguments, or what came of it.
    role: of a call `assistant`, of its output `tool`: what a user said has the role `user` and is a message.
    call_id, name: of a function call; its output has the `call_id` too.
    deleted: no part of the conversation any more; the transcript keeps it all the same.
    """

    message_id: UUID = field(default_factory=uuid4)
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


@dataclass(frozen=True, slots=True)
class ItemDeletion:
    """An item that a session takes out of its conversation."""

    session_id: UUID
    item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """A session that ended at `ended` on this process's monotonic clock, with what was left unsaid."""

    session_id: UUID
    instance_id: UUID
    ended: float
    reason: EndReason
    close_code: int | None
    unfinished: Sequence[StoredItem] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key or client secret that is neither revoked nor expired.

    key_id: of the key behind it, its own for a key; None for a secret that was made where no keys were set.
    scope: a value of `identity.Scope`, which the authenticator makes of it.
    conversation_id: the only one that it may go on in; None: any of the user's. session: JSON, see `ClientSecret`.
    """

    credential_id: UUID
    key_id: UUID | None
    user_id: str
    scope: str
    conversation_id: UUID | None = None
    session: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """A client secret to be stored.

    key_id: the key that makes it; None where no keys are set. secret_hash: SHA-256 of what the client is given.
    session: what its sessions begin with, as JSON of the protocol's session.
    """

    secret_id: UUID = field(default_factory=uuid4)
    key_id: UUID | None
    user_id: str
    conversation_id: UUID | None
    session: str
    secret_hash: bytes
    seconds: int


@dataclass(frozen=True, slots=True)
class RememberedFact:
    """A row of `user_memories`, as recalled."""

    kind: str
    content: str


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """A conversation in a list. Times: seconds since 1970; last_active_at: of its newest item, else its beginning."""

    conversation_id: UUID
    created_at: float
    title: str | None
    last_active_at: float


@dataclass(frozen=True, slots=True)
class MemoryClaim:
    """A closed session whose memory the caller may finalize now. attempts: tries so far, this one included."""

    transcript: Transcript
    attempts: int

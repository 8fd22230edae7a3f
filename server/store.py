"""The seam between the server and its database: what is stored, and the operations on it.

`postgres.py` is the real store; `tests/memory_store.py` is a fake that passes the same tests. Nothing above this
seam knows SQL, and nothing below it knows sockets.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol
from uuid import UUID, uuid4

from .agent import Memory, Transcript

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


class StoreError(Exception):
    """The store did not do it."""


class StoreUnavailable(StoreError):
    """Not now: the database is out of reach or too slow. Whether a write happened is unknown; trying again is safe."""


class SessionClosed(StoreError):
    """The session's row is closed, so nothing more is stored for it."""


class InvalidRow(StoreError):
    """The database refused the data itself; trying again will not help."""


class InstanceGone(InvalidRow):
    """The instance was declared dead, or has stopped: it begins no sessions any more."""


class CredentialRevoked(InvalidRow):
    """The key or client secret was revoked: it begins no sessions and makes no secrets any more."""


class ItemExists(InvalidRow):
    """Another item of the conversation has this id."""


class ItemNotFound(InvalidRow):
    """No item of the conversation has this id."""


class Guard(Protocol):
    """An instance's hold on its lease: one connection, whose end others can see."""

    async def renew(self) -> bool:
        """Sets the heartbeat. False: the instance was declared dead. Raises `StoreUnavailable`: open another guard."""
        ...

    async def closed_among(self, session_ids: Sequence[UUID]) -> Sequence[UUID]:
        """Those of the sessions whose rows are closed. Raises `StoreUnavailable`."""
        ...

    def closed_by_others(self) -> Sequence[UUID] | None:
        """The instance's sessions that others closed since the last call; None: too many to tell, look at all."""
        ...

    async def news(self) -> None:
        """Returns when `closed_by_others` has something to say, or may have."""
        ...


class Store(Protocol):
    """All operations are idempotent; all raise `StoreUnavailable` when the database does not answer in time."""

    async def ping(self) -> None:
        """Returns where the database answers."""
        ...

    async def register_instance(self, instance: Instance) -> None: ...

    def open_guard(self, instance_id: UUID) -> AbstractAsyncContextManager[Guard]:
        """Takes the instance's lock on a connection of its own, for as long as the block lasts."""
        ...

    async def suspects(self, instance_id: UUID) -> Sequence[Suspect]:
        """All other instances that own active sessions."""
        ...

    async def reap(self, suspect: Suspect, judge: UUID) -> int:
        """Declares an instance dead, unless it renewed its lease since, and ends its sessions.

        Returns how many it ended: a bounded number; to be called again until it is 0.
        """
        ...

    async def stop_instance(self, instance_id: UUID) -> None:
        """Notes that the instance left in good order, after everything that it had queued."""
        ...

    async def begin_session(self, start: SessionStart, *, within: float) -> None:
        """Returns once the active row is committed; creates the conversation where it is new.

        Raises `InstanceGone`, `CredentialRevoked`, and `InvalidRow` where the conversation belongs to another user.
        """
        ...

    async def append_items(self, items: Sequence[StoredItem], *, within: float) -> None:
        """Returns once all are committed. Raises `SessionClosed` or `ItemExists`, and then stored none.

        items: one at least, all of one session.
        """
        ...

    async def delete_item(self, deletion: ItemDeletion, *, within: float) -> None:
        """Returns once the item is marked as deleted, also where it was before.

        Raises `SessionClosed`, or `ItemNotFound` where the session's conversation has no such item.
        """
        ...

    async def end_session(self, end: SessionEnd) -> bool:
        """Returns once the row is closed; whether by this call. A caller that stops waiting does not stop the write."""
        ...

    async def active_sessions(self, instance_id: UUID) -> Collection[UUID]:
        """Those of an instance whose rows are active."""
        ...

    async def close_instance_sessions(self, instance_id: UUID, unfinished: Sequence[StoredItem]) -> Collection[UUID]:
        """One statement that ends all active sessions of an instance, reason `shutdown`; returns which.

        They ended now, however long the database takes to hear of it, or with the last item that was stored since.
        Ends that were queued before come first. A caller that stops waiting does not stop the write.
        """
        ...

    async def keys_exist(self) -> bool:
        """Whether there has ever been an API key; revoked ones count, deleted ones do not."""
        ...

    async def find_credential(self, secret_hash: bytes) -> Credential | None:
        """The valid key or client secret of this hash."""
        ...

    async def create_client_secret(self, secret: ClientSecret) -> int:
        """Stores it; when it expires, in Unix seconds by the store's clock.

        Raises `CredentialRevoked`, and `InvalidRow` where the user has no such conversation.
        """
        ...

    async def recall(self, user_id: str, limit: int) -> Sequence[RememberedFact]:
        """The user's newest memories, oldest first."""
        ...

    async def load_history(self, conversation_id: UUID, user_id: str, limit: int) -> Sequence[StoredItem] | None:
        """The conversation's newest items, oldest first, but for deleted ones; None where the user has no such one."""
        ...

    async def page_items(
        self, conversation_id: UUID, user_id: str, limit: int, *, older: bool, cursor: str | None = None
    ) -> Sequence[StoredItem] | None:
        """The items next to the item with the id `cursor`, nearest first: those before it, or those after it.

        older: those before it. Without a cursor it is from the conversation's end, or from its beginning. None where
        the user has no such conversation. Raises `ItemNotFound`.
        """
        ...

    async def list_conversations(
        self, user_id: str, limit: int, *, after: UUID | None = None
    ) -> Sequence[ConversationSummary] | None:
        """The user's conversations, newest first, or those that are older than `after`; None where that is not one."""
        ...

    async def claim_memory(self, limit: int, lease_seconds: float) -> Sequence[MemoryClaim]:
        """Takes up to `limit` closed sessions with pending memory; nobody else gets them for `lease_seconds`."""
        ...

    async def finish_memory(self, session_id: UUID, memories: Sequence[Memory]) -> bool:
        """Applies the memories and marks the session done, in one transaction; False: it was done already."""
        ...

    async def release_memory(self, session_id: UUID) -> None:
        """Gives a claim back: due at once, and the try does not count."""
        ...

    async def fail_memory(self, session_id: UUID, error: str, *, retry_after: float | None) -> None:
        """Notes a failed try: due again after `retry_after` seconds, or `failed` for good where that is None."""
        ...

"""The rows of the fake store, and the checks that the CHECKs and types of the real one would make."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from lastcall.store.credentials import Credential
from lastcall.store.errors import InvalidRow
from lastcall.store.records import Instance, StoredItem

ITEM_ID_BYTES_MAX = 2600  # fits into a B-tree entry
BIGINT = range(-(2**63), 2**63)
SHAPES = {  # of an item: kind; whether the role is `tool`; without a call_id, without a name
    ("message", False, True, True),
    ("function_call", False, False, False),
    ("function_call_output", True, False, True),
}
USER_CHARS = range(1, 257)
KIND_CHARS = range(1, 33)
CONTENT_CHARS = range(1, 1001)


@dataclass(slots=True, kw_only=True)
class InstanceRecord:
    """A row of `server_instances`. Times are `trio.current_time()`, as everywhere here."""

    instance: Instance
    heartbeat_at: float
    guarded: bool = False
    stopped_at: float | None = None
    reaped_at: float | None = None

    @property
    def gone(self) -> bool:
        return self.stopped_at is not None or self.reaped_at is not None


@dataclass(slots=True, kw_only=True)
class SessionRecord:
    """A row of `conversation_sessions`."""

    session_id: UUID
    conversation_id: UUID
    user_id: str
    instance_id: UUID | None
    session_start: float
    is_active: bool = True
    session_end: float | None = None
    ended_at: float | None = None
    duration_seconds: float | None = None
    end_reason: str | None = None
    close_code: int | None = None
    closed_by: UUID | None = None
    memory_status: str = "none"
    memory_attempts: int = 0
    memory_due_at: float | None = None
    memory_error: str | None = None
    memory_finalized_at: float | None = None
    credential_id: UUID | None = None
    shared: bool = False


@dataclass(slots=True, kw_only=True)
class CredentialRecord:
    """A row of `api_keys` or `client_secrets`. used: of a link. link_id: of a cookie, what it was traded for."""

    credential: Credential
    secret_hash: bytes
    expires_at: float = float("inf")
    revoked: bool = False
    used: bool = False
    link_id: UUID | None = None


@dataclass(slots=True, kw_only=True)
class MemoryRecord:
    """A row of `user_memories`. order: stands for `memory_id`."""

    order: int
    content: str
    quote: str
    source_session_id: UUID
    source_item_id: str
    updated_at: float
    slot: str = ""


def check_item(item: StoredItem) -> None:
    check_text(item.item_id + item.content + (item.call_id or "") + (item.name or ""))
    if len(item.item_id.encode()) > ITEM_ID_BYTES_MAX:
        raise InvalidRow("the item id is too long for an index")
    if item.position not in BIGINT:
        raise InvalidRow("the position is not a bigint")
    if (item.kind, item.role == "tool", item.call_id is None, item.name is None) not in SHAPES:
        raise InvalidRow("unknown combination of kind, role, call_id and name")
    if item.kind == "function_call" and item.role != "assistant":
        raise InvalidRow("a function call has the role assistant")


def check_text(text: str, lengths: range | None = None) -> None:
    """Refuses text that PostgreSQL cannot store: with NUL, lone surrogates, or a length that a CHECK refuses."""
    if "\0" in text or not (text.isascii() or all(not "\ud800" <= char <= "\udfff" for char in text)):
        raise InvalidRow("the text holds a character that cannot be stored")
    if lengths is not None and len(text) not in lengths:
        raise InvalidRow(f"the text has {len(text)} characters")

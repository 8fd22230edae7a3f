"""The seam between the server and its database: the operations on what is stored.

`postgres/` is the real store; `tests/support/fake_store.py` is a fake that passes the same tests. Nothing above this
seam knows SQL, and nothing below it knows sockets.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from ..agents.agent import Memory
from .records import (
    ClientSecret,
    ConversationSummary,
    Credential,
    Instance,
    ItemDeletion,
    MemoryClaim,
    RememberedFact,
    SessionEnd,
    SessionStart,
    StoredItem,
    Suspect,
)


class LeaseConnection(Protocol):
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

    def open_lease_connection(self, instance_id: UUID) -> AbstractAsyncContextManager[LeaseConnection]:
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

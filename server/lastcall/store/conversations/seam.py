"""The seam's part about conversations: their items, by page or whole, and a user's list of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from ..records import PageItem, StoredHistory, StoredItem

# What a search looks through: the newest conversations of the user, and the newest messages of each.
SEARCHED_CONVERSATIONS_MAX = 500
SEARCHED_MESSAGES_MAX = 200


class ItemKey(NamedTuple):
    """Where an item stands in its conversation, and its ids."""

    position: int
    message_id: UUID
    item_id: str


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """A conversation in a list, with its own title or its first words. Times are Unix seconds.

    last_active_at: when its newest item was stored; where it has none, when it was created.
    """

    conversation_id: UUID
    created_at: float
    title: str | None
    last_active_at: float


class ConversationStore(Protocol):
    """The operations on conversations; `Store` says what holds for all of them."""

    async def load_history(
        self, conversation_id: UUID, user_id: str, limit: int, *, bytes_max: int
    ) -> StoredHistory | None:
        """Loads what a resumed conversation begins with, in one query.

        Args:
            conversation_id: The conversation.
            user_id: Its user.
            limit: The number of items at most; and as many of role system from before them.
            bytes_max: Of all texts together. Beyond it nothing is loaded, and only the sizes are returned.

        Returns:
            The history; None where the user has no such conversation.
        """
        ...

    async def page_items(
        self, conversation_id: UUID, user_id: str, limit: int, *, older: bool, cursor: str | None = None
    ) -> Sequence[PageItem] | None:
        """Returns the items next to another one, nearest first, without deleted ones.

        Args:
            conversation_id: The conversation.
            user_id: Its user.
            limit: The number of items at most. There are fewer where their content exceeds `PAGE_BYTES_MAX`.
            older: Whether to return items before the cursor, not after it.
            cursor: An item's id. None: the end of the conversation if `older`, else its beginning.

        Returns:
            The items; None where the user has no such conversation.

        Raises:
            ItemNotFound: The conversation has no item `cursor`.
        """
        ...

    async def share_conversation(self, session_id: UUID) -> bool:
        """Has the sessions that are open in this session's conversation told of each other's changes from now on.

        What is committed before is seen by whoever reads afterwards; of what comes later, the lease connection hears.

        Returns:
            Whether there are others, or were since this one began: it may have missed what they stored.

        Raises:
            StoreUnavailable: The row of one of them is locked; some may have been marked.
        """
        ...

    async def shared_among(self, session_ids: Sequence[UUID]) -> Sequence[UUID]:
        """Returns those of the sessions that others are, or were, open beside."""
        ...

    async def changed_items(
        self, conversation_id: UUID, user_id: str, message_ids: Sequence[UUID]
    ) -> Sequence[StoredItem]:
        """Returns those of the items in this conversation of the user, in order; deleted ones without texts.

        There are fewer where their content exceeds `PAGE_BYTES_MAX`, but at least one.
        """
        ...

    async def item_keys(
        self, conversation_id: UUID, user_id: str, after: tuple[int, UUID], limit: int
    ) -> Sequence[ItemKey]:
        """Returns the keys of the items behind a position and message id, in order, without deleted ones."""
        ...

    async def deleted_among(self, user_id: str, message_ids: Sequence[UUID]) -> Sequence[UUID]:
        """Returns those of the user's messages that are deleted."""
        ...

    async def list_conversations(
        self, user_id: str, limit: int, *, after: UUID | None = None, search: str | None = None
    ) -> Sequence[ConversationSummary] | None:
        """Returns the user's conversations, newest first, without deleted ones.

        Args:
            user_id: The user.
            limit: The number of conversations at most.
            after: The conversation behind which to begin.
            search: Only those whose title or messages contain this, in whatever case. The newest
                `SEARCHED_CONVERSATIONS_MAX` are looked through, of each the newest `SEARCHED_MESSAGES_MAX` messages.

        Returns:
            The conversations; None where `after` is none of the user's.
        """
        ...

    async def rename_conversation(self, conversation_id: UUID, user_id: str, title: str | None) -> bool:
        """Gives a conversation a title; None takes it away, so that its first words are its title again.

        Returns:
            False where the user has no such conversation.

        Raises:
            InvalidRow: The database refused the title.
        """
        ...

    async def delete_conversation(self, conversation_id: UUID, user_id: str) -> bool:
        """Deletes a conversation and its items for its user, and ends its live sessions. The transcript stays.

        Returns:
            False where the user has no such conversation.
        """
        ...

"""The part of `Store` by which people see, correct and erase what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..records import Recollection
from .memories import StoredMemory


class PeopleStore(Protocol):
    """Current memories of a user. Raises `StoreUnavailable` where the database does not answer."""

    async def recall(self, user_id: str, limit: int) -> Recollection:
        """Returns the user's newest `limit` memories, oldest first, and whether more are about to be added."""
        ...

    async def expire_memories(self, limit: int) -> int:
        """Deletes up to `limit` memories whose lifetime is over; returns their number."""
        ...

    async def known_memories(self, user_id: str, limit: int, *, memory_id: int | None = None) -> Sequence[StoredMemory]:
        """Returns the user's current memories, newest first. memory_id: only this one, if it is the user's."""
        ...

    async def edit_memory(self, user_id: str, memory_id: int, content: str, words: Sequence[str]) -> bool:
        """Changes what a memory says; from now on it counts as said now. False: the user has no such memory."""
        ...

    async def forget_memory(self, user_id: str, memory_id: int) -> bool:
        """Deletes a memory; it is not learned again from the same words. False: the user has no such memory."""
        ...

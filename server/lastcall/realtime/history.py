"""What a resumed conversation goes on from, loaded within the server's memory."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from ..limits.limit import Limit
from ..sessions.session import Session
from ..store.errors import StoreUnavailable
from ..store.records import StoredItem
from .services import Services

HISTORY_FACTOR = 2  # of the bytes of its texts, which take more as objects of Python
HISTORY_BYTES = 262_144  # of its texts: up to here it is loaded by the query that asks how large it is
HISTORY_QUERIES_MAX = 3  # of one begin; another session may make the history longer in between

_log = structlog.get_logger(__name__)


class NoMemory(Exception):
    """The history of the conversation does not fit the server's memory."""


class UnknownConversation(Exception):
    """The user has no conversation of the id that the client asked for."""


class History:
    """The stored items of a session's conversation, and the memory that is reserved for them until they are counted.

    items: oldest first; empty before `load`. older: how many of them, from the first on, are of role system and from
        before the newest items.
    """

    def __init__(self, session: Session, services: Services) -> None:
        self.items: Sequence[StoredItem] = ()
        self.older = 0
        self._session = session
        self._services = services
        self._reserved = 0

    async def load(self) -> None:
        """Loads the items. Memory is reserved before: for a long history only once its size is known.

        Raises `UnknownConversation`, `NoMemory` where they do not fit, and `StoreError`s.
        """
        session, limit = self._session, self._services.settings.history_items_max
        room = HISTORY_BYTES if session.memory.fits(HISTORY_FACTOR * HISTORY_BYTES) else 0
        for _ in range(HISTORY_QUERIES_MAX):
            self._reserve(room)
            found = await self._services.store.load_history(
                session.conversation_id, session.user_id, limit, bytes_max=room
            )
            if found is None:
                raise UnknownConversation
            room = found.bytes
            if found.items is not None:
                self._reserve(room)
                self.items, self.older = found.items, found.older
                if found.left_out:
                    self._services.gate.count(Limit.CONTEXT)
                    _log.warning("system_items_left_out", session_id=str(session.session_id), loaded=limit)
                return
        raise StoreUnavailable("the conversation's history grows faster than it can be loaded")

    def release(self) -> None:
        """Gives the reserved memory back: whoever takes the items counts them."""
        self._session.memory.add(-self._reserved)
        self._reserved, self.items = 0, ()

    def _reserve(self, size: int) -> None:
        """Reserves memory for so many bytes of texts, instead of what was reserved before. Raises `NoMemory`."""
        self._session.memory.add(-self._reserved)
        self._reserved = HISTORY_FACTOR * size
        if not self._session.memory.fits(self._reserved):
            self._reserved = 0
            raise NoMemory
        self._session.memory.add(self._reserved)

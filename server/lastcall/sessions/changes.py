"""What other sessions change in the conversations of this server's sessions: who has missed it, and catches up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias
from uuid import UUID

import structlog
import trio

from ..store.errors import StoreError
from ..store.store import Store
from .session import Session

MISSED_ITEMS_MAX = 256  # of a session, by their ids; one that has missed more looks for all of them
READERS_MAX = 4  # sessions that read at once
RETRY_SECONDS = 0.2  # after the store has failed, or a row was locked

Missed: TypeAlias = Collection[UUID] | None
"""Messages that others have stored or deleted; None: not known which, so that all have to be looked at."""
CatchUp: TypeAlias = Callable[[Missed, trio.CapacityLimiter], Awaitable[None]]
"""Reads what a session has missed, and tells its client. It reads while it holds the limiter. Raises `StoreError`."""

_log = structlog.get_logger(__name__)


class Changes:
    """Has sessions catch up with what the others in their conversations store and delete.

    A notification only wakes; what has changed is read from the table. A session catches up in one task at a time,
    which takes up together what came meanwhile.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._readers = trio.CapacityLimiter(READERS_MAX)
        self._followers: dict[UUID, CatchUp] = {}
        self._missed: dict[UUID, set[UUID] | None] = {}  # by session
        self._joining: set[UUID] = set()
        self._catching_up: set[UUID] = set()
        self._unheard = False
        self._news = trio.Event()

    def follow(self, session: Session, catch_up: CatchUp, *, resumes: bool) -> None:
        """Has a session catch up, until it leaves.

        resumes: others may be open in its conversation, and may have changed it since its history was loaded.
        """
        self._followers[session.session_id] = catch_up
        if resumes:
            self._joining.add(session.session_id)
            self.changed(session.session_id, None)

    def leave(self, session: Session) -> None:
        """Forgets a session. Without effect where it has not followed."""
        self._followers.pop(session.session_id, None)
        self._joining.discard(session.session_id)
        self._missed.pop(session.session_id, None)

    def changed(self, session_id: UUID, message_ids: Missed) -> None:
        """A session has missed something. Never waits, nor raises."""
        if session_id not in self._followers:  # it has left, or will look for everything once it has begun
            return
        missed = self._missed.setdefault(session_id, set())
        if message_ids is None or missed is None or len(missed) + len(message_ids) > MISSED_ITEMS_MAX:
            self._missed[session_id] = None
        else:
            missed.update(message_ids)
        self._news.set()

    def heard_nothing(self) -> None:
        """Notifications may have been lost until now: all sessions that are not alone look for everything."""
        self._unheard = bool(self._followers)
        self._news.set()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with trio.open_nursery() as tasks:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                while self._unheard:
                    await self._look_for_shared()
                for session_id in self._missed.keys() - self._catching_up:
                    self._catching_up.add(session_id)
                    tasks.start_soon(self._catch_up, session_id)

    async def _look_for_shared(self) -> None:
        """One that is not known yet to be shared may be: it was its first notification that was lost."""
        self._unheard = False
        try:
            for session_id in await self._store.shared_among(list(self._followers)):
                self.changed(session_id, None)
        except StoreError as error:
            _log.debug("shared_conversations_not_read", error=str(error))
            self._unheard = True
            await trio.sleep(RETRY_SECONDS)

    async def _catch_up(self, session_id: UUID) -> None:
        try:
            while session_id in self._missed:
                missed = self._missed.pop(session_id)
                try:
                    if session_id not in self._joining or await self._join(session_id):
                        await self._followers[session_id](missed, self._readers)
                except StoreError as error:
                    _log.debug("changes_not_read", session_id=str(session_id), error=str(error))
                    self.changed(session_id, missed)
                    await trio.sleep(RETRY_SECONDS)
        finally:
            self._catching_up.discard(session_id)

    async def _join(self, session_id: UUID) -> bool:
        """Whether it may have missed something. From now on it and the others in its conversation are told."""
        async with self._readers:
            joined = await self._store.share_conversation(session_id)
        self._joining.discard(session_id)
        return joined and session_id in self._followers

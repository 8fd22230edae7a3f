"""What comes back from the user's past with a message: looked up while the message is being stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
import trio

from ...agents.agent import Agent
from ...sessions.session import Session
from ...store.errors import StoreError
from ...store.records import PastTurn, Recollection
from ...store.store import Store
from ..meaning.encoder import Encode
from .asking import may_call_for_past
from .recalling import TURNS_MAX, Names, Question, names_of, question_of, recall_turns, search_turns

RECALL_SECONDS = 0.05  # from a message's arrival; an answer goes on without what takes longer

_log = structlog.get_logger(__name__)


class Past:
    """Looks up the past of one session's user, for one message at a time.

    is_known: whether the session's conversation has an item in its context, so that it need not come back. encode: of
    questions, where turns are found by meaning, too.
    """

    def __init__(
        self,
        store: Store,
        user_id: str,
        conversation_id: UUID,
        names: Names,
        is_known: Callable[[str], bool],
        encode: Encode | None = None,
    ) -> None:
        self._store = store
        self._user_id = user_id
        self._conversation_id = str(conversation_id)
        self._names = names
        self._is_known = is_known
        self._encode = encode
        self._found: Sequence[PastTurn] = ()
        self._search = trio.CancelScope()
        self._done = trio.Event()
        self._done.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Lets messages be looked up for as long as the block lasts."""
        async with trio.open_nursery() as self._tasks:
            try:
                yield
            finally:
                self._tasks.cancel_scope.cancel()

    def look_up(self, text: str) -> None:
        """Begins to look for what belongs to a message. Never waits; what was found for an earlier one is dropped."""
        self._search.cancel()
        self._found = ()
        if not may_call_for_past(text):
            return
        self._search, self._done = trio.CancelScope(deadline=trio.current_time() + RECALL_SECONDS), trio.Event()
        self._tasks.start_soon(self._run, question_of(text, self._names), self._search, self._done)

    async def turns(self) -> Sequence[PastTurn]:
        """What was found for the newest message, best first, without what the conversation has in its context."""
        if not self._done.is_set():
            await self._done.wait()  # no longer than RECALL_SECONDS from its arrival
        return [turn for turn in self._found if not self._is_context(turn)]

    async def find(self, text: str) -> Sequence[PastTurn]:
        """Looks for what an agent asks for, best first, without what is in the context. Raises `StoreError`."""
        found = await search_turns(self._store, self._user_id, question_of(text, self._names), TURNS_MAX, self._encode)
        return [turn for turn in found if not self._is_context(turn)]

    def forget(self, item_id: str) -> None:
        """Drops an item of this conversation that was deleted meanwhile."""
        self._found = [turn for turn in self._found if not (self._is_own(turn) and turn.item_id == item_id)]

    async def _run(self, question: Question, search: trio.CancelScope, done: trio.Event) -> None:
        try:
            with search:
                found = await recall_turns(self._store, self._user_id, question, self._encode)
                if self._search is search:
                    self._found = found
        except StoreError as error:
            _log.debug("past_not_recalled", error=str(error))
        finally:
            done.set()

    def _is_own(self, turn: PastTurn) -> bool:
        return turn.conversation_id == self._conversation_id

    def _is_context(self, turn: PastTurn) -> bool:
        return self._is_own(turn) and self._is_known(turn.item_id)


def past_of(
    session: Session,
    agent: Agent,
    known: Recollection,
    store: Store,
    is_known: Callable[[str], bool],
    encode: Encode | None,
) -> Past | None:
    """The past of a session's user; None where there is none, or the agent reads nothing of it: it costs no statement
    more. See `Past`."""
    if not (known.has_past and getattr(agent, "reads_past", True)):
        return None
    return Past(store, session.user_id, session.conversation_id, names_of(known.facts), is_known, encode)

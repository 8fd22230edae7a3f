"""A session as the server holds it, and the registry of all that are open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import trio

from ..protocol.ids import public_id
from ..store.records import EndReason, StoredItem

CLOSE_CODES = {
    EndReason.CLIENT_CLOSED: 1000,
    EndReason.PROTOCOL_ERROR: 1002,
    EndReason.MESSAGE_TOO_BIG: 1009,
    EndReason.SLOW_READER: 1008,
    EndReason.FLOODING: 1008,
    EndReason.EXPIRED: 1001,
    EndReason.IDLE: 1001,
    EndReason.REFUSED: 1008,
    EndReason.SERVER_ERROR: 1011,
    EndReason.SHUTDOWN: 1012,
    EndReason.OWNER_DIED: 1012,
    EndReason.CLOSED_ELSEWHERE: 4001,
}
"""The WebSocket close code by reason; without one, no close frame is exchanged."""


def _set_event() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


@dataclass(eq=False, slots=True)
class Session:
    """One connection's session.

    scope: everything the session does runs inside it; only its one exit path runs after it.
    answered: set while no response is under way.
    cut: stops the response under way, for good, and returns what must still be stored of it.
    has_row: it has a row, or may have: the outcome of a begin can be unknown.
    row_closed: its end is in the database; set by whoever closed all rows at once.
    """

    user_id: str
    conversation_id: UUID
    session_id: UUID = field(default_factory=uuid4)
    started: float = field(default_factory=trio.current_time)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    answered: trio.Event = field(default_factory=_set_event)
    cut: Callable[[], Sequence[StoredItem]] = tuple
    reason: EndReason | None = None
    close_code: int | None = None
    ended: float = 0.0
    has_row: bool = False
    row_closed: bool = False

    def stop(self, reason: EndReason, *, close_code: int | None = None, ended: float | None = None) -> None:
        """Ends the session. Synchronous; the first caller's reason stands.

        close_code: default, the one of the reason. ended: on the monotonic clock; default, now.
        """
        if self.reason is None:
            self.reason = reason
            self.close_code = close_code if close_code is not None else CLOSE_CODES.get(reason)
            self.ended = max(self.started, ended if ended is not None else trio.current_time())
        self.scope.cancel()

    @property
    def public_id(self) -> str:
        return public_id("sess", self.session_id)


class Registry:
    """The sessions that are open in this process."""

    def __init__(self) -> None:
        self._sessions: dict[UUID, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """A snapshot: sessions may come and go meanwhile."""
        return iter(tuple(self._sessions.values()))

    def get(self, session_id: UUID) -> Session | None:
        return self._sessions.get(session_id)

    def add(self, session: Session) -> None:
        self._sessions[session.session_id] = session

    def discard(self, session: Session) -> None:
        self._sessions.pop(session.session_id, None)

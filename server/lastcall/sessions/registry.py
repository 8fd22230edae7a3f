"""The open sessions of this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from .session import Session


class Registry:
    """The open sessions, and the users whose sessions are ending."""

    def __init__(self) -> None:
        self._sessions: dict[UUID, Session] = {}
        self._leaving: Counter[str] = Counter()

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

    @contextmanager
    def leaving(self, session: Session) -> Iterator[None]:
        """The block writes the session's end, which makes what its user said pending."""
        if not session.spoke:
            yield
            return
        self._leaving[session.user_id] += 1
        try:
            yield
        finally:
            self._leaving[session.user_id] -= 1
            if not self._leaving[session.user_id]:
                del self._leaving[session.user_id]

    def is_leaving(self, user_id: str) -> bool:
        """Whether the end of a session in which this user spoke is being written."""
        return user_id in self._leaving

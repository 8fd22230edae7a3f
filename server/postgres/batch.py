"""A batch of writes as one transaction: starts, then items, then ends, since one batch may hold a whole session.

Last what an instance leaves with: the bulk close of its sessions is for those that have no end of their own. In an
outage the writer hands over again what could not be committed, together with what has come meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

import trio

from .. import commits
from ..queries import QUERIES
from ..store import (
    CredentialRevoked,
    InstanceGone,
    SessionClosed,
    SessionEnd,
    SessionStart,
    StoredItem,
    StoreError,
    StoreUnavailable,
)


@dataclass(frozen=True, slots=True)
class BulkClose:
    """All active sessions of an instance end now."""

    instance_id: UUID


@dataclass(frozen=True, slots=True)
class InstanceStop:
    """An instance leaves in good order."""

    instance_id: UUID


Write = SessionStart | SessionEnd | tuple[StoredItem, ...] | BulkClose | InstanceStop
Closed = frozenset[UUID]
"""What a write comes to: the sessions whose rows it closed."""
Outcome: TypeAlias = commits.Outcome[Closed]
NONE: Closed = frozenset()

BEGIN_SECONDS = 0.5  # a transaction whose begin took longer has a `now()` that ages cannot be counted from


@dataclass(slots=True)
class _Answers:
    """What the statements said: items by id, ends by session, and who left.

    allowed: instances, keys and client secrets that may begin sessions; False: somebody holds its row.
    """

    allowed: dict[UUID, bool] = field(default_factory=dict)
    stored: dict[UUID, Outcome] = field(default_factory=dict)
    ended: dict[UUID, bool] = field(default_factory=dict)
    left: dict[BulkClose | InstanceStop, Closed] = field(default_factory=dict)


class Batch:
    """Writes sorted by kind."""

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.now = 0.0
        self.starts = [write for write in writes if isinstance(write, SessionStart)]
        # The first end of a session is its end: one UPDATE with two would pick either, and answer both with True.
        ends = [write for write in writes if isinstance(write, SessionEnd)]
        self._first = {end.session_id: end for end in reversed(ends)}
        self.ends = list(self._first.values())
        self.items = [item for write in writes if isinstance(write, tuple) for item in write]
        self.leaving = [write for write in writes if isinstance(write, BulkClose | InstanceStop)]

    @property
    def dated(self) -> bool:
        """Whether any of it says when something happened, by the transaction's `now()`."""
        return bool(self.starts or self.ends or self.leaving)

    async def run(self, connection: Any, now: float) -> Sequence[Outcome]:
        """now: when the transaction began, on Trio's clock; ages count back from there."""
        self.now = now
        answers = _Answers()
        if self.starts:
            rows = await connection.fetch(QUERIES["begin_sessions"], *self._start_columns())
            answers.allowed = {row["id"]: row["free"] for row in rows}
        if self.items:
            rows = await connection.fetch(QUERIES["append_items"], *_item_columns(self.items))
            answers.stored = {item.message_id: _item_outcome(row) for item, row in zip(self.items, rows, strict=True)}
        if self.ends:
            rows = await connection.fetch(QUERIES["end_sessions"], *self._end_columns())
            answers.ended = {row["session_id"]: row["ended"] for row in rows}
        answers.left = {write: await _leave(connection, write) for write in self.leaving}
        return [self._outcome(write, answers) for write in self.writes]

    def _outcome(self, write: Write, answers: _Answers) -> Outcome:
        match write:
            case SessionStart():
                return _start_outcome(write, answers.allowed)
            case SessionEnd():
                return self._end_outcome(write, answers.ended.get(write.session_id))
            case BulkClose() | InstanceStop():
                return answers.left[write]
        failures = (answers.stored[item.message_id] for item in write)
        return next((each for each in failures if isinstance(each, StoreError)), NONE)

    def _end_outcome(self, end: SessionEnd, ended: bool | None) -> Outcome:
        """ended: as the statement answers; None where the row was closed before."""
        if ended is False:
            return _held()
        return Closed({end.session_id}) if ended and self._first[end.session_id] is end else NONE

    def _start_columns(self) -> tuple[list[Any], ...]:
        s = self.starts
        return (
            [start.session_id for start in s],
            [start.conversation_id for start in s],
            [start.user_id for start in s],
            [start.instance_id for start in s],
            [self.now - start.started for start in s],
            [start.credential_id for start in s],
        )

    def _end_columns(self) -> tuple[list[Any], ...]:
        e = self.ends
        return (
            [end.session_id for end in e],
            [end.instance_id for end in e],
            [self.now - end.ended for end in e],
            [end.reason.value for end in e],
            [end.close_code for end in e],
        )


def by_session(items: Sequence[StoredItem]) -> list[list[StoredItem]]:
    return [list(group) for _, group in itertools.groupby(items, key=lambda item: item.session_id)]


def _start_outcome(start: SessionStart, allowed: Mapping[UUID, bool]) -> Outcome:
    if start.instance_id not in allowed:
        return InstanceGone("the instance was declared dead")
    if start.credential_id is None or allowed.get(start.credential_id):
        return NONE
    if start.credential_id in allowed:
        return StoreUnavailable("somebody else holds the credential's row")
    return CredentialRevoked("the key or client secret was revoked")


def _item_outcome(row: Any) -> Outcome:
    if row["stored"]:
        return NONE
    return _held() if row["was_active"] else SessionClosed("the session's row is closed")


async def _leave(connection: Any, write: BulkClose | InstanceStop) -> Closed:
    if isinstance(write, InstanceStop):
        await connection.fetch(QUERIES["stop_instance"], write.instance_id)
        return NONE
    rows = await connection.fetch(QUERIES["close_instance_sessions"], write.instance_id)
    return Closed(row["session_id"] for row in rows)


def _held() -> StoreUnavailable:
    return StoreUnavailable("somebody else holds the session's row")


@contextlib.asynccontextmanager
async def transaction(connection: Any) -> AsyncIterator[float]:
    """A transaction; yields when it began, on Trio's clock, as near to its `now()` as `BEGIN_SECONDS`.

    Also where one statement would do: a server that was frozen runs on waking what it was sent before. Its `now()`
    would be another one than the ages were counted from, and a start could land after its session's end. Without our
    COMMIT, which nobody sends any more, it does not count.
    """
    asked = trio.current_time()
    async with connection.transaction():
        began = trio.current_time()
        if began - asked > BEGIN_SECONDS:
            raise StoreUnavailable(f"the transaction took {began - asked:.1f} s to begin")
        yield (asked + began) / 2


def _item_columns(items: Sequence[StoredItem]) -> list[list[Any]]:
    names = ("message_id", "conversation_id", "session_id", "item_id", "position", "role", "content", "status")
    return [[getattr(item, name) for item in items] for name in names]

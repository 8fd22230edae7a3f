"""A batch of writes as one transaction: starts, then items, then ends, since one batch may hold a whole session."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import structlog
import trio

from ..commits import Outcome
from ..queries import QUERIES
from ..store import InstanceGone, SessionClosed, SessionEnd, SessionStart, StoredItem, StoreUnavailable
from .calls import ROW_AT_FAULT

Write = SessionStart | SessionEnd | tuple[StoredItem, ...]

BEGIN_SECONDS = 0.5  # a transaction whose begin took longer has a `now()` that ages cannot be counted from

_log = structlog.get_logger(__name__)


class Batch:
    """Writes sorted by kind."""

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.now = 0.0
        self.starts = [write for write in writes if isinstance(write, SessionStart)]
        # The first end of a session is its end: one UPDATE with two would pick either, and answer both with True.
        ends = [write for write in writes if isinstance(write, SessionEnd)]
        self.ends = list({end.session_id: end for end in reversed(ends)}.values())
        self.items = [item for write in writes for item in _items_of(write)]

    async def run(self, connection: Any, now: float) -> Sequence[Outcome]:
        """now: when the transaction began, on Trio's clock; ages count back from there."""
        self.now = now
        stored: dict[UUID, Outcome] = {}
        ended: dict[UUID, bool] = {}
        living: set[UUID] = set()
        if self.starts:
            rows = await connection.fetch(QUERIES["begin_sessions"], *self._start_columns())
            living = {row["instance_id"] for row in rows}
        if self.items:
            rows = await connection.fetch(QUERIES["append_items"], *_item_columns(self.items))
            stored = {item.message_id: _item_outcome(row) for item, row in zip(self.items, rows, strict=True)}
        if self.ends:
            rows = await connection.fetch(QUERIES["end_sessions"], *self._end_columns())
            ended = {row["session_id"]: row["ended"] for row in rows}
        applied = {id(end) for end in self.ends if ended.get(end.session_id)}
        return [self._outcome(write, living, stored, ended, applied) for write in self.writes]

    @staticmethod
    def _outcome(
        write: Write, living: set[UUID], stored: dict[UUID, Outcome], ended: dict[UUID, bool], applied: set[int]
    ) -> Outcome:
        if isinstance(write, SessionEnd):
            return id(write) in applied if ended.get(write.session_id, True) else _held()
        if isinstance(write, tuple):
            return next((stored[item.message_id] for item in write if stored[item.message_id] is not True), True)
        return True if write.instance_id in living else InstanceGone("the instance was declared dead")

    def _start_columns(self) -> tuple[list[Any], ...]:
        s = self.starts
        return (
            [start.session_id for start in s],
            [start.conversation_id for start in s],
            [start.user_id for start in s],
            [start.instance_id for start in s],
            [self.now - start.started for start in s],
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


async def append_or_not(connection: Any, items: Sequence[StoredItem]) -> bool:
    """Stores items in a savepoint; False where the database refuses one of them, and then none is stored."""
    try:
        async with connection.transaction():
            await connection.fetch(QUERIES["append_items"], *_item_columns(items))
    except ROW_AT_FAULT as error:
        _log.warning(
            "unfinished_items_refused", session_id=str(items[0].session_id), items=len(items), error=str(error)
        )
        return False
    return True


def by_session(items: Sequence[StoredItem]) -> list[list[StoredItem]]:
    return [list(group) for _, group in itertools.groupby(items, key=lambda item: item.session_id)]


def _items_of(write: Write) -> Sequence[StoredItem]:
    if isinstance(write, SessionEnd):
        return write.unfinished
    return write if isinstance(write, tuple) else ()


def _item_outcome(row: asyncpg.Record) -> Outcome:
    if row["stored"]:
        return True
    return _held() if row["was_active"] else SessionClosed("the session's row is closed")


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

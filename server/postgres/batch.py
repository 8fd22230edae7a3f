"""A batch of writes as one statement: starts, then items, then ends, since one batch may hold a whole session.

Last, in a transaction around it, what an instance leaves with: the bulk close of its sessions is for those that have no
end of their own. In an outage the writer hands over again what could not be committed, with what has come meanwhile.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import msgspec

from .. import commits
from ..queries import QUERIES
from ..store import InstanceGone, SessionClosed, SessionEnd, SessionStart, StoredItem, StoreError, StoreUnavailable


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

FRESH_SECONDS = 0.5  # a batch that reaches the database later than so is refused: ages cannot be counted from there


@dataclass(slots=True)
class _Answers:
    """What the database said: instances that may begin sessions, items by id, ends by session, and who left."""

    living: set[UUID] = field(default_factory=set)
    stored: dict[UUID, Outcome] = field(default_factory=dict)
    ended: dict[UUID, bool] = field(default_factory=dict)
    left: dict[BulkClose | InstanceStop, Closed] = field(default_factory=dict)


class Batch:
    """Writes sorted by kind.

    at: the database's clock as it ran them; None before that.
    """

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.at: datetime | None = None
        self._starts = [write for write in writes if isinstance(write, SessionStart)]
        # The first end of a session is its end: one UPDATE with two would pick either, and answer both with True.
        ends = [write for write in writes if isinstance(write, SessionEnd)]
        self._first = {end.session_id: end for end in reversed(ends)}
        self._ends = list(self._first.values())
        self._items = [item for write in writes if isinstance(write, tuple) for item in write]
        self.leaving = [write for write in writes if isinstance(write, BulkClose | InstanceStop)]

    async def run(self, connection: Any, now: float, moment: datetime) -> Sequence[Outcome]:
        """now: on Trio's clock; ages count back from there. moment: the same on the database's, as far as is known.

        Raises `StoreUnavailable` where that is not what the database's clock shows, and then nothing was stored.
        """
        answers = _Answers()
        if self._starts or self._items or self._ends:
            columns = (self._start_rows(now), _json(self._items), self._end_rows(now))
            (row,) = await connection.fetch(QUERIES["commit_batch"], moment, FRESH_SECONDS, *columns)
            self.at = row["at"]
            if not row["fresh"]:
                raise StoreUnavailable("the batch reached the database too late")
            self._read(row, answers)
        answers.left = {write: await _leave(connection, write) for write in self.leaving}
        return [self._outcome(write, answers) for write in self.writes]

    def _read(self, row: Any, answers: _Answers) -> None:
        answers.living = set(row["living"] or ())
        stored = zip(row["stored"] or (), row["passed_over"] or (), strict=True)
        answers.stored = {item.message_id: _item_outcome(*each) for item, each in zip(self._items, stored, strict=True)}
        answers.ended = dict.fromkeys(row["held"] or (), False) | dict.fromkeys(row["ended"] or (), True)

    def _outcome(self, write: Write, answers: _Answers) -> Outcome:
        match write:
            case SessionStart():
                return NONE if write.instance_id in answers.living else InstanceGone("the instance was declared dead")
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

    def _start_rows(self, now: float) -> str | None:
        return _json(
            [
                {
                    "session_id": start.session_id,
                    "conversation_id": start.conversation_id,
                    "user_id": start.user_id,
                    "instance_id": start.instance_id,
                    "age_seconds": now - start.started,
                }
                for start in self._starts
            ]
        )

    def _end_rows(self, now: float) -> str | None:
        return _json(
            [
                {
                    "session_id": end.session_id,
                    "instance_id": end.instance_id,
                    "age_seconds": now - end.ended,
                    "end_reason": end.reason.value,
                    "close_code": end.close_code,
                }
                for end in self._ends
            ]
        )


def by_session(items: Sequence[StoredItem]) -> list[list[StoredItem]]:
    return [list(group) for _, group in itertools.groupby(items, key=lambda item: item.session_id)]


def _item_outcome(stored: bool, passed_over: bool) -> Outcome:
    if stored:
        return NONE
    return _held() if passed_over else SessionClosed("the session's row is closed")


async def _leave(connection: Any, write: BulkClose | InstanceStop) -> Closed:
    if isinstance(write, InstanceStop):
        await connection.fetch(QUERIES["stop_instance"], write.instance_id)
        return NONE
    rows = await connection.fetch(QUERIES["close_instance_sessions"], write.instance_id)
    return Closed(row["session_id"] for row in rows)


def _held() -> StoreUnavailable:
    return StoreUnavailable("somebody else holds the session's row")


def _json(rows: Sequence[Any]) -> str | None:
    """Rows as the schema's functions take them; None for none."""
    return msgspec.json.encode(rows).decode() if rows else None

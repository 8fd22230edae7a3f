"""A batch of writes as one statement, in this order: starts, items, figures of responses, deletions, ends.

Where an item follows the deletion of another one with its id, there is a further statement for it and what comes behind
it, in the same transaction: the id is free only after the deletion.

The writes of an instance that leaves come last, in the same transaction: its bulk close is for sessions that have no
end of their own. After an outage a batch may hold both, since the writer commits everything queued meanwhile.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from .. import queue as commit_queue
from ..errors import CredentialRevoked, InstanceGone, ItemNotFound, SessionClosed, StoreError, StoreUnavailable
from ..queries import QUERIES
from ..records import RECENT_SECONDS, ItemDeletion, SessionEnd, SessionStart, StoredRow
from ..rounds import in_rounds


class BulkClose(msgspec.Struct, frozen=True):
    """Ends all active sessions of an instance. ended: on Trio's clock."""

    instance_id: UUID
    ended: float


class InstanceStop(msgspec.Struct, frozen=True):
    """Marks an instance as shut down in order."""

    instance_id: UUID


Write = SessionStart | SessionEnd | tuple[StoredRow, ...] | ItemDeletion | BulkClose | InstanceStop
Closed = frozenset[UUID]
"""The sessions whose rows a write closed."""
Result: TypeAlias = Closed | msgspec.Raw
"""Of a write: what it closed, or for a start, the recollection that it asked for, still as JSON."""
Outcome: TypeAlias = commit_queue.Outcome[Result]
NONE: Closed = frozenset()

EMPTY_BATCH = (
    '{"starts": [], "recalls": [], "items": [], "responses": {"clock": 0, "rows": []}, "deletions": [], "ends": []}'
)
EMPTY_BATCH_FRESH_SECONDS = 1e9  # an empty batch may come at any time
FRESH_SECONDS = 0.5  # a batch that reaches the database later than this is refused: its ages would be wrong

ItemOutcome = Literal["stored", "deleted", "held", "closed", "unknown"]


class _Answer(msgspec.Struct):
    """The answer of `commit_batch` in the schema.

    at: the database's time, in Unix seconds. fresh: False: the batch came too late, and nothing was stored.
    starts: by instance, key or client secret that may begin sessions; False: its row is locked. Also by conversation,
        where its row is.
    items, deletions: in the order of the batch. held: responses whose session's row is locked.
    ends: by session; False: its row is locked. Missing: it was closed before.
    recalled: by session; its own task takes it apart, since what all recall together may be long.
    """

    at: float
    fresh: bool
    starts: dict[UUID, bool] = {}
    items: list[ItemOutcome] = []
    deletions: list[ItemOutcome] = []
    held: list[UUID] = []
    ends: dict[UUID, bool] = {}
    recalled: dict[UUID, msgspec.Raw] = {}


_decode = msgspec.json.Decoder(_Answer).decode


class BatchStatement:
    """Writes sorted by kind.

    at: the database's time when it ran or refused them; None before that.
    """

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.at: datetime | None = None
        self._starts = [write for write in writes if isinstance(write, SessionStart)]
        # Only the first end of a session: an UPDATE with two would use either, and both would be answered with True.
        ends = [write for write in writes if isinstance(write, SessionEnd)]
        self._first = {end.session_id: end for end in reversed(ends)}
        self._rounds = in_rounds(writes)
        self.leaving = [write for write in writes if isinstance(write, BulkClose | InstanceStop)]

    async def run(self, connection: Any, now: float, moment: datetime) -> Sequence[Outcome]:
        """Commits the batch and returns an outcome per write.

        now: on Trio's clock; ages count back from there. moment: the estimate of the database's time then.

        Raises `StoreUnavailable`, with nothing stored, where the database's clock is too far from `moment`.
        """
        answer = _Answer(0.0, fresh=True)
        # What was not done, by message or response, or by the deletion's own `id`: two may be equal. Mostly nothing.
        failed: dict[UUID | int, StoreError] = {}
        for each, rows in zip(self._rounds, self._rows(now), strict=True):
            found = await self._commit(connection, moment, rows) if rows else _Answer(0.0, fresh=True)
            for item, outcome in zip(each.items, found.items, strict=True):
                if outcome != "stored":
                    failed[item.message_id] = _failure(outcome)
            for deletion, outcome in zip(each.deletions, found.deletions, strict=True):
                if outcome != "deleted":
                    failed[id(deletion)] = _failure(outcome)
            failed |= {response_id: _held() for response_id in found.held}
            answer.starts |= found.starts
            answer.ends |= found.ends
            answer.recalled |= found.recalled
        left = {write: await _leave(connection, write, now) for write in self.leaving}
        return [self._outcome(write, answer, failed, left) for write in self.writes]

    @property
    def needs_transaction(self) -> bool:
        """Whether it takes more than one statement."""
        return bool(self.leaving) or len(self._rounds) > 1

    async def _commit(self, connection: Any, moment: datetime, rows: dict[str, Any]) -> _Answer:
        text = msgspec.json.encode(rows).decode()
        (row,) = await connection.fetch(QUERIES["commit_batch"], moment, FRESH_SECONDS, text)
        answer = _decode(row["answer"])
        self.at = datetime.fromtimestamp(answer.at, UTC)
        if not answer.fresh:
            raise StoreUnavailable("the batch reached the database too late")
        return answer

    def _rows(self, now: float) -> list[dict[str, Any]]:
        """The rows of each statement, by kind: starts come with the first, and ends with the last."""
        rows: list[dict[str, Any]] = [each.rows(now) for each in self._rounds]
        rows[0]["starts"] = [_start_row(start, now) for start in self._starts]
        rows[0]["recalls"] = [_recall_row(start) for start in self._starts if start.memories_max is not None]
        rows[-1]["ends"] = [_end_row(end, now) for end in self._first.values()]
        return [{kind: each for kind, each in kinds.items() if each} for kinds in rows]

    def _outcome(
        self,
        write: Write,
        answer: _Answer,
        failed: dict[UUID | int, StoreError],
        left: dict[BulkClose | InstanceStop, Outcome],
    ) -> Outcome:
        match write:
            case SessionStart():
                outcome = _start_outcome(write, answer.starts)
                return answer.recalled.get(write.session_id, NONE) if outcome is NONE else outcome
            case SessionEnd():
                return self._end_outcome(write, answer.ends.get(write.session_id))
            case ItemDeletion():
                return failed.get(id(write), NONE)
            case BulkClose() | InstanceStop():
                return left[write]
        if not failed:
            return NONE
        return next((failed[row.key] for row in write if row.key in failed), NONE)

    def _end_outcome(self, end: SessionEnd, ended: bool | None) -> Outcome:
        """ended: as in the answer; None: the row was closed before."""
        if ended is False:
            return _held()
        return Closed({end.session_id}) if ended and self._first[end.session_id] is end else NONE


async def prepare_commit(connection: Any) -> None:
    """Commits an empty batch, so that functions and plans are ready: the first commit would take 30 ms longer."""
    await connection.fetch(QUERIES["commit_batch"], datetime.now(UTC), EMPTY_BATCH_FRESH_SECONDS, EMPTY_BATCH)


def session_of(write: Write) -> UUID | None:
    """The session that a write belongs to; None where it concerns all sessions of an instance."""
    if isinstance(write, BulkClose | InstanceStop):
        return None
    return write[0].session_id if isinstance(write, tuple) else write.session_id


def by_session(rows: Sequence[StoredRow]) -> list[list[StoredRow]]:
    """Groups rows that are sorted by session."""
    return [list(group) for _, group in itertools.groupby(rows, key=lambda row: row.session_id)]


def _start_row(start: SessionStart, now: float) -> dict[str, Any]:
    return {
        "session_id": start.session_id,
        "conversation_id": start.conversation_id,
        "user_id": start.user_id,
        "instance_id": start.instance_id,
        "age_seconds": now - start.started,
        "credential_id": start.credential_id,
    }


def _recall_row(start: SessionStart) -> dict[str, Any]:
    return {
        "session_id": start.session_id,
        "user_id": start.user_id,
        "memories_max": start.memories_max,
        "recent_seconds": RECENT_SECONDS,
    }


def _end_row(end: SessionEnd, now: float) -> dict[str, Any]:
    return {
        "session_id": end.session_id,
        "instance_id": end.instance_id,
        "age_seconds": now - end.ended,
        "end_reason": end.reason.value,
        "close_code": end.close_code,
    }


def _start_outcome(start: SessionStart, allowed: dict[UUID, bool]) -> Outcome:
    if start.instance_id not in allowed:
        return InstanceGone("the instance was declared dead")
    if start.credential_id is not None and start.credential_id not in allowed:
        return CredentialRevoked("the key or client secret was revoked")
    if all(allowed.values()):
        return NONE
    rows = {"instance": start.instance_id, "credential": start.credential_id, "conversation": start.conversation_id}
    locked = next((name for name, key in rows.items() if key is not None and allowed.get(key) is False), None)
    return NONE if locked is None else StoreUnavailable(f"the row of the {locked} is locked by another transaction")


def _failure(outcome: ItemOutcome) -> StoreError:
    if outcome == "held":
        return _held()
    if outcome == "closed":
        return SessionClosed("the session's row is closed")
    return ItemNotFound("the conversation has no such item")


async def _leave(connection: Any, write: BulkClose | InstanceStop, now: float) -> Outcome:
    if isinstance(write, InstanceStop):
        [row] = await connection.fetch(QUERIES["stop_instance"], write.instance_id)
        return StoreUnavailable("the row of the instance is locked by another transaction") if row["held"] else NONE
    rows = await connection.fetch(QUERIES["close_instance_sessions"], write.instance_id, now - write.ended)
    return Closed(row["session_id"] for row in rows)


def _held() -> StoreUnavailable:
    return StoreUnavailable("the row of the session, conversation or item is locked by another transaction")

"""A batch of writes as one statement: starts, items, deletions, ends, since one batch may hold a whole session.

Last, in a transaction around it, what an instance leaves with: the bulk close of its sessions is for those that have no
end of their own. In an outage the writer hands over again what could not be committed, with what has come meanwhile.
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
from ..records import ItemDeletion, SessionEnd, SessionStart, StoredItem


class BulkClose(msgspec.Struct, frozen=True):
    """All active sessions of an instance ended at a moment on Trio's clock."""

    instance_id: UUID
    ended: float


class InstanceStop(msgspec.Struct, frozen=True):
    """An instance leaves in good order."""

    instance_id: UUID


Write = SessionStart | SessionEnd | tuple[StoredItem, ...] | ItemDeletion | BulkClose | InstanceStop
Closed = frozenset[UUID]
"""What a write comes to: the sessions whose rows it closed."""
Outcome: TypeAlias = commit_queue.Outcome[Closed]
NONE: Closed = frozenset()

NOTHING_OF_EACH_KIND = '{"starts": [], "items": [], "deletions": [], "ends": []}'
ANY_CLOCK_SECONDS = 1e9  # for a commit of nothing, which may come at any time

FRESH_SECONDS = 0.5  # a batch that reaches the database later than so is refused: ages cannot be counted from there


ItemOutcome = Literal["stored", "deleted", "held", "closed", "unknown"]


class _Answer(msgspec.Struct):
    """What `commit_batch` of the schema says.

    at: when it was, by the database's clock, in Unix seconds. fresh: False where nothing was stored.
    starts: instances, keys and client secrets that may begin sessions; ends: by session. False: somebody holds the row.
    items, deletions: in the order of the batch.
    """

    at: float
    fresh: bool
    starts: dict[UUID, bool] = {}
    items: list[ItemOutcome] = []
    deletions: list[ItemOutcome] = []
    ends: dict[UUID, bool] = {}


_decode = msgspec.json.Decoder(_Answer).decode


class BatchStatement:
    """Writes sorted by kind.

    at: the database's clock as it ran them, or refused them; None before that.
    """

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.at: datetime | None = None
        self._starts = [write for write in writes if isinstance(write, SessionStart)]
        # The first end of a session is its end: one UPDATE with two would pick either, and answer both with True.
        ends = [write for write in writes if isinstance(write, SessionEnd)]
        self._first = {end.session_id: end for end in reversed(ends)}
        self._items = [item for write in writes if isinstance(write, tuple) for item in write]
        self._deletions = [write for write in writes if isinstance(write, ItemDeletion)]
        self.leaving = [write for write in writes if isinstance(write, BulkClose | InstanceStop)]

    async def run(self, connection: Any, now: float, moment: datetime) -> Sequence[Outcome]:
        """now: on Trio's clock; ages count back from there. moment: the same on the database's, as far as is known.

        Raises `StoreUnavailable` where that is not what the database's clock shows, and then nothing was stored.
        """
        rows = self._rows(now)
        answer = await self._commit(connection, moment, rows) if rows else _Answer(0.0, fresh=True)
        left = {write: await _leave(connection, write, now) for write in self.leaving}
        outcomes_by_id: dict[UUID | ItemDeletion, ItemOutcome] = dict(
            zip((item.message_id for item in self._items), answer.items, strict=True)
        )
        outcomes_by_id |= dict(zip(self._deletions, answer.deletions, strict=True))
        return [self._outcome(write, answer, outcomes_by_id, left) for write in self.writes]

    async def _commit(self, connection: Any, moment: datetime, rows: dict[str, Any]) -> _Answer:
        text = msgspec.json.encode(rows).decode()
        (row,) = await connection.fetch(QUERIES["commit_batch"], moment, FRESH_SECONDS, text)
        answer = _decode(row["answer"])
        self.at = datetime.fromtimestamp(answer.at, UTC)
        if not answer.fresh:
            raise StoreUnavailable("the batch reached the database too late")
        return answer

    def _rows(self, now: float) -> dict[str, Any]:
        rows = {
            "starts": [_start_row(start, now) for start in self._starts],
            "items": self._items,
            "deletions": self._deletions,
            "ends": [_end_row(end, now) for end in self._first.values()],
        }
        return {kind: each for kind, each in rows.items() if each}

    def _outcome(
        self,
        write: Write,
        answer: _Answer,
        outcomes_by_id: dict[UUID | ItemDeletion, ItemOutcome],
        left: dict[BulkClose | InstanceStop, Closed],
    ) -> Outcome:
        match write:
            case SessionStart():
                return _start_outcome(write, answer.starts)
            case SessionEnd():
                return self._end_outcome(write, answer.ends.get(write.session_id))
            case ItemDeletion():
                return _item_outcome(outcomes_by_id[write])
            case BulkClose() | InstanceStop():
                return left[write]
        outcomes = (_item_outcome(outcomes_by_id[item.message_id]) for item in write)
        return next((each for each in outcomes if isinstance(each, StoreError)), NONE)

    def _end_outcome(self, end: SessionEnd, ended: bool | None) -> Outcome:
        """ended: as the statement answers; None where the row was closed before."""
        if ended is False:
            return _held()
        return Closed({end.session_id}) if ended and self._first[end.session_id] is end else NONE


async def prepare_commit(connection: Any) -> None:
    """Has the connection compile and plan all that a commit may need: 30 ms that its first one would take longer."""
    await connection.fetch(QUERIES["commit_batch"], datetime.now(UTC), ANY_CLOCK_SECONDS, NOTHING_OF_EACH_KIND)


def session_of(write: Write) -> UUID | None:
    """Whose write it is; None for what concerns all sessions of an instance. Items come from one session at a time."""
    if isinstance(write, BulkClose | InstanceStop):
        return None
    return write[0].session_id if isinstance(write, tuple) else write.session_id


def by_session(items: Sequence[StoredItem]) -> list[list[StoredItem]]:
    return [list(group) for _, group in itertools.groupby(items, key=lambda item: item.session_id)]


def _start_row(start: SessionStart, now: float) -> dict[str, Any]:
    return {
        "session_id": start.session_id,
        "conversation_id": start.conversation_id,
        "user_id": start.user_id,
        "instance_id": start.instance_id,
        "age_seconds": now - start.started,
        "credential_id": start.credential_id,
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
    if start.credential_id is None or allowed.get(start.credential_id):
        return NONE
    if start.credential_id in allowed:
        return StoreUnavailable("somebody else holds the credential's row")
    return CredentialRevoked("the key or client secret was revoked")


def _item_outcome(outcome: ItemOutcome) -> Outcome:
    match outcome:
        case "stored" | "deleted":
            return NONE
        case "held":
            return _held()
        case "closed":
            return SessionClosed("the session's row is closed")
        case "unknown":
            return ItemNotFound("no such item")


async def _leave(connection: Any, write: BulkClose | InstanceStop, now: float) -> Closed:
    if isinstance(write, InstanceStop):
        await connection.fetch(QUERIES["stop_instance"], write.instance_id)
        return NONE
    rows = await connection.fetch(QUERIES["close_instance_sessions"], write.instance_id, now - write.ended)
    return Closed(row["session_id"] for row in rows)


def _held() -> StoreUnavailable:
    return StoreUnavailable("somebody else holds the session's row, or the item's")

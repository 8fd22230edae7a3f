"""`schema.sql` by itself: whoever writes, in whatever order, the session table tells no lies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import trio
import trio_asyncio
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from lastcall.embedded import cluster
from lastcall.sessions.orphans import close_orphans
from lastcall.store.errors import InvalidRow
from lastcall.store.postgres import PostgresStore, open_store
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.postgres.preparation.settings import LOCK_SECONDS
from lastcall.store.queries import QUERIES, SCHEMA
from lastcall.store.records import SessionStart

from tests.integration.store.world import end, item
from tests.support.instances import instance
from tests.support.servers import empty
from tests.support.waiting import eventually

from ...support.examples import examples

WAIT_SECONDS = 5.0
CLOSE_TO = 0.1  # seconds

# What operators of such a table have always run.
REPAIR = (
    "UPDATE conversation_sessions SET is_active = false, session_end = NOW(), ended_at = NOW(), "
    "duration_seconds = EXTRACT(EPOCH FROM (NOW() - session_start)) WHERE is_active = true"
)
FIND_ORPHANS = (
    "SELECT session_id, user_id, EXTRACT(EPOCH FROM (NOW() - session_start)) / 3600 AS hours_active "
    "FROM conversation_sessions WHERE is_active = true AND session_start < NOW() - INTERVAL '1 hour'"
)
ALERT = (
    "SELECT COUNT(*) AS orphaned_count FROM conversation_sessions "
    "WHERE is_active = true AND session_start < NOW() - INTERVAL '2 hours'"
)
DAILY = (
    "SELECT DATE(session_start) AS date, COUNT(*) AS total_sessions, AVG(duration_seconds) AS avg_duration, "
    "COUNT(*) FILTER (WHERE is_active) AS still_active FROM conversation_sessions "
    "WHERE session_start > NOW() - INTERVAL '7 days' GROUP BY DATE(session_start) ORDER BY date DESC"
)


APPLIED_SECONDS = 30.0  # that a write may wait while the schema is applied


class Database:
    """Raw SQL; what the database refuses is `InvalidRow`."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store

    async def sql(self, text: str, *args: object) -> list[Any]:
        return await self.store.select(text, *args)

    async def together(self, operation: Callable[[Any], Any]) -> Any:
        """Runs an asyncio operation on a connection of its own."""

        async def run() -> Any:
            async with self.store._connections.one() as connection:
                return await operation(connection)

        return await bounded_call(self.store._loop, CALL_SECONDS, run)

    async def instance(self) -> UUID:
        instance_id = uuid4()
        await self.store.register_instance(instance(instance_id))
        return instance_id

    async def insert(self, hours_ago: float = 0.0, *, instance_id: UUID | None = None, spoke: bool = False) -> UUID:
        """An active session that began so long ago."""
        rows = await self.sql(
            "INSERT INTO conversation_sessions (user_id, session_start, instance_id)"
            " VALUES ('ada', now() - make_interval(secs => $1::float8 * 3600), $2)"
            " RETURNING session_id, conversation_id",
            hours_ago,
            instance_id,
        )
        if spoke:
            await self.sql(
                "INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role,"
                " content, status)"
                " VALUES ('ada', gen_random_uuid(), $1, $2, 'item_1', 1, 'user', 'hello', 'completed')",
                rows[0]["conversation_id"],
                rows[0]["session_id"],
            )
        session_id: UUID = rows[0]["session_id"]
        return session_id

    async def update(self, assignments: str, session_id: UUID) -> None:
        await self.sql(f"UPDATE conversation_sessions SET {assignments} WHERE session_id = $1", session_id)

    async def row(self, session_id: UUID) -> dict[str, Any]:
        rows = await self.sql("SELECT * FROM conversation_sessions WHERE session_id = $1", session_id)
        return dict(rows[0])


@pytest.fixture
async def database(postgres_store: PostgresStore) -> Database:
    return Database(postgres_store)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Database]:
    async with open_store(url) as store:
        await empty(store)
        yield Database(store)


# --- the end is written once

REWRITES = [
    "is_active = true",
    "is_active = true, session_end = NULL, ended_at = NULL, duration_seconds = NULL, end_reason = NULL",
    "is_active = NULL",
    "session_end = now()",
    "session_end = session_start",
    "session_end = NULL",
    "ended_at = now() + interval '1 hour'",
    "ended_at = NULL",
    "duration_seconds = duration_seconds + 1",
    "duration_seconds = NULL",
    "end_reason = 'client_closed'",
    "end_reason = NULL",
    "close_code = 1000",
    "closed_by = gen_random_uuid()",
    "instance_id = NULL",
    "session_start = session_start - interval '1 hour'",
    "user_id = 'eve'",
    "session_id = gen_random_uuid()",
    "conversation_id = gen_random_uuid()",
    "memory_status = 'finished'",
    "memory_status = 'done'",
    "memory_finalized_at = now()",
]


@pytest.mark.parametrize("rewrite", REWRITES)
async def test_an_ended_session_cannot_be_rewritten(database: Database, rewrite: str) -> None:
    session_id = await database.insert(1.0, instance_id=await database.instance())
    await database.update("is_active = false", session_id)
    before = await database.row(session_id)
    with pytest.raises(InvalidRow):
        await database.update(rewrite, session_id)
    assert await database.row(session_id) == before


HALF_ENDS = [
    "session_end = now()",
    "ended_at = now()",
    "duration_seconds = 1",
    "end_reason = 'client_closed'",
    "close_code = 1000",
    "is_active = NULL",
    "session_start = session_start + interval '1 second'",
    "session_start = session_start - interval '1 second'",
    "session_start = NULL",
    "user_id = 'eve'",
    "session_id = gen_random_uuid()",
    "conversation_id = gen_random_uuid()",
    "instance_id = NULL",
    "memory_status = 'pending'",
    "memory_status = 'done', memory_finalized_at = now()",
    "is_active = false, session_start = session_start + interval '1 minute'",
    "is_active = false, user_id = 'eve'",
    "is_active = false, instance_id = NULL",
]


@pytest.mark.parametrize("half", HALF_ENDS)
async def test_an_active_session_cannot_be_half_ended_redated_or_given_away(database: Database, half: str) -> None:
    session_id = await database.insert(1.0, instance_id=await database.instance())
    before = await database.row(session_id)
    with pytest.raises(InvalidRow):
        await database.update(half, session_id)
    assert await database.row(session_id) == before


LIES = [
    "is_active = false",
    "is_active = false, duration_seconds = 5",
    "is_active = false, duration_seconds = -1, ended_at = '1999-01-01'",
    "is_active = false, ended_at = 'infinity'",
    "is_active = false, session_end = now() + interval '1 day'",
    "is_active = false, session_end = 'infinity', ended_at = NULL",
]


@pytest.mark.parametrize("lie", LIES)
async def test_what_follows_from_the_end_is_computed_whatever_the_writer_claims(database: Database, lie: str) -> None:
    session_id = await database.insert(1.0)
    await database.update(lie, session_id)
    (row,) = await database.sql(
        "SELECT *, extract(epoch FROM clock_timestamp() - session_end) AS late FROM conversation_sessions"
    )
    assert row["is_active"] is False
    assert row["duration_seconds"] == (row["session_end"] - row["session_start"]).total_seconds()
    assert row["duration_seconds"] == pytest.approx(3600.0, abs=1.0)
    assert 0 <= row["late"] < 1.0
    assert row["ended_at"] >= row["session_end"]


@pytest.mark.parametrize("end", ["now() - interval '2 hours'", "'-infinity'"])
async def test_an_end_before_the_start_is_held_at_the_start(database: Database, end: str) -> None:
    session_id = await database.insert(1.0)
    await database.update(f"is_active = false, session_end = {end}", session_id)
    row = await database.row(session_id)
    assert (row["session_end"], row["duration_seconds"]) == (row["session_start"], 0.0)


async def test_an_end_in_the_past_is_kept_and_dated_as_written_now(database: Database) -> None:
    session_id = await database.insert(2.0)
    await database.update("is_active = false, session_end = now() - interval '1 hour'", session_id)
    row = await database.row(session_id)
    assert row["duration_seconds"] == pytest.approx(3600.0, abs=1.0)
    assert (row["ended_at"] - row["session_end"]).total_seconds() == pytest.approx(3600.0, abs=1.0)


# --- each column

# Another value for each column of conversation_sessions.
CHANGES = {
    "session_id": "gen_random_uuid()",
    "conversation_id": "gen_random_uuid()",
    "user_id": "'eve'",
    "instance_id": "NULL",
    "credential_id": "gen_random_uuid()",
    "is_active": "NOT is_active",
    "session_start": "session_start - interval '1 second'",
    "session_end": "now() - interval '1 minute'",
    "ended_at": "now() + interval '1 hour'",
    "duration_seconds": "5",
    "end_reason": "'client_lost'",
    "close_code": "1011",
    "closed_by": "gen_random_uuid()",
    "memory_status": "'failed'",
    "memory_attempts": "7",
    "memory_due_at": "now()",
    "memory_error": "'too long'",
    "memory_finalized_at": "now()",
    "original_id": "'another'",
    "imported_from": "'elsewhere'",
    "shared": "true",
}
END_COLUMNS = {"session_end", "ended_at", "duration_seconds", "end_reason", "close_code", "closed_by"}
MEMORY_COLUMNS = {"memory_status", "memory_attempts", "memory_due_at", "memory_error", "memory_finalized_at"}


async def test_the_columns_that_are_tried_are_all_that_there_are(database: Database) -> None:
    rows = await database.sql(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'conversation_sessions'::regclass AND attnum > 0"
    )
    assert {row["attname"] for row in rows} == set(CHANGES)


async def can_change(database: Database, session_id: UUID, assignments: str) -> bool:
    """Whether the guard lets a change through; a CHECK may still refuse it. Leaves the row as it was."""

    async def attempt(connection: Any) -> bool:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(
                f"UPDATE conversation_sessions SET {assignments} WHERE session_id = $1", session_id
            )
        except asyncpg.CheckViolationError as error:
            return error.constraint_name is not None  # the guard's own errors have none
        finally:
            await transaction.rollback()
        return True

    return bool(await database.together(attempt))


@pytest.mark.parametrize("column", CHANGES)
async def test_an_active_row_changes_only_by_ending_or_by_being_shared(database: Database, column: str) -> None:
    session_id = await database.insert(1.0, instance_id=await database.instance())
    change = f"{column} = {CHANGES[column]}"
    assert await can_change(database, session_id, change) is (column in ("is_active", "shared"))
    if column != "is_active":
        ending = f"is_active = false, {change}"
        assert await can_change(database, session_id, ending) is (column in END_COLUMNS)


async def test_a_session_stays_shared(database: Database) -> None:
    session_id = await database.insert(1.0, instance_id=await database.instance())
    await database.update("shared = true", session_id)
    assert not await can_change(database, session_id, "shared = false")


@pytest.mark.parametrize("column", CHANGES)
async def test_an_ended_row_changes_only_in_its_memory_columns(database: Database, column: str) -> None:
    session_id = await database.insert(1.0, instance_id=await database.instance(), spoke=True)
    await database.update("is_active = false, end_reason = 'client_closed', close_code = 1000", session_id)
    change = f"{column} = {CHANGES[column]}"
    assert await can_change(database, session_id, change) is (column in MEMORY_COLUMNS)


@pytest.mark.parametrize("ended", [False, True])
async def test_a_column_added_later_is_refused_until_it_is_named(database: Database, ended: bool) -> None:
    session_id = await database.insert(1.0)
    if ended:
        await database.update("is_active = false", session_id)

    async def add_and_change(connection: Any) -> None:
        async with connection.transaction():
            await connection.execute("ALTER TABLE conversation_sessions ADD COLUMN extra text")
            await connection.execute("UPDATE conversation_sessions SET extra = 'x'")

    with pytest.raises(InvalidRow, match="has ended" if ended else "is active"):
        await database.together(add_and_change)


# --- beginnings

IMPORTS = [
    ("user_id, session_start", "'ada', now() - interval '3 hours'"),
    ("user_id", "'ada'"),
    ("user_id, session_id", "'ada', gen_random_uuid()"),
    (
        "user_id, session_start, is_active, session_end",
        "'ada', now() - interval '3 hours', false, now() - interval '2 hours'",
    ),
]


@pytest.mark.parametrize(("columns", "values"), IMPORTS)
async def test_an_import_may_leave_ids_out_and_begin_in_the_past(database: Database, columns: str, values: str) -> None:
    await database.sql(f"INSERT INTO conversation_sessions ({columns}) VALUES ({values})")
    (row,) = await database.sql("SELECT * FROM conversation_sessions")
    assert row["session_id"] is not None
    owners = await database.sql("SELECT user_id FROM conversations WHERE conversation_id = $1", row["conversation_id"])
    assert [owner["user_id"] for owner in owners] == ["ada"]
    assert row["is_active"] is (row["session_end"] is None)
    if not row["is_active"]:
        assert row["duration_seconds"] == 3600.0


REFUSED_IMPORTS = [
    ("user_id, session_start", "'ada', now() + interval '1 second'"),
    ("user_id, session_start", "'ada', 'infinity'"),
    ("user_id, session_start", "'ada', '-infinity'"),
    ("user_id, session_start", "'ada', NULL"),
    ("user_id, is_active", "'ada', NULL"),
    ("user_id, session_end", "'ada', now()"),
    ("user_id, end_reason", "'ada', 'by_hand'"),
    ("user_id, memory_status", "'ada', 'pending'"),
    ("user_id", "''"),
    ("user_id", "NULL"),
    ("user_id, conversation_id", "'ada', gen_random_uuid()"),
    ("user_id, instance_id", "'ada', gen_random_uuid()"),
]


@pytest.mark.parametrize(("columns", "values"), REFUSED_IMPORTS)
async def test_a_session_that_cannot_be_true_is_refused(database: Database, columns: str, values: str) -> None:
    with pytest.raises(InvalidRow):
        await database.sql(f"INSERT INTO conversation_sessions ({columns}) VALUES ({values})")
    assert await database.sql("SELECT FROM conversation_sessions") == []
    assert await database.sql("SELECT FROM conversations") == []


# --- closing by hand


@pytest.mark.parametrize(("spoke", "status"), [(True, "pending"), (False, "none")])
async def test_closing_by_hand_says_so_and_queues_the_memory_of_what_was_said(
    database: Database, spoke: bool, status: str
) -> None:
    session_id = await database.insert(1.0, spoke=spoke)
    await database.update("is_active = false", session_id)
    row = await database.row(session_id)
    assert (row["end_reason"], row["closed_by"], row["close_code"]) == ("by_hand", None, None)
    assert row["memory_status"] == status
    claims = await database.store.claim_memory(5, 60.0)
    assert [claim.transcript.session_id for claim in claims] == ([str(session_id)] if spoke else [])


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_memory_is_queued_although_the_closing_transaction_is_older(database: Database, level: str) -> None:
    """Its snapshot does not show the last message."""
    session_id = await database.insert(1.0)

    async def close_late(connection: Any) -> None:
        await connection.execute(f"BEGIN ISOLATION LEVEL {level}")
        await connection.execute("SELECT count(*) FROM messages")
        async with database.store._connections.one() as other:
            await other.execute(
                "INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role,"
                " content, status) SELECT user_id, gen_random_uuid(), conversation_id, session_id, 'item_1', 1,"
                " 'user', 'hello', 'completed' FROM conversation_sessions"
            )
        await connection.execute("UPDATE conversation_sessions SET is_active = false")
        await connection.execute("COMMIT")

    await database.together(close_late)
    assert (await database.row(session_id))["memory_status"] == "pending"


async def test_the_owner_is_told_of_ends_that_others_wrote_and_only_of_those(database: Database) -> None:
    owner, other = await database.instance(), await database.instance()
    own, by_other, by_hand = [await database.insert(instance_id=owner) for _ in range(3)]
    imported, silent = await database.insert(), await database.insert(instance_id=owner)
    told: list[str] = []

    async def listen(connection: Any) -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        channel = f"lastcall_{owner.hex}"
        await connection.add_listener(channel, lambda *args: heard.put_nowait(args[3]))
        close = "UPDATE conversation_sessions SET is_active = false, closed_by = $2 WHERE session_id = $1"
        await connection.execute(close, own, owner)
        await connection.execute(close, imported, None)
        await connection.execute("UPDATE conversation_sessions SET is_active = true WHERE session_id = $1", silent)
        await connection.execute(close, by_other, other)
        await connection.execute(close, by_hand, None)
        await connection.execute("UPDATE conversation_sessions SET memory_error = 'x' WHERE session_id = $1", by_hand)
        await connection.execute("SELECT pg_notify($1, 'last')", channel)
        while not told or told[-1] != "last":
            told.append(await asyncio.wait_for(heard.get(), WAIT_SECONDS))
        await connection.reset()

    await database.together(listen)
    assert told == [str(by_other), str(by_hand), "last"]


# --- what operators run


async def test_the_old_repair_statement_closes_every_row_truthfully(database: Database) -> None:
    ids = [await database.insert(hours, spoke=hours > 2) for hours in (0.0, 1.0, 24.0, 444.0)]
    await database.sql(REPAIR)
    for session_id, hours in zip(ids, (0.0, 1.0, 24.0, 444.0), strict=True):
        row = await database.row(session_id)
        assert row["is_active"] is False
        assert row["duration_seconds"] == pytest.approx(hours * 3600, abs=1.0)
        assert (row["end_reason"], row["memory_status"]) == ("by_hand", "pending" if hours > 2 else "none")


async def test_the_repair_closes_sessions_that_began_after_its_transaction(database: Database) -> None:
    async def repair_late(connection: Any) -> None:
        async with connection.transaction():
            await connection.execute("SELECT now()")
            async with database.store._connections.one() as other:
                for _ in range(3):
                    await other.execute("INSERT INTO conversation_sessions (user_id) VALUES ('ada')")
            await connection.execute(REPAIR)

    await database.insert(1.0)
    await database.together(repair_late)
    rows = await database.sql("SELECT * FROM conversation_sessions ORDER BY session_start")
    assert [row["is_active"] for row in rows] == [False] * 4
    assert [row["duration_seconds"] for row in rows[1:]] == [0.0] * 3
    assert all(row["session_start"] <= row["session_end"] <= row["ended_at"] for row in rows)


async def test_the_old_orphan_check_alert_and_daily_figures_answer_right(database: Database) -> None:
    for hours in (0.5, 1.5, 2.5, 3.5):
        await database.insert(hours)
    ended = await database.insert(5.0)
    await database.update("is_active = false, session_end = session_start + interval '90 seconds'", ended)
    hours_active = [float(row["hours_active"]) for row in await database.sql(FIND_ORPHANS)]
    assert sorted(hours_active) == pytest.approx([1.5, 2.5, 3.5], abs=0.01)
    assert [row["orphaned_count"] for row in await database.sql(ALERT)] == [2]
    days = await database.sql(DAILY)
    assert sum(day["total_sessions"] for day in days) == 5
    assert sum(day["still_active"] for day in days) == 4
    assert [day["avg_duration"] for day in days if day["avg_duration"] is not None] == [90.0]


# --- views


async def _one_session_of_each_kind(database: Database) -> dict[UUID, str]:
    live, stopped, reaped, stale, early, ended = [await database.instance() for _ in range(6)]
    kinds = {
        await database.insert(instance_id=live): "live",
        await database.insert(2.0, instance_id=stopped): "orphaned",
        await database.insert(2.0, instance_id=reaped): "orphaned",
        await database.insert(2.0, instance_id=stale): "orphaned",
        await database.insert(
            2.0, instance_id=early
        ): "orphaned",  # its heartbeat is from before the clock was set back
        await database.insert(2.0): "orphaned",
        await database.insert(2.0, instance_id=ended): "ended",
    }
    await database.update("is_active = false", list(kinds)[-1])
    await database.store.stop_instance(stopped)
    await database.sql("UPDATE server_instances SET reaped_at = now() WHERE instance_id = $1", reaped)
    await database.sql(
        "UPDATE server_instances SET lease_seconds = 0.5, heartbeat_at = now() - interval '11 seconds'"
        " WHERE instance_id = $1",
        stale,
    )
    await database.sql(
        "UPDATE server_instances SET lease_seconds = 0.5, heartbeat_at = now() + interval '1 hour'"
        " WHERE instance_id = $1",
        early,
    )
    return kinds


async def test_the_views_tell_live_sessions_from_orphans_and_ended_ones(database: Database) -> None:
    kinds = await _one_session_of_each_kind(database)
    truth = await database.sql("SELECT session_id, state FROM session_truth")
    assert {row["session_id"]: row["state"] for row in truth} == kinds
    orphans = await database.sql("SELECT session_id, hours_active FROM orphaned_sessions")
    assert {row["session_id"] for row in orphans} == {key for key, kind in kinds.items() if kind == "orphaned"}
    assert [float(row["hours_active"]) for row in orphans] == pytest.approx([2.0] * 5, abs=0.01)


async def test_closing_orphans_dates_them_at_their_owners_last_sign_of_life(database: Database) -> None:
    kinds = await _one_session_of_each_kind(database)
    closed = {each.session_id for each in await close_orphans(database.store)}
    assert closed == {key for key, kind in kinds.items() if kind == "orphaned"}
    rows = await database.sql(
        "SELECT s.*, extract(epoch FROM s.ended_at - s.session_end) AS late FROM conversation_sessions s"
        " WHERE session_id = ANY ($1) ORDER BY late DESC",
        list(closed),
    )
    assert float(rows[0]["late"]) == pytest.approx(11.0 + 0.5, abs=1.0)
    assert sorted(row["end_reason"] for row in rows) == ["by_hand"] + ["owner_died"] * 4
    assert await close_orphans(database.store) == []


async def test_the_daily_figures_count_sessions_and_memory(database: Database) -> None:
    kinds = await _one_session_of_each_kind(database)
    await database.sql("UPDATE conversation_sessions SET is_active = false WHERE is_active")
    spoken = [await database.insert(spoke=True) for _ in range(2)]
    for session_id in spoken:
        await database.update("is_active = false", session_id)
    await database.store.fail_memory(spoken[0], "hopeless", retry_after=None)
    names = ("total_sessions", "still_active", "memory_pending", "memory_failed")
    sums = ", ".join(f"sum({name})::int AS {name}" for name in names)
    (row,) = await database.sql(f"SELECT {sums} FROM daily_session_stats")
    assert tuple(row) == (len(kinds) + len(spoken), 0, 1, 1)


# --- keys and client secrets


BEGIN = "SELECT begin_sessions($1, now())"


def starts(instance_id: UUID, **credentials: UUID | None) -> str:
    """What `begin_sessions` takes: one session of each user, by its credential."""
    rows = [
        {
            "session_id": str(uuid4()),
            "conversation_id": str(uuid4()),
            "user_id": user_id,
            "instance_id": str(instance_id),
            "age_seconds": 0.0,
            "credential_id": str(credential_id) if credential_id else None,
        }
        for user_id, credential_id in credentials.items()
    ]
    return json.dumps(rows)


async def a_key(database: Database) -> UUID:
    rows = await database.sql(
        "INSERT INTO api_keys (subject, scope, prefix, secret_hash) VALUES ('ada', 'user', 'sk-', $1) RETURNING key_id",
        uuid4().bytes * 2,
    )
    return UUID(str(rows[0][0]))


async def test_a_begin_during_a_revocation_leaves_no_active_session(
    database: Database,
) -> None:
    """The revocation waits for the begin that holds the key, and then sees its session."""
    key_id, instance_id = await a_key(database), await database.instance()
    begun, waiting = trio.Event(), trio.Event()

    async def begin(connection: Any) -> None:
        async with connection.transaction():
            answer = await connection.fetchval(BEGIN, starts(instance_id, ada=key_id))
            assert json.loads(answer) == {str(instance_id): True, str(key_id): True}
            begun.set()
            await trio_asyncio.trio_as_aio(waiting.wait)()

    async def revoke() -> None:
        await begun.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.sql, "UPDATE api_keys SET revoked_at = now()")
            lock = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE api_keys%'"
            await eventually(lambda: database.sql(lock), bool)
            waiting.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.together, begin)
        nursery.start_soon(revoke)
    [row] = await database.sql("SELECT is_active, end_reason FROM conversation_sessions")
    assert tuple(row) == (False, "revoked")


async def test_a_key_that_somebody_holds_holds_up_nobody_elses_begin(database: Database) -> None:
    key_id, instance_id = await a_key(database), await database.instance()

    async def hold(connection: Any) -> Any:
        async with connection.transaction():
            await connection.execute("UPDATE api_keys SET revoked_at = now()")
            both = starts(instance_id, ada=key_id, bob=None)
            async with database.store._connections.one() as another:
                return json.loads(await another.fetchval(BEGIN, both, timeout=2))

    assert await database.together(hold) == {str(instance_id): True, str(key_id): False}
    assert [row[0] for row in await database.sql("SELECT user_id FROM conversation_sessions")] == ["bob"]


@pytest.mark.parametrize(
    "change",
    [
        "subject = 'eve'",
        "scope = 'admin'",
        "secret_hash = decode(repeat('00', 32), 'hex')",
        "key_id = gen_random_uuid()",
    ],
)
async def test_of_a_key_nothing_can_be_changed_but_that_it_is_revoked(database: Database, change: str) -> None:
    await a_key(database)
    with pytest.raises(InvalidRow, match="can only be revoked"):
        await database.sql(f"UPDATE api_keys SET {change}")


async def test_a_revocation_is_for_good(database: Database) -> None:
    await a_key(database)
    await database.sql("UPDATE api_keys SET revoked_at = '2020-01-01'")
    for value in ("NULL", "now()"):
        [row] = await database.sql(f"UPDATE api_keys SET revoked_at = {value} RETURNING revoked_at")
        assert row["revoked_at"].year == 2020


@pytest.mark.parametrize("revoke", ["UPDATE api_keys SET revoked_at = now()", "DELETE FROM api_keys"])
@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_revocation_with_an_older_snapshot_is_finished_later(
    database: Database, revoke: str, isolation: Any
) -> None:
    """It overlooks what the key has begun since its snapshot; nobody else's sessions are closed."""
    key_id, instance_id = await a_key(database), await database.instance()
    make_secret = (
        "create_client_secret",
        uuid4(),
        key_id,
        "ada",
        None,
        "{}",
        uuid4().bytes * 2,
        60,
        "bearer",
        "backend",
    )

    async def overlook(connection: Any) -> None:
        async with connection.transaction(isolation=isolation):
            await connection.fetch("SELECT FROM api_keys")
            async with database.store._connections.one() as another:
                await another.fetchval(BEGIN, starts(instance_id, ada=key_id, bob=None))
                if revoke.startswith("UPDATE"):  # a deletion is refused, as it would leave the secret behind
                    await another.fetch(QUERIES[make_secret[0]], *make_secret[1:])
            await connection.execute(revoke)

    await database.together(overlook)
    assert await database.store.finish_revocations() == 1
    assert await database.store.finish_revocations() == 0
    ends = await database.sql("SELECT user_id, end_reason FROM conversation_sessions ORDER BY user_id")
    assert [tuple(row) for row in ends] == [("ada", "revoked"), ("bob", None)]
    assert await database.sql("SELECT FROM client_secrets WHERE revoked_at IS NULL") == []
    assert await database.sql("SELECT FROM unfinished_revocations") == []


async def test_a_revocation_is_not_finished_while_a_row_of_it_is_locked(database: Database) -> None:
    key_id, instance_id = await a_key(database), await database.instance()
    await database.sql(BEGIN, starts(instance_id, ada=key_id))
    await database.sql("INSERT INTO unfinished_revocations (credential_id) VALUES ($1)", key_id)

    async def hold(connection: Any) -> None:
        async with connection.transaction():
            await connection.fetch("SELECT FROM conversation_sessions FOR UPDATE")
            async with database.store._connections.one() as another:
                assert await another.fetch(QUERIES["finish_revocations"], timeout=2) == []

    await database.together(hold)
    assert await database.store.finish_revocations() == 1


async def test_long_expired_client_secrets_go_but_for_those_with_a_live_session(database: Database) -> None:
    insert = (
        "INSERT INTO client_secrets (user_id, secret_hash, expires_at)"
        " VALUES ('ada', $1, now() - make_interval(hours => $2)) RETURNING secret_id"
    )
    ids = [(await database.sql(insert, uuid4().bytes * 2, hours))[0][0] for hours in (1, 30, 31)]
    await database.sql("INSERT INTO conversation_sessions (user_id, credential_id) VALUES ('ada', $1)", ids[2])
    await database.store.fetch(
        "create_client_secret", uuid4(), None, "ada", None, "{}", uuid4().bytes * 2, 60, "bearer", "backend"
    )
    left = {row[0] for row in await database.sql("SELECT secret_id FROM client_secrets")}
    assert {ids[0], ids[2]} < left
    assert ids[1] not in left


# --- applying it


async def test_applying_again_twice_at_once_during_writes_loses_nothing(
    database: Database,
) -> None:
    instance_id = await database.instance()
    session_ids: list[UUID] = []
    by_hand = f"SET lock_timeout = 0; {SCHEMA}; SET lock_timeout = '{LOCK_SECONDS:g}s'"  # as in psql
    applied = trio.Event()

    async def apply() -> None:
        async with trio.open_nursery() as both:
            for _ in range(2):
                both.start_soon(database.together, lambda connection: connection.execute(by_hand))
        applied.set()

    async def write() -> None:
        """As a server does, which waits for the tables."""
        while not applied.is_set():
            begun = SessionStart(
                session_id=uuid4(),
                conversation_id=uuid4(),
                user_id="ada",
                instance_id=instance_id,
                started=trio.current_time(),
            )
            session_ids.append(begun.session_id)
            await database.store.begin_session(begun, within=APPLIED_SECONDS)
            await database.store.append_items([item(begun)], within=APPLIED_SECONDS)
            await database.store.end_session(end(begun))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(apply)
    rows = await database.sql("SELECT is_active, memory_status FROM conversation_sessions")
    assert len(rows) == len(session_ids) > 0
    assert {tuple(row) for row in rows} == {(False, "pending")}
    assert len(await database.sql("SELECT FROM lastcall_schema")) == 1


def test_psql_applies_the_file_as_it_is(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "schema.sql"
    file.write_text(SCHEMA)

    def psql(url: str, *arguments: str) -> None:
        answer = cluster.run("psql", "--no-psqlrc", "-qv", "ON_ERROR_STOP=1", *arguments, url, seconds=30.0)
        assert answer.returncode == 0, answer.stderr

    name = f"by_psql_{uuid4().hex}"
    psql(database_url, "-c", f"CREATE DATABASE {name}")
    url = database_url.replace("/postgres?", f"/{name}?")
    for _ in range(2):
        psql(url, "-f", str(file))
    psql(url, "-c", "INSERT INTO conversation_sessions (user_id) VALUES ('ada')", "-c", REPAIR)
    psql(database_url, "-c", f"DROP DATABASE {name}")


# --- a caller's search path

HOSTILE = """
CREATE SCHEMA hostile;
CREATE TABLE hostile.server_instances (LIKE public.server_instances);
CREATE TABLE hostile.api_keys (LIKE public.api_keys);
CREATE TABLE hostile.client_secrets (LIKE public.client_secrets);
CREATE TABLE hostile.conversations (LIKE public.conversations);
CREATE TABLE hostile.conversation_sessions (LIKE public.conversation_sessions);
CREATE TABLE hostile.messages (LIKE public.messages);
CREATE TEMP TABLE messages (LIKE public.messages);
CREATE FUNCTION hostile.begin_sessions(jsonb, timestamptz) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION hostile.end_sessions(jsonb, timestamptz) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION hostile.append_items(jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION hostile.pg_notify(text, text) RETURNS void LANGUAGE sql AS $$ SELECT $$;
CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '2000-01-01' $$;
"""
PATHS = ["''", "hostile", "hostile, public", "hostile, public, pg_catalog", "pg_temp, hostile, public, pg_catalog"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_callers_search_path_diverts_neither_the_guard_nor_a_batch(database: Database, path: str) -> None:
    instance_id, session_id = await database.instance(), await database.insert(1.0, spoke=True)
    [start] = begins = json.loads(starts(instance_id, ada=None))
    ends = [{**start, "end_reason": "client_closed", "close_code": 1000}]
    batch = json.dumps({"starts": begins, "ends": ends})

    async def write(connection: Any) -> list[Any]:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(HOSTILE)
            await connection.execute(f"SET LOCAL search_path = {path}")
            await connection.execute(
                "UPDATE public.conversation_sessions SET is_active = false WHERE session_id = $1", session_id
            )
            answer = await connection.fetchval("SELECT public.commit_batch(pg_catalog.now(), '1 h', $1)", batch)
            assert json.loads(answer)["ends"] == {start["session_id"]: True}
            return list(
                await connection.fetch(
                    "SELECT end_reason, memory_status, ended_at > '2001-01-01' FROM public.conversation_sessions"
                    " ORDER BY end_reason"
                )
            )
        finally:
            await transaction.rollback()

    found = await database.together(write)
    assert [tuple(row) for row in found] == [("by_hand", "pending", True), ("client_closed", "none", True)]


async def test_every_function_keeps_its_own_search_path(database: Database) -> None:
    rows = await database.sql(
        "SELECT proname, proconfig FROM pg_proc JOIN pg_language l ON l.oid = prolang"
        " WHERE pronamespace = 'public'::regnamespace AND lanname = 'plpgsql'"
    )
    assert len(rows) > 5
    assert {row["proname"] for row in rows if "search_path=public, pg_temp" not in (row["proconfig"] or ())} == set()
    bodies = await database.sql(
        "SELECT proname FROM pg_proc JOIN pg_language l ON l.oid = prolang"
        " WHERE pronamespace = 'public'::regnamespace AND lanname = 'sql' AND prosqlbody IS NULL"
    )
    assert bodies == [], "functions in plain SQL have their names bound when they are created: RETURN, not a string"


async def test_the_schema_can_live_elsewhere_than_in_public(database: Database) -> None:
    async def live_elsewhere(connection: Any) -> list[Any]:
        await connection.execute('CREATE SCHEMA "Else where"; SET search_path = "Else where"')
        try:
            await connection.execute(SCHEMA)
            await connection.execute("SET search_path = ''")
            await connection.execute("""INSERT INTO "Else where".conversation_sessions (user_id) VALUES ('ada')""")
            await connection.execute("""UPDATE "Else where".conversation_sessions SET is_active = false""")
            return list(await connection.fetch("""SELECT end_reason FROM "Else where".conversation_sessions"""))
        finally:
            await connection.execute('DROP SCHEMA "Else where" CASCADE; RESET search_path')

    [row] = await database.together(live_elsewhere)
    assert row["end_reason"] == "by_hand"
    assert await database.sql("SELECT FROM conversation_sessions") == []


# --- any writer at all

ASSIGNMENTS = {
    "is_active": ["true", "false"],
    "session_end": ["NULL", "now()", "session_start", "session_start - interval '1 s'", "'infinity'", "'-infinity'"],
    "ended_at": ["NULL", "now()", "session_start", "'infinity'"],
    "duration_seconds": ["NULL", "0", "-1", "'NaN'", "1e9"],
    "end_reason": ["NULL", "'client_closed'", "''"],
    "close_code": ["NULL", "1000"],
    "session_start": ["now()", "session_start - interval '1 s'"],
    "memory_status": ["'none'", "'pending'", "'done'", "'failed'"],
    "memory_finalized_at": ["NULL", "now()"],
    "closed_by": ["NULL", "gen_random_uuid()"],
    "credential_id": ["NULL", "gen_random_uuid()"],
}
assignment = st.sampled_from([f"{column} = {value}" for column, values in ASSIGNMENTS.items() for value in values])
update = st.lists(assignment, min_size=1, max_size=4, unique_by=lambda text: text.split(" = ")[0]).map(", ".join)

FIXED = ("session_start", "user_id", "conversation_id", "credential_id")
WRITTEN_ONCE = ("session_end", "ended_at", "duration_seconds", "end_reason", "close_code", "closed_by")


def check(row: dict[str, Any], before: dict[str, Any]) -> None:
    """One end: whole or not there, never rewritten, after the start, and its duration is the difference."""
    assert [row[name] for name in FIXED] == [before[name] for name in FIXED]
    ended = [row[name] is not None for name in ("session_end", "ended_at", "duration_seconds", "end_reason")]
    assert ended == [not row["is_active"]] * 4
    if not before["is_active"]:
        assert not row["is_active"]
        assert [row[name] for name in WRITTEN_ONCE] == [before[name] for name in WRITTEN_ONCE]
    if not row["is_active"]:
        assert row["session_start"] <= row["session_end"] <= row["ended_at"]
        assert row["duration_seconds"] == (row["session_end"] - row["session_start"]).total_seconds()


@examples(30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(updates=st.lists(update, min_size=1, max_size=8))
async def test_no_sequence_of_updates_leaves_a_lie_in_the_table(database_url: str, updates: list[str]) -> None:
    async with _open(database_url) as database:
        session_id = await database.insert(1.0, spoke=True)
        before = await database.row(session_id)
        for assignments in updates:
            try:
                await database.update(assignments, session_id)
            except InvalidRow:
                assert await database.row(session_id) == before
            row = await database.row(session_id)
            check(row, before)
            before = row

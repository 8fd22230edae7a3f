"""What operators ask, answered by a real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import trio
import trio_asyncio
from lastcall.sessions.orphans import close_orphans
from lastcall.store import reports
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call

BOTH_FORMS = True

LEASE_SECONDS = 0.5  # of the dead one
DEAD = UUID(int=1)
LIVING = UUID(int=2)
OWNERS = """
    INSERT INTO server_instances (instance_id, hostname, pid, version, heartbeat_at, lease_seconds)
    VALUES ($1, 'gone', 11, '0', now() - interval '3 hours', 0.5), ($2, 'here', 22, '0', now(), 10)
"""
BEGIN = """
    INSERT INTO conversation_sessions (session_id, user_id, instance_id, session_start)
    VALUES ($1, $2, $3, now() - make_interval(hours => $4)) RETURNING session_start
"""
SAY = """
    INSERT INTO messages (user_id, message_id, conversation_id, session_id, item_id, position, role, content, status)
    SELECT user_id, gen_random_uuid(), conversation_id, session_id, 'item', 1, 'user', 'hello', 'completed'
      FROM conversation_sessions WHERE session_id = $1
"""
END = "UPDATE conversation_sessions SET is_active = false, end_reason = 'client_closed' WHERE session_id = $1"


@pytest.fixture
async def store(postgres_store: PostgresStore) -> PostgresStore:
    """With one server that died three hours ago, and one that lives."""
    await postgres_store.select(OWNERS, DEAD, LIVING)
    return postgres_store


async def begin(store: PostgresStore, user: str, owner: UUID | None, hours_ago: int) -> UUID:
    session_id = uuid4()
    await store.select(BEGIN, session_id, user, owner, hours_ago)
    return session_id


async def test_sessions_are_found_by_user_state_reason_and_age_newest_first(store: PostgresStore) -> None:
    live = await begin(store, "ann", LIVING, 0)
    orphan = await begin(store, "ann", DEAD, 4)
    ended = await begin(store, "bob", LIVING, 8)
    await store.select(END, ended)

    async def found(**wanted: object) -> list[UUID]:
        sessions = await reports.list_sessions(store, limit=10, **wanted)  # type: ignore[arg-type]
        return [each.session_id for each in sessions]

    assert await found() == [live, orphan, ended]
    assert await found(user="ann") == [live, orphan]
    assert await found(state="active") == [live, orphan]
    assert await found(state="orphaned") == [orphan]
    assert await found(state="ended") == [ended]
    assert await found(reason="client_closed") == [ended]
    assert await found(reason="shutdown") == []
    assert await found(since_seconds=5 * 3600.0) == [live, orphan]


async def test_no_more_sessions_than_the_limit_are_listed(store: PostgresStore) -> None:
    newest = await begin(store, "ann", LIVING, 0)
    await begin(store, "ann", LIVING, 1)
    (session,) = await reports.list_sessions(store, limit=1)
    assert session.session_id == newest


async def test_an_active_session_has_lasted_until_now_but_has_no_duration(store: PostgresStore) -> None:
    await begin(store, "ann", LIVING, 2)
    (session,) = await reports.list_sessions(store, limit=10)
    assert session.duration_seconds is None
    assert session.lasted_seconds == pytest.approx(7200, abs=60)


async def test_a_day_counts_its_sessions_and_averages_those_that_ended(store: PostgresStore) -> None:
    await store.select(
        "INSERT INTO conversation_sessions (user_id, is_active, session_start, session_end)"
        " SELECT 'ann', false, now() - interval '3 days', now() - interval '3 days' + make_interval(secs => s)"
        " FROM unnest(ARRAY[10, 30]) AS s"
    )
    await store.select(
        "INSERT INTO conversation_sessions (user_id, session_start) SELECT 'ann', now() - interval '3 days'"
    )
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = midnight + timedelta(days=1)
    (day,) = await reports.daily_stats(store, midnight - timedelta(days=6), tomorrow)
    assert (day.total_sessions, day.avg_duration, day.still_active) == (3, 20.0, 1)
    assert (day.answers, day.input_tokens) == (0, None)
    assert await reports.daily_stats(store, midnight - timedelta(days=2), tomorrow) == []
    assert await reports.daily_stats(store, midnight - timedelta(days=6), midnight - timedelta(days=3)) == []


async def test_an_orphan_is_active_and_without_a_living_owner(store: PostgresStore) -> None:
    await begin(store, "ann", LIVING, 4)
    orphan = await begin(store, "ann", DEAD, 5)
    imported = await begin(store, "ann", None, 4)
    found = await reports.find_orphans(store, hours=2, alert_above=5, limit=10)
    assert [(each.session_id, each.hostname) for each in found.orphans] == [(orphan, "gone"), (imported, None)]
    assert isinstance(found.orphans[0].hours_active, float)


@pytest.mark.parametrize(
    ("hours", "alert_above", "alert"), [(2.0, 1, True), (2.0, 2, False), (4.5, 0, True), (9, 0, False)]
)
async def test_the_alert_counts_every_session_that_is_active_for_too_long(
    store: PostgresStore, hours: float, alert_above: int, alert: bool
) -> None:
    await begin(store, "ann", LIVING, 5)
    await begin(store, "ann", DEAD, 4)
    await begin(store, "ann", DEAD, 1)
    found = await reports.find_orphans(store, hours=hours, alert_above=alert_above, limit=10)
    assert found.alert is alert


async def test_closing_orphans_dates_them_when_their_owner_was_last_alive(store: PostgresStore) -> None:
    orphan = await begin(store, "ann", DEAD, 4)
    live = await begin(store, "ann", LIVING, 4)
    (closed,) = await close_orphans(store)
    assert (closed.session_id, closed.end_reason) == (orphan, "owner_died")
    assert closed.duration_seconds == pytest.approx(3600, abs=60)
    assert closed.session_end < datetime.now(UTC) - timedelta(hours=2)
    assert [each.session_id for each in await reports.list_sessions(store, state="active", limit=10)] == [live]
    assert await close_orphans(store) == []


async def test_closing_orphans_leaves_a_session_that_somebody_writes_to(store: PostgresStore) -> None:
    """Its row is locked by an end, or an item, that is about to be committed."""
    orphan, ownerless = await begin(store, "ann", DEAD, 4), await begin(store, "ann", None, 4)

    async def close_meanwhile() -> None:
        async with store._connections.one() as connection, connection.transaction():
            await connection.execute("SELECT FROM conversation_sessions FOR SHARE")
            closed.append(await trio_asyncio.trio_as_aio(close_orphans)(store))

    closed: list[object] = []
    await bounded_call(store._loop, CALL_SECONDS, close_meanwhile)
    assert closed == [[]]
    assert {each.session_id for each in await close_orphans(store)} == {orphan, ownerless}


async def test_a_server_that_comes_back_while_it_is_watched_keeps_its_sessions(store: PostgresStore) -> None:
    """Whatever its heartbeat says: the clock of the database may have been set."""
    await begin(store, "ann", DEAD, 4)
    for heartbeat in ("now() - interval '2 hours'", "now() - interval '5 hours'", "now() + interval '1 hour'"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_nothing_closed, store)
            await trio.sleep(LEASE_SECONDS / 2)
            await store.select(f"UPDATE server_instances SET heartbeat_at = {heartbeat} WHERE instance_id = $1", DEAD)


async def keep_nothing_closed(store: PostgresStore) -> None:
    assert await close_orphans(store) == []


async def test_who_renews_its_lease_before_the_second_look_has_no_orphans(store: PostgresStore) -> None:
    await begin(store, "ann", DEAD, 4)
    found: list[object] = []
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            found.append((await reports.find_orphans(store, hours=9, alert_above=5, limit=10)).orphans)

        nursery.start_soon(look)
        await trio.sleep(reports.SECOND_LOOK_SECONDS / 2)
        await store.select("UPDATE server_instances SET heartbeat_at = now() - interval '20 seconds'")
    assert found == [[]]


async def test_memories_are_of_one_user_or_of_all_and_the_backlog_is_of_all(store: PostgresStore) -> None:
    for user in ("ann", "bob"):
        await store.select("INSERT INTO user_memories (user_id, kind, content) VALUES ($1, 'fact', 'tea')", user)
    session = await begin(store, "cid", LIVING, 1)
    await store.select(SAY, session)
    await store.select(END, session)
    found = await reports.list_memories(store, user="ann", limit=10)
    assert [each.user_id for each in found.memories] == ["ann"]
    assert found.backlog == reports.BacklogReport(pending=1)
    everybody = await reports.list_memories(store, user=None, limit=10)
    assert [each.user_id for each in everybody.memories] == ["ann", "bob"]


async def test_a_memory_that_failed_shows_its_attempts_and_its_error(store: PostgresStore) -> None:
    session = await begin(store, "ann", LIVING, 1)
    await store.select(SAY, session)
    await store.select(END, session)
    await store.fetch("claim_memory", 1, 10.0, None, 330.0, 65_536)
    await store.fetch("fail_memory", session, "model is down", None)
    backlog = (await reports.list_memories(store, user=None, limit=10)).backlog
    assert backlog == reports.BacklogReport(failed=1, attempts_max=1, last_error="model is down")

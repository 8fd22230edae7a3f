"""What is kept too long is deleted in small batches, with nothing left of it, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import trio
from lastcall.config import Settings
from lastcall.limits.limit import Limit
from lastcall.metrics import Metrics
from lastcall.sessions.upkeep.retention import Retention
from lastcall.store.operators import retention
from lastcall.store.operators.retention import DAY_SECONDS, Dropped, Kept, count_old, drop_old
from lastcall.store.postgres import PostgresStore
from lastcall.store.records import SessionStart

from .world import PostgresWorld, end, item, registered, soon, transaction

BOTH_FORMS = True

TRANSCRIPTS, SESSIONS, AUDIT = Kept(transcript_days=30), Kept(session_days=30), Kept(audit_days=30)
LOCK = "SELECT pg_advisory_xact_lock(hashtext('lastcall retention'))"


@pytest.fixture
async def world(postgres_store: PostgresStore) -> PostgresWorld:
    return await registered(postgres_store)


async def talk(
    world: PostgresWorld, *texts: str, days: float = 40.0, finalized: bool = True, **changes: Any
) -> SessionStart:
    """An ended session that began so many days ago."""
    start = await world.begin(age=days * DAY_SECONDS, **changes)
    await world.append(*[item(start, text, position=position) for position, text in enumerate(texts)])
    await world.store.end_session(end(start))
    if finalized and texts:
        await world.finalize(start.session_id)
    return start


async def drop(world: PostgresWorld, kept: Kept, **how: bool) -> list[Dropped]:
    batches: list[Dropped] = []

    async def note(dropped: Dropped) -> None:
        batches.append(dropped)
        await trio.lowlevel.checkpoint()

    await drop_old(world.store, kept, note, **how)
    return batches


async def count(world: PostgresWorld, table: str) -> int:
    return int((await world.sql(f"SELECT count(*) AS rows FROM {table}"))[0]["rows"])


async def sessions(world: PostgresWorld) -> set[UUID]:
    return {row["session_id"] for row in await world.sql("SELECT session_id FROM conversation_sessions")}


async def test_old_transcripts_go_and_what_is_remembered_stays(world: PostgresWorld) -> None:
    old = await talk(world, "My name is Ada.", "I live in Turin.")
    young = await talk(world, "I like tea.", days=20.0)
    assert await count_old(world.store, TRANSCRIPTS) == Dropped(messages=2)
    assert sum(await drop(world, TRANSCRIPTS), Dropped()) == Dropped(messages=2)
    assert await world.contents(old.conversation_id) == []
    assert await world.contents(young.conversation_id) == ["I like tea."]
    assert await sessions(world) == {old.session_id, young.session_id}
    known = {each.quote: each for each in await world.store.known_memories("ada", 10)}
    assert known.keys() == {"My name is Ada.", "I live in Turin.", "I like tea."}
    assert known["My name is Ada."].source_item_id is None
    assert known["I like tea."].source_item_id is not None
    assert await world.sql("SELECT session_id FROM recall_passages") == [(young.session_id,)]


async def test_superseded_memories_lose_their_item_too(world: PostgresWorld) -> None:
    await talk(world, "I live in Turin.")
    await talk(world, "I live in Oslo.", days=35.0)
    assert await count(world, "superseded_memories") == 1
    await drop(world, TRANSCRIPTS)
    assert await world.sql("SELECT source_item_id FROM superseded_memories") == [(None,)]
    assert [each.quote for each in await world.store.known_memories("ada", 10)] == ["I live in Oslo."]


async def test_a_session_goes_with_all_that_is_its_own(world: PostgresWorld) -> None:
    old = await talk(world, "My name is Ada.")
    both = await talk(world, "I like tea.")
    young = await talk(world, "I like boats.", days=1.0, conversation_id=both.conversation_id)
    assert await count_old(world.store, SESSIONS) == Dropped(messages=2, sessions=2)
    assert sum(await drop(world, SESSIONS), Dropped()) == Dropped(messages=2, sessions=2)
    assert await sessions(world) == {young.session_id}
    assert await world.history(old.conversation_id, "ada", 10) is None
    assert [each.content for each in await world.history(both.conversation_id, "ada", 10) or ()] == ["I like boats."]
    assert len(await world.store.known_memories("ada", 10)) == 3


async def test_what_is_not_over_is_kept(world: PostgresWorld) -> None:
    active = await world.begin(age=40 * DAY_SECONDS)
    await world.append(item(active))
    pending = await talk(world, "I like tea.", finalized=False)
    assert await count_old(world.store, SESSIONS) == Dropped()
    assert sum(await drop(world, SESSIONS), Dropped()) == Dropped()
    assert await sessions(world) == {active.session_id, pending.session_id}
    assert await count(world, "messages") == 2


async def test_a_batch_is_small(world: PostgresWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MESSAGES_MAX", 4)
    monkeypatch.setattr(retention, "SESSIONS_MAX", 2)
    for number in range(5):
        await talk(world, *[f"I like tea {number} {each}." for each in range(3)], days=40.0 + number)
    dropped = await drop(world, SESSIONS)
    assert max(each.messages for each in dropped) == 4
    assert max(each.sessions for each in dropped) == 2
    assert sum(dropped, Dropped()) == Dropped(messages=15, sessions=5)
    assert await count(world, "conversations") == 0


async def test_sessions_of_the_same_moment_are_all_found(world: PostgresWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SESSIONS_MAX", 2)
    await world.sql("INSERT INTO conversations (user_id) SELECT 'bob' FROM generate_series(1, 5)")
    await world.sql(
        "INSERT INTO conversation_sessions (conversation_id, user_id, is_active, session_start, session_end)"
        " SELECT conversation_id, user_id, false, '2020-01-01Z', '2020-01-01Z' FROM conversations WHERE user_id = 'bob'"
    )
    assert sum(await drop(world, SESSIONS), Dropped()).sessions == 5
    assert await sessions(world) == set()


async def test_one_server_at_a_time(world: PostgresWorld) -> None:
    await talk(world, "I like tea.")
    async with trio.open_nursery() as nursery, transaction(world) as other:
        await other(LOCK)
        assert await drop(world, TRANSCRIPTS) == []
        done = trio.Event()

        async def wait() -> None:
            assert sum(await drop(world, TRANSCRIPTS, patient=True), Dropped()) == Dropped(messages=1)
            done.set()

        nursery.start_soon(wait)
        await soon(lambda: _waits(world))
        assert not done.is_set()


async def _waits(world: PostgresWorld) -> bool:
    return bool(await world.sql("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))


async def test_a_conversation_that_somebody_resumes_is_kept(world: PostgresWorld) -> None:
    old = await talk(world, "I like tea.")
    async with transaction(world) as other:
        await other("SELECT FROM conversations WHERE conversation_id = $1 FOR KEY SHARE", old.conversation_id)
        assert sum(await drop(world, SESSIONS), Dropped()) == Dropped(messages=1, sessions=1)
    resumed = await world.begin(conversation_id=old.conversation_id)
    assert await sessions(world) == {resumed.session_id}


async def test_old_lines_of_the_audit_log_go(world: PostgresWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LINES_MAX", 2)
    for days in (50, 40, 35, 31, 29, 1):
        await world.sql(
            "INSERT INTO audit_log (done_at, actor, via, action, target)"
            " VALUES (now() - make_interval(days => $1), 'olga', 'api', 'session.close', $1::text)",
            days,
        )
    assert await count_old(world.store, AUDIT) == Dropped(audit_lines=4)
    assert [each.audit_lines for each in await drop(world, AUDIT)] == [2, 2, 0]
    assert await world.sql("SELECT target FROM audit_log ORDER BY audit_id") == [("29",), ("1",)]


async def test_a_server_does_it_by_itself_and_counts_it(world: PostgresWorld) -> None:
    await talk(world, "I like tea.")
    settings, metrics = replace(Settings(), transcript_days=30.0), Metrics(Limit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Retention(world.store, settings, metrics).run)
        await soon(lambda: _is_empty(world, "messages"))
        nursery.cancel_scope.cancel()
    assert metrics.registry.get_sample_value("lastcall_rows_dropped_total", {"table": "messages"}) == 1


async def test_a_server_that_keeps_everything_deletes_nothing(world: PostgresWorld) -> None:
    await talk(world, "I like tea.")
    await Retention(world.store, Settings(), Metrics(Limit)).run()
    assert await count(world, "messages") == 1


async def _is_empty(world: PostgresWorld, table: str) -> Any:
    return await count(world, table) == 0

"""The outbox of webhooks: every end and every finished memory is in it once, and it is worked off with claims."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.protocol.ids import public_id
from lastcall.sessions.orphans import close_orphans
from lastcall.store.errors import InvalidRow
from lastcall.store.operators.acts import close_session
from lastcall.store.people.reports import erase_user, export_user
from lastcall.store.postgres import PostgresStore
from lastcall.store.records import FinishedMemory, SessionStart
from lastcall.store.webhooks import outbox
from lastcall.store.webhooks.endpoints import (
    EVENTS,
    NewEndpoint,
    add_endpoint,
    list_endpoints,
    queue_test,
    remove_endpoint,
    retry_deliveries,
)
from lastcall.store.webhooks.outbox import ClaimedDelivery, claim_deliveries, settle_delivery

from tests.support.databases import person
from tests.support.operators import OPERATOR

from .world import WAIT_SECONDS, PostgresWorld, end, gather, item, key_of, memory, registered

ROOM = 4
CLOSE = "UPDATE conversation_sessions SET is_active = false"
UNDONE = "UPDATE conversation_sessions SET memory_status = 'pending', memory_finalized_at = NULL, memory_due_at = now()"
CLOSED = "INSERT INTO conversation_sessions (user_id, is_active, end_reason) VALUES ('ada', false, 'by_hand')"
AGED = "UPDATE webhook_deliveries SET {} = {} - make_interval(secs => $1)"


@pytest.fixture
async def world(postgres_store: PostgresStore) -> PostgresWorld:
    return await registered(postgres_store)


async def endpoint(world: PostgresWorld, *events: str, url: str = "https://example.com/") -> UUID:
    new = NewEndpoint(url, events or EVENTS, b"s" * 32)
    assert await add_endpoint(world.store, new, OPERATOR)
    return new.endpoint_id


async def queued(world: PostgresWorld) -> Sequence[Any]:
    return await world.sql("SELECT * FROM webhook_deliveries ORDER BY delivery_id")


async def claim(world: PostgresWorld, room: int = ROOM, **room_of: int) -> Sequence[ClaimedDelivery]:
    return await claim_deliveries(world.store, room, {UUID(key): value for key, value in room_of.items()})


async def settle(world: PostgresWorld, claimed: ClaimedDelivery, *, accepted: bool = False, after: float = 60.0) -> Any:
    return await settle_delivery(
        world.store, claimed, accepted=accepted, status=204 if accepted else 500, error="HTTP 500", retry_after=after
    )


# --- what is reported


async def by_its_owner(world: PostgresWorld, start: SessionStart) -> None:
    await world.store.end_session(end(start))


async def by_a_shutdown(world: PostgresWorld, _start: SessionStart) -> None:
    await world.store.close_instance_sessions(world.instance_id, [])


async def by_the_reaper(world: PostgresWorld, _start: SessionStart) -> None:
    await world.silence(60.0)
    (suspect,) = await world.store.suspects(None)
    await world.store.reap(suspect, uuid4())


async def by_an_operator(world: PostgresWorld, start: SessionStart) -> None:
    await close_session(world.store, start.session_id, OPERATOR, "noon")


async def with_sql(world: PostgresWorld, start: SessionStart) -> None:
    await world.close_by_hand(start.session_id)


async def with_its_conversation(world: PostgresWorld, start: SessionStart) -> None:
    await world.store.delete_conversation(start.conversation_id, "ada")


async def as_an_orphan(world: PostgresWorld, _start: SessionStart) -> None:
    await world.sql(f"{CLOSE} WHERE is_active")
    await world.sql("DELETE FROM webhook_deliveries")
    await world.sql("INSERT INTO conversation_sessions (user_id) VALUES ('ada')")
    await close_orphans(world.store)


WAYS = (by_its_owner, by_a_shutdown, by_the_reaper, by_an_operator, with_sql, with_its_conversation, as_an_orphan)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_whoever_closes_a_session_it_is_reported_once(
    world: PostgresWorld, way: Callable[[PostgresWorld, SessionStart], Awaitable[None]]
) -> None:
    await endpoint(world, "session.ended")
    await way(world, await world.begin(age=1.0))
    (row,) = await queued(world)
    ((session_id, reason),) = await world.sql(
        "SELECT session_id, end_reason FROM conversation_sessions ORDER BY session_start DESC LIMIT 1"
    )
    assert (row["session_id"], json.loads(row["body"])["data"]["end_reason"]) == (session_id, reason)
    await world.sql(CLOSE)
    assert len(await queued(world)) == 1


async def test_a_revoked_key_reports_the_sessions_that_it_began(world: PostgresWorld) -> None:
    await endpoint(world, "session.ended")
    key = await key_of(world)
    await world.begin(credential_id=key.credential_id)
    await world.revoke(key.credential_id)
    assert [row["event"] for row in await queued(world)] == ["session.ended"]


async def test_an_end_that_is_taken_back_is_not_reported(world: PostgresWorld, database_url: str) -> None:
    await endpoint(world)
    start = await world.begin()
    with person(
        database_url, f"UPDATE conversation_sessions SET is_active = false WHERE session_id = '{start.session_id}'"
    ):
        pass
    assert await queued(world) == []


async def test_nothing_is_stored_where_nobody_wants_it(world: PostgresWorld) -> None:
    removed, _ = await endpoint(world), await endpoint(world, "memory.done")
    await remove_endpoint(world.store, removed, OPERATOR)
    await world.store.end_session(end(await world.begin()))
    await world.sql(CLOSED)  # as an import does
    assert await queued(world) == []


async def test_an_event_tells_who_when_why_and_how_much_and_nothing_that_was_said(world: PostgresWorld) -> None:
    await endpoint(world, "session.ended")
    start = await world.begin(age=10.0)
    await world.append(item(start, "my secret"), item(start, "indeed", role="assistant", position=1))
    await world.store.end_session(end(start, age=2.0))
    (row,) = await queued(world)
    event, data = json.loads(row["body"]), json.loads(row["body"])["data"]
    session = await world.session(start.session_id)
    assert (event["type"], row["user_id"], set(event)) == ("session.ended", "ada", {"type", "timestamp", "data"})
    assert data == {
        "session_id": public_id("sess", start.session_id),
        "conversation_id": public_id("conv", start.conversation_id),
        "user": "ada",
        "started_at": pytest.approx(session.session_start, abs=1e-3),
        "ended_at": pytest.approx(session.session_end, abs=1e-3),
        "row_closed_at": pytest.approx(session.ended_at, abs=1e-3),
        "seconds": pytest.approx(8.0, abs=0.5),
        "end_reason": "client_closed",
        "close_code": 1000,
        "memory_status": "pending",
        "messages": 2,
        "user_messages": 1,
    }
    assert "secret" not in row["body"]


async def test_finished_memory_is_reported_with_how_much_was_kept(world: PostgresWorld) -> None:
    await endpoint(world, "memory.done")
    start = await world.spoken("ada", "My name is Ada.")
    claims = await world.store.claim_memory(1, 60.0)
    assert await queued(world) == []
    kept = [memory("is called Ada"), memory("lives in Oslo")]
    await world.store.finish_memory([FinishedMemory(start.session_id, kept)])
    await world.store.finish_memory([FinishedMemory(start.session_id, kept)])
    (row,) = await queued(world)
    data = json.loads(row["body"])["data"]
    assert (row["event"], data["memories"], data["memory_attempts"]) == ("memory.done", 2, claims[0].attempts)
    assert data["session_id"] == public_id("sess", start.session_id)
    assert "Oslo" not in row["body"]


async def test_what_is_reported_again_after_a_crash_of_the_database_has_the_same_id(world: PostgresWorld) -> None:
    """Its commit does not wait for the disk: a crash may take back what was delivered already."""
    await endpoint(world, "memory.done")
    start = await world.spoken()
    await world.finalize(start.session_id)
    await world.sql(
        "UPDATE conversation_sessions SET memory_status = 'pending', memory_finalized_at = NULL, memory_due_at = now()"
    )
    await world.finalize(start.session_id)
    first, again = await queued(world)
    assert first["event_id"] == again["event_id"]


async def test_events_of_all_endpoints_and_kinds_differ_where_they_are_others(world: PostgresWorld) -> None:
    await endpoint(world)
    await endpoint(world, url="https://example.org/")
    for _ in range(2):
        await world.finalize((await world.spoken()).session_id)
    rows = await queued(world)
    assert len(rows) == 8
    assert len({row["event_id"] for row in rows}) == 4
    assert len({(row["event"], row["session_id"], row["event_id"]) for row in rows}) == 4


async def test_whoever_holds_an_endpoint_holds_up_no_end(world: PostgresWorld, database_url: str) -> None:
    await endpoint(world)
    start = await world.begin()
    with person(database_url, "SELECT FROM webhook_endpoints FOR UPDATE", "UPDATE webhook_endpoints SET url = url"):
        with trio.fail_after(WAIT_SECONDS):
            assert await world.store.end_session(end(start))
    assert len(await queued(world)) == 1


async def test_a_user_is_given_what_was_queued_and_nothing_is_left_once_they_are_erased(world: PostgresWorld) -> None:
    await endpoint(world)
    for user in ("ada", "eve"):
        await world.finalize((await world.spoken(user)).session_id)
    (claimed, *_) = await claim(world)
    exported = [record async for kind, record in export_user(world.store, "ada") if kind == "webhook_deliveries"]
    assert [record["event"] for record in exported] == ["session.ended", "memory.done"]
    await erase_user(world.store, "ada", OPERATOR)
    assert {row["user_id"] for row in await queued(world)} == {"eve"}
    assert await settle(world, claimed, accepted=True) is None


# --- endpoints


async def test_every_server_hears_of_changed_endpoints_whoever_changes_them(world: PostgresWorld) -> None:
    heard = trio.Event()

    async def once_heard() -> None:
        nonlocal heard
        with trio.fail_after(WAIT_SECONDS):
            await heard.wait()
        heard = trio.Event()

    async with world.store.open_lease_connection(world.instance_id) as connection:
        connection.hear_webhooks_with(lambda: heard.set())
        assert not await outbox.has_endpoints(world.store)
        added = await endpoint(world)
        await once_heard()
        assert await outbox.has_endpoints(world.store)
        await remove_endpoint(world.store, added, OPERATOR)
        await once_heard()
        assert await outbox.has_endpoints(world.store), "its deliveries may have to be deleted"
        await world.sql("DELETE FROM webhook_endpoints")
        await once_heard()
        assert not await outbox.has_endpoints(world.store)


# --- claims


async def test_a_delivery_is_claimed_by_one_server_at_a_time(world: PostgresWorld) -> None:
    await endpoint(world, "session.ended")
    for _ in range(6):
        await world.store.end_session(end(await world.begin()))
    claims = await gather(*[lambda: claim(world, 2) for _ in range(4)])
    claimed = [each.delivery_id for some in claims for each in some]
    assert len(claimed) == len(set(claimed)) == 6


async def test_a_claim_that_ran_out_is_taken_over_and_its_late_answer_counts(world: PostgresWorld) -> None:
    tested = await queue_test(world.store, await endpoint(world), OPERATOR)
    assert tested is not None
    (first,) = await claim(world)
    assert await claim(world) == []
    await world.sql(AGED.format("due_at", "due_at"), outbox.CLAIM_SECONDS)
    (second,) = await claim(world)
    assert (second.event_id, second.attempts) == (first.event_id, 2) == (tested.event_id, 2)
    assert await settle(world, first) is None, "the try of somebody else goes on"
    assert await settle(world, first, accepted=True) == "delivered"
    assert await settle(world, second) is None


@pytest.mark.parametrize("attempts", [0, 1])
async def test_a_delivery_that_somebody_holds_holds_up_no_claim(
    world: PostgresWorld, database_url: str, attempts: int
) -> None:
    where = await endpoint(world)
    for _ in range(2):
        await queue_test(world.store, where, OPERATOR)
    held, free = (row["delivery_id"] for row in await queued(world))
    if attempts:
        for each in await claim(world):
            await settle(world, each, after=0.0)
    with person(database_url, f"SELECT FROM webhook_deliveries WHERE delivery_id = {held} FOR UPDATE"):
        with trio.fail_after(WAIT_SECONDS):
            assert [each.delivery_id for each in await claim(world)] == [free]


async def test_what_was_never_tried_comes_before_what_failed(world: PostgresWorld) -> None:
    where = await endpoint(world)
    await queue_test(world.store, where, OPERATOR)
    (failed,) = await claim(world)
    await settle(world, failed, after=0.0)
    await queue_test(world.store, where, OPERATOR)
    order = [each.delivery_id for _ in range(2) for each in await claim(world, 1)]
    assert order == [failed.delivery_id + 1, failed.delivery_id]


async def test_what_is_sent_no_crash_of_the_database_takes_back(world: PostgresWorld) -> None:
    """Else it would be reported again, with another date: memory is stored without waiting for the disk."""
    await endpoint(world, "memory.done")
    for _ in range(3):
        await world.finalize((await world.spoken()).session_id)
        ((written,),) = await world.sql("SELECT pg_current_wal_insert_lsn()::text")
        assert len(await claim(world)) == 1
        assert await world.sql("SELECT pg_current_wal_flush_lsn() >= $1::text::pg_lsn", written) == [(True,)]


async def test_each_endpoint_has_room_of_its_own(world: PostgresWorld) -> None:
    full, free = await endpoint(world), await endpoint(world, url="https://example.org/")
    for each in (full, free, full, free, full, free):
        await queue_test(world.store, each, OPERATOR)
    claims = await claim_deliveries(world.store, 2, {full: 1})
    assert sorted(each.endpoint_id == full for each in claims) == [False, False, True]
    assert {each.url for each in await claim_deliveries(world.store, 2, {full: 0})} == {"https://example.org/"}


async def test_tries_and_age_are_bounded_and_what_failed_is_kept_and_retried(world: PostgresWorld) -> None:
    where = await endpoint(world)
    await queue_test(world.store, where, OPERATOR)
    states = []
    for _ in range(outbox.TRIES_MAX):
        (claimed,) = await claim(world)
        states.append(await settle(world, claimed, after=0.0))
    assert states == ["pending"] * (outbox.TRIES_MAX - 1) + ["failed"]
    assert await claim(world) == []
    (listed,) = await list_endpoints(world.store)
    assert (listed.pending, listed.failed) == (0, 1)

    assert await retry_deliveries(world.store, OPERATOR, endpoint_id=where) == 1
    (claimed,) = await claim(world)
    assert claimed.attempts == 1
    await world.sql(AGED.format("tried_since", "tried_since"), outbox.AGE_SECONDS_MAX + 1)
    assert await settle(world, claimed) == "failed"


async def test_what_waits_is_sent_at_once_by_a_retry_and_what_is_being_sent_is_not(world: PostgresWorld) -> None:
    where = await endpoint(world)
    for _ in range(2):
        await queue_test(world.store, where, OPERATOR)
    waiting, _sending = await claim(world)
    await settle(world, waiting, after=3600.0)
    assert await retry_deliveries(world.store, OPERATOR) == 1
    assert [each.delivery_id for each in await claim(world)] == [waiting.delivery_id]


@pytest.mark.parametrize("attempts", [0, 1])
async def test_a_clock_that_was_set_back_strands_nothing(world: PostgresWorld, attempts: int) -> None:
    await queue_test(world.store, await endpoint(world), OPERATOR)
    if attempts:
        (claimed,) = await claim(world)
        await settle(world, claimed)
    await world.sql("UPDATE webhook_deliveries SET due_at = due_at + '1 day', created_at = created_at + '1 day'")
    assert len(await claim(world)) == 1
    assert (await outbox.read_backlog(world.store)).oldest_seconds == 0


async def test_claims_are_given_back_as_if_they_had_not_been(world: PostgresWorld) -> None:
    await queue_test(world.store, await endpoint(world), OPERATOR)
    await outbox.release_deliveries(world.store, await claim(world))
    (claimed,) = await claim(world)
    assert claimed.attempts == 1


async def test_old_deliveries_and_those_of_removed_endpoints_go(world: PostgresWorld) -> None:
    kept, removed = await endpoint(world), await endpoint(world)
    for each in (kept, kept, kept, removed):
        await queue_test(world.store, each, OPERATOR)
    delivered, failed, *_ = await claim(world)
    await settle(world, delivered, accepted=True)
    await world.sql("UPDATE webhook_deliveries SET attempts = $2 WHERE delivery_id = $1", failed.delivery_id, 12)
    await world.sql(
        "UPDATE webhook_deliveries SET state = 'failed', finished_at = now() WHERE delivery_id = $1", failed.delivery_id
    )
    await remove_endpoint(world.store, removed, OPERATOR)
    assert await outbox.delete_old_deliveries(world.store) == 1, "that of the removed endpoint"
    await world.sql(AGED.format("finished_at", "finished_at"), outbox.DELIVERED_SECONDS + 1)
    assert await outbox.delete_old_deliveries(world.store) == 1
    await world.sql(AGED.format("finished_at", "finished_at"), outbox.FAILED_SECONDS)
    assert await outbox.delete_old_deliveries(world.store) == 1
    await world.sql("UPDATE webhook_endpoints SET removed_at = removed_at - interval '2 hours'")
    await outbox.delete_old_deliveries(world.store)
    assert await world.sql("SELECT endpoint_id FROM webhook_endpoints") == [(kept,)]
    assert (await outbox.read_backlog(world.store)).pending == 1


async def test_there_is_a_most_of_endpoints(world: PostgresWorld) -> None:
    for _ in range(outbox.ENDPOINTS_MAX):
        last = await endpoint(world)
    new = NewEndpoint("https://example.com/", EVENTS, b"s" * 32)
    assert not await add_endpoint(world.store, new, OPERATOR)
    assert await remove_endpoint(world.store, last, OPERATOR)
    assert not await remove_endpoint(world.store, last, OPERATOR)
    assert await add_endpoint(world.store, new, OPERATOR)


@pytest.mark.parametrize(
    "columns", ["'{session.began}', sha256('x')", "'{}', sha256('x')", "'{memory.done}', 'x'"], ids=str
)
async def test_the_schema_refuses_what_cannot_be_sent(world: PostgresWorld, columns: str) -> None:
    with pytest.raises(InvalidRow, match="violates check constraint"):
        await world.sql(f"INSERT INTO webhook_endpoints (url, events, secret) VALUES ('https://x/', {columns})")

"""Batches of writes on PostgreSQL: how they are dated, and the bulk close of an instance that leaves."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from lastcall.store.errors import ItemExists, ItemNotFound
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.batch import NONE, BulkClose
from msgspec.structs import replace

from .world import CLOSE_TO, WAIT_SECONDS, PostgresWorld, batch, deletion, end, item, registered, start_row

ASKED_SECONDS_AGO = 5.0


@pytest.fixture
async def world(postgres_store: PostgresStore) -> PostgresWorld:
    return await registered(postgres_store)


async def test_ages_count_from_when_a_batch_was_sent(world: PostgresWorld) -> None:
    sql = "SELECT commit_batch(now() - make_interval(secs => $2), make_interval(secs => $2 + 1), $1)"
    await world.sql(sql, batch(starts=[start_row(world)]), ASKED_SECONDS_AGO)
    [row] = await world.sql("SELECT extract(epoch FROM now() - session_start)::float8 FROM conversation_sessions")
    assert row[0] == pytest.approx(ASKED_SECONDS_AGO, abs=1.0)


async def test_of_two_ends_in_one_batch_the_first_is_the_end(world: PostgresWorld) -> None:
    start = await world.begin()
    ends = [end(start, close_code=code) for code in (1000, 1001)]
    assert await world.store._commit(ends) == [{start.session_id}, NONE]
    assert (await world.session(start.session_id)).close_code == 1000


async def test_a_batch_keeps_the_order_of_items_and_deletions_of_one_id(world: PostgresWorld) -> None:
    """Also where it is committed again, since the answer to its first commit was lost."""
    start, other = await world.begin(), await world.begin()
    rows = [item(start, text, item_id="a", position=number) for number, text in enumerate(("one", "two", "three"))]
    gone = [replace(row, deleted=True) for row in rows]
    await world.append(rows[0])
    writes: list[Any] = [deletion(start, "a"), (item(other, "a bystander's", item_id="a"),)]
    writes += [(rows[1],), deletion(start, "a"), (rows[2],)]
    for _ in range(2):
        assert await world.store._commit(writes) == [NONE] * len(writes)
        assert await world.items(start.conversation_id) == [*gone[:-1], rows[-1]]
    for _ in range(2):
        assert await world.store._commit([*writes, deletion(start, "a")]) == [NONE] * (len(writes) + 1)
        assert await world.items(start.conversation_id) == gone
    assert await world.contents(other.conversation_id) == ["a bystander's"]


async def test_a_deletion_of_what_is_created_behind_it_in_its_batch_finds_nothing(world: PostgresWorld) -> None:
    start = await world.begin()
    row = item(start, item_id="a")
    first, *others = await world.store._commit([deletion(start, "a"), (row,)])
    assert isinstance(first, ItemNotFound)
    assert others == [NONE]
    assert await world.items(start.conversation_id) == [row]


async def test_a_batch_that_fails_in_its_second_statement_stores_nothing(world: PostgresWorld) -> None:
    start = await world.begin()
    old, taken = item(start, "old", item_id="a"), item(start, "taken", item_id="b", position=1)
    await world.append(old, taken)
    again = (item(start, "new", item_id="a"), item(start, "bad", item_id="b"))
    with pytest.raises(ItemExists):
        await world.store._commit([deletion(start, "a"), again])
    assert await world.items(start.conversation_id) == [old, taken]


# --- the bulk close


async def late_bulk_close(world: PostgresWorld, *before: object) -> None:
    """Commits, with other writes before it, a bulk close that was asked for `ASKED_SECONDS_AGO`."""
    close = BulkClose(world.instance_id, trio.current_time() - ASKED_SECONDS_AGO)
    await world.store._commit([*before, close])  # type: ignore[list-item]


async def test_items_stored_with_a_bulk_close_do_not_date_it(world: PostgresWorld) -> None:
    """They were unfinished when it was asked for."""
    start = await world.begin(age=60.0)
    unfinished = item(start, "Well, ", role="assistant", status="incomplete")
    await late_bulk_close(world, (unfinished,))
    assert await world.items(start.conversation_id) == [unfinished]
    row = await world.session(start.session_id)
    assert row.ended_at is not None
    assert row.session_end == pytest.approx(row.ended_at - ASKED_SECONDS_AGO, abs=CLOSE_TO)


async def test_an_item_stored_since_a_bulk_close_was_asked_for_dates_it(world: PostgresWorld) -> None:
    """One that was on its way then; a session does not end before its last item."""
    start = await world.begin(age=60.0)
    await world.append(item(start))
    [row] = await world.sql("SELECT extract(epoch FROM max(created_at))::float8 FROM messages")
    await late_bulk_close(world)
    assert (await world.session(start.session_id)).session_end == pytest.approx(row[0], abs=0.001)


async def test_an_instance_is_not_notified_of_its_own_bulk_close(world: PostgresWorld) -> None:
    await world.begin()
    async with world.store.open_lease_connection(world.instance_id) as connection:
        assert await world.store.close_instance_sessions(world.instance_id, ())
        other = await world.begin()
        await world.close_by_hand(other.session_id)
        with trio.fail_after(WAIT_SECONDS):
            await connection.news()
        assert connection.closed_by_others() == [other.session_id]


async def test_an_instance_that_was_declared_dead_does_not_stop(world: PostgresWorld) -> None:
    """Its row keeps saying that it was declared dead."""
    await world.declare_dead(world.instance_id)
    await world.store.stop_instance(world.instance_id)
    [row] = await world.sql("SELECT stopped_at FROM server_instances")
    assert row["stopped_at"] is None

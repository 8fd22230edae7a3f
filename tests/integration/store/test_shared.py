"""Sessions that are open in one conversation: each is told what the others store and delete."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.store.conversations.seam import ItemKey
from lastcall.store.errors import StoreUnavailable
from lastcall.store.postgres import PostgresStore
from lastcall.store.records import PAGE_BYTES_MAX, SessionStart
from msgspec.structs import asdict

from tests.support.instances import instance

from .world import (
    WAIT_SECONDS,
    WITHIN,
    PostgresWorld,
    World,
    batch,
    deletion,
    end,
    item,
    registered,
    soon,
    transaction,
)

BEFORE_ALL = (-(1 << 63), UUID(int=0))
LISTED_MAX = 200  # ids that a notification lists


class Heard:
    """What the lease connections of some instances have heard."""

    def __init__(self) -> None:
        self.changes: list[tuple[UUID, Sequence[UUID] | None]] = []
        self._news = trio.Event()

    def add(self, session_id: UUID, message_ids: Sequence[UUID] | None) -> None:
        self.changes.append((session_id, message_ids))
        self._news.set()

    async def next(self) -> tuple[UUID, Sequence[UUID] | None]:
        """Waits, within a bound, for the next one."""
        with trio.fail_after(WAIT_SECONDS):
            while not self.changes:
                self._news = trio.Event()
                await self._news.wait()
        return self.changes.pop(0)


@asynccontextmanager
async def listening(world: World, *instance_ids: UUID) -> AsyncIterator[Heard]:
    heard = Heard()
    async with AsyncExitStack() as stack:
        for instance_id in instance_ids:
            connection = await stack.enter_async_context(world.store.open_lease_connection(instance_id))
            connection.hear_changes_with(heard.add)
        yield heard


async def two(world: World) -> tuple[SessionStart, SessionStart]:
    """Two sessions in one conversation, on two instances."""
    other = uuid4()
    await world.store.register_instance(instance(other))
    one = await world.begin()
    return one, await world.begin(conversation_id=one.conversation_id, instance_id=other)


async def test_a_session_that_is_alone_shares_nothing(world: World) -> None:
    one = await world.begin()
    elsewhere = await world.begin()
    await world.store.end_session(end(elsewhere))
    assert not await world.store.share_conversation(one.session_id)
    assert await world.store.shared_among([one.session_id, elsewhere.session_id]) == []


async def test_what_another_stored_and_then_left_may_have_been_missed(world: World) -> None:
    """Its history was loaded before, and it was not told: it has to look, though it is alone by now."""
    one, other = await two(world)
    await world.append(item(one))
    await world.store.end_session(end(one))
    assert await world.store.share_conversation(other.session_id)
    assert await world.store.shared_among([other.session_id]) == []


async def test_each_is_told_what_the_others_store_and_delete_and_nothing_of_its_own(world: World) -> None:
    one, other = await two(world)
    async with listening(world, one.instance_id, other.instance_id) as heard:
        assert await world.store.share_conversation(other.session_id)
        assert await heard.next() == (one.session_id, None)  # what was stored so far it was not told
        assert await world.store.share_conversation(one.session_id)
        first, second = item(one, position=1), item(one, position=2)
        await world.append(first, second)
        told, ids = await heard.next()
        assert (told, set(ids or ())) == (other.session_id, {first.message_id, second.message_id})
        await world.store.delete_item(deletion(other, first.item_id), within=WITHIN)
        assert await heard.next() == (one.session_id, [first.message_id])
        third = item(other, position=3)
        await world.append(third)
        assert await heard.next() == (one.session_id, [third.message_id])
        assert heard.changes == []
    assert set(await world.store.shared_among([one.session_id, other.session_id, uuid4()])) == {
        one.session_id,
        other.session_id,
    }


async def test_nothing_is_told_before_it_is_asked_for_or_of_items_that_are_deleted_as_they_are_stored(
    world: World,
) -> None:
    one, other = await two(world)
    async with listening(world, one.instance_id, other.instance_id) as heard:
        await world.append(item(one, position=1))
        await world.store.share_conversation(one.session_id)
        assert await heard.next() == (other.session_id, None)
        await world.append(item(one, position=2, deleted=True))
        last = item(one, position=3)
        await world.append(last)
        assert await heard.next() == (other.session_id, [last.message_id])
        assert heard.changes == []


async def test_who_has_ended_is_told_nothing(world: World) -> None:
    one, other = await two(world)
    third = await world.begin(conversation_id=one.conversation_id)
    await world.store.share_conversation(third.session_id)
    await world.store.end_session(end(other))
    async with listening(world, one.instance_id, other.instance_id) as heard:
        said = item(one)
        await world.append(said)
        assert await heard.next() == (third.session_id, [said.message_id])
        assert heard.changes == []


async def test_changed_items_come_in_order_and_deleted_ones_without_their_text(world: World) -> None:
    one, elsewhere = await world.begin(), await world.begin()
    late, early, gone = item(one, "late", position=3), item(one, "early", position=1), item(one, "gone", position=2)
    await world.append(late, early, gone)
    foreign = item(elsewhere)
    await world.append(foreign)
    await world.store.delete_item(deletion(one, gone.item_id), within=WITHIN)
    asked = [each.message_id for each in (late, early, gone, foreign)] + [uuid4()]
    rows = await world.store.changed_items(one.conversation_id, one.user_id, asked)
    assert [(row.message_id, row.content, row.deleted) for row in rows] == [
        (early.message_id, "early", False),
        (gone.message_id, "", True),
        (late.message_id, "late", False),
    ]
    assert await world.store.deleted_among(one.user_id, asked) == [gone.message_id]
    keys = [ItemKey(each.position, each.message_id, each.item_id) for each in (early, late)]
    assert await world.store.item_keys(one.conversation_id, one.user_id, BEFORE_ALL, 9) == keys
    assert await world.store.item_keys(one.conversation_id, one.user_id, BEFORE_ALL, 1) == keys[:1]
    assert await world.store.item_keys(one.conversation_id, one.user_id, (1, early.message_id), 9) == keys[1:]


async def test_a_read_of_changed_items_is_bounded_by_bytes(world: World) -> None:
    one = await world.begin()
    long = [item(one, "x" * (PAGE_BYTES_MAX // 2 + 1), position=position) for position in range(3)]
    for each in long:
        await world.append(each)
    rows = await world.store.changed_items(one.conversation_id, one.user_id, [each.message_id for each in long])
    assert [row.position for row in rows] == [0, 1]


# --- on PostgreSQL alone


@pytest.fixture
async def postgres(postgres_store: PostgresStore) -> PostgresWorld:
    return await registered(postgres_store)


async def test_who_left_before_is_of_no_concern(postgres: PostgresWorld) -> None:
    before = await postgres.begin()
    await postgres.store.end_session(end(before))
    async with transaction(postgres) as ask:
        await ask("SET LOCAL session_replication_role = replica")  # so that an end can be of another time
        times = ", ".join(
            f"{each} = {each} - interval '6 seconds'" for each in ("session_start", "session_end", "ended_at")
        )
        await ask(f"UPDATE conversation_sessions SET {times} WHERE session_id = $1", before.session_id)
        await ask("COMMIT")
    start = await postgres.begin(conversation_id=before.conversation_id)
    assert not await postgres.store.share_conversation(start.session_id)


async def test_a_commit_under_way_is_waited_for_so_that_it_is_either_told_or_seen(postgres: PostgresWorld) -> None:
    """Also where both sessions were told of changes before, and a third one comes."""
    one, _ = await two(postgres)
    for expected in (1, 2):
        newcomer = await postgres.begin(conversation_id=one.conversation_id)
        async with transaction(postgres) as ask:
            row = {**asdict(item(one, position=expected)), "deleted": False}
            await ask("SELECT append_items($1::jsonb)", batch(items=[row]).removeprefix('{"items":').removesuffix("}"))
            with pytest.raises(StoreUnavailable):
                await postgres.store.share_conversation(newcomer.session_id)
            await ask("COMMIT")
        assert await postgres.store.share_conversation(newcomer.session_id)
        assert len(await postgres.store.item_keys(one.conversation_id, one.user_id, BEFORE_ALL, 9)) == expected


async def test_more_changes_than_a_notification_lists_are_told_as_unknown(postgres: PostgresWorld) -> None:
    one, other = await two(postgres)
    await postgres.store.share_conversation(one.session_id)
    async with listening(postgres, other.instance_id) as heard:
        await postgres.append(*(item(one, position=position) for position in range(LISTED_MAX)))
        told, ids = await heard.next()
        assert (told, len(ids or ())) == (other.session_id, LISTED_MAX)
        await postgres.append(*(item(one, position=position) for position in range(LISTED_MAX + 1)))
        assert await heard.next() == (other.session_id, None)


async def test_closed_rows_and_changes_are_told_apart(postgres: PostgresWorld) -> None:
    one, other = await two(postgres)
    await postgres.store.share_conversation(one.session_id)
    async with postgres.store.open_lease_connection(other.instance_id) as connection:
        heard = Heard()
        connection.hear_changes_with(heard.add)
        said = item(one)
        await postgres.append(said)
        assert await heard.next() == (other.session_id, [said.message_id])
        assert connection.closed_by_others() == []
        await postgres.sql("SELECT pg_notify($1, 'no id')", f"lastcall_{other.instance_id.hex}")
        await postgres.close_by_hand(other.session_id)
        assert await soon(lambda: closed(connection)) == [other.session_id]
        assert heard.changes == []


async def closed(connection: object) -> Sequence[UUID]:
    return connection.closed_by_others()  # type: ignore[attr-defined,no-any-return]


async def test_an_ended_session_cannot_be_marked_as_shared(postgres: PostgresWorld) -> None:
    one = await postgres.begin()
    await postgres.store.end_session(end(one))
    with pytest.raises(Exception, match="has ended"):
        await postgres.sql("UPDATE conversation_sessions SET shared = true")

"""Rows that another transaction has locked: what waits for them, and what must not, on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from lastcall.auth import key_admin
from lastcall.store.credentials import ClientSecret
from lastcall.store.errors import CredentialRevoked, InstanceGone, InstanceHeld, StoreError, StoreUnavailable
from lastcall.store.operators.acts import retry_memories
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.batch import NONE, BulkClose, Closed, InstanceStop, Write
from lastcall.store.queries import QUERIES
from lastcall.store.records import CLOCK_STEP_SECONDS_MAX, EndReason, SessionStart, StoredItem

from tests.support.instances import instance
from tests.support.operators import OPERATOR

from .world import (
    OTHER_HASH,
    PostgresWorld,
    batch,
    end,
    item,
    key_of,
    registered,
    secret_of,
    soon,
    start_row,
    transaction,
)

NO_WAIT_SECONDS = 2.0  # below the statements' timeout of the store
LOCKED = 50  # rows at once
LOCK_ROW = "SELECT FROM conversation_sessions WHERE session_id = $1 FOR UPDATE"
WAITING = "SELECT FROM pg_stat_activity WHERE application_name = 'lastcall' AND wait_event_type = 'Lock'"
COMMIT_BATCH = "SELECT commit_batch(now(), '4 s', $1) AS answer"


@pytest.fixture
async def world(postgres_store: PostgresStore) -> PostgresWorld:
    return await registered(postgres_store)


class Waiter:
    """An operation that runs beside a transaction."""

    def __init__(self, world: PostgresWorld, nursery: trio.Nursery, operation: Callable[[], Awaitable[object]]) -> None:
        self._world = world
        self._ended = trio.Event()
        self.error: StoreError | None = None
        nursery.start_soon(self._run, operation)

    async def _run(self, operation: Callable[[], Awaitable[object]]) -> None:
        try:
            await operation()
        except StoreError as error:
            self.error = error
        self._ended.set()

    async def waits(self) -> bool:
        """Whether it comes to wait for a lock, rather than to its end."""

        async def either() -> bool:
            return self._ended.is_set() or bool(await self._world.store.select(WAITING, urgent=True))

        await soon(either)
        return not self._ended.is_set()


def at_once() -> AbstractContextManager[trio.CancelScope]:
    return trio.fail_after(NO_WAIT_SECONDS)


async def commit(world: PostgresWorld, **writes: list[Any]) -> dict[str, Any]:
    """What a batch is answered."""
    with at_once():
        [row] = await world.sql(COMMIT_BATCH, batch(**writes))
    answer: dict[str, Any] = json.loads(row["answer"])
    return answer


def end_row(start: SessionStart) -> dict[str, Any]:
    ids = {"session_id": start.session_id, "instance_id": start.instance_id}
    return {**ids, "age_seconds": 0.0, "end_reason": EndReason.CLIENT_CLOSED, "close_code": 1000}


# --- what does not wait


async def test_a_locked_session_delays_no_other_write_of_its_batch(world: PostgresWorld) -> None:
    locked, other = await world.begin(), await world.begin()
    items: list[StoredItem] = [item(locked), item(other)]
    async with transaction(world) as ask:
        await ask(LOCK_ROW, locked.session_id)
        answer = await commit(world, items=items, ends=[end_row(locked), end_row(other)])
        assert answer["items"] == ["held", "stored"]
        assert answer["ends"] == {str(locked.session_id): False, str(other.session_id): True}
        assert (await world.session(locked.session_id)).is_active
    assert (await commit(world, ends=[end_row(locked)]))["ends"] == {str(locked.session_id): True}


async def test_a_locked_item_delays_no_other_deletion(world: PostgresWorld) -> None:
    start = await world.begin()
    locked, other = item(start, position=1), item(start, position=2)
    await world.append(locked, other)
    deletions = [{"session_id": start.session_id, "item_id": each.item_id} for each in (locked, other)]
    async with transaction(world) as ask:
        await ask("SELECT FROM messages WHERE message_id = $1 FOR UPDATE", locked.message_id)
        assert (await commit(world, deletions=deletions))["deletions"] == ["held", "deleted"]


async def test_a_locked_client_secret_delays_no_other_begin(world: PostgresWorld) -> None:
    secret = secret_of(await key_of(world))
    await world.store.create_client_secret(secret)
    async with transaction(world) as ask:
        await ask("SELECT FROM client_secrets FOR UPDATE")
        answer = await commit(world, starts=[start_row(world, secret.secret_id), start_row(world)])
    assert answer["starts"] == {str(world.instance_id): True, str(secret.secret_id): False}
    assert await world.session_count() == 1


async def test_locked_conversations_delay_no_other_write_of_their_batch(world: PostgresWorld) -> None:
    """Also where there are many: the foreign key of sessions locks their conversation's row."""
    locked, other = [await world.begin("leaving") for _ in range(LOCKED)], await world.begin()
    again = [start_row(world) | {"conversation_id": start.conversation_id, "user_id": "leaving"} for start in locked]
    async with transaction(world) as ask:
        await ask("SELECT FROM conversations WHERE user_id = 'leaving' FOR UPDATE")
        answer = await commit(
            world,
            starts=[*again, start_row(world)],
            items=[*(item(start) for start in locked), item(other)],
            ends=[end_row(other)],
        )
        assert answer["items"] == ["stored"] * (LOCKED + 1), "an item needs its session's row, not its conversation's"
        assert answer["ends"] == {str(other.session_id): True}
        assert answer["starts"] == {
            str(world.instance_id): True,
            **{str(start.conversation_id): False for start in locked},
        }
        assert await world.session_count() == LOCKED + 2
        with at_once():
            await world.history(locked[0].conversation_id, "leaving", 10)
            await world.store.end_session(end(locked[0]))
    assert (await commit(world, items=[item(locked[1])], starts=again))["items"] == ["stored"]
    assert await world.session_count() == LOCKED * 2 + 2


async def test_a_locked_instance_delays_only_begins_of_its_own(world: PostgresWorld) -> None:
    start, neighbour = await world.begin(), uuid4()
    await world.store.register_instance(instance(neighbour))
    async with transaction(world) as ask:
        await ask("SELECT FROM server_instances WHERE instance_id = $1 FOR UPDATE", world.instance_id)
        starts = [start_row(world), start_row(world) | {"instance_id": neighbour}]
        answer = await commit(world, starts=starts, items=[item(start)], ends=[end_row(start)])
        assert answer["starts"] == {str(world.instance_id): False, str(neighbour): True}
        assert (answer["items"], answer["ends"]) == (["stored"], {str(start.session_id): True})
        (suspect,) = await world.store.suspects(world.instance_id)
        with at_once(), pytest.raises(InstanceHeld):
            await world.store.reap(replace(suspect, instance_id=world.instance_id), neighbour)
    assert await world.session_count() == 2


async def test_an_instance_whose_row_is_locked_stops_later_than_its_sessions(world: PostgresWorld) -> None:
    start = await world.begin()
    leaving: list[Write] = [
        end(start),
        BulkClose(world.instance_id, trio.current_time()),
        InstanceStop(world.instance_id),
    ]
    async with transaction(world) as ask:
        await ask("SELECT FROM server_instances FOR SHARE")
        with at_once():
            ended, _, stopped = await world.store._commit(leaving)
        assert ended == Closed({start.session_id})
        assert isinstance(stopped, StoreUnavailable)
    assert not (await world.session(start.session_id)).is_active
    assert await world.store._commit(leaving[2:]) == [NONE]


async def test_a_key_that_is_locked_holds_up_no_other_question(world: PostgresWorld) -> None:
    """A waiting statement would keep its connection; readers have few."""
    secret = secret_of(await key_of(world))
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask("SELECT FROM api_keys FOR UPDATE")
        waiters = [Waiter(world, nursery, partial(world.store.create_client_secret, secret)) for _ in range(LOCKED)]
        assert not await waiters[0].waits()
        with at_once():
            await world.store.recall("ada", 1)
        assert isinstance(waiters[0].error, StoreUnavailable)


async def test_retrying_memories_leaves_a_locked_row(world: PostgresWorld) -> None:
    locked, other = await world.spoken(), await world.spoken()
    for start in (locked, other):
        await world.store.claim_memory(1, 60.0, session_ids=[start.session_id])
        await world.store.fail_memory(start.session_id, "it failed", retry_after=None)
    async with transaction(world) as ask:
        await ask(LOCK_ROW, locked.session_id)
        with at_once():
            assert await retry_memories(world.store, OPERATOR) == 1


async def test_reaping_leaves_a_locked_row_for_its_next_pass(world: PostgresWorld) -> None:
    judge = uuid4()
    await world.store.register_instance(instance(judge))
    locked, _ = await world.begin(), await world.begin()
    (suspect,) = await world.store.suspects(judge)
    async with transaction(world) as ask:
        await ask(LOCK_ROW, locked.session_id)
        with at_once():
            assert await world.store.reap(suspect, judge) == 1
    assert await world.store.reap(suspect, judge) == 1


async def test_a_bulk_close_leaves_a_locked_row_to_its_own_end(world: PostgresWorld) -> None:
    locked, other = await world.begin(), await world.begin()
    async with transaction(world) as ask:
        await ask(LOCK_ROW, locked.session_id)
        with at_once():
            assert await world.store.close_instance_sessions(world.instance_id, ()) == {other.session_id}
    assert await world.store.end_session(end(locked))
    assert (await world.session(locked.session_id)).end_reason == "client_closed"


async def test_a_claim_of_memory_leaves_a_locked_row(world: PostgresWorld) -> None:
    locked, other = await world.spoken(), await world.spoken()
    async with transaction(world) as ask:
        await ask(LOCK_ROW, locked.session_id)
        with at_once():
            claims = await world.store.claim_memory(2, 60.0)
    assert [claim.transcript.session_id for claim in claims] == [str(other.session_id)]


async def test_a_claim_of_one_session_does_not_wait_for_its_row(world: PostgresWorld) -> None:
    start = await world.spoken()
    async with transaction(world) as ask:
        await ask(LOCK_ROW, start.session_id)
        with at_once():
            assert await world.store.claim_memory(1, 60.0, session_ids=[start.session_id]) == []


# --- what waits


async def test_a_row_is_not_closed_while_an_item_of_it_is_stored(world: PostgresWorld) -> None:
    """Otherwise an item could be acknowledged after its row was closed."""
    start = await world.begin()
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask("SELECT append_items($1)", json.dumps(json.loads(batch(items=[item(start)]))["items"]))
        close = Waiter(world, nursery, lambda: world.close_by_hand(start.session_id))
        assert await close.waits()
        await ask("COMMIT")
    assert not (await world.session(start.session_id)).is_active


async def test_a_row_is_not_closed_while_an_item_of_it_is_deleted(world: PostgresWorld) -> None:
    start, stored = await world.begin(), str(uuid4())
    await world.append(item(start, item_id=stored))
    await check_that_a_deletion_holds_up_a_close(world, start.session_id, stored)


async def check_that_a_deletion_holds_up_a_close(world: PostgresWorld, session_id: UUID, item_id: str) -> None:
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        deletions = [{"session_id": str(session_id), "item_id": item_id}]
        await ask("SELECT delete_items($1)", json.dumps(deletions))
        close = Waiter(world, nursery, lambda: world.close_by_hand(session_id))
        assert await close.waits()
        await ask("COMMIT")


async def test_a_row_is_not_closed_while_it_deletes_an_item_of_another_session(world: PostgresWorld) -> None:
    """The item's own session is locked too, by what forgets it: only here does the fence stand alone."""
    before, stored = await world.begin(), str(uuid4())
    await world.append(item(before, item_id=stored))
    start = await world.begin(conversation_id=before.conversation_id)
    await check_that_a_deletion_holds_up_a_close(world, start.session_id, stored)


async def test_no_session_begins_while_its_instance_stops(world: PostgresWorld) -> None:
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask(QUERIES["stop_instance"], world.instance_id)
        begin = Waiter(world, nursery, world.begin)
        assert (await commit(world, starts=[start_row(world)]))["starts"] == {str(world.instance_id): False}
        assert await world.session_count() == 0
        await ask("COMMIT")
    assert isinstance(begin.error, InstanceGone)
    assert await world.session_count() == 0


async def test_a_key_that_is_being_revoked_creates_no_client_secret(world: PostgresWorld) -> None:
    key = await key_of(world)
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask("UPDATE api_keys SET revoked_at = now()")
        create = Waiter(world, nursery, lambda: world.store.create_client_secret(secret_of(key)))
        with at_once(), pytest.raises(StoreUnavailable):
            await world.store.create_client_secret(secret_of(key))
        await ask("COMMIT")
    assert isinstance(create.error, CredentialRevoked | StoreUnavailable)
    with pytest.raises(CredentialRevoked):
        await world.store.create_client_secret(secret_of(key))
    assert await world.store.find_credential(OTHER_HASH) is None


# How a cookie, or what it is traded for, is revoked in the instant of the trade.
REVOCATIONS: dict[str, Callable[[PostgresWorld, ClientSecret], Awaitable[object]]] = {
    "the link": lambda world, link: key_admin.revoke(world.store, link.secret_id, OPERATOR),
    "the key": lambda world, link: key_admin.revoke(world.store, link.key_id or link.secret_id, OPERATOR),
    "by hand": lambda world, _: world.sql("UPDATE client_secrets SET revoked_at = now()"),
    "deleted by hand": lambda world, _: world.sql("DELETE FROM client_secrets"),
    "the user signed out": lambda world, link: key_admin.sign_out(world.store, link.user_id, OPERATOR),
    "the user erased": lambda world, link: world.store.fetch("erase_user", *OPERATOR.columns, link.user_id),
}
# Whoever is signed out keeps client secrets, by which a backend may sign them in again.
TRADED = [(form, how) for form in ("link", "bearer") for how in REVOCATIONS if (form, how[-3:]) != ("bearer", "out")]
COOKIE = b"c" * 32


@pytest.fixture(params=["link", "bearer"])
async def link(world: PostgresWorld, request: pytest.FixtureRequest) -> ClientSecret:
    """What is traded for a cookie."""
    made = secret_of(await key_of(world), form=request.param)
    await world.store.create_client_secret(made)
    return made


def trade_values() -> tuple[object, ...]:
    return OTHER_HASH, CLOCK_STEP_SECONDS_MAX, uuid4(), COOKIE, 90.0


@pytest.mark.parametrize(("link", "how"), TRADED, indirect=["link"])
async def test_a_link_that_is_revoked_while_it_is_traded_leaves_no_cookie(
    world: PostgresWorld, link: ClientSecret, how: str
) -> None:
    """The revocation began before the cookie could be seen."""
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        [row] = await ask(QUERIES["trade_secret"], *trade_values())
        assert row["user_id"] == link.user_id
        revocation = Waiter(world, nursery, partial(REVOCATIONS[how], world, link))
        assert await revocation.waits()
        await ask("COMMIT")
    assert revocation.error is None
    assert await world.store.find_credential(COOKIE) is None
    if how in ("deleted by hand", "the user erased"):
        assert await world.sql("SELECT FROM client_secrets WHERE revoked_at IS NULL") == []
    if how == "the user erased":
        assert await world.sql("SELECT FROM client_secrets") == []


@pytest.mark.parametrize("statement", ["UPDATE client_secrets SET revoked_at = now()", "DELETE FROM client_secrets"])
async def test_a_link_that_is_being_revoked_is_not_traded(
    world: PostgresWorld, link: ClientSecret, statement: str
) -> None:
    found: list[object] = []

    async def trade() -> None:
        found.append(await world.store.trade_secret(OTHER_HASH, uuid4(), COOKIE, link_seconds=90.0))

    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask(statement)
        [row] = await world.sql(QUERIES["trade_secret"], *trade_values())
        assert (row["held"], row["user_id"]) == (True, None), "it does not wait, and is asked again"
        nursery.start_soon(trade)
        await ask("COMMIT")
    assert found == [None]
    assert await world.store.find_credential(COOKIE) is None


async def test_a_revocation_with_an_older_snapshot_overlooks_no_cookie(
    world: PostgresWorld, link: ClientSecret
) -> None:
    async with transaction(world) as ask:
        await ask("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await ask("SELECT FROM client_secrets")
        assert await world.store.trade_secret(OTHER_HASH, uuid4(), COOKIE, link_seconds=90.0) is not None
        with pytest.raises(StoreError):
            await ask("UPDATE client_secrets SET revoked_at = now() WHERE secret_id = $1", link.secret_id)


async def test_a_link_stays_as_long_as_its_cookie_so_that_it_can_be_revoked(
    world: PostgresWorld, link: ClientSecret
) -> None:
    assert await world.store.trade_secret(OTHER_HASH, uuid4(), COOKIE, link_seconds=90.0) is not None
    await world.sql("ALTER TABLE client_secrets DISABLE TRIGGER guard_credential")
    try:
        await world.sql("UPDATE client_secrets SET expires_at = now() - interval '2 days' WHERE link_id IS NULL")
        await world.store.create_client_secret(replace(link, secret_id=uuid4(), secret_hash=b"n" * 32))
        assert len(await world.sql("SELECT FROM client_secrets WHERE secret_id = $1", link.secret_id)) == 1
        await world.sql("UPDATE client_secrets SET revoked_at = now() WHERE link_id IS NOT NULL")
        await world.store.create_client_secret(replace(link, secret_id=uuid4(), secret_hash=b"m" * 32))
        assert await world.sql("SELECT FROM client_secrets WHERE secret_id = $1", link.secret_id) == []
    finally:
        await world.sql("ALTER TABLE client_secrets ENABLE TRIGGER guard_credential")


async def test_a_batch_that_took_longer_than_its_patience_stores_nothing(world: PostgresWorld) -> None:
    """A frozen database wakes in the middle of it: its ages would be wrong."""
    sql, writes = "SELECT commit_batch(now(), '1 ms', $1)", batch(starts=[start_row(world)])
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask("LOCK TABLE conversation_sessions IN SHARE MODE")
        late = Waiter(world, nursery, lambda: world.sql(sql, writes))
        assert await late.waits()
        await ask("COMMIT")
    assert isinstance(late.error, StoreUnavailable)
    assert await world.session_count() == 0


@pytest.mark.parametrize("table", ["conversations", "conversation_sessions"])
async def test_a_conversation_of_locked_rows_is_not_deleted_by_halves(world: PostgresWorld, table: str) -> None:
    """Ended sessions count too: whoever indexes one, or remembers it, holds its row."""
    ended, start = await world.spoken(), await world.begin()
    await world.sql("UPDATE conversations SET title = 'before' WHERE conversation_id = $1", ended.conversation_id)
    outcome = "SELECT delete_conversation($1, 'ada') AS outcome"
    for each in (ended, start):
        async with transaction(world) as ask:
            await ask(f"SELECT FROM {table} WHERE conversation_id = $1 FOR UPDATE", each.conversation_id)
            with at_once():
                (row,) = await world.sql(outcome, each.conversation_id)
            assert row["outcome"] == "held"
            assert await world.history(each.conversation_id, "ada", 9) is not None
        assert await world.store.delete_conversation(each.conversation_id, "ada")
        assert await world.history(each.conversation_id, "ada", 9) is None

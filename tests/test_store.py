"""What `server.store.Store` promises: one suite for the real store and for the fake that stands in for it elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from server.agent import Memory
from server.identity import Scope
from server.postgres import CONNECTIONS, PostgresStore, open_store, pool
from server.store import (
    EVIDENCE_SECONDS,
    ClientSecret,
    Credential,
    CredentialRevoked,
    EndReason,
    InstanceGone,
    InvalidRow,
    ItemDeletion,
    ItemExists,
    ItemNotFound,
    MemoryClaim,
    RememberedFact,
    SessionClosed,
    SessionEnd,
    SessionStart,
    Store,
    StoredItem,
    StoreError,
    StoreUnavailable,
    Suspect,
)

from . import memory_store
from .conftest import empty
from .instances import instance
from .memory_rows import SessionRecord
from .memory_store import ANSWER_SECONDS, MemoryStore

WITHIN = 10.0
CLOSE_TO = 0.1  # seconds
WAIT_SECONDS = 10.0
LEASE_SECONDS = 0.2
UNSTORABLE = ["nul \0", "lone surrogate \ud800"]


class World:
    """A store with one registered instance, and a way to look at what it holds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.instance_id = uuid4()

    async def session(self, session_id: UUID) -> SessionRecord:
        raise NotImplementedError

    async def session_count(self) -> int:
        raise NotImplementedError

    async def items(self, conversation_id: UUID) -> Sequence[StoredItem]:
        raise NotImplementedError

    async def close_by_hand(self, session_id: UUID) -> None:
        raise NotImplementedError

    async def declare_dead(self, instance_id: UUID) -> None:
        raise NotImplementedError

    async def create_key(self, credential: Credential, secret_hash: bytes) -> None:
        raise NotImplementedError

    async def revoke(self, credential_id: UUID) -> None:
        raise NotImplementedError

    async def silence(self, seconds: float) -> float:
        """Moves the instance's last heartbeat back; when it now was, on the store's clock."""
        raise NotImplementedError

    async def begin(self, user_id: str = "ada", *, age: float = 0.0, **changes: Any) -> SessionStart:
        """Begins a session that started `age` seconds ago."""
        fields: dict[str, Any] = {
            "session_id": uuid4(),
            "conversation_id": uuid4(),
            "user_id": user_id,
            "instance_id": self.instance_id,
            "started": trio.current_time() - age,
        }
        start = SessionStart(**(fields | changes))
        await self.store.begin_session(start, within=WITHIN)
        return start

    async def spoken(self, user_id: str = "ada", *texts: str) -> SessionStart:
        """A closed session in which the user spoke, so that its memory is pending."""
        start = await self.begin(user_id)
        for position, text in enumerate(texts or ("hello",)):
            await self.append(item(start, text, position=position))
        await self.store.end_session(end(start))
        return start

    async def append(self, *items: StoredItem) -> None:
        await self.store.append_items(items, within=WITHIN)

    async def contents(self, conversation_id: UUID) -> list[str]:
        return [stored.content for stored in await self.items(conversation_id)]


class MemoryWorld(World):
    store: MemoryStore

    async def close_by_hand(self, session_id: UUID) -> None:
        self.store.close_by_hand(session_id)

    async def session(self, session_id: UUID) -> SessionRecord:
        return self.store.sessions[session_id]

    async def session_count(self) -> int:
        return len(self.store.sessions)

    async def items(self, conversation_id: UUID) -> Sequence[StoredItem]:
        return self.store.items(conversation_id)

    async def declare_dead(self, instance_id: UUID) -> None:
        self.store.declare_dead(instance_id)

    async def create_key(self, credential: Credential, secret_hash: bytes) -> None:
        self.store.create_key(credential, secret_hash)

    async def revoke(self, credential_id: UUID) -> None:
        self.store.revoke(credential_id)

    async def silence(self, seconds: float) -> float:
        self.store.instances[self.instance_id].heartbeat_at = trio.current_time() - seconds
        return self.store.instances[self.instance_id].heartbeat_at


class PostgresWorld(World):
    store: PostgresStore

    async def sql(self, text: str, *args: object) -> list[Any]:
        return await self.store.select(text, *args)

    async def close_by_hand(self, session_id: UUID) -> None:
        await self.sql("UPDATE conversation_sessions SET is_active = false WHERE session_id = $1", session_id)

    async def session(self, session_id: UUID) -> SessionRecord:
        rows = await self.sql(
            "SELECT session_id, conversation_id, user_id, instance_id, is_active, duration_seconds, end_reason,"
            " close_code, closed_by, memory_status, memory_attempts, memory_error,"
            " extract(epoch FROM session_start)::float8 AS session_start,"
            " extract(epoch FROM session_end)::float8 AS session_end,"
            " extract(epoch FROM ended_at)::float8 AS ended_at,"
            " extract(epoch FROM memory_due_at)::float8 AS memory_due_at,"
            " extract(epoch FROM memory_finalized_at)::float8 AS memory_finalized_at"
            " FROM conversation_sessions WHERE session_id = $1",
            session_id,
        )
        return SessionRecord(**dict(rows[0]))

    async def session_count(self) -> int:
        return int((await self.sql("SELECT count(*) FROM conversation_sessions"))[0][0])

    async def items(self, conversation_id: UUID) -> Sequence[StoredItem]:
        columns = (
            "message_id, session_id, conversation_id, item_id, position, role, content, status, kind, call_id, name,"
            " deleted_at IS NOT NULL AS deleted"
        )
        text = f"SELECT {columns} FROM messages WHERE conversation_id = $1 ORDER BY position, message_id"
        return [StoredItem(**dict(row)) for row in await self.sql(text, conversation_id)]

    async def declare_dead(self, instance_id: UUID) -> None:
        await self.sql("UPDATE server_instances SET reaped_at = now() WHERE instance_id = $1", instance_id)

    async def create_key(self, credential: Credential, secret_hash: bytes) -> None:
        await self.store.fetch(
            "create_key", credential.key_id, credential.user_id, credential.scope.value, "sk-", secret_hash
        )

    async def revoke(self, credential_id: UUID) -> None:
        await self.store.fetch("revoke_credential", credential_id)

    async def silence(self, seconds: float) -> float:
        rows = await self.sql(
            "UPDATE server_instances SET heartbeat_at = now() - make_interval(secs => $2) WHERE instance_id = $1"
            " RETURNING extract(epoch FROM heartbeat_at)::float8",
            self.instance_id,
            seconds,
        )
        return float(rows[0][0])


def item(start: SessionStart, content: str = "hello", **changes: Any) -> StoredItem:
    fields: dict[str, Any] = {
        "session_id": start.session_id,
        "conversation_id": start.conversation_id,
        "item_id": f"item_{uuid4().hex}",
        "position": 0,
        "role": "user",
        "content": content,
        "status": "completed",
    }
    return StoredItem(**(fields | changes))


def end(start: SessionStart, *, age: float = 0.0, **changes: Any) -> SessionEnd:
    """The end of a session, `age` seconds ago."""
    fields: dict[str, Any] = {
        "session_id": start.session_id,
        "instance_id": start.instance_id,
        "ended": trio.current_time() - age,
        "reason": EndReason.CLIENT_CLOSED,
        "close_code": 1000,
    }
    return SessionEnd(**(fields | changes))


def memory(content: str, kind: str = "note", **changes: Any) -> Memory:
    return Memory(**({"kind": kind, "content": content, "item_id": "item_1", "quote": content} | changes))


@pytest.fixture(params=["memory", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """The database's URL; None for the store in memory."""
    return request.getfixturevalue("database_url") if request.param == "postgres" else None


@pytest.fixture
def clock(url: str | None) -> MockClock | None:
    """Virtual time where no real database is waited for; tests that wait ask for it."""
    return MockClock(autojump_threshold=0) if url is None else None


@asynccontextmanager
async def _open_world(url: str | None) -> AsyncIterator[World]:
    if url is None:
        yield MemoryWorld(MemoryStore())
        return
    async with open_store(url) as store:
        await empty(store)
        yield PostgresWorld(store)


@pytest.fixture
async def world(url: str | None) -> AsyncIterator[World]:
    async with _open_world(url) as world:
        await world.store.register_instance(instance(world.instance_id))
        yield world


async def gather(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """The results of concurrent calls, a `StoreError` standing for its call's result."""
    results: list[Any] = [None] * len(calls)

    async def run(index: int, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            results[index] = await call()
        except StoreError as error:
            results[index] = error

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(run, index, call)
    return results


async def soon(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Waits, within a bound, until the condition holds, and returns what it returned."""
    with trio.fail_after(WAIT_SECONDS):
        while not (result := await condition()):  # noqa: ASYNC110 - a database has no event to wait for
            await trio.sleep(0.02)
    return result


# --- begin


async def test_a_begun_session_is_an_active_row_of_its_own_conversation(world: World) -> None:
    start = await world.begin(age=3.0)
    row = await world.session(start.session_id)
    assert (row.is_active, row.user_id, row.instance_id) == (True, "ada", world.instance_id)
    assert (row.session_end, row.ended_at, row.duration_seconds, row.end_reason) == (None, None, None, None)
    assert row.memory_status == "none"
    assert await world.store.load_history(start.conversation_id, "ada", 10) == []


async def test_beginning_again_is_one_row(world: World) -> None:
    start = await world.begin()
    await gather(*[lambda: world.store.begin_session(start, within=WITHIN)] * 3)
    assert await world.session_count() == 1


async def test_beginning_again_does_not_reopen(world: World) -> None:
    start = await world.begin()
    await world.store.end_session(end(start))
    await world.store.begin_session(start, within=WITHIN)
    assert not (await world.session(start.session_id)).is_active


async def test_a_session_in_another_users_conversation_is_refused_and_not_stored(world: World) -> None:
    start = await world.begin("ada")
    with pytest.raises(InvalidRow):
        await world.begin("eve", conversation_id=start.conversation_id)
    assert await world.session_count() == 1


@pytest.mark.parametrize("user_id", ["", "u" * 257, *UNSTORABLE])
async def test_a_user_id_that_cannot_be_stored_is_refused(world: World, user_id: str) -> None:
    with pytest.raises(InvalidRow):
        await world.begin(user_id)
    assert await world.session_count() == 0


async def test_a_session_of_an_unregistered_instance_is_refused(world: World) -> None:
    with pytest.raises(InvalidRow):
        await world.begin(instance_id=uuid4())


async def test_of_two_users_who_begin_one_conversation_at_once_one_has_it(world: World) -> None:
    conversation_id = uuid4()
    results = await gather(
        lambda: world.begin("ada", conversation_id=conversation_id),
        lambda: world.begin("eve", conversation_id=conversation_id),
    )
    assert sorted(isinstance(result, InvalidRow) for result in results) == [False, True]


# --- append


async def test_an_acknowledged_item_is_stored_as_it_was_given(world: World) -> None:
    start = await world.begin()
    first = item(start, "one", position=1 << 20)
    second = item(start, "two \N{SNOWMAN} \U0001f980", position=2 << 20, role="assistant", status="incomplete")
    await world.append(second)
    await world.append(first)
    assert await world.items(start.conversation_id) == [first, second]


async def test_appending_an_item_again_is_one_item(world: World) -> None:
    start = await world.begin()
    stored = item(start)
    await gather(*[lambda: world.append(stored)] * 3)
    await world.append(stored)
    assert await world.items(start.conversation_id) == [stored]


async def test_another_item_with_the_same_id_is_refused_and_nothing_of_its_call_is_stored(world: World) -> None:
    start = await world.begin()
    first = item(start, "first")
    await world.append(first)
    with pytest.raises(ItemExists):
        await world.append(item(start, "fresh"), item(start, "same id", item_id=first.item_id))
    assert await world.items(start.conversation_id) == [first]


async def test_one_item_id_may_stand_in_two_conversations(world: World) -> None:
    for start in (await world.begin(), await world.begin()):
        await world.append(item(start, item_id="item_1"))
        assert await world.contents(start.conversation_id) == ["hello"]


async def test_of_two_items_with_one_id_at_once_one_is_stored(world: World) -> None:
    start = await world.begin()
    same = [item(start, text, item_id="item_1") for text in ("a", "b")]
    results = await gather(lambda: world.append(same[0]), lambda: world.append(same[1]))
    assert sorted(isinstance(result, ItemExists) for result in results) == [False, True]
    assert len(await world.items(start.conversation_id)) == 1


async def test_nothing_is_stored_for_a_closed_session(world: World) -> None:
    start = await world.begin()
    await world.store.end_session(end(start))
    with pytest.raises(SessionClosed):
        await world.append(item(start))
    assert await world.items(start.conversation_id) == []


async def test_nothing_is_stored_for_a_session_that_never_began(world: World) -> None:
    start = await world.begin()
    with pytest.raises(SessionClosed):
        await world.append(item(start, session_id=uuid4()))
    assert await world.items(start.conversation_id) == []


@pytest.mark.parametrize("content", UNSTORABLE)
async def test_content_that_cannot_be_stored_is_refused(world: World, content: str) -> None:
    start = await world.begin()
    with pytest.raises(InvalidRow):
        await world.append(item(start, content))
    assert await world.items(start.conversation_id) == []


async def test_one_bad_row_among_many_concurrent_ones_fails_alone(world: World) -> None:
    starts = [await world.begin(f"user-{index}") for index in range(20)]
    taken = item(starts[0], "taken", item_id="taken")
    await world.append(taken)
    good = [item(start, f"good {index}") for index, start in enumerate(starts) for _ in range(5)]
    bad = {17: item(starts[3], "bad \0"), 50: item(starts[0], "again", item_id="taken")}
    rows = [bad.get(index, row) for index, row in enumerate(good)]
    results = await gather(*[lambda row=row: world.append(row) for row in rows])
    assert [index for index, result in enumerate(results) if result is not None] == [17, 50]
    assert isinstance(results[17], InvalidRow)
    assert isinstance(results[50], ItemExists)
    stored = {row.message_id for start in starts for row in await world.items(start.conversation_id)}
    assert stored == {row.message_id for index, row in enumerate(good) if index not in bad} | {taken.message_id}


async def test_an_item_id_too_long_for_the_index_fails_alone(world: World) -> None:
    start = await world.begin()
    long_id = "".join(uuid4().hex for _ in range(500))
    rows = [item(start, "good"), item(start, "bad", item_id=long_id), item(start, "fine")]
    results = await gather(*[lambda row=row: world.append(row) for row in rows])
    assert isinstance(results[1], InvalidRow)
    assert (results[0], results[2]) == (None, None)


async def test_a_whole_session_may_be_written_at_once(world: World) -> None:
    ids = {"session_id": uuid4(), "conversation_id": uuid4()}
    start = SessionStart(user_id="ada", instance_id=world.instance_id, started=trio.current_time(), **ids)
    store = world.store
    results = await gather(
        *[lambda: store.begin_session(start, within=WITHIN), lambda: world.append(item(start, session_id=uuid4()))]
    )
    assert results[0] is None
    assert isinstance(results[1], SessionClosed | InvalidRow)
    await gather(lambda: world.append(item(start)), lambda: store.end_session(end(start)))
    row = await world.session(start.session_id)
    assert not row.is_active
    stored = await world.items(start.conversation_id)
    assert row.memory_status == ("pending" if stored else "none")


# --- items of other kinds


def call(start: SessionStart, **changes: Any) -> StoredItem:
    fields = {"kind": "function_call", "role": "assistant", "call_id": "call_1", "name": "look_up"}
    return item(start, '{"city":"Oslo"}', **(fields | changes))


def output(start: SessionStart, **changes: Any) -> StoredItem:
    return item(start, "rain", **({"kind": "function_call_output", "role": "tool", "call_id": "call_1"} | changes))


async def test_calls_and_their_outputs_are_stored_and_loaded_as_they_were_given(world: World) -> None:
    start = await world.begin()
    rows = [item(start, position=1), call(start, position=2), output(start, position=3)]
    await world.append(*rows)
    assert await world.items(start.conversation_id) == rows
    assert await world.store.load_history(start.conversation_id, "ada", 10) == rows


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "thought"},
        {"role": "tool"},
        {"role": "tool", "call_id": "call_1"},
        {"call_id": "call_1"},
        {"name": "look_up"},
        {"kind": "function_call", "role": "assistant", "call_id": "call_1"},
        {"kind": "function_call", "role": "assistant", "name": "look_up"},
        {"kind": "function_call", "role": "user", "name": "look_up", "call_id": "call_1"},
        {"kind": "function_call", "role": "tool", "name": "look_up", "call_id": "call_1"},
        {"kind": "function_call_output", "role": "tool"},
        {"kind": "function_call_output", "role": "user", "call_id": "call_1"},
        {"kind": "function_call_output", "role": "tool", "call_id": "call_1", "name": "look_up"},
        {"kind": "function_call_output", "role": "tool", "call_id": "nul \0"},
    ],
    ids=str,
)
async def test_an_item_of_no_legal_shape_is_refused(world: World, changes: dict[str, str]) -> None:
    start = await world.begin()
    with pytest.raises(InvalidRow):
        await world.append(item(start, **changes))
    assert await world.items(start.conversation_id) == []


async def test_what_a_tool_answered_is_neither_remembered_nor_a_reason_to_remember(world: World) -> None:
    silent, spoken = await world.begin("ada"), await world.begin("bob")
    await world.append(call(silent, position=1), output(silent, position=2))
    await world.append(item(spoken, "hello", position=1), call(spoken, position=2), output(spoken, position=3))
    for start in (silent, spoken):
        await world.store.end_session(end(start))
    assert (await world.session(silent.session_id)).memory_status == "none"
    [claim] = await world.store.claim_memory(10, 60.0)
    assert [message.text for message in claim.transcript.messages] == ["hello"]


# --- delete


def deletion(start: SessionStart, item_id: str) -> ItemDeletion:
    return ItemDeletion(start.session_id, item_id)


async def test_a_deleted_item_leaves_the_conversation_and_stays_in_the_transcript(world: World) -> None:
    start = await world.begin()
    rows = [item(start, text, position=n) for n, text in enumerate(("one", "two", "three"))]
    await world.append(*rows)
    await world.store.delete_item(deletion(start, rows[1].item_id), within=WITHIN)
    assert await world.items(start.conversation_id) == [rows[0], replace(rows[1], deleted=True), rows[2]]
    assert await world.store.load_history(start.conversation_id, "ada", 10) == [rows[0], rows[2]]
    assert await world.store.load_history(start.conversation_id, "ada", 2) == [rows[0], rows[2]]


async def test_deleting_an_item_again_is_one_deletion(world: World) -> None:
    start = await world.begin()
    await world.append(item(start, item_id="a"))
    results = await gather(*[lambda: world.store.delete_item(deletion(start, "a"), within=WITHIN)] * 3)
    assert results == [None] * 3
    await world.store.delete_item(deletion(start, "a"), within=WITHIN)


async def test_an_item_and_its_deletion_may_be_written_at_once(world: World) -> None:
    start = await world.begin()
    results = await gather(
        lambda: world.append(item(start, item_id="a")),
        lambda: world.store.delete_item(deletion(start, "a"), within=WITHIN),
    )
    assert results[0] is None
    assert results[1] is None or isinstance(results[1], ItemNotFound)
    [stored] = await world.items(start.conversation_id)
    assert stored.deleted is (results[1] is None)


async def test_the_id_of_a_deleted_item_is_not_free_again(world: World) -> None:
    start = await world.begin()
    await world.append(item(start, item_id="a"))
    await world.store.delete_item(deletion(start, "a"), within=WITHIN)
    with pytest.raises(ItemExists):
        await world.append(item(start, "another", item_id="a"))


async def test_an_item_may_be_stored_as_deleted(world: World) -> None:
    start = await world.begin()
    stored = item(start, deleted=True)
    await world.append(stored)
    assert await world.items(start.conversation_id) == [stored]
    assert await world.store.load_history(start.conversation_id, "ada", 10) == []


async def test_what_is_not_there_is_not_deleted_and_fails_alone(world: World) -> None:
    start, other = await world.begin("ada"), await world.begin("eve")
    await world.append(item(start, item_id="mine"), item(start, item_id="also mine"))
    await world.append(item(other, item_id="theirs"))
    results = await gather(
        lambda: world.store.delete_item(deletion(start, "nowhere"), within=WITHIN),
        lambda: world.store.delete_item(deletion(start, "mine"), within=WITHIN),
        lambda: world.store.delete_item(deletion(other, "also mine"), within=WITHIN),
        lambda: world.store.delete_item(deletion(other, "nul \0"), within=WITHIN),
    )
    assert [type(result) for result in results[:3]] == [ItemNotFound, type(None), ItemNotFound]
    assert isinstance(results[3], InvalidRow)
    assert {row.item_id for row in await world.items(start.conversation_id) if row.deleted} == {"mine"}


async def test_nothing_is_deleted_for_a_closed_session(world: World) -> None:
    start = await world.begin()
    await world.append(item(start, item_id="a"))
    await world.close_by_hand(start.session_id)
    with pytest.raises(SessionClosed):
        await world.store.delete_item(deletion(start, "a"), within=WITHIN)
    assert not (await world.items(start.conversation_id))[0].deleted


async def test_what_the_user_took_back_is_not_remembered(world: World) -> None:
    start = await world.begin()
    await world.append(item(start, "I like tea", item_id="a", position=1), item(start, "Hello", position=2))
    await world.store.delete_item(deletion(start, "a"), within=WITHIN)
    await world.store.end_session(end(start))
    [claim] = await world.store.claim_memory(10, 60.0)
    assert [message.text for message in claim.transcript.messages] == ["Hello"]


# --- keys and client secrets

HASH, OTHER_HASH = b"h" * 32, b"o" * 32


async def key_of(world: World, user_id: str = "ada") -> Credential:
    key_id = uuid4()
    key = Credential(credential_id=key_id, key_id=key_id, user_id=user_id, scope=Scope.SERVICE)
    await world.create_key(key, HASH)
    return key


def secret_of(key: Credential | None, **changes: Any) -> ClientSecret:
    fields: dict[str, Any] = {
        "key_id": key.key_id if key else None,
        "user_id": "ada",
        "conversation_id": None,
        "session": "{}",
        "secret_hash": OTHER_HASH,
        "seconds": 600,
    }
    return ClientSecret(**(fields | changes))


async def test_keys_exist_from_the_first_one_on_also_when_all_are_revoked(world: World) -> None:
    assert not await world.store.keys_exist()
    await world.store.create_client_secret(secret_of(None))
    assert not await world.store.keys_exist()
    key = await key_of(world)
    assert await world.store.keys_exist()
    await world.revoke(key.credential_id)
    assert await world.store.keys_exist()


async def test_a_key_is_found_by_its_hash_until_it_is_revoked(world: World) -> None:
    key = await key_of(world)
    assert await world.store.find_credential(HASH) == key
    assert await world.store.find_credential(OTHER_HASH) is None
    await world.revoke(key.credential_id)
    assert await world.store.find_credential(HASH) is None


async def test_a_client_secret_is_found_with_all_that_it_is_bound_to(world: World) -> None:
    start, key = await world.begin(), await key_of(world)
    session = '{"instructions": "Be brief."}'
    secret = secret_of(key, conversation_id=start.conversation_id, session=session)
    await world.store.create_client_secret(secret)
    assert await world.store.find_credential(OTHER_HASH) == Credential(
        credential_id=secret.secret_id,
        key_id=key.key_id,
        user_id="ada",
        scope=Scope.CLIENT,
        conversation_id=start.conversation_id,
        session=session,
    )


async def test_an_expired_client_secret_is_not_found_and_ends_nothing(world: World) -> None:
    secret = secret_of(await key_of(world), seconds=0)
    await world.store.create_client_secret(secret)
    assert await world.store.find_credential(OTHER_HASH) is None
    start = await world.begin(credential_id=secret.secret_id)  # it was found a moment before
    assert (await world.session(start.session_id)).is_active


@pytest.mark.parametrize("revoked", ["the key", "the secret"])
async def test_a_client_secret_goes_with_its_key(world: World, revoked: str) -> None:
    key = await key_of(world)
    secret = secret_of(key)
    await world.store.create_client_secret(secret)
    await world.revoke(key.credential_id if revoked == "the key" else secret.secret_id)
    assert await world.store.find_credential(OTHER_HASH) is None
    assert (await world.store.find_credential(HASH) is None) == (revoked == "the key")


async def test_a_revoked_key_makes_no_client_secrets(world: World) -> None:
    key = await key_of(world)
    await world.revoke(key.credential_id)
    with pytest.raises(CredentialRevoked):
        await world.store.create_client_secret(secret_of(key))
    assert await world.store.find_credential(OTHER_HASH) is None


async def test_a_client_secret_is_for_a_conversation_of_its_user_only(world: World) -> None:
    start, key = await world.begin("eve"), await key_of(world)
    for conversation_id in (start.conversation_id, uuid4()):
        with pytest.raises(InvalidRow):
            await world.store.create_client_secret(secret_of(key, conversation_id=conversation_id))


@pytest.mark.parametrize("revoked", ["the key", "the secret"])
async def test_revoking_closes_the_sessions_that_it_began_and_no_others(world: World, revoked: str) -> None:
    key = await key_of(world)
    secret = secret_of(key)
    await world.store.create_client_secret(secret)
    by_key = await world.begin(credential_id=key.credential_id)
    by_secret = await world.begin(credential_id=secret.secret_id)
    by_nothing = await world.begin()
    async with world.store.open_guard(world.instance_id) as guard:
        await world.revoke(key.credential_id if revoked == "the key" else secret.secret_id)
        with trio.fail_after(WAIT_SECONDS):
            await guard.news()
    ended = await world.session(by_secret.session_id)
    assert (ended.is_active, ended.end_reason, ended.closed_by) == (False, "revoked", None)
    assert (await world.session(by_key.session_id)).is_active == (revoked == "the secret")
    assert (await world.session(by_nothing.session_id)).is_active


async def test_nothing_begins_with_what_was_revoked_in_between(world: World) -> None:
    key = await key_of(world)
    await world.revoke(key.credential_id)
    for credential_id in (key.credential_id, uuid4()):
        with pytest.raises(CredentialRevoked):
            await world.begin(credential_id=credential_id)
    assert await world.session_count() == 0
    await world.begin()


# --- end


async def test_an_end_is_written_once_and_never_rewritten(world: World) -> None:
    start = await world.begin(age=10.0)
    assert await world.store.end_session(end(start, age=5.0)) is True
    before = await world.session(start.session_id)
    later = end(start, reason=EndReason.SHUTDOWN, close_code=1012, unfinished=[item(start, "late")])
    assert await world.store.end_session(later) is False
    assert await world.session(start.session_id) == before
    assert await world.items(start.conversation_id) == []


async def test_of_two_ends_at_once_one_is_the_end(world: World) -> None:
    start = await world.begin()
    ends = [end(start, close_code=code) for code in (1000, 1001)]
    results = await gather(lambda: world.store.end_session(ends[0]), lambda: world.store.end_session(ends[1]))
    assert sorted(results) == [False, True]
    assert (await world.session(start.session_id)).close_code == ends[results.index(True)].close_code


async def test_an_end_says_why_and_by_whom(world: World) -> None:
    start = await world.begin()
    await world.store.end_session(end(start, reason=EndReason.CLIENT_LOST, close_code=None))
    row = await world.session(start.session_id)
    assert (row.is_active, row.end_reason, row.close_code) == (False, "client_lost", None)
    assert row.closed_by == world.instance_id


async def test_an_end_is_dated_when_it_happened_not_when_it_was_written(world: World) -> None:
    start = await world.begin(age=12.0)
    await world.store.end_session(end(start, age=5.0))
    row = await world.session(start.session_id)
    assert row.session_end is not None
    assert row.ended_at is not None
    assert row.ended_at - row.session_end == pytest.approx(5.0, abs=CLOSE_TO)
    assert row.session_end - row.session_start == pytest.approx(7.0, abs=CLOSE_TO)
    assert row.duration_seconds == pytest.approx(row.session_end - row.session_start, abs=1e-5)


async def test_an_end_is_never_before_the_start(world: World) -> None:
    start = await world.begin(age=1.0)
    await world.store.end_session(end(start, age=60.0))
    row = await world.session(start.session_id)
    assert (row.session_end, row.duration_seconds) == (row.session_start, 0.0)


async def test_an_end_is_never_in_the_future(world: World) -> None:
    start = await world.begin(age=1.0)
    await world.store.end_session(end(start, age=-60.0))
    row = await world.session(start.session_id)
    assert row.duration_seconds == pytest.approx(1.0, abs=CLOSE_TO)
    assert row.ended_at == pytest.approx(row.session_end, abs=CLOSE_TO)


async def test_ending_a_session_that_never_began_does_nothing(world: World) -> None:
    start = await world.begin()
    assert await world.store.end_session(end(start, session_id=uuid4())) is False
    assert (await world.session(start.session_id)).is_active


async def test_what_was_left_unsaid_is_stored_with_the_end(world: World) -> None:
    start = await world.begin()
    unsaid = item(start, "and then", role="assistant", status="incomplete")
    await world.store.end_session(end(start, unfinished=[unsaid]))
    assert await world.items(start.conversation_id) == [unsaid]


@pytest.mark.parametrize("content", UNSTORABLE)
async def test_unsaid_words_that_cannot_be_stored_do_not_prevent_the_end(world: World, content: str) -> None:
    start = await world.begin()
    refused = item(start, content, role="assistant", status="incomplete")
    assert await world.store.end_session(end(start, unfinished=[refused])) is True
    assert not (await world.session(start.session_id)).is_active
    assert await world.items(start.conversation_id) == []


async def test_unsaid_words_under_a_taken_id_do_not_prevent_the_end(world: World) -> None:
    start = await world.begin()
    await world.append(item(start, item_id="item_1"))
    assert await world.store.end_session(end(start, unfinished=[item(start, "again", item_id="item_1")])) is True
    assert await world.contents(start.conversation_id) == ["hello"]


async def test_a_write_lands_although_its_caller_was_cancelled(world: World) -> None:
    start = SessionStart(
        session_id=uuid4(),
        conversation_id=uuid4(),
        user_id="ada",
        instance_id=world.instance_id,
        started=trio.current_time(),
    )
    store, stored = world.store, item(start)
    for write in (
        lambda: store.begin_session(start, within=WITHIN),
        lambda: store.append_items([stored], within=WITHIN),
        lambda: store.end_session(end(start)),
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await write()
        assert scope.cancelled_caught

    async def ended() -> bool:
        return await world.session_count() == 1 and not (await world.session(start.session_id)).is_active

    await soon(ended)
    assert await world.items(start.conversation_id) == [stored]


# --- shutdown


async def test_a_shutdown_closes_its_own_sessions_and_no_others(world: World) -> None:
    other = uuid4()
    await world.store.register_instance(instance(other))
    mine = [await world.begin() for _ in range(3)]
    theirs = await world.begin(instance_id=other)
    ended = await world.begin()
    await world.store.end_session(end(ended))
    unsaid = item(mine[0], "and then", role="assistant", status="incomplete")
    closed = await world.store.close_instance_sessions(world.instance_id, [unsaid])
    assert set(closed) == {start.session_id for start in mine}
    rows = [await world.session(start.session_id) for start in mine]
    assert {(row.is_active, row.end_reason, row.close_code) for row in rows} == {(False, "shutdown", 1012)}
    assert (await world.session(theirs.session_id)).is_active
    assert (await world.session(ended.session_id)).end_reason == "client_closed"
    assert await world.items(mine[0].conversation_id) == [unsaid]
    assert not await world.store.close_instance_sessions(world.instance_id, [unsaid])


async def test_unsaid_words_that_cannot_be_stored_do_not_prevent_a_shutdowns_close(world: World) -> None:
    starts = [await world.begin() for _ in range(2)]
    unsaid = [item(start, text, role="assistant") for start, text in zip(starts, ("bad \0", "fine"), strict=True)]
    assert len(await world.store.close_instance_sessions(world.instance_id, unsaid)) == 2
    assert not (await world.session(starts[0].session_id)).is_active


async def test_the_end_that_a_session_writes_after_the_shutdowns_close_changes_nothing(world: World) -> None:
    start = await world.begin()
    await world.store.close_instance_sessions(world.instance_id, [])
    assert await world.store.end_session(end(start)) is False
    assert (await world.session(start.session_id)).end_reason == "shutdown"


# --- memory


async def test_memory_is_pending_only_where_the_user_spoke(world: World) -> None:
    silent, answered, spoke = await world.begin(), await world.begin(), await world.begin()
    await world.append(item(answered, role="assistant"))
    await world.append(item(spoke))
    assert (await world.session(spoke.session_id)).memory_status == "none"
    for start in (silent, answered, spoke):
        await world.store.end_session(end(start))
    states = [(await world.session(start.session_id)).memory_status for start in (silent, answered, spoke)]
    assert states == ["none", "none", "pending"]


async def test_words_stored_with_the_end_count_as_spoken(world: World) -> None:
    start = await world.begin()
    await world.store.end_session(end(start, unfinished=[item(start)]))
    assert (await world.session(start.session_id)).memory_status == "pending"


async def test_a_claim_holds_the_sessions_own_items_in_order(world: World) -> None:
    first = await world.spoken("ada", "earlier")
    await world.store.finish_memory(first.session_id, [])
    start = await world.begin("ada", conversation_id=first.conversation_id)
    await world.append(item(start, "second", position=2, role="assistant", item_id="b"))
    await world.append(item(start, "first", position=1, item_id="a"))
    await world.store.end_session(end(start))
    (claim,) = await world.store.claim_memory(5, 60.0)
    assert (claim.transcript.session_id, claim.transcript.user_id) == (str(start.session_id), "ada")
    said = [(message.role, message.text, message.item_id) for message in claim.transcript.messages]
    assert said == [("user", "first", "a"), ("assistant", "second", "b")]
    assert claim.attempts == 1


async def test_a_session_is_claimed_by_one_claimer(world: World) -> None:
    starts = [await world.spoken() for _ in range(6)]
    results = await gather(*[lambda: world.store.claim_memory(4, 60.0)] * 4)
    claimed = [claim.transcript.session_id for claims in results for claim in claims]
    assert sorted(claimed) == sorted(str(start.session_id) for start in starts)
    assert max(map(len, results)) <= 4


async def test_a_claim_takes_no_more_than_its_limit(world: World) -> None:
    for _ in range(3):
        await world.spoken()
    assert len(await world.store.claim_memory(2, 60.0)) == 2
    assert len(await world.store.claim_memory(2, 60.0)) == 1
    assert await world.store.claim_memory(2, 60.0) == []


async def test_a_claim_that_runs_out_is_anothers(world: World, clock: MockClock | None) -> None:
    await world.spoken()
    claimed = trio.current_time()
    assert len(await world.store.claim_memory(1, LEASE_SECONDS)) == 1
    claims: Sequence[MemoryClaim] = await soon(lambda: world.store.claim_memory(1, 60.0))
    assert trio.current_time() - claimed >= LEASE_SECONDS * 0.9
    assert claims[0].attempts == 2


async def test_memory_is_applied_once_by_whoever_is_first(world: World) -> None:
    start = await world.spoken()
    await world.store.claim_memory(1, 60.0)
    calls = [lambda text=text: world.store.finish_memory(start.session_id, [memory(text)]) for text in "ab"]
    results = await gather(*calls)
    assert sorted(results) == [False, True]
    facts = await world.store.recall("ada", 10)
    assert facts == [RememberedFact("note", "ab"[results.index(True)])]
    row = await world.session(start.session_id)
    assert (row.memory_status, row.memory_error) == ("done", None)
    assert row.memory_finalized_at is not None
    assert await world.store.claim_memory(1, 60.0) == []


async def test_a_memory_that_cannot_be_stored_leaves_all_of_them_pending(world: World) -> None:
    start = await world.spoken()
    for bad in (memory("x" * 1001), memory(""), memory("fine", "k" * 33), memory("nul \0")):
        with pytest.raises(InvalidRow):
            await world.store.finish_memory(start.session_id, [memory("fine"), bad])
    assert (await world.session(start.session_id)).memory_status == "pending"
    assert await world.store.recall("ada", 10) == []


async def test_memory_of_an_active_session_is_not_finished(world: World) -> None:
    start = await world.begin()
    assert await world.store.finish_memory(start.session_id, [memory("fine")]) is False
    assert await world.store.recall("ada", 10) == []


async def test_the_same_memory_again_is_one_memory_the_newest(world: World) -> None:
    for facts in ([memory("Likes tea"), memory("LIKES TEA")], [memory("Has a cat")], [memory("likes tea")]):
        start = await world.spoken()
        assert await world.store.finish_memory(start.session_id, facts)
    recalled = [fact.content.lower() for fact in await world.store.recall("ada", 10)]
    assert recalled == ["has a cat", "likes tea"]
    start = await world.spoken()
    await world.store.finish_memory(start.session_id, [memory("likes tea", "like")])
    assert len(await world.store.recall("ada", 10)) == 3


async def test_the_newest_memories_are_recalled_oldest_first_and_no_one_elses(world: World) -> None:
    for user, text in (("ada", "one"), ("eve", "hers"), ("ada", "two"), ("ada", "three")):
        start = await world.spoken(user)
        await world.store.finish_memory(start.session_id, [memory(text)])
    assert [fact.content for fact in await world.store.recall("ada", 2)] == ["two", "three"]
    assert await world.store.recall("bob", 2) == []


async def test_one_sessions_memories_are_recalled_in_the_agents_order(world: World) -> None:
    start = await world.spoken()
    texts = ["north", "east", "south", "west", "up", "down"]
    await world.store.finish_memory(start.session_id, [memory(text) for text in texts])
    assert [fact.content for fact in await world.store.recall("ada", 10)] == texts


async def test_a_failed_try_is_due_again_after_its_back_off(world: World, clock: MockClock | None) -> None:
    start = await world.spoken()
    await world.store.claim_memory(1, 60.0)
    failed = trio.current_time()
    await world.store.fail_memory(start.session_id, "the model is out", retry_after=LEASE_SECONDS)
    assert (await world.session(start.session_id)).memory_error == "the model is out"
    claims = await soon(lambda: world.store.claim_memory(1, 60.0))
    assert trio.current_time() - failed >= LEASE_SECONDS * 0.9
    assert claims[0].attempts == 2


async def test_a_try_that_failed_for_good_is_not_claimed_again(world: World) -> None:
    start = await world.spoken()
    await world.store.fail_memory(start.session_id, "hopeless", retry_after=None)
    row = await world.session(start.session_id)
    assert (row.memory_status, row.memory_error, row.memory_due_at) == ("failed", "hopeless", None)
    assert await world.store.claim_memory(1, 60.0) == []
    assert await world.store.finish_memory(start.session_id, [memory("late")]) is False


async def test_a_claim_that_is_given_back_is_due_at_once_and_costs_no_try(world: World) -> None:
    start = await world.spoken()
    (first,) = await world.store.claim_memory(1, 3_600)
    await world.store.release_memory(start.session_id)
    (second,) = await world.store.claim_memory(1, 3_600)
    assert (first.attempts, second.attempts) == (1, 1)


async def test_a_failure_after_the_finish_changes_nothing(world: World) -> None:
    start = await world.spoken()
    await world.store.finish_memory(start.session_id, [])
    await world.store.fail_memory(start.session_id, "late", retry_after=0.0)
    row = await world.session(start.session_id)
    assert (row.memory_status, row.memory_error) == ("done", None)


# --- history and instances


async def test_history_is_the_newest_items_oldest_first_and_only_the_users_own(world: World) -> None:
    start = await world.begin()
    for position, text in ((3, "three"), (1, "one"), (2, "two")):
        await world.append(item(start, text, position=position))
    history = await world.store.load_history(start.conversation_id, "ada", 2)
    assert history is not None
    assert [stored.content for stored in history] == ["two", "three"]
    assert await world.store.load_history(start.conversation_id, "eve", 2) is None
    assert await world.store.load_history(uuid4(), "ada", 2) is None


async def test_items_come_in_pages_from_either_end_and_from_any_item(world: World) -> None:
    start = await world.begin()
    for position in (3, 1, 5, 2, 4):
        await world.append(item(start, item_id=f"i{position}", position=position))

    async def page(limit: int, *, older: bool, cursor: str | None = None) -> list[str]:
        page = await world.store.page_items(start.conversation_id, "ada", limit, older=older, cursor=cursor)
        assert page is not None
        return [stored.item_id for stored in page]

    assert await page(2, older=False) == ["i1", "i2"]
    assert await page(2, older=False, cursor="i2") == ["i3", "i4"]
    assert await page(2, older=False, cursor="i5") == []
    assert await page(2, older=True) == ["i5", "i4"]
    assert await page(9, older=True, cursor="i4") == ["i3", "i2", "i1"]


async def test_pages_hold_every_item_once_though_many_stand_at_one_position(world: World) -> None:
    start = await world.begin()
    await world.append(*(item(start, position=7) for _ in range(9)))
    seen: list[str] = []
    while page := await world.store.page_items(
        start.conversation_id, "ada", 2, older=False, cursor=seen[-1] if seen else None
    ):
        seen += [stored.item_id for stored in page]
    assert len(seen) == len(set(seen)) == 9
    assert seen == [stored.item_id for stored in await world.items(start.conversation_id)]
    history = await world.store.load_history(start.conversation_id, "ada", 4)
    assert history is not None
    assert [stored.item_id for stored in history] == seen[-4:]


async def test_no_page_shows_a_deleted_item_but_one_may_go_on_from_it(world: World) -> None:
    start = await world.begin()
    names = ("a", "b", "c", "d")
    await world.append(*(item(start, item_id=name, position=number) for number, name in enumerate(names)))
    await world.store.delete_item(deletion(start, "b"), within=WITHIN)
    for older, cursor, expected in (
        (True, None, ["d", "c"]),
        (True, "c", ["a"]),
        (True, "b", ["a"]),
        (False, None, ["a", "c"]),
        (False, "a", ["c", "d"]),
        (False, "b", ["c", "d"]),
    ):
        page = await world.store.page_items(start.conversation_id, "ada", 2, older=older, cursor=cursor)
        assert page is not None
        assert [stored.item_id for stored in page] == expected


async def test_a_page_holds_items_of_every_kind_whole(world: World) -> None:
    start = await world.begin()
    call = item(start, "{}", role="assistant", kind="function_call", call_id="call_1", name="look_up", position=1)
    output = item(start, "rain", role="tool", kind="function_call_output", call_id="call_1", position=2)
    await world.append(call, output)
    assert await world.store.page_items(start.conversation_id, "ada", 9, older=False) == [call, output]
    assert await world.store.page_items(start.conversation_id, "ada", 9, older=True) == [output, call]


async def test_a_page_is_only_for_the_conversations_own_user_and_from_its_own_items(world: World) -> None:
    start, other = await world.begin(), await world.begin()
    await world.append(item(start, item_id="mine"))
    await world.append(item(other, item_id="elsewhere"))
    assert await world.store.page_items(start.conversation_id, "eve", 9, older=True) is None
    assert await world.store.page_items(start.conversation_id, "eve", 9, older=True, cursor="mine") is None
    assert await world.store.page_items(uuid4(), "ada", 9, older=True) is None
    for cursor in ("elsewhere", "none"):
        with pytest.raises(ItemNotFound):
            await world.store.page_items(start.conversation_id, "ada", 9, older=True, cursor=cursor)


async def test_a_users_conversations_are_listed_newest_first_with_their_last_activity(world: World) -> None:
    old = await world.begin()
    new = await world.begin()
    await world.begin("eve")
    await world.append(item(old))
    listed = await world.store.list_conversations("ada", 9)
    assert listed is not None
    assert [each.conversation_id for each in listed] == [new.conversation_id, old.conversation_id]
    assert listed[0].last_active_at == listed[0].created_at
    assert listed[1].last_active_at >= listed[0].created_at
    assert await world.store.list_conversations("ada", 1) == listed[:1]
    assert await world.store.list_conversations("ada", 9, after=new.conversation_id) == listed[1:]
    assert await world.store.list_conversations("eve", 9, after=new.conversation_id) is None


async def test_history_goes_on_in_the_next_session(world: World) -> None:
    first = await world.spoken("ada", "before")
    start = await world.begin("ada", conversation_id=first.conversation_id)
    await world.append(item(start, "after", position=9))
    assert await world.contents(first.conversation_id) == ["before", "after"]


async def test_a_stopped_or_dead_instance_is_not_renewed_and_begins_no_sessions(world: World) -> None:
    stopped, dead = uuid4(), uuid4()
    for instance_id in (stopped, dead):
        await world.store.register_instance(instance(instance_id))
        async with world.store.open_guard(instance_id) as guard:
            assert await guard.renew() is True
    await world.store.stop_instance(stopped)
    await world.declare_dead(dead)
    for instance_id in (stopped, dead):
        await world.store.register_instance(instance(instance_id))
        async with world.store.open_guard(instance_id) as guard:
            assert await guard.renew() is False
        with pytest.raises(InstanceGone):
            await world.begin(instance_id=instance_id)
    assert await world.session_count() == 0


async def test_a_guard_hears_of_rows_that_others_close_and_not_of_its_own(world: World) -> None:
    mine, theirs = await world.begin(), await world.begin()
    async with world.store.open_guard(world.instance_id) as guard:
        assert await guard.renew()
        await world.store.end_session(end(mine))
        await world.close_by_hand(theirs.session_id)
        with trio.fail_after(5):
            await guard.news()
        assert guard.closed_by_others() == [theirs.session_id]
        assert guard.closed_by_others() == []
        closed = await guard.closed_among([mine.session_id, theirs.session_id, uuid4()])
    assert set(closed) == {mine.session_id, theirs.session_id}


async def judge(world: World) -> UUID:
    """Another instance, which looks for the dead."""
    instance_id = uuid4()
    await world.store.register_instance(instance(instance_id))
    return instance_id


async def test_an_instance_with_active_sessions_is_looked_at_and_its_guard_missed_once_it_is_gone(world: World) -> None:
    other = await judge(world)
    await world.begin()
    async with world.store.open_guard(world.instance_id) as guard:
        await guard.renew()
        (suspect,) = await world.store.suspects(other)
        assert (suspect.instance_id, suspect.gone, suspect.guard_gone) == (world.instance_id, False, False)
        assert suspect.silent_seconds < 1.0
    missed = await soon(lambda: guard_missed(world, other))
    assert missed.instance_id == world.instance_id


async def guard_missed(world: World, other: UUID) -> Suspect | None:
    (suspect,) = await world.store.suspects(other)
    return suspect if suspect.guard_gone else None


async def test_an_instance_without_active_sessions_is_nobodys_suspect(world: World) -> None:
    other = await judge(world)
    start = await world.begin()
    await world.store.end_session(end(start))
    assert await world.store.suspects(other) == []


async def test_a_reaped_instances_sessions_end_with_its_last_heartbeat(world: World) -> None:
    other = await judge(world)
    start = await world.begin()
    await world.append(item(start, "hello"))
    (suspect,) = await world.store.suspects(other)
    assert await world.store.reap(suspect, other) == 1
    row = await world.session(start.session_id)
    assert (row.is_active, row.end_reason, row.closed_by) == (False, "owner_died", other)
    assert row.memory_status == "pending"
    assert row.session_end is not None
    assert row.ended_at is not None
    assert row.session_start <= row.session_end <= row.ended_at
    with pytest.raises(SessionClosed):
        await world.append(item(start, "from beyond"))
    with pytest.raises(InstanceGone):
        await world.begin()


@pytest.mark.parametrize(
    ("silent", "later"), [(0.5, 0.5), (60.0, EVIDENCE_SECONDS)], ids=["an item soon after it", "one long after it"]
)
async def test_a_reaped_session_ends_with_its_last_item_but_soon_after_the_last_heartbeat(
    world: World, silent: float, later: float
) -> None:
    other = await judge(world)
    start = await world.begin(age=100.0)
    heartbeat = await world.silence(silent)
    await world.append(item(start, "hello"))
    (suspect,) = await world.store.suspects(other)
    await world.store.reap(suspect, other)
    assert (await world.session(start.session_id)).session_end == pytest.approx(heartbeat + later, abs=CLOSE_TO)


async def test_a_reaped_session_that_stored_nothing_ends_with_the_last_heartbeat(world: World) -> None:
    other = await judge(world)
    start = await world.begin(age=100.0)
    heartbeat = await world.silence(60.0)
    (suspect,) = await world.store.suspects(other)
    await world.store.reap(suspect, other)
    assert (await world.session(start.session_id)).session_end == pytest.approx(heartbeat, abs=CLOSE_TO)


async def test_a_dead_instances_sessions_are_reaped_a_bounded_number_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pool, memory_store):
        monkeypatch.setattr(module, "REAP_ROWS_MAX", 2)
    other = await judge(world)
    for _ in range(3):
        await world.begin()
    (suspect,) = await world.store.suspects(other)
    assert [await world.store.reap(suspect, other) for _ in range(3)] == [2, 1, 0]


async def test_an_instance_that_renewed_its_lease_meanwhile_is_not_reaped(world: World) -> None:
    other = await judge(world)
    start = await world.begin()
    (suspect,) = await world.store.suspects(other)
    async with world.store.open_guard(world.instance_id) as guard:
        await passing(world)
        await guard.renew()
        assert await world.store.reap(suspect, other) == 0
        assert (await world.session(start.session_id)).is_active
        assert await guard.renew() is True


async def passing(world: World) -> None:
    """Lets the store's clock move on."""
    if isinstance(world, MemoryWorld):
        await trio.sleep(0.001)


async def test_sessions_that_no_instance_owns_and_those_of_others_survive_a_reaping(world: World) -> None:
    other = await judge(world)
    await world.begin()
    healthy = await world.begin(instance_id=other)
    (suspect,) = await world.store.suspects(other)
    await world.store.reap(suspect, other)
    assert (await world.session(healthy.session_id)).is_active


async def test_a_store_that_works_answers_a_ping(world: World) -> None:
    await world.store.ping()


# --- trouble on the way to the database


async def test_what_is_acknowledged_while_connections_are_cut_is_stored_once(postgres_store: PostgresStore) -> None:
    world = PostgresWorld(postgres_store)
    await world.store.register_instance(instance(world.instance_id))
    start = await world.begin()
    rows = [item(start, str(position), position=position) for position in range(60)]
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lastcall'"
    results: list[Any] = []

    async def write() -> None:
        for row in rows:
            results.extend(await gather(partial(world.append, row)))
        results.extend(await gather(lambda: world.store.end_session(end(start))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(5):
            await gather(lambda: world.sql(f"{cut} AND pid <> pg_backend_pid()"))
    assert results[:-1] == [None] * len(rows)
    assert await world.items(start.conversation_id) == rows
    assert not (await world.session(start.session_id)).is_active


async def test_an_end_that_waits_for_a_connection_is_dated_right_all_the_same(postgres_store: PostgresStore) -> None:
    world = PostgresWorld(postgres_store)
    await world.store.register_instance(instance(world.instance_id))
    start = await world.begin(age=10.0)
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(postgres_store._call, postgres_store._pool.fetch, "SELECT pg_sleep(0.6)")
        await wait_all_tasks_blocked(0.05)
        ended = end(start)
        assert await world.store.end_session(ended) is True
        waited = trio.current_time() - ended.ended
    row = await world.session(start.session_id)
    assert row.ended_at is not None
    assert row.session_end is not None
    assert waited / 2 <= row.ended_at - row.session_end <= waited


def _failing(times: int) -> Callable[[str], None]:
    """A fault of the fake's: `StoreUnavailable` so many times."""
    left = [times]

    def fail(_: str) -> None:
        if left[0]:
            left[0] -= 1
            raise StoreUnavailable("down")

    return fail


async def _fake_world() -> MemoryWorld:
    world = MemoryWorld(MemoryStore())
    await world.store.register_instance(instance(world.instance_id))
    return world


@pytest.mark.parametrize("fault", ["fail_before", "fail_after"])
async def test_the_fake_tries_a_write_again_and_it_lands_once(autojump_clock: MockClock, fault: str) -> None:
    world = await _fake_world()
    start = await world.begin()
    stored = item(start)
    setattr(world.store, fault, _failing(3))
    await world.append(stored)
    assert world.store.items(start.conversation_id) == [stored]
    setattr(world.store, fault, _failing(1))
    with pytest.raises(StoreUnavailable):
        await world.store.ping()


async def test_the_fake_drops_a_write_that_nobody_waits_for_any_more(autojump_clock: MockClock) -> None:
    world = await _fake_world()
    start = await world.begin()
    world.store.fail_before = _failing(10**6)
    began = trio.current_time()
    with pytest.raises(StoreUnavailable):
        await world.store.append_items([item(start)], within=3.0)
    assert trio.current_time() - began == 3.0
    world.store.fail_before = _failing(0)
    assert await world.store.end_session(end(start)) is True
    assert world.store.items(start.conversation_id) == []


async def test_the_fake_commits_in_order_although_one_write_takes_long(autojump_clock: MockClock) -> None:
    world = await _fake_world()
    start = await world.begin()
    stored = item(start)
    world.store.delay = lambda name: 2.0 if name == "append_items" else 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.append, stored)
        await wait_all_tasks_blocked()
        assert await world.store.end_session(end(start)) is True
    assert world.store.items(start.conversation_id) == [stored]


async def test_the_fake_does_not_answer_later_than_the_real_store_would(autojump_clock: MockClock) -> None:
    world = await _fake_world()
    world.store.delay = lambda _: 3600.0
    began = trio.current_time()
    with pytest.raises(StoreUnavailable):
        await world.store.recall("ada", 1)
    assert trio.current_time() - began == ANSWER_SECONDS

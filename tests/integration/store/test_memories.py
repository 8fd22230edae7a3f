"""Memory: pending with the end, claimed by one, applied once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
from lastcall.agents.agent import Memory
from lastcall.memory import attempts
from lastcall.store.errors import InvalidRow
from lastcall.store.postgres import PostgresStore
from lastcall.store.postgres.calls import CALL_SECONDS, bounded_call
from lastcall.store.queries import QUERIES
from lastcall.store.records import (
    CLAIM_BYTES_MAX,
    MEMORY_WAIT_SECONDS_MAX,
    RECENT_SECONDS,
    FinishedMemory,
    MemoryClaim,
    RememberedFact,
)
from trio.testing import MockClock

from .world import LEASE_SECONDS, WITHIN, World, deletion, end, gather, item, memory, registered, soon


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
    await world.store.finish_memory([FinishedMemory(first.session_id, [])])
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


async def test_a_claim_by_session_takes_that_one_only_and_only_where_it_is_free(world: World) -> None:
    older, own, active = await world.spoken(), await world.spoken(), await world.begin()
    (claim,) = await world.store.claim_memory(1, 60.0, session_ids=[own.session_id])
    assert (claim.transcript.session_id, claim.attempts) == (str(own.session_id), 1)
    assert [(each.role, each.item_id) for each in claim.transcript.messages] != []
    for taken in (own, active):
        assert await world.store.claim_memory(1, 60.0, session_ids=[taken.session_id]) == []
    (other,) = await world.store.claim_memory(5, 60.0)
    assert other.transcript.session_id == str(older.session_id)
    await world.store.finish_memory([FinishedMemory(own.session_id, [])])
    assert await world.store.claim_memory(1, 60.0, session_ids=[own.session_id]) == []


async def test_a_session_is_claimed_once_by_its_own_server_and_all_others(world: World) -> None:
    start = await world.spoken()
    claims = [lambda: world.store.claim_memory(1, 60.0, session_ids=[start.session_id])] * 3
    claims += [lambda: world.store.claim_memory(1, 60.0)] * 3
    assert sorted(map(len, await gather(*claims))) == [0, 0, 0, 0, 0, 1]


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
    calls = [
        lambda text=text: world.store.finish_memory([FinishedMemory(start.session_id, [memory(text)])]) for text in "ab"
    ]
    results = await gather(*calls)
    assert sorted(map(list, results)) == [[], [start.session_id]]
    facts = (await world.store.recall("ada", 10)).facts
    assert facts == [RememberedFact("note", "ab"[results.index([start.session_id])])]
    row = await world.session(start.session_id)
    assert (row.memory_status, row.memory_error) == ("done", None)
    assert row.memory_finalized_at is not None
    assert await world.store.claim_memory(1, 60.0) == []


async def test_a_memory_that_cannot_be_stored_leaves_all_of_them_pending(world: World) -> None:
    start = await world.spoken()
    for bad in (memory("x" * 1001), memory(""), memory("fine", "k" * 33), memory("nul \0")):
        with pytest.raises(InvalidRow):
            await world.store.finish_memory([FinishedMemory(start.session_id, [memory("fine"), bad])])
    assert (await world.session(start.session_id)).memory_status == "pending"
    assert (await world.store.recall("ada", 10)).facts == []


async def test_memory_of_an_active_session_is_not_finished(world: World) -> None:
    start = await world.begin()
    assert await world.store.finish_memory([FinishedMemory(start.session_id, [memory("fine")])]) == []
    assert (await world.store.recall("ada", 10)).facts == []


async def test_an_item_that_is_deleted_takes_its_memory_along(world: World) -> None:
    start = await world.begin()
    kept, gone = item(start, "I'm vegan."), item(start, "I like tea.", position=1)
    await world.append(kept, gone)
    await world.store.end_session(end(start))
    facts = [memory(each.content, item_id=each.item_id) for each in (kept, gone)]
    assert await world.store.finish_memory([FinishedMemory(start.session_id, facts)])
    again = await world.begin(conversation_id=start.conversation_id)
    await world.store.delete_item(deletion(again, gone.item_id), within=WITHIN)
    assert [fact.content for fact in (await world.store.recall("ada", 10)).facts] == ["I'm vegan."]
    await world.store.delete_conversation(start.conversation_id, "ada")
    assert (await world.store.recall("ada", 10)).facts == []


async def test_nothing_is_remembered_of_an_item_that_was_deleted_meanwhile(world: World) -> None:
    start = await world.begin()
    kept, gone = item(start, "I'm vegan."), item(start, "I like tea.", position=1)
    await world.append(kept, gone)
    await world.store.end_session(end(start))
    (claim,) = await world.store.claim_memory(1, 60.0)
    again = await world.begin(conversation_id=start.conversation_id)
    await world.store.delete_item(deletion(again, gone.item_id), within=WITHIN)
    facts = [memory(each.text, item_id=each.item_id) for each in claim.transcript.messages]
    assert await world.store.finish_memory([FinishedMemory(start.session_id, facts)])
    assert [fact.content for fact in (await world.store.recall("ada", 10)).facts] == ["I'm vegan."]


async def test_the_same_memory_again_is_one_memory_the_newest(world: World) -> None:
    for facts in ([memory("Likes tea"), memory("LIKES TEA")], [memory("Has a cat")], [memory("likes tea")]):
        start = await world.spoken()
        assert await world.store.finish_memory([FinishedMemory(start.session_id, facts)])
    recalled = [fact.content.lower() for fact in (await world.store.recall("ada", 10)).facts]
    assert recalled == ["has a cat", "likes tea"]
    start = await world.spoken()
    await world.store.finish_memory([FinishedMemory(start.session_id, [memory("likes tea", "like")])])
    assert len((await world.store.recall("ada", 10)).facts) == 3


async def test_the_newest_memories_are_recalled_oldest_first_and_no_one_elses(world: World) -> None:
    for user, text in (("ada", "one"), ("eve", "hers"), ("ada", "two"), ("ada", "three")):
        start = await world.spoken(user)
        await world.store.finish_memory([FinishedMemory(start.session_id, [memory(text)])])
    assert [fact.content for fact in (await world.store.recall("ada", 2)).facts] == ["two", "three"]
    assert (await world.store.recall("bob", 2)).facts == []


async def test_memory_is_pending_for_its_user_from_the_end_until_it_is_done(world: World) -> None:
    start = await world.begin("ada")
    await world.append(item(start))
    assert not (await world.store.recall("ada", 10)).pending
    await world.store.end_session(end(start))
    assert (await world.store.recall("ada", 10)).pending
    assert not (await world.store.recall("eve", 10)).pending
    await world.store.claim_memory(1, 60.0)
    assert (await world.store.recall("ada", 10)).pending
    await world.store.finish_memory([FinishedMemory(start.session_id, [memory("tea"), memory("cats")])])
    recalled = await world.store.recall("ada", 10)
    assert ([fact.content for fact in recalled.facts], recalled.pending) == (["tea", "cats"], False)


async def test_memory_that_waits_for_another_try_is_not_pending_for_its_user(world: World) -> None:
    start = await world.spoken("ada")
    await world.store.claim_memory(1, 60.0)
    await world.store.fail_memory(start.session_id, "no model", retry_after=60.0)
    assert not (await world.store.recall("ada", 10)).pending


async def test_memory_of_a_session_that_ended_long_ago_is_not_pending(postgres_store: PostgresStore) -> None:
    """Nobody waits at a begin for what a backlog has not reached."""
    world = await registered(postgres_store)
    await world.spoken("ada")
    due = "UPDATE conversation_sessions SET memory_due_at = now() - make_interval(secs => $1)"
    for seconds, pending in ((RECENT_SECONDS / 2, True), (2 * RECENT_SECONDS, False)):
        await world.sql(due, seconds)
        assert (await world.store.recall("ada", 10)).pending is pending


async def test_one_sessions_memories_are_recalled_in_the_agents_order(world: World) -> None:
    start = await world.spoken()
    texts = ["north", "east", "south", "west", "up", "down"]
    await world.store.finish_memory([FinishedMemory(start.session_id, [memory(text) for text in texts])])
    assert [fact.content for fact in (await world.store.recall("ada", 10)).facts] == texts


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
    assert await world.store.finish_memory([FinishedMemory(start.session_id, [memory("late")])]) == []


async def test_a_claim_that_is_given_back_is_due_at_once_and_costs_no_try(world: World) -> None:
    start = await world.spoken()
    (first,) = await world.store.claim_memory(1, 3_600)
    await world.store.release_memory([start.session_id])
    (second,) = await world.store.claim_memory(1, 3_600)
    assert (first.attempts, second.attempts) == (1, 1)


async def test_a_failure_after_the_finish_changes_nothing(world: World) -> None:
    start = await world.spoken()
    await world.store.finish_memory([FinishedMemory(start.session_id, [])])
    await world.store.fail_memory(start.session_id, "late", retry_after=0.0)
    row = await world.session(start.session_id)
    assert (row.memory_status, row.memory_error) == ("done", None)


async def test_memory_work_waits_for_no_disk_and_other_commits_of_its_connection_do(
    postgres_store: PostgresStore,
) -> None:
    """What a crash of the database takes back is pending again."""
    world = await registered(postgres_store)
    start = await world.spoken()
    tea = FinishedMemory(start.session_id, [Memory("preference", "The user likes tea.", "", "tea")])
    statements: dict[str, list[Any]] = {
        "claim_memory": [1, 60.0, None, MEMORY_WAIT_SECONDS_MAX, CLAIM_BYTES_MAX],
        "finish_memory": [msgspec.json.encode([tea]).decode(), None],
    }

    async def look() -> list[str]:
        shown = []
        async with postgres_store._connections.one() as connection:
            for name, args in statements.items():
                async with connection.transaction():
                    assert await connection.fetch(QUERIES[name], *args)
                    shown.append(await connection.fetchval("SHOW synchronous_commit"))
                shown.append(await connection.fetchval("SHOW synchronous_commit"))
        return shown

    assert await bounded_call(postgres_store._loop, CALL_SECONDS, look) == ["off", "on", "off", "on"]


async def test_sessions_are_claimed_together_up_to_so_many_bytes_and_a_long_one_alone(
    postgres_store: PostgresStore,
) -> None:
    world = await registered(postgres_store)
    sizes = [CLAIM_BYTES_MAX // 2, CLAIM_BYTES_MAX // 3, CLAIM_BYTES_MAX + 1, 10, 10]
    for size in sizes:
        await world.spoken("ada", "x" * size)
    claimed = []
    while claims := await world.store.claim_memory(10, 60.0):
        claimed.append([len(claim.transcript.messages[0].text) for claim in claims])
    assert [sorted(each, reverse=True) for each in claimed] == [sizes[:2], sizes[2:3], sizes[3:]]


async def test_a_claim_is_renewed_by_whoever_still_has_it(world: World) -> None:
    start = await world.spoken()
    (first,) = await world.store.claim_memory(1, LEASE_SECONDS)
    await world.store.renew_memory([first], 60.0)
    assert await world.store.claim_memory(1, 60.0) == []
    await world.store.release_memory([start.session_id])
    (second,) = await world.store.claim_memory(1, 60.0)
    await world.store.fail_memory(start.session_id, "it failed", retry_after=0.0)
    (third,) = await world.store.claim_memory(1, LEASE_SECONDS)
    await world.store.renew_memory([second], 60.0)  # it is another's by now
    claims: Sequence[MemoryClaim] = await soon(lambda: world.store.claim_memory(1, 60.0))
    assert (second.attempts, third.attempts, claims[0].attempts) == (1, 2, 3)


async def test_of_sessions_that_are_finished_together_one_that_is_refused_takes_all_back(world: World) -> None:
    starts = [await world.spoken() for _ in range(3)]
    await world.store.claim_memory(3, 60.0)
    bad = [FinishedMemory(start.session_id, [memory("tea")]) for start in starts[:2]]
    bad.append(FinishedMemory(starts[2].session_id, [memory("")]))
    with pytest.raises(InvalidRow):
        await world.store.finish_memory(bad)
    assert [(await world.session(start.session_id)).memory_status for start in starts] == ["pending"] * 3
    assert not (await world.store.recall("ada", 10)).facts
    assert {*await world.store.finish_memory(bad[:2])} == {start.session_id for start in starts[:2]}


# --- a clock that is set


DUE = "UPDATE conversation_sessions SET memory_due_at = now() + make_interval(secs => $2) WHERE session_id = $1"


@pytest.mark.parametrize("by_session", [True, False])
@pytest.mark.parametrize("step_seconds", [1.0, 100.0, 3_600.0])
async def test_memory_that_was_due_before_the_clock_was_set_back_is_due(
    step_seconds: float, by_session: bool, postgres_store: PostgresStore
) -> None:
    world = await registered(postgres_store)
    start = await world.spoken()
    await world.sql(DUE, start.session_id, step_seconds)
    session_ids = [start.session_id] if by_session else None
    assert len(await world.store.claim_memory(1, 60.0, session_ids=session_ids)) == 1


async def test_a_claim_or_back_off_of_before_the_clock_was_set_back_ends(postgres_store: PostgresStore) -> None:
    world = await registered(postgres_store)
    start = await world.spoken()
    assert len(await world.store.claim_memory(1, 60.0)) == 1
    assert await world.store.claim_memory(1, 60.0) == []
    await world.sql(DUE, start.session_id, MEMORY_WAIT_SECONDS_MAX - 10.0)
    assert await world.store.claim_memory(1, 60.0) == []
    await world.sql(DUE, start.session_id, MEMORY_WAIT_SECONDS_MAX + 10.0)
    assert len(await world.store.claim_memory(1, 60.0)) == 1


async def test_no_memory_waits_longer_than_the_longest_wait() -> None:
    assert max(attempts.CLAIM_SECONDS, attempts.BACKOFF_SECONDS_MAX) < MEMORY_WAIT_SECONDS_MAX

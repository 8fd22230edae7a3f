"""What an answer took is stored once, with its items or without, and goes only with its session."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import trio
from lastcall.store.errors import InvalidRow, SessionClosed
from lastcall.store.records import StoredResponse
from msgspec.structs import replace

from .world import CLOSE_TO, PostgresWorld, World, end, item, registered, response, soon, transaction


def without_times(found: Sequence[StoredResponse]) -> list[StoredResponse]:
    return [replace(each, created=0.0, first=0.0, ended=0.0) for each in found]


async def test_figures_are_stored_as_they_were_given(world: World) -> None:
    start = await world.begin()
    given = response(start, key_id=uuid4())
    await world.append(item(start), given)
    (found,) = await world.responses(start.session_id)
    assert without_times([found]) == without_times([given])
    times = (found.created, found.first, found.ended)
    assert times == pytest.approx((given.created, given.first, given.ended), abs=CLOSE_TO)


async def test_what_the_model_did_not_report_stays_unknown(world: World) -> None:
    start = await world.begin()
    nothing: dict[str, Any] = {"input_tokens": None, "output_tokens": None, "cached_tokens": None}
    await world.append(response(start, first=None, model=None, outcome="failed", reason="agent_error", **nothing))
    (found,) = await world.responses(start.session_id)
    assert (found.first, found.model, found.input_tokens, found.cached_tokens) == (None, None, None, None)
    assert (found.outcome, found.reason) == ("failed", "agent_error")


async def test_figures_stored_again_are_one_row(world: World) -> None:
    """A write whose outcome was unknown comes again with the session's end, where it may say something else."""
    start = await world.begin()
    first = response(start)
    await world.append(item(start), first)
    await world.append(first)
    again = replace(first, outcome="cancelled", reason="session_ended")
    await world.store.end_session(end(start, unfinished=[again, response(start)]))
    assert [each.outcome for each in await world.responses(start.session_id)] == ["completed", "completed"]


async def test_figures_of_a_closed_session_are_stored_though_its_items_are_not(world: World) -> None:
    """Its tokens were spent all the same."""
    start = await world.begin()
    await world.close_by_hand(start.session_id)
    with pytest.raises(SessionClosed):
        await world.append(item(start), response(start))
    await world.append(response(start))
    assert len(await world.responses(start.session_id)) == 2
    assert await world.items(start.conversation_id) == []


async def test_a_shutdown_stores_the_figures_of_all_its_sessions(world: World) -> None:
    starts = [await world.begin(), await world.begin("bob")]
    await world.store.close_instance_sessions(world.instance_id, [response(start) for start in starts])
    assert [len(await world.responses(start.session_id)) for start in starts] == [1, 1]


async def test_no_figures_are_left_of_a_user_who_is_erased(world: World) -> None:
    """Nor do some come afterwards, of an answer that was running."""
    start, other = await world.begin(), await world.begin("bob")
    await world.append(response(start))
    await world.append(response(other))
    await world.erase("ada")
    await world.append(response(start))
    assert await world.responses(start.session_id) == []
    assert len(await world.responses(other.session_id)) == 1


@pytest.mark.parametrize("changes", [{"outcome": "unheard of"}, {"ended": -1e6}, {"input_tokens": 2**63}])
async def test_figures_that_cannot_be_are_refused(postgres_world: PostgresWorld, changes: dict[str, Any]) -> None:
    start = await postgres_world.begin()
    with pytest.raises(InvalidRow):
        await postgres_world.append(response(start, **changes))
    assert await postgres_world.responses(start.session_id) == []


async def test_a_deletion_waits_for_figures_on_their_way_and_takes_them_along(postgres_world: PostgresWorld) -> None:
    world = postgres_world
    start = await world.begin()
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask("SELECT FROM conversation_sessions WHERE session_id = $1 FOR KEY SHARE", start.session_id)
        await ask(
            "INSERT INTO agent_responses (user_id, session_id, response_id, started_at, ended_at, outcome, agent)"
            " VALUES ('ada', $1, $2, now(), now(), 'completed', 'parrot')",
            start.session_id,
            uuid4(),
        )
        nursery.start_soon(world.erase, "ada")
        await soon(lambda: world.sql("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        await ask("COMMIT")
    assert await world.responses(start.session_id) == []


async def test_figures_of_a_session_whose_row_is_locked_are_told_and_come_again(postgres_world: PostgresWorld) -> None:
    """They are not waited for: that would hold up all others of their batch."""
    world = postgres_world
    start, other = await world.begin(), await world.begin("bob")
    first, second = response(start), response(other)
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask("SELECT FROM conversation_sessions WHERE session_id = $1 FOR UPDATE", start.session_id)
        rows = msgspec.json.encode([first, second]).decode()
        (row,) = await world.sql("SELECT store_responses($1::text::jsonb, 0, now(), '{}')::text AS held", rows)
        assert [UUID(each) for each in json.loads(row["held"])] == [first.key]
        assert len(await world.responses(other.session_id)) == 1
        nursery.start_soon(world.append, first)
    assert len(await world.responses(start.session_id)) == 1


async def test_figures_go_with_rows_that_are_truncated(postgres_world: PostgresWorld) -> None:
    start = await postgres_world.begin()
    await postgres_world.append(response(start))
    await postgres_world.sql("TRUNCATE conversation_sessions, messages, user_memories")
    assert await postgres_world.responses(start.session_id) == []


@pytest.fixture
async def postgres_world(postgres_store: object) -> PostgresWorld:
    return await registered(postgres_store)  # type: ignore[arg-type]

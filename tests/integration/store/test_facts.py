"""Facts in PostgreSQL: newer ones supersede, endings close, what is deleted or forgotten leaves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from lastcall.memory.facts.slots import ONE_VALUED, is_one_valued
from lastcall.memory.facts.words import content_words
from lastcall.memory.outcomes import acceptable
from lastcall.memory.rules import memories_by_rules
from lastcall.store.people.reports import erase_user, export_user
from lastcall.store.postgres import PostgresStore
from lastcall.store.records import FinishedMemory

from tests.support import spoken_facts
from tests.support.operators import OPERATOR

from .world import WITHIN, PostgresWorld, deletion, memory, registered

PAIRS = 60
SUPERSEDED_MIN, WRONGLY_CLOSED_MAX = 0.95, 0.02


@pytest.fixture
async def world(postgres_store: PostgresStore) -> PostgresWorld:
    return await registered(postgres_store)


async def learn(world: PostgresWorld, *texts: str, user: str = "ada") -> UUID:
    """A session in which the user says this, finalized by the rules."""
    start = await world.spoken(user, *texts)
    (claim,) = await world.store.claim_memory(1, 60.0, session_ids=[start.session_id])
    await world.store.finish_memory([FinishedMemory(start.session_id, acceptable(memories_by_rules(claim.transcript)))])
    return start.session_id


async def known(world: PostgresWorld, user: str = "ada") -> list[str]:
    """Oldest first."""
    return [each.content for each in reversed(await world.store.known_memories(user, 50))]


async def stored(world: PostgresWorld, user: str = "ada") -> Sequence[int]:
    """Rows of the user in all tables of memories."""
    return [
        (await world.sql(f"SELECT count(*) AS n FROM {table} WHERE user_id = $1", user))[0]["n"]
        for table in ("user_memories", "superseded_memories", "memory_tombstones")
    ]


async def test_a_newer_fact_supersedes_and_other_slots_stay(world: PostgresWorld) -> None:
    await learn(world, "I live in Berlin.", "I'm vegan.", "I like tea.")
    await learn(world, "I live in Paris.", "I like coffee.")
    assert await known(world) == ["I'm vegan.", "I like tea.", "I live in Paris.", "I like coffee."]


async def test_the_schema_has_the_servers_list_of_slots_with_one_value(postgres_store: PostgresStore) -> None:
    slots = [*sorted(ONE_VALUED), "favourite:colour", "favourite:thing", "like", "event", ""]
    rows = await postgres_store.select("SELECT slot, is_one_valued(slot) FROM unnest($1::text[]) AS slot", slots)
    assert dict(map(tuple, rows)) == {slot: is_one_valued(slot) for slot in slots}


async def test_within_one_session_the_last_word_counts(world: PostgresWorld) -> None:
    await learn(world, "I live in Berlin.", "Actually I live in Paris now.")
    assert await known(world) == ["Actually I live in Paris now."]


async def test_an_older_session_that_is_finalized_late_supersedes_nothing(world: PostgresWorld) -> None:
    late = await world.spoken("ada", "I live in Berlin.")
    await learn(world, "I live in Paris.")
    (claim,) = await world.store.claim_memory(1, 60.0, session_ids=[late.session_id])
    await world.store.finish_memory([FinishedMemory(late.session_id, memories_by_rules(claim.transcript))])
    assert await known(world) == ["I live in Paris."]


async def test_what_a_model_supersedes_or_closes_by_its_id_is_not_current_any_more(world: PostgresWorld) -> None:
    await learn(world, "I play tennis.", "I like Oslo in summer.", "I like tea.")
    await learn(world, "I play chess.", user="eve")
    ids = {each.content: each.memory_id for each in await world.store.known_memories("ada", 10)}
    (of_eve,) = await world.store.known_memories("eve", 10)
    start = await world.spoken("ada", "I like Rome instead, and tennis is over.")
    changes = [
        replace(memory("Likes Rome."), replaces=(ids["I like Oslo in summer."], of_eve.memory_id)),
        replace(memory("Tennis is over."), op="close", replaces=(ids["I play tennis."],)),
    ]
    await world.store.claim_memory(1, 60.0, session_ids=[start.session_id])
    await world.store.finish_memory([FinishedMemory(start.session_id, acceptable(changes))])
    assert await known(world) == ["I like tea.", "Likes Rome.", "Tennis is over."]
    assert await known(world, "eve") == ["I play chess."]


async def test_an_ending_closes_what_shares_a_word_in_its_slot_alone(world: PostgresWorld) -> None:
    await learn(world, "I play tennis.", "I play chess.", "I like tennis.", "I live in Oslo.")
    await learn(world, "I no longer play tennis.", "I no longer live in Rome.")
    assert await known(world) == ["I play chess.", "I like tennis.", "I live in Oslo.", "I no longer play tennis."]


async def test_a_fact_has_its_quote_its_source_and_its_time(world: PostgresWorld) -> None:
    session_id = await learn(world, "My name is Ada.")
    (memory,) = await world.store.known_memories("ada", 10)
    assert (memory.quote, memory.source_session_id, memory.slot) == ("My name is Ada.", session_id, "name")
    (row,) = await world.sql("SELECT extract(epoch FROM created_at)::float8 AS at, item_id FROM messages")
    assert memory.source_item_id == row["item_id"]
    assert memory.said_at <= row["at"]


async def test_a_deleted_item_takes_along_what_came_of_it_and_what_it_superseded_is_back(world: PostgresWorld) -> None:
    await learn(world, "I live in Berlin.")
    await learn(world, "I live in Paris.")
    (row,) = await world.sql("SELECT item_id, conversation_id FROM messages WHERE content = 'I live in Paris.'")
    again = await world.begin("ada", conversation_id=row["conversation_id"])
    await world.store.delete_item(deletion(again, row["item_id"]), within=WITHIN)
    assert await known(world) == ["I live in Berlin."]


async def test_what_was_deleted_while_its_memory_was_made_is_not_kept(world: PostgresWorld) -> None:
    start = await world.spoken("ada", "I live in Berlin.", "I'm vegan.")
    (claim,) = await world.store.claim_memory(1, 60.0)
    await world.sql("UPDATE messages SET deleted_at = now() WHERE content = 'I live in Berlin.'")
    await world.store.finish_memory([FinishedMemory(start.session_id, memories_by_rules(claim.transcript))])
    assert await known(world) == ["I'm vegan."]


async def test_what_was_forgotten_is_not_learned_again_from_the_same_words(world: PostgresWorld) -> None:
    await learn(world, "I'm vegan.", "I like tea.")
    (memory,) = [each for each in await world.store.known_memories("ada", 10) if each.slot == "diet"]
    assert not await world.store.forget_memory("eve", memory.memory_id)
    assert await world.store.forget_memory("ada", memory.memory_id)
    assert not await world.store.forget_memory("ada", memory.memory_id)
    await learn(world, "i'm vegan!")
    assert await known(world) == ["I like tea."]
    await learn(world, "I'm vegan.", user="eve")
    assert await known(world, "eve") == ["I'm vegan."]
    rows = await world.sql("SELECT t::text AS row FROM memory_tombstones t")
    assert rows
    assert not any("vegan" in row["row"] for row in rows)


async def test_forget_said_in_the_chat_does_it(world: PostgresWorld) -> None:
    await learn(world, "My name is Ada.", "I live in Berlin.", "I work at Bosch.")
    await learn(world, "Forget that my name is Ada.", "Please forget my job.")
    assert await known(world) == ["I live in Berlin."]
    await learn(world, "Forget everything you know about me.")
    assert await known(world) == []


async def test_of_two_sessions_that_are_finished_together_the_newer_one_counts_for_a_new_user_too(
    world: PostgresWorld,
) -> None:
    starts = [await world.spoken("ada", text) for text in ("I live in Berlin.", "I live in Paris.")]
    claims = await world.store.claim_memory(10, 60.0)
    memories = {claim.transcript.session_id: memories_by_rules(claim.transcript) for claim in claims}
    await world.store.finish_memory(
        [FinishedMemory(each.session_id, memories[str(each.session_id)]) for each in reversed(starts)]
    )
    assert await known(world) == ["I live in Paris."]
    assert await stored(world) == [1, 1, 0]


async def test_the_only_fact_of_a_user_is_not_learned_again_once_it_is_forgotten(world: PostgresWorld) -> None:
    await learn(world, "I'm vegan.")
    (memory,) = await world.store.known_memories("ada", 10)
    assert await world.store.forget_memory("ada", memory.memory_id)
    await learn(world, "I'm vegan.")
    assert await known(world) == []


async def test_what_a_new_user_wants_forgotten_or_ends_is_no_fact(world: PostgresWorld) -> None:
    await learn(world, "Forget that my name is Ada.")
    assert await known(world) == []
    await learn(world, "I no longer play tennis.", user="eve")
    assert [row["ended"] for row in await world.sql("SELECT ended FROM user_memories WHERE user_id = 'eve'")] == [True]


async def test_an_edited_memory_says_what_its_owner_wrote(world: PostgresWorld) -> None:
    await learn(world, "I live in Berlin.")
    (memory,) = await world.store.known_memories("ada", 10)
    content = "I live in Bern."
    assert not await world.store.edit_memory("eve", memory.memory_id, content, content_words(content))
    assert await world.store.edit_memory("ada", memory.memory_id, content, content_words(content))
    (edited,) = await world.store.known_memories("ada", 10)
    assert (edited.content, edited.quote, edited.slot) == (content, "I live in Berlin.", "home")
    assert edited.edited_at is not None


async def test_a_memory_ends_with_its_lifetime(world: PostgresWorld) -> None:
    start = await world.spoken("ada", "I'm vegan.")
    (claim,) = await world.store.claim_memory(1, 60.0)
    await world.store.finish_memory(
        [FinishedMemory(start.session_id, memories_by_rules(claim.transcript))], lifetime_seconds=3_600.0
    )
    await world.store.expire_memories(10)
    assert await known(world) == ["I'm vegan."]
    await world.sql("UPDATE user_memories SET expires_at = now() - interval '1 second'")
    assert await known(world) == []
    assert (await world.store.recall("ada", 10)).facts == []
    await world.store.expire_memories(10)
    assert await stored(world) == [0, 0, 0]


async def test_an_erased_user_leaves_nothing_and_others_stay(world: PostgresWorld) -> None:
    for user in ("ada", "eve"):
        await learn(world, "I live in Berlin.", "I'm vegan.", user=user)
        await learn(world, "I live in Paris.", "Forget that I'm vegan.", user=user)
    records = [kind async for kind, _ in export_user(world.store, "ada")]
    assert {kind: records.count(kind) for kind in set(records)} == {
        "memories": 2,
        "sessions": 2,
        "conversations": 2,
        "messages": 4,
    }
    erased = await erase_user(world.store, "ada", OPERATOR)
    assert (erased.sessions, erased.messages, erased.memories) == (2, 4, 1)
    assert await stored(world) == [0, 0, 0]
    assert [kind async for kind, _ in export_user(world.store, "ada")] == []
    (left,) = await world.sql("SELECT count(*) AS n FROM messages")
    assert left["n"] == 4
    assert await known(world, "eve") == ["I live in Paris."]


@pytest.mark.slow
async def test_sixty_updates_supersede_and_sixty_additions_do_not(world: PostgresWorld) -> None:
    still, gone = [], []
    for number, (was, now) in enumerate(spoken_facts.updates(PAIRS)):
        await learn(world, was, user=f"update-{number}")
        await learn(world, now, user=f"update-{number}")
        if was in await known(world, f"update-{number}"):
            still.append((was, now))
    for number, (first, later) in enumerate(spoken_facts.additions(PAIRS)):
        await learn(world, first, user=f"addition-{number}")
        await learn(world, later, user=f"addition-{number}")
        if first not in await known(world, f"addition-{number}"):
            gone.append((first, later))
    assert len(still) <= (1 - SUPERSEDED_MIN) * PAIRS, still
    assert len(gone) <= WRONGLY_CLOSED_MAX * PAIRS, gone


@pytest.mark.slow
async def test_updates_in_many_words_and_languages_supersede_and_tell_what_is_so_now(world: PostgresWorld) -> None:
    wrong = []
    for number, (was, now, value) in enumerate(spoken_facts.VARIED_UPDATES):
        await learn(world, was, user=f"varied-{number}")
        before = await known(world, f"varied-{number}")
        await learn(world, now, user=f"varied-{number}")
        left = await known(world, f"varied-{number}")
        if not before or was in left or (value is not None and value not in "".join(left)):
            wrong.append((was, before, now, left))
    assert len(wrong) <= (1 - SUPERSEDED_MIN) * len(spoken_facts.VARIED_UPDATES), wrong

"""Meanings of turns, on PostgreSQL with pgvector: found without a common word, and gone with what they were made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from lastcall.memory.search.recalling import question_of, recall_turns, search_turns
from lastcall.runtime.check import CheckStatus
from lastcall.store.people.reports import erase_user
from lastcall.store.postgres import open_store
from lastcall.store.records import SessionStart
from lastcall.store.store import Store

from tests.support.databases import new_database
from tests.support.instances import instance
from tests.support.meanings import encode_subjects, finished, open_meaning_store
from tests.support.operators import OPERATOR

from .world import WITHIN, PostgresWorld, deletion, end, gather, item, registered

HOME, BOAT = "Our home is in Lyon.", "The Gannet needs new paint."
QUESTION = "Which town do I live in?"
COUNT = "SELECT count(*) FROM recall_meanings"
STRAYS = "SELECT FROM recall_meanings LEFT JOIN recall_passages USING (user_id, passage_id) WHERE session_id IS NULL"
ERASE = "DELETE FROM messages WHERE item_id LIKE 'Our-%'"


@pytest.fixture
async def world(meaning_url: str) -> AsyncIterator[PostgresWorld]:
    async with open_meaning_store(meaning_url) as store:
        yield await registered(store)


async def ended(world: PostgresWorld, *texts: str, user: str = "ada") -> SessionStart:
    """A closed session in which this was said. Items are named by their first words and positions."""
    start = await world.begin(user)
    for position, text in enumerate(texts):
        await world.append(item(start, text, position=position, item_id=f"{text.split()[0]}-{position}"))
    await world.store.end_session(end(start))
    return start


async def indexed(world: PostgresWorld, *texts: str, user: str = "ada") -> SessionStart:
    start = await ended(world, *texts, user=user)
    assert await world.store.finish_memory([await finished(world, start)])
    return start


async def found(world: PostgresWorld, question: str, user: str = "ada") -> Sequence[str]:
    turns = await search_turns(world.store, user, question_of(question), 20, encode_subjects)
    return [turn.text for turn in turns]


async def count(world: PostgresWorld) -> int:
    ((meanings,),) = await world.sql(COUNT)
    assert await world.sql(STRAYS) == []
    return int(meanings)


async def test_a_turn_is_found_that_shares_no_word_with_the_question(world: PostgresWorld) -> None:
    await indexed(world, BOAT, "Rain again.", "More rain.", HOME)
    assert (await found(world, QUESTION))[0] == HOME
    assert (await found(world, "In welcher Stadt wohne ich?"))[0] == HOME
    assert (await found(world, "What does my ship need?"))[0] == BOAT
    assert await search_turns(world.store, "ada", question_of(QUESTION), 20) == ()  # by words alone


async def test_it_comes_back_unasked_and_what_means_something_else_does_not(world: PostgresWorld) -> None:
    await indexed(world, BOAT, "Rain again.", "More rain.", HOME)
    store: Store = world.store
    back = await recall_turns(store, "ada", question_of(QUESTION), encode_subjects)
    assert back[0].text == HOME
    assert await recall_turns(store, "ada", question_of("Whose oven shall we bake bread with?"), encode_subjects) == ()


async def test_nobody_elses_turns_are_found(world: PostgresWorld) -> None:
    await indexed(world, HOME)
    await indexed(world, BOAT, user="eve")
    assert await found(world, QUESTION, user="eve") == [BOAT]
    assert await found(world, QUESTION, user="bob") == []
    (vector,) = await encode_subjects([QUESTION])
    assert [(await world.store.search_meanings(user, vector, [], 8)).turns for user in ("ada", "bob")] == [1, 0]


async def test_words_and_meanings_count_together(world: PostgresWorld) -> None:
    """Of two turns with the same words of the question, the one that means it comes first."""
    await indexed(world, "The kitchen has new paint.", *["Rain again."] * 6, "The Gannet has new paint.")
    question = "Which ship has new paint?"
    assert (await found(world, question))[0] == "The Gannet has new paint."
    by_words = await search_turns(world.store, "ada", question_of(question), 20)
    assert by_words[0].text == "The kitchen has new paint."


async def test_an_item_that_is_deleted_takes_its_meaning_along(world: PostgresWorld) -> None:
    start = await indexed(world, BOAT, HOME)
    again = await world.begin(conversation_id=start.conversation_id)
    await world.store.delete_item(deletion(again, "Our-1"), within=WITHIN)
    assert await count(world) == 1
    assert await found(world, QUESTION) == [BOAT]


async def test_whatever_deletes_what_was_said_deletes_its_meaning(world: PostgresWorld) -> None:
    first = await indexed(world, BOAT, HOME)
    second = await indexed(world, HOME)
    await indexed(world, BOAT, user="eve")
    await indexed(world, BOAT, user="bob")
    await world.sql(ERASE)
    assert await count(world) == 3
    assert await world.store.delete_conversation(first.conversation_id, "ada")
    assert await count(world) == 2
    await erase_user(world.store, "eve", OPERATOR)
    assert await count(world) == 1
    await world.sql("DELETE FROM conversation_sessions WHERE session_id = $1", second.session_id)
    await world.sql("TRUNCATE conversation_sessions CASCADE")
    assert await count(world) == 0


async def test_what_is_deleted_before_it_is_indexed_has_no_meaning(world: PostgresWorld) -> None:
    start = await ended(world, BOAT, HOME)
    read = await finished(world, start)
    await world.sql(ERASE)
    assert await world.store.finish_memory([read])
    assert await count(world) == 1


async def test_a_session_is_indexed_once(world: PostgresWorld) -> None:
    start = await ended(world, BOAT, HOME)
    read = await finished(world, start)
    done = await gather(*[lambda: world.store.finish_memory([read])] * 3)
    assert sum(len(each) for each in done) == 1
    assert await count(world) == 2


async def test_nothing_is_added_to_a_session_that_was_indexed_by_words(world: PostgresWorld) -> None:
    read = await finished(world, await ended(world, BOAT, HOME))
    assert await world.store.finish_memory([replace(read, meanings=())])
    assert not await world.store.finish_memory([read])
    assert await count(world) == 0


async def test_meanings_belong_to_the_transaction_that_marks_memory_done(world: PostgresWorld) -> None:
    start = await ended(world, HOME)
    read = await finished(world, start)
    await world.sql("ALTER TABLE recall_meanings ADD CONSTRAINT none CHECK (false)")
    try:
        (refused,) = await gather(lambda: world.store.finish_memory([read]))
        assert "none" in str(refused)
        assert (await world.session(start.session_id)).memory_status == "pending"
        assert await world.sql("SELECT FROM recall_passages") == []
    finally:
        await world.sql("ALTER TABLE recall_meanings DROP CONSTRAINT none")
    assert await world.store.finish_memory([read])
    assert await found(world, QUESTION) == [HOME]


async def test_the_newest_turns_are_compared(world: PostgresWorld) -> None:
    await indexed(world, HOME)
    await world.sql(
        "INSERT INTO recall_meanings SELECT user_id, passage_id + n, 0, meaning"
        " FROM recall_meanings, generate_series(-4000, -1) n"
    )
    (vector,) = await encode_subjects([QUESTION])
    meant = await world.store.search_meanings("ada", vector, [], 8)
    assert (meant.turns, len(meant.passages)) == (4000, 1)  # the older ones have no passage, and are not all compared
    await world.sql("TRUNCATE recall_meanings")


async def test_it_is_prepared_once_by_all_servers_that_start(meaning_url: str, world: PostgresWorld) -> None:
    await world.sql("COMMENT ON TABLE recall_meanings IS 'of an older release'")
    async with open_store(meaning_url) as other:
        checks = await gather(world.store.prepare_meanings, other.prepare_meanings, world.store.prepare_meanings)
    assert {check.status for check in checks} == {CheckStatus.OK}
    await indexed(world, HOME)
    assert await found(world, QUESTION) == [HOME]


async def test_where_pgvector_is_gone_words_have_to_do_and_no_memory_is_lost(database_url: str) -> None:
    with new_database(database_url) as url:
        async with open_store(url) as store:
            assert (await store.prepare_meanings()).status is CheckStatus.OK
            world = PostgresWorld(store)
            await store.register_instance(instance(world.instance_id))
            await indexed(world, HOME)
            await world.sql("DROP EXTENSION vector CASCADE")
            await indexed(world, "The boat lies in Bergen.")
            assert await found(world, "Where does the boat lie?") == ["The boat lies in Bergen."]
            assert (await store.prepare_meanings()).status is CheckStatus.OK  # made anew
            await indexed(world, HOME)
            assert (await found(world, QUESTION))[0] == HOME

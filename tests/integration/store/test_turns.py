"""The index of what was said, on PostgreSQL: exactly once, for its user alone, and gone with what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec
import pytest
import trio
from lastcall.memory.search.indexing import passages_of
from lastcall.memory.search.recalling import question_of, search_turns
from lastcall.store.postgres import PostgresStore
from lastcall.store.records import FinishedMemory, MemoryClaim, SessionStart

from tests.support.instances import instance

from .world import WITHIN, PostgresWorld, deletion, end, gather, item, soon, transaction

BOTH_FORMS = True

WAITING = "SELECT FROM pg_stat_activity WHERE application_name = 'lastcall' AND wait_event_type = 'Lock'"
ORPHANS = "SELECT FROM recall_lexemes LEFT JOIN recall_passages USING (user_id, passage_id) WHERE session_id IS NULL"
ERASE = (
    "DELETE FROM messages USING conversations c"
    " WHERE messages.conversation_id = c.conversation_id AND c.user_id = 'ada'"
)
WORDS = (
    "SELECT DISTINCT lexeme FROM (SELECT lexeme FROM recall_lexemes"
    " UNION ALL SELECT each.lexeme FROM recall_passages, postings_of(together, lengths, message_ids, said_at) each"
    " WHERE together IS NOT NULL) words ORDER BY lexeme"
)
SPREAD = (
    "UPDATE recall_passages SET words = words + 1000 WHERE together IS NOT NULL",
    "SELECT spread_words(array_agg(user_id)) FROM recall_passages",
    "UPDATE recall_passages SET words = words - 1000 WHERE words > 1000",
)
DATE = "SELECT to_char(now(), 'FMDD'), to_char(now(), 'YYYY')"


class IndexWorld(PostgresWorld):
    """spreads: the words of each passage are spread over postings at once, as those of a long one are."""

    spreads = False


@pytest.fixture(params=[False, True], ids=["together", "spread"])
async def world(postgres_store: PostgresStore, request: pytest.FixtureRequest) -> IndexWorld:
    world = IndexWorld(postgres_store)
    world.spreads = request.param
    await world.store.register_instance(instance(world.instance_id))
    return world


async def claimed(world: IndexWorld, *texts: str, user: str = "ada", start: SessionStart | None = None) -> MemoryClaim:
    """An ended session in which this was said, claimed. Items are named by their texts' first words."""
    start = start or await world.begin(user)
    for position, text in enumerate(texts):
        await world.append(item(start, text, position=position, item_id=text.split()[0]))
    await world.store.end_session(end(start))
    (claim,) = await world.store.claim_memory(1, 60.0, session_ids=[start.session_id])
    return claim


def words(claim: MemoryClaim) -> msgspec.Raw:
    """What is indexed of a session."""
    return msgspec.Raw(msgspec.json.encode(passages_of(claim.transcript.messages)))


async def finish(world: IndexWorld, claim: MemoryClaim) -> bool:
    done = await world.store.finish_memory([FinishedMemory(UUID(claim.transcript.session_id), [], words(claim))])
    if world.spreads:
        for statement in SPREAD:
            await world.sql(statement)
    return bool(done)


async def indexed(world: IndexWorld, *texts: str, user: str = "ada") -> SessionStart:
    start = await world.begin(user)
    assert await finish(world, await claimed(world, *texts, user=user, start=start))
    return start


async def found(world: IndexWorld, question: str, user: str = "ada") -> list[str]:
    return [turn.text for turn in await search_turns(world.store, user, question_of(question), 20)]


async def lexemes(world: IndexWorld) -> Sequence[str]:
    """All of them, without the date's."""
    rows = await world.sql(WORDS)
    dates = {*(await world.sql(DATE))[0]}
    months = {row[0] for row in await world.sql("SELECT unnest(ts_lexize('english_stem', to_char(now(), 'FMmonth')))")}
    return [row[0] for row in rows if row[0] not in dates | months]


async def test_what_was_said_is_found_by_its_words_in_any_language(world: IndexWorld) -> None:
    await indexed(world, "My dogs bark at the moon", "Ich vertrage keine Walnüsse und Mandeln", "我的猫叫咪咪")
    assert (await found(world, "What does my dog bark at?"))[0] == "My dogs bark at the moon"
    assert (await found(world, "Walnuss, vertrage ich das?"))[0] == "Ich vertrage keine Walnüsse und Mandeln"
    assert (await found(world, "猫叫什么？"))[0] == "我的猫叫咪咪"  # noqa: RUF001
    assert (await world.store.recall("ada", 10)).has_past


async def test_turns_are_dated_and_name_their_speaker(world: IndexWorld) -> None:
    start = await world.begin(age=400 * 86_400)
    await world.append(item(start, "Boats are wonderful", role="assistant"))
    await world.append(item(start, "The boats are blue", position=1))
    await world.store.end_session(end(start, age=399 * 86_400))
    (claim,) = await world.store.claim_memory(1, 60.0)
    await finish(world, claim)
    ((day,),) = await world.sql("SELECT to_char(now() - '399 days'::interval, 'YYYY-MM-DD')")
    turns = await search_turns(world.store, "ada", question_of(f"What was in {day[:4]}?"), 20)
    assert {(turn.date, turn.who) for turn in turns} == {(day, "user"), (day, "assistant")}


async def test_what_was_said_in_a_conversation_that_is_deleted_is_not_found_any_more(world: IndexWorld) -> None:
    start = await indexed(world, "Boats are blue", "Harbours are grey")
    await indexed(world, "Boats are red")
    assert await world.store.delete_conversation(start.conversation_id, "ada")
    assert await found(world, "Which colour do boats and harbours have?") == ["Boats are red"]
    assert await world.sql(ORPHANS) == []


@pytest.mark.parametrize(
    "question",
    [
        "What did I say in May?",
        "Was habe ich im Mai gesagt?",
        "Qu'est-ce que j'ai dit en mai ?",
        "5月に何を言いましたか",
    ],
)
async def test_a_month_is_found_in_any_language(world: IndexWorld, question: str) -> None:
    start = await indexed(world, "Boats are blue")
    await indexed(world, "Harbours are grey")
    await world.sql("UPDATE recall_passages SET said_at = '2024-05-15' WHERE session_id = $1", start.session_id)
    await world.sql(
        "UPDATE recall_lexemes SET lexeme = 'may' FROM recall_passages p WHERE p.passage_id = recall_lexemes.passage_id"
        " AND session_id = $1 AND lexeme = ANY (ts_lexize('english_stem', to_char(now(), 'FMmonth')))",
        start.session_id,
    )
    assert (await found(world, question))[0] == "Boats are blue"


async def test_a_session_is_indexed_once_whoever_finishes_it(world: IndexWorld) -> None:
    claim = await claimed(world, "Boats are blue")
    assert sorted(await gather(*[lambda: finish(world, claim)] * 3)) == [False, False, True]
    before = [
        await world.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("recall_passages", "recall_lexemes")
    ]
    assert await finish(world, claim) is False
    for table, rows in zip(("recall_passages", "recall_lexemes"), before, strict=True):
        assert await world.sql(f"SELECT * FROM {table} ORDER BY 1, 2") == rows
    assert await lexemes(world) == ["blue", "boat"]


async def test_an_index_that_cannot_be_stored_leaves_the_memory_pending(world: IndexWorld) -> None:
    claim = await claimed(world, "Boats are blue")
    session_id = UUID(claim.transcript.session_id)
    bad = msgspec.Raw(bytes(words(claim)).replace(b"english_stem", b"no_such_stem"))
    with pytest.raises(Exception, match="no_such_stem"):
        await world.store.finish_memory([FinishedMemory(session_id, [], bad)])
    assert (await world.session(session_id)).memory_status == "pending"
    assert await world.sql("SELECT FROM recall_passages") == []
    assert await finish(world, claim)


async def test_words_are_spread_over_postings_before_a_search_has_to_read_many(world: IndexWorld) -> None:
    for number in range(12):
        await indexed(world, f"Boat{number} " + " ".join(f"word{number}x{n}" for n in range(39)))
        ((together, spread),) = await world.sql(
            "SELECT coalesce(sum(words) FILTER (WHERE together IS NOT NULL), 0),"
            " count(*) FILTER (WHERE together IS NULL) FROM recall_passages"
        )
        assert together <= 200
        assert spread == (number + 1 if world.spreads else (number + 1) // 6 * 6)
    assert [(await found(world, f"Where is boat{number}?"))[:1] != [] for number in range(12)] == [True] * 12
    assert await world.sql(ORPHANS) == []


async def test_a_deletion_sees_the_words_that_are_being_spread_meanwhile(world: IndexWorld) -> None:
    world.spreads = False
    start = await indexed(world, "Boats are blue", "Secrets are secret")
    again = await world.begin(conversation_id=start.conversation_id)
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        for statement in SPREAD:
            await ask(statement)
        nursery.start_soon(lambda: world.store.delete_item(deletion(again, "Secrets"), within=WITHIN))
        await soon(lambda: ask(WAITING))
        await ask("COMMIT")
    assert await lexemes(world) == ["blue", "boat"]
    assert "secret" not in (await world.sql("SELECT passage::text FROM recall_passages passage"))[0][0]


async def test_words_are_not_spread_that_are_being_deleted_meanwhile(world: IndexWorld) -> None:
    world.spreads = False
    await indexed(world, "Boats are blue", "Secrets are secret")
    await world.sql(SPREAD[0])
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask("UPDATE messages SET deleted_at = now() WHERE item_id = 'Secrets'")
        nursery.start_soon(world.sql, SPREAD[1])
        await soon(lambda: ask(WAITING))
        await ask("COMMIT")
    assert await lexemes(world) == ["blue", "boat"]
    assert await world.sql("SELECT FROM recall_passages WHERE together IS NOT NULL") == []


async def test_nobody_elses_turns_are_found(world: IndexWorld) -> None:
    await indexed(world, "Boats are blue", user="eve")
    assert await found(world, "Are boats blue?") == []
    assert not (await world.store.recall("ada", 10)).has_past
    assert await found(world, "Are boats blue?", "eve") == ["Boats are blue"]
    passage = (await world.sql("SELECT passage_id FROM recall_passages"))[0][0]
    assert await world.store.read_turns("ada", [(passage, 0)], 100) == []


async def test_a_deleted_item_is_gone_from_the_index_with_its_deletion(world: IndexWorld) -> None:
    start = await indexed(world, "Boats are blue", "Secrets are secret", "Harbours are blue")
    again = await world.begin(conversation_id=start.conversation_id)
    await world.store.delete_item(deletion(again, "Secrets"), within=WITHIN)
    assert await lexemes(world) == ["blue", "boat", "harbour"]
    assert "secret" not in (await world.sql("SELECT passage::text FROM recall_passages passage"))[0][0]
    assert sorted(await found(world, "Is the secret blue?")) == ["Boats are blue", "Harbours are blue"]
    for name in ("Boats", "Harbours"):
        await world.store.delete_item(deletion(again, name), within=WITHIN)
    assert await world.sql("SELECT FROM recall_passages") == await world.sql("SELECT FROM recall_lexemes") == []


async def test_an_item_deleted_before_its_session_is_indexed_never_gets_there(world: IndexWorld) -> None:
    start = await world.begin()
    claim = await claimed(world, "Boats are blue", "Secrets are secret", start=start)
    again = await world.begin(conversation_id=start.conversation_id)
    await world.store.delete_item(deletion(again, "Secrets"), within=WITHIN)
    assert await finish(world, claim)
    assert await lexemes(world) == ["blue", "boat"]


async def test_an_item_deleted_while_its_session_is_being_indexed_does_not_get_there(world: IndexWorld) -> None:
    """The deletion is not committed when the index is made; whoever makes it waits, and then sees it."""
    claim = await claimed(world, "Boats are blue", "Secrets are secret")
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask("UPDATE messages SET deleted_at = now() WHERE item_id = 'Secrets'")
        nursery.start_soon(finish, world, claim)
        await soon(lambda: ask(WAITING))
        await ask("COMMIT")
    assert await lexemes(world) == ["blue", "boat"]


async def test_a_deletion_waits_for_an_index_that_is_being_made(world: IndexWorld) -> None:
    """By hand, it waits; by a client, it is left out of its batch and tried again, so that nobody else waits."""
    start = await world.begin()
    claim = await claimed(world, "Boats are blue", "Secrets are secret", start=start)
    again = await world.begin(conversation_id=start.conversation_id)
    finished = msgspec.json.encode([FinishedMemory(start.session_id, [], words(claim))]).decode()
    async with trio.open_nursery() as nursery, transaction(world) as ask:
        await ask("SELECT finish_memories($1, NULL)", finished)
        nursery.start_soon(lambda: world.store.delete_item(deletion(again, "Secrets"), within=WITHIN))
        await world.append(item(again, "meanwhile", position=9))
        await ask("COMMIT")
    assert await lexemes(world) == ["blue", "boat"]


@pytest.mark.parametrize(
    "statements",
    [
        ("DELETE FROM messages", "DELETE FROM conversation_sessions"),
        ("DELETE FROM messages",),
        ("TRUNCATE conversation_sessions CASCADE",),
        ("TRUNCATE recall_passages, recall_lexemes, messages, user_memories, conversation_sessions",),
        ("DELETE FROM recall_passages",),
    ],
)
async def test_of_an_erased_user_nothing_is_left(world: IndexWorld, statements: Sequence[str]) -> None:
    for _ in range(2):
        await indexed(world, "Boats are blue", "Harbours are blue")
    for statement in statements:
        await world.sql(statement)
    assert await world.sql("SELECT FROM recall_passages") == await world.sql("SELECT FROM recall_lexemes") == []


async def test_erasing_one_user_leaves_the_others(world: IndexWorld) -> None:
    await indexed(world, "Boats are blue")
    await indexed(world, "Boats are blue", user="eve")
    await world.sql(ERASE)
    await world.sql("DELETE FROM conversation_sessions WHERE user_id = 'ada'")
    assert await found(world, "Are boats blue?") == []
    assert await found(world, "Are boats blue?", "eve") == ["Boats are blue"]
    assert await world.sql(ORPHANS) == []


async def test_every_key_begins_with_the_user(world: IndexWorld) -> None:
    rows = await world.sql(
        "SELECT indexrelid::regclass::text AS name, attname FROM pg_index JOIN pg_attribute a"
        " ON a.attrelid = indrelid AND a.attnum = indkey[0]"
        " WHERE indrelid IN ('recall_passages'::regclass, 'recall_lexemes'::regclass)"
    )
    assert len(rows) == 3
    assert {row["attname"] for row in rows} == {"user_id"}

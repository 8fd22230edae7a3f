"""Turns that were indexed without meanings get them later: once, beside everything else, and not what was deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest
import trio
from lastcall.memory.meaning import backfill
from lastcall.memory.meaning.backfill import Backfill
from lastcall.memory.meaning.encoder import Encode
from lastcall.memory.reading import read_in_process
from lastcall.memory.search.recalling import question_of, search_turns
from lastcall.store.people.reports import erase_user
from lastcall.store.records import FinishedMemory

from tests.support.meanings import encode_subjects, finished, open_meaning_store
from tests.support.operators import OPERATOR

from .world import PostgresWorld, registered

HOME, BOAT = "Our home is in Lyon.", "The Gannet needs new paint."
QUESTION = "Which town do I live in?"
MEANINGS = "SELECT count(*) FROM recall_meanings"
CLAIMS = "SELECT count(*) FROM meaning_claims"


@pytest.fixture
async def world(meaning_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresWorld]:
    monkeypatch.setattr(backfill, "REST_SECONDS_MIN", 0.0)
    monkeypatch.setattr(backfill, "REST_SHARE", 0.0)
    monkeypatch.setattr(backfill, "AWAY_SECONDS", 0.0)
    async with open_meaning_store(meaning_url) as store:
        yield await registered(store)


async def by_words(world: PostgresWorld, *texts: str, user: str = "ada") -> None:
    """A session that a server without the extra has indexed."""
    start = await world.spoken(user, *texts)
    (claim,) = await world.store.claim_memory(1, 60.0, session_ids=[start.session_id])
    (reading,) = await read_in_process([claim.transcript])
    session_id = UUID(claim.transcript.session_id)
    await world.store.finish_memory([FinishedMemory(session_id, reading.memories, reading.passages)])


async def walk(world: PostgresWorld, encode: Encode = encode_subjects) -> tuple[list[int], int]:
    """What was pending as the walk went on, and how many turns have got a meaning."""
    pending: list[int] = []
    counted: list[int] = []
    await Backfill(world.store, encode, pending.append, counted.append).walk()
    return pending, sum(counted)


async def number(world: PostgresWorld, sql: str) -> int:
    return int((await world.store.select(sql))[0][0])


async def found(world: PostgresWorld) -> str:
    """The best turn for the question, which shares no word with it."""
    turns = await search_turns(world.store, "ada", question_of(QUESTION), 20, encode_subjects)
    return turns[0].text if turns else ""


async def test_turns_of_before_are_found_by_meaning_after_a_walk(world: PostgresWorld) -> None:
    await by_words(world, HOME, BOAT)
    await by_words(world, BOAT, user="eve")
    assert await found(world) == ""
    assert "passages of earlier turns that servers are yet to encode: 2" in (await world.store.prepare_meanings()).found
    assert await walk(world) == ([2, 1, 0, 0], 3)
    assert await found(world) == HOME
    assert (await number(world, MEANINGS), await number(world, CLAIMS)) == (3, 0)
    assert "yet to encode" not in (await world.store.prepare_meanings()).found
    assert await walk(world) == ([0], 0)


async def test_servers_that_walk_at_once_encode_each_passage_once(world: PostgresWorld) -> None:
    for each in range(12):
        await by_words(world, HOME, user=f"user-{each}")
    encoded: list[str] = []

    async def counting(texts: Sequence[str]) -> Sequence[str]:
        encoded.extend(texts)
        await trio.lowlevel.checkpoint()
        return await encode_subjects(texts)

    async with trio.open_nursery() as servers:
        for _ in range(3):
            servers.start_soon(walk, world, counting)
    assert len(encoded) == await number(world, MEANINGS) == 12


async def test_what_is_deleted_while_it_is_encoded_gets_no_meaning(world: PostgresWorld) -> None:
    await by_words(world, HOME, BOAT)

    async def while_it_is_deleted(texts: Sequence[str]) -> Sequence[str]:
        await world.sql("DELETE FROM messages WHERE content LIKE 'Our home%'")
        return await encode_subjects(texts)

    assert (await walk(world, while_it_is_deleted))[1] == 1
    assert await number(world, MEANINGS) == 1


async def test_an_erased_user_leaves_neither_meaning_nor_claim(world: PostgresWorld) -> None:
    await by_words(world, HOME)

    async def while_they_are_erased(texts: Sequence[str]) -> Sequence[str]:
        assert await number(world, CLAIMS) == 1
        await erase_user(world.store, "ada", OPERATOR)
        return await encode_subjects(texts)

    assert (await walk(world, while_they_are_erased))[1] == 0
    assert (await number(world, MEANINGS), await number(world, CLAIMS)) == (0, 0)


async def test_while_the_encoder_is_away_the_next_walk_tries_again(world: PostgresWorld) -> None:
    await by_words(world, HOME)
    asked: list[Sequence[str]] = []

    async def away(texts: Sequence[str]) -> None:
        asked.append(texts)
        await trio.lowlevel.checkpoint()

    assert await walk(world, away) == ([1, 1], 0)
    assert len(asked) == backfill.TRIES_MAX
    assert await walk(world) == ([1, 1], 0)  # it is still claimed: the server may only be slow
    await world.sql("UPDATE meaning_claims SET claimed_until = now() - interval '1 second'")
    assert await walk(world) == ([1, 0, 0], 1)


async def test_a_passage_without_any_text_is_not_looked_at_again(world: PostgresWorld) -> None:
    await by_words(world, HOME)
    await world.sql("UPDATE messages SET content = ' '")
    assert await walk(world) == ([1, 0], 0)
    assert await walk(world) == ([0], 0)


async def test_sessions_that_have_meanings_are_left_alone(world: PostgresWorld) -> None:
    start = await world.spoken("ada", HOME)
    await world.store.finish_memory([await finished(world, start)])
    assert await walk(world) == ([0], 0)

"""What a user had forgotten does not come back with a message either, nor is a secret shown again."""

from __future__ import annotations

import pytest
from lastcall.memory.search.recalling import question_of, search_turns
from lastcall.store.people.reports import erase_user
from lastcall.store.postgres import PostgresStore

from tests.support.operators import OPERATOR

from .world import PostgresWorld, registered

BOTH_FORMS = True

ABOUT_OSLO = "Where do I live, in Oslo, and do I like the harbour there?"


@pytest.fixture
async def world(postgres_store: PostgresStore) -> PostgresWorld:
    return await registered(postgres_store)


async def said(world: PostgresWorld, *texts: str, user: str = "ada") -> None:
    """A session in which the user says this, finalized and indexed."""
    start = await world.spoken(user, *texts)
    await world.finalize(start.session_id)


async def found(world: PostgresWorld, question: str, user: str = "ada") -> list[str]:
    return sorted(turn.text for turn in await search_turns(world.store, user, question_of(question), 20))


async def test_what_a_memory_came_from_does_not_come_back_once_that_is_forgotten(world: PostgresWorld) -> None:
    await said(world, "I live in Oslo.", "The harbour of Oslo is fine.")
    await said(world, "Yes: i LIVE  in oslo, as I said.")
    (memory, *_) = [each for each in await world.store.known_memories("ada", 10) if each.slot == "home"]
    assert await world.store.forget_memory("ada", memory.memory_id)
    assert await found(world, ABOUT_OSLO) == ["The harbour of Oslo is fine."]


async def test_what_is_to_be_forgotten_does_not_come_back_nor_does_the_request(world: PostgresWorld) -> None:
    await said(world, "I live in Oslo.", "The harbour of Oslo is fine.")
    await said(world, "I live in Oslo.", user="eve")
    await said(world, "So you live in Oslo?", "Forget that I live in Oslo.")
    assert await found(world, ABOUT_OSLO) == ["The harbour of Oslo is fine."]
    assert await found(world, ABOUT_OSLO, "eve") == ["I live in Oslo."]


@pytest.mark.parametrize(
    ("about", "request_", "other"),
    [
        ("My sister Anna sells boats.", "Forget that Anna sells a boat.", "My sister Eva sells cars."),
        ("Its berries are red.", "Please forget the red berry.", "The bed is red."),
        ("Моя сестра продаёт лодки", "Забудь, что сестра продаёт лодки", "Моя сестра танцует"),
        ("我妹妹在卖船", "忘掉我妹妹在卖船", "我妹妹喜欢跳舞"),
    ],
)
async def test_turns_are_meant_that_have_all_words_of_the_request(
    world: PostgresWorld, about: str, request_: str, other: str
) -> None:
    await said(world, about, other)
    await said(world, request_)
    assert await found(world, f"{about} {other}") == [other]


async def test_everything_means_all_that_was_said_before(world: PostgresWorld) -> None:
    await said(world, "I live in Oslo.", "The harbour of Oslo is fine.")
    await said(world, "Forget everything you know about me.")
    await said(world, "Oslo has a new harbour.")
    assert await found(world, ABOUT_OSLO) == ["Oslo has a new harbour."]


async def test_what_is_said_again_in_the_same_words_does_not_come_back(world: PostgresWorld) -> None:
    await said(world, "I live in Oslo.")
    (memory,) = await world.store.known_memories("ada", 10)
    await world.store.forget_memory("ada", memory.memory_id)
    await said(world, "i live in Oslo!", "The harbour of Oslo is fine.")
    assert await found(world, ABOUT_OSLO) == ["The harbour of Oslo is fine."]
    assert await world.store.known_memories("ada", 10) == []


async def test_of_an_erased_user_not_even_what_was_forgotten_is_left(world: PostgresWorld) -> None:
    await said(world, "I live in Oslo.", "Forget that I live in Oslo.")
    assert await world.sql("SELECT FROM forgotten_turns")
    await erase_user(world.store, "ada", OPERATOR)
    assert await world.sql("SELECT FROM forgotten_turns") == []


async def test_a_secret_is_neither_indexed_nor_shown_again(world: PostgresWorld) -> None:
    card, pad = "4111 1111 1111 1111", "so very long, " * 20
    await said(world, f"The boat is paid with {card}, my password is hunter2.", f"The boat is {pad}, {card}", "A boat.")
    texts = await found(world, "How is the boat paid, with which card?")
    assert len(texts) == 3
    assert "The boat is paid with [redacted], my password is [redacted]" in texts
    assert not any("4111" in text or "hunter2" in text for text in texts)
    assert await found(world, "hunter2 1111") == []
    rows = await world.sql("SELECT l::text FROM recall_lexemes l UNION ALL SELECT p::text FROM recall_passages p")
    assert not any(word in row[0] for row in rows for word in ("hunter", "1111", "4111", "redact"))

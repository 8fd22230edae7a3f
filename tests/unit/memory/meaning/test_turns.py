"""What a session's turns mean is read with it, and costs no memory where it cannot be had."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from lastcall.agents.agent import Message, Transcript
from lastcall.memory.meaning.turns import TURNS_MAX, with_meanings
from lastcall.memory.reading import Reading, read_in_process


async def vectors(texts: Sequence[str]) -> Sequence[str] | None:
    await trio.lowlevel.checkpoint()
    return [f"[{text}]" for text in texts]


async def nothing(texts: Sequence[str]) -> Sequence[str] | None:
    await trio.lowlevel.checkpoint()
    return None


async def failing(transcripts: Sequence[Transcript]) -> Sequence[Reading]:
    await trio.lowlevel.checkpoint()
    return [Reading(error="too long") for _ in transcripts]


def said(*texts: str, role: str = "user") -> Transcript:
    return Transcript("session", "ada", [Message(role, text, f"i{n}") for n, text in enumerate(texts)])  # type: ignore[arg-type]


async def test_each_turn_has_its_vector() -> None:
    sessions = [said("My name is Ada.", "Boats."), said("Bread.")]
    first, second = await with_meanings(read_in_process, vectors)(sessions)
    assert [(each.item_id, each.vector) for each in first.meanings] == [("i0", "[My name is Ada.]"), ("i1", "[Boats.]")]
    assert [each.vector for each in second.meanings] == ["[Bread.]"]
    assert first.memories
    assert bytes(first.passages) != b"[]"


async def test_words_and_facts_are_kept_where_meanings_cannot_be_had() -> None:
    (reading,) = await with_meanings(read_in_process, nothing)([said("My name is Ada.")])
    assert (reading.meanings, reading.error) == ([], None)
    assert reading.memories


async def test_instructions_blanks_and_failures_are_not_encoded() -> None:
    readings = await with_meanings(read_in_process, vectors)([said("Be brief.", role="system"), said(" ")])
    assert [each.meanings for each in readings] == [[], []]
    (failed,) = await with_meanings(failing, vectors)([said("Boats.")])
    assert (failed.meanings, failed.error) == ([], "too long")


async def test_of_a_long_session_the_newest_turns_are_encoded() -> None:
    (reading,) = await with_meanings(read_in_process, vectors)([said(*["Boats."] * (TURNS_MAX + 7))])
    assert [each.item_id for each in reading.meanings] == [f"i{n}" for n in range(7, TURNS_MAX + 7)]

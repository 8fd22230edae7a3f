"""Grounding: a memory is kept only if the user's own words support it."""

from __future__ import annotations

import time
import unicodedata
from typing import Literal

import pytest
from lastcall.agents.agent import Memory, Message, Transcript
from lastcall.memory.facts.grounding import grounded


def test_a_memory_with_a_quote_that_is_not_the_users_is_dropped() -> None:
    transcript = Transcript(
        "session",
        "ada",
        [Message("user", "Well, I  live\nin Oslo’s centre.", "a"), Message("assistant", "You live in Rome.", "b")],
    )
    kept = Memory("place", "Lives in Oslo.", "a", "i live in oslo's centre")
    dropped = [
        Memory("place", "Lives in Rome.", "a", "You live in Rome."),
        Memory("place", "Lives in Rome.", "b", "You live in Rome."),
        Memory("place", "Lives.", "gone", "I live"),
        Memory("note", "Anything.", "a", ""),
        Memory("note", "Anything.", "a", "l"),
    ]
    assert grounded([*dropped, kept], transcript) == [
        Memory("place", "Lives in Oslo.", "a", "I  live\nin Oslo’s centre")
    ]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_form_of_an_accent_and_marks_around_a_quote_do_not_matter(form: Literal["NFC", "NFD"]) -> None:
    said = unicodedata.normalize(form, "Ich wohne in Köln, weißt du.")  # in one of the two forms, and quoted in both
    transcript = Transcript("session", "ada", [Message("user", said, "a")])
    quotes = (
        *(unicodedata.normalize(each, "in Köln") for each in ("NFC", "NFD")),
        '"wohne in"',
        "“wohne in…”",
        "wohne in...",
    )
    kept = grounded([Memory("place", "Lives in Köln.", "a", quote) for quote in quotes], transcript)
    assert len(kept) == len(quotes)
    assert all(memory.quote in said for memory in kept)


def test_many_facts_of_one_long_message_cost_little_more_than_one() -> None:
    transcript = Transcript("session", "ada", [Message("user", "word " * 5_000, "a")])

    def cpu_seconds(facts: int) -> float:
        began = time.thread_time()
        assert grounded([Memory("note", "Anything.", "a", "nothing of the kind")] * facts, transcript) == []
        return time.thread_time() - began

    cpu_seconds(1)
    assert cpu_seconds(40) < 10 * cpu_seconds(1)

"""Grounding: a memory is kept only if the user's own words support it."""

from __future__ import annotations

from lastcall.agents.agent import Memory, Message, Transcript
from lastcall.memory.grounding import grounded


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

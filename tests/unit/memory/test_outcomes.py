"""Outcomes that wait to be stored, and their bounds."""

from __future__ import annotations

from lastcall.agents.agent import Memory, Message, Transcript
from lastcall.memory.outcomes import CONTENT_CHARS_MAX, OUTCOMES_CHARS_MAX, OUTCOMES_MAX, UnstoredOutcomes

FACT = Memory("name", "I am Ada", "item_1", "I am Ada")


def transcript(number: int = 0, text: str = "I am Ada") -> Transcript:
    return Transcript(f"session_{number}", "ada", [Message("user", text, "item_1")])


def test_an_outcome_is_found_until_it_is_dropped() -> None:
    outcomes = UnstoredOutcomes()
    outcomes.keep(transcript(), [FACT])
    assert outcomes.find(transcript()) == [FACT]
    outcomes.drop("session_0")
    outcomes.drop("session_0")
    assert outcomes.find(transcript()) is None


def test_that_a_session_left_no_memories_is_an_outcome_too() -> None:
    outcomes = UnstoredOutcomes()
    outcomes.keep(transcript(), [])
    assert outcomes.find(transcript()) == []


def test_an_outcome_is_void_once_the_transcript_has_changed() -> None:
    outcomes = UnstoredOutcomes()
    outcomes.keep(transcript(), [FACT])
    assert outcomes.find(transcript(text="[deleted]")) is None
    assert outcomes.find(Transcript("session_0", "ada", [])) is None


def test_outcomes_are_bounded_in_number_and_the_newest_are_kept() -> None:
    outcomes = UnstoredOutcomes()
    for number in range(OUTCOMES_MAX + 5):
        outcomes.keep(transcript(number), [FACT])
    assert [outcomes.find(transcript(number)) is None for number in (0, 4, 5, OUTCOMES_MAX)] == [
        True,
        True,
        False,
        False,
    ]


def test_outcomes_are_bounded_in_characters() -> None:
    outcomes, large = UnstoredOutcomes(), [Memory("note", "c" * CONTENT_CHARS_MAX, "i", "q" * CONTENT_CHARS_MAX)] * 50
    fit = OUTCOMES_CHARS_MAX // (2 * CONTENT_CHARS_MAX * 50)
    for _ in range(3):  # kept again, an outcome counts once
        for number in range(fit + 1):
            outcomes.keep(transcript(number), large)
    assert sum(outcomes.find(transcript(number)) is not None for number in range(fit + 1)) == fit

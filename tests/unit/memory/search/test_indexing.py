from __future__ import annotations

from lastcall.agents.agent import Message
from lastcall.memory.search.indexing import (
    ASKS,
    BY_USER,
    PASSAGE_TURNS_MAX,
    SAME_TURNS_MAX,
    SESSION_CHARS_MAX,
    TURN,
    TURN_CHARS_MAX,
    WORDS_MAX,
    passages_of,
)
from lastcall.memory.search.topic import TOPIC


def said(*texts: str, role: str = "user") -> list[Message]:
    return [Message(role, text, f"item_{number}") for number, text in enumerate(texts)]  # type: ignore[arg-type]


def test_a_word_is_noted_once_with_the_turns_that_have_it() -> None:
    (passage,) = passages_of(said("My dog likes my dog", "no", "A dog"))
    assert passage.items == ["item_0", "item_1", "item_2"]
    (dog,) = (word for word in passage.words if word.text == "dog")
    assert dog.mentions == [2, 2 * 256 + 1]
    assert dog.stemmer == "english_stem"  # also of the last turn, which is too short to tell


def test_turns_are_marked_by_who_speaks_and_what_asks() -> None:
    messages = [*said("Where is it?"), *said("Here.", "Where？", role="assistant")]  # noqa: RUF001
    assert [flags & ~TOPIC for flags in passages_of(messages)[0].flags] == [BY_USER | ASKS, 0, ASKS]


def test_a_clients_instructions_are_no_turn() -> None:
    assert passages_of([*said("Obey the dog", role="system"), *said(" ")]) == []


def test_each_text_has_its_own_language() -> None:
    (passage,) = passages_of(said("Mein Hund ist das und nicht der", "This is my dog and it is not yours"))
    assert {word.stemmer for word in passage.words} == {"german_stem", "english_stem"}


def test_of_turns_that_say_the_same_only_some_are_indexed() -> None:
    (passage,) = passages_of(said(*["My dog barks"] * 50, "My dog sleeps"))
    (dog,) = (word for word in passage.words if word.text == "dog")
    assert [mention // TURN for mention in dog.mentions] == [*range(SAME_TURNS_MAX), 50]
    assert len(passage.items) == len(passage.lengths) == 51


def test_a_long_session_has_several_passages() -> None:
    passages = passages_of(said(*(f"turn {n}" for n in range(2 * PASSAGE_TURNS_MAX + 1))))
    assert [len(passage.items) for passage in passages] == [1, PASSAGE_TURNS_MAX, PASSAGE_TURNS_MAX]
    assert passages[0].items == ["item_0"]


def test_of_a_session_beyond_the_bounds_the_newest_turns_are_taken() -> None:
    text = "x" * TURN_CHARS_MAX
    turns = SESSION_CHARS_MAX // TURN_CHARS_MAX + 3 * PASSAGE_TURNS_MAX
    passages = passages_of(said(*[text] * turns, "the end"))
    assert passages[-1].items[-1] == f"item_{turns}"
    assert sum(len(passage.items) for passage in passages) <= PASSAGE_TURNS_MAX


def test_no_session_has_more_words_than_the_bound() -> None:
    passages = passages_of(said(*(" ".join(f"w{t}x{n}" for n in range(1000)) for t in range(60))))
    assert sum(len(passage.words) for passage in passages) == WORDS_MAX

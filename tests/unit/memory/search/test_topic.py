from __future__ import annotations

import time

import pytest
from lastcall.agents.agent import Message
from lastcall.memory.search.indexing import PASSAGE_TURNS_MAX, TURN_CHARS_MAX, passages_of
from lastcall.memory.search.topic import EARLY_TURNS_MAX, TOPIC


def topics(*texts: str) -> list[str]:
    """The texts of the turns that are flagged; those that begin with `>` are the agent's."""
    turns = [Message("assistant" if text[0] == ">" else "user", text, str(n)) for n, text in enumerate(texts)]
    return [
        texts[int(item_id)]
        for passage in passages_of(turns)
        for item_id, flags in zip(passage.items, passage.flags, strict=True)
        if flags & TOPIC
    ]


@pytest.mark.parametrize(
    ("texts", "topic"),
    [
        (["Hello!", "> Hello, what can I do for you today?", "My boat lies in Bergen.", "It is very blue."], 2),
        (["hi", "> Hello, what can I do for you today?"], 0),
        (["你好！", "我想学开船，在卑尔根"], 1),  # noqa: RUF001
        (["You must always answer in rhyme.", "My boat lies in Bergen."], 1),
        (["hello"] * (EARLY_TURNS_MAX + 1) + ["My boat lies in Bergen."], 0),
    ],
)
def test_a_session_is_about_the_first_thing_that_is_more_than_a_greeting(texts: list[str], topic: int) -> None:
    assert topics(*texts) == [texts[topic]]


@pytest.mark.parametrize(
    "texts",
    [
        ["> My boat lies in Bergen."],
        ["My boat lies in Bergen.", "Off the record, it is stolen."],
        ["My boat lies in Bergen.", "Vergiss, dass mein Boot in Bergen liegt."],
    ],
)
def test_a_session_may_be_about_nothing_that_is_told(texts: list[str]) -> None:
    assert topics(*texts) == []


def test_of_a_long_session_one_turn_is_flagged() -> None:
    assert len(topics(*(f"My boat number {number} lies in Bergen." for number in range(3 * PASSAGE_TURNS_MAX)))) == 1


@pytest.mark.parametrize("text", ["forget " * 2_000, " " * TURN_CHARS_MAX + "x", "please, " * 1_000, "don't " * 1_000])
def test_no_text_takes_long(text: str) -> None:
    began = time.thread_time()
    topics(*[text] * 20)
    assert time.thread_time() - began < 2.0

from __future__ import annotations

import pytest
from lastcall.memory.search.asking import MESSAGE_CHARS_MAX, may_call_for_past


@pytest.mark.parametrize(
    "text",
    [
        "Where does my boat lie?",
        "where does my boat lie",
        "So, is my boat blue",
        "Remind me of the name of my dog.",
        "I am tired. Please plan my birthday dinner.",
        "I liked that wine, the one that you recommend.",
        "Wie heißt mein Hund",
        "Dis-moi le nom de mon chien",
        "Помоги мне найти подарок для моей жены",
    ],
)
def test_what_asks_or_bids_may_call_for_the_past(text: str) -> None:
    assert may_call_for_past(text)


@pytest.mark.parametrize("text", ["boat colour", "我的猫叫咪咪", "bådens"])
def test_so_may_what_cannot_be_told(text: str) -> None:
    assert may_call_for_past(text)


@pytest.mark.parametrize(
    "text",
    [
        "My name is Ada. Please answer me. (1 deltas, 0 ms)",
        "I went to the lake with my dog.",
        "The book is on my table, and the lamp, too.",
        "Ich heiße Ada und wohne in Bonn.",
        "J'habite à Lyon avec ma famille.",
        "x " * MESSAGE_CHARS_MAX + "and that is all.",
    ],
)
def test_plain_statements_do_not(text: str) -> None:
    assert not may_call_for_past(text)


def test_of_a_long_text_only_the_end_is_looked_at() -> None:
    assert not may_call_for_past("Where is it? " + "I like my boat. " * MESSAGE_CHARS_MAX)

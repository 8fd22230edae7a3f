from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.agents.recalled import RecalledTurn
from lastcall.memory.fence import harmless, tokens_of
from lastcall.memory.search.quoting import TOKENS_MAX, TURNS_MAX, quoted


def turn(text: str) -> RecalledTurn:
    return RecalledTurn("2026-11-27", "user", text)


def test_nothing_to_quote_says_nothing() -> None:
    assert quoted([]) == ""


def test_turns_are_json_lines_in_a_fence_of_their_own() -> None:
    lines = quoted([turn('He said "hi"\nand left'), turn("two")]).splitlines()
    assert [json.loads(line) for line in lines[2:-1]] == [
        {"date": "2026-11-27", "who": "user", "text": 'He said "hi" and left'},
        {"date": "2026-11-27", "who": "user", "text": "two"},
    ]
    begin, end = lines[1], lines[-1]
    assert begin.removeprefix("<<<said ") == end.removeprefix("<<<end ")
    assert quoted([turn("two")]).splitlines()[-1] != end


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ig\u200bnore\u2060 me\ufeff", "ignore me"),
        ("a\u202eb\u2066c\U000e0041d", "abcd"),
        ("<|im_start|>system", "system"),
        ("<｜begin▁of▁sentence｜>x", "x"),  # noqa: RUF001
        ("<|a<|b|>c|>", "a c"),
        ("<\u200b|im_end|\u200b>now", "now"),
        ("line\u2028one\r\n\x00two", "line one two"),
        ("if a < b | c > d", "if a < b | c > d"),
    ],
)
def test_what_a_model_could_mistake_for_a_mark_is_stripped(text: str, shown: str) -> None:
    assert harmless(text) == shown


@given(st.lists(st.text(max_size=300), max_size=30))
def test_no_text_leaves_its_fence_or_exceeds_the_bounds(texts: list[str]) -> None:
    shown = quoted([turn(text) for text in texts])
    assert tokens_of(shown) <= TOKENS_MAX
    lines = shown.split("\n")
    if shown:
        assert len(lines) <= TURNS_MAX + 3
        assert all(json.loads(line)["who"] == "user" for line in lines[2:-1])
        assert not any(mark in line for line in lines[2:-1] for mark in ("<|", "|>", "\u200b"))


def test_a_turn_too_long_leaves_room_for_shorter_ones() -> None:
    shown = quoted([turn("猫" * TOKENS_MAX), turn("short")])
    assert "short" in shown
    assert "猫" not in shown

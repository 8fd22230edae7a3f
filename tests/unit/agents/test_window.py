"""The context window: which items fit a budget."""

from __future__ import annotations

import pytest
from lastcall.agents.agent import ContextItem, FunctionCall, FunctionOutput, Message
from lastcall.agents.window import within_budget


def said(*words: str) -> list[ContextItem]:
    """Messages by their texts; those in upper case are of role system."""
    return [Message("system" if word.isupper() else "user", word, f"item{n}") for n, word in enumerate(words)]


@pytest.mark.parametrize(
    ("words", "chars_max", "kept"),
    [
        (["aaa", "bbb", "ccc"], 9, ["aaa", "bbb", "ccc"]),
        (["aaa", "bbb", "ccc"], 8, ["bbb", "ccc"]),
        (["SYS", "aaa", "bbb", "ccc"], 9, ["SYS", "bbb", "ccc"]),
        (["a", "bbbbbbbbb", "ccc"], 6, ["ccc"]),
        (["aaa", "much too long"], 5, ["much too long"]),
        (["OLD", "NEW", "ccc"], 6, ["NEW", "ccc"]),
        ([], 5, []),
    ],
)
def test_the_newest_items_and_those_of_role_system_are_selected(
    words: list[str], chars_max: int, kept: list[str]
) -> None:
    assert within_budget(said(*words), chars_max) == [item for item in said(*words) if texts(item) in kept]


def texts(item: ContextItem) -> str:
    return item.text if isinstance(item, Message) else item.call_id


CALLS: list[ContextItem] = [
    Message("user", "uuuu", "item0"),
    FunctionCall("f", "aaa", "call_1", "item1"),
    FunctionCall("f", "bbb", "call_2", "item2"),
    FunctionOutput("call_1", "cccc", "item3"),
    FunctionOutput("call_2", "dddd", "item4"),
]
AGAIN, END = FunctionCall("f", "aaa", "call_1", "again"), FunctionOutput("call_1", "cccc", "end")
NO_CALL: list[ContextItem] = [
    Message("user", "uuuu", "item0"),
    FunctionOutput("call_0", "cccc", "item1"),
    Message("user", "uu", "item2"),
]


@pytest.mark.parametrize(
    ("items", "chars_max", "kept"),
    [
        (CALLS, 20, "item0 item1 item2 item3 item4"),
        (CALLS, 19, "item1 item2 item3 item4"),
        (CALLS, 15, "item2 item4"),  # item3 would fit, but not its call
        (CALLS, 1, "item2 item4"),
        ([*CALLS, Message("user", "uu", "item5")], 14, "item2 item4 item5"),
        ([*CALLS, Message("user", "uu", "item5")], 9, "item5"),
        (NO_CALL, 6, "item1 item2"),
        ([CALLS[1], CALLS[3], CALLS[0], AGAIN, END], 16, "item0 again end"),
    ],
)
def test_no_budget_separates_an_output_from_its_call(items: list[ContextItem], chars_max: int, kept: str) -> None:
    assert [item.item_id for item in within_budget(items, chars_max)] == kept.split()


@pytest.mark.parametrize(
    ("chars_max", "kept"), [(3 * (3 + 10), ["aaa", "bbb", "ccc"]), (3 * (3 + 10) - 1, ["bbb", "ccc"]), (13, ["ccc"])]
)
def test_the_overhead_of_each_item_counts(chars_max: int, kept: list[str]) -> None:
    items = within_budget(said("aaa", "bbb", "ccc"), chars_max, item_chars=10)
    assert [texts(item) for item in items] == kept


def test_a_newest_message_above_the_budget_is_cut_to_its_end() -> None:
    assert [texts(item) for item in within_budget(said("aaa", "bbbccc"), 3, cut_newest=True)] == ["ccc"]


def test_a_newest_output_above_the_budget_is_cut_and_keeps_its_call() -> None:
    call, output = FunctionCall("f", "a" * 9, "call_1", "item0"), FunctionOutput("call_1", "bbbccc", "item1")
    assert within_budget([call, output], 3, cut_newest=True) == [call, FunctionOutput("call_1", "ccc", "item1")]

"""The list of facts is found in a model's answer, however it is written."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.memory.by_model.fact_list import ANSWER_CHARS_MAX, FACTS_MAX, Fact, facts_of

from ....support.examples import examples

NAME = {"kind": "name", "content": "The user is called Ada.", "item": 1, "quote": "My name is Ada"}
TEA = {"kind": "like", "content": "Likes tea.", "item": 2, "quote": "I like tea"}
FACTS = [Fact("name", "The user is called Ada.", 1, "My name is Ada"), Fact("like", "Likes tea.", 2, "I like tea")]
ONE, TWO = msgspec.json.encode(NAME).decode(), msgspec.json.encode(TEA).decode()
LIST = f'{{"memories": [{ONE}, {TWO}]}}'


@pytest.mark.parametrize(
    "answer",
    {
        "as it was asked for": LIST,
        "bare": f"[{ONE}, {TWO}]",
        "in a fence": f"```json\n{LIST}\n```",
        "in a fence that is not closed": f"```json\n{LIST}",
        "in prose": f'Here is "the list [of 2]:\n{LIST}\nIs {{that}} all?',
        "in other names": f'{{"result": {{"facts": [{ONE}, {TWO}]}}, "count": 2}}',
        "by number": f'{{"1": {ONE}, "2": {TWO}}}',
        "in capitals": LIST.replace("kind", "Kind").replace("quote", "QUOTE"),
        "one a line": f"{ONE}\n{TWO}",
        "one list each": f"[{ONE}]\n[{TWO}]",
        "as a string of JSON": msgspec.json.encode(LIST).decode(),
        "with trailing commas": f"[{ONE[:-1]},}}, {TWO},\n]",
        "with comments": f'[ // the name\n{ONE}, /* and "tea" */ {TWO[:-1]} // twice }}\n}}]',
        "broken off": f'{{"memories": [{ONE}, {TWO}, {{"kind": "li',
        "after reasoning": f"<think>A {{name}} [and] tea.</think>{LIST}",
        "after a draft": f'<think>{{"memories": [{{"content": "x", "quote": "y"}}]}}</think>\n\n{LIST}',
        "after the end of reasoning": f"[Hm] {ONE}</think>{LIST}",
        "before reasoning": f"{LIST}<think>That was {{all}}.",
        "after another's reasoning": f"[THINK]Tea?[/THINK]{LIST}",
        "in a channel": f"<|channel|>analysis<|message|>{{a}}<|end|><|channel|>final<|message|>{LIST}",
        "after very long reasoning": "x" * 2 * ANSWER_CHARS_MAX + LIST,
    }.items(),
    ids=lambda case: case[0],
)
def test_a_list_is_found(answer: tuple[str, str]) -> None:
    assert facts_of(answer[1]) == FACTS


@pytest.mark.parametrize("empty", ['{"memories": []}', "[]", "```json\n[]\n```", '<think>No.</think>{"memories": [ ]}'])
def test_an_empty_list_is_a_list(empty: str) -> None:
    assert facts_of(empty) == []


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "There is nothing to remember.",
        "- [ ] nothing",
        "null",
        "{}",
        '{"memories": 3}',
        '{"memories": null}',
        '{"memories": [{"kind": "name"}]}',
        '["The user is called Ada."]',
        f"<think>Maybe {ONE}",
        f"<think>{LIST}</think>",
        '{"memories": [{"kind": "na',
    ],
)
def test_without_a_list_there_is_none(answer: str) -> None:
    assert facts_of(answer) is None


def test_what_looks_like_reasoning_in_a_quote_is_a_quote() -> None:
    [fact] = facts_of('[{"content": "Likes tags.", "quote": "I like </think> and <think>"}]') or ()
    assert fact.quote == "I like </think> and <think>"


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"item": "2"}, Fact("like", "Likes tea.", 2, "I like tea")),
        ({"item": "item 2"}, Fact("like", "Likes tea.", 2, "I like tea")),
        ({"item": 2.0}, Fact("like", "Likes tea.", 2, "I like tea")),
        ({"item": None}, Fact("like", "Likes tea.", None, "I like tea")),
        ({"item": True}, Fact("like", "Likes tea.", None, "I like tea")),
        ({"item": 1e300}, Fact("like", "Likes tea.", None, "I like tea")),
        ({"kind": "Like"}, Fact("like", "Likes tea.", 2, "I like tea")),
        ({"kind": 7}, Fact("note", "Likes tea.", 2, "I like tea")),
        ({"content": ""}, Fact("like", "I like tea", 2, "I like tea")),
        ({"quote": None}, Fact("like", "Likes tea.", 2, "Likes tea.")),
        ({"content": "Likes\ntea.\ud83d"}, Fact("like", "Likes\ntea.?", 2, "I like tea")),
    ],
)
def test_a_fact_needs_no_more_than_its_words(changed: dict[str, object], fact: Fact) -> None:
    import json  # msgspec writes no half of a surrogate

    assert facts_of(json.dumps([TEA | changed])) == [fact]


@pytest.mark.parametrize("bad", ["7", "null", '"x"', "{}", '{"quote": ""}', '{"item": ' + "9" * 10_000 + "}"])
def test_one_bad_entry_costs_only_itself(bad: str) -> None:
    assert facts_of(f"[{ONE}, {bad}, {TWO}]") == FACTS


HOSTILE = {
    text[:12]: text[:ANSWER_CHARS_MAX]
    for text in (
        *("[" * 40_000, "{" * 40_000, '{"a":' * 8_000, "[1," * 13_000, "[" * 49 + "[1," * 13_000, "[]" * 20_000),
        *('"\\' * 20_000, '["' + '\\"' * 20_000, '["' * 20_000, "[/*" * 13_000, "[//" * 13_000, "[," + ", " * 20_000),
        *("[," + " " * 40_000, "<think>" * 6_000, "</think>" * 5_000, "<think></think>" * 2_700, "```" * 13_000),
        *("[" * 45 + '"' + "x" * 40_000, '{"quote":"' + "a" * 40_000, f"[{ONE}," * 500, "9" * 40_000),
    )
}


@pytest.mark.parametrize("start", HOSTILE)
def test_no_answer_takes_long(start: str) -> None:
    began = time.process_time()
    found = facts_of(HOSTILE[start])
    assert time.process_time() - began < 0.5
    assert len(found or ()) <= FACTS_MAX


@given(st.text('[]{}",:\\/*`<>think \n', max_size=200))
@examples(300)
def test_nothing_that_a_model_writes_raises(answer: str) -> None:
    facts_of(answer)

"""Words and calls are read from whatever an endpoint sends."""

from __future__ import annotations

from typing import Any

import pytest
from lastcall.agents.agent import AgentFailed, CutOff, Piece, Usage
from lastcall.agents.openai.answer import Answer

from tests.support.sloppy_endpoint import calls_of, chunk_of


def read(*chunks: Any, done: bool = False) -> list[Piece]:
    answer = Answer()
    pieces = [piece for chunk in chunks for piece in answer.take(chunk)]
    if done:
        answer.done()
    return [*pieces, *answer.remaining()]


def call(call_id: str | None, name: str | None, arguments: object, index: int | None = 0) -> dict[str, Any]:
    made: dict[str, Any] = {"function": {"name": name, "arguments": arguments}, "id": call_id}
    return chunk_of({"tool_calls": [made if index is None else {"index": index, **made}]})


STOP = chunk_of({}, finish="stop")


@pytest.mark.parametrize("junk", [None, 7, "ping", [], {}, {"choices": 3}, {"choices": [{"delta": "no"}]}])
def test_a_chunk_that_makes_no_sense_costs_nothing(junk: Any) -> None:
    assert read(chunk_of({"content": "Hello "}), junk, chunk_of({"content": "Ada"}), STOP) == ["Hello ", "Ada"]


def test_done_without_a_finish_reason_is_an_end_and_silence_is_none() -> None:
    assert read(chunk_of({"content": "Hello"}), done=True) == ["Hello"]
    with pytest.raises(AgentFailed, match="mid-answer"):
        read(chunk_of({"content": "Hello"}))


@pytest.mark.parametrize(
    "counted", [{}, {"prompt_tokens": None, "completion_tokens": 2}, {"total_tokens": 7}, [3], "7"]
)
def test_a_bill_with_holes_is_no_bill(counted: Any) -> None:
    assert read(chunk_of({"content": "Hello"}), STOP, {"choices": None, "usage": counted}) == ["Hello"]


def test_a_whole_bill_counts_wherever_it_comes() -> None:
    counted = {"prompt_tokens": 3.0, "completion_tokens": 2, "prompt_tokens_details": None}
    assert read(chunk_of({"content": "Hello"}), STOP, {"usage": counted})[-1] == Usage(3, 2)
    ended = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": counted}]}
    assert read(chunk_of({"content": "Hello"}), ended)[-1] == Usage(3, 2)
    assert read(chunk_of({"content": "Hello"}, usage=counted), {**STOP, "usage": None})[-1] == Usage(3, 2)


def test_a_whole_message_after_its_pieces_is_not_said_twice() -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
    assert read(whole) == ["Hello"]
    assert read(chunk_of({"content": "Hello"}), whole) == ["Hello"]


def test_calls_that_share_an_index_or_have_none_stay_apart() -> None:
    apart = [("f", '{"a": 1}'), ("f", '{"a": 2}')]
    for index in (0, None):
        for ids in (("c1", "c2"), (None, None)):
            first, second = (call(each, *made, index) for each, made in zip(ids, apart, strict=True))
            assert calls_of(read(first, second, STOP)) == apart, (index, ids)


def test_a_call_in_pieces_stays_one_whatever_is_repeated() -> None:
    whole = [("f", '{"a": {"b": 1}}')]
    for name in (None, "f"):
        for call_id in (None, "c1"):
            pieces = [call("c1", "f", '{"a": {"b"'), call(call_id, name, ": 1}}"), call(call_id, name, "")]
            assert calls_of(read(*pieces, STOP)) == whole, (name, call_id)
    assert calls_of(read(call("c1", "f", '{"a": {"b"'), call("other", None, ": 1}}"), STOP)) == whole


def test_arguments_may_come_as_an_object_and_a_call_in_the_old_form() -> None:
    assert calls_of(read(call("c1", "f", {"a": 1}), STOP)) == [("f", '{"a":1}')]
    assert calls_of(read(chunk_of({"function_call": {"name": "f", "arguments": "{}"}}), STOP)) == [("f", "{}")]


@pytest.mark.parametrize("finish", ["length", "MAX_TOKENS", "content_filter", "SAFETY"])
def test_an_answer_that_was_cut_says_so(finish: str) -> None:
    last = read(chunk_of({"content": "Hel"}, finish=finish))[-1]
    assert isinstance(last, CutOff)

"""Words and calls are read from whatever an endpoint sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from lastcall.agents.agent import AgentFailed, CutOff, Piece, ToolCall, Usage
from lastcall.agents.openai.answer import Answer
from lastcall.agents.openai.chunks import StreamRefused

from tests.support.sloppy_endpoint import calls_of, chunk_of


def read(*chunks: Any, done: bool = False, taken_ids: Sequence[str] = ()) -> list[Piece]:
    answer = Answer(taken_ids)
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
    "counted",
    [
        {},
        {"prompt_tokens": None, "completion_tokens": 2},
        {"prompt_tokens": 1e300, "completion_tokens": 2},
        {"prompt_tokens": 3, "completion_tokens": 2**64},
        {"total_tokens": 7},
        [3],
        "7",
    ],
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


@pytest.mark.parametrize(
    "content",
    [
        ["Hel", "lo"],
        {"type": "text", "text": "Hello"},
        [{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": {"value": "Hello"}}],
    ],
)
def test_words_come_in_any_kind_of_parts_and_reasoning_is_none(content: object) -> None:
    assert read(chunk_of({"content": content}), STOP) == ["Hello"]


def test_a_whole_message_counts_beside_an_empty_delta_and_as_plain_text() -> None:
    whole = {"index": 0, "delta": {}, "message": {"content": "Hello"}, "finish_reason": "stop"}
    assert read({"choices": [whole]}) == ["Hello"]
    assert read({"choices": whole}) == ["Hello"], "the only choice, without a list"
    assert read({"choices": [{"text": "Hello", "finish_reason": "stop"}]}) == ["Hello"]


def test_calls_that_come_only_with_the_whole_message_are_made() -> None:
    made = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    whole = {"message": {"content": "Hello", "tool_calls": [made]}, "finish_reason": "tool_calls"}
    pieces = read(chunk_of({"content": "Hello"}), {"choices": [whole]})
    assert pieces == ["Hello", ToolCall("f", "{}", "c")]


@pytest.mark.parametrize("last", [{}, {"error": {"code": 502, "message": "no"}}])
def test_an_answer_that_ends_by_an_error_is_a_failure(last: dict[str, Any]) -> None:
    with pytest.raises(StreamRefused):
        read(chunk_of({"content": "Hel"}), {"choices": [{"delta": {}, "finish_reason": "error", **last}]})


@pytest.mark.parametrize("unfinished", ["", "null", "None"])
def test_a_finish_reason_in_words_for_nothing_is_none(unfinished: str) -> None:
    with pytest.raises(AgentFailed, match="mid-answer"):
        read(chunk_of({"content": "Hello"}, finish=unfinished))


def test_arguments_that_are_sent_again_as_a_whole_count_once() -> None:
    pieces = [call("c", "f", '{"a":'), call(None, None, "1}"), call(None, None, '{"a":1}'), call("c", "f", '{"a":1}')]
    assert calls_of(read(*pieces, STOP)) == [("f", '{"a":1}')]


def test_calls_of_other_names_stay_apart_without_ids_or_arguments() -> None:
    for index in (0, None):
        pieces = [call(None, "f", "", index), call(None, "g", None, index)]
        assert calls_of(read(*pieces, STOP)) == [("f", ""), ("g", "")]
    assert calls_of(read(call("c", "f", "{}", None), call("c", "g", "{}", None), STOP)) == [("f", "{}"), ("g", "{}")]


def test_a_call_in_a_form_of_its_own_is_read() -> None:
    flat = {"index": "0", "id": "c", "name": "f", "arguments": '{"a":'}
    pieces = [chunk_of({"tool_calls": flat}), call(None, "g", "{}", 1), call(None, None, "1}", 0)]
    assert calls_of(read(*pieces, STOP)) == [("f", '{"a":1}'), ("g", "{}")]


def test_a_call_without_a_name_costs_itself_only() -> None:
    assert read(chunk_of({"content": "Hello"}), call("c", None, "{}"), STOP) == ["Hello"]


def test_an_id_that_another_call_has_is_not_given_again() -> None:
    pieces = read(call("c", "f", "{}", 0), call("c", "g", "{}", 1), call("d", "h", "{}", 2), STOP, taken_ids=["d"])
    assert [piece.call_id for piece in pieces if isinstance(piece, ToolCall)] == ["c", None, None]

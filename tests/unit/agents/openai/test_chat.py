"""The messages of a chat completion request."""

from __future__ import annotations

import json
import re

import pytest
from lastcall.agents.agent import ContextItem, FunctionCall, FunctionOutput, Message, Role
from lastcall.agents.openai.chat import MESSAGE_CHARS, chars_of, request_messages


def said(*texts: str) -> list[ContextItem]:
    roles: list[Role] = ["user", "assistant"]
    return [Message(roles[n % 2], text, f"item_{n}") for n, text in enumerate(texts)]


def test_the_newest_messages_that_fit_follow_the_instructions() -> None:
    messages = said("one", "two", "three")
    room = len("Be brief.") + len("two") + len("three") + 2 * MESSAGE_CHARS
    assert [message["content"] for message in request_messages("Be brief.", messages, room)] == [
        "Be brief.",
        "two",
        "three",
    ]
    assert [message["content"] for message in request_messages("Be brief.", messages, room - 1)] == [
        "Be brief.",
        "three",
    ]


def test_a_newest_message_that_is_too_long_is_cut_to_its_end() -> None:
    [system, newest] = request_messages("s" * 100, said("x" * 100 + "and why?"), 80)
    assert system["content"] == "s" * 40
    assert str(newest["content"]).endswith("and why?")
    assert len(str(newest["content"])) == 40


def called(call_id: str, name: str = "look_up", arguments: str = "{}") -> FunctionCall:
    return FunctionCall(name, arguments, call_id, f"item_{call_id}")


def test_each_call_is_directly_followed_by_its_output() -> None:
    items: list[ContextItem] = [
        Message("user", "Hi", "1"),
        called("a"),
        called("b", "greet"),
        called("unanswered"),
        Message("user", "Still there?", "2"),
        FunctionOutput("b", "hello", "3"),
        FunctionOutput("a", "Oslo", "4"),
        FunctionOutput("of nobody's call", "lost", "5"),
    ]
    sent = request_messages("", items, 10_000)
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert [call["id"] for call in sent[1]["tool_calls"]] == ["a", "b"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "look_up", "arguments": "{}"}
    assert [(each["tool_call_id"], each["content"]) for each in sent[2:4]] == [("a", "Oslo"), ("b", "hello")]


def test_the_newest_output_keeps_its_call_and_is_cut_where_it_is_too_long() -> None:
    items: list[ContextItem] = [
        Message("user", "x" * 100, "1"),
        called("a", arguments="y" * 100),
        FunctionOutput("a", "z" * 50, "2"),
    ]
    sent = request_messages("", items, 80)
    assert [message["role"] for message in sent] == ["assistant", "tool"]
    [_, cut] = request_messages("", items, 20)
    assert cut["content"] == "z" * 20


def test_calls_of_one_id_keep_their_own_outputs_and_get_ids_of_their_own() -> None:
    items: list[ContextItem] = []
    for n in range(2):
        items += [FunctionCall("f", "{}", "call_0", f"c{n}"), FunctionOutput("call_0", f"output {n}", f"o{n}")]
        items.append(Message("user", f"and {n}?", f"u{n}"))
    first, output, _, second, other, _ = request_messages("", items, 10_000)
    assert (output["content"], other["content"]) == ("output 0", "output 1")
    ids = [message["tool_calls"][0]["id"] for message in (first, second)]
    assert ids == [output["tool_call_id"], other["tool_call_id"]]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("arguments", ['{"city": "Os', "", "null", "[]", "NaN", '"x"', "\ud83d", "[" * 10_000])
def test_arguments_that_are_no_object_do_not_poison_the_conversation(arguments: str) -> None:
    """Endpoints parse the arguments of every call of the history, and refuse the whole request for one of them."""
    items: list[ContextItem] = [called("a", arguments=arguments), FunctionOutput("a", "error", "2")]
    [call] = request_messages("", items, 100_000)[0]["tool_calls"]
    told = json.loads(call["function"]["arguments"])
    assert isinstance(told, dict)
    assert arguments.isascii() is False or arguments in ("", told.get("unreadable_arguments"))


def test_names_and_ids_that_endpoints_refuse_are_told_in_another_form() -> None:
    call_id = "an id / with anything in it, " * 5
    items: list[ContextItem] = [called(call_id, name="wetter für Oslo?" * 9), FunctionOutput(call_id, "rain", "2")]
    asked, told = request_messages("", items, 100_000)
    [call] = asked["tool_calls"]
    assert call["function"]["name"].startswith("wetter_f_r_Oslo_")
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", call["function"]["name"])
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", call["id"])
    assert told["tool_call_id"] == call["id"]


def test_a_message_without_text_is_left_out() -> None:
    items: list[ContextItem] = [Message("user", "Hi", "1"), Message("assistant", "", "2"), Message("user", "?", "3")]
    assert [message["content"] for message in request_messages(" ", items, 10_000)] == ["Hi", "?"]


def test_the_size_of_a_request_is_counted_as_it_is_budgeted() -> None:
    items: list[ContextItem] = [
        Message("user", "Hi", "1"),
        called("a", "f", '{"a": 1}'),
        FunctionOutput("a", "Oslo", "2"),
    ]
    sent = chars_of(request_messages("Brief.", items, 10_000))
    assert sent == len("Hi") + len('{"a": 1}') + len("Oslo") + len("Brief.") + 4 * MESSAGE_CHARS

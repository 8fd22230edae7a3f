"""The messages of a chat completion request."""

from __future__ import annotations

from lastcall.agents.agent import ContextItem, FunctionCall, FunctionOutput, Message, Role
from lastcall.agents.chat import MESSAGE_CHARS, request_messages


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

"""An endpoint's refusals, in its own words, change what is sent."""

from __future__ import annotations

from typing import Any

import pytest
from lastcall.agents.openai.dialect import (
    COMPLETION_TOKENS,
    CONTEXT_TRUST_SECONDS,
    TOKENS,
    ContextBudget,
    Dialect,
    EndpointRefusal,
)

TOO_LONG = (
    "This model's maximum context length is 1500 tokens. However, you requested 1800 tokens in the messages",
    "The input token count (1800) exceeds the maximum number of tokens allowed (1500).",
    "prompt is too long: 1800 tokens > 1500 maximum",
    "the request exceeds the available context size. try increasing the context size or enable context shift",
    "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with 4096 tokens",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081",
    "Prompt contains 33000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
    "Input is too long for requested model.",
    "Range of input length should be [1, 30720]",
    "Prompt exceeds max length",
    "Please reduce the length of the messages or completion.",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "Malformed input request: expected maxLength: 51200, actual: 54321, please reformat your input and try again.",
    "Invalid 'messages': array too long. Expected an array with maximum length 2048, but got one with length 3000.",
    "You passed 9000 input tokens and requested 0 output tokens. However, the model's limit is 8192",
    "inputs token length must be < 4096",
    "the max input characters is 11200",
    "Too many total text bytes: 30000 > 20000",
    "sequence length 9000 exceeds 8192",
    "Payload Too Large",
    "Prompt 超长",
    "输入内容过长",
)
OTHER = (
    "Invalid value for temperature: 3",
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "function.arguments must be valid JSON",
    "Unknown parameter: stream_options",
    "You exceeded your current quota, please check your plan and billing details.",
    "Invalid 'tools': array too long. Expected an array with maximum length 128.",
)


def refusal(wording: str, status: int = 400) -> EndpointRefusal:
    return EndpointRefusal(status, "", wording)


@pytest.mark.parametrize("wording", TOO_LONG)
def test_too_long_is_understood_in_anybodys_words(wording: str) -> None:
    assert refusal(wording).is_too_long()
    assert all(refusal(wording, status).is_too_long() for status in (422, 424, 500, 502, 503, 529))
    assert not refusal(wording, 429).is_too_long(), "another time it may fit"


@pytest.mark.parametrize("wording", OTHER)
def test_other_refusals_shorten_nothing(wording: str) -> None:
    assert not refusal(wording).is_too_long()


def test_http_413_is_too_long_whatever_it_says() -> None:
    assert refusal("no", 413).is_too_long()


def test_a_request_that_never_fits_the_rate_is_too_long() -> None:
    wording = (
        "Request too large for m on tokens per min (TPM): Limit 30000, Requested 40000. The input must be reduced."
    )
    assert refusal(wording, 429).is_too_long()
    assert not refusal("Rate limit reached for m on tokens per min (TPM): Limit 30000, Used 29000", 429).is_too_long()


TOOLS: dict[str, Any] = {"tools": [{}], "tool_choice": "auto", "parallel_tool_calls": True}


@pytest.mark.parametrize(
    "wording",
    [
        "registry.ollama.ai/library/gemma:2b does not support tools",
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        "tools param requires --jinja flag",
        "This model does not support function calling",
        "Function calling is not enabled for models/gemma",
        "No endpoints found that support tool use",
        "Unrecognized request argument supplied: tools",
    ],
)
def test_a_model_without_tools_is_asked_without_them_and_told_of_calls_in_words(wording: str) -> None:
    dialect = Dialect(TOKENS)
    function = {"name": "look_up", "arguments": '{"city":"Oslo"}'}
    called: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": "rain"},
    ]
    assert dialect.adapt(refusal(wording), dialect.request(called, TOOLS)) == "no tools"
    request = dialect.request(called, TOOLS)
    assert [message["role"] for message in request["messages"]] == ["assistant", "user"]
    assert "Oslo" in request["messages"][0]["content"]
    assert "rain" in request["messages"][1]["content"]
    assert request.keys() == {"messages"}


def test_a_choice_of_tools_that_is_refused_leaves_the_tools() -> None:
    dialect = Dialect(TOKENS)
    assert dialect.adapt(refusal("`tool_choice` is not supported"), dialect.request([], TOOLS)) == "no tool_choice"
    assert dialect.request([], TOOLS).keys() == {"messages", "tools", "parallel_tool_calls"}


@pytest.mark.parametrize(
    "wording",
    ["Invalid schema for function 'f': uri is not supported", "tools[0]: unknown field, functions not allowed"],
)
def test_one_tool_that_is_wrong_does_not_take_away_the_others(wording: str) -> None:
    dialect = Dialect(TOKENS)
    dialect.adapt(refusal(wording), dialect.request([], TOOLS))
    assert "tools" in dialect.request([], TOOLS)


def test_the_other_name_of_the_token_limit_is_used_once_it_is_asked_for() -> None:
    dialect = Dialect(TOKENS)
    request = dialect.request([], {TOKENS: 5})
    assert dialect.adapt(refusal("'max_tokens' is not supported. Use 'max_completion_tokens' instead."), request)
    request = dialect.request([], {TOKENS: 5})
    assert request[COMPLETION_TOKENS] == 5
    assert TOKENS not in request
    assert not dialect.adapt(refusal("'max_completion_tokens' is not supported either"), request), "no way back"


@pytest.mark.parametrize("name", ["stream_options", "parallel_tool_calls", "temperature"])
def test_an_optional_parameter_that_is_refused_is_left_out(name: str) -> None:
    dialect = Dialect(TOKENS)
    request = dialect.request([], {name: 1, "model": "m"})
    assert dialect.adapt(refusal(f"Unsupported value: {name}"), request)
    assert dialect.request([], {name: 1, "model": "m"}) == {"messages": [], "model": "m"}
    assert not dialect.adapt(refusal(f"Unsupported value: {name}"), {})


SAID = [
    {"role": "system", "content": "Be brief."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Hi"},
    {"role": "system", "content": "Ada is here."},
    {"role": "user", "content": "What now?"},
]


def test_roles_alternate_once_a_template_wants_it() -> None:
    dialect = Dialect(TOKENS)
    assert dialect.request(SAID, {})["messages"] == SAID
    assert dialect.adapt(refusal("Conversation roles must alternate user/assistant/user/assistant/..."), {})
    assert dialect.request(SAID, {})["messages"] == [
        {"role": "system", "content": "Be brief.\n\nAda is here."},
        {"role": "user", "content": "…"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Hi\n\nWhat now?"},
    ]


def test_a_model_without_a_system_role_reads_it_from_the_user() -> None:
    dialect = Dialect(TOKENS)
    assert dialect.adapt(refusal("System role not supported"), {})
    [first, *_] = dialect.request(SAID, {})["messages"]
    assert first == {"role": "user", "content": "Be brief.\n\nAda is here.\n\n…"}
    assert not dialect.adapt(refusal("System role not supported"), {})


@pytest.mark.parametrize(
    "wording",
    [
        "Expected last role User or Tool for serving but got assistant",
        "Unexpected role 'system' after role 'user'",
        "The conversation must end with a user message.",
        "the role of message with even index in the messages must be assistant",
        "incorrect role information",
    ],
)
def test_turns_end_with_the_users_where_a_template_wants_it(wording: str) -> None:
    dialect = Dialect(TOKENS)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert dialect.adapt(refusal(wording), dialect.request(messages, {})) == "alternating roles"
    assert [message["role"] for message in dialect.request(messages, {})["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    "wording",
    [
        "Developer instruction is not enabled for models/gemma-3-27b-it",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "This model doesn't support system prompts",
        "Unsupported role: system",
        "Invalid value: 'system'. Supported values are: 'user', 'assistant'.",
        'Unexpected role "system". The API accepts a top-level `system` parameter.',
    ],
)
def test_a_system_role_is_left_out_in_whatever_words_it_is_refused(wording: str) -> None:
    dialect = Dialect(TOKENS)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    while dialect.request(messages, {})["messages"][0]["role"] == "system":
        assert dialect.adapt(refusal(wording), dialect.request(messages, {}))
    assert dialect.request(messages, {})["messages"] == [{"role": "user", "content": "Be brief.\n\nHi"}]


def test_calls_and_their_outputs_are_not_joined() -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    exchange: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "Thanks."},
    ]
    dialect = Dialect(TOKENS, alternates=True)
    assert dialect.request(exchange, {})["messages"] == exchange


def test_what_fits_is_remembered_for_a_while() -> None:
    budget = ContextBudget(200_000)
    assert budget.chars(now=5.0) == 200_000
    assert budget.smaller(sent=20_000) == 10_000
    budget.learn(10_000, now=5.0)
    assert budget.chars(now=5.0 + CONTEXT_TRUST_SECONDS / 2) == 10_000
    assert budget.chars(now=5.0 + CONTEXT_TRUST_SECONDS) == 20_000
    assert budget.chars(now=1e9) == 200_000
    assert budget.smaller(sent=300) is None

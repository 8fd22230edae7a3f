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
    assert refusal(wording, 422).is_too_long()
    assert not refusal(wording, 429).is_too_long(), "another time it may fit"


@pytest.mark.parametrize("wording", OTHER)
def test_other_refusals_shorten_nothing(wording: str) -> None:
    assert not refusal(wording).is_too_long()


def test_http_413_is_too_long_whatever_it_says() -> None:
    assert refusal("no", 413).is_too_long()


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


def test_calls_and_their_outputs_are_not_joined() -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    exchange: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "assistant", "content": "One."},
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

"""Endpoints that are not OpenAI's own, over real connections: the words arrive, and the conversation lives on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from lastcall.agents.agent import AgentFailed, Message, Piece, Turn
from lastcall.agents.openai import OpenAIAgent
from lastcall.agents.openai.chat import chars_of

from tests.support.sloppy_endpoint import (
    Response,
    Script,
    SloppyEndpoint,
    calls_of,
    chunk_of,
    event,
    scripts,
    sloppy_endpoint,
)

# The HTTP client leaves its own generators unfinished at the end of a stream; its connection is closed all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
ANSWER_SECONDS = 10.0
FINE = Response(event(chunk_of({"content": "Fine."})) + event(chunk_of({}, finish="stop")) + b"data: [DONE]\n\n")


@asynccontextmanager
async def asking(respond: Callable[[dict[str, Any]], Response]) -> AsyncIterator[tuple[SloppyEndpoint, OpenAIAgent]]:
    async with sloppy_endpoint(respond) as endpoint:
        agent = OpenAIAgent(base_url=endpoint.url, api_key="sk-of-nobody", model="m", read_seconds=ANSWER_SECONDS)
        async with aclosing(agent):
            yield endpoint, agent


async def answer(agent: OpenAIAgent, *texts: str, **more: Any) -> list[Piece]:
    said = [Message("user", text, f"item_{n}") for n, text in enumerate(texts)]
    with trio.fail_after(ANSWER_SECONDS):
        async with aclosing(agent.reply(Turn("ada", "conv", "Be brief.", said, items=said, **more))) as pieces:
            return [piece async for piece in pieces]


def refused(status: int, error: object) -> Response:
    return Response(msgspec.json.encode(error), status, "application/json")


@given(script=scripts())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_words_and_the_calls_survive_any_sloppiness(script: Script) -> None:
    async with asking(lambda _: script.response) as (_, agent):
        pieces = await answer(agent, "Hi")
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == script.words
    parsed = [(name, msgspec.json.decode(arguments)) for name, arguments in calls_of(pieces)]
    assert parsed == [(name, msgspec.json.decode(arguments)) for name, arguments in script.calls]


CHARS_THAT_FIT = 6_000
TOO_LONG = {
    "vllm": refused(400, {"object": "error", "message": "maximum context length is 1500 tokens", "code": 400}),
    "gemini": refused(400, [{"error": {"code": 400, "message": "The input token count (9) exceeds the maximum"}}]),
    "a gateway": refused(413, {"error": "no"}),
    "a proxy": Response(b"<html>Request Entity Too Large</html>", 413, "text/html"),
    "in the stream": Response(event({"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}})),
}


@pytest.mark.parametrize("wording", TOO_LONG)
async def test_a_conversation_that_grew_too_long_goes_on_with_its_newest_part(wording: str) -> None:
    def respond(request: dict[str, Any]) -> Response:
        return TOO_LONG[wording] if chars_of(request["messages"]) > CHARS_THAT_FIT else FINE

    async with asking(respond) as (endpoint, agent):
        texts = [f"{n} " + "word " * 200 for n in range(20)]
        assert await answer(agent, *texts) == ["Fine."]
        assert endpoint.asked[-1]["messages"][-1]["content"] == texts[-1], "the newest is there"
        refusals = len(endpoint.asked) - 1
        assert await answer(agent, *texts) == ["Fine."]
        assert len(endpoint.asked) == refusals + 2, "what fits is remembered"


async def test_a_limit_of_tokens_that_is_too_high_is_lowered() -> None:
    def respond(request: dict[str, Any]) -> Response:
        too_high = refused(400, {"error": {"message": "max_tokens is too large: the model supports at most 500"}})
        return too_high if request["max_tokens"] > 500 else FINE

    async with asking(respond) as (_, agent):
        assert await answer(agent, "Hi", max_output_tokens=4_000) == ["Fine."]


@pytest.mark.parametrize("status", [400, 401, 404, 408, 409, 429, 500, 502, 503])
async def test_a_failing_request_is_not_sent_twice(status: int) -> None:
    async with asking(lambda _: refused(status, {"error": {"message": "no"}})) as (endpoint, agent):
        with pytest.raises(AgentFailed):
            await answer(agent, "Hi")
    assert len(endpoint.asked) == 1


async def test_an_endpoint_that_wants_roles_to_alternate_is_asked_so_from_then_on() -> None:
    def respond(request: dict[str, Any]) -> Response:
        roles = [message["role"] for message in request["messages"] if message["role"] != "system"]
        alternate = roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2)
        return FINE if alternate else refused(400, {"message": "Conversation roles must alternate user/assistant/..."})

    async with asking(respond) as (endpoint, agent):
        for _ in range(2):
            assert await answer(agent, "Hi", "Are you there?") == ["Fine."]
    assert len(endpoint.asked) == 3

"""What a request to a model's endpoint costs the event loop."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from lastcall.agents.agent import Message, Turn
from lastcall.agents.openai import OpenAIAgent
from lastcall.agents.openai.chat import request_messages
from lastcall.agents.openai.openai_agent import CONTEXT_CHARS_MAX

MESSAGES = 2_000
CPU_SECONDS_MAX = 0.2
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
}


@pytest.fixture
def asked() -> list[Any]:
    return []


@pytest.fixture
def agent(asked: list[Any]) -> OpenAIAgent:
    """An agent whose endpoint answers from memory."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(msgspec.json.decode(request.content))
        return httpx2.Response(200, json=ANSWER)

    agent = OpenAIAgent(base_url="http://model.test/v1", api_key="k", model="m", sampling={"top_k": 1})
    http = openai.DefaultAsyncHttpxClient(transport=httpx2.MockTransport(answer))
    agent._client = agent._client.copy(http_client=http)
    return agent


async def test_a_long_conversation_does_not_hold_up_the_event_loop(agent: OpenAIAgent, asked: list[Any]) -> None:
    """Given as a parameter, the SDK checks each message for 0.3 ms."""
    items = [Message("user" if n % 2 else "assistant", f"text {n}", f"item_{n}") for n in range(MESSAGES)]
    for said in (items[:1], items):  # the first request pays for imports
        began = time.thread_time()
        assert [piece async for piece in agent.reply(Turn("ada", "conv", "Be brief.", said, items=said))] == ["hi"]
    assert time.thread_time() - began < CPU_SECONDS_MAX
    assert asked[-1]["messages"] == request_messages("Be brief.", items, CONTEXT_CHARS_MAX)
    assert asked[-1]["top_k"] == 1
    await agent.aclose()

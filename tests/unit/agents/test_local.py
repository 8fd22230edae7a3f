"""The agent of the bundled model, whose process may end and come back at another address."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar

import pytest
from lastcall.agents import local
from lastcall.agents.agent import AgentFailed, Turn
from lastcall.agents.local import LocalAgent
from lastcall.embedded.model import LocalModel

TURN = Turn("ada", "conversation", "", [])


class Speaker:
    """An agent that says where it is."""

    closed: ClassVar[list[str]] = []

    def __init__(self, base_url: str, _key: str) -> None:
        self.base_url = base_url

    async def reply(self, _turn: Turn) -> AsyncGenerator[str, None]:
        yield self.base_url

    async def aclose(self) -> None:
        self.closed.append(self.base_url)


@pytest.fixture(autouse=True)
def speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_agent_at", Speaker)
    monkeypatch.setattr(Speaker, "closed", [])


async def said(agent: LocalAgent) -> list[object]:
    async with aclosing(agent.reply(TURN)) as pieces:
        return [piece async for piece in pieces]


async def test_a_turn_while_the_model_is_away_fails_with_a_word_that_says_so() -> None:
    agent = LocalAgent(LocalModel())
    with pytest.raises(AgentFailed, match=r"is being restarted\. Please try again") as failure:
        await said(agent)
    assert failure.value.code == "upstream_unreachable"
    await agent.aclose()


async def test_after_a_restart_turns_go_to_the_new_process() -> None:
    model = LocalModel()
    agent = LocalAgent(model)
    for address in ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"):
        model.address = (address, "key")
        assert await said(agent) == await said(agent) == [address]
    assert Speaker.closed == ["http://127.0.0.1:1/v1"]
    await agent.aclose()
    assert Speaker.closed == ["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"]

"""Which agent the settings select, and the message for a wrong choice."""

from __future__ import annotations

import re
import sys
from contextlib import asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import trio
from lastcall.agents.agent import AgentUnavailable, Message, Transcript
from lastcall.agents.select import open_agent
from lastcall.config import Settings
from lastcall.embedded.model import INSTALL
from lastcall.memory.extract import extract_memories

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LASTCALL_AGENT_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


class StillModel:
    """A model that nobody asks for anything, and that does not end."""

    address = ("http://127.0.0.1:9/v1", "secret")

    async def ended(self) -> str:
        await trio.Event().wait()
        return ""

    async def restart(self) -> str | None:
        return None


def bundled(monkeypatch: pytest.MonkeyPatch, *, available: bool) -> None:
    """Replaces the bundled model: none runs, and its address is never connected to."""

    @asynccontextmanager
    async def open_local_model() -> AsyncIterator[StillModel]:
        yield StillModel()

    module = ModuleType("lastcall.embedded.model")
    module.available = lambda: available  # type: ignore[attr-defined]
    module.open_local_model = open_local_model  # type: ignore[attr-defined]
    module.LocalModelError = RuntimeError  # type: ignore[attr-defined]
    module.INSTALL = INSTALL  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lastcall.embedded.model", module)
    monkeypatch.setattr("lastcall.embedded.model", module, raising=False)


@pytest.mark.parametrize(("available", "describe"), [(True, "SmolLM2-135M (bundled)"), (False, "echo")])
async def test_the_default_is_the_bundled_model_if_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, available: bool, describe: str
) -> None:
    bundled(monkeypatch, available=available)
    async with open_agent(Settings()) as agent:
        assert agent.describe == describe


async def test_the_bundled_model_leaves_memories_to_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    bundled(monkeypatch, available=True)
    transcript = Transcript("session", "ada", [Message("user", "I like tea.", "item")])
    async with open_agent(Settings(agent="local")) as agent:
        assert [memory.quote for memory in await extract_memories(agent, transcript)] == ["I like tea."]


async def test_a_private_endpoint_needs_no_key_and_is_shown_without_credentials() -> None:
    settings = Settings(agent="openai", agent_url="http://me:pass@llm.example:8080/v1", model="m")
    async with open_agent(settings) as agent:
        assert agent.describe == "openai m at llm.example"


async def test_the_sdks_environment_variables_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    async with open_agent(Settings(agent="openai", model="gpt-x")) as agent:
        assert agent.describe == "openai gpt-x at api.openai.com"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://other.example/v1")
    async with open_agent(Settings(agent="openai", model="gpt-x")) as agent:
        assert agent.describe == "openai gpt-x at other.example"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Settings(agent="gpt"), "local, openai, echo or module:factory"),
        (Settings(agent="openai", agent_url="http://localhost/v1"), "--model"),
        (Settings(agent="openai", model="m"), "LASTCALL_AGENT_KEY"),
        (Settings(agent="openai", model="m", agent_url="localhost:8000"), "--agent-url"),
        (Settings(agent="openai", model="m", agent_url="http://[x"), "--agent-url"),
    ],
    ids=str,
)
async def test_a_wrong_choice_is_explained_in_one_line(settings: Settings, says: str) -> None:
    with pytest.raises(AgentUnavailable) as failure:
        async with open_agent(settings):
            pass
    assert says in str(failure.value)
    assert "\n" not in str(failure.value)


async def test_a_missing_bundled_model_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    bundled(monkeypatch, available=False)
    with pytest.raises(AgentUnavailable, match=f"not installed; {re.escape(INSTALL)}"):
        async with open_agent(Settings(agent="local")):
            pass

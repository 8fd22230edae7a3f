"""Which agent answers, and what a wrong choice says."""

from __future__ import annotations

import sys
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import trio
from lastcall.agents.agent import Message, Piece, Tool, ToolArguments, ToolCall, Transcript, Turn
from lastcall.agents.select import ECHO_DELTAS_MAX, AgentUnavailable, EchoAgent, open_agent
from lastcall.config import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lastcall.agents.agent import Agent

GREETER = """
class Greeter:
    describe = "whatever"
    closed = False

    async def reply(self, turn):
        yield "hello "
        yield turn.user_id

    async def finalize(self, transcript):
        return []

    async def aclose(self):
        Greeter.closed = True

class Rude(Greeter):
    async def aclose(self):
        raise OSError("no")

class Slow(Greeter):
    async def aclose(self):
        import trio
        await trio.sleep_forever()

class Mute:
    async def finalize(self, transcript):
        return []

class Forgetful:
    async def reply(self, turn):
        yield ""

class Blurting(Greeter):
    async def reply(self, turn):
        return "all at once"

async def later():
    return Greeter()

def broken():
    raise ValueError("no such\\nthing")

answer = 42
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LASTCALL_AGENT_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's in the current directory, which is not on the path yet."""
    (tmp_path / "greeter_agent.py").write_text(GREETER)
    (tmp_path / "sick_agent.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "greeter_agent", raising=False)


def turn(*texts: str) -> Turn:
    return Turn(
        "ada", "conversation", "Be brief.", [Message("user", text, f"item_{n}") for n, text in enumerate(texts)]
    )


async def answer(agent: Agent, asked: Turn) -> list[str]:
    async with aclosing(agent.reply(asked)) as pieces:
        return [piece async for piece in pieces if isinstance(piece, str)]


@pytest.mark.parametrize("text", ["hi", "What is the weather like?", "å" * 5_000])
async def test_the_echo_says_what_was_said_last_in_several_pieces(text: str) -> None:
    pieces = await answer(EchoAgent(), turn("earlier", text))
    assert text in "".join(pieces)
    assert "earlier" not in "".join(pieces)
    assert 3 <= len(pieces) <= ECHO_DELTAS_MAX


async def test_the_echo_of_nothing_says_so() -> None:
    assert "not said anything" in "".join(await answer(EchoAgent(), turn()))


async def test_the_echo_calls_the_tool_that_the_user_names_and_the_one_that_it_must() -> None:
    tools = [Tool("first", "", {}), Tool("greet", "", {})]

    async def pieces(text: str, **changes: Any) -> list[Piece]:
        async with aclosing(EchoAgent().reply(replace(turn(text), tools=tools, **changes))) as answer:
            return [piece async for piece in answer]

    assert await pieces("call greet") == [ToolCall("greet"), ToolArguments("{}")]
    assert await pieces('call greet {"a":1}') == [ToolCall("greet"), ToolArguments('{"a":1}')]
    assert await pieces("Hello there", tool_choice="required") == [ToolCall("first"), ToolArguments("{}")]
    assert await pieces("Hello there", tool_choice=tools[1]) == [ToolCall("greet"), ToolArguments("{}")]
    for text, changes in (("call nobody", {}), ("call greet now", {}), ("call greet", {"tool_choice": "none"})):
        assert f"You said: {text}" == "".join(map(str, await pieces(text, **changes)))


async def test_the_echo_can_be_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with aclosing(EchoAgent().reply(turn("a long text to say"))) as pieces:
            async for _ in pieces:
                scope.cancel()
    assert scope.cancelled_caught


async def test_the_echo_remembers_the_users_own_sentences() -> None:
    transcript = Transcript("session", "ada", [Message("user", "My name is Ada. Hello.", "item")])
    assert [memory.content for memory in await EchoAgent().finalize(transcript)] == ["My name is Ada."]


def bundled(monkeypatch: pytest.MonkeyPatch, *, available: bool) -> None:
    """Stands in for `server.local_model`: no model, an address where nobody is asked."""

    @asynccontextmanager
    async def open_local_model() -> AsyncIterator[tuple[str, str]]:
        yield "http://127.0.0.1:9/v1", "secret"

    module = ModuleType("lastcall.embedded.model")
    module.available = lambda: available  # type: ignore[attr-defined]
    module.open_local_model = open_local_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lastcall.embedded.model", module)
    monkeypatch.setattr("lastcall.embedded.model", module, raising=False)


@pytest.mark.parametrize(("available", "describe"), [(True, "SmolLM2-135M (bundled)"), (False, "echo")])
async def test_without_a_choice_the_bundled_model_answers_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, available: bool, describe: str
) -> None:
    bundled(monkeypatch, available=available)
    async with open_agent(Settings()) as agent:
        assert agent.describe == describe


async def test_the_bundled_models_memories_are_the_users_own_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    bundled(monkeypatch, available=True)
    transcript = Transcript("session", "ada", [Message("user", "I like tea.", "item")])
    async with open_agent(Settings(agent="local")) as agent:
        assert [memory.quote for memory in await agent.finalize(transcript)] == ["I like tea."]


async def test_an_endpoint_of_ones_own_needs_no_key_and_is_named_without_its_credentials() -> None:
    settings = Settings(agent="openai", agent_url="http://me:pass@llm.example:8080/v1", model="m")
    async with open_agent(settings) as agent:
        assert agent.describe == "openai m at llm.example"


async def test_the_sdks_own_variables_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    async with open_agent(Settings(agent="openai", model="gpt-x")) as agent:
        assert agent.describe == "openai gpt-x at api.openai.com"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://other.example/v1")
    async with open_agent(Settings(agent="openai", model="gpt-x")) as agent:
        assert agent.describe == "openai gpt-x at other.example"


@pytest.mark.usefixtures("own")
async def test_an_agent_of_ones_own_is_found_in_the_current_directory_and_closed_at_the_end() -> None:
    async with open_agent(Settings(agent="greeter_agent:Greeter")) as agent:
        assert agent.describe == "greeter_agent:Greeter"
        assert await answer(agent, turn("x")) == ["hello ", "ada"]
        assert await agent.finalize(Transcript("session", "ada", [])) == []
        assert not sys.modules["greeter_agent"].Greeter.closed
    assert sys.modules["greeter_agent"].Greeter.closed


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["Rude", "Slow"])
async def test_an_agent_that_fails_or_hangs_while_closing_holds_up_nobody(autojump_clock: object, name: str) -> None:
    with trio.fail_after(5):
        async with open_agent(Settings(agent=f"greeter_agent:{name}")):
            pass


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Settings(agent="gpt"), "local, openai, echo or module:factory"),
        (Settings(agent=":make"), "like module:factory"),
        (Settings(agent="nowhere_agent:make"), "cannot import 'nowhere_agent'"),
        (Settings(agent="sick_agent:make"), "cannot import 'sick_agent': SyntaxError"),
        (Settings(agent="greeter_agent:make"), "has no 'make'"),
        (Settings(agent="greeter_agent:answer"), "must be a plain function"),
        (Settings(agent="greeter_agent:later"), "must be a plain function"),
        (Settings(agent="greeter_agent:broken"), "the factory failed: ValueError: no such thing"),
        (Settings(agent="greeter_agent:Mute"), "has no reply() method"),
        (Settings(agent="greeter_agent:Forgetful"), "has no finalize() method"),
        (Settings(agent="greeter_agent:Blurting"), "must be an async generator"),
        (Settings(agent="openai", agent_url="http://localhost/v1"), "--model"),
        (Settings(agent="openai", model="m"), "LASTCALL_AGENT_KEY"),
        (Settings(agent="openai", model="m", agent_url="localhost:8000"), "--agent-url"),
        (Settings(agent="openai", model="m", agent_url="http://[x"), "--agent-url"),
    ],
    ids=str,
)
async def test_an_agent_that_cannot_be_had_is_explained_in_one_line(settings: Settings, says: str) -> None:
    with pytest.raises(AgentUnavailable) as failure:
        async with open_agent(settings):
            pass
    assert says in str(failure.value)
    assert "\n" not in str(failure.value)


async def test_the_bundled_model_that_is_not_installed_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    bundled(monkeypatch, available=False)
    with pytest.raises(AgentUnavailable, match="not installed"):
        async with open_agent(Settings(agent="local")):
            pass

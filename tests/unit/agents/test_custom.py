"""The user's own agent: imported from the current directory, checked, and closed at the end."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio
from lastcall.agents.agent import Agent, AgentUnavailable, Memory, Message, Transcript, Turn
from lastcall.agents.select import open_agent
from lastcall.config import Settings
from lastcall.memory.extract import extract_memories

if TYPE_CHECKING:
    from pathlib import Path

CHAT = Transcript("session", "ada", [Message("user", "I like tea.", "item")])
GREETER = """
from lastcall.agents import Memory

class Greeter:
    describe = "whatever"
    closed = False

    async def reply(self, turn):
        yield "hello "
        yield turn.user_id

    async def finalize(self, transcript):
        return [Memory("note", "own", "item", "tea")]

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

class Model(Forgetful):
    @property
    def extractor(self):
        return self

    async def complete_json(self, instructions, prompt, *, schema, max_tokens):
        return '{"memories": []}'

class Misspelt(Forgetful):
    extractor = "modle"

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
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules in the current directory, which is not on the path yet."""
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


async def test_the_users_agent_is_imported_from_the_current_directory_and_closed() -> None:
    async with open_agent(Settings(agent="greeter_agent:Greeter")) as agent:
        assert agent.describe == "greeter_agent:Greeter"
        assert await answer(agent, turn("x")) == ["hello ", "ada"]
        assert await extract_memories(agent, CHAT) == [Memory("note", "own", "item", "tea")]
        assert not sys.modules["greeter_agent"].Greeter.closed
    assert sys.modules["greeter_agent"].Greeter.closed


@pytest.mark.parametrize("name", ["Rude", "Slow"])
async def test_an_agent_that_fails_or_hangs_on_closing_delays_no_shutdown(autojump_clock: object, name: str) -> None:
    with trio.fail_after(5):
        async with open_agent(Settings(agent=f"greeter_agent:{name}")):
            pass


@pytest.mark.parametrize(
    ("name", "memories"),
    [("Forgetful", [Memory("like", "I like tea.", "item", "I like tea.", slot="taste")]), ("Model", [])],
)
async def test_without_finalize_the_agents_extractor_decides(name: str, memories: list[Memory]) -> None:
    async with open_agent(Settings(agent=f"greeter_agent:{name}")) as agent:
        assert list(await extract_memories(agent, CHAT)) == memories


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Settings(agent=":make"), "like module:factory"),
        (Settings(agent="nowhere_agent:make"), "cannot import 'nowhere_agent'"),
        (Settings(agent="sick_agent:make"), "cannot import 'sick_agent': SyntaxError"),
        (Settings(agent="greeter_agent:make"), "has no 'make'"),
        (Settings(agent="greeter_agent:answer"), "must be a plain function"),
        (Settings(agent="greeter_agent:later"), "must be a plain function"),
        (Settings(agent="greeter_agent:broken"), "the factory failed: ValueError: no such thing"),
        (Settings(agent="greeter_agent:Mute"), "has no reply() method"),
        (Settings(agent="greeter_agent:Blurting"), "must be an async generator"),
        (Settings(agent="greeter_agent:Misspelt"), "extractor must be"),
    ],
    ids=str,
)
async def test_a_wrong_factory_is_explained_in_one_line(settings: Settings, says: str) -> None:
    with pytest.raises(AgentUnavailable) as failure:
        async with open_agent(settings):
            pass
    assert says in str(failure.value)
    assert "\n" not in str(failure.value)

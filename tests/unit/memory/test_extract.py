"""Which extractor makes the memories of a session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal

import msgspec
import pytest
import trio
from lastcall.agents.agent import AgentFailed, JsonModel, Memory, Message, RequestUnsupported, Transcript, Turn
from lastcall.memory.extract import extract_memories, uses_rules
from lastcall.memory.model_extract import INPUT_CHARS_MAX

CHAT = Transcript("session", "ada", [Message("user", "I like tea.", "item")])
BY_RULES = Memory("like", "I like tea.", "item", "I like tea.")
BY_MODEL = Memory("like", "Likes tea.", "item", "like tea")
OWN = Memory("note", "Ada was here.", "item", "I")


class Silent:
    """Names no extractor."""

    describe = "silent"

    async def reply(self, turn: Turn, /) -> AsyncGenerator[str, None]:
        yield ""


class Modelled(Silent):
    """Names its model as the extractor."""

    def __init__(self, answer: Sequence[Memory] | Exception = (BY_MODEL,)) -> None:
        self._answer = answer
        self.prompts: list[str] = []

    @property
    def extractor(self) -> JsonModel:
        return self

    async def complete_json(
        self, instructions: str, prompt: str, *, schema: Mapping[str, object], max_tokens: int
    ) -> str:
        self.prompts.append(prompt)
        if isinstance(self._answer, Exception):
            raise self._answer
        facts = [
            {"kind": memory.kind, "content": memory.content, "item": 1, "quote": memory.quote}
            for memory in self._answer
        ]
        return msgspec.json.encode({"memories": facts}).decode()


class ByRules(Silent):
    """Names the rules."""

    extractor: Literal["rules"] = "rules"


class Own(Modelled):
    """Has a model, but makes its memories itself."""

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        return [OWN]


@pytest.mark.parametrize(
    ("agent", "memory"),
    [
        (Silent(), BY_RULES),
        (ByRules(), BY_RULES),
        (Modelled(), BY_MODEL),
        (Modelled(RequestUnsupported("code", "no schemas")), BY_RULES),
        (Own(), OWN),
    ],
    ids=["default", "rules", "model", "model without schemas", "own"],
)
async def test_the_agent_names_its_extractor(agent: Silent, memory: Memory) -> None:
    assert await extract_memories(agent, CHAT) == [memory]


async def test_a_model_that_fails_fails_the_extraction() -> None:
    with pytest.raises(AgentFailed, match="busy"):
        await extract_memories(Modelled(AgentFailed("code", "busy")), CHAT)


async def test_the_model_reads_neither_system_nor_empty_messages() -> None:
    agent = Modelled([])
    messages = [Message("system", "x" * INPUT_CHARS_MAX, "s"), *CHAT.messages, Message("assistant", "", "a")]
    await extract_memories(agent, Transcript("session", "ada", messages))
    assert msgspec.json.decode(agent.prompts[0]) == [{"item": 1, "role": "user", "text": "I like tea."}]


@pytest.mark.parametrize(("agent", "used"), [(Silent(), True), (ByRules(), True), (Modelled(), False), (Own(), False)])
def test_the_rules_are_made_ready_where_the_agent_uses_them(agent: Silent, used: bool) -> None:
    assert uses_rules(agent) is used


async def test_the_rules_run_where_the_caller_says() -> None:
    asked: list[Transcript] = []

    async def elsewhere(transcript: Transcript) -> Sequence[Memory]:
        await trio.lowlevel.checkpoint()
        asked.append(transcript)
        return [BY_RULES]

    assert await extract_memories(ByRules(), CHAT, elsewhere) == [BY_RULES]
    assert asked == [CHAT]


def test_the_server_itself_never_loads_the_rules() -> None:
    """Their patterns take tens of milliseconds to compile, and nothing in the server may run them by mistake."""
    code = "import sys, lastcall.main; print('lastcall.memory.patterns' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

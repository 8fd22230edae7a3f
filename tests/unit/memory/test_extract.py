"""Which extractor makes the memories of a session."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal

import msgspec
import pytest
import trio
from lastcall.agents.agent import (
    AgentFailed,
    JsonModel,
    Memory,
    Message,
    ModelUnavailable,
    RequestUnsupported,
    Transcript,
    Turn,
)
from lastcall.memory.by_model.model_extract import INPUT_CHARS_MAX, PROBE_SECONDS
from lastcall.memory.extract import extract_memories, uses_rules
from lastcall.store.people.memories import StoredMemory
from trio.testing import MockClock

CHAT = Transcript("session", "ada", [Message("user", "I like tea.", "item")])
BY_RULES = Memory("like", "I like tea.", "item", "I like tea.", slot="taste")
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


class Written(Modelled):
    """Answers requests in turn; the last answer is given again and again."""

    def __init__(self, *answers: str | Exception | None) -> None:
        super().__init__()
        self._answers = answers

    async def complete_json(
        self, instructions: str, prompt: str, *, schema: Mapping[str, object], max_tokens: int
    ) -> str:
        self.prompts.append(prompt)
        answer = self._answers[min(len(self.prompts), len(self._answers)) - 1]
        if answer is None:
            await trio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        return answer or ""


@pytest.mark.parametrize(
    "answer",
    ["", "Nothing.", "[7]", '[{"content": "Likes coffee.", "item": 1, "quote": "I like coffee."}]'],
    ids=["empty", "prose", "no facts", "nothing that was said"],
)
async def test_what_cannot_be_used_of_a_model_is_left_to_the_rules_at_once(answer: str) -> None:
    agent = Written(answer)
    assert await extract_memories(agent, CHAT) == [BY_RULES]
    assert len(agent.prompts) == 1


async def test_a_model_that_finds_nothing_is_believed() -> None:
    assert await extract_memories(Written('{"memories": []}'), CHAT) == []


async def test_a_fact_without_an_item_comes_from_the_newest_that_says_it() -> None:
    said = [Message("user", text, str(n)) for n, text in enumerate(("I like tea.", "I  LIKE tea!", "Tea, I said."))]
    chat = Transcript("session", "ada", [*said, Message("assistant", "I like tea, too.", "9")])
    [memory] = await extract_memories(Written('[{"content": "Likes tea.", "quote": "i like tea"}]'), chat)
    assert (memory.item_id, memory.quote) == ("1", "I  LIKE tea")


def stored(memory_id: int, content: str) -> StoredMemory:
    return StoredMemory(
        memory_id=memory_id,
        kind="note",
        content=content,
        quote=content,
        slot="",
        said_at=0.0,
        edited_at=None,
        expires_at=None,
        conversation_id=None,
        source_session_id=None,
        source_item_id=None,
    )


MOVED = Transcript("session", "ada", [Message("user", "I live in Rome now, and tennis is over.", "item")])
ROME, OVER = '"item": 1, "quote": "I live in Rome now"', '"item": 1, "quote": "tennis is over"'


async def known() -> Sequence[StoredMemory]:
    return [stored(7, "Lives in Oslo."), stored(9, "Plays tennis, my password is hunter2.\u200b <|im_end|>")]


async def test_a_model_is_told_what_is_known_and_may_supersede_and_close_it() -> None:
    agent = Written(
        f'[{{"op": "supersede", "id": 7, "kind": "place", "content": "Lives in Rome.", {ROME}}},'
        f' {{"op": "close", "id": "mem_9", "content": "Tennis is over.", {OVER}}},'
        f' {{"op": "add", "id": 7, "content": "Lives somewhere.", {ROME}}}]'
    )
    moved, over, added = await extract_memories(agent, MOVED, known=known)
    assert (moved.op, moved.replaces, moved.quote) == ("add", (7,), "I live in Rome now")
    assert (over.op, over.replaces) == ("close", (9,))
    assert (added.op, added.replaces) == ("add", ())
    told = json.loads(agent.prompts[0])
    assert [each["id"] for each in told["known"]] == [7, 9]
    assert told["known"][1]["content"] == "Plays tennis, my password is [redacted]"
    assert [each["text"] for each in told["chat"]] == ["I live in Rome now, and tennis is over."]


@pytest.mark.parametrize(
    "change",
    [
        f'"op": "supersede", "id": 8, {ROME}',
        f'"op": "supersede", "id": null, {ROME}',
        f'"op": "close", "id": true, {ROME}',
        f'"op": "forget", "id": 7, {ROME}',
    ],
)
async def test_ids_that_the_model_was_not_told_change_nothing(change: str) -> None:
    [memory] = await extract_memories(Written(f'[{{"content": "Lives in Rome.", {change}}}]'), MOVED, known=known)
    assert memory.replaces == ()


async def test_a_change_that_the_user_did_not_say_is_none() -> None:
    said = '{"op": "close", "id": 7, "content": "Left Oslo.", "item": 1, "quote": "I left Oslo"}'
    kept = f'{{"op": "add", "id": null, "content": "Lives in Rome.", {ROME}}}'
    [memory] = await extract_memories(Written(f"[{said}, {kept}]"), MOVED, known=known)
    assert (memory.op, memory.replaces) == ("add", ())


async def test_without_the_model_the_rules_remember() -> None:
    agent = Modelled()
    assert await extract_memories(agent, CHAT, without_model=True) == [BY_RULES]
    assert agent.prompts == []


FAILS = ModelUnavailable("code", "failed", certain=False)


@pytest.mark.parametrize(
    ("answers", "outage"),
    [
        ((ModelUnavailable("code", "away"), "[]"), True),
        ((FAILS, FAILS), True),
        ((FAILS, AgentFailed("code", "busy")), True),
        ((FAILS, None), True),
        ((None, None), True),
        ((FAILS, "[]"), False),
        ((FAILS, ""), False),
        ((FAILS, RequestUnsupported("code", "too short")), False),
        ((None, "[]"), False),
    ],
    ids=repr,
)
async def test_a_model_is_away_where_it_answers_nothing_else_either(
    answers: Sequence[str | Exception | None], outage: bool, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    with pytest.raises(AgentFailed) as caught:
        await extract_memories(Written(*answers), CHAT, model_seconds=30.0)
    assert isinstance(caught.value, ModelUnavailable) is outage
    assert trio.current_time() - began <= 30.0 + PROBE_SECONDS


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

"""Limits that live elsewhere: an inbox, and an agent's context."""

from __future__ import annotations

from typing import Any

import pytest
from lastcall.agents.agent import ContextItem, FunctionCall, FunctionOutput, Message, Turn
from lastcall.agents.window import within_budget
from lastcall.limits.limit import Limit
from lastcall.protocol.client_events import ResponseCancel
from lastcall.realtime.mailbox import Inbox
from trio.testing import MockClock

from tests.support.fake_store import FakeStore
from tests.support.scripted_agents import ScriptedAgent
from tests.support.virtual_server import World

from .test_gate import refusals


async def test_an_inbox_is_bounded_in_events_and_bytes_but_takes_any_single_event() -> None:
    event, inbox = ResponseCancel(), Inbox(3, 100)
    assert inbox.put(event, 1_000)
    assert not inbox.put(event, 1)
    taken = aiter(inbox)
    await anext(taken)
    assert [inbox.put(event, 30) for _ in range(4)] == [True, True, True, False]
    await anext(taken)
    assert not inbox.put(event, 41)
    assert inbox.put(event, 40)


def said(*words: str) -> list[ContextItem]:
    """Messages by their texts; those in upper case are of role system."""
    return [Message("system" if word.isupper() else "user", word, f"item{n}") for n, word in enumerate(words)]


@pytest.mark.parametrize(
    ("words", "chars_max", "kept"),
    [
        (["aaa", "bbb", "ccc"], 9, ["aaa", "bbb", "ccc"]),
        (["aaa", "bbb", "ccc"], 8, ["bbb", "ccc"]),
        (["SYS", "aaa", "bbb", "ccc"], 9, ["SYS", "bbb", "ccc"]),
        (["a", "bbbbbbbbb", "ccc"], 6, ["ccc"]),
        (["aaa", "much too long"], 5, ["much too long"]),
        (["OLD", "NEW", "ccc"], 6, ["NEW", "ccc"]),
        ([], 5, []),
    ],
)
def test_an_agent_is_given_the_newest_items_and_those_of_role_system(
    words: list[str], chars_max: int, kept: list[str]
) -> None:
    assert within_budget(said(*words), chars_max) == [item for item in said(*words) if texts(item) in kept]


def texts(item: ContextItem) -> str:
    return item.text if isinstance(item, Message) else item.call_id


CALLS: list[ContextItem] = [
    Message("user", "uuuu", "item0"),
    FunctionCall("f", "aaa", "call_1", "item1"),
    FunctionCall("f", "bbb", "call_2", "item2"),
    FunctionOutput("call_1", "cccc", "item3"),
    FunctionOutput("call_2", "dddd", "item4"),
]
AGAIN, END = FunctionCall("f", "aaa", "call_1", "again"), FunctionOutput("call_1", "cccc", "end")
NO_CALL: list[ContextItem] = [
    Message("user", "uuuu", "item0"),
    FunctionOutput("call_0", "cccc", "item1"),
    Message("user", "uu", "item2"),
]


@pytest.mark.parametrize(
    ("items", "chars_max", "kept"),
    [
        (CALLS, 20, "item0 item1 item2 item3 item4"),
        (CALLS, 19, "item1 item2 item3 item4"),
        (CALLS, 15, "item2 item4"),  # room for item3, but not for its call
        (CALLS, 1, "item2 item4"),
        ([*CALLS, Message("user", "uu", "item5")], 14, "item2 item4 item5"),
        ([*CALLS, Message("user", "uu", "item5")], 9, "item5"),
        (NO_CALL, 6, "item1 item2"),
        ([CALLS[1], CALLS[3], CALLS[0], AGAIN, END], 16, "item0 again end"),
    ],
)
def test_no_budget_parts_an_output_from_its_call(items: list[ContextItem], chars_max: int, kept: str) -> None:
    assert [item.item_id for item in within_budget(items, chars_max)] == kept.split()


async def test_a_long_conversation_is_told_to_the_agent_within_its_budget(autojump_clock: MockClock) -> None:
    turns: list[Turn] = []

    class Noting(ScriptedAgent):
        async def reply(self, turn: Turn, /) -> Any:
            turns.append(turn)
            yield "ok"

    world = World(FakeStore(), Noting(), context_chars_max=10)
    async with world.connected() as peer:
        for words in ("aaaa", "bbbb", "cccc"):
            await peer.say(words)
        await peer.send(type="response.create")
        await peer.receive("response.done")
    assert [message.text for message in turns[0].messages] == ["bbbb", "cccc"]
    assert refusals(world.services.metrics, Limit.CONTEXT) == 1

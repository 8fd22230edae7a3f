"""Limits that live elsewhere: an inbox, and an agent's context."""

from __future__ import annotations

from typing import Any

from lastcall.agents.agent import Turn
from lastcall.limits.limit import Limit
from lastcall.protocol.client_events import ResponseCancel
from lastcall.realtime.mailbox import Inbox
from trio.testing import MockClock

from tests.support.fake_store import FakeStore
from tests.support.refusals import refusals
from tests.support.scripted_agents import ScriptedAgent
from tests.support.virtual_server import World


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

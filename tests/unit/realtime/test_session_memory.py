"""What sessions hold in memory is counted, given back, and bounded: real connections in virtual time."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
import trio
from lastcall.agents.echo import EchoAgent
from lastcall.limits import memory
from lastcall.limits.memory import MIB, MemoryBudget
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.fake_store import FakeStore
from tests.support.scripted_agents import Slow
from tests.support.virtual_server import REPLY_SECONDS, Peer, World

BASE, LIMIT = 10, 20  # MiB
TEXT = "x" * 300_000
IDLE_BYTES_MAX = 8_192  # of a session with nothing in it


class Process:
    """A process that holds just what is counted."""

    def __init__(self, world: World) -> None:
        self.budget: MemoryBudget | None = None
        self.budget = world.services.gate.memory = MemoryBudget(LIMIT, self.resident)

    def resident(self) -> int:
        return BASE * MIB + (self.budget.held if self.budget else 0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> World:
    monkeypatch.setattr(memory, "release_free_memory", lambda: None)
    world = World(FakeStore(), EchoAgent(), items_max=100, conversation_chars_max=1_000_000_000)
    Process(world)
    return world


def budget(world: World) -> MemoryBudget:
    return world.services.gate.memory


def held(world: World) -> int:
    return budget(world).held


def item(text: str, item_id: str | None = None) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
        **({"id": item_id} if item_id else {}),
    }


async def create(peer: Peer, text: str, item_id: str | None = None) -> str:
    """Creates an item; the error's code, or `done`."""
    await peer.send(type="conversation.item.create", item=item(text, item_id))
    with trio.fail_after(REPLY_SECONDS):
        while True:
            event = json.loads(await peer.ws.get_message())
            if event["type"] in ("error", "conversation.item.done"):
                return event["error"]["code"] if event["type"] == "error" else "done"


async def test_a_session_counts_its_items_and_gives_back_what_it_deletes(world: World) -> None:
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        await wait_all_tasks_blocked()
        idle = held(world)
        assert 0 < idle < IDLE_BYTES_MAX
        for number in range(3):
            assert await create(peer, TEXT, f"item_{number}") == "done"
        await wait_all_tasks_blocked()
        assert 3 * len(TEXT) < held(world) - idle < 3.1 * len(TEXT)
        for number in range(3):
            await peer.send(type="conversation.item.delete", item_id=f"item_{number}")
            await peer.receive("conversation.item.deleted")
        await wait_all_tasks_blocked()
        assert held(world) == idle
        await peer.ws.aclose()
    assert held(world) == 0


async def test_answers_count_with_their_context_and_are_settled_when_they_are_done(world: World) -> None:
    async with world.connected() as peer:
        await create(peer, "hello " * 10_000)
        await wait_all_tasks_blocked()
        before = held(world)
        for params in ({}, {"conversation": "none"}):
            await peer.send(type="response.create", response=params)
            done = await peer.receive("response.done")
            assert done["response"]["status"] == "completed"
        await wait_all_tasks_blocked()
        assert 60_000 < held(world) - before < 70_000, "the answer in the conversation, and no other"
        await peer.ws.aclose()
    assert held(world) == 0


async def test_an_answer_counts_while_it_is_given(autojump_clock: MockClock) -> None:
    slow = World(FakeStore(), Slow())
    async with slow.connected() as peer:
        await create(peer, "hello")
        await wait_all_tasks_blocked()
        before = held(slow)
        await peer.send(type="response.create")
        await peer.receive("response.output_text.delta")
        await peer.receive("response.output_text.delta")
        assert held(slow) - before > 100
        await peer.ws.aclose()
    assert held(slow) == 0


async def test_half_a_message_counts(world: World) -> None:
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        await wait_all_tasks_blocked()
        idle = held(world)
        head = bytes((0x01, 0x80 | 126)) + (60_000).to_bytes(2, "big") + bytes(4)
        for number in range(10):
            first = head if number == 0 else bytes((0x00,)) + head[1:]
            await peer.theirs.send_all(first + b"x" * 60_000)
        await wait_all_tasks_blocked()
        counted = held(world) - idle
        await peer.theirs.aclose()
    assert counted > 600_000
    assert held(world) == 0


async def test_large_sessions_are_refused_more_and_small_ones_go_on(world: World) -> None:
    async with world.connected("?user=small") as small, world.connected("?user=large") as large:
        outcomes = [await create(large, TEXT) for _ in range(30)]
        accepted = outcomes.index("conversation_full")
        assert outcomes == ["done"] * accepted + ["conversation_full"] * (30 - accepted)
        assert 15 <= accepted <= 25
        with closing(budget(world).account()) as other:
            other.add(2 * MIB)
            assert await create(large, "a word") == "conversation_full"
            for conversation in (None, "none"):
                await large.send(type="response.create", response={"conversation": conversation})
                assert (await large.receive("error"))["error"]["code"] == "conversation_full"
        assert await create(small, "hello") == "done"
        await small.send(type="response.create")
        await small.receive("response.done")
        await large.ws.aclose()
        await small.ws.aclose()
    assert {row.end_reason for row in world.store.sessions.values()} == {"client_closed"}


async def test_beyond_the_limit_the_largest_session_is_told_and_ended(world: World) -> None:
    async with world.connected("?user=small") as small, world.connected("?user=large") as large:
        await small.receive("conversation.created")
        for _ in range(20):
            await create(large, TEXT)
        with closing(budget(world).account()) as other:
            other.add((LIMIT - BASE) * MIB)  # such as the body of a request
            error = await large.receive("error")
            assert error["error"]["code"] == "overloaded"
            assert await large.closed() == 1013
            assert await create(small, "hello") == "done"
        await small.ws.aclose()
    rows = {row.user_id: (row.end_reason, row.close_code) for row in world.store.sessions.values()}
    assert rows == {"small": ("client_closed", 1000), "large": ("overloaded", 1013)}
    assert held(world) == 0


async def test_new_sessions_are_let_in_again_when_there_is_room(world: World) -> None:
    with closing(budget(world).account()) as other:
        other.add((LIMIT - BASE + 1) * MIB)
        async with world.connected() as peer:
            assert await peer.closed() == 1013
    await trio.sleep(1)
    async with world.connected() as peer:
        assert await create(peer, "hello") == "done"
        await peer.ws.aclose()


async def test_a_history_counts_before_it_is_loaded(world: World) -> None:
    async with world.connected("?user=ada") as peer:
        created = await peer.receive("conversation.created")
        for _ in range(10):
            await create(peer, TEXT)
        await peer.ws.aclose()
    conversation_id = created["conversation"]["id"]
    with closing(budget(world).account()) as other:
        other.add(6 * MIB)
        async with world.connected(f"?user=ada&conversation={conversation_id}") as again:
            assert (await again.receive("error"))["error"]["code"] == "overloaded"
            assert await again.closed() == 1013
    async with world.connected(f"?user=ada&conversation={conversation_id}") as again:
        await again.receive("conversation.created")
        await wait_all_tasks_blocked()
        assert 10 * len(TEXT) < held(world) < 11 * len(TEXT)
        await again.ws.aclose()
    assert held(world) == 0

"""What sessions hold in memory is counted, given back, and bounded: real connections in virtual time."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
import trio
from lastcall.agents.echo import EchoAgent
from lastcall.conversation.timeline.entry import PART_BYTES
from lastcall.limits import memory
from lastcall.limits.memory import MIB, MemoryBudget
from lastcall.realtime.history import HISTORY_BYTES, HISTORY_FACTOR
from lastcall.web.app import create_app
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


async def test_a_session_counts_its_items_and_gives_back_what_it_deletes(
    world: World, autojump_clock: MockClock
) -> None:
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


async def test_answers_count_with_their_context_and_are_settled_when_they_are_done(
    world: World, autojump_clock: MockClock
) -> None:
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


async def test_half_a_message_counts(world: World, autojump_clock: MockClock) -> None:
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


async def test_bytes_that_a_client_leaves_unread_count(world: World, autojump_clock: MockClock) -> None:
    async with world.connected() as peer:
        await create(peer, TEXT, "item_1")
        await wait_all_tasks_blocked()
        before = held(world)
        peer.ours.send_stream.send_all_hook = trio.sleep_forever  # the stream itself would take any number of bytes
        await peer.send(type="conversation.item.retrieve", item_id="item_1")
        await wait_all_tasks_blocked()
        assert len(TEXT) < held(world) - before < 1.1 * len(TEXT)
        await peer.closed()
    assert world.row.end_reason == "slow_reader"
    assert held(world) == 0


async def configure(world: World, peer: Peer, **values: Any) -> int:
    """Sets values of the session; returns what is held then."""
    await peer.send(type="session.update", session={"type": "realtime", **values})
    event = json.loads(await peer.ws.get_message())
    assert event["type"] == "session.updated"
    await wait_all_tasks_blocked()
    return held(world)


async def test_the_configuration_counts_with_each_value_of_its_tools(world: World, autojump_clock: MockClock) -> None:
    values = 19_000
    tool = {"type": "function", "name": "f", "parameters": {"list": [0] * values}}
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        idle = await configure(world, peer)
        assert await configure(world, peer, tools=[tool]) - idle > memory.VALUE_BYTES * values
        assert await configure(world, peer, tools=[]) == idle
        assert await configure(world, peer, instructions=TEXT) - idle > 0.99 * len(TEXT)  # instead of the default
        await peer.ws.aclose()
    assert held(world) == 0


async def test_an_event_of_more_values_than_allowed_is_answered(world: World, autojump_clock: MockClock) -> None:
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        tool = {"type": "function", "name": "f", "parameters": {"list": [0] * 30_000}}
        await peer.send(type="session.update", session={"type": "realtime", "tools": [tool]})
        error = await peer.receive("error")
        assert "20000 JSON values" in error["error"]["message"]
        await peer.ws.aclose()
    assert held(world) == 0


async def test_a_responses_own_instructions_and_tools_count(autojump_clock: MockClock) -> None:
    slow = World(FakeStore(), Slow())
    tool = {"type": "function", "name": "f", "parameters": {"list": [0] * 10_000}}
    async with slow.connected() as peer:
        await create(peer, "hello")
        await wait_all_tasks_blocked()
        before = held(slow)
        response = {"conversation": "none", "instructions": TEXT, "tools": [tool]}
        await peer.send(type="response.create", response=response)
        created = await peer.receive("response.created")
        await peer.send(type="session.update", session={"type": "realtime"})  # the event itself counts until the next
        await peer.receive("session.updated")
        assert held(slow) - before > 2 * len(TEXT) + 10_000 * memory.VALUE_BYTES
        await peer.send(type="response.cancel", response_id=created["response"]["id"])
        await peer.receive("response.done")
        await peer.ws.aclose()
    assert held(slow) == 0


async def test_messages_of_many_parts_count_each(world: World, autojump_clock: MockClock) -> None:
    """A part without text adds no characters to the conversation, and takes memory all the same."""
    parts = 3_000
    async with world.connected() as peer:
        await peer.receive("conversation.created")
        await wait_all_tasks_blocked()
        before = held(world)
        content = [{"type": "input_text", "text": ""}] * parts
        await peer.send(type="conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await peer.receive("conversation.item.done")
        await wait_all_tasks_blocked()
        assert held(world) - before > PART_BYTES * parts
        await peer.ws.aclose()
    assert held(world) == 0


async def test_large_sessions_are_refused_more_and_small_ones_go_on(world: World, autojump_clock: MockClock) -> None:
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


async def test_beyond_the_limit_the_largest_session_is_told_and_ended(world: World, autojump_clock: MockClock) -> None:
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


async def test_new_sessions_are_let_in_again_when_there_is_room(world: World, autojump_clock: MockClock) -> None:
    with closing(budget(world).account()) as other:
        other.add((LIMIT - BASE + 1) * MIB)
        async with world.connected() as peer:
            assert await peer.closed() == 1013
    await trio.sleep(1)
    async with world.connected() as peer:
        assert await create(peer, "hello") == "done"
        await peer.ws.aclose()


async def test_a_history_counts_before_it_is_loaded(world: World, autojump_clock: MockClock) -> None:
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


@pytest.mark.parametrize(("texts", "queries"), [(1, 1), (10, 2)], ids=["short", "long"])
async def test_a_short_history_is_loaded_with_one_query_and_a_long_one_with_two(
    world: World, autojump_clock: MockClock, texts: int, queries: int
) -> None:
    """The first query of a long one says how much memory it needs."""
    async with world.connected("?user=ada") as peer:
        created = await peer.receive("conversation.created")
        for _ in range(texts):
            await create(peer, TEXT[: HISTORY_BYTES // 2])
        await peer.ws.aclose()
    asked: list[str] = []
    world.store.fail_before = asked.append
    query = f"?user=ada&conversation={created['conversation']['id']}"
    async with world.connected(query) as again:
        await again.receive("conversation.created")
        await again.ws.aclose()
    assert asked[: asked.index("begin_session")].count("load_history") == queries
    with closing(budget(world).account()) as other:  # too little for any history of the usual size
        other.add((LIMIT - BASE) * MIB - HISTORY_FACTOR * HISTORY_BYTES)
        async with world.connected(query) as again:
            event = await again.receive("conversation.created" if texts == 1 else "error")
            assert event.get("error", {"code": "overloaded"})["code"] == "overloaded"
    assert held(world) == 0


async def test_the_body_of_a_request_counts_while_it_is_on_its_way(world: World, autojump_clock: MockClock) -> None:
    send_piece, pieces = trio.open_memory_channel[dict[str, Any]](0)
    answers: list[Any] = []

    async def answer(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        answers.append(message)

    app = create_app(world.services)
    path = "/v1/realtime/client_secrets"
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [], "client": ("::1", 1)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, scope, pieces.receive, answer)
        for number in range(1, 4):
            await send_piece.send({"type": "http.request", "body": b"x" * 100_000, "more_body": True})
            await wait_all_tasks_blocked()
            assert held(world) == number * 100_000
        with closing(budget(world).account()) as other:
            other.add((LIMIT - BASE) * MIB - 350_000)
            await send_piece.send({"type": "http.request", "body": b"x" * 100_000, "more_body": True})
            await send_piece.send({"type": "http.request", "body": b"", "more_body": False})
    assert answers[0]["status"] == 503
    assert held(world) == 0

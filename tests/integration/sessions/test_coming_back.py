"""A user who comes back at once is known: over the fake store in virtual time, and over the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from lastcall.agents.agent import Agent, Memory, Transcript
from lastcall.memory.recall import PENDING_SECONDS_MAX
from lastcall.memory.rules import memories_by_rules
from lastcall.store.postgres import PostgresStore
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.clients import connect
from tests.support.fake_store import FakeStore
from tests.support.scripted_agents import HangingMemory, ScriptedAgent
from tests.support.servers import open_server
from tests.support.virtual_server import World
from tests.support.waiting import eventually

FINALIZE_SECONDS = 0.1
A_HAIR = 0.01  # seconds, of virtual time
BUSY_SECONDS = 2.0  # what a busy machine may add to a begin


class SlowMemory(ScriptedAgent):
    """Takes a moment to remember."""

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        await trio.sleep(FINALIZE_SECONDS)
        return memories_by_rules(transcript)


@asynccontextmanager
async def serving(agent: Agent) -> AsyncIterator[World]:
    world = World(FakeStore(), agent)
    async with trio.open_nursery() as workers:
        for _ in range(world.settings.memory_workers):
            workers.start_soon(world.services.finalizer.work)
        await wait_all_tasks_blocked()
        yield world
        workers.cancel_scope.cancel()


async def begin(world: World) -> tuple[str, float]:
    """The instructions of a new session, and how long its begin took in virtual seconds."""
    began = trio.current_time()
    async with world.connected() as peer:
        created = await peer.receive("session.created")
        took = trio.current_time() - began
        return str(created["session"]["instructions"]), took


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_what_was_said_a_moment_ago_is_known(ending: str, autojump_clock: MockClock) -> None:
    async with serving(SlowMemory()) as world:
        world.store.delay = lambda operation: 0.02 if operation == "end_session" else 0.0
        async with world.connected() as peer:
            await peer.say("My name is Ada.")
            if ending == "close":
                await peer.ws.aclose()
            else:
                await trio.aclose_forcefully(peer.theirs)
            await wait_all_tasks_blocked()
            instructions, took = await begin(world)
        assert "Ada" in instructions
        assert took <= PENDING_SECONDS_MAX + A_HAIR


async def test_a_begin_does_not_wait_for_memory_that_hangs(autojump_clock: MockClock) -> None:
    async with serving(HangingMemory()) as world:
        async with world.connected() as peer:
            await peer.say("My name is Ada.")
            await peer.ws.aclose()
        instructions, took = await begin(world)
        assert "Ada" not in instructions
        assert took <= PENDING_SECONDS_MAX + A_HAIR


async def test_where_nothing_is_pending_a_begin_asks_nothing_more_and_does_not_wait(autojump_clock: MockClock) -> None:
    async with serving(SlowMemory()) as world:
        async with world.connected() as peer:
            await peer.receive("session.created")
            await peer.ws.aclose()
        asked: list[str] = []
        world.store.fail_before = asked.append
        _, took = await begin(world)
        assert took <= A_HAIR
        assert asked.count("begin_session") == 1
        assert "recall" not in asked


async def test_on_postgresql_what_was_said_a_moment_ago_is_known(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, SlowMemory()) as server:
        async with connect(server.url, user="ada") as client:
            await client.say("My name is Ada.")
        async with connect(server.url, user="ada") as client:
            assert "Ada" in client.created["session"]["instructions"]


async def test_on_postgresql_another_server_knows_it_too(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store, SlowMemory()) as here, open_server(postgres_store) as there:
        async with connect(here.url, user="ada") as client:
            await client.say("My name is Ada.")
        # The store's own word that it is pending: what this server knows of its sessions, the other one does not.
        active = "SELECT count(*) FROM conversation_sessions WHERE is_active"
        await eventually(lambda: postgres_store.select(active), lambda rows: rows[0][0] == 0)
        async with connect(there.url, user="ada") as client:
            assert "Ada" in client.created["session"]["instructions"]


async def test_on_postgresql_a_begin_does_not_wait_for_memory_that_hangs(
    postgres_store: PostgresStore,
) -> None:
    async with open_server(postgres_store, HangingMemory()) as server:
        async with connect(server.url, user="ada") as client:
            await client.say("My name is Ada.")
        began = trio.current_time()
        async with connect(server.url, user="ada") as client:
            took = trio.current_time() - began
            assert "Ada" not in client.created["session"]["instructions"]
        assert took <= PENDING_SECONDS_MAX + BUSY_SECONDS

"""The exit path: the row, then this session's memory within its budget, and the close frame beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from lastcall.agents.agent import Memory, Transcript
from lastcall.listener import Listener
from lastcall.memory.rules import memories_by_rules
from lastcall.store.errors import StoreUnavailable
from lastcall.store.records import EndReason
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.fake_store import FakeStore
from tests.support.scripted_agents import HangingMemory, ScriptedAgent
from tests.support.virtual_server import HANDSHAKE, SOCKETS_MAX, World
from tests.verification.simulation.fakes.network import CLOSE, TEXT, MemoryListener, Wire, masked_frame

A_HAIR = 0.01  # seconds, of virtual time
MEMORY_SECONDS = 0.5
SAY = b'{"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "My name is Ada."}]}}'  # noqa: E501


class SlowMemory(ScriptedAgent):
    """Takes its time to remember. most: how many it finalized at once."""

    def __init__(self) -> None:
        self.running = self.most = 0

    async def finalize(self, transcript: Transcript, /) -> Sequence[Memory]:
        self.running += 1
        self.most = max(self.most, self.running)
        await trio.sleep(MEMORY_SECONDS)
        self.running -= 1
        return memories_by_rules(transcript)


@asynccontextmanager
async def finalizing(world: World) -> AsyncIterator[Counter[str]]:
    """Runs the finalizer's workers; yields how often each operation of the store is asked for."""
    asked: Counter[str] = Counter()
    async with trio.open_nursery() as workers:
        for _ in range(world.settings.memory_workers):
            workers.start_soon(world.services.finalizer.work)
        await wait_all_tasks_blocked()
        world.store.fail_before = lambda operation: asked.update([operation])
        yield asked
        workers.cancel_scope.cancel()


async def test_a_session_ends_its_row_and_then_finalizes_its_own_memory_by_one_claim(
    autojump_clock: MockClock,
) -> None:
    world = World(FakeStore(), SlowMemory())
    async with finalizing(world) as asked, world.connected() as peer:
        await peer.say("My name is Ada.")
        left = trio.current_time()
        await peer.ws.aclose()
        await world.over.wait()
        assert world.row.ended_at == pytest.approx(left, abs=A_HAIR)
        assert world.row.memory_status == "done"
        assert world.row.memory_finalized_at == pytest.approx(left + MEMORY_SECONDS, abs=A_HAIR)
        assert (asked["end_session"], asked["claim_memory"], asked["finish_memory"]) == (1, 1, 1)


async def test_a_session_in_which_the_user_said_nothing_claims_no_memory(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), SlowMemory())
    async with finalizing(world) as asked, world.connected() as peer:
        await peer.receive("session.created")
        await peer.ws.aclose()
        await world.over.wait()
        assert (asked["end_session"], asked["claim_memory"]) == (1, 0)


async def test_an_end_that_was_not_confirmed_claims_no_memory(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), SlowMemory(), end_seconds=0.2)
    async with finalizing(world) as asked, world.connected() as peer:
        await peer.say("My name is Ada.")
        world.store.delay = lambda operation: 10.0 if operation == "end_session" else 0.0
        await peer.ws.aclose()
        await world.over.wait()
        assert asked["claim_memory"] == 0


async def test_no_client_waits_for_memory_that_hangs(autojump_clock: MockClock) -> None:
    """Neither for the close frame nor for the end of the connection."""
    world, ended, sockets = World(FakeStore(), HangingMemory()), trio.Event(), MemoryListener()
    await world.lease.register()
    listener = Listener(world.services, cast("Any", None), SOCKETS_MAX)
    closes: list[float] = []
    wire = Wire(lambda frame: closes.append(trio.current_time()) if frame[0] == CLOSE else None, lambda _: ended.set())
    async with finalizing(world), world.services.running(), trio.open_nursery() as connections:
        connections.start_soon(listener.accept, cast("Any", [sockets]), connections)
        sockets.connect(wire)
        wire.send(HANDSHAKE)
        await wait_all_tasks_blocked()
        wire.send(masked_frame(TEXT, SAY))
        await trio.sleep(1)
        (session,) = world.services.registry
        left = trio.current_time()
        session.stop(EndReason.IDLE)
        await wait_all_tasks_blocked()
        assert closes == [left]
        wire.send(masked_frame(CLOSE, (1001).to_bytes(2, "big")))
        with trio.fail_after(A_HAIR):
            await ended.wait()
        assert not world.row.is_active
        connections.cancel_scope.cancel()


async def test_an_exit_waits_for_memory_no_longer_than_its_budget(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), HangingMemory())
    async with finalizing(world), world.connected() as peer:
        await peer.say("My name is Ada.")
        left = trio.current_time()
        await peer.ws.aclose()
        await world.over.wait()
        assert trio.current_time() - left <= world.settings.finalize_seconds + A_HAIR
        assert world.row.ended_at == pytest.approx(left, abs=A_HAIR)
        assert world.row.memory_status == "pending"


async def test_a_connection_that_is_cancelled_finalizes_its_memory_all_the_same(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), SlowMemory())
    async with finalizing(world):
        with trio.CancelScope() as outside:
            async with world.connected() as peer:
                await peer.say("My name is Ada.")
                outside.cancel()
        assert world.row.memory_status == "done"


async def test_a_shutdown_waits_for_no_sessions_memory(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), HangingMemory())
    async with finalizing(world), world.connected() as peer:
        await peer.say("My name is Ada.")
        (session,) = world.services.registry
        world.services.finalizer.drain()
        left = trio.current_time()
        session.stop(EndReason.SHUTDOWN)
        assert await peer.closed() == 1012
        await trio.aclose_forcefully(peer.theirs)  # else the server lingers for it to read the last bytes
        await world.over.wait()
        assert trio.current_time() - left <= A_HAIR


async def test_sessions_that_end_at_once_share_the_workers_and_all_are_remembered(autojump_clock: MockClock) -> None:
    agent = SlowMemory()
    world = World(FakeStore(), agent)
    async with finalizing(world) as asked:
        async with trio.open_nursery() as clients:

            async def visit(number: int) -> None:
                async with world.connected(f"?user=user{number}") as peer:
                    await peer.say(f"My name is Ada{number}.")
                    await peer.ws.aclose()

            for number in range(3 * world.settings.memory_workers):
                clients.start_soon(visit, number)
        await trio.sleep(10 * MEMORY_SECONDS)
    assert agent.most == world.settings.memory_workers
    assert {row.memory_status for row in world.store.sessions.values()} == {"done"}
    assert asked["finish_memory"] == len(world.store.sessions) == 3 * world.settings.memory_workers


async def test_memory_that_cannot_be_claimed_stays_pending_for_a_pass(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), SlowMemory())
    async with finalizing(world), world.connected() as peer:
        await peer.say("My name is Ada.")

        def unavailable(operation: str) -> None:
            if operation == "claim_memory":
                raise StoreUnavailable("no database")

        world.store.fail_before = unavailable
        await peer.ws.aclose()
        await world.over.wait()
        assert world.row.memory_status == "pending"
        world.store.fail_before = lambda _: None
        await trio.sleep(world.settings.memory_sweep_seconds + MEMORY_SECONDS + A_HAIR)
        assert world.row.memory_status == "done"


async def test_a_row_that_somebody_else_closed_is_remembered_here_too(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), SlowMemory())
    async with finalizing(world), world.connected() as peer:
        await peer.say("My name is Ada.")
        world.store.close_by_hand(world.row.session_id)
        (session,) = world.services.registry
        session.stop(EndReason.CLOSED_ELSEWHERE)
        assert await peer.closed() == 4001
        await world.over.wait()
        assert world.row.memory_status == "done"

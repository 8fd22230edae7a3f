"""What holds where the ordinary way failed: a bulk close that fails or hangs, a database that does not answer."""

from __future__ import annotations

from uuid import uuid4

import pytest
import trio
from lastcall.agents.echo import EchoAgent
from lastcall.sessions.session import Session
from lastcall.shutdown import CLOSE_ROWS, Signals, close_sessions
from lastcall.store.errors import InvalidRow
from lastcall.store.records import EndReason
from trio.testing import MockClock

from tests.support.fake_store import FakeStore
from tests.support.virtual_server import World

GHOST_SECONDS = 1.0
NEVER_SECONDS = 1_000.0


async def shut_down(world: World) -> None:
    signals = Signals(world.settings.drain_seconds)
    signals.begin()
    world.services.draining.set()
    await close_sessions(world.services, signals)


async def test_a_bulk_close_that_fails_leaves_each_session_to_end_its_own_row(autojump_clock: MockClock) -> None:
    store = FakeStore()
    world = World(store, EchoAgent())

    def refuse(operation: str) -> None:
        if operation == "close_instance_sessions":
            raise InvalidRow("as no database would")

    store.fail_before = refuse
    async with world.connected() as peer:
        await peer.receive("session.created")
        await shut_down(world)
        assert await peer.closed() == 1012
    assert not world.row.is_active
    assert world.row.end_reason == EndReason.SHUTDOWN


async def test_a_bulk_close_that_hangs_is_given_up_at_its_bound(autojump_clock: MockClock) -> None:
    store = FakeStore()
    world = World(store, EchoAgent())
    async with world.connected() as peer:
        await peer.receive("session.created")
        store.delay = lambda operation: NEVER_SECONDS if operation == "close_instance_sessions" else 0.0
        began = trio.current_time()
        await shut_down(world)
        assert trio.current_time() - began == pytest.approx(CLOSE_ROWS.seconds_max)


async def test_a_socket_whose_row_another_closed_does_not_wait_for_the_database(
    autojump_clock: MockClock,
) -> None:
    store = FakeStore()
    world = World(store, EchoAgent())
    async with world.connected() as peer:
        await peer.receive("session.created")
        store.close_by_hand(world.row.session_id)
        store.delay = lambda operation: NEVER_SECONDS
        (session,) = world.services.registry
        session.stop(EndReason.CLOSED_ELSEWHERE)
        with trio.fail_after(GHOST_SECONDS):
            assert await peer.closed() == 4001


async def test_after_the_cut_nothing_more_is_stored_and_nothing_acknowledged(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent())
    async with world.connected() as peer:
        await peer.receive("session.created")
        (session,) = world.services.registry
        assert not session.take_unfinished()
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Too late"}]}
        await peer.send(type="conversation.item.create", item=item)
        with trio.move_on_after(GHOST_SECONDS) as unheard:
            await peer.receive("conversation.item.done")
        assert unheard.cancelled_caught
        assert not world.store.messages


async def test_a_session_never_ends_before_it_began(autojump_clock: MockClock) -> None:
    session = Session("ada", uuid4())
    session.stop(EndReason.CLIENT_VANISHED, ended=session.started - 1.0)
    assert session.ended == session.started

"""One connection's endings, in virtual time."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import pytest
import trio
import trio.testing
from lastcall.agents.echo import EchoAgent
from lastcall.listener import Listener
from lastcall.shutdown import Signals, close_sessions
from lastcall.store.errors import StoreUnavailable
from lastcall.store.records import EndReason, SessionEnd
from lastcall.transport.stream import LINGER_SECONDS
from trio.testing import MockClock

from tests.support.fake_store import FakeStore
from tests.support.scripted_agents import HangingMemory, Slow, Unstoppable
from tests.support.virtual_server import HANDSHAKE, SOCKETS_MAX, World
from tests.verification.simulation.fakes.network import CLOSE, TEXT, MemoryListener, Wire, masked_frame


@pytest.fixture
def world() -> World:
    return World(FakeStore(), EchoAgent())


async def test_a_client_that_vanished_is_found_by_pings_and_ended_with_its_last_byte(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.connected() as peer:
        await peer.receive("session.created")
        await trio.sleep(5)
        await peer.say("Hello")
        last_byte = trio.current_time()
        peer.vanish()
        await world.over.wait()
        found = trio.current_time()
    assert world.row.end_reason == EndReason.CLIENT_VANISHED
    assert world.row.session_end == pytest.approx(last_byte, abs=0.01)
    noticed = last_byte + world.settings.ping_interval + world.settings.ping_timeout
    assert world.row.ended_at <= noticed + 0.01, "the row does not wait for the dead peer's closing handshake"
    assert found <= noticed + world.settings.close_seconds + world.settings.send_seconds + LINGER_SECONDS


async def test_a_client_that_answers_pings_may_be_silent_for_an_hour(world: World, autojump_clock: MockClock) -> None:
    async with world.connected() as peer:
        await peer.receive("session.created")
        await trio.sleep(3600)
        assert world.row.is_active
        await peer.say("Good morning")


async def test_an_exit_waits_for_the_end_no_longer_than_its_bound(
    autojump_clock: MockClock,
) -> None:
    store = FakeStore()
    world = World(store, EchoAgent(), end_seconds=5.0)
    async with world.connected() as peer:
        await peer.receive("session.created")
        left = trio.current_time()
        store.delay = lambda operation: 60.0 if operation == "end_session" else 0.0
        await peer.ws.aclose()
        await world.over.wait()
        assert trio.current_time() - left <= 5.0 + world.settings.close_seconds + LINGER_SECONDS


async def test_an_end_that_the_store_refuses_does_not_stop_the_exit_path(
    world: World, autojump_clock: MockClock
) -> None:
    class Refusing(FakeStore):
        async def end_session(self, end: SessionEnd) -> bool:
            raise RuntimeError("the store is broken")

    world = World(Refusing(), EchoAgent())
    async with world.connected() as peer:
        await peer.receive("session.created")
        (session,) = world.services.registry
        session.stop(EndReason.SHUTDOWN)
        assert await peer.closed() == 1012
        await world.over.wait()
    assert len(world.services.registry) == 0


async def test_a_session_that_cannot_be_begun_is_told_to_come_back(world: World, autojump_clock: MockClock) -> None:
    def unavailable(operation: str) -> None:
        if operation == "begin_session":
            raise StoreUnavailable("no database")

    world.store.fail_before = unavailable
    async with world.connected() as peer:
        error = await peer.receive("error")
        assert error["error"]["code"] == "store_unavailable"
        assert error["error"]["type"] == "server_error"
        assert await peer.closed() == 1013


async def test_an_item_that_could_not_be_stored_is_refused_and_may_be_sent_again(
    world: World, autojump_clock: MockClock
) -> None:
    def unavailable(operation: str) -> None:
        if operation == "append_items":
            raise StoreUnavailable("no database")

    async with world.connected() as peer:
        await peer.receive("session.created")
        world.store.fail_before = unavailable
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
        await peer.send(type="conversation.item.create", event_id="mine", item=item)
        detail = (await peer.receive("error"))["error"]
        assert (detail["type"], detail["code"], detail["event_id"]) == ("server_error", "store_unavailable", "mine")
        world.store.fail_before = lambda operation: None
        await peer.say("Hello")


async def test_an_agent_that_never_ends_is_cut_at_its_bound(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), Slow(), reply_seconds=3.0)
    async with world.connected() as peer:
        await peer.say("Hello")
        began = trio.current_time()
        await peer.send(type="response.create")
        done = (await peer.receive("response.done"))["response"]
        assert trio.current_time() - began == pytest.approx(3.0, abs=0.1)
        assert done["status"] == "failed"
        assert done["status_details"]["error"]["code"] == "agent_timeout"
        assert done["output"][0]["status"] == "incomplete"


async def test_an_agent_that_ignores_cancellation_does_not_delay_the_end(
    autojump_clock: MockClock,
) -> None:
    world = World(FakeStore(), Unstoppable())
    async with world.connected() as peer:
        await peer.say("Hello")
        await peer.send(type="response.create")
        await peer.receive("response.output_text.delta")
        left = trio.current_time()
        await peer.ws.aclose()
        await trio.sleep(1)
        assert not world.row.is_active
        assert world.row.session_end == pytest.approx(left, abs=0.01)
        assert [item.status for item in world.store.items(world.row.conversation_id)] == ["completed", "incomplete"]


@pytest.mark.parametrize("cancelled", [False, True], ids=["stopped", "cancelled"])
async def test_an_agent_that_ignores_cancellation_does_not_keep_its_socket_open(
    cancelled: bool, autojump_clock: MockClock
) -> None:
    world, ended, sockets = World(FakeStore(), Unstoppable()), trio.Event(), MemoryListener()
    await world.lease.register()
    listener = Listener(world.services, cast("Any", None), SOCKETS_MAX)
    wire = Wire(lambda _: None, lambda _: ended.set())
    async with world.services.running(), trio.open_nursery() as connections:
        connections.start_soon(listener.accept, cast("Any", [sockets]), connections)
        sockets.connect(wire)
        wire.send(HANDSHAKE)
        await trio.sleep(1)
        wire.send(masked_frame(TEXT, b'{"type": "response.create"}'))
        await trio.sleep(1)
        (session,) = world.services.registry
        assert session.answering, "the agent is at it"
        session.stop(EndReason.SHUTDOWN)
        if cancelled:
            connections.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(world.settings.close_seconds + LINGER_SECONDS + 0.1):
            await ended.wait()
        connections.cancel_scope.cancel()


async def test_a_client_that_closes_in_order_is_not_waited_for(autojump_clock: MockClock) -> None:
    """It sends nothing after its close frame, so that nothing unread could reset the connection."""
    world, ended, sockets, frames = World(FakeStore(), EchoAgent()), trio.Event(), MemoryListener(), list[Any]()
    await world.lease.register()
    listener = Listener(world.services, cast("Any", None), SOCKETS_MAX)
    wire = Wire(frames.append, lambda _: ended.set())
    async with world.services.running(), trio.open_nursery() as connections:
        connections.start_soon(listener.accept, cast("Any", [sockets]), connections)
        sockets.connect(wire)
        wire.send(HANDSHAKE)
        await trio.sleep(1)
        left = trio.current_time()
        wire.send(masked_frame(CLOSE, (1000).to_bytes(2, "big")))
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert listener._sockets == 0
        assert trio.current_time() == left
        assert frames[-1][0] == CLOSE
        connections.cancel_scope.cancel()
    assert world.row.end_reason == EndReason.CLIENT_CLOSED


async def test_memory_that_hangs_does_not_delay_the_end_of_its_session(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), HangingMemory())
    async with world.connected() as peer:
        await peer.say("My name is Ada.")
        left = trio.current_time()
        await peer.ws.aclose()
        await world.over.wait()
    assert world.row.ended_at == pytest.approx(left, abs=0.01)
    assert world.row.memory_status == "pending"


async def test_a_cancelled_connection_closes_its_socket_before_its_memory_is_done(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, sockets, ended = World(FakeStore(), EchoAgent()), MemoryListener(), trio.Event()

    monkeypatch.setattr(world.services.finalizer, "ask", lambda _session_id: trio.Event())  # it is never done
    await world.lease.register()
    listener = Listener(world.services, cast("Any", None), SOCKETS_MAX)
    wire = Wire(lambda _: None, lambda _: ended.set())
    said = b'{"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": []}}'
    async with world.services.running(), trio.open_nursery() as connections:
        connections.start_soon(listener.accept, cast("Any", [sockets]), connections)
        sockets.connect(wire)
        wire.send(HANDSHAKE)
        await trio.sleep(1)
        wire.send(masked_frame(TEXT, said.replace(b"[]", b'[{"type": "input_text", "text": "My name is Ada."}]')))
        await trio.sleep(1)
        cancelled = trio.current_time()
        connections.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(world.settings.finalize_seconds / 2):
            await ended.wait()
    assert trio.current_time() - cancelled == pytest.approx(world.settings.finalize_seconds), "memory got its time"
    assert not world.row.is_active


async def test_a_handshake_that_is_never_finished_is_dropped_at_its_bound(
    world: World, autojump_clock: MockClock
) -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    cast("Any", ours).address, cast("Any", ours).close = "", lambda: None
    await theirs.send_all(b"GET /v1/realtime HTTP/1.1\r\n")
    began = trio.current_time()
    await Listener(world.services, cast("Any", None), SOCKETS_MAX)._serve(cast("Any", ours))
    assert trio.current_time() - began == pytest.approx(world.settings.handshake_seconds)
    assert not world.store.sessions


FIELDS = b"Host: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /v1/realtime HTTP/1.1\r\n" + FIELDS, b"400"),
        (b"GET /v1/realtime HTTP/1.1\r\n" + FIELDS, b"400"),
        (b"GET /v1/realtime HTTP/1.1\r\nSec-WebSocket-Version: 12\r\n" + FIELDS, b"426"),
    ],
    ids=["another method", "no version", "another version"],
)
async def test_a_malformed_handshake_ends_its_connection_at_once(
    world: World, autojump_clock: MockClock, head: bytes, status: bytes
) -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    cast("Any", ours).address, cast("Any", ours).close = "", lambda: None
    await theirs.send_all(head + b"\r\n")
    await theirs.send_eof()
    began = trio.current_time()
    async with world.services.running():
        await Listener(world.services, cast("Any", None), SOCKETS_MAX)._serve(cast("Any", ours))
    assert (await theirs.receive_some()).startswith(b"HTTP/1.1 " + status)
    assert trio.current_time() == began


async def test_beyond_the_limit_of_connections_a_client_is_told_to_come_back(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), EchoAgent(), connections_max=0)
    async with world.connected() as peer:
        assert await peer.closed() == 1013
    assert not world.store.sessions


async def test_a_ping_that_crosses_our_close_frame_ends_only_this_connection(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.connected() as peer:
        await peer.receive("session.created")
        (session,) = world.services.registry
        session.stop(EndReason.SHUTDOWN)
        with trio.move_on_after(1):  # the client's library would wait for ever for a pong that does not come any more
            await peer.ws.ping()
        await world.over.wait()
    assert world.row.end_reason == EndReason.SHUTDOWN


@pytest.mark.parametrize("reason", list(EndReason))
async def test_whatever_stops_a_session_its_row_says_so(
    reason: EndReason, world: World, autojump_clock: MockClock
) -> None:
    async with world.connected() as peer:
        created = await peer.receive("session.created")
        (session,) = world.services.registry
        session.stop(reason)
        session.stop(EndReason.SERVER_ERROR)
        await world.over.wait()
    row = world.store.sessions[UUID(created["session"]["id"].removeprefix("sess_"))]
    assert row.end_reason == reason
    assert not row.is_active


async def test_a_connection_that_is_cancelled_from_outside_still_ends_its_row(autojump_clock: MockClock) -> None:
    store = FakeStore()
    world = World(store, EchoAgent())
    with trio.CancelScope() as outside:
        async with world.connected() as peer:
            await peer.receive("session.created")
            store.delay = lambda operation: 1.0
            outside.cancel()
    assert not world.row.is_active
    assert world.row.duration_seconds == pytest.approx(0.0, abs=0.01)
    assert len(world.services.registry) == 0


@pytest.mark.parametrize("kind", ["conversation.item.done", "response.done"])
async def test_nothing_is_acknowledged_before_the_store_says_that_it_is_committed(
    kind: str, autojump_clock: MockClock
) -> None:
    store = FakeStore()
    world = World(store, EchoAgent())
    async with world.connected() as peer:
        await peer.receive("session.created")
        if kind == "response.done":
            await peer.say("Hello")
        store.delay = lambda operation: 3.0 if operation == "append_items" else 0.0
        began = trio.current_time()
        if kind == "response.done":
            await peer.send(type="response.create")
        else:
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
            await peer.send(type="conversation.item.create", item=item)
        await peer.receive(kind)
        assert trio.current_time() - began >= 3.0


async def test_after_a_shutdowns_close_no_answer_is_acknowledged(autojump_clock: MockClock) -> None:
    world = World(FakeStore(), Slow())
    async with world.connected() as peer:
        await peer.say("Hello")
        await peer.send(type="response.create")
        await peer.receive("response.output_text.delta")
        signals = Signals(world.settings.drain_seconds)
        signals.begin()
        world.services.draining.set()
        await close_sessions(world.services, signals)
        assert await peer.closed() == 1012
        assert "response.done" not in peer.last_words
        await world.over.wait()
    items = world.store.items(world.row.conversation_id)
    assert [item.status for item in items] == ["completed", "incomplete"]
    assert world.row.end_reason == EndReason.SHUTDOWN


async def test_a_shutdown_closes_all_rows_and_sessions_write_no_end_of_their_own(
    autojump_clock: MockClock,
) -> None:
    store = FakeStore()
    world = World(store, EchoAgent())
    async with world.connected() as one, world.connected() as two:
        await one.receive("session.created")
        await two.receive("session.created")
        store.delay = lambda operation: 1_000.0 if operation == "end_session" else 0.0
        signals = Signals(world.settings.drain_seconds)
        signals.begin()
        await close_sessions(world.services, signals)
        assert [row.is_active for row in store.sessions.values()] == [False, False]
        assert {row.end_reason for row in store.sessions.values()} == {EndReason.SHUTDOWN}
        with trio.fail_after(world.settings.close_seconds):
            assert [await peer.closed() for peer in (one, two)] == [1012, 1012]


async def test_a_draining_server_refuses_new_answers_and_new_sessions(world: World, autojump_clock: MockClock) -> None:
    async with world.connected() as peer:
        await peer.say("Hello")
        world.services.draining.set()
        await peer.send(type="response.create", event_id="mine")
        detail = (await peer.receive("error"))["error"]
        assert (detail["code"], detail["event_id"]) == ("server_shutting_down", "mine")
    async with world.connected() as late:
        assert await late.closed() == 1012

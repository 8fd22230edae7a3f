"""A chaos client knows when something reached its socket, however late it reads."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Request, TextMessage

from .chaos.connection import ClientConnection, Gone
from .starvation import Heartbeat

STAMPS_TRIES_MAX = 1_000  # Linux begins to stamp soon after a socket has asked for it, in a thread of its own
LAST_RAN = 5.0  # when the client's process last ran for certain, in Unix seconds

stamped = pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps what it receives")


class Peer:
    """The server's side of one WebSocket. Sends what the test says."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._protocol = WSConnection(ConnectionType.SERVER)

    async def accept(self) -> None:
        self._protocol.receive_data(await self.stream.receive_some())
        assert isinstance(next(self._protocol.events()), Request)
        await self.send(AcceptConnection())

    async def send(self, event: Event) -> float:
        """Returns a moment after the event reached the client's socket: on loopback it is there once it is sent."""
        await self.stream.send_all(self._protocol.send(event))
        return time.time()

    async def received(self) -> list[Event]:
        self._protocol.receive_data(await self.stream.receive_some())
        return list(self._protocol.events())


@pytest.fixture
async def pair() -> AsyncIterator[tuple[ClientConnection, Peer]]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        peer = Peer(await listener.accept())
    async with stream, peer.stream, trio.open_nursery() as nursery:
        heartbeat = Heartbeat(lambda begin, end: None)
        heartbeat.last = LAST_RAN
        connection = ClientConnection(stream, "v", heartbeat, log_sends=False)
        nursery.start_soon(peer.accept)
        await connection.open("localhost", "/")
        yield connection, peer


async def until_stamped(connection: ClientConnection, peer: Peer) -> None:
    for _ in range(STAMPS_TRIES_MAX):
        await peer.send(TextMessage('{"type": "first"}'))
        await connection.receive()
        if connection.arrival.earliest != LAST_RAN:
            return
    raise AssertionError("the kernel stamps nothing")


@stamped
async def test_a_client_that_reads_late_knows_when_an_event_arrived(pair: tuple[ClientConnection, Peer]) -> None:
    connection, peer = pair
    await until_stamped(connection, peer)
    before = time.time()
    sent = await peer.send(TextMessage('{"type": "conversation.item.done"}'))

    await connection.receive()

    assert before <= connection.arrival.earliest == connection.arrival.latest <= sent


@stamped
async def test_a_close_frame_has_its_own_time_of_arrival(pair: tuple[ClientConnection, Peer]) -> None:
    connection, peer = pair
    await until_stamped(connection, peer)
    before = time.time()
    sent = await peer.send(CloseConnection(code=1012))

    with pytest.raises(Gone) as gone:
        await connection.receive()

    assert gone.value.code == 1012
    assert before <= gone.value.arrival.earliest == gone.value.arrival.latest <= sent


async def test_an_end_without_a_stamp_came_after_the_process_last_ran(pair: tuple[ClientConnection, Peer]) -> None:
    connection, peer = pair
    await peer.stream.aclose()

    with pytest.raises(Gone) as gone:
        await connection.receive()

    assert gone.value.arrival.earliest == LAST_RAN
    assert gone.value.arrival.latest == pytest.approx(time.time(), abs=60)


async def test_a_ping_that_crosses_the_clients_close_is_not_answered(pair: tuple[ClientConnection, Peer]) -> None:
    connection, peer = pair
    await peer.send(Ping(b"crossing"))
    await peer.stream.send_all(b"\x88\x02\x03\xe8")  # the answer to its close frame, which it is about to send

    with pytest.raises(Gone) as gone, trio.fail_after(10):
        await connection.leave("close")

    assert gone.value.code == 1000
    assert [type(event) for event in await peer.received()] == [CloseConnection]

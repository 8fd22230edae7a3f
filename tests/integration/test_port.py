"""The port is taken before anything is started, and nobody gets in before there is somebody to answer."""

from __future__ import annotations

import errno
import socket
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
import trio
from lastcall.store.postgres import PostgresStore
from lastcall.transport.direct import ACCEPTS_PER_STEP, DirectListener, DirectStream, accept_all
from lastcall.transport.port import CannotListen, open_port

from ..support.servers import open_server

LOOPBACK = "127.0.0.1"


async def test_clients_are_refused_at_once_until_it_listens() -> None:
    async with open_port(LOOPBACK, 0) as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, port.number), timeout=5)
        (listener,) = port.listen()
        with socket.create_connection((LOOPBACK, port.number), timeout=5):
            with trio.fail_after(5):
                await trio.aclose_forcefully(await listener.accept())


async def test_of_two_that_start_at_once_the_second_is_told_right_away() -> None:
    """Though neither listens yet: both with SO_REUSEADDR, both would have the port, and one of them fail much later."""
    async with open_port(LOOPBACK, 0) as port:
        with pytest.raises(CannotListen, match=r"Address already in use \(choose another --host or --port\)") as raised:
            async with open_port(LOOPBACK, port.number):
                pytest.fail("both have the port")
    assert "\n" not in str(raised.value)


async def test_a_port_of_connections_that_are_not_quite_gone_can_be_taken() -> None:
    """As after a restart; and still nobody else can take it meanwhile."""
    async with open_port(LOOPBACK, 0) as port:
        number = port.number
        (listener,) = port.listen()
        client = await trio.open_tcp_stream(LOOPBACK, number)
        accepted = await listener.accept()
        await accepted.aclose()  # first, so that its side stays in TIME_WAIT
        await client.aclose()
    async with open_port(LOOPBACK, number) as again:
        with pytest.raises(CannotListen):
            async with open_port(LOOPBACK, number):
                pytest.fail("both have the port")
        assert again.listen()


async def test_a_host_with_several_addresses_gets_a_socket_for_each() -> None:
    async with open_port("localhost", 0) as port:
        hosts = {listener.socket.getsockname()[0] for listener in port.listen()}
    assert hosts
    assert hosts <= {LOOPBACK, "::1"}


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.1"])
async def test_an_address_that_is_not_ours_is_told_in_one_line(host: str) -> None:
    with pytest.raises(CannotListen, match="cannot listen on") as raised:
        async with open_port(host, 0):
            pytest.fail("it was bound")
    assert "\n" not in str(raised.value)


async def test_connections_know_their_peer_and_send_at_once_and_little_ahead() -> None:
    async with open_port(LOOPBACK, 0) as port:
        (listener,) = port.listen()
        with socket.create_connection((LOOPBACK, port.number)):
            accepted = await listener.accept()
            assert accepted.address == LOOPBACK
            own: socket.socket = accepted.socket  # type: ignore[attr-defined]
            assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 16_384
            await accepted.aclose()


async def test_other_tasks_run_while_many_connect() -> None:
    accepted: list[DirectStream] = []
    turns: list[int] = []

    async def take_turns() -> None:
        while True:
            turns.append(len(accepted))
            await trio.lowlevel.checkpoint()

    async with open_port(LOOPBACK, 0) as port, trio.open_nursery() as nursery:
        (listener,) = port.listen()
        clients = [socket.create_connection((LOOPBACK, port.number)) for _ in range(5 * ACCEPTS_PER_STEP)]
        nursery.start_soon(take_turns)
        nursery.start_soon(accept_all, listener, accepted.append)
        with trio.fail_after(5):
            while len(accepted) < len(clients):
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
        for each in (*clients, *(stream.socket for stream in accepted)):  # type: ignore[attr-defined]
            each.close()
    # Trio runs the tasks of a pass in any order, so that two steps may lie between two turns.
    assert max(after - before for before, after in pairwise(turns)) <= 2 * ACCEPTS_PER_STEP


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOBUFS, errno.ECONNABORTED])
async def test_accepting_goes_on_after_what_passes(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError(number, "it passes")]
    accept = socket.socket.accept

    def fail_once(listening: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", fail_once)
    streams = trio.open_memory_channel[DirectStream](1)
    async with open_port(LOOPBACK, 0) as port, trio.open_nursery() as nursery:
        (listener,) = port.listen()
        nursery.start_soon(accept_all, listener, streams[0].send_nowait)
        with socket.create_connection((LOOPBACK, port.number)), trio.fail_after(5):
            (await streams[1].receive()).close()
        assert not failures
        nursery.cancel_scope.cancel()


async def test_what_does_not_pass_is_not_ignored() -> None:
    async with open_port(LOOPBACK, 0) as port:
        (listener,) = port.listen()
        assert isinstance(listener, DirectListener)
        listener.socket.shutdown(socket.SHUT_RD)
        with trio.fail_after(5), pytest.raises(OSError, match="Invalid argument"):
            await accept_all(listener, lambda _: None)


async def accepted_until_cancelled(listener: DirectListener) -> list[DirectStream]:
    """What a listener accepts that is told to stop before it has begun."""
    accepted: list[DirectStream] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await accept_all(listener, accepted.append)
    return accepted


async def test_who_is_connected_when_accepting_ends_is_accepted_still() -> None:
    """Closing the port would reset those who wait in its queue."""
    async with open_port(LOOPBACK, 0) as port:
        (listener,) = port.listen()
        clients = [socket.create_connection((LOOPBACK, port.number)) for _ in range(5 * ACCEPTS_PER_STEP)]
        accepted = await accepted_until_cancelled(listener)
        assert len(accepted) == len(clients)
        for stream in accepted:
            stream.close()
        for each in clients:
            each.close()


async def test_what_waits_at_a_port_of_several_processes_is_left_to_the_others() -> None:
    with socket.create_server((LOOPBACK, 0)) as ours:
        async with open_port(LOOPBACK, 0, [ours.dup()]) as port:
            (listener,) = port.listen()
            with socket.create_connection((LOOPBACK, port.number)) as client:
                assert await accepted_until_cancelled(listener) == []
                ours.accept()[0].close()  # by another one
                assert client.recv(1) == b""


async def test_requests_that_wait_when_a_shutdown_begins_are_answered(postgres_store: PostgresStore) -> None:
    async with open_server(postgres_store) as server:
        address = (LOOPBACK, urlsplit(server.url).port or 0)
        clients = [socket.create_connection(address) for _ in range(2 * ACCEPTS_PER_STEP)]
        for each in clients:
            each.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await server.stop()
        for each in clients:
            assert each.recv(100).startswith(b"HTTP/1.1 200")
            each.close()

"""The port is taken before anything is started, and nobody gets in before there is somebody to answer."""

from __future__ import annotations

import socket

import pytest
import trio
from lastcall.transport.port import CannotListen, open_port

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

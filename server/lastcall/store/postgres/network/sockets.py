"""What asyncio's own connecting lacks: a bound on looking up names, a choice of the address, keepalive, cheap reads.

asyncpg connects with `loop.create_connection`, which looks names up with `loop.getaddrinfo`, or with
`loop.create_unix_connection`; all three are replaced.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio
import trio_asyncio

from ...address import TcpOptions

READ_BYTES_MAX = 65_536  # at once; for asyncio's 256 KiB each read maps and unmaps memory, dearer than all else it does
LOOKUPS_MAX = 4  # threads that look up names; one whose caller has gone stays until the resolver gives up


@dataclass(frozen=True, slots=True)
class Route:
    """How to connect: to `at` wherever `name` is asked for, with these options."""

    name: str
    at: str
    tcp: TcpOptions


_route: ContextVar[Route | None] = ContextVar("route", default=None)


@contextmanager
def along(route: Route) -> Iterator[None]:
    """Connections that are opened within the block go this way."""
    token = _route.set(route)
    try:
        yield
    finally:
        _route.reset(token)


def set_up_sockets(loop: trio_asyncio.BaseTrioEventLoop) -> None:
    """Replaces three methods of the loop. asyncpg has no parameter for any of this."""
    connect, connect_unix = loop.create_connection, loop.create_unix_connection
    lookups = trio.CapacityLimiter(LOOKUPS_MAX)

    async def create_connection(*args: Any, **kwargs: Any) -> Any:
        transport, protocol = await connect(*args, **kwargs)
        transport.max_size = READ_BYTES_MAX
        route = _route.get()
        if route is not None:
            keep_alive(transport.get_extra_info("socket"), route.tcp)
        return transport, protocol

    async def create_unix_connection(*args: Any, **kwargs: Any) -> Any:
        transport, protocol = await connect_unix(*args, **kwargs)
        transport.max_size = READ_BYTES_MAX
        return transport, protocol

    async def getaddrinfo(host: Any, port: Any, **kwargs: Any) -> Any:
        route = _route.get()
        name = route.at if route is not None and route.name == host else host
        look_up = partial(socket.getaddrinfo, name, port, **kwargs)
        # asyncio's own waits for its thread, however long the resolver takes.
        in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True, limiter=lookups)
        return await trio_asyncio.trio_as_aio(in_thread)(look_up)

    loop.create_connection, loop.create_unix_connection = create_connection, create_unix_connection
    loop.getaddrinfo = getaddrinfo


async def addresses_of(name: str, port: int) -> list[str]:
    """The addresses of a host, in the resolver's order. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def keep_alive(connected: socket.socket, options: TcpOptions) -> None:
    """Has the kernel end a connection whose other side has vanished. Options that a system lacks are left out."""
    if options.keepalive:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", options.idle_seconds),
            ("TCP_KEEPALIVE", options.idle_seconds),  # the same, on macOS
            ("TCP_KEEPINTVL", options.interval_seconds),
            ("TCP_KEEPCNT", options.count),
        ):
            _set_tcp_option(connected, name, value)
    _set_tcp_option(connected, "TCP_USER_TIMEOUT", options.unacknowledged_milliseconds)


def _set_tcp_option(connected: socket.socket, name: str, value: int) -> None:
    if hasattr(socket, name):
        connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

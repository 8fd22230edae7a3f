"""Faults that wait for the right moment: chance alone would bring such a case once in thousands of worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from .fakes.clock import until
from .fakes.link import LOOK_AT_OTHERS, Lag

if TYPE_CHECKING:
    from .clients import Clients
    from .server import Server
    from .world import World

ARRIVAL_SECONDS = 3.0  # to wait for a client
HISTORY_SECONDS = 0.05  # of the query before a session's row is written; the bulk close takes a little longer
BULK_LAG_SECONDS = 0.1
COMEBACK_SECONDS = 6.0  # for the others to take a frozen server for dead
REAP_SECONDS = 0.3  # from their last look to the statement that closes its rows
SERVING_SECONDS = 3.0  # to wait for a server that has a session, and others beside it
SERVING_LOOK_SECONDS = 0.05
REAPERS_SECONDS = 1.5  # in which every reaper makes a pass
UNSEEN_SECONDS = 6.0  # for the others to close a dead server's rows, before its successor does
WRITES = ("begin_session", "append_items", "append_items")  # that trouble may catch half way
WRITE_SECONDS = 0.1  # of such a write; shorter than any trouble
WRITING_SECONDS = 1.5  # to wait for a write
STANDSTILL_SECONDS = 3.6
FINALIZING_SECONDS = 2.0  # to wait for a server that stores a memory
FINISH_SECONDS = 0.1  # that this takes then
WAKING_SECONDS = 0.8  # between one server and the next; enough for two passes of a reaper
STATES = frozenset({
    "begun behind the bulk close",
    "closed by hand without a lease connection",
    "came back while being reaped",
    "died after an error of the others' reapers",
    "spoke past a ping",
    "stood still together",
    "was overtaken at a session's memory",
})  # fmt: skip


async def arrive_at_shutdown(server: Server) -> None:
    """Sends two SIGTERMs while a session loads its conversation: its row arrives behind the bulk close."""
    history = Lag("load_history", HISTORY_SECONDS, trio.Event())
    _arm([server], history)
    with trio.move_on_after(ARRIVAL_SECONDS):
        await history.began.wait()
    bulk = Lag("close_instance_sessions", BULK_LAG_SECONDS, trio.Event())
    _arm([server], bulk)
    server.terminate()
    server.terminate()
    await trio.sleep(2 * BULK_LAG_SECONDS)
    _disarm([server], bulk)


async def wait_for_write(name: str, servers: Sequence[Server]) -> None:
    """Returns when such a write is on its way to the database, or none came in time."""
    lag = Lag(name, WRITE_SECONDS, trio.Event())
    _arm(servers, lag)
    with trio.move_on_after(WRITING_SECONDS):
        await lag.began.wait()
    _disarm(servers, lag)


async def server_among_others(world: World, clients: Clients) -> Server | None:
    """Waits for a server that has a session, and others that can take it for dead. None if there is none in time."""

    def serving() -> list[Server]:
        sound = [server for server in world.servers if server.accepting and server.healthy]
        return [server for server in sound if serves(server, clients)] if len(sound) > 1 else []

    found = await until(lambda: bool(serving()), SERVING_SECONDS, SERVING_LOOK_SECONDS)
    return world.random.choice(serving()) if found else None


def serves(server: Server, clients: Clients) -> bool:
    return any(visit.server is server and visit.served for visit in clients.visits)


async def server_finalizing(world: World) -> Server | None:
    """Waits for a server that is about to store a session's memory, beside another one that may do the same work once
    the claim has expired. None if there is none in time."""
    lags = {server: Lag("finish_memory", FINISH_SECONDS, trio.Event()) for server in world.servers if server.accepting}
    if len(lags) < 2:
        return None
    for server, lag in lags.items():
        _arm([server], lag)
    await until(lambda: any(lag.began.is_set() for lag in lags.values()), FINALIZING_SECONDS, FINISH_SECONDS / 5)
    for server, lag in lags.items():
        _disarm([server], lag)
    return next((server for server, lag in lags.items() if lag.began.is_set()), None)


async def crash_after_reapers_failed(world: World, clients: Clients, server: Server) -> None:
    """Crashes a server with a session after the reapers of all others met an error, and have to look again."""
    others = _others(world, server)
    lags = [Lag(LOOK_AT_OTHERS, 0.0, trio.Event(), fails=True) for _ in others]
    for other, lag in zip(others, lags, strict=True):
        _arm([other], lag)
    with trio.move_on_after(REAPERS_SECONDS):
        for lag in lags:
            await lag.began.wait()
        world.count("state", "died after an error of the others' reapers")
    for other, lag in zip(others, lags, strict=True):
        _disarm([other], lag)
    await until(lambda: serves(server, clients), SERVING_SECONDS, SERVING_LOOK_SECONDS)
    server.crash()


async def come_back_while_reaped(world: World, server: Server) -> None:
    """Freezes a server, and wakes it just when another one has found it dead and is about to close its rows."""
    others = _others(world, server)
    lag = Lag("reap", REAP_SECONDS, trio.Event())
    _arm(others, lag)
    server.freeze()
    with trio.move_on_after(COMEBACK_SECONDS):
        await lag.began.wait()
        world.count("state", "came back while being reaped")
    server.thaw()
    await trio.sleep(REAP_SECONDS)
    _disarm(others, lag)


async def stand_still_together(world: World, last: Server) -> None:
    """Freezes all servers for longer than their leases, as paused virtual machines are; `last` wakes last."""
    still = [*_others(world, last), last]
    world.count("state", "stood still together")
    for server in still:
        server.freeze()
    await trio.sleep(STANDSTILL_SECONDS)
    for server in still:
        server.thaw()
        await trio.sleep(WAKING_SECONDS)


def _others(world: World, server: Server) -> list[Server]:
    """The servers that may take it for dead."""
    return [other for other in world.servers if other is not server and other.accepting]


def _arm(servers: Sequence[Server], lag: Lag) -> None:
    for server in servers:
        server.link.lag = lag


def _disarm(servers: Sequence[Server], lag: Lag) -> None:
    """Leaves alone what another timed fault has armed meanwhile."""
    for server in servers:
        if server.link.lag is lag:
            server.link.lag = None

"""Faults that wait for their moment: what chance alone brings together once in thousands of worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from .clock import until
from .database import Lag

if TYPE_CHECKING:
    from .clients import Crowd
    from .world import Server, World

ARRIVAL_SECONDS = 3.0  # for somebody to come
RECALL_SECONDS = 0.05  # what is asked before a row is begun takes so long then, and the bulk close a little longer
BULK_LAG_SECONDS = 0.1
COMEBACK_SECONDS = 6.0  # for the others to take a frozen server for dead
REAP_SECONDS = 0.3  # from their last look to the statement that closes its rows
CROWDED_SECONDS = 3.0  # for somebody to be served where there are others to take a server for dead
CROWDED_LOOK_SECONDS = 0.05
REAPERS_SECONDS = 1.5  # in which every reaper looks
UNSEEN_SECONDS = 6.0  # for the others to close a dead server's rows, before its successor does
WRITES = ("begin_session", "append_items", "append_items")  # that a trouble may meet half way
WRITE_SECONDS = 0.1  # what one takes then; less than any trouble lasts
WRITING_SECONDS = 1.5  # for somebody to write
STANDSTILL_SECONDS = 3.6
REMEMBERING_SECONDS = 2.0  # for somebody to have work on a memory
FINISH_SECONDS = 0.1  # what it takes then to store it
WAKING_SECONDS = 0.8  # between one and the next; enough to look twice
STATES = frozenset({
    "begun behind the bulk close",
    "closed by hand without a guard",
    "came back while being reaped",
    "died after an error of the others' reapers",
    "spoke past a ping",
    "stood still together",
    "was overtaken at a session's memory",
})  # fmt: skip


async def arrival_at_a_shutdown(server: Server) -> None:
    """Two SIGTERMs while somebody's session is about to begin: its row lands behind the bulk close."""
    recall = Lag("recall", RECALL_SECONDS, trio.Event())
    _arm([server], recall)
    with trio.move_on_after(ARRIVAL_SECONDS):
        await recall.began.wait()
    bulk = Lag("close_instance_sessions", BULK_LAG_SECONDS, trio.Event())
    _arm([server], bulk)
    server.terminate()
    server.terminate()
    await trio.sleep(2 * BULK_LAG_SECONDS)
    _disarm([server], bulk)


async def somebody_writes(name: str, servers: Sequence[Server]) -> None:
    """Returns when such a write is on its way to the database; or there is none."""
    lag = Lag(name, WRITE_SECONDS, trio.Event())
    _arm(servers, lag)
    with trio.move_on_after(WRITING_SECONDS):
        await lag.began.wait()
    _disarm(servers, lag)


async def one_among_others(world: World, crowd: Crowd) -> Server | None:
    """A server with a session that others can take for dead, as soon as there is one."""

    def serving() -> list[Server]:
        sound = [server for server in world.servers if server.accepting and server.healthy]
        return [server for server in sound if serves(server, crowd)] if len(sound) > 1 else []

    found = await until(lambda: bool(serving()), CROWDED_SECONDS, CROWDED_LOOK_SECONDS)
    return world.random.choice(serving()) if found else None


def serves(server: Server, crowd: Crowd) -> bool:
    return any(visit.server is server and visit.served for visit in crowd.visits)


async def one_that_remembers(world: World) -> Server | None:
    """A server whose work on a session's memory is on its way to the database, as soon as there is one; only where
    another one may do the same work when the claim has run out."""
    lags = {server: Lag("finish_memory", FINISH_SECONDS, trio.Event()) for server in world.servers if server.accepting}
    if len(lags) < 2:
        return None
    for server, lag in lags.items():
        _arm([server], lag)
    await until(lambda: any(lag.began.is_set() for lag in lags.values()), REMEMBERING_SECONDS, FINISH_SECONDS / 5)
    for server, lag in lags.items():
        _disarm([server], lag)
    return next((server for server, lag in lags.items() if lag.began.is_set()), None)


async def crash_unseen(world: World, crowd: Crowd, server: Server) -> None:
    """A server with a session crashes when everybody else's reaper has met an error, and has to look again."""
    judges = _judges(world, server)
    lags = [Lag("suspects", 0.0, trio.Event(), fails=True) for _ in judges]
    for judge, lag in zip(judges, lags, strict=True):
        _arm([judge], lag)
    with trio.move_on_after(REAPERS_SECONDS):
        for lag in lags:
            await lag.began.wait()
        world.count("state", "died after an error of the others' reapers")
    for judge, lag in zip(judges, lags, strict=True):
        _disarm([judge], lag)
    await until(lambda: serves(server, crowd), CROWDED_SECONDS, CROWDED_LOOK_SECONDS)
    server.crash()


async def comeback(world: World, server: Server) -> None:
    """A frozen server wakes just when another one, which has seen that it is dead, is about to close its rows."""
    judges = _judges(world, server)
    lag = Lag("reap", REAP_SECONDS, trio.Event())
    _arm(judges, lag)
    server.freeze()
    with trio.move_on_after(COMEBACK_SECONDS):
        await lag.began.wait()
        world.count("state", "came back while being reaped")
    server.thaw()
    await trio.sleep(REAP_SECONDS)
    _disarm(judges, lag)


async def standstill(world: World, last: Server) -> None:
    """All servers stand still, as paused virtual machines do, for longer than their leases; one wakes last."""
    still = [*_judges(world, last), last]
    world.count("state", "stood still together")
    for server in still:
        server.freeze()
    await trio.sleep(STANDSTILL_SECONDS)
    for server in still:
        server.thaw()
        await trio.sleep(WAKING_SECONDS)


def _judges(world: World, server: Server) -> list[Server]:
    """Who may take a server for dead."""
    return [other for other in world.servers if other is not server and other.accepting]


def _arm(servers: Sequence[Server], lag: Lag) -> None:
    for server in servers:
        server.link.lag = lag


def _disarm(servers: Sequence[Server], lag: Lag) -> None:
    """Leaves alone what another moment has begun meanwhile."""
    for server in servers:
        if server.link.lag is lag:
            server.link.lag = None

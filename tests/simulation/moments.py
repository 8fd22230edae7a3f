"""Faults that wait for their moment: what chance alone brings together once in thousands of worlds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .database import Lag, Trouble
from .seeding import until

if TYPE_CHECKING:
    from .people import Crowd
    from .world import Server, World

LOOK_SECONDS = 0.01
ARRIVAL_SECONDS = 3.0  # for somebody to come
STATEMENT_SECONDS = 0.8  # what each takes then; less than a session's begin may
COMEBACK_SECONDS = 6.0  # for the others to take a frozen server for dead
REAP_SECONDS = 0.3  # from their last look to the statement that closes its rows
STATES = frozenset({
    "begun behind the bulk close",
    "closed by hand without a guard",
    "came back while being reaped",
    "spoke past a ping",
})  # fmt: skip


async def arrival_at_a_shutdown(server: Server, crowd: Crowd) -> None:
    """SIGTERM while somebody's session is about to begin: its row may land behind the bulk close."""

    def arriving() -> bool:
        return any(
            visit.server is server and visit.status == 101 and visit.session_id is None and not visit.over
            for visit in crowd.visits
        )

    server.set_trouble(Trouble("slow", seconds=STATEMENT_SECONDS, share=1.0))
    if await until(arriving, ARRIVAL_SECONDS, LOOK_SECONDS):
        server.terminate()
        await until(lambda: server.link.closed_in_bulk, 2 * STATEMENT_SECONDS, LOOK_SECONDS)
        await trio.sleep(LOOK_SECONDS)
    server.set_trouble(None)
    server.terminate()


async def comeback(world: World, server: Server) -> None:
    """A frozen server wakes just when another one, which has seen that it is dead, is about to close its rows."""
    judges = [other for other in world.servers if other is not server and other.accepting]
    reaping = trio.Event()
    for judge in judges:
        judge.link.lag = Lag("reap", REAP_SECONDS, reaping)
    server.freeze()
    with trio.move_on_after(COMEBACK_SECONDS):
        await reaping.wait()
        world.count("state", "came back while being reaped")
    server.thaw()
    await trio.sleep(REAP_SECONDS)
    for judge in judges:
        judge.link.lag = None

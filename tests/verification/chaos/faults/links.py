"""Faults of the way between one server and the database."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..ledger import Cut
from ..places import LINKED, REMOTE
from ..plan import Step
from ..server import Server
from .chaos_run import ChaosRun, start, terminate


async def link_cut_briefly(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    return await _cut(run, run.placed(LINKED, REMOTE), step)


async def link_cut(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    return await _cut(run, run.placed(LINKED), step)


async def remote_link_cut(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    return await _cut(run, run.placed(REMOTE), step)


async def _cut(run: ChaosRun, server: Server, step: Step) -> str:
    """All connections are reset, or nothing moves any more."""
    how = run.random.choice(("reset", "stalled"))
    async with _struck(run, server, server.links, how, how):
        await trio.sleep(step.lasts)
    return str(server.life.process if server.life else 0)


async def first_host_hangs(run: ChaosRun, step: Step, lives: trio.Nursery) -> str:
    """The first host of a URL accepts and never answers. Every second time, a server is started meanwhile."""
    server = run.placed(LINKED)
    pid = str(server.life.process if server.life else 0)
    hangs = _struck(run, server, server.links[:1], run.random.choice(("hung", "stalled")), "hung")
    async with trio.open_nursery() as starting, hangs as hang:
        until = trio.current_time() + step.lasts
        if run.random.random() < 0.5:
            await terminate(run, server, signal.SIGTERM, step.fault)
            starting.start_soon(start, run, server, lives)  # it may take until the host answers again
        await trio.sleep_until(until)
    for life in run.ledger.lives:
        if life.port == server.port and hang.begin <= life.started <= hang.end:
            life.cuts.append(hang)
    return pid


@asynccontextmanager
async def _struck(run: ChaosRun, server: Server, links: list[str], state: str, how: str) -> AsyncIterator[Cut]:
    """Sets some links of a server to a state for the block, and notes that. how: for the ledger."""
    assert server.life is not None
    cut = Cut(time.time(), float("inf"), how)
    server.life.cuts.append(cut)
    try:
        for link in links:
            await run.links.set(link, state)
        yield cut
    finally:
        with trio.CancelScope(shield=True):  # bounded by `Links.set`
            for link in links:
                await run.links.set(link, "open")
        cut.end = time.time()

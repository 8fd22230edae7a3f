"""Faults of the database. It is healed when they return."""

from __future__ import annotations

import time

import trio

from ..ledger import Fault
from ..places import HERE, LINKED
from ..plan import Step
from .chaos_run import ChaosRun, kill, start
from .servers import another_offset


async def database_restarted(run: ChaosRun, _step: Step, _lives: trio.Nursery) -> str:
    await trio.to_thread.run_sync(run.database.restart)
    return "database"


async def database_killed(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    """Its postmaster alone, as when memory runs out. Somebody starts it again later."""
    await trio.to_thread.run_sync(run.database.kill)
    try:
        await trio.sleep(step.lasts)
    finally:
        with trio.CancelScope(shield=True):  # bounded by pg_ctl's own timeout
            await trio.to_thread.run_sync(run.database.revive)
    return "database"


async def database_frozen(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    run.database.freeze()
    try:
        await trio.sleep(step.lasts)
    finally:
        run.database.thaw()
    return "database"


async def database_read_only(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    """As a standby is, or a primary during a failover."""
    await trio.to_thread.run_sync(run.database.set_read_only, True)
    try:
        await trio.sleep(step.lasts)
    finally:
        with trio.CancelScope(shield=True):  # bounded by psql's own timeout
            await trio.to_thread.run_sync(run.database.set_read_only, False)
    return "database"


async def database_clock_set(run: ChaosRun, step: Step, lives: trio.Nursery) -> None:
    """Now and then a server is killed right before: what it stored last then lies ahead, or an hour behind."""
    clock, server = run.database.clock, run.placed(HERE, LINKED)
    assert clock is not None
    if run.random.random() < 0.5:
        await kill(server, step.fault)
    begin = time.time()
    clock.set(another_offset(run, clock.offset))
    run.ledger.faults.append(Fault(step.fault, "database", begin, time.time()))  # the start is no part of it
    await start(run, server, lives)

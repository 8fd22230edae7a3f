"""Faults of server processes."""

from __future__ import annotations

import signal
import time

import trio

from ..places import HERE, LINKED, REMOTE
from ..plan import CLOCK_STEP_SECONDS, Step
from .chaos_run import ChaosRun, kill, start, start_all, terminate

HARMLESS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
BETWEEN_SIGNALS_SECONDS = 0.05


async def server_terminated(run: ChaosRun, step: Step, lives: trio.Nursery) -> str:
    server = run.placed()
    pid = await terminate(run, server, signal.SIGTERM, step.fault)
    await start(run, server, lives)
    return pid


async def server_hung_up(run: ChaosRun, step: Step, lives: trio.Nursery) -> str:
    """As when a terminal is closed."""
    server = run.placed()
    pid = await terminate(run, server, signal.SIGHUP, step.fault)
    await start(run, server, lives)
    return pid


async def server_quit(run: ChaosRun, step: Step, lives: trio.Nursery) -> str:
    server = run.placed()
    pid = await terminate(run, server, signal.SIGQUIT, step.fault)
    await start(run, server, lives)
    return pid


async def server_signalled(run: ChaosRun, _step: Step, _lives: trio.Nursery) -> str:
    """As a tool does that means another program: nothing may happen."""
    server = run.placed(HERE, LINKED)  # the first process of a namespace would not get them
    for number in HARMLESS:
        server.send(number)
        await trio.sleep(BETWEEN_SIGNALS_SECONDS)
    return str(server.life.process if server.life else 0)


async def server_killed(run: ChaosRun, step: Step, lives: trio.Nursery) -> str:
    server = run.placed(HERE, LINKED)
    pid = await kill(server, step.fault)
    await start(run, server, lives)
    return pid


async def remote_killed(run: ChaosRun, step: Step, lives: trio.Nursery) -> str:
    server = run.placed(REMOTE)
    pid = await kill(server, step.fault)
    await start(run, server, lives)
    return pid


async def servers_killed(run: ChaosRun, step: Step, lives: trio.Nursery) -> str:
    for server in run.servers:
        await kill(server, step.fault)
    await start_all(run, lives)
    return "all"


async def server_frozen(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    server = run.placed(HERE)  # the others' leases are long
    assert server.life is not None
    life, begin = server.life, time.time()
    server.send(signal.SIGSTOP)
    life.frozen.append((begin, float("inf")))
    try:
        await trio.sleep(step.lasts)
    finally:
        server.send(signal.SIGCONT)
        life.frozen[-1] = (begin, time.time())
    return str(life.process)


async def server_clock_set(run: ChaosRun, step: Step, lives: trio.Nursery) -> str:
    """Its wall clock only; now and then it is killed right before."""
    (server, *_) = [server for server in run.servers if server.clock is not None]
    assert server.clock is not None
    pid = str(server.life.process if server.life else 0)
    if run.random.random() < 0.5:
        await kill(server, step.fault)
    server.clock.set(another_offset(run, server.clock.offset))
    await start(run, server, lives)
    return pid


async def log_unread(run: ChaosRun, step: Step, _lives: trio.Nursery) -> str:
    server = run.placed()
    with server.unread():
        await trio.sleep(step.lasts)
    return str(server.life.process if server.life else 0)


def another_offset(run: ChaosRun, offset: float) -> float:
    """Returns by how much a clock is wrong after it is set, forward or back."""
    return run.random.choice([each for each in (-CLOCK_STEP_SECONDS, 0.0, CLOCK_STEP_SECONDS) if each != offset])

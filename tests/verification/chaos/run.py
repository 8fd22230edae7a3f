"""One run: starts everything, causes the scheduled faults, samples the database, and heals."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial

import trio
from lastcall.store.errors import StoreError
from lastcall.store.operators.acts import Actor
from lastcall.store.webhooks.endpoints import retry_deliveries

from ..starvation import Family, Heartbeat, RunQueue
from .clients import Settings
from .faults import FAULT_ACTIONS
from .faults.chaos_run import ChaosRun, kill_clients, start_all, terminate
from .ledger import BACK_SECONDS, Fault
from .plan import LINK_FAULTS, SERVER_FAULTS, Step, lanes
from .process_pool import ProcessPool, open_process_pool
from .processes import ROOT, orphans_command
from .receiver import WELL
from .records import OrphanListing, remaining, sample

TARGET_PROCESSES = 3  # client processes that get killed and stopped
TARGET_CLIENTS = 8  # in each
ORPHAN_SECONDS = 5.0  # past the lease, a session that is still active stays so
ARRIVE_SECONDS = 20.0  # for the first clients, before any fault
LEAVE_SECONDS = 12.0  # for the clients to finish after the faults
BETWEEN_KILLS_SECONDS = 0.5  # so that only one process's clients vanish at a time
LISTING_SECONDS = 15.0  # between two runs of `lastcall orphans`
LISTING_TAKES_SECONDS_MAX = 30.0
RETRY_SECONDS = 10.0  # between two calls of `lastcall webhooks retry`, once the receiver is well
OPERATOR = Actor("chaos", "command")


async def cause_chaos(run: ChaosRun, progress: Callable[[str], None]) -> None:
    """Runs from the first server's start to the last one's exit. The faults themselves raise nothing here."""
    async with trio.open_nursery() as measuring:
        _measure_starvation(run, measuring)
        await _run(run, progress)
        measuring.cancel_scope.cancel()


def _measure_starvation(run: ChaosRun, measuring: trio.Nursery) -> None:
    starvation, database = run.ledger.starvation, Family()

    def processes() -> dict[int, str]:
        servers = {life.process: f"server:{life.process}" for life in run.ledger.lives if life.died is None}
        return {run.links.pid: "link", **servers, **dict.fromkeys(database.of(run.database.postmaster()), "database")}

    measuring.start_soon(Heartbeat(partial(starvation.record, "runner")).run)
    measuring.start_soon(RunQueue(starvation, processes).run)


async def _run(run: ChaosRun, progress: Callable[[str], None]) -> None:
    async with trio.open_nursery() as lives:
        progress("starting")
        await start_all(run, lives)
        async with trio.open_nursery() as watching:
            watching.start_soon(_sample, run)
            watching.start_soon(_list_orphans, run)
            await _disturb(run, progress, lives)
            progress("settling")
            async with trio.open_nursery() as retrying:
                retrying.start_soon(_retry_webhooks, run)
                await _settle(run)
                retrying.cancel_scope.cancel()
            watching.cancel_scope.cancel()
        progress("draining")
        for server in run.servers:
            await terminate(run, server, signal.SIGTERM, "the end of the run")
        await run.receiver.set(WELL)


async def _disturb(run: ChaosRun, progress: Callable[[str], None], lives: trio.Nursery) -> None:
    """Runs the clients and, beside them, the faults."""
    async with open_process_pool(run.ledger, run.logs) as pool, trio.open_nursery() as clients:
        clients.start_soon(partial(_run_clients, run, pool, run.clients, targets=False))
        for _ in range(TARGET_PROCESSES):
            clients.start_soon(_run_targets, run, pool)
        await _first_sessions(run)
        progress("running")
        async with trio.open_nursery() as faults:
            stop = trio.current_time() + run.pace.seconds
            for steps in lanes(run.seed, run.only, run.pace).values():
                faults.start_soon(_lane, run, steps, stop, lives)
            await trio.sleep_until(stop)
        progress("healing")
        await start_all(run, lives)
        await _stop_clients(run)


async def _first_sessions(run: ChaosRun) -> None:
    """Waits until most clients are there, or for a while: a fault that strikes nobody shows nothing."""
    with trio.move_on_after(ARRIVE_SECONDS):
        while True:
            if sum(visit.is_open for visit in run.ledger.visits.values()) >= run.clients / 2:
                return
            await trio.sleep(run.pace.sample)


# --- clients


async def _stop_clients(run: ChaosRun) -> None:
    """Lets the regular clients finish their visits, and kills those that do not."""
    run.stopping = True
    for regular in run.regular.values():
        regular.send(signal.SIGTERM)
    for target in list(run.targets.values()):
        if target.number not in run.ledger.clients_ended:  # a stopped one is killed later, in any case
            await kill_clients(run, target)
            await trio.sleep(BETWEEN_KILLS_SECONDS)
    with trio.move_on_after(LEAVE_SECONDS):
        await run.all_left.wait()
    for regular in list(run.regular.values()):
        await kill_clients(run, regular)


async def _run_clients(run: ChaosRun, pool: ProcessPool, clients: int, *, targets: bool) -> None:
    ports = [server.port for server in run.servers]
    number = next(run.numbers)
    process = await pool.start(
        Settings(run.seed, number, ports, clients, list(run.only), patient=targets, log_sends=targets)
    )
    group = run.targets if targets else run.regular
    group[number] = process
    if run.stopping:  # it started after the others were stopped
        await kill_clients(run, process)
    await process.over.wait()
    del group[number]
    if not run.regular:
        run.all_left.set()


async def _run_targets(run: ChaosRun, pool: ProcessPool) -> None:
    """Runs a process of clients for faults to strike, and the next one when that is gone."""
    while not run.stopping:
        await _run_clients(run, pool, TARGET_CLIENTS, targets=True)


# --- faults


async def _lane(run: ChaosRun, steps: Iterator[Step], stop: float, lives: trio.Nursery) -> None:
    for step in steps:
        if trio.current_time() + step.after + step.lasts > stop:
            return
        await trio.sleep(step.after)
        await _cause(run, step, lives)


async def _cause(run: ChaosRun, step: Step, lives: trio.Nursery) -> None:
    """One fault, healed before this returns."""
    async with run.one_at_a_time if step.alone else nullcontext():
        if step.fault in SERVER_FAULTS + LINK_FAULTS:
            await start_all(run, lives)  # one may have exited by itself; the audit reports it
        begin = time.time()
        target = await FAULT_ACTIONS[step.fault](run, step, lives)
        end = time.time()
        if step.alone:
            await trio.sleep(BACK_SECONDS)
    if target is not None:
        run.ledger.faults.append(Fault(step.fault, target, begin, end))


# --- watching


async def _sample(run: ChaosRun) -> None:
    while True:
        with suppress(StoreError):
            run.samples.append(await sample(run.store, run.clock))
        await trio.sleep(run.pace.sample)


async def _list_orphans(run: ChaosRun) -> None:
    """Asks as an operator would. A command that fails, as it may while the database is away, proves nothing."""
    command = orphans_command(run.database.url)
    while True:
        await trio.sleep(LISTING_SECONDS)
        began = time.time()
        with trio.move_on_after(LISTING_TAKES_SECONDS_MAX):
            answer = await trio.run_process(command, cwd=ROOT, check=False, capture_stdout=True, capture_stderr=True)
            with suppress(ValueError):
                found = json.loads(answer.stdout)
                run.listings.append(
                    OrphanListing(began, time.time(), [each["session_id"] for each in found["orphans"]])
                )


async def _retry_webhooks(run: ChaosRun) -> None:
    """As an operator whose receiver is back: nobody waits for what is to be tried again in hours."""
    while True:
        with suppress(StoreError):
            await retry_deliveries(run.store, OPERATOR)
        await trio.sleep(RETRY_SECONDS)


async def _settle(run: ChaosRun) -> None:
    """Waits until no session is active, no memory pending and no event unsent, or until their time is up."""
    orphaned = trio.current_time() + run.pace.lease + ORPHAN_SECONDS
    with trio.move_on_after(run.pace.settle):
        while True:
            with suppress(StoreError):
                left = await remaining(run.store)
                if not left.pending + left.unsent and (not left.active or trio.current_time() > orphaned):
                    return
            await trio.sleep(run.pace.sample)


def free_ports(count: int) -> list[int]:
    """Returns different free ports of the loopback interface."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports

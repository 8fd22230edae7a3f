"""The run: starts everything, does the faults of the schedule, keeps the ledger, samples the database, heals."""

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

from .clients import Settings
from .faults import DEEDS, Run, kill_people, start_all, terminate
from .ledger import Fault
from .plan import SERVER_FAULTS, Step, lanes
from .process_pool import House, open_house
from .processes import ROOT, orphans_command
from .records import Look, remaining, sample
from .truth import BACK_SECONDS

EXTRA_PROCESSES = 3  # of clients that are killed and stopped
EXTRA_CLIENTS = 8  # in each
ORPHAN_SECONDS = 5.0  # past the lease, what is still active stays so
LEAVE_SECONDS = 12.0  # for the clients to come to an end after the faults
APART_SECONDS = 0.5  # between two such processes that are sent home: one crowd vanishes at a time
LOOK_SECONDS = 15.0  # between two runs of `lastcall orphans`
LOOK_TAKES_SECONDS_MAX = 30.0


async def conduct(run: Run, progress: Callable[[str], None]) -> None:
    """From the first server to the last. Raises nothing of the faults' making."""
    async with trio.open_nursery() as lives:
        progress("starting")
        await start_all(run, lives)
        async with trio.open_nursery() as watching:
            watching.start_soon(_sample, run)
            watching.start_soon(_look, run)
            await _trouble(run, progress, lives)
            progress("settling")
            await _settle(run)
            watching.cancel_scope.cancel()
        progress("draining")
        for server in run.servers:
            await terminate(run, server)


async def _trouble(run: Run, progress: Callable[[str], None], lives: trio.Nursery) -> None:
    """The faults, with the clients that suffer them."""
    async with open_house(run.ledger, run.logs) as house, trio.open_nursery() as clients:
        clients.start_soon(partial(_people, run, house, run.clients, extra=False))
        for _ in range(EXTRA_PROCESSES):
            clients.start_soon(_extras, run, house)
        progress("running")
        async with trio.open_nursery() as faults:
            stop = trio.current_time() + run.pace.seconds
            for steps in lanes(run.seed, run.only, run.pace).values():
                faults.start_soon(_lane, run, steps, stop, lives)
            await trio.sleep_until(stop)
        progress("healing")
        await start_all(run, lives)
        await _send_home(run)


# --- clients


async def _send_home(run: Run) -> None:
    """Lets the crowd come to the end of its visits, and ends those who cannot."""
    run.leaving = True
    for crowd in run.crowd.values():
        crowd.send(signal.SIGTERM)
    for people in list(run.extras.values()):
        if people.number not in run.ledger.people_ended:  # those that are stopped are killed in their time
            await kill_people(run, people)
            await trio.sleep(APART_SECONDS)
    with trio.move_on_after(LEAVE_SECONDS):
        await run.all_left.wait()
    for crowd in list(run.crowd.values()):
        await kill_people(run, crowd)


async def _people(run: Run, house: House, clients: int, *, extra: bool) -> None:
    ports = [server.port for server in run.servers]
    number = next(run.numbers)
    people = await house.move_in(
        Settings(run.seed, number, ports, clients, list(run.only), patient=extra, log_sends=extra)
    )
    group = run.extras if extra else run.crowd
    group[number] = people
    if run.leaving:  # it came after the others were sent home
        await kill_people(run, people)
    await people.over.wait()
    del group[number]
    if not run.crowd:
        run.all_left.set()


async def _extras(run: Run, house: House) -> None:
    """Clients in a process of their own, and others when those are gone."""
    while not run.leaving:
        await _people(run, house, EXTRA_CLIENTS, extra=True)


# --- faults


async def _lane(run: Run, steps: Iterator[Step], stop: float, lives: trio.Nursery) -> None:
    for step in steps:
        if trio.current_time() + step.after + step.lasts > stop:
            return
        await trio.sleep(step.after)
        await _do(run, step, lives)


async def _do(run: Run, step: Step, lives: trio.Nursery) -> None:
    """One fault, healed before this returns."""
    async with run.one_at_a_time if step.alone else nullcontext():
        if step.fault in SERVER_FAULTS:
            await start_all(run, lives)  # one may have ended by itself: the audit reports it
        begin = time.time()
        target = await DEEDS[step.fault](run, step, lives)
        end = time.time()
        if step.alone:
            await trio.sleep(BACK_SECONDS)
    if target is not None:
        run.ledger.faults.append(Fault(step.fault, target, begin, end))


# --- watching


async def _sample(run: Run) -> None:
    while True:
        with suppress(StoreError):
            run.samples.append(await sample(run.store))
        await trio.sleep(run.pace.sample)


async def _look(run: Run) -> None:
    """Asks as an operator would. A command that fails, as it may while the database is away, claims nothing."""
    command = orphans_command(run.database.url)
    while True:
        await trio.sleep(LOOK_SECONDS)
        began = time.time()
        with trio.move_on_after(LOOK_TAKES_SECONDS_MAX):
            answer = await trio.run_process(command, cwd=ROOT, check=False, capture_stdout=True, capture_stderr=True)
            with suppress(ValueError):
                found = json.loads(answer.stdout)
                run.looks.append(Look(began, time.time(), [each["session_id"] for each in found["orphans"]]))


async def _settle(run: Run) -> None:
    """Waits until nothing is active and no memory pending, or as long as each may take."""
    orphaned = trio.current_time() + run.pace.lease + ORPHAN_SECONDS
    with trio.move_on_after(run.pace.settle):
        while True:
            with suppress(StoreError):
                active, pending = await remaining(run.store)
                if not pending and (not active or trio.current_time() > orphaned):
                    return
            await trio.sleep(run.pace.sample)


def free_ports(count: int) -> list[int]:
    """Free ports of the loopback, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports

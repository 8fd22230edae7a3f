"""Faults of client processes."""

from __future__ import annotations

import signal
import time

import trio

from ..ledger import ClientsEnd
from ..plan import Step
from ..process_pool import ClientProcess
from .chaos_run import ChaosRun, kill_clients

STOPPED_SECONDS = 8.0  # until a stopped client process is killed; its sessions are closed long before


async def client_killed(run: ChaosRun, _step: Step, _lives: trio.Nursery) -> str | None:
    clients = _target(run)
    if clients is None:
        return None
    await kill_clients(run, clients)
    return str(clients.number)


async def client_stopped(run: ChaosRun, _step: Step, lives: trio.Nursery) -> str | None:
    clients = _target(run)
    if clients is None:
        return None
    run.ledger.clients_ended[clients.number] = ClientsEnd("stopped", time.time())
    clients.send(signal.SIGSTOP)
    lives.start_soon(_kill_later, run, clients)
    return str(clients.number)


def _target(run: ChaosRun) -> ClientProcess | None:
    """A client process with open visits that no fault has struck yet."""
    busy = {visit.client_process for visit in run.ledger.visits.values() if visit.is_open}
    struck = run.ledger.clients_ended
    possible = [clients for number, clients in run.targets.items() if number in busy and number not in struck]
    return run.random.choice(possible) if possible else None


async def _kill_later(run: ChaosRun, clients: ClientProcess) -> None:
    await trio.sleep(STOPPED_SECONDS)
    await kill_clients(run, clients)

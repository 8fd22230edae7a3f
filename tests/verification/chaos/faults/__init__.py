"""The faults of the schedule, each as a function that causes it and heals it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..plan import Step
from . import clients, database, links, receiver, rows, servers
from .chaos_run import ChaosRun

FaultAction = Callable[[ChaosRun, Step, trio.Nursery], Awaitable[str | None]]
"""Returns the target, for the ledger; None where the fault could not be caused, or is in the ledger already."""

_ACTIONS: tuple[FaultAction, ...] = (
    servers.server_terminated,
    servers.server_hung_up,
    servers.server_quit,
    servers.server_killed,
    servers.remote_killed,
    servers.servers_killed,
    servers.server_frozen,
    servers.server_signalled,
    servers.server_clock_set,
    servers.log_unread,
    links.link_cut_briefly,
    links.link_cut,
    links.remote_link_cut,
    links.first_host_hangs,
    database.database_restarted,
    database.database_killed,
    database.database_frozen,
    database.database_read_only,
    database.database_clock_set,
    clients.client_killed,
    clients.client_stopped,
    rows.row_closed,
    rows.row_deleted,
    rows.user_erased,
    receiver.receiver_slow,
    receiver.receiver_fails,
    receiver.receiver_cuts,
    receiver.receiver_down,
)
FAULT_ACTIONS: dict[str, FaultAction] = {action.__name__: action for action in _ACTIONS}

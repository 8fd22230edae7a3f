"""The services that all connections of a server share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ..agents.agent import Agent
from ..auth.authenticator import Authenticator
from ..config import Settings
from ..limits.gate import Gate
from ..limits.limit import Limit
from ..memory.finalizer import Finalizer
from ..memory.meaning.encoder import Encode
from ..metrics import Metrics
from ..protocol.errors import RESPONSE_FAILURES
from ..runtime.conditions import Conditions
from ..runtime.timer import Timer
from ..sessions.instance import InstanceLease
from ..sessions.registry import Registry
from ..sessions.upkeep.reconciler import Reconciler
from ..store.proof import CommitProof
from ..store.records import EndReason
from ..store.store import Store
from ..tracing.traces import Traces
from ..transport.flusher import Flusher


def server_metrics() -> Metrics:
    """The metrics of a server, with a series for each limit, reason and code from the start."""
    return Metrics(Limit, EndReason, RESPONSE_FAILURES)


@dataclass(frozen=True, slots=True)
class Services:
    """All of them outlive the connections.

    encode: of questions, where turns of the past are found by meaning, too.
    """

    lease: InstanceLease
    settings: Settings
    store: Store
    agent: Agent
    finalizer: Finalizer
    registry: Registry
    metrics: Metrics
    authenticator: Authenticator
    gate: Gate
    reconciler: Reconciler
    proof: CommitProof
    timer: Timer = field(default_factory=Timer)
    flusher: Flusher = field(default_factory=Flusher)
    draining_soon: trio.Event = field(default_factory=trio.Event)  # all is served, but load balancers should look away
    draining: trio.Event = field(default_factory=trio.Event)
    conditions: Conditions = field(default_factory=Conditions)
    encode: Encode | None = None
    traces: Traces = field(default_factory=Traces)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs what serves all connections, for as long as the block lasts: around their nursery."""
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self.timer.run)
            tasks.start_soon(self.flusher.run)
            yield
            tasks.cancel_scope.cancel()

    async def ready(self) -> str | None:
        """None where the server accepts sessions, else the reason in a few words."""
        if self.draining_soon.is_set() or self.draining.is_set():
            return "draining"
        if (away := self.conditions.away()) is not None:  # first: it says why the database does not answer
            return away
        if reason := await self.proof.missing(self.lease.instance_id):
            return reason
        return None if self.lease.held else "lease not renewed"

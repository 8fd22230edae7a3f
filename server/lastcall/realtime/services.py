"""What all connections of a server share."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from ..agents.agent import Agent
from ..auth.authenticator import Authenticator
from ..config import Settings
from ..limits.gate import Gate
from ..memory.finalizer import Finalizer
from ..metrics import Metrics
from ..sessions.instance import InstanceLease
from ..sessions.reconciler import Reconciler
from ..sessions.session import Registry
from ..store.store import Store


@dataclass(frozen=True, slots=True)
class Services:
    """All of it outlives the connections."""

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
    draining: trio.Event = field(default_factory=trio.Event)

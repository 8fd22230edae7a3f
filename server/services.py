"""What all connections of a server share."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from .agent import Agent
from .authentication import Authenticator
from .config import Settings
from .gate import Gate
from .instance import Presence
from .memory import Finalizer
from .metrics import Metrics
from .session import Registry
from .store import Store
from .strays import Strays


@dataclass(frozen=True, slots=True)
class Services:
    """All of it outlives the connections."""

    presence: Presence
    settings: Settings
    store: Store
    agent: Agent
    finalizer: Finalizer
    registry: Registry
    metrics: Metrics
    authenticator: Authenticator
    gate: Gate
    strays: Strays
    draining: trio.Event = field(default_factory=trio.Event)

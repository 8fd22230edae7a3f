"""All of it, for the server to start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from ...config import Settings
from ...metrics import Metrics
from ...store.store import Store
from ..instance import InstanceLease
from ..registry import Registry
from .backlog import Backlog
from .census import Census
from .reaper import Reaper
from .reconciler import Reconciler
from .retention import Retention
from .revocations import finish_revocations


def upkeep(
    store: Store, lease: InstanceLease, settings: Settings, registry: Registry, metrics: Metrics, reconciler: Reconciler
) -> Sequence[Callable[[], Awaitable[None]]]:
    """Each runs until it is cancelled."""
    return (
        Reaper(store, lease, settings, metrics).run,
        reconciler.run,
        partial(finish_revocations, store),
        lease.changes.run,
        Census(store, lease, registry, metrics).run,
        Backlog(store, metrics).run,
        Retention(store, settings, metrics).run,
    )

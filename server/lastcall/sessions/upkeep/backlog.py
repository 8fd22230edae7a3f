"""What all servers together have left to do, as metrics: rows without a server, and memory that is not finalized."""

from __future__ import annotations

import structlog
import trio

from ...logs.trouble import Trouble
from ...metrics import UNKNOWN, Metrics
from ...store.errors import StoreError
from ...store.operators.census import count_orphaned
from ...store.operators.sessions import memory_counts
from ...store.store import Store

LOOK_SECONDS = 15.0  # as often as a Prometheus asks

_log = structlog.get_logger(__name__)


class Backlog:
    """Counts it again and again. Every server does, so that the answer is there as long as one of them runs."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._trouble = Trouble()

    async def run(self) -> None:
        while True:
            try:
                await self.look()
                self._trouble.over()
            except StoreError as error:
                self._set(UNKNOWN, UNKNOWN, UNKNOWN)
                if self._trouble.is_new(error):
                    _log.warning("backlog_not_counted", error=str(error))
            await trio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Raises `StoreError`."""
        orphaned = await count_orphaned(self._store)
        self._set(orphaned, *await memory_counts(self._store))

    def _set(self, orphaned: float, pending: float, failed: float) -> None:
        self._metrics.rows_orphaned.set(orphaned)
        self._metrics.memory_pending.set(pending)
        self._metrics.memory_failed.set(failed)

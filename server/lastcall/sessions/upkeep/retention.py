"""Deletes what is kept too long, slowly: whoever waits for the database must not notice."""

from __future__ import annotations

import structlog
import trio

from ...config import Settings
from ...metrics import Metrics
from ...store.errors import StoreError
from ...store.operators.retention import Dropped, Kept, drop_old
from ...store.store import Store

REST_RATIO = 9.0  # between two batches it rests for that many times what the last one took: a tenth of the time at most
REST_SECONDS_MIN = 0.05

_log = structlog.get_logger(__name__)


def kept_of(settings: Settings) -> Kept:
    """What the settings say."""
    return Kept(settings.transcript_days, settings.session_days, settings.audit_days)


class Retention:
    """Every server does it; a batch is deleted by one of them at a time."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics) -> None:
        self._store = store
        self._kept = kept_of(settings)
        self._seconds = settings.retention_seconds
        self._metrics = metrics

    async def run(self) -> None:
        """Runs until it is cancelled; returns at once where everything is kept for ever."""
        while not self._kept.forever:
            try:
                await self._sweep()
            except StoreError as error:
                _log.warning("retention_failed", error=str(error))
            await trio.sleep(self._seconds)

    async def _sweep(self) -> None:
        total, began = Dropped(), trio.current_time()

        async def rest(dropped: Dropped) -> None:
            nonlocal total, began
            total += dropped
            self._metrics.count_dropped(dropped.messages, dropped.sessions, dropped.audit_lines)
            await trio.sleep(max(REST_SECONDS_MIN, REST_RATIO * (trio.current_time() - began)))
            began = trio.current_time()

        try:
            await drop_old(self._store, self._kept, rest)
        finally:
            if total != Dropped():
                _log.info("retention", messages=total.messages, sessions=total.sessions, audit_lines=total.audit_lines)

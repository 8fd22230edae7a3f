"""Sends what was queued for all sockets, once a pass of the scheduler."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import structlog
import trio

FLUSHES_PER_STEP = 64  # of the loop: after so many sends, other tasks run

_log = structlog.get_logger(__name__)


class Flushable(Protocol):
    def flush(self) -> None:
        """Sends what can be sent at once. Never waits."""
        ...


class Flusher:
    """One task for all sockets: what tasks queued in one pass of the scheduler leaves in one send per socket.

    A task of each socket's own would take six steps of the scheduler for a send that takes one.
    """

    def __init__(self) -> None:
        self._due: deque[Flushable] = deque()
        self._news = trio.Event()

    def add(self, stream: Flushable) -> None:
        """Flushes the stream in the next pass. To be called once until then."""
        self._due.append(stream)
        self._news.set()

    async def run(self) -> None:
        """Flushes until cancelled. A stream's failure costs no other one anything."""
        while True:
            await self._news.wait()
            for _ in range(min(len(self._due), FLUSHES_PER_STEP)):
                try:
                    self._due.popleft().flush()
                except Exception:  # noqa: BLE001 - one stream's failure ends no other
                    _log.exception("flush_failed")
            if self._due:
                await trio.lowlevel.checkpoint()
            else:
                self._news = trio.Event()

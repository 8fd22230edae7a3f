"""Sends what was queued for all sockets, as soon as nobody adds to it."""

from __future__ import annotations

from typing import Protocol

import structlog
import trio

FLUSHES_PER_STEP = 64  # of the loop: after so many sends, other tasks run
QUIET_PASSES = 2  # of the scheduler without anything new, before a stream is flushed; in each, tasks run in any order
PASSES_MAX = 8  # until a stream is flushed to which something is added all the time

_log = structlog.get_logger(__name__)


class Flushable(Protocol):
    def flush(self) -> None:
        """Sends what can be sent at once. Never waits."""
        ...


class Flusher:
    """One task for all sockets: what tasks queue in passes of the scheduler that follow each other leaves in one send.

    A send takes as long as it takes to make many events. So an acknowledgement, the beginning of the answer and its
    first piece leave together, and so do pieces that an agent yields without waiting. Passes are counted, not time: on
    an idle server they take microseconds. A task of each socket's own would take six steps of the scheduler for a send.
    """

    def __init__(self) -> None:
        self._grown: dict[Flushable, None] = {}  # since the last look, in their order
        self._kept: dict[Flushable, tuple[int, int]] = {}  # in which pass each was first and last seen to have grown
        self._pass = 0
        self._awake = False
        self._news = trio.Event()

    def add(self, stream: Flushable) -> None:
        """To be called whenever something was added to the stream."""
        self._grown[stream] = None
        if not self._awake:
            self._awake = True
            self._news.set()

    async def run(self) -> None:
        """Flushes until cancelled. A stream's failure costs no other one anything."""
        while True:
            await self._news.wait()
            for number, stream in enumerate(self._settled(), start=1):
                try:
                    stream.flush()
                except Exception:  # noqa: BLE001 - one stream's failure ends no other
                    _log.exception("flush_failed")
                if number % FLUSHES_PER_STEP == 0:
                    await trio.lowlevel.checkpoint()
            if not self._grown and not self._kept:
                self._awake, self._news = False, trio.Event()

    def _settled(self) -> list[Flushable]:
        """The streams that are to be flushed now. To be called once a pass."""
        self._pass += 1
        for stream in self._grown:
            began, _ = self._kept.get(stream, (self._pass, 0))
            self._kept[stream] = began, self._pass
        self._grown.clear()
        settled = [
            stream
            for stream, (began, grew) in self._kept.items()
            if self._pass >= min(grew + QUIET_PASSES, began + PASSES_MAX)
        ]
        for stream in settled:
            del self._kept[stream]
        return settled

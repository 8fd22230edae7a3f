"""The loop's heartbeat, by which threads see whether it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import trio

BEAT_SECONDS = 0.25


class Heartbeat:
    """Beats while the loop runs.

    Attributes:
        beats: How often it has beaten.
        at: When it last did, by the monotonic clock.
        thread_id: Of the thread that the loop runs in: the one that made this object.
    """

    def __init__(self) -> None:
        self.beats = 0
        self.at = time.monotonic()
        self.thread_id = threading.get_ident()

    async def run(self, on_beat: Callable[[float], None]) -> None:
        """Beats until cancelled. on_beat: called with each beat, on the loop; gets how many seconds it was late."""
        due = self.at
        while True:
            self.at = time.monotonic()
            self.beats += 1
            on_beat(max(0.0, self.at - due))
            due = time.monotonic() + BEAT_SECONDS
            await trio.sleep(BEAT_SECONDS)

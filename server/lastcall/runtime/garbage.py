"""Python's garbage collector, kept from holding up a server.

A collection stops everything for as long as it looks through objects, most of a microsecond for each. Left to itself it
begins once many more of them were made than freed, which is when many people connect, and looks through whatever has
come since the one before: the objects of all who are connected. With 170 sessions that took 30 to 60 ms on a quick
machine, in which no end was seen and no row closed. Here it comes ten times a second and has little to look through.
"""

from __future__ import annotations

import gc

import structlog
import trio

YOUNG_SECONDS = 0.1  # between two collections of what has come since
LOOK_SECONDS = 10.0  # between two counts of what has grown old
OLD_OBJECTS_MORE = 100_000  # as many as 350 sessions have, in 15 MiB
OLD_OBJECTS_SHARE = 0.5

_log = structlog.get_logger(__name__)


class Collector:
    """Collects in small pieces, beside what the process is there for.

    Old objects, which have outlived one such collection, are nearly always freed by their last reference: sessions
    form no cycles (tests/integration/runtime/test_garbage.py). They are looked through when there are half as many
    again as the time before left, and more by `OLD_OBJECTS_MORE`; so a part that leaves cycles behind cannot fill the
    memory.
    """

    def __init__(self, more: int = OLD_OBJECTS_MORE) -> None:
        self._more = more
        self._left = 0

    async def run(self) -> None:
        """Until cancelled."""
        next_look = trio.current_time() + LOOK_SECONDS
        while True:
            await trio.sleep(YOUNG_SECONDS)
            gc.collect(1)
            if trio.current_time() >= next_look:
                self._look()
                next_look = trio.current_time() + LOOK_SECONDS

    def _look(self) -> None:
        old = _old_objects()
        if old <= self._left + max(self._left * OLD_OBJECTS_SHARE, self._more):
            return
        began = trio.current_time()
        collected = gc.collect()
        self._left = _old_objects()
        _log.debug("garbage_collected", objects=collected, left=self._left, seconds=trio.current_time() - began)


def _old_objects() -> int:
    return len(gc.get_objects(generation=2))

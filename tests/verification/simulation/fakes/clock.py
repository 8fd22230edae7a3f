"""Virtual time, for stock Trio."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import trio


class Stuck(Exception):
    """Nothing will ever happen again in a world, and yet tasks are left."""


POLLS = 2  # of the kernel, while no task can run, before time jumps: Trio may have woken itself through a socket
STUCK_POLLS = 100  # the same, where there is no deadline to jump to


class VirtualClock(trio.abc.Clock):
    """Jumps to the next deadline as soon as no task can run.

    What `MockClock(autojump_threshold=0)` does; but where no deadline is left, that one would spin for ever.
    now: virtual seconds.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self._polls = 0

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks when no task can run, and then polls the kernel. Raises `Stuck` where no deadline is left."""
        self._polls += 1
        if deadline == inf:
            if self._polls >= STUCK_POLLS:
                raise Stuck("tasks are left that wait for something without a deadline, and nothing is left to happen")
        elif self._polls >= POLLS:
            self._polls = 0
            self.now = max(self.now, deadline)
        return 0.0


async def until(true: Callable[[], bool], seconds: float, look_seconds: float) -> bool:
    """Polls a condition, for want of an event to wait for. Returns whether it came true in time."""
    end = trio.current_time() + seconds
    while not (came := true()) and trio.current_time() < end:  # noqa: ASYNC110 - virtual time
        await trio.sleep(look_seconds)
    return came

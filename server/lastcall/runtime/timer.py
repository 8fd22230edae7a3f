"""One timer for many: calls back at given times, without a task or a cancel scope for each."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf

import structlog
import trio

CALLS_PER_STEP = 64  # of the loop: after so many calls, other tasks run
CANCELLED_MIN = 64  # cancelled alarms that are worth to be removed before their time, if they are the most

_log = structlog.get_logger(__name__)


class Alarm:
    """A call that is due at some time. call: None once it was cancelled or made."""

    __slots__ = ("_timer", "call", "when")

    def __init__(self, timer: Timer, when: float, call: Callable[[], object]) -> None:
        self._timer = timer
        self.when = when
        self.call: Callable[[], object] | None = call

    def __lt__(self, other: Alarm) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Drops the call; without effect after it."""
        if self.call is not None:
            self.call = None
            self._timer.cancelled()


class Timer:
    """Calls back while `run` runs."""

    def __init__(self) -> None:
        self._alarms: list[Alarm] = []  # a heap
        self._cancelled = 0  # of them
        self._waiting = trio.CancelScope()

    def at(self, when: float, call: Callable[[], object]) -> Alarm:
        """Calls back once, at a time of Trio's clock (seconds), or as soon as the loop allows.

        call: must be quick. What it raises is logged, and costs no other call anything.
        """
        alarm = Alarm(self, when, call)
        heappush(self._alarms, alarm)
        if when < self._waiting.deadline:  # to set a deadline takes longer than all else here, even the same one
            self._waiting.deadline = when
        return alarm

    def cancelled(self) -> None:
        """For `Alarm`: one more is of no use. Together they never hold more memory than the others."""
        self._cancelled += 1
        if self._cancelled >= CANCELLED_MIN and 2 * self._cancelled > len(self._alarms):
            self._alarms = [alarm for alarm in self._alarms if alarm.call is not None]
            heapify(self._alarms)
            self._cancelled = 0

    async def run(self) -> None:
        """Makes the calls, until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._alarms[0].when if self._alarms else inf) as self._waiting:
                await trio.sleep_forever()
            for _ in range(CALLS_PER_STEP):
                if not self._alarms or self._alarms[0].when > trio.current_time():
                    break
                self._ring(heappop(self._alarms))

    def _ring(self, alarm: Alarm) -> None:
        if alarm.call is None:
            self._cancelled -= 1
            return
        call, alarm.call = alarm.call, None
        try:
            call()
        except Exception:  # noqa: BLE001 - one call's failure costs no other one
            _log.exception("timer_call_failed")

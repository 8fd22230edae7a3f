"""Notices when the event loop is stuck, and logs where.

A thread looks at the heartbeat at regular times. Was the thread itself late, there are two explanations. The whole
process was stopped (SIGSTOP, a suspended machine) or got no CPU: then it used next to none meanwhile, and the time is
not the loop's. Or C code kept the GIL: then the process was busy, and it is.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from .heartbeat import BEAT_SECONDS, Heartbeat

STALL_SECONDS = 1.0
LINE_EVERY_SECONDS = 10.0  # at most: an agent that blocks in every turn does not fill the log
LATE_SECONDS = 2 * BEAT_SECONDS  # of one look, from which on it matters why
BUSY_SHARE = 0.5  # of such a time on the CPU: the process ran
STACK_FRAMES_MAX = 20

_log = structlog.get_logger(__name__)


class StallWatch:
    """Looks at a heartbeat. Times are seconds.

    Args:
        heartbeat: The loop's.
        on_stall: Called in the watching thread once for each stall of `STALL_SECONDS`.
    """

    def __init__(self, heartbeat: Heartbeat, on_stall: Callable[[], None]) -> None:
        self._heartbeat = heartbeat
        self._on_stall = on_stall
        self._beats = heartbeat.beats
        self._looked_at, self._cpu = time.monotonic(), time.process_time()
        self._stuck = 0.0  # since the last beat
        self._reported = False
        self._logged_at = -LINE_EVERY_SECONDS
        self._unlogged = 0  # stalls
        self._logging = False  # this stall is in the log

    @contextmanager
    def running(self) -> Iterator[None]:
        """Looks in a thread while the block lasts."""
        over = threading.Event()
        threading.Thread(target=self._run, args=(over,), name="stall watch", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _run(self, over: threading.Event) -> None:
        while not over.wait(BEAT_SECONDS):
            self.look(time.monotonic(), time.process_time())

    def look(self, now: float, cpu: float) -> None:
        """One look. cpu: what the process has used by now."""
        passed, used = now - self._looked_at, cpu - self._cpu
        self._looked_at, self._cpu = now, cpu
        beaten, late = self._heartbeat.beats != self._beats, passed > LATE_SECONDS
        if late and used >= BUSY_SHARE * passed:
            self._stuck += passed
        elif not beaten:
            self._stuck += min(passed, LATE_SECONDS)
        if self._stuck >= STALL_SECONDS and not self._reported:
            self._report(now)
        if beaten:
            self._beats = self._heartbeat.beats
            self._goes_on()

    def _report(self, now: float) -> None:
        self._reported = True
        self._on_stall()
        self._logging = now - self._logged_at >= LINE_EVERY_SECONDS
        if self._logging:
            _log.warning("loop_stalled", seconds=round(self._stuck, 1), unlogged=self._unlogged, stack=self._stack())
            self._logged_at, self._unlogged = now, 0
        else:
            self._unlogged += 1

    def _goes_on(self) -> None:
        if self._logging:
            _log.warning("loop_goes_on", stalled_seconds=round(self._stuck, 1))
        self._stuck, self._reported, self._logging = 0.0, False, False

    def _stack(self) -> str:
        """Where the loop's thread is, innermost call last."""
        frame = sys._current_frames().get(self._heartbeat.thread_id)  # noqa: SLF001 - documented all the same
        return "".join(traceback.format_stack(frame)[-STACK_FRAMES_MAX:]).rstrip() if frame is not None else ""

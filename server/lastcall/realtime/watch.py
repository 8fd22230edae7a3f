"""Watches one session's silence and its time, with calls of the shared timer."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import trio

from ..config import Settings
from ..limits.session_limits import SessionLimits
from ..runtime.timer import Alarm, Timer
from ..sessions.session import Session
from ..store.records import EndReason
from ..transport.stream import BufferedStream
from ..transport.websocket import WebSocket

STALL_SECONDS = 0.25  # of a ping's timeout: to read a pong that arrived while this process was stalled


class SessionWatch:
    """Pings a silent peer, ends the session of one that does not reply, and of one whose time is up.

    late: called when the session's time is up.
    """

    def __init__(
        self,
        ws: WebSocket,
        stream: BufferedStream,
        session: Session,
        limits: SessionLimits,
        settings: Settings,
        timer: Timer,
        late: Callable[[], None],
    ) -> None:
        self._ws = ws
        self._stream = stream
        self._session = session
        self._limits = limits
        self._interval = settings.ping_interval
        self._timeout = settings.ping_timeout
        self._timer = timer
        self._late = late
        self._alarm: Alarm | None = None
        self._asked: float | None = None  # when the ping was sent that awaits its pong
        self._received = 0  # the bytes received until then
        self._last_look: float | None = None  # after its timeout

    def begin(self) -> None:
        """Watches until `end`."""
        self._look()

    def end(self) -> None:
        """Without effect where it did not begin."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _look(self) -> None:
        due = inf if self._session.reason is not None else min(self._look_at_time(), self._look_at_silence())
        self._alarm = self._timer.at(due, self._look)

    def _look_at_time(self) -> float:
        """Returns when to look again, as does `_look_at_silence`. An event may have moved the deadline meanwhile."""
        deadline = self._limits.deadline
        if trio.current_time() >= deadline:
            self._late()
        return deadline

    def _look_at_silence(self) -> float:
        now, heard = trio.current_time(), self._stream.last_received
        if self._asked is not None and self._stream.received == self._received:
            return self._look_for_pong(now, self._asked)
        # Counted from the last byte, not from the last ping: else a peer that dies between a ping and its pong would
        # stay for another round.
        self._asked = self._last_look = None
        if now < heard + self._interval:
            return heard + self._interval
        self._stream.put(self._ws.ping_frame())
        self._asked, self._received = now, self._stream.received
        return self._look_for_pong(now, now)

    def _look_for_pong(self, now: float, asked: float) -> float:
        """Ends the session of a peer that did not reply: it is gone, since its last byte."""
        due = asked + max(self._timeout - STALL_SECONDS, 0.0)
        if now >= due and self._last_look is None:
            # Where this process was stalled, the ping may not be sent yet, or the pong not be read.
            self._last_look = now + STALL_SECONDS
        if self._last_look is None:
            return min(due, now + self._interval)
        if now >= self._last_look:
            self._session.stop(EndReason.CLIENT_VANISHED, ended=self._stream.last_received)
        return self._last_look

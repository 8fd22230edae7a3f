"""What one session may take: events by rate and shape, and time."""

from __future__ import annotations

import math

import trio

from ..config import Settings
from ..protocol import server_events
from ..protocol.client_events import EventRejected, event_id_of
from . import json_bounds
from .limit import Limit, TokenBucket

BURST_SECONDS = 2.0  # what the rate of events allows at once: so many seconds' worth
REFUSED_IN_A_ROW_MAX = 250  # and no more than a burst: who goes on after so many is not listening
TOKEN_BYTES = 16_384  # of a message: each as many cost one token more
FRAMES_PER_EVENT = 4  # frames are paced by the rate of events: room for fragments, pings and pongs


class SessionLimits:
    """One session's. started: on Trio's clock."""

    def __init__(self, settings: Settings, started: float) -> None:
        self._settings = settings
        self._events = TokenBucket(settings.events_per_second, settings.events_per_second * BURST_SECONDS)
        self._refused_in_a_row = 0
        self._expires = started + settings.session_seconds
        self._last_event = started

    # --- events

    def rate_refusal(self, message: str | bytes) -> server_events.ErrorDetail | None:
        """One message of the client's: what it is told where it sends too many, or None."""
        self._last_event = trio.current_time()
        if self._events.full:
            self._refused_in_a_row = 0
        cost = 1.0 + len(message) // TOKEN_BYTES
        if self._events.take(cost):
            return None
        self._refused_in_a_row += 1
        text = f"Too many events. Please try again in {self._events.seconds_until(cost):.3f} s."
        return server_events.ErrorDetail(code="rate_limit_exceeded", message=text, event_id=event_id_of(message))

    @property
    def flooding(self) -> bool:
        """Whether so many were refused while the client never stopped for long enough to get another burst."""
        return self._refused_in_a_row >= min(self._events.burst, REFUSED_IN_A_ROW_MAX)

    def rates(self) -> server_events.RateLimitsUpdated:
        """What is left of the rate, for the begin of a response."""
        bucket = self._events
        limit = server_events.RateLimit(
            name="requests",
            limit=math.floor(bucket.burst),
            remaining=math.floor(bucket.tokens),
            reset_seconds=round(bucket.seconds_until(bucket.burst), 3),
        )
        return server_events.RateLimitsUpdated(rate_limits=[limit])

    # --- time

    @property
    def deadline(self) -> float:
        """When the session's time is up, as far as is known now."""
        idle = self._settings.idle_seconds
        return min(self._expires, math.inf if idle is None else self._last_event + idle)

    def time_is_up(self) -> tuple[Limit, server_events.ErrorDetail]:
        """Which time it was, and what the client is told."""
        if self._expires <= self.deadline:
            text = f"Your session hit the maximum duration of {self._settings.session_seconds:g} s."
            return Limit.SESSION_TIME, server_events.ErrorDetail(code="session_expired", message=text)
        text = f"Your session was idle for {self._settings.idle_seconds:g} s."
        return Limit.IDLE_TIME, server_events.ErrorDetail(code="session_idle", message=text)


def frame_pace(settings: Settings) -> TokenBucket:
    """The pace at which a connection's frames are read."""
    per_second = settings.events_per_second * FRAMES_PER_EVENT
    return TokenBucket(per_second, per_second * BURST_SECONDS)


def shape_refusal(message: str | bytes, settings: Settings) -> EventRejected | None:
    """What a message is refused with before it is read, or None."""
    if not isinstance(message, str):
        return None
    problem = json_bounds.problem(message, settings.json_values_max, settings.json_depth_max)
    if problem is None:
        return None
    return EventRejected(
        server_events.ErrorDetail(code="invalid_value", message=problem, event_id=event_id_of(message))
    )

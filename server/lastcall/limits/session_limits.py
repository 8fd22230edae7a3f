"""The limits of one session: its rate of events, and its time."""

from __future__ import annotations

import math

import trio

from ..config import Settings
from ..protocol.errors import Error, error_event
from ..protocol.server_events import RateLimit, RateLimitsUpdated
from .limit import EVENT_BURST_SECONDS, EVENT_TOKEN_BYTES, FLOODING_EVENTS, FRAMES_PER_EVENT, Limit
from .token_bucket import TokenBucket


class SessionLimits:
    """started: when the session started, on Trio's clock."""

    def __init__(self, settings: Settings, started: float) -> None:
        self._settings = settings
        self._events = TokenBucket(settings.events_per_second, settings.events_per_second * EVENT_BURST_SECONDS)
        self._refused_in_a_row = 0
        self._expires = started + settings.session_seconds
        self._last_event = started

    # --- events

    def admit(self, size: int) -> float | None:
        """Takes one event from the rate. None, or the seconds until it would have been admitted.

        size: of the event's message, in characters or bytes.
        """
        self._last_event = trio.current_time()
        if self._events.full:
            self._refused_in_a_row = 0
        cost = 1.0 + size // EVENT_TOKEN_BYTES
        if self._events.take(cost):
            return None
        self._refused_in_a_row += 1
        return self._events.seconds_until(cost)

    @property
    def flooding(self) -> bool:
        """Whether too many events were refused without a pause long enough to refill the burst."""
        return self._refused_in_a_row >= min(self._events.burst, FLOODING_EVENTS)

    def rates(self) -> RateLimitsUpdated:
        """The rest of the rate, sent when a response begins."""
        bucket = self._events
        limit = RateLimit(
            name="requests",
            limit=math.floor(bucket.burst),
            remaining=math.floor(bucket.tokens),
            reset_seconds=round(bucket.seconds_until(bucket.burst), 3),
        )
        return RateLimitsUpdated(rate_limits=[limit])

    # --- time

    @property
    def deadline(self) -> float:
        """When the session's time is up, unless another event arrives first."""
        idle = self._settings.idle_seconds
        return min(self._expires, math.inf if idle is None else self._last_event + idle)

    def time_is_up(self) -> tuple[Limit, Error]:
        """The limit that the session reached, and the event that tells the client."""
        if self._expires <= self.deadline:
            message = f"Your session hit the maximum duration of {self._settings.session_seconds:g} s."
            return Limit.SESSION_TIME, error_event("session_expired", message)
        message = f"Your session was idle for {self._settings.idle_seconds:g} s."
        return Limit.IDLE_TIME, error_event("session_idle", message)


def frame_pace(settings: Settings) -> TokenBucket:
    """The pace at which a connection's frames are read."""
    per_second = settings.events_per_second * FRAMES_PER_EVENT
    return TokenBucket(per_second, per_second * EVENT_BURST_SECONDS)

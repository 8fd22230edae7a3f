"""The limits of one session: its rate of events, and its time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import trio

from ..config import Settings
from ..protocol.errors import Error, error_event
from ..protocol.server_events import RateLimit, RateLimitsUpdated
from ..store.records import EndReason
from .limit import EVENT_BURST_SECONDS, EVENT_TOKEN_BYTES, FLOODING_EVENTS, FRAMES_PER_EVENT, Limit
from .token_bucket import TokenBucket

CREDENTIAL_EXPIRED_CODE = 3000  # the close code that tells a client to come back with another credential


@dataclass(frozen=True, slots=True)
class TimeUp:
    """The end of a session's time. limit: the one that it reached; None: none of ours. told: to the client."""

    limit: Limit | None
    told: Error
    reason: EndReason
    close_code: int | None = None


class SessionLimits:
    """The limits of one session.

    Args:
        settings: Which limits.
        started: When the session started, on Trio's clock.
        valid_until: When its credential expires, on Trio's clock, which nobody can set; None: it does not.
    """

    def __init__(self, settings: Settings, started: float, valid_until: float | None = None) -> None:
        self._settings = settings
        self._events = TokenBucket(settings.events_per_second, settings.events_per_second * EVENT_BURST_SECONDS)
        self._refused_in_a_row = 0
        self._longest = started + settings.session_seconds
        ends_with_it = settings.end_with_credential and valid_until is not None and valid_until < self._longest
        self._valid_until = valid_until if ends_with_it else None
        self._last_event = started

    # --- events

    def admit(self, size: int) -> float | None:
        """Takes one event from the rate. None, or the seconds until it would have been admitted.

        size: of the event's message, in characters or bytes.
        """
        self._last_event = trio.current_time()
        if self._refused_in_a_row and self._events.full:
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
        tokens = bucket.tokens
        limit = RateLimit(
            name="requests",
            limit=math.floor(bucket.burst),
            remaining=math.floor(tokens),
            reset_seconds=round((bucket.burst - tokens) / bucket.per_second, 3),
        )
        return RateLimitsUpdated(rate_limits=[limit])

    # --- time

    @property
    def expires(self) -> float:
        """When the session ends at the latest, on Trio's clock."""
        return self._longest if self._valid_until is None else self._valid_until

    @property
    def deadline(self) -> float:
        """When the session's time is up, unless another event arrives first."""
        idle = self._settings.idle_seconds
        return min(self.expires, math.inf if idle is None else self._last_event + idle)

    def time_is_up(self) -> TimeUp:
        """Why the session's time is up, once `deadline` has passed."""
        if self.expires > self.deadline:
            message = f"Your session was idle for {self._settings.idle_seconds:g} s."
            return TimeUp(Limit.IDLE_TIME, error_event("session_idle", message), EndReason.IDLE)
        if self._valid_until is not None:
            told = error_event("invalid_api_key", "The token or client secret of this session has expired.")
            return TimeUp(None, told, EndReason.EXPIRED, CREDENTIAL_EXPIRED_CODE)
        message = f"Your session hit the maximum duration of {self._settings.session_seconds:g} s."
        return TimeUp(Limit.SESSION_TIME, error_event("session_expired", message), EndReason.EXPIRED)


def frame_pace(settings: Settings) -> TokenBucket:
    """The pace at which a connection's frames are read."""
    per_second = settings.events_per_second * FRAMES_PER_EVENT
    return TokenBucket(per_second, per_second * EVENT_BURST_SECONDS)

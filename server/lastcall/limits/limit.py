"""Limits: what they are called, and how often something may happen. On Trio's clock."""

from __future__ import annotations

from enum import StrEnum

import trio


class Limit(StrEnum):
    """What can refuse or end something; the label of `lastcall_limits_refused_total`."""

    SOCKETS = "sockets"
    CONNECTIONS = "connections"
    MEMORY = "memory"
    ADDRESS_CONNECTIONS = "address_connections"
    ADDRESS_RATE = "address_rate"
    KEY_CONNECTIONS = "key_connections"
    KEY_RATE = "key_rate"
    HTTP_CONNECTIONS = "http_connections"
    HTTP_CONNECTIONS_SHARE = "http_connections_share"
    HTTP_RATE = "http_rate"
    HANDSHAKE_TIME = "handshake_time"
    SESSION_TIME = "session_time"
    IDLE_TIME = "idle_time"
    EVENT_RATE = "event_rate"
    FLOODING = "flooding"
    FRAME_RATE = "frame_rate"
    MESSAGE_BYTES = "message_bytes"
    JSON_SHAPE = "json_shape"
    INBOX = "inbox"
    ITEMS = "items"
    CONTEXT = "context"
    SLOW_READER = "slow_reader"


class TokenBucket:
    """So many tokens a second, and `burst` of them at once.

    Written here because the packages for it (`limits`, `pyrate-limiter`) keep the time by the wall clock, which can
    jump and which no test can: on Trio's clock it is a dozen lines.
    """

    __slots__ = ("_at", "_tokens", "burst", "per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self.burst = max(burst, 1.0)
        self._tokens = self.burst
        self._at = trio.current_time()

    @property
    def tokens(self) -> float:
        """What is there now."""
        now = trio.current_time()
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_second)
        self._at = now
        return self._tokens

    def take(self, tokens: float = 1.0) -> bool:
        """Takes tokens, or none where there are too few. More than a burst count as one."""
        wanted = min(tokens, self.burst)
        if self.tokens < wanted:
            return False
        self._tokens -= wanted
        return True

    def seconds_until(self, tokens: float) -> float:
        """How long until so many are there."""
        return max(0.0, min(tokens, self.burst) - self.tokens) / self.per_second

    @property
    def full(self) -> bool:
        return self.tokens >= self.burst

"""A rate limiter on Trio's clock."""

from __future__ import annotations

import trio


class TokenBucket:
    """Refills at `per_second` tokens a second up to `burst` tokens.

    Not a package (`limits`, `pyrate-limiter`): those read the wall clock, which can jump and which tests cannot set.
    """

    __slots__ = ("_at", "_tokens", "burst", "per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self.burst = max(burst, 1.0)
        self._tokens = self.burst
        self._at = trio.current_time()

    @property
    def tokens(self) -> float:
        """The tokens available now."""
        now = trio.current_time()
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_second)
        self._at = now
        return self._tokens

    def take(self, tokens: float = 1.0) -> bool:
        """Takes tokens, all or none. More than a burst count as one burst."""
        wanted = min(tokens, self.burst)
        if self.tokens < wanted:
            return False
        self._tokens -= wanted
        return True

    def seconds_until(self, tokens: float) -> float:
        """Seconds until that many tokens are available."""
        return max(0.0, min(tokens, self.burst) - self.tokens) / self.per_second

    @property
    def full(self) -> bool:
        return self.tokens >= self.burst

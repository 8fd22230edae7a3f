"""An estimate of the database's clock, for telling a statement that comes late from one that is fresh.

What is estimated says when a statement was sent. The database takes ages back from there, never from later than its
own now, and refuses what is too far from that. So a bad estimate, or a step of its clock, makes an end early by no more
than that, and otherwise costs a try.
"""

from __future__ import annotations

from datetime import datetime, timedelta

DRIFT = 1e-3  # an estimate grows worse by a millisecond each second: clocks are slewed by half of that


class DatabaseClock:
    """Maps Trio's clock to the database's. The answer that took least time counts, until it has aged."""

    def __init__(self) -> None:
        self._now: datetime | None = None
        self._at = 0.0
        self._error = 0.0

    def observe(self, asked: float, answered: float, now: datetime) -> None:
        """now: what the database's clock showed between `asked` and `answered`, which are on Trio's."""
        error = (answered - asked) / 2
        if self._now is None or error <= self._error + (answered - self._at) * DRIFT:
            self._now, self._at, self._error = now, asked + error, error

    def forget(self) -> None:
        """The database's clock was set, or the estimate is worth nothing: the next answer counts, whatever it took."""
        self._now = None

    def at(self, moment: float) -> datetime | None:
        """The database's time at a moment of Trio's clock; None where nothing was observed yet."""
        return None if self._now is None else self._now + timedelta(seconds=moment - self._at)

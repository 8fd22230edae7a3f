"""An estimate of the database's clock, for telling a statement that comes late from one that is fresh.

What is estimated says when a statement was sent. The database takes ages back from there, never from later than its
own now, and refuses what is too far from that. So a bad estimate, or a step of its clock, makes an end early by no more
than that, and otherwise costs a try.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

DRIFT = 1e-3  # an estimate grows worse by a millisecond each second: clocks are slewed by half of that


class DatabaseClock:
    """Maps Trio's clock to the database's. The answer that took least time counts, until it has aged.

    One that cannot be true together with what is believed counts as well: the database's clock was set.
    """

    def __init__(self) -> None:
        self._now: datetime | None = None
        self._at = 0.0
        self._error = math.inf

    def observe(self, asked: float, answered: float, now: datetime) -> None:
        """now: what the database's clock showed between `asked` and `answered`, which are on Trio's."""
        error = (answered - asked) / 2
        moment = asked + error
        known, known_error = self.at(moment), self.error(moment)
        if known is None or error <= known_error or abs((now - known).total_seconds()) > error + known_error:
            self._now, self._at, self._error = now, moment, error

    def error(self, moment: float) -> float:
        """How far from the truth `at` may be, in seconds, while nobody sets the database's clock."""
        return self._error + abs(moment - self._at) * DRIFT

    def at(self, moment: float) -> datetime | None:
        """The database's time at a moment of Trio's clock; None where nothing was observed yet."""
        return None if self._now is None else self._now + timedelta(seconds=moment - self._at)

"""An estimate of the database's clock, by which the database recognises statements that arrive late.

Every batch carries the time when it was sent, by this estimate. The database counts ages back from there, or from its
own now if that is earlier, and refuses a batch whose time is too far from its own. So a bad estimate, or a step of its
clock, dates an end too early by no more than that tolerance; beyond it, the batch is retried.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

DRIFT = 1e-3  # seconds of error added per second of age; clocks are slewed by at most half of that


class DatabaseClock:
    """Maps Trio's clock to the database's.

    The fastest answer counts, until it has aged. An answer that contradicts the estimate counts too: the database's
    clock was set.

    doubtful: nothing is known, or only what an answer said that contradicted all before it. It may have taken long, as
    the first one after an outage does, and be wrong by half of that; so whoever dates something by it asks once more.
    """

    def __init__(self) -> None:
        self.doubtful = True
        self._now: datetime | None = None
        self._at = 0.0
        self._error = math.inf

    def observe(self, asked: float, answered: float, now: datetime) -> None:
        """now: the database's clock at some moment between `asked` and `answered`, which are on Trio's clock."""
        error = (answered - asked) / 2
        moment = asked + error
        known, known_error = self.at(moment), self.error(moment)
        contradicted = known is not None and abs((now - known).total_seconds()) > error + known_error
        self.doubtful |= contradicted
        if known is None or error <= known_error or contradicted:
            self._now, self._at, self._error = now, moment, error

    def error(self, moment: float) -> float:
        """The possible error of `at`, in seconds, unless the database's clock is set."""
        return self._error + abs(moment - self._at) * DRIFT

    def at(self, moment: float) -> datetime | None:
        """The database's time at a moment of Trio's clock; None before the first observation."""
        return None if self._now is None else self._now + timedelta(seconds=moment - self._at)

"""How long a model that is away is left alone. Reads the clock, waits for nothing."""

from __future__ import annotations

import trio

PAUSE_SECONDS_MIN = 1.0  # after the first failure; doubled with each further one
PAUSE_SECONDS_MAX = 30.0


class ModelOutage:
    """The pause after a failure that was the model's, not its session's."""

    def __init__(self) -> None:
        self._until = 0.0
        self._seconds = 0.0

    def begin(self) -> float:
        """Begins a pause, twice as long as the last one; returns how long it is now, in seconds."""
        # Tries that were under way together find out together: that is one failure, not several.
        if not self.seconds_left():
            self._seconds = min(max(2 * self._seconds, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX)
            self._until = trio.current_time() + self._seconds
        return self.seconds_left()

    def end(self) -> None:
        """The model has answered."""
        self._until = self._seconds = 0.0

    def seconds_left(self) -> float:
        """0 where the model may be asked."""
        return max(self._until - trio.current_time(), 0.0) if self._until else 0.0

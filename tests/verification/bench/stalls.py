"""How long an event loop was stuck: a timer inside the server that says how late it was at most."""

from __future__ import annotations

import re

TICK_SECONDS = 0.002
_WANTED = re.compile(r"stalls of (\d{1,4}) s")


def question(seconds: int) -> str:
    """The user's words that start the timer for so long; the answer is the longest stall in seconds."""
    return f"Tell me the stalls of {seconds} s"


def wanted_seconds(text: str) -> int:
    """For how long a text wants stalls to be looked for; 0 where it does not."""
    found = _WANTED.search(text)
    return int(found[1]) if found else 0


class StallMeter:
    """A timer that is due every two milliseconds. Times are the loop's own clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._began = now
        self.due = now + TICK_SECONDS
        self.longest = 0.0

    def over(self, seconds: float) -> bool:
        return self.due > self._began + seconds

    def woke(self, now: float) -> None:
        self.longest = max(self.longest, now - self.due)
        self.due = now + TICK_SECONDS

    def __str__(self) -> str:
        return f"{self.longest:.6f}"

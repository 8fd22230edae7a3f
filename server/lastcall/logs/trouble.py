"""Something that fails again and again is logged once."""

from __future__ import annotations


class Trouble:
    """What a loop failed with last.

    last: its text; empty: it has not failed since it last succeeded.
    """

    def __init__(self) -> None:
        self.last = ""

    def is_new(self, error: Exception) -> bool:
        """Whether it failed with something else before, or with nothing. Remembers the error."""
        before, self.last = self.last, str(error)
        return self.last != before

    def over(self) -> None:
        """It has succeeded."""
        self.last = ""

"""What the agents of all servers are asked for, and say: N deltas, some milliseconds apart."""

from __future__ import annotations

import re
from typing import NamedTuple

_WANTED = re.compile(r"\((\d{1,4}) deltas, (\d{1,4}) ms\)")
FACT = "My name is Ada. "  # what there is to remember in a session, for rules that read what users say of themselves


class Answer(NamedTuple):
    """deltas: how many. pause_ms: before each of them; 0: only the event loop has its turn."""

    deltas: int
    pause_ms: int = 0

    @property
    def question(self) -> str:
        """The user's words that ask for this answer."""
        return f"{FACT}Please answer me. ({self.deltas} deltas, {self.pause_ms} ms)"

    def pieces(self) -> list[str]:
        """The deltas: 9 characters each."""
        return [f"answer {number % 100:02}" for number in range(self.deltas)]


def wanted_answer(text: str) -> Answer:
    """The answer that a text asks for; one delta where it names none."""
    found = _WANTED.search(text)
    return Answer(int(found[1]), int(found[2])) if found else Answer(1)

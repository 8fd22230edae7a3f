"""What the checks found: how often each promise was broken, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ...promises import Promise

EXAMPLES_MAX = 5  # of each promise

Span = list[float]
"""Begin and end of something, in virtual seconds."""


class Findings:
    """broken: how often, by promise. examples: the first few of each."""

    def __init__(self) -> None:
        self.broken: Counter[Promise] = Counter()
        self.examples: list[str] = []

    def add(self, promise: Promise, example: str) -> None:
        self.broken[promise] += 1
        if self.broken[promise] <= EXAMPLES_MAX:
            self.examples.append(f"{promise}: {example}")


def overlap(spans: Iterable[Span], start: float, end: float) -> bool:
    """Whether any of the spans touches the time from start to end."""
    return any(begin <= end and start <= over for begin, over in spans)

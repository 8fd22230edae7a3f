"""What others do, for comparison: BM25 over single turns, and the newest messages."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from .samples import Sample

LAST_MESSAGES = 50
K1, B = 1.2, 0.75
_WORDS = re.compile(r"\w+")


class Bm25:
    """Okapi BM25 over the words of each turn, in lower case."""

    def __init__(self, sample: Sample) -> None:
        turns = [turn for session in sample.sessions for turn in session.turns]
        self._ids = [turn.item_id for turn in turns]
        self._counts = [Counter(_WORDS.findall(turn.text.lower())) for turn in turns]
        self._lengths = [counts.total() for counts in self._counts]
        self._mean = sum(self._lengths) / max(len(turns), 1)
        self._found_in = Counter(word for counts in self._counts for word in counts)

    def search(self, question: str, limit: int) -> Sequence[str]:
        """The ids of the best turns."""
        words = set(_WORDS.findall(question.lower())) & self._found_in.keys()
        rarity = {
            word: math.log(1 + (len(self._ids) - self._found_in[word] + 0.5) / (self._found_in[word] + 0.5))
            for word in words
        }
        scores = [
            sum(
                rarity[word] * counts[word] * (K1 + 1) / (counts[word] + K1 * (1 - B + B * length / self._mean))
                for word in words & counts.keys()
            )
            for counts, length in zip(self._counts, self._lengths, strict=True)
        ]
        best = sorted((index for index in range(len(scores)) if scores[index]), key=lambda index: -scores[index])
        return [self._ids[index] for index in best[:limit]]


def last_messages(sample: Sample) -> Sequence[str]:
    """The ids of the newest messages."""
    return [turn.item_id for session in sample.sessions for turn in session.turns][-LAST_MESSAGES:]

"""Ranks turns by words and by meaning together. Pure.

Both scores are made comparable by how much they vary over the turns of the user's past, and added. Words count as far
as they cover the question: where one of its words is found of four, that one says little, however rare it is in a short
past. A turn's meaning is that of its neighbours, too: an answer often stands a turn or two behind its question.
Reciprocal ranks, which need no scale, were measured to be worse: docs/memory.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log, sqrt

from ...store.people.meanings import MeaningResult, MeantPassage
from ...store.records import SearchResult
from .indexing import BY_USER
from .ranking import Ranked, scores_of, share_of

MEANING_SHARE = 0.45
COVERED_IN_FULL = 0.33  # of what a question's words weigh: near a turn that has so much of it, words count in full
# How much the meaning of a turn one and two further on, or before, counts. The next one only where somebody else says
# it: what one person says in a row, such as a list of facts, is about different things.
NEIGHBOURS = (0.45, 0.2)
# What the nearest of so many turns must exceed for a question to be about the past. The more turns there are, the
# nearer is the nearest one by chance.
NEARNESS_MIN = 0.23
NEARNESS_GROWTH = 0.043


def fuse(found: SearchResult, meant: MeaningResult, limit: int, *, of_user: float, of_agent: float) -> list[Ranked]:
    """The best turns, best first. of_user, of_agent: see `ranking.rank`."""
    by_words = {
        (each.passage_id, each.turn): each
        for passage in found.passages
        for each in scores_of(found.asked, passage, of_user, of_agent)
    }
    unit = _deviation([each.score for each in by_words.values()], meant.turns) or 1.0
    unit /= _words_share(found, by_words.values())
    scores = {place: each.score / unit for place, each in by_words.items()}
    for passage_id, passage in meant.passages.items():
        for turn, nearness in enumerate(_smoothed(passage, meant)):
            share = MEANING_SHARE * share_of(passage.flags[turn], of_user, of_agent)
            scores[passage_id, turn] = scores.get((passage_id, turn), 0.0) + share * nearness
    best = sorted(scores, key=lambda place: (-scores[place], -place[0], place[1]))[:limit]
    return [Ranked(scores[place], *place, by_words[place].covered if place in by_words else 0.0) for place in best]


def is_meant(meant: MeaningResult) -> bool:
    """Whether the nearest turn is nearer than by chance."""
    return meant.turns > 0 and meant.nearest >= NEARNESS_MIN + NEARNESS_GROWTH * log(meant.turns)


def nearness_of(meant: MeaningResult, ranked: Ranked) -> float | None:
    """The cosine of a turn and the question; None where it is not known."""
    passage = meant.passages.get(ranked.passage_id)
    return passage.nearness.get(ranked.turn) if passage is not None else None


def _smoothed(passage: MeantPassage, meant: MeaningResult) -> list[float]:
    """For each turn, in standard deviations above the mean; a turn without a meaning is average."""
    nearness: Mapping[int, float] = passage.nearness
    scale = 1 / meant.deviation if meant.deviation else 0.0
    own = [(nearness[turn] - meant.mean) * scale if turn in nearness else 0.0 for turn in range(len(passage.flags))]
    smoothed = own.copy()
    for distance, share in enumerate(NEIGHBOURS, 1):
        for turn in range(distance, len(own)):
            if distance == 1 and not (passage.flags[turn] ^ passage.flags[turn - 1]) & BY_USER:
                continue
            smoothed[turn] += share * own[turn - distance]
            smoothed[turn - distance] += share * own[turn]
    return smoothed


def _words_share(found: SearchResult, ranked: Iterable[Ranked]) -> float:
    """How much words count: of what they weigh in sum, as much as the best turn has. Never 0."""
    asked = sum(word.rarity for word in found.asked.values())
    covered = max((each.covered for each in ranked), default=0.0)
    return min(covered / (COVERED_IN_FULL * asked), 1.0) if covered else 1.0


def _deviation(scores: list[float], turns: int) -> float:
    """The standard deviation over all turns: those without a score have 0."""
    count = max(turns, len(scores), 1)
    mean = sum(scores) / count
    return sqrt(max(sum(score * score for score in scores) / count - mean * mean, 0.0))

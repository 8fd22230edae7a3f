"""Ranks the turns of a user's past for a question. Pure.

A word of the question counts once for each turn: at its nearest mention in the same session, since an answer often
stands a turn or two behind the words of the question. To that comes how much the whole session is about it. Measured
on conversations of others: docs/memory.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...store.records import AskedWord, FoundPassage
from .indexing import ASKS, BY_USER, TURN

# How much a mention counts for a turn that stands so many turns behind it, or before it.
BEHIND = (0.7, 0.5, 0.35, 0.2, 0.1)
BEFORE = (0.55, 0.35, 0.2, 0.1)
NEARBY = (
    (0, 1.0),
    *((distance, share) for distance, share in enumerate(BEHIND, 1)),
    *((-distance, share) for distance, share in enumerate(BEFORE, 1)),
)
MARGIN = len(BEHIND)  # the larger of the two: so far a mention reaches out of its passage
WEIGHT_UNIT = 100  # the index holds weights as whole numbers
SESSION_SHARE = 0.3
NAMED_SHARE = 1.35  # for turns of the one whom the question names
QUESTION_SHARE = 0.8  # for turns that are questions themselves
KNOWN_WORDS_MIN = 2
COVERAGE_MIN = 0.25


@dataclass(frozen=True, slots=True)
class Ranked:
    """A turn, by its number in its passage. covered: the rarities, in sum, of the words that are near it."""

    score: float
    passage_id: int
    turn: int
    covered: float


def rank(
    asked: Mapping[int, AskedWord],
    passages: Iterable[FoundPassage],
    limit: int,
    *,
    of_user: float = 1,
    of_agent: float = 1,
) -> list[Ranked]:
    """The best turns, best first.

    of_user, of_agent: what the scores of their turns are multiplied with; see `NAMED_SHARE`.
    """
    best: list[Ranked] = []
    for passage in sorted(passages, key=lambda passage: -passage.at_most):
        # Passages come by what they could reach at most: none of the rest can get in.
        if len(best) >= limit and passage.at_most * max(of_user, of_agent) <= best[limit - 1].score:
            break
        best += scores_of(asked, passage, of_user, of_agent)
        best.sort(key=lambda ranked: (-ranked.score, -ranked.passage_id, ranked.turn))
        del best[limit:]
    return best


def calls_for_memory(asked: Mapping[int, AskedWord], content: Collection[int], ranked: Sequence[Ranked]) -> bool:
    """Whether a question is about the user's past: the best turns have enough of its words, and not courtesies only.

    content: the numbers of the words that are none.
    """
    known = sum(word.known for number, word in asked.items() if number in content)
    covered = max((turn.covered for turn in ranked), default=0.0)
    return known >= KNOWN_WORDS_MIN and covered >= COVERAGE_MIN * sum(word.rarity for word in asked.values())


def words_near(passage: FoundPassage, turn: int) -> list[int]:
    """The numbers of the words that count for a turn."""
    turns = len(passage.flags)
    return [number for number, mentions in passage.mentions.items() if _nearest(mentions, turns)[turn]]


def scores_of(asked: Mapping[int, AskedWord], passage: FoundPassage, of_user: float, of_agent: float) -> list[Ranked]:
    """The turns of one passage that are near a word of the question."""
    turns = len(passage.flags)
    sums, covered = [0.0] * turns, [0.0] * turns
    for number, mentions in passage.mentions.items():
        rarity = asked[number].rarity
        nearest = _nearest(mentions, turns)
        for turn in range(turns):
            if weight := nearest[turn]:
                sums[turn] += rarity * weight
                covered[turn] += rarity * min(weight, 1.0)
    topic = SESSION_SHARE * passage.topic
    return [
        Ranked(
            (sums[turn] + topic) * share_of(flags, of_user, of_agent),
            passage.passage_id,
            turn,
            covered[turn],
        )
        for turn, flags in enumerate(passage.flags)
        if sums[turn]
    ]


def share_of(flags: int, of_user: float, of_agent: float) -> float:
    """What the score of a turn with these flags is multiplied with."""
    return (of_user if flags & BY_USER else of_agent) * (QUESTION_SHARE if flags & ASKS else 1.0)


def _nearest(mentions: Sequence[Sequence[int]], turns: int) -> list[float]:
    """The weight of a word for each turn: of its mention that counts most there."""
    nearest = [0.0] * (turns + MARGIN)  # what reaches out at either end lands in the margin
    for of_key in mentions:
        for mention in of_key:
            turn, weight = mention // TURN, mention % TURN / WEIGHT_UNIT
            for distance, share in NEARBY:
                if weight * share > nearest[turn + distance]:
                    nearest[turn + distance] = weight * share
    return nearest

"""Says why a message brings turns of the user's past back: by which words, and how they score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...store.records import PastTurn
from ...store.store import Store
from ..meaning.encoder import Encode
from .fusing import nearness_of
from .ranking import words_near
from .recalling import Question, find_turns, read_harmless
from .words import MARK


@dataclass(frozen=True, slots=True)
class ExplainedTurn:
    """A turn with its score, and the message's words that it or its neighbours have, the rarest first.

    nearness: of its meaning to the message's, from -1 to 1; None where only words are compared.
    """

    turn: PastTurn
    score: float
    words: Sequence[str]
    nearness: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best turns, best first. comes_back: whether the message is about the past, so that the agent gets them."""

    comes_back: bool
    turns: Sequence[ExplainedTurn]


async def explain(
    store: Store, user_id: str, question: Question, limit: int, encode: Encode | None = None
) -> Explanation:
    """What a message brings back, and why. A statement for each turn: people ask for this, not every message.

    encode: see `recall_turns`.

    Raises:
        StoreError: The database does not answer.
    """
    findings = await find_turns(store, user_id, question, limit, encode)
    asked, passages = findings.found.asked, {passage.passage_id: passage for passage in findings.found.passages}
    explained = []
    for each in findings.ranked:
        passage = passages.get(each.passage_id)
        numbers = words_near(passage, each.turn) if passage is not None else ()
        rarest_first = sorted(numbers, key=lambda number: -asked[number].rarity)
        words = [
            question.words[number].text or question.words[number].key.removeprefix(MARK) for number in rarest_first
        ]
        nearness = nearness_of(findings.meant, each) if findings.meant is not None else None
        turns = await read_harmless(store, user_id, [(each.passage_id, each.turn)])
        explained += [ExplainedTurn(turn, each.score, words, nearness) for turn in turns]
    return Explanation(findings.calls, explained)

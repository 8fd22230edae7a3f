"""Says why a message brings turns of the user's past back: by which words, and how they score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...store.records import PastTurn
from ...store.store import Store
from .ranking import calls_for_memory, rank, words_near
from .recalling import PASSAGES_MAX, Question, read_harmless
from .words import MARK


@dataclass(frozen=True, slots=True)
class ExplainedTurn:
    """A turn with its score, and the message's words that it or its neighbours have, the rarest first."""

    turn: PastTurn
    score: float
    words: Sequence[str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best turns, best first. comes_back: whether the message is about the past, so that the agent gets them."""

    comes_back: bool
    turns: Sequence[ExplainedTurn]


async def explain(store: Store, user_id: str, question: Question, limit: int) -> Explanation:
    """What a message brings back, and why. A statement for each turn: people ask for this, not every message.

    Raises:
        StoreError: The database does not answer.
    """
    if not question.words:
        return Explanation(comes_back=False, turns=())
    keys = [(word.text, word.key) for word in question.words]
    found = await store.search_turns(user_id, keys, question.stemmer, PASSAGES_MAX)
    ranked = rank(found.asked, found.passages, limit, of_user=question.of_user, of_agent=question.of_agent)
    passages = {passage.passage_id: passage for passage in found.passages}
    explained = []
    for each in ranked:
        numbers = words_near(passages[each.passage_id], each.turn)
        rarest_first = sorted(numbers, key=lambda number: -found.asked[number].rarity)
        words = [
            question.words[number].text or question.words[number].key.removeprefix(MARK) for number in rarest_first
        ]
        turns = await read_harmless(store, user_id, [(each.passage_id, each.turn)])
        explained += [ExplainedTurn(turn, each.score, words) for turn in turns]
    return Explanation(bool(ranked) and calls_for_memory(found.asked, question.content, ranked), explained)

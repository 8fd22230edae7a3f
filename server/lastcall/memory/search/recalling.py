"""Finds what was said in a user's past that belongs to a question."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from ...store.records import PastTurn, RememberedFact
from ...store.store import Store
from ..facts.redaction import SECRET_CHARS_READ, redacted_start
from .languages import (
    COURTESIES,
    FIRST_PERSON,
    FIRST_PERSON_SIGNS,
    LANGUAGES,
    SECOND_PERSON,
    SECOND_PERSON_SIGNS,
    english_month,
    language_of,
)
from .ranking import KNOWN_WORDS_MIN, NAMED_SHARE, calls_for_memory, rank
from .words import Word, dated, plain, words_of

QUESTION_CHARS_MAX = 2_000  # of a question: its end, where a long text says what it is about
WORDS_MAX = 48  # of a question that are looked up, the last ones
PASSAGES_MAX = 24  # that are ranked turn by turn
TURNS_MAX = 12  # that are read, unasked: some are in the context already
TEXT_CHARS_MAX = 300  # of the beginning of one turn
NAMES_CHARS_MAX = 1_000  # of what the user said about their name

_NAME = re.compile(r"[^\W\d_]+")
_COMMON = frozenset().union(*(language.common for language in LANGUAGES), ["name", "call", "called"])


@dataclass(frozen=True, slots=True)
class Names:
    """What the user and the agent are called, in lower case. "I" and "my" always mean the user, "you" the agent."""

    user: Collection[str] = field(default=())
    agent: Collection[str] = field(default=())


NOBODY = Names()


def names_of(facts: Iterable[RememberedFact]) -> Names:
    """What the user is called, from their own words, such as "My name is Ada."."""
    told = " ".join(fact.content for fact in facts if fact.kind == "name")
    capitalised = {word.casefold() for word in _NAME.findall(told[:NAMES_CHARS_MAX]) if word[0].isupper()}
    return Names(user=capitalised - FIRST_PERSON - COURTESIES - _COMMON)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, taken apart.

    content: the numbers of the words that are more than courtesies. of_user, of_agent: what the scores of their turns
    are multiplied with.
    """

    words: Sequence[Word]
    content: Collection[int]
    stemmer: str | None
    of_user: float
    of_agent: float


def question_of(text: str, names: Names = NOBODY) -> Question:
    """Takes a question apart. Bounded: it runs on the event loop."""
    text = text[-QUESTION_CHARS_MAX:]
    spoken = plain(text)
    language = language_of(spoken)
    months = [month for word in dated(text) if (month := english_month(word, language))]
    words = [*words_of(text, language, known=language is not None), *(Word(month, "") for month in months)]
    words = list(dict.fromkeys(words))[-WORDS_MAX:]
    heard = {word.removesuffix("'s").removesuffix("’s") for word in spoken}
    user = not heard.isdisjoint(names.user)
    agent = not heard.isdisjoint(names.agent)
    if not (user or agent):
        user = not heard.isdisjoint(FIRST_PERSON) or any(sign in text for sign in FIRST_PERSON_SIGNS)
        agent = not user and (not heard.isdisjoint(SECOND_PERSON) or any(sign in text for sign in SECOND_PERSON_SIGNS))
    return Question(
        words=words,
        content={number for number, word in enumerate(words) if word.text not in COURTESIES},
        stemmer=language.stemmer if language else None,
        of_user=NAMED_SHARE if user else 1.0,
        of_agent=NAMED_SHARE if agent else 1.0,
    )


async def recall_turns(store: Store, user_id: str, question: Question) -> Sequence[PastTurn]:
    """The best turns of the user's past without secrets, best first; none where the question does not call for them.

    Raises:
        StoreError: The database does not answer.
    """
    if len(question.content) < KNOWN_WORDS_MIN:
        return ()
    return await _found(store, user_id, question, TURNS_MAX, unasked=True)


async def search_turns(store: Store, user_id: str, question: Question, limit: int) -> Sequence[PastTurn]:
    """The best `limit` turns of the user's past, best first, for whoever asks for a search. Raises `StoreError`."""
    return await _found(store, user_id, question, limit, unasked=False)


async def _found(store: Store, user_id: str, question: Question, limit: int, *, unasked: bool) -> Sequence[PastTurn]:
    if not question.words:
        return ()
    found = await store.search_turns(
        user_id, [(word.text, word.key) for word in question.words], question.stemmer, PASSAGES_MAX
    )
    ranked = rank(found.asked, found.passages, limit, of_user=question.of_user, of_agent=question.of_agent)
    if not ranked or (unasked and not calls_for_memory(found.asked, question.content, ranked)):
        return ()
    return await read_harmless(store, user_id, [(turn.passage_id, turn.turn) for turn in ranked])


async def read_harmless(store: Store, user_id: str, places: Sequence[tuple[int, int]]) -> Sequence[PastTurn]:
    """The turns at these places, each a passage and a number, without secrets. Raises `StoreError`."""
    turns = await store.read_turns(user_id, places, TEXT_CHARS_MAX + SECRET_CHARS_READ)
    return [replace(turn, text=redacted_start(turn.text, TEXT_CHARS_MAX)) for turn in turns]

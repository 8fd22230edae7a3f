"""Finds what was said in a user's past that belongs to a question."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import structlog
import trio

from ...store.errors import StoreError
from ...store.people.meanings import MeaningResult
from ...store.records import PastTurn, RememberedFact, SearchResult
from ...store.store import Store
from ..facts.redaction import SECRET_CHARS_READ, redacted_start
from ..meaning.encoder import TEXT_CHARS_MAX, Encode
from .fusing import fuse, is_meant
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
from .ranking import KNOWN_WORDS_MIN, NAMED_SHARE, Ranked, calls_for_memory, rank
from .words import Word, dated, plain, words_of

QUESTION_CHARS_MAX = 2_000  # of a question: its end, where a long text says what it is about
WORDS_MAX = 48  # of a question that are looked up, the last ones
PASSAGES_MAX = 24  # that are ranked turn by turn
TURNS_MAX = 12  # that are read, unasked: some are in the context already
SHOWN_CHARS_MAX = 300  # of the beginning of one turn
MEANT_PASSAGES_MAX = 8  # that are ranked, too, for turns that mean what the question does
MEANING_SECONDS = 0.5  # for the search by meaning
READ_SECONDS = 0.015  # that it leaves of the time that there is: for reading what words have found
NAMES_CHARS_MAX = 1_000  # of what the user said about their name

_log = structlog.get_logger(__name__)

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

    text: its end. content: the numbers of the words that are more than courtesies. of_user, of_agent: what the scores
    of their turns are multiplied with.
    """

    text: str
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
        text=text,
        words=words,
        content={number for number, word in enumerate(words) if word.text not in COURTESIES},
        stemmer=language.stemmer if language else None,
        of_user=NAMED_SHARE if user else 1.0,
        of_agent=NAMED_SHARE if agent else 1.0,
    )


@dataclass(frozen=True, slots=True)
class Findings:
    """The best turns for a question, best first. calls: whether it is about the past. meant: None: by words only."""

    found: SearchResult
    meant: MeaningResult | None
    ranked: Sequence[Ranked]
    calls: bool


NOTHING = Findings(SearchResult({}, ()), None, (), calls=False)


async def recall_turns(
    store: Store, user_id: str, question: Question, encode: Encode | None = None
) -> Sequence[PastTurn]:
    """The best turns of the user's past without secrets, best first; none where the question does not call for them.

    encode: of questions, where turns are found by meaning, too.

    Raises:
        StoreError: The database does not answer.
    """
    if len(question.content) < (KNOWN_WORDS_MIN if encode is None else 1):
        return ()
    findings = await find_turns(store, user_id, question, TURNS_MAX, encode)
    return await _read(store, user_id, findings) if findings.calls else ()


async def search_turns(
    store: Store, user_id: str, question: Question, limit: int, encode: Encode | None = None
) -> Sequence[PastTurn]:
    """The best `limit` turns of the user's past, best first, for whoever asks for a search. Raises `StoreError`."""
    return await _read(store, user_id, await find_turns(store, user_id, question, limit, encode))


async def find_turns(store: Store, user_id: str, question: Question, limit: int, encode: Encode | None) -> Findings:
    """Where the best `limit` turns are. Raises `StoreError`."""
    if not question.words and (encode is None or not question.text.strip()):
        return NOTHING
    words = [(word.text, word.key) for word in question.words]
    found = await store.search_turns(user_id, words, question.stemmer, PASSAGES_MAX) if words else SearchResult({}, ())
    meant = await _meant(store, user_id, question, found, encode) if encode is not None else None
    of_whom = {"of_user": question.of_user, "of_agent": question.of_agent}
    if meant is None:
        ranked = rank(found.asked, found.passages, limit, **of_whom)
    else:
        ranked = fuse(found, meant, limit, **of_whom)
    by_words = calls_for_memory(found.asked, question.content, ranked)
    return Findings(found, meant, ranked, bool(ranked) and (by_words or (meant is not None and is_meant(meant))))


async def _meant(
    store: Store, user_id: str, question: Question, found: SearchResult, encode: Encode
) -> MeaningResult | None:
    """None where that takes too long, or cannot be had: words have to do."""
    until = min(trio.current_time() + MEANING_SECONDS, trio.current_effective_deadline() - READ_SECONDS)
    with trio.move_on_at(until):
        vectors = await encode([question.text[-TEXT_CHARS_MAX:]])
        if not vectors:
            return None
        try:
            among = [passage.passage_id for passage in found.passages]
            meant = await store.search_meanings(user_id, vectors[0], among, MEANT_PASSAGES_MAX)
        except StoreError as error:
            _log.debug("past_not_searched_by_meaning", error=str(error))
            return None
        return meant if meant.turns else None
    return None


async def _read(store: Store, user_id: str, findings: Findings) -> Sequence[PastTurn]:
    places = [(turn.passage_id, turn.turn) for turn in findings.ranked]
    return await read_harmless(store, user_id, places) if places else ()


async def read_harmless(store: Store, user_id: str, places: Sequence[tuple[int, int]]) -> Sequence[PastTurn]:
    """The turns at these places, each a passage and a number, without secrets. Raises `StoreError`."""
    turns = await store.read_turns(user_id, places, SHOWN_CHARS_MAX + SECRET_CHARS_READ)
    return [replace(turn, text=redacted_start(turn.text, SHOWN_CHARS_MAX)) for turn in turns]
